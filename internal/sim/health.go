package sim

import (
	"slices"
	"time"

	"baton/internal/core/cluster"
)

// This file holds what groups' programs ask for beside themselves, such as a database, and what their health checks say
// while that answers nobody: the programs run on.

// What an agent does about a health check; as internal/io/resource has it, but in a hurry.
const (
	healthEvery  = 50 * time.Millisecond
	healthReason = "simulated: what its health check asks for does not answer"
	healthProbe  = "database: no answer"
)

// verdict is what an agent has told of a program's health.
type verdict uint8

const (
	well    verdict = iota
	doubted         // its check has failed once
	ill             // it has failed as often as it takes
)

// unanswered tells whether a group's health check fails, wherever it is made.
func (w *world) unanswered(group int) bool {
	return slices.ContainsFunc(w.running, func(f active) bool { return f.on && f.Kind == NoAnswer && f.group == group })
}

// checkHealth has a machine's agent make its health checks soon, if there is anything to find.
func (m *machine) checkHealth() {
	changes := func(r resource) bool { return !r.spec.Front && m.w.unanswered(r.group) != (r.health == ill) }
	if m.agent != nil && slices.ContainsFunc(m.resources, changes) {
		m.w.push(m.w.now+m.between(0, healthEvery), evHealth, m.idx, m.life, 0, 0)
	}
}

// findHealth makes the health checks once.
func (m *machine) findHealth() {
	for i := range m.resources {
		r := &m.resources[i]
		if m.agent == nil {
			return
		}
		if r.spec.Front || r.busy || r.status != cluster.StatusRunning && r.status != cluster.StatusStandby {
			continue
		}
		d := cluster.Done{Group: m.w.spec.Groups[r.group].ID, Resource: r.spec.ID, Status: r.status}
		switch fails := m.w.unanswered(r.group); {
		case fails && r.health == well:
			r.health, d.Probe = doubted, healthProbe
		case fails && r.health == doubted:
			r.health, d.Status, d.Reason, d.Probe = ill, cluster.StatusFailed, healthReason, healthProbe
		case !fails && r.health != well:
			r.health = well
		default:
			continue
		}
		m.done(d)
	}
	m.checkHealth()
}
