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

// verdict is how often in a row a program's health check has failed; its agent tells of the first time and of the last.
type verdict uint8

const (
	well verdict = 0
	ill  verdict = 3 // as often as it takes
)

// unanswered tells whether a group's health check fails here.
func (m *machine) unanswered(group int) bool {
	return slices.ContainsFunc(m.w.running, func(f active) bool {
		return f.on && f.group == group && (f.Kind == NoAnswer || f.Kind == Unanswered && f.node == m.idx)
	})
}

// checkHealth has a machine's agent make its health checks soon, if there is anything to find.
func (m *machine) checkHealth() {
	if m.findsHealth() {
		m.checking = true
		m.w.push(m.w.now+m.between(0, healthEvery), evHealth, m.idx, m.life, 0, 0)
	}
}

func (m *machine) findsHealth() bool {
	return m.agent != nil && !m.checking && slices.ContainsFunc(m.resources, func(r resource) bool {
		return !r.spec.Front && m.unanswered(r.group) != (r.health == ill)
	})
}

// findHealth makes the health checks once.
func (m *machine) findHealth() {
	m.checking = false
	for i := range m.resources {
		r := &m.resources[i]
		if m.agent == nil {
			return
		}
		if r.spec.Front || r.busy || !r.up() {
			continue
		}
		d := cluster.Done{Group: m.w.spec.Groups[r.group].ID, Resource: r.spec.ID, Status: r.status}
		switch fails := m.unanswered(r.group); {
		case fails && r.health == ill || !fails && r.health == well:
			continue
		case !fails:
			r.health = well
		default:
			r.health++
			d.Probe = healthProbe
			if r.health == ill {
				d.Status, d.Reason = cluster.StatusFailed, healthReason
			}
			if r.health != 1 && r.health != ill {
				continue
			}
		}
		m.done(d)
	}
	if m.findsHealth() {
		m.checking = true
		m.w.push(m.w.now+int64(healthEvery), evHealth, m.idx, m.life, 0, 0)
	}
}
