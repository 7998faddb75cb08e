package node

import (
	"slices"

	"baton/internal/core/cluster"
	"baton/internal/core/state"
)

// overviewMembers tells of the cluster's nodes as voters, and of the configuration.
func (n *Node) overviewMembers(o *cluster.Overview) {
	_, o.Joining = n.member()
	o.Joining = o.Joining && n.founding != nil
	if n.state == nil {
		return
	}
	if n.state.IsBlank() {
		o.Joining, o.Forming = true, "the copy of the cluster's log is under way"
		return
	}
	c := n.Configuration()
	o.Revision, o.Draft, o.Voters, o.VotersHeard = c.Current().Revision, c.Draft, n.voters, n.fresh()
}

// membership tells a node's part in the cluster; empty: it is not known.
func (n *Node) membership(i int) cluster.Membership {
	if n.state == nil || n.state.IsBlank() {
		return ""
	}
	p := &n.peers[i]
	members := n.state.MembersOf(p.id)
	known := func(inc cluster.Incarnation) bool {
		return slices.ContainsFunc(members, func(m state.Member) bool { return m.Incarnation == inc })
	}
	asks := p.askedAt != 0 && p.asked.Empty && n.now.Mono.Sub(p.askedAt) < askedFor && !known(p.asked.Incarnation)
	switch {
	case n.leaves(p.id):
		return cluster.Leaves
	case len(members) == 0 || n.awaited(p) || i != n.self && asks:
		return cluster.Outside
	case n.state.Votes(members[len(members)-1].Incarnation):
		return cluster.Votes
	}
	return cluster.Copies
}
