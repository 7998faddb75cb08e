package state

import (
	"time"

	"baton/internal/core/cluster"
)

// Return is how a group's returns to its preferred node, by itself, have gone (protocol.md, "What the planner may do").
type Return struct {
	Node   cluster.NodeID   `json:"node,omitempty"`   // to which it returned
	Since  cluster.WallTime `json:"since,omitempty"`  // when it last did; 0: it has left since
	Failed int              `json:"failed,omitempty"` // how many in a row did not last
}

// returnsCounted bounds Return.Failed: the wait is at its longest long before.
const returnsCounted = 32

// returned follows a placement before it is applied: whether the group returns to its preferred node, or leaves it, and
// after what time.
func (g *Group) returned(a *cluster.Assign, wall cluster.WallTime, policy cluster.FailbackPolicy) {
	r := &g.Return
	asked := g.asked(a)
	if r.Since != 0 && a.To != r.Node {
		stayed := time.Duration(wall - r.Since)
		switch {
		case asked: // somebody took it away
		case policy.Lasted(r.Failed, stayed) || stayed < 0: // or the wall clock was set back: nobody knows
			r.Failed = 0
		default:
			r.Failed = min(r.Failed+1, returnsCounted)
		}
		r.Since = 0
	}
	if asked && g.Move.Failback {
		if r.Node != a.To {
			*r = Return{Node: a.To}
		}
		r.Since = wall
	}
}

// FailedReturns is how many returns in a row to a node did not last.
func (g *Group) FailedReturns(to cluster.NodeID) int {
	if g.Return.Node != to {
		return 0
	}
	return g.Return.Failed
}
