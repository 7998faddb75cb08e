package lease

import (
	"time"

	"baton/internal/core/cluster"
)

// Voter is the side that promises. Promises live in memory only; the grace stands in for those that a
// former run has made.
type Voter struct {
	flaws  Flaws
	grace  cluster.Instant
	until  []cluster.Instant // per node: the end of the latest promise
	timing cluster.Timing
}

// NewVoter returns a voter that answers, until grace ends, as if it had promised to everybody.
func NewVoter(nodes int, timing cluster.Timing, grace cluster.Instant, flaws Flaws) *Voter {
	return &Voter{flaws: flaws, grace: grace, until: make([]cluster.Instant, nodes), timing: timing}
}

// Promise promises that nobody takes the node's lease before l(1+rho) from now.
func (v *Voter) Promise(node int, now cluster.Instant, l time.Duration) {
	d := v.timing.Promised(l)
	if v.flaws.NoRho {
		d = l
	}
	v.until[node] = max(v.until[node], now.Add(d))
}

// Left returns when nothing is left of the promises to a node.
func (v *Voter) Left(node int) cluster.Instant { return max(v.grace, v.until[node]) }
