package sim

import (
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/core/wire"
)

// This file checks that a cluster which nothing disturbs stands still: its coordinator stays, who is well and
// reached keeps its lease, and no more is said than heartbeats need.

// calm is what is known of the peace.
type calm struct {
	since   int64 // the last fault began or ended, or a group was placed
	faultAt int64 // the same, of faults alone
	lead    int   // who last said that it leads, plus one
	window  int64 // packets are counted from here on …
	sent    int   // … beginning with so many
}

// stormFactor is how many times what regular heartbeats need may be sent in a calm cluster.
const stormFactor = 3

// calmAfter is for how long pieces go to a peer that does not answer, and more.
const calmAfter = 3 * time.Second

// isCalm tells whether no fault acts, and the last is so long ago that all it brought about has ended: the settling
// time, what it takes to give up a peer that does not answer, and three lease lengths for the coordinator to find its place.
func (w *world) isCalm() bool {
	c := &w.check.calm
	return time.Duration(w.now-max(c.since, c.faultAt)) > w.settling()+calmAfter+3*w.check.length && w.undisturbed()
}

// undisturbed tells whether no fault acts now, and no machine stalls.
func (w *world) undisturbed() bool {
	if w.plan.StallEvery > 0 {
		return false
	}
	return !slices.ContainsFunc(w.running, func(f active) bool { return f.on })
}

// disturbed notes that a fault has begun or ended.
func (w *world) disturbed() { w.check.calm.faultAt = w.now }

// stands judges a step of a node in a calm cluster.
func (w *world) stands(m *machine, out *node.Output) {
	c := &w.check.calm
	for i := range out.Sends {
		if hb, ok := out.Sends[i].Msg.(*wire.Heartbeat); ok {
			if hb.Lead != 0 {
				w.leads(m)
			}
			break
		}
	}
	for i := range out.Events {
		if code := out.Events[i].Code; (code == "lease.lost" || code == "lease.taken") && w.isCalm() && !m.out {
			w.fail("calm", "%s: %s, and nothing was the matter for %v", m.id, out.Events[i].Text, time.Duration(w.now-c.since))
		}
	}
	l := int64(w.check.length)
	if w.latest.spec != nil {
		l = int64(w.latest.spec.Timing.L)
	}
	if w.now-c.window > l {
		n := len(w.machines)
		beats := int((w.now - c.window) / int64(w.latest.spec.Timing.H)) // and an ack for each
		most := stormFactor * n * (n - 1) * w.plan.Links * 2 * beats
		if c.window > 0 && w.counts.Packets-c.sent > most && c.window > c.since && w.isCalm() {
			w.fail("calm", "%d packets within %v, where heartbeats need %d", w.counts.Packets-c.sent, time.Duration(w.now-c.window), most/stormFactor)
		}
		c.window, c.sent = w.now, w.counts.Packets
	}
}

// leads notes who coordinates. It may change in a calm cluster only towards a member that serves nothing.
func (w *world) leads(m *machine) {
	c := &w.check.calm
	was := c.lead
	if c.lead = m.idx + 1; was == c.lead || was == 0 || !w.isCalm() || m.agent.State() == nil {
		return
	}
	if o := w.machines[was-1]; !o.out && !(w.idle(m, m) && !w.idle(o, m)) {
		w.fail("calm", "%s coordinates in place of %s, though nothing was the matter for %v and its place is no better", m.id, o.id, time.Duration(w.now-c.since))
	}
}

// idle tells whether a machine may run groups and owns none, as another knows.
func (w *world) idle(m, by *machine) bool {
	spec := w.spec.Node(m.id)
	s := by.agent.State()
	for i := range s.Groups {
		if s.Groups[i].Owner == m.id {
			return false
		}
	}
	return spec.Role != cluster.Witness
}

// calmEntry judges what is decided in a calm cluster.
func (w *world) calmEntry(e *cluster.Entry) {
	for _, p := range e.Parts {
		switch {
		case p.Evict != nil && e.Rule != "N07" && w.isCalm():
			w.fail("calm", "%s is evicted (rule %s: %s), and nothing was the matter for %v", p.Evict.Node, e.Rule, e.Why, time.Duration(w.now-w.check.calm.since))
		case p.Assign != nil, p.Adopt != nil, p.Voter != nil:
			w.check.calm.since = w.now
		}
	}
}
