package sim

import (
	"slices"
	"time"

	"baton/internal/core/cluster"
)

// This file checks what is put on record of outages against what clients got, in true time: an outage is never shorter
// on record than it was, unless the record says "at least" or that it does not know, and never longer than the least
// that the record gives. The rule is named "outages".

// outages is what is true of each group's service, and what is on record.
type outages struct {
	groups []outage
	untold int64 // until then nothing that is put on record counts: a clock has stood still, or a gate was taken off
}

type outage struct {
	up      int   // machine whose clients are served; -1: nobody's are
	begun   bool  // they ever were
	since   int64 // since when nobody's are
	blind   int   // machine whose uplink took them away while no agent ran there: if it is back before one does, nobody can know; -1: none
	upSince int64
	end     cluster.Instant // of the gate, by the machine's clock
	total   int64           // outages that have ended, added up
	// dark is the time, added up, in which faults of the networks by which clients come may have kept them off what serves
	// them: so much more may be on record. darkAt is when there was last such a fault.
	dark, darkAt, looked int64
	doubted              bool // its health check has failed while it ran: nobody can know whether it answered
	// before is what they added up to when clients were first served under an epoch.
	before map[cluster.Epoch]int64

	count       uint64 // Served entries
	epoch       cluster.Epoch
	most, least int64 // what is on record, added up
	base        int64 // up to here it is what is true
	open        struct {
		count             uint64 // of the newest Served; 0: it is judged no more
		most, least, base int64  // what stood on record before it
	}
}

func (o *outages) init(groups int) {
	o.groups = make([]outage, groups)
	for i := range o.groups {
		o.groups[i] = outage{up: -1, blind: -1, before: map[cluster.Epoch]int64{}}
	}
}

// clockSettles is for how long after a clock has stood still, what is known of it is wrong.
const clockSettles = 30 * time.Second

// disturb notes that for a while nothing true can be known.
func (o *outages) disturb(w *world) { o.untold = w.now + int64(clockSettles) }

// answers tells whether clients of a group are served on a machine by all that belongs to it.
func (m *machine) answers(group int) bool {
	if !m.serves(group) || m.uplinkDown() {
		return false
	}
	for _, i := range m.parts[group] {
		if m.resources[i].status != cluster.StatusRunning {
			return false
		}
	}
	return true
}

// slack is by how much a length may be wrong that was measured by a clock which every node's may be off from true time,
// and of which one end was learnt by a message.
func slack(d int64) int64 { return max(d, -d)*(cluster.DriftMaxPPM+1)/1_000_000 + 300_000 }

// forgive takes what is true for what is on record.
func (x *outage) forgive() {
	x.most, x.least, x.base, x.open.count = max(x.most, x.total), min(x.least, x.total), x.total, 0
}

// look follows who is served, after each event.
func (o *outages) look(w *world) {
	for _, m := range w.machines {
		if m.flushed || m.clock.still {
			o.disturb(w)
		}
	}
	unsure := w.hasNetworkFault()
	for g := range o.groups {
		x := &o.groups[g]
		if x.up >= 0 && (unsure || w.machines[x.up].offNet(g)) {
			x.darkAt = w.now
		}
		if x.darkAt != 0 && w.now-x.darkAt < w.noticing() {
			x.dark += w.now - x.looked
		}
		x.looked = w.now
		if x.up >= 0 {
			m := w.machines[x.up]
			if m.answers(g) {
				if e := m.gates[g].epoch; x.before[e] == 0 {
					x.before[e] = x.total + 1
				}
				x.end = m.gates[g].end
				continue
			}
			x.since = w.now
			if end := max(x.end, m.gates[g].end); end > 0 && end <= m.clock.read(w.now) && m.powered && !m.still {
				x.since = min(w.now, m.clock.when(end)) // it ran out between two events
			}
			x.up, x.blind = -1, -1
			if m.agent == nil && m.uplinkDown() {
				x.blind = m.idx
			}
		}
		for i, m := range w.machines {
			if !m.answers(g) {
				continue
			}
			if x.begun && (x.blind != i || m.agent != nil) {
				x.total += w.now - x.since
			}
			if x.since < o.untold {
				x.forgive()
			}
			x.up, x.begun, x.upSince, x.end = i, true, w.now, m.gates[g].end
			if e := m.gates[g].epoch; x.before[e] == 0 {
				x.before[e] = x.total + 1 // 0 stands for none
			}
			break
		}
	}
}

// hasNetworkFault tells whether a fault may keep nodes from hearing each other on a link that clients come by, or a target
// is dead: not all notice it at once.
func (w *world) hasNetworkFault() bool {
	return w.plan.Networks != "" && slices.ContainsFunc(w.running, func(f active) bool {
		switch f.Kind {
		case NoTarget:
			return f.on
		case Cut, OneWay, Isolate, Link, Carrier, FlapLink, Loss, Late, Bloat, Skew, Narrow, MTU, Starve, Freeze, Suspend, PauseClock, Power, Kill:
			return f.on && w.plan.Networks == byLinks
		}
		return false
	})
}

// noticing is within what time after a fault of a network has ended, its nodes know.
func (w *world) noticing() int64 { return 2*w.askEvery() + int64(w.check.length) }

// forget takes what is true for what is on record: who knew of the rest is gone.
func (o *outages) forget(m *machine) {
	for g := range o.groups {
		if x := &o.groups[g]; m.group(g) {
			x.most = max(x.most, x.total)
		}
	}
}

// group tells whether a machine may run a group.
func (m *machine) group(g int) bool { return m.w.spec.Groups[g].Prefers(m.id) >= 0 }

// served judges an outage that was put on record.
func (w *world) served(m *machine, v *cluster.Served) {
	o := &w.check.outages
	g := w.groupIndex(v.Group)
	if g < 0 || m.agent == nil || m.agent.State() == nil {
		return
	}
	x, s := &o.groups[g], m.agent.State().Group(v.Group)
	if s == nil || s.Service.Count < v.Count || v.Count != x.count+1 && x.count > 0 && v.Count > 1 {
		return // dropped
	}
	if v.Count == 1 { // it is a new group, whatever its name
		x.forgive()
	}
	if p := v.Phases; p != (cluster.Phases{}) && p.Detected+p.Decided+p.Waited+p.Started+p.Paused != v.Down {
		w.fail("outages", "%s: %v: its parts are not the whole, %v", v.Group, v, v.Down)
	}
	next, before := v.Epoch != x.epoch, *x
	x.count, x.epoch = v.Count, v.Epoch
	x.most, x.least = x.most+int64(v.Down), x.least+int64(v.Least)
	x.open.count = 0
	if w.now < o.untold || x.since < o.untold || x.doubted {
		x.forgive()
		return
	}
	w.counts.Recorded++
	if x.least > x.total+x.dark+slack(x.total-x.base) {
		w.fail("outages", "%s: %v: outages so far were %v in all, on record are %v at the least", v.Group, v, time.Duration(x.total), time.Duration(x.least))
	}
	was := x.before[v.Epoch] - 1
	switch {
	case v.Known == cluster.AtLeast || v.Known == cluster.About || v.Known == cluster.NotKnown:
		x.most = max(x.most, x.total)
	case !next || was < 0:
	case x.most < was-slack(was-x.base):
		w.fail("outages", "%s: %v: outages until then were %v in all, on record are %v at the most", v.Group, v, time.Duration(was), time.Duration(x.most))
	case v.Ordered == 0 && v.Other == 0: // from here on what is true counts: errors must not cancel out
		x.most, x.least, x.base = max(was, min(x.most, x.total)), was, was // what the record has over may be an outage since
		x.open.count, x.open.most, x.open.least, x.open.base = v.Count, before.most, before.least, before.base
	}
}

// amended judges an outage on record that was put right.
func (w *world) amended(m *machine, a *cluster.Amend) {
	o := &w.check.outages
	g := w.groupIndex(a.Group)
	if g < 0 || m.agent == nil || m.agent.State() == nil {
		return
	}
	x, s := &o.groups[g], m.agent.State().Group(a.Group)
	if x.open.count != a.Count || w.now < o.untold || x.doubted || s == nil || s.Service.Open != nil {
		return // dropped
	}
	x.open.count = 0
	w.counts.Amended++
	was := x.before[a.Epoch] - 1
	off := slack(was - x.open.base)
	if a.Known != cluster.AtLeast && x.open.most+int64(a.Down) < was-off {
		w.fail("outages", "%s: %v: outages until then were %v in all, on record are %v at the most", a.Group, a, time.Duration(was), time.Duration(x.open.most)+a.Down)
	}
	if x.open.least+int64(a.Least) > was+x.dark+off {
		w.fail("outages", "%s: %v: outages until then were %v in all, on record are %v at the least", a.Group, a, time.Duration(was), time.Duration(x.open.least)+a.Least)
	}
}

// commits tells whether a majority of the voters is well: without one nothing comes on record.
func (w *world) commits() bool {
	well := 0
	for i, m := range w.machines {
		if w.votes(m) && m.powered && m.agent != nil && !m.frozen && !w.hindered(i) {
			well++
		}
	}
	return well >= cluster.Quorum(len(w.latest.voters))
}

// unrecorded looks, at the end of a run, for outages that never came on record though nothing keeps them from it.
func (w *world) unrecorded() {
	o := &w.check.outages
	if w.plan.Goal != Converge || w.now < o.untold || !w.commits() {
		return
	}
	for g := range o.groups {
		x := &o.groups[g]
		if x.up < 0 || w.hindered(x.up) || x.count == 0 || x.doubted || x.darkAt != 0 && w.now-x.darkAt < w.noticing()+int64(w.settling()+time.Minute) || time.Duration(w.now-x.upSince) < w.settling()+min(time.Duration(max(0, x.total-x.most)), time.Minute) {
			continue
		}
		if e := w.machines[x.up].gates[g].epoch; e != x.epoch || x.most < x.total-slack(x.total-x.base) {
			w.fail("outages", "%s is served under epoch %d, of outages of %v in all are on record %v, and epoch %d", w.spec.Groups[g].ID, e, time.Duration(x.total), time.Duration(x.most), x.epoch)
		}
	}
}
