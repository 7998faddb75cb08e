package state

import (
	"fmt"
	"strings"
	"testing"

	"baton/internal/core/cluster"
)

// The history is bounded in lines and in bytes: one line of a takeover of 500 groups is as long as 200 others.
func TestHistoryIsBounded(t *testing.T) {
	s := &State{}
	line := func(did int) cluster.Line {
		return cluster.Line{Index: s.Applied, Did: slicesOf(did, "assign "+strings.Repeat("g", 63)+" to beta as epoch 2")}
	}
	for s.Applied = 1; s.Applied <= 3*journalMax; s.Applied++ {
		s.keepLine(line(1))
	}
	if n := len(s.Journal); n != journalMax || s.Journal[n-1].Index != 3*journalMax {
		t.Fatalf("%d lines of one entry each are kept, the last of entry %d", n, s.Journal[n-1].Index)
	}
	for ; s.Applied <= 4*journalMax; s.Applied++ {
		s.keepLine(line(500))
	}
	size := 0
	for i := range s.Journal {
		size += length(&s.Journal[i])
	}
	if size > journalSize || size != s.lines || len(s.Journal) < 10 {
		t.Fatalf("%d lines of %d bytes, counted as %d", len(s.Journal), size, s.lines)
	}
	s.keepLine(line(100_000)) // longer than all that is kept: it stays all the same
	if len(s.Journal) != 1 {
		t.Fatalf("%d lines", len(s.Journal))
	}
}

func slicesOf(n int, text string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(text, i)
	}
	return out
}
