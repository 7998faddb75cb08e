package node

import "baton/internal/core/cluster"

// noGroup refuses the name of a group that there is not.
func noGroup(spec *cluster.Spec, id cluster.GroupID) *Reply {
	known := make([]cluster.GroupID, len(spec.Groups))
	for i := range spec.Groups {
		known[i] = spec.Groups[i].ID
	}
	return refuse(cluster.Choice("groups", string(id), known), "there is no group %q", id)
}

// noNode refuses the name of a node that there is not.
func noNode(spec *cluster.Spec, id cluster.NodeID) *Reply {
	known := make([]cluster.NodeID, len(spec.Nodes))
	for i := range spec.Nodes {
		known[i] = spec.Nodes[i].ID
	}
	return refuse(cluster.Choice("nodes", string(id), known), "there is no node %q", id)
}

// nodesOf is the hint for who has named a node that is none of a group's.
func nodesOf(f *cluster.Facts, g cluster.GroupID, written cluster.NodeID) string {
	return cluster.Choice("nodes of "+string(g), string(written), f.Spec.Group(g).Nodes)
}
