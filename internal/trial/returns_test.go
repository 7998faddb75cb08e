package trial

import (
	"strings"
	"syscall"
	"testing"
)

// TestReturnsThatDoNotLast: the group's program ends right after each return to the preferred node. The next return waits
// for longer each time, explain says so, and whoever clears the group ends that.
func TestReturnsThatDoNotLast(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Failback: "{ mode: automatic, after: 1s }"})
	fails := func() {
		t.Helper()
		c.eventually("web serves on alpha", func() bool { g := c.placed(Gamma, Group); return g.Serving && g.Owner == Alpha })
		c.must(syscall.Kill(c.serviceRuns(Alpha), syscall.SIGKILL))
		c.eventually("web serves on beta", func() bool { g := c.placed(Gamma, Group); return g.Serving && g.Owner == Beta })
	}
	says := func(text string) {
		t.Helper()
		c.eventually("explain says "+text, func() bool { return strings.Contains(c.run(Gamma, "explain", Group), text) })
	}
	fails()
	says("failback automatic after 1s\n")
	fails()
	says("failback automatic after 2s (1s, and longer since one before did not last)")
	fails()
	says("failback automatic after 4s (1s, and longer since the last 2 did not last)")
	c.run(Gamma, "clear", Group)
	says("failback automatic after 1s\n")
}
