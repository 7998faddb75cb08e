package lease

import (
	"slices"

	"baton/internal/core/cluster"
)

// Said keeps which voters have said that nothing is left of a lease. What was said once stays true, so it
// is never taken back; entries go when newer ones need the room.
type Said struct {
	flaws Flaws
	facts []said
}

type said struct {
	node   cluster.NodeID
	number cluster.Number
	voters []cluster.Incarnation
}

// saidMax bounds the facts kept; the oldest go first. Each node has at most one number in question.
const saidMax = 64

// NewSaid returns an empty tally.
func NewSaid(flaws Flaws) *Said { return &Said{flaws: flaws} }

// Add notes a voter's word. It reports whether that was news.
func (s *Said) Add(node cluster.NodeID, number cluster.Number, voter cluster.Incarnation) bool {
	for i := range s.facts {
		f := &s.facts[i]
		if f.node != node || f.number != number {
			continue
		}
		if slices.Contains(f.voters, voter) {
			return false
		}
		f.voters = append(f.voters, voter)
		return true
	}
	if len(s.facts) == saidMax {
		s.facts = slices.Delete(s.facts, 0, 1)
	}
	s.facts = append(s.facts, said{node, number, []cluster.Incarnation{voter}})
	return true
}

// Over tells whether a majority of one of the sets has said that nothing is left of this number of the
// node, or of a later one: a number is given only when the one before is over. The sets are those in force
// from the number's Evict on; any of them will do.
func (s *Said) Over(node cluster.NodeID, number cluster.Number, sets [][]cluster.Incarnation) bool {
	for i := range s.facts {
		f := &s.facts[i]
		if f.node != node || f.number < number {
			continue
		}
		for _, set := range sets {
			have := 0
			for _, v := range set {
				if slices.Contains(f.voters, v) {
					have++
				}
			}
			if have >= cluster.Quorum(len(set)) || (cluster.Planted && s.flaws.QuorumOne && have > 0) {
				return true
			}
		}
	}
	return false
}
