package app

import (
	"fmt"
	"strings"
)

// diffLine is one line of a comparison of two texts.
type diffLine struct {
	sign byte // ' ' in both, '-' only in the former, '+' only in the latter
	text string
}

// diffCells bounds the work of a comparison; beyond it, what lies between the first and the last difference
// counts as changed altogether.
const diffCells = 4 << 20

// diffLines compares two texts line by line: the longest common subsequence stays.
func diffLines(before, after string) (out []diffLine) {
	a, b := splitLines(before), splitLines(after)
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	for _, line := range a[:head] {
		out = append(out, diffLine{' ', line})
	}
	out = append(out, diffMiddle(a[head:len(a)-tail], b[head:len(b)-tail])...)
	for _, line := range a[len(a)-tail:] {
		out = append(out, diffLine{' ', line})
	}
	return out
}

func splitLines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

func diffMiddle(a, b []string) (out []diffLine) {
	width := len(b) + 1
	var most []int // most[i*width+j]: how many lines a[i:] and b[j:] have in common
	if (len(a)+1)*width <= diffCells {
		most = make([]int, (len(a)+1)*width)
		for i := len(a) - 1; i >= 0; i-- {
			for j := len(b) - 1; j >= 0; j-- {
				if a[i] == b[j] {
					most[i*width+j] = most[(i+1)*width+j+1] + 1
				} else {
					most[i*width+j] = max(most[(i+1)*width+j], most[i*width+j+1])
				}
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j] && most != nil:
			out = append(out, diffLine{' ', a[i]})
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || most == nil || most[(i+1)*width+j] >= most[i*width+j+1]):
			out = append(out, diffLine{'-', a[i]})
			i++
		default:
			out = append(out, diffLine{'+', b[j]})
			j++
		}
	}
	return out
}

// linesApart counts the lines that differ; one that was changed counts once.
func linesApart(before, after string) (n uint64) {
	var removed, added uint64
	for _, l := range append(diffLines(before, after), diffLine{sign: ' '}) {
		switch l.sign {
		case '-':
			removed++
		case '+':
			added++
		default:
			n += max(removed, added)
			removed, added = 0, 0
		}
	}
	// Nothing but the last line's end differs.
	if n == 0 && before != after {
		n = 1
	}
	return n
}

// diffContext is how many lines around a difference are shown.
const diffContext = 2

// hunks renders the differences with the lines around them, as diff -u does.
func (p palette) hunks(before, after string) string {
	lines := diffLines(before, after)
	shown := make([]bool, len(lines))
	for i, l := range lines {
		if l.sign != ' ' {
			for k := max(0, i-diffContext); k <= min(len(lines)-1, i+diffContext); k++ {
				shown[k] = true
			}
		}
	}
	var b strings.Builder
	number, gap := 0, true // of the line in the latter text
	for i, l := range lines {
		if l.sign != '-' {
			number++
		}
		if !shown[i] {
			gap = true
			continue
		}
		if gap {
			fmt.Fprintln(&b, p.text(dim, fmt.Sprintf("@@ line %d @@", max(number, 1))))
			gap = false
		}
		c := map[byte]colour{'-': red, '+': green}[l.sign]
		fmt.Fprintln(&b, p.text(c, string(l.sign)+l.text))
	}
	return b.String()
}
