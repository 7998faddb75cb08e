package node

import "baton/internal/core/cluster"

// foreign tells, once, of a data directory that is not of the cluster around it.
func (n *Node) foreign() {
	if n.isForeign() {
		n.once("foreign", "foreign", n.id(), "the data directory here is of cluster %s, and the nodes that are heard are of another one: this node takes no part",
			n.state.Founding.ID)
	}
}

// isForeign tells whether the data directory is not of the cluster around it: of the nodes that are heard, which
// with this one are a majority, none is one that it knows. Each of them finds the same of this node.
func (n *Node) isForeign() bool {
	if n.state == nil || n.state.IsBlank() {
		return false
	}
	strangers := 0
	for i := range n.peers {
		p := &n.peers[i]
		if i == n.self {
			continue
		}
		if p.det.Heard() {
			return false
		}
		if empty := p.askedAt != 0 && p.asked.Empty; p.stranger != 0 && !empty { // an empty one is of no cluster yet
			strangers++
		}
	}
	return strangers+1 >= cluster.Quorum(len(n.peers))
}

// member returns a node that belongs to a cluster already, by what it answered to this node, which does not.
func (n *Node) member() (cluster.NodeID, bool) {
	for i := range n.peers {
		p := &n.peers[i]
		if i != n.self && p.askedAt != 0 && !p.asked.Empty && n.now.Mono.Sub(p.askedAt) <= 5*n.askEvery() && !n.flawed(TwoFoundings) {
			return p.id, true
		}
	}
	return "", false
}
