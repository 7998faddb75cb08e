package node

import (
	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// This file keeps, on every node, since when the others are fit to serve: whoever comes to coordinate goes on
// from what it has seen itself.

// tendFitness brings into line since when each node is fit to serve a group. Any change begins the time anew.
func (n *Node) tendFitness(i int) {
	l, st := &n.groups[i], &n.state.Groups[i]
	if l.behindIdx != st.Index || l.disowned != (st.Owner == "") {
		l.behindIdx, l.behindAt, l.disowned = st.Index, n.now.Mono, st.Owner == ""
	}
	if l.fit == nil {
		l.fit = make(map[cluster.NodeID]cluster.Instant, len(n.peers))
	}
	for k := range n.peers {
		id := n.peers[k].id
		switch fit := n.fitFor(k, i); {
		case !fit:
			delete(l.fit, id)
		case l.fit[id] == 0:
			l.fit[id] = n.now.Mono
		}
	}
}

// fitAnew begins the time of a node anew, for every group: its agent was restarted, or released a group that nobody told
// it to, as its lease had ended. The lease it holds now may be sound, but a node that loses it again and again is none to
// go back to.
func (n *Node) fitAnew(id cluster.NodeID) {
	n.groupsDue = true
	for i := range n.groups {
		delete(n.groups[i].fit, id)
	}
}

// fitFor tells whether a node could serve a group: it is heard, holds its lease, and reports neither a sick disk,
// a lost uplink, a failure of the group, nor that its host lacks what the group needs.
func (n *Node) fitFor(k, i int) bool {
	if !n.state.Nodes[k].Admitted {
		return false
	}
	if p := &n.peers[k]; k == n.self {
		if !n.leaseRuns() || n.pulse.sick && !n.flawed(FitnessBlind) {
			return false
		}
	} else if !p.isHeard() || !p.hb.LeaseRuns || p.hb.Sick && !n.flawed(FitnessBlind) {
		return false
	}
	r, ok := n.groupReport(k, i)
	if n.flawed(FitnessBlind) {
		return ok
	}
	return ok && !r.Cut && !r.Lacks && r.Phase != wire.PhaseFailed
}
