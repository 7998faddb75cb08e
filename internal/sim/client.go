package sim

import (
	"time"

	"baton/internal/core/cluster"
)

// client is one of a group's clients, in the network of its address. It sends to where its ARP cache points.
type client struct {
	at       int   // machine; -1: it does not know
	learned  int64 // when
	epoch    cluster.Epoch
	answered bool  // it was, the last time
	down     int64 // since when it gets no answers
}

// announceAgain is when an address is made known again after it came up.
var announceAgain = []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second}

// beginClients makes one client for each group, where the plan has them.
func (w *world) beginClients() {
	if w.plan.Clients == 0 {
		return
	}
	for range w.spec.Groups {
		w.clients = append(w.clients, client{at: -1})
	}
	w.push(0, evClients, 0, 0, 0, 0)
}

// madeKnown announces a group's address, now and some more times.
func (m *machine) madeKnown(group int) {
	if m.w.clients == nil {
		return
	}
	m.announce(group)
	for _, d := range announceAgain {
		m.w.push(m.w.now+int64(d), evAnnounce, m.idx, m.life, 0, int32(group))
	}
}

// announce tells the group's client where its address is, if that gets out.
func (m *machine) announce(group int) {
	if m.reachable(group) && !m.blocked() {
		c := &m.w.clients[group]
		c.at, c.learned = m.idx, m.w.now
	}
}

// reachable tells whether the group's address answers here: the kernel does that, with or without an agent.
func (m *machine) reachable(group int) bool {
	return m.serves(group) && !m.uplinkDown() && !m.offNet(group) && m.fronts(group)
}

// askClients has each client ask its group.
func (w *world) askClients() {
	for g := range w.clients {
		w.ask(g)
	}
	w.push(w.now+max(int64(w.spec.Timing.L)/20, int64(time.Millisecond)), evClients, 0, 0, 0, 0)
}

// ask is one request: to where the cache says, after a question to all where it says nothing (any more).
func (w *world) ask(group int) {
	c := &w.clients[group]
	id := w.spec.Groups[group].ID
	if c.at < 0 || w.now-c.learned > int64(w.plan.Clients) {
		c.at = -1
		for _, m := range w.machines {
			if !m.reachable(group) {
				continue
			}
			if c.at >= 0 && !w.excused(m, group) && !w.excused(w.machines[c.at], group) {
				w.fail("client", "%s and %s both answer for the address of %s", w.machines[c.at].id, m.id, id)
			}
			c.at, c.learned = m.idx, w.now
		}
	}
	w.counts.Asked++
	c.answered = c.at >= 0 && w.machines[c.at].healthy(group)
	if !c.answered {
		w.counts.Unanswered++
		if c.down == 0 {
			c.down = w.now
		}
		return
	}
	m := w.machines[c.at]
	if e := m.gates[group].epoch; e >= c.epoch {
		c.epoch = e
	} else if !w.excused(m, group) {
		w.fail("client", "%s answers for %s under epoch %d after another did under %d", m.id, id, e, c.epoch)
	}
	if c.down > 0 {
		w.counts.ClientWorst = max(w.counts.ClientWorst, time.Duration(w.now-c.down))
		c.down = 0
	}
}
