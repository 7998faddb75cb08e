package group

import (
	"fmt"
	"slices"
	"time"

	"baton/internal/core/cluster"
)

// recent is how many local restarts count against the limit.
func (g *Group) recent(now cluster.Instant) int {
	g.restarts = slices.DeleteFunc(g.restarts, func(x restart) bool { return now.Sub(x.at) >= restartsForgotten })
	return len(g.restarts)
}

// Ails tells whether something of the group has failed here: only then it matters whether another node could take over.
func (g *Group) Ails() bool {
	return slices.ContainsFunc(g.res, func(r resource) bool { return r.status == cluster.StatusFailed })
}

// tries says why a resource that the group's owner needs, and that has failed, is not restarted at once.
func (g *Group) tries(now cluster.Instant, r *resource, s Situation) string {
	switch used := g.recent(now); {
	case s.Role != Owner || s.Stopped || s.Shared && r.probe != 0 || r.surroundings:
		return ""
	case s.HotElsewhere:
		return "not restarted here: a standby is ready"
	case g.spec.Restarts == 0:
		return "restarts: 0, so it is not restarted at once"
	case used >= g.spec.Restarts:
		return fmt.Sprintf("its restarts are used up, %d within 10m", used)
	}
	return ""
}

// under says which of the local restarts is under way; empty: it is no such one.
func (g *Group) under(now cluster.Instant) string {
	used := g.recent(now)
	if used == 0 {
		return "it is tried again"
	}
	return fmt.Sprintf("it is started again, and %d of %d restarts within 10m are used", used, g.spec.Restarts)
}

// NextTry is how long a resource that has failed waits before it is tried again; 0: it does not wait.
func (g *Group) NextTry(id cluster.ResourceID, now cluster.Instant) time.Duration {
	r := g.find(id)
	if r == nil || r.pending != 0 || r.status != cluster.StatusFailed && r.status != cluster.StatusUnknown || r.retryAt <= now {
		return 0
	}
	return r.retryAt.Sub(now)
}
