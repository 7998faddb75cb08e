package group

import (
	"slices"

	"baton/internal/core/cluster"
)

// hold takes over which resources a person has stopped. They are held on the owner only: a standby stays.
func (g *Group) hold(s Situation) {
	for i := range g.res {
		r := &g.res[i]
		held := s.Role == Owner && slices.Contains(s.Held, r.spec.ID)
		if held != r.held {
			r.held, r.backoff, r.retryAt, r.ordered = held, 0, 0, true
		}
	}
}

// takeDown stops some of the resources: fronts first, then in reverse order, each once those before it are
// stopped. It reports whether all of them are.
func (g *Group) takeDown(now cluster.Instant, s Situation, o *Outcome, which func(*resource) bool) bool {
	for _, front := range []bool{true, false} {
		for i := len(g.res) - 1; i >= 0; i-- {
			r := &g.res[i]
			if r.spec.Front != front || !which(r) {
				continue
			}
			g.pursue(now, r, cluster.TargetStopped, s, o)
			if r.status != cluster.StatusStopped || r.pending != 0 {
				return false
			}
		}
	}
	return true
}

// Restart makes the owner stop and start one resource, or (r empty) all of them, in place. A restart does
// not outlive the placement.
func (g *Group) Restart(id cluster.ResourceID) {
	for i := range g.res {
		if r := &g.res[i]; (id == "" || r.spec.ID == id) && !r.held {
			r.again, r.backoff, r.retryAt, r.ordered = true, 0, 0, true
		}
	}
}

// stoppedForRestart stops what is to be restarted, and reports whether nothing of it is left to stop: only
// then is anything started again.
func (g *Group) stoppedForRestart(now cluster.Instant, s Situation, o *Outcome) bool {
	if !g.takeDown(now, s, o, func(r *resource) bool { return r.again }) {
		return false
	}
	for i := range g.res {
		g.res[i].again = false
	}
	return true
}

// Runs tells whether a resource, or (id empty) every one that is not held, runs for the epoch, and no
// restart of it is under way.
func (g *Group) Runs(id cluster.ResourceID, epoch cluster.Epoch) bool {
	for i := range g.res {
		if r := &g.res[i]; (id == "" || r.spec.ID == id) && !r.held && (r.again || r.pending != 0 || !r.runs(epoch)) {
			return false
		}
	}
	return true
}

// Stopped tells whether a resource is known to be stopped.
func (g *Group) Stopped(id cluster.ResourceID) bool {
	r := g.find(id)
	return r == nil || (r.status == cluster.StatusStopped && r.pending == 0)
}

// Mended ends the wait of a resource that failed for what its surroundings lacked, which is there again.
func (g *Group) Mended(id cluster.ResourceID) {
	if r := g.find(id); r != nil && r.surroundings {
		r.backoff, r.retryAt = 0, 0
	}
}

// TryNow ends the wait of what has failed and is down. The next wait is as long as if this one had not been cut short.
func (g *Group) TryNow() {
	for i := range g.res {
		if r := &g.res[i]; r.status == cluster.StatusFailed && r.probe == 0 {
			r.retryAt = 0
		}
	}
}

// Clear forgets what counts against a resource, or (id empty) all of them: local restarts, and the waiting
// before the next attempt.
func (g *Group) Clear(id cluster.ResourceID) {
	g.restarts = slices.DeleteFunc(g.restarts, func(x restart) bool { return id == "" || x.resource == id })
	for i := range g.res {
		if r := &g.res[i]; id == "" || r.spec.ID == id {
			r.backoff, r.retryAt = 0, 0
		}
	}
}

// carriedOut forgets of what runs again that its stop was ordered.
func (g *Group) carriedOut(s Situation) {
	for i := range g.res {
		if r := &g.res[i]; r.ordered && s.Role == Owner && !r.held && !r.again && r.runs(s.Epoch) {
			r.ordered = false
		}
	}
}

// Ordered tells whether somebody ordered that something of the group does not run here: to stop or to restart it, or
// by a change of its description.
func (g *Group) Ordered() bool {
	return slices.ContainsFunc(g.res, func(r resource) bool { return r.ordered })
}

// Answers tells whether everything of the group is up here, wanted or not: only then may its clients be served.
func (g *Group) Answers() bool {
	return !slices.ContainsFunc(g.res, func(r resource) bool { return r.status != cluster.StatusRunning })
}

// Stopping tells whether anything of the group that may still be up is being stopped here, or restarted.
func (g *Group) Stopping() bool {
	return slices.ContainsFunc(g.res, func(r resource) bool { return r.pending != 0 && (r.target != cluster.TargetRunning || r.stale) })
}

// MayAnswer tells whether everything of the group may be up here: it is, or is on the way to it or away from it, or it
// runs on and only a probe says that it has failed, or it did not stop in time.
func (g *Group) MayAnswer() bool {
	return !slices.ContainsFunc(g.res, func(r resource) bool {
		return r.pending == 0 && r.status != cluster.StatusRunning && r.status != cluster.StatusUnknown && !r.up
	})
}

// Busy tells whether anything of the group is being started, stopped or announced here: what it was before, it may be
// no more.
func (g *Group) Busy() bool {
	return slices.ContainsFunc(g.res, func(r resource) bool { return r.pending != 0 })
}
