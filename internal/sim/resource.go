package sim

import (
	"time"

	"baton/internal/core/cluster"
)

// resource is one resource on one machine, with the worker that pursues the newest Want.
type resource struct {
	group  int
	spec   *cluster.ResourceSpec
	status cluster.Status // what is true, whatever the agent knows
	want   cluster.Want   // the newest
	open   bool           // it is not answered yet
	busy   bool           // an operation runs
	doing  cluster.Want   // that operation
	cancel bool           // it is being cancelled
	gen    uint32
	begun  bool    // its start was under way when its agent ended: the next does not know whether it is ready
	seen   bool    // of an address: this run of the agent has brought it up, and so watches it
	health verdict // what its agent has told of it
}

// pursue takes a new Want: a running operation is cancelled and its end awaited first.
func (m *machine) pursue(i int, w cluster.Want) {
	r := &m.resources[i]
	r.want, r.open = w, true
	if !r.busy {
		m.operate(i)
		return
	}
	if r.cancel {
		return
	}
	r.cancel = true
	r.gen++
	m.w.push(m.w.now+m.between(50*time.Microsecond, 2*time.Millisecond), evDone, m.idx, r.gen, 0, int32(i))
}

// operate begins what the newest Want asks for.
func (m *machine) operate(i int) {
	r := &m.resources[i]
	r.busy, r.cancel, r.doing, r.begun = true, false, r.want, false
	r.gen++
	if m.w.watcher != nil {
		m.w.watcher.operation(m.w, m, r)
	}
	d := m.duration(r)
	if limit := int64(r.doing.Deadline); limit > 0 && d > limit {
		d = limit
	}
	m.w.push(m.w.now+d, evDone, m.idx, r.gen, 0, int32(i))
}

// duration returns how long the operation takes.
func (m *machine) duration(r *resource) int64 {
	g := &m.w.plan.Groups[m.w.planGroup[r.group]]
	quick := m.between(10*time.Microsecond, 100*time.Microsecond)
	up := r.status == cluster.StatusRunning || r.status == cluster.StatusStandby
	switch {
	case r.doing.Target == cluster.TargetStopped && m.faultOn(NoStop, r.group):
		return far / 2
	case r.doing.Target == cluster.TargetStopped:
		if !up || r.spec.Front {
			return quick
		}
		return m.between(time.Millisecond, 30*time.Millisecond)
	case up && !r.doing.Restart, r.spec.Front:
		return quick
	}
	return int64(g.Start) + quick
}

// finished ends an operation: what it was meant to do is done, failed or unknown.
func (m *machine) finished(i int) {
	r := &m.resources[i]
	r.busy = false
	if r.cancel {
		// The operation may have had its effect already or not.
		r.cancel = false
		if m.coin(2) {
			m.effect(r)
			m.w.runs(m, r)
		}
		m.operate(i)
		return
	}
	report := m.effect(r)
	m.w.runs(m, r)
	reason, probe := "", ""
	if r.health == ill && (report == cluster.StatusRunning || report == cluster.StatusStandby) {
		report, reason, probe = cluster.StatusFailed, healthReason, healthProbe // it runs, and is ill
	}
	switch {
	case probe != "":
	case report == cluster.StatusFailed && m.lacks(r):
		reason = lackReason
	case report == cluster.StatusFailed:
		reason = "simulated: it did not start"
	case report == cluster.StatusUnknown:
		reason = "simulated: it did not stop in time"
	}
	if r.open && r.want.N == r.doing.N {
		r.open = false
		m.done(cluster.Done{N: r.doing.N, Group: r.doing.Group, Resource: r.doing.Resource, Status: report, Reason: reason,
			Surroundings: report == cluster.StatusFailed && m.lacks(r), Probe: probe})
	}
	m.checkHealth()
}

// effect makes the operation true, and returns what the worker reports of it.
func (m *machine) effect(r *resource) cluster.Status {
	if !r.up() || r.doing.Restart || r.doing.Target == cluster.TargetStopped {
		r.health = well
		if !r.spec.Front && m.unanswered(r.group) {
			r.health = ill // it does not become ready
		}
	}
	switch r.doing.Target {
	case cluster.TargetStopped:
		if m.faultOn(NoStop, r.group) && !r.spec.Front && r.status != cluster.StatusStopped {
			return cluster.StatusUnknown
		}
		r.status = cluster.StatusStopped
	default:
		if m.lacks(r) {
			r.status = cluster.StatusStopped
			return cluster.StatusFailed
		}
		if m.faultOn(NoStart, r.group) && !r.spec.Front && (r.doing.Restart || r.status != cluster.StatusRunning && r.status != cluster.StatusStandby) {
			r.status = cluster.StatusStopped
			return cluster.StatusFailed
		}
		r.status = cluster.StatusRunning
		if r.doing.Target == cluster.TargetStandby {
			r.status = cluster.StatusStandby
			if r.spec.Depth == cluster.Cold {
				r.status = cluster.StatusStopped
			}
		}
		r.seen = true
		if r.spec.Front && r.status == cluster.StatusRunning {
			m.madeKnown(r.group)
		}
	}
	return r.status
}

// workersDied is what the end of the agent leaves of running operations.
func (m *machine) workersDied() {
	for i := range m.resources {
		r := &m.resources[i]
		if r.busy {
			r.begun = r.doing.Target != cluster.TargetStopped && !r.spec.Front && !r.up()
			if m.coin(2) {
				m.effect(r)
				r.begun = r.begun && r.up()
			}
		}
		r.busy, r.open, r.cancel, r.seen, r.health = false, false, false, false, well
		r.gen++
	}
	m.checking = false
}

// up tells whether it is.
func (r *resource) up() bool {
	return r.status == cluster.StatusRunning || r.status == cluster.StatusStandby
}

// found is what the agent's probe says of the resource when it begins.
func (r *resource) found() cluster.Status {
	if r.begun {
		return cluster.StatusUnknown
	}
	return r.status
}

// fail makes a group's first resource fail by itself, if it is up.
func (m *machine) fail(group int) {
	for i := range m.resources {
		r := &m.resources[i]
		if r.group != group || r.spec.Front {
			continue
		}
		if r.status != cluster.StatusRunning && r.status != cluster.StatusStandby {
			return
		}
		r.status = cluster.StatusFailed
		m.done(cluster.Done{Group: m.w.spec.Groups[group].ID, Resource: r.spec.ID, Status: cluster.StatusFailed,
			Reason: "simulated: it exited"})
		return
	}
}
