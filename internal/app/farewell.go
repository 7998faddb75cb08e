package app

import (
	"time"

	"baton/internal/core/cluster"
)

// leftLimit is how long a node that has left the cluster tries to stop what runs on it.
const leftLimit = 20 * time.Second

// left begins the end of a node that was made to leave the cluster: nothing of the groups stays on it.
func (a *agent) left(now cluster.Instant) {
	a.leftAt = now
	bare := *a.spec
	bare.Groups = nil
	a.quit = a.reconfigure(&bare)
}

// hasLeft tells whether everything is stopped on a node that has left.
func (a *agent) hasLeft(now cluster.Instant) bool {
	if a.leftAt == 0 {
		return false
	}
	select {
	case <-a.settled:
		return now.Sub(a.leftAt) >= a.spec.Timing.L // the coordinator is to hear that this node knows it
	default:
		return now.Sub(a.leftAt) >= leftLimit
	}
}

// farewell has close take the gate off, and says what has become of this node. What could not be stopped stays guarded.
func (a *agent) farewell() error {
	if len(a.retiring) > 0 {
		return fail(exitLeft, "stop it by hand, then baton agent --dismantle", "%s has left the cluster, but %v could not be stopped", a.self, a.retiring[0].place)
	}
	a.bare = true
	return fail(exitLeft, "to let it in again: add it with baton edit, then baton invite "+string(a.self)+", and move "+a.opt.DataDir+" away here",
		"%s has left the cluster: it serves and votes no longer", a.self)
}
