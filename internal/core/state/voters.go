package state

import (
	"fmt"
	"slices"

	"baton/internal/core/cluster"
)

// setsMax bounds the sets kept: a lease number is over once a majority of any set from its Evict on has
// said so, and older sets than these only add ways to learn of it.
const setsMax = 16

// Member is an incarnation that has a copy of the log: a voter, or a newcomer that has no vote yet.
type Member struct {
	Node        cluster.NodeID      `json:"node"`
	Incarnation cluster.Incarnation `json:"incarnation"`
}

// VoterSet is a set of voters and the log index of the change that made it. Sets are of incarnations: an
// ack, a vote or a word of another incarnation counts in none.
type VoterSet struct {
	Index  uint64                `json:"index"`
	Voters []cluster.Incarnation `json:"voters"`
}

// Set returns the set in force.
func (s *State) Set() *VoterSet { return &s.Sets[len(s.Sets)-1] }

// SetsSince returns the sets in force at the log index or later.
func (s *State) SetsSince(index uint64) [][]cluster.Incarnation {
	var out [][]cluster.Incarnation
	for i := range s.Sets {
		if i+1 == len(s.Sets) || s.Sets[i+1].Index > index {
			out = append(out, s.Sets[i].Voters)
		}
	}
	return out
}

// Votes tells whether an incarnation is a voter.
func (s *State) Votes(inc cluster.Incarnation) bool {
	return len(s.Sets) > 0 && slices.Contains(s.Set().Voters, inc)
}

// Member returns the newest incarnation of a node that has a copy of the log, or nil.
func (s *State) Member(id cluster.NodeID) *Member {
	for i := len(s.Members) - 1; i >= 0; i-- {
		if s.Members[i].Node == id {
			return &s.Members[i]
		}
	}
	return nil
}

// MembersOf returns every incarnation of a node that has a copy of the log, oldest first: two while a lost
// disk is replaced.
func (s *State) MembersOf(id cluster.NodeID) []Member {
	var out []Member
	for _, m := range s.Members {
		if m.Node == id {
			out = append(out, m)
		}
	}
	return out
}

// Learners returns the incarnations that copy the log without a vote.
func (s *State) Learners() []cluster.Incarnation {
	var out []cluster.Incarnation
	for _, m := range s.Members {
		if !s.Votes(m.Incarnation) {
			out = append(out, m.Incarnation)
		}
	}
	return out
}

// voter changes the set. It was decided on the set of log index Base.
func (s *State) voter(index uint64, v *cluster.Voter) string {
	if v.Base != s.Set().Index && !(cluster.Planted && s.flaws.Swap) {
		return fmt.Sprintf("it was decided on the voters of entry %d, they changed at %d", v.Base, s.Set().Index)
	}
	k := slices.IndexFunc(s.Members, func(m Member) bool { return m.Incarnation == v.Incarnation })
	votes := s.Votes(v.Incarnation)
	switch v.Op {
	case cluster.VoterLearn:
		switch {
		case s.Node(v.Node) == nil:
			return "no such node"
		case k >= 0:
			return "it copies the log already"
		}
		s.Members = append(s.Members, Member{v.Node, v.Incarnation})
	case cluster.VoterAdd:
		if k < 0 || votes {
			return "it does not copy the log, or votes already"
		}
		s.changeSet(index, append(slices.Clone(s.Set().Voters), v.Incarnation))
	case cluster.VoterDemote:
		if !votes {
			return "it does not vote"
		}
		s.changeSet(index, without(s.Set().Voters, v.Incarnation))
	case cluster.VoterRemove:
		if k < 0 {
			return "it is gone already"
		}
		s.Members = slices.Delete(s.Members, k, k+1)
		if votes {
			s.changeSet(index, without(s.Set().Voters, v.Incarnation))
		}
	default:
		return "this version does not know it"
	}
	return ""
}

func without(set []cluster.Incarnation, inc cluster.Incarnation) []cluster.Incarnation {
	return slices.DeleteFunc(slices.Clone(set), func(x cluster.Incarnation) bool { return x == inc })
}

func (s *State) changeSet(index uint64, voters []cluster.Incarnation) {
	s.Sets = append(s.Sets, VoterSet{index, voters})
	if len(s.Sets) > setsMax {
		s.Sets = slices.Delete(s.Sets, 0, 1)
	}
}
