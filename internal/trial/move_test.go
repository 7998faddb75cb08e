package trial

import (
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/lab"
)

// Switchovers, as people ask for them, from any node; clients of both address families.
func TestSwitch(t *testing.T) {
	c := start(t, Options{Takeover: "3s"})
	six := c.ask(Client, VIP6)
	before := c.group(Alpha)
	if text := c.run(Gamma, "switch", Group, "--dry-run"); !strings.Contains(text, "would move to beta") {
		t.Errorf("the dry run says %q", text)
	}
	c.refused("gamma can't take web", Alpha, "switch", Group, "--to", Gamma)
	c.refused("omega can't take web", Beta, "switch", Group, "--to", "omega")
	c.says("web is on alpha already: nothing to do", Gamma, "switch", Group, "--to", Alpha)
	c.refused(`no group "mail"`, Gamma, "switch", "mail")
	c.says("web is on alpha already: nothing to do", Gamma, "failback", Group)
	c.sameEpoch("what was refused", before)

	for i, move := range [][]string{{"switch", Group, "--to", Beta}, {"failback", Group}, {"switch", Group}, {"failback", Group}} {
		to := []string{Beta, Alpha}[i%2]
		asked := lab.Now()
		said := c.run(Nodes[i%3], move...)
		done := lab.Now()
		c.movesTo(to, done)
		c.noGap(move[0]+" ended before the service was there", done)
		for _, p := range []*lab.Probe{c.probe, six} {
			if gap := longest(p.Record(), asked); gap > handover {
				t.Errorf("%v took the service away for %v", move, gap)
			}
			c.await(p, to+" answers", func(r lab.Record) bool { return r.AnsweredSince(done, to) })
		}
		if !strings.Contains(said, to) {
			t.Errorf("%v says %q", move, said)
		}
		c.must(c.AwaitServing(to, limit))
	}
}

// Two people ask for a switchover at the same time: one is carried out, the other is told.
func TestSwitchTwice(t *testing.T) {
	c := start(t, Options{Extra: slowGroup})
	slow := func(ok func(owner string, moving bool) bool) func() bool {
		return func() bool {
			s, err := c.Status(Alpha)
			c.must(err)
			for _, g := range s.Groups {
				if g.Name == "slow" {
					return ok(g.Owner, !g.Serving)
				}
			}
			return false
		}
	}
	c.eventually("slow serves", slow(func(owner string, moving bool) bool { return owner == Alpha && !moving }))
	var first sync.WaitGroup
	first.Go(func() { c.run(Alpha, "switch", "slow") })
	c.eventually("it moves", slow(func(owner string, moving bool) bool { return owner == Beta && moving }))
	c.refused("is under way", Gamma, "switch", "slow", "--to", Alpha)
	first.Wait()
	if !slow(func(owner string, moving bool) bool { return owner == Beta && !moving })() {
		t.Error("the first move did not end as it said")
	}
	if g := c.group(Alpha); g.Owner != Alpha || g.Epoch != "1" {
		t.Errorf("the other group moved along: %+v", g)
	}
}

// slowGroup takes two seconds to start.
const slowGroup = `
  slow:
    nodes: [alpha, beta]
    standby: cold
    resources:
      - process:
          name: sleeper
          command: ["/bin/sh", "-c", "rm -f /run/slow; sleep 2; touch /run/slow; exec sleep 1000"]
          user: root
          ready: { command: ["test", "-e", "/run/slow"], interval: 20ms }
`

// The target dies in the middle of a switchover: the group goes back where it was, or stays.
func TestTargetDiesInSwitch(t *testing.T) {
	c := start(t, Options{Cold: true})
	c.must(c.Host(Beta).Freeze())
	out, err := c.command(Gamma, "switch", Group)
	t.Logf("switch to a frozen node: %s, %v", out, err)
	c.movesTo(Alpha, lab.Now())
	c.must(c.Host(Beta).Thaw())
	c.eventually("all is well", func() bool { s, err := c.Status(Gamma); return err == nil && s.Group().Serving })
	time.Sleep(c.takeover())
	if !c.group(Gamma).Serving {
		t.Error("the group is not served")
	}
}
