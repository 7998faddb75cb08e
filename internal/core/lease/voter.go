package lease

import (
	"slices"
	"time"

	"baton/internal/core/cluster"
)

// Voter is the side that promises. Promises live in memory only; the grace stands in for those that a
// former run has made.
type Voter struct {
	flaws    Flaws
	grace    cluster.Instant
	promises []promise // one per node
	timing   cluster.Timing
}

type promise struct {
	node  cluster.NodeID
	until cluster.Instant // the end of the latest
}

// NewVoter returns a voter that answers, until grace ends, as if it had promised to everybody.
func NewVoter(timing cluster.Timing, grace cluster.Instant, flaws Flaws) *Voter {
	return &Voter{flaws: flaws, grace: grace, timing: timing}
}

// Promise promises that nobody takes the node's lease before l(1+rho) from now.
func (v *Voter) Promise(node cluster.NodeID, now cluster.Instant, l time.Duration) {
	d := v.timing.Promised(l)
	if cluster.Planted && v.flaws.NoRho {
		d = l
	}
	i := v.find(node)
	if i < 0 {
		i = len(v.promises)
		v.promises = append(v.promises, promise{node: node})
	}
	v.promises[i].until = max(v.promises[i].until, now.Add(d))
}

// Left returns when nothing is left of the promises to a node.
func (v *Voter) Left(node cluster.NodeID) cluster.Instant {
	if i := v.find(node); i >= 0 {
		return max(v.grace, v.promises[i].until)
	}
	return v.grace
}

// Grace returns when the grace ends.
func (v *Voter) Grace() cluster.Instant { return v.grace }

// SetTiming changes rho's base: how long promises last is told by each heartbeat.
func (v *Voter) SetTiming(t cluster.Timing) { v.timing = t }

func (v *Voter) find(node cluster.NodeID) int {
	return slices.IndexFunc(v.promises, func(p promise) bool { return p.node == node })
}
