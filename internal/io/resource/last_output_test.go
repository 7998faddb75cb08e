package resource

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLastOutputIsOfThisStart: what a former program has written is not told as the last output of this one, and a line
// without a letter or digit says nothing.
func TestLastOutputIsOfThisStart(t *testing.T) {
	b := newBench(t, spec(`[ "$BATON_EPOCH" = 2 ] || printf 'address already in use\n-------\n\n'; exec sleep 1000`, nil))
	for _, want := range []bool{true, false, true} {
		b.start(b.p.state.Highest + 1)
		until(t, "its output", func() bool { return !want || lastLine(Output(b.env), b.p.state.From) != "" })
		unix.Kill(b.pid(), unix.SIGKILL)
		c := b.next()
		if got := strings.HasSuffix(c.reason, ", last output: address already in use"); got != want || !want && strings.Contains(c.reason, "in use") {
			t.Errorf("want %v, told %q", want, c.reason)
		}
	}
}
