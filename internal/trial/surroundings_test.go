package trial

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/lab"
)

// A ban is a preference: the program died twice on alpha, which is kept off for that; then beta loses power, and
// alpha, where the program could start all along, serves.
func TestBannedNodeIsBetterThanNone(t *testing.T) {
	c := start(t, Options{Cold: true})
	for range 2 {
		c.must(c.AwaitServing(Alpha, limit))
		c.must(syscall.Kill(c.serviceRuns(Alpha), syscall.SIGKILL))
		time.Sleep(slack)
	}
	c.must(c.AwaitServing(Beta, limit))
	if text := c.run(Gamma, "status"); !strings.Contains(text, "kept off alpha") {
		t.Errorf("status does not show the ban:\n%s", text)
	}
	c.failsOver(Alpha, c.at(c.Host(Beta).PowerOff))
}

// What is around the group failed, not the group: somebody takes the address off alpha again and again, as
// restarts of its network do. The group moves, and alpha is fit for it again at once.
func TestAddressTakenAway(t *testing.T) {
	c := start(t, Options{Cold: true})
	for tries := 0; c.group(Gamma).Owner == Alpha; tries++ {
		if tries == 10 {
			t.Fatal("the group stays on alpha whatever happens to its address")
		}
		if c.holdsVIP(Alpha) {
			c.shell(Alpha, "ip addr del 10.77.0.50/24 dev lan || true") // the group may just have moved
		}
		time.Sleep(slack)
	}
	c.must(c.AwaitServing(Beta, limit))
	c.eventually("alpha is kept off no longer", func() bool { return !strings.Contains(c.run(Gamma, "status"), "kept off alpha") })
	c.failsOver(Alpha, c.at(c.Host(Beta).PowerOff))
}

// An agent that was killed finds its group's address up when it starts again, and adopts it. It watches it like one
// that it has brought up: taken away, it is missed at once.
func TestAdoptedAddressTakenAway(t *testing.T) {
	c := start(t, Options{})
	pid := c.serviceRuns(Alpha)
	c.undisturbed("alpha's agent is killed", 2*c.takeover(), c.Agent(Alpha).Process().Kill)
	c.must(c.AwaitServing(Alpha, limit))
	c.sameService(Alpha, pid)
	c.shell(Alpha, "ip addr del 10.77.0.50/24 dev lan")
	taken := lab.Now()
	c.must(c.probe.Await(limit, func(r lab.Record) bool { return r.AnsweredSince(taken, "") }))
}
