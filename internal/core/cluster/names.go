package cluster

import (
	"fmt"
	"strings"
)

const (
	choiceMax = 20 // how many names a hint lists at most
	nearMax   = 64 // bytes of a name that is compared with others; a longer one is near to none
)

// Choice is the hint for who has written a name that is none of those known: which of them is near, and which there are.
func Choice[T ~string](things, written string, known []T) string {
	if len(known) == 0 {
		return fmt.Sprintf("there are no %s yet", things)
	}
	names, near, at := make([]string, len(known)), "", max(1, len(written)/3)+1
	for i, k := range known {
		names[i] = string(k)
		if len(written) > nearMax {
			continue
		}
		if d := Distance(strings.ToLower(written), names[i]); d < at {
			near, at = names[i], d
		}
	}
	list := "the " + things + " are: " + strings.Join(names[:min(len(names), choiceMax)], ", ")
	if more := len(names) - choiceMax; more > 0 {
		list += fmt.Sprintf(", and %d more, which baton status lists", more)
	}
	if near == "" {
		return list
	}
	return fmt.Sprintf("did you mean %s? %s", near, list)
}

// Distance is the number of single letters to insert, delete, replace or swap with a neighbour that
// turn a into b (optimal string alignment).
func Distance(a, b string) int {
	older, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		older, prev, row = prev, row, older
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := prev[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(prev[j]+1, row[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
