package trial

import (
	"testing"
	"time"
)

// hang stops a node's disk until the test has ended, or heal is called.
func (c *incident) hang(node string) (heal func()) {
	c.t.Helper()
	thaw, err := c.HangDisk(node)
	c.must(err)
	done := false
	heal = func() {
		if !done {
			done = true
			c.must(thaw())
		}
	}
	c.t.Cleanup(heal) // before the lab is closed: a program that waits for a disk can't be killed
	return heal
}

// The disk of a node that serves nothing hangs: leases need no disk, so nothing moves.
func TestDiskOfOthersHangs(t *testing.T) {
	c := start(t, Options{OwnDisk: true})
	c.coordinator(Beta)
	for _, node := range []string{Gamma, Beta} {
		heal := c.hang(node)
		c.undisturbed("the disk of "+node+" hangs", 3*c.takeover(), func() error { return nil })
		heal()
		c.must(c.AwaitServing(Alpha, limit))
	}
}

// The owner's disk hangs. After a lease length without an answer it calls itself sick, and hands over unasked,
// since it could not apply that it is told to: for its clients that is a switchover.
func TestDiskOfOwnerHangs(t *testing.T) {
	c := start(t, Options{OwnDisk: true})
	since := c.at(func() error { return nil })
	heal := c.hang(Alpha)
	gap := c.movesTo(Beta, since)
	if gap > handover {
		t.Errorf("an outage of %v, where a handover was possible", gap)
	}
	before := c.group(Beta)
	time.Sleep(2 * c.takeover())
	healed := c.at(func() error { heal(); return nil })
	c.must(c.AwaitServing(Beta, limit))
	c.noGap("the disk answers again", healed)
	c.sameEpoch("the disk answers again", before)
}
