package trial

import (
	"testing"
	"time"

	"baton/internal/lab"
)

// The witness is down, then the standby dies too: the owner is alone, without a majority, and stops. It
// is served again when a second node is back.
func TestOwnerAlone(t *testing.T) {
	c := start(t, Options{})
	c.undisturbed("the witness dies", time.Second, c.Host(Gamma).PowerOff)
	c.must(c.Host(Beta).PowerOff())
	c.stops(c.probe)
	back := c.at(c.Host(Gamma).Boot)
	c.movesTo(Alpha, back)
	c.must(c.Host(Gamma).PowerOff())
	c.stops(c.probe)
	back = c.at(c.Host(Beta).Boot)
	c.await(c.probe, "served again", func(r lab.Record) bool { return r.AnsweredSince(back, "") })
}

// The witness is down, and the members are cut from each other: neither has a majority, nobody serves,
// though each could. After the cut the service is back.
func TestMembersCutWithoutWitness(t *testing.T) {
	c := start(t, Options{})
	c.must(c.Host(Gamma).PowerOff())
	inside := c.ask(Alpha, VIP)
	c.must(c.Lab.CutBetween(Alpha, Beta, "")) // the client still reaches both
	c.stops(c.probe)
	c.stops(inside)
	if s, err := c.Status(Alpha); err != nil || s.Quorum {
		t.Errorf("alpha's status: %+v, %v; want no quorum", s, err)
	}
	healed := c.at(func() error { return c.Lab.Heal(Alpha, "") })
	c.await(c.probe, "served again", func(r lab.Record) bool { return r.AnsweredSince(healed, "") })
	t.Logf("served %v after the cut's end", longest(c.probe.Record(), healed))
}

// stops waits until a probe is not answered any more, at the latest when a lease has ended.
func (c *incident) stops(p *lab.Probe) {
	c.t.Helper()
	quiet := 500 * time.Millisecond
	since := lab.Now()
	c.await(p, "not served any more", func(r lab.Record) bool { return r.Ended-last(r, "") > quiet })
	if took := last(p.Record(), "") - since; took > c.takeover()+slack {
		c.t.Errorf("served without a majority for %v", took)
	}
}
