package sim

import (
	"fmt"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
)

// This file holds what happens to one machine from outside its agent: it stands still, its kernel's gate fails or is
// taken away, its disk fails, its host lacks something.

const (
	// startsAgain is how long it takes until an agent that could not start is started once more.
	startsAgain = 100 * time.Millisecond
	// gateAgain and recordAgain are how soon, at the latest, a write that failed is tried again.
	gateAgain, recordAgain = 10 * time.Millisecond, 10 * time.Millisecond
	// sweepEvery is how soon, at the latest, an agent puts its gate back where others took it off.
	sweepEvery   = 100 * time.Millisecond
	lackReason   = "simulated: the host lacks what it needs"
	ungateReason = "simulated: the gate was taken off, and can't be put back"
)

// relic is what the pause of a guest with its clock leaves: by that clock nothing has passed, so what was granted
// until `end` at the latest may be used once more. It is the one thing that no lease can rule out (protocol.md, "Clocks"); it
// ends by itself, and nothing that was granted after the pause is a part of it.
type relic struct{ end cluster.Instant }

// of tells whether a gate is such a rest.
func (r relic) of(g gate) bool { return g.end <= r.end }

// stop makes the machine stand still.
func (m *machine) stop(k Kind) {
	if k == PauseClock && m.powered && !m.clock.still {
		m.relic.end = m.clock.read(m.w.now).Add(m.w.check.length)
		m.clock.pause(m.w.now, true)
	}
	m.still = m.still || m.powered
}

// goOn lets the machine run again, unless another fault still keeps it. Who was suspended is told so before all else.
func (m *machine) goOn(k Kind) {
	if !m.still {
		return
	}
	if k == PauseClock && !m.faultOn(PauseClock, -1) {
		m.clockOn()
	}
	if m.faultOn(Suspend, -1) || m.faultOn(PauseClock, -1) {
		return
	}
	m.still = false
	if m.agent == nil {
		m.w.check.outages.disturb(m.w) // nobody will be told that it was
	}
	m.w.overlaps(m)
	if m.agent != nil && k == Suspend {
		if m.blocked() {
			m.inbox = slices.Insert(m.inbox, m.begun(), node.Input(&node.Suspended{}))
		} else {
			m.step(&node.Suspended{})
		}
	}
	held := m.held
	m.held = nil
	for i := range held {
		if m.w.broken == nil {
			m.w.happen(&held[i])
		}
	}
	m.resume()
}

// begun is the place in the inbox before which nothing may come: an agent that has not begun takes its Boot first.
func (m *machine) begun() int {
	if len(m.inbox) > 0 {
		if _, ok := m.inbox[0].(*node.Boot); ok {
			return 1
		}
	}
	return 0
}

func (m *machine) clockOn() {
	if m.clock.still {
		m.wall -= m.w.now - m.clock.since // what has passed, the wall clock has not seen either
		m.clock.pause(m.w.now, false)
	}
}

// unpause ends what makes the machine stand still, with its power.
func (m *machine) unpause() {
	m.clockOn()
	m.still, m.held = false, nil
	m.over(Suspend)
	m.over(PauseClock)
}

// keepsBack keeps what would happen within the machine until it runs again, and reports whether it does.
func (m *machine) keepsBack(e *event) bool {
	switch e.kind {
	case evDisk, evRecorded, evFitted, evGate, evGated, evGateAgain, evSweep, evDone, evAgent, evAnnounce, evAsk, evHealth:
		m.held = append(m.held, *e)
		return true
	}
	return false
}

// overlaps counts the groups that a machine serves once more though another has taken them over meanwhile.
func (w *world) overlaps(m *machine) {
	for g := range w.spec.Groups {
		if !m.serves(g) {
			continue
		}
		for _, o := range w.machines {
			if o != m && o.serves(g) {
				w.counts.Relics++
				if !m.relic.of(m.gates[g]) && !m.flushed && !o.relic.of(o.gates[g]) && !o.flushed {
					w.fail("invariant 1", "%s, which stood still, serves %s (epoch %d) while %s does (epoch %d)",
						m.id, w.spec.Groups[g].ID, m.gates[g].epoch, o.id, o.gates[g].epoch)
				}
			}
		}
	}
}

// excused tells whether a machine may serve a group beside another: by what a paused clock has left, or because
// others took its gate away. The latter ends once the agent has put it back.
func (w *world) excused(m *machine, group int) bool {
	switch {
	case m.flushed:
		w.counts.Unfiltered++
	case m.relic.of(m.gates[group]):
		w.counts.Relics++
	default:
		return false
	}
	return true
}

// starve takes the machine its time once more.
func (w *world) starve(fault int) {
	f := &w.running[fault]
	if !f.on {
		return
	}
	m := w.machines[f.node]
	m.stalled = max(m.stalled, w.now+int64(f.Amount))
	w.push(m.stalled, evResume, m.idx, 0, 0, 0)
	w.push(w.now+int64(max(f.Second, f.Amount)), evStarve, 0, 0, 0, int32(fault))
}

// flap turns a fault that comes and goes.
func (w *world) flap(fault int) {
	f := &w.running[fault]
	if !f.on {
		return
	}
	f.down = !f.down
	after := f.Amount
	if f.down {
		after = f.Second
	}
	w.push(w.now+int64(after), evFlap, 0, 0, 0, int32(fault))
	w.conditions(f)
}

// uplinkDown tells whether the interface of the groups' addresses has no carrier.
func (m *machine) uplinkDown() bool {
	for i := range m.w.running {
		if f := &m.w.running[i]; f.on && f.node == m.idx && (f.Kind == Uplink || f.Kind == FlapUplink && f.down) {
			return true
		}
	}
	return false
}

// gateFails keeps a gate write that fails, for another try: the newest of each group. None is answered before all
// before it are.
func (m *machine) gateFails(g cluster.Gate) bool {
	if len(m.unwritten) == 0 && !m.faultOn(FailGate, -1) {
		return false
	}
	i := slices.IndexFunc(m.unwritten, func(x cluster.Gate) bool { return x.Group == g.Group })
	switch {
	case i >= 0 && m.unwritten[i].N > g.N: // an older one, which was late besides
		return true
	case i >= 0:
		m.unwritten = slices.Delete(m.unwritten, i, i+1)
	}
	m.unwritten = append(m.unwritten, g)
	return true
}

// writeGatesAgain tries once more what failed.
func (m *machine) writeGatesAgain() {
	if len(m.unwritten) == 0 || m.blocked() || m.faultOn(FailGate, -1) {
		return
	}
	if n := len(m.late); n > 0 { // what is late was asked for before
		m.w.push(m.late[n-1].due+1, evGateAgain, m.idx, m.life, 0, 0)
		return
	}
	newest := uint64(0)
	for _, g := range m.unwritten {
		m.setGate(g)
		newest = max(newest, g.N)
	}
	m.unwritten = nil
	m.w.push(m.w.now+5_000, evGated, m.idx, m.life, newest, 0)
}

// flush takes the gate out of the kernel, as others do: with eBPF its programs, with nftables its whole table. The
// agent still has the deadlines. From then on nothing is filtered, until the agent puts it back, which it does as soon
// as it is told or looks; with nftables also when it opens a gate. Without an agent nobody puts it back.
func (m *machine) flush() {
	if !m.powered {
		return
	}
	m.flushed, m.mapped = true, m.coin(2)
	if m.agent == nil {
		clear(m.gates)
	}
	m.w.push(m.w.now+m.between(0, sweepEvery), evSweep, m.idx, m.life, 0, 0)
}

// sweep puts the gate back, and tells that it is whole, whoever has put it back.
func (m *machine) sweep() {
	if m.agent == nil || m.faultOn(Ungate, -1) {
		return
	}
	if m.blocked() {
		m.w.push(m.w.now+int64(time.Millisecond), evSweep, m.idx, m.life, 0, 0)
		return
	}
	if m.flushed {
		m.flushed = false
		m.w.note(m, "puts its gate back")
	}
	m.tellLacks()
}

// gateUnheld is what the agent's end makes of a gate that was taken away: nobody knows its deadlines any more.
func (m *machine) gateUnheld() {
	if m.flushed {
		clear(m.gates)
	}
}

// refuses tells whether an agent can't start: it writes gate and disk before all else.
func (m *machine) refuses() bool {
	return m.faultOn(FailGate, -1) || m.faultOn(DiskFull, -1) || m.faultOn(DiskError, -1)
}

// diskFails tells whether the running batch is not to be answered.
func (m *machine) diskFails() bool {
	d := &m.disk
	switch {
	case m.faultOn(DiskError, -1): // nobody knows what of it the disk holds
		d.stuck = true
		m.w.note(m, "the log can't be written")
	case m.faultOn(DiskFull, -1):
		d.stuck, d.failed = true, true
	case m.faultOn(HangDisk, -1):
		d.stuck = true
	default:
		return false
	}
	return true
}

// diskWell carries on with what the disk did not take.
func (m *machine) diskWell() {
	if m.disk.stuck && !m.diskFails() {
		m.written()
	}
}

// dropRun deletes the run directory: the next write of the run record makes it anew. Without an agent nobody does, and
// the next one closes every gate before it begins.
func (m *machine) dropRun() { m.dropped = m.powered }

// losePower leaves of the disk what survives.
func (m *machine) losePower() {
	if m.disk.gone {
		m.w.note(m, "its data directory was deleted")
		m.wipe()
		m.wiped = true
		return
	}
	unsynced := len(m.disk.cached) + m.disk.written()
	n := m.survivors(unsynced)
	if n < unsynced {
		m.w.counts.Torn++
		m.w.note(m, "%d of %d unsynced writes are lost", unsynced-n, unsynced)
	}
	m.disk.off(n)
}

// read reads a text of the configuration, as far as this machine can.
func (m *machine) read(text []byte) (*cluster.Spec, error) {
	if m.faultOn(Unreadable, -1) && !m.texts[string(text)] {
		return nil, fmt.Errorf("simulated: this node can't read a text of %d bytes", len(text))
	}
	if m.texts == nil {
		m.texts = make(map[string]bool)
	}
	m.texts[string(text)] = true
	return m.w.reader(text)
}

// lacks tells whether the host lacks what a resource needs.
func (m *machine) lacks(r *resource) bool { return !r.spec.Front && m.faultOn(Lack, r.group) }

// lack takes away what a group's first resource needs: it fails if it is up.
func (m *machine) lack(group int) {
	m.tellLacks()
	for i := range m.resources {
		if r := &m.resources[i]; r.group == group && m.lacks(r) {
			m.collapse(r, lackReason)
		}
	}
}

// tellLacks tells the agent all that the host lacks.
func (m *machine) tellLacks() {
	if m.agent == nil {
		return
	}
	in := &node.Lacking{}
	for i := range m.resources {
		if r := &m.resources[i]; m.lacks(r) {
			in.Lacks = append(in.Lacks, cluster.Lack{Group: m.w.spec.Groups[r.group].ID, Resource: r.spec.ID, Why: lackReason})
		}
	}
	for i := range m.w.spec.Groups {
		if m.flushed && m.faultOn(Ungate, -1) {
			in.Lacks = append(in.Lacks, cluster.Lack{Group: m.w.spec.Groups[i].ID, Why: ungateReason})
		}
	}
	m.deliver(in)
}

// dropAddress takes a group's address away once, if it is here. Nothing keeps it from coming back. Only an agent that
// has brought it up, or has made sure that it is, hears of that.
func (m *machine) dropAddress(group int) {
	for i := range m.resources {
		switch r := &m.resources[i]; {
		case r.group != group || !r.spec.Front:
		case r.seen || m.agent == nil:
			m.collapse(r, "simulated: its address was taken away")
		case r.status == cluster.StatusRunning:
			r.status = cluster.StatusStopped
			m.w.runs(m, r)
		}
	}
}

// collapse makes a resource fail, if it is up, by what is around it.
func (m *machine) collapse(r *resource, why string) {
	if r.status != cluster.StatusRunning && r.status != cluster.StatusStandby {
		return
	}
	r.status = cluster.StatusFailed
	m.done(cluster.Done{Group: m.w.spec.Groups[r.group].ID, Resource: r.spec.ID, Status: cluster.StatusFailed,
		Reason: why, Surroundings: true})
}

// fronts tells whether the group's address is up here.
func (m *machine) fronts(group int) bool {
	return slices.ContainsFunc(m.resources, func(r resource) bool {
		return r.group == group && r.spec.Front && r.status == cluster.StatusRunning
	})
}
