package trial

import (
	"syscall"
	"testing"
	"time"
)

// The service dies on its node. A hot standby is ready, so the group moves at once, and status says that it
// is kept off the node where it failed.
func TestServiceCrashesHot(t *testing.T) {
	c := start(t, Options{Takeover: "3s"})
	c.serviceRuns(Beta)
	fault := c.at(func() error { return syscall.Kill(c.serviceRuns(Alpha), syscall.SIGKILL) })
	if gap := c.movesTo(Beta, fault); gap > handover {
		t.Errorf("an outage of %v, though the failure was seen at once", gap)
	}
	c.tellsOf("kept off alpha", Gamma, "status")
	c.must(c.AwaitServing(Beta, limit)) // alpha's service was started again, as a standby
}

// The standby is cold. The first crash is answered by a restart in place; the second one moves the group.
func TestServiceCrashesCold(t *testing.T) {
	c := start(t, Options{Cold: true})
	before := c.group(Alpha)
	first := c.serviceRuns(Alpha)
	fault := c.at(func() error { return syscall.Kill(first, syscall.SIGKILL) })
	if gap := c.movesTo(Alpha, fault); gap > slack {
		t.Errorf("the restart took the service away for %v", gap)
	}
	c.sameEpoch("the first crash", before)
	c.must(c.AwaitServing(Alpha, limit))
	second := c.serviceRuns(Alpha)
	if second == first {
		t.Fatal("the service was not started again")
	}
	fault = c.at(func() error { return syscall.Kill(second, syscall.SIGKILL) })
	if gap := c.movesTo(Beta, fault); gap > 2*time.Second {
		t.Errorf("the move took the service away for %v", gap)
	}
	c.tellsOf("kept off alpha", Gamma, "status")
}

// A hung standby: its service dies while nobody uses it. Nothing moves, it is started again.
func TestStandbyCrashes(t *testing.T) {
	c := start(t, Options{})
	pid := c.serviceRuns(Beta)
	c.undisturbed("the standby's service dies", 500*time.Millisecond, func() error { return syscall.Kill(pid, syscall.SIGKILL) })
	c.eventually("it is started again", func() bool {
		now, err := c.ServicePID(Beta)
		return err == nil && now != pid
	})
	c.must(c.AwaitServing(Alpha, limit))
}
