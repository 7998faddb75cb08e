package config

import (
	"baton/internal/core/cluster"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// maxErrors bounds how many errors one Parse reports; the rest is counted.
const maxErrors = 100

// maxShown bounds how many characters of a source line an error shows.
const maxShown = 160

// Error is one thing that is wrong in a cluster file.
type Error struct {
	File       string
	Line       int // from 1
	Column     int // in characters, from 1
	SourceLine string
	Message    string
	Hint       string // what to write instead; may be empty
}

// Error returns the place, the message, the source line with a mark below the column, and the hint.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
	shown := []rune(e.SourceLine)
	if len(shown) > 0 && e.Column <= len(shown)+1 {
		from := max(0, e.Column-maxShown/2)
		column := e.Column - from
		shown = shown[from:min(len(shown), from+maxShown)]
		line := strings.TrimRight(strings.Map(printable, string(shown)), " ")
		fmt.Fprintf(&b, "\n%5d | %s\n      | %s^", e.Line, line, strings.Repeat(" ", column-1))
	}
	if e.Hint != "" {
		b.WriteString("\nhint: " + e.Hint)
	}
	return b.String()
}

// printable keeps a file's control characters away from the terminal that shows the error.
func printable(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case unicode.IsControl(r):
		return '?'
	}
	return r
}

// Errors is everything that is wrong in a cluster file, in the file's order; never empty as an error.
type Errors []*Error

// Error returns all errors, one below the other.
func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = one.Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap gives errors.As and errors.Is each single error.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, one := range e {
		errs[i] = one
	}
	return errs
}

// position is a place in the file; line and column count from 1, columns in characters.
type position struct{ line, column int }

// complaints collects errors while a file is read.
type complaints struct {
	file  string
	lines []string
	errs  Errors
}

// fail notes an error. The message comes from format and args; an empty hint is left out.
func (c *complaints) fail(at position, hint, format string, args ...any) {
	e := &Error{File: c.file, Line: max(at.line, 1), Column: max(at.column, 1), Message: fmt.Sprintf(format, args...), Hint: hint}
	if e.Line <= len(c.lines) {
		e.SourceLine = c.lines[e.Line-1]
	}
	c.errs = append(c.errs, e)
}

// result returns the errors in the file's order, each once, or nil if there are none.
func (c *complaints) result() error {
	if len(c.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(c.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	errs := slices.CompactFunc(c.errs, func(a, b *Error) bool { return *a == *b })
	if more := len(errs) - maxErrors; more > 0 {
		last := errs[maxErrors]
		last.Message += fmt.Sprintf(" (and %d more errors below)", more-1)
		errs = errs[:maxErrors+1]
	}
	return errs
}

// didYouMean returns the hint to write the known word that is nearest to the one written, or the list
// of all known words where none is near.
func didYouMean(written string, known []string) string {
	if len(written) > 64 {
		return oneOf(known)
	}
	best, at := "", max(1, len(written)/3)+1
	for _, k := range known {
		if d := cluster.Distance(strings.ToLower(written), k); d < at {
			best, at = k, d
		}
	}
	for _, k := range known {
		if best == "" && len(written) >= 3 && strings.HasPrefix(k, written) {
			best = k
		}
	}
	if best != "" {
		return write(best)
	}
	return oneOf(known)
}

func write(word string) string { return fmt.Sprintf("write %q", word) }

func oneOf(known []string) string {
	switch len(known) {
	case 0:
		return ""
	case 1:
		return "known here: " + known[0]
	}
	return "known here: " + strings.Join(known[:len(known)-1], ", ") + " and " + known[len(known)-1]
}
