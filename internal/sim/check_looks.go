package sim

import (
	"math/rand/v2"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
)

// onlooker asks nodes at random instants how things are, as people do. It has dice of its own, so that a run with
// it must be the run without it: looking changes nothing.
type onlooker struct {
	rand *rand.Rand
	seen int
}

// looksEvery is how many events of the world lie between two looks, on average.
const looksEvery = 20

// glance lets an onlooker look between two events.
func (x *onlooker) glance(w *world) {
	if x == nil || x.rand.IntN(looksEvery) > 0 {
		return
	}
	m := w.machines[x.rand.IntN(len(w.machines))]
	if m.agent == nil || m.blocked() || w.broken != nil {
		return
	}
	x.seen++
	now := cluster.Now{Mono: m.clock.read(w.now), Wall: m.wallTime()}
	switch x.rand.IntN(5) {
	case 0:
		m.agent.Overview(now)
	case 1:
		m.agent.History()
	case 2:
		c := &node.Command{Op: node.OpSwitch, Group: w.spec.Groups[x.rand.IntN(len(w.spec.Groups))].ID}
		if x.rand.IntN(2) == 0 {
			c.To = w.machines[x.rand.IntN(len(w.machines))].id
		}
		m.agent.WouldMove(now, c)
	case 3:
		m.agent.Configuration()
	case 4:
		if s := m.agent.State(); s != nil {
			s.Encode()
		}
	}
}
