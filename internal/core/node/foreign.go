package node

import "baton/internal/core/cluster"

// foreign tells, once, of a data directory that is not of the cluster around it.
func (n *Node) foreign() {
	if what := n.foreignTo(); what != "" {
		n.once("foreign", "foreign", n.id(), "%s", what)
	}
}

// foreignTo says that the data directory is not of the cluster around it, if so: of the nodes that are heard, which
// with this one are a majority, none is one that it knows. Each of them finds the same of this node.
func (n *Node) foreignTo() string {
	if n.state == nil || n.state.IsBlank() {
		return ""
	}
	strangers := 0
	for i := range n.peers {
		p := &n.peers[i]
		if i == n.self {
			continue
		}
		if p.det.Heard() {
			return ""
		}
		if p.stranger != 0 {
			strangers++
		}
	}
	if strangers+1 < cluster.Quorum(len(n.peers)) {
		return ""
	}
	return "the data directory here is of cluster " + n.state.Founding.ID + ", and the nodes that are heard are of another one: this node takes no part"
}

// member returns a node that belongs to a cluster already, by what it answered to this node, which does not.
func (n *Node) member() (cluster.NodeID, bool) {
	for i := range n.peers {
		p := &n.peers[i]
		if i != n.self && p.askedAt != 0 && !p.asked.Empty && n.now.Mono.Sub(p.askedAt) <= 5*n.askEvery() && n.flaw != TwoFoundings {
			return p.id, true
		}
	}
	return "", false
}
