package lease

import (
	"math/bits"

	"baton/internal/core/cluster"
)

// Said counts which voters have said that nothing is left of a lease. What was said once stays true, so
// it is never taken back; entries go when the log says that the number is over.
type Said struct {
	quorum int
	facts  []said
}

type said struct {
	node   int
	number cluster.Number
	voters uint64 // a bit per voter
}

// saidMax bounds the facts kept; the oldest go first. Each node has at most one number in question.
const saidMax = 64

// NewSaid returns an empty tally among the given number of voters.
func NewSaid(voters int, flaws Flaws) *Said {
	cluster.Assert(voters <= 64, "%d voters do not fit a tally of 64", voters)
	s := &Said{quorum: cluster.Quorum(voters)}
	if flaws.QuorumOne {
		s.quorum = 1
	}
	return s
}

// Add notes a voter's word. It reports whether that was news.
func (s *Said) Add(node int, number cluster.Number, voter int) bool {
	for i := range s.facts {
		f := &s.facts[i]
		if f.node == node && f.number == number {
			news := f.voters&(1<<voter) == 0
			f.voters |= 1 << voter
			return news
		}
	}
	if len(s.facts) == saidMax {
		s.facts = append(s.facts[:0], s.facts[1:]...)
	}
	s.facts = append(s.facts, said{node, number, 1 << voter})
	return true
}

// Over tells whether a quorum has said that nothing is left of this number of the node, or of a later
// one: a number is given only when the one before is over.
func (s *Said) Over(node int, number cluster.Number) bool {
	for _, f := range s.facts {
		if f.node == node && f.number >= number && bits.OnesCount64(f.voters) >= s.quorum {
			return true
		}
	}
	return false
}
