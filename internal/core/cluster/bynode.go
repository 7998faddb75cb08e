package cluster

import (
	"maps"
	"slices"
)

// ByNode is the value of a field that differs by node. On replaces it by the one of a node.
type ByNode map[NodeID]any

// On returns the resource as it is on one node: of every field that differs by node, its value there. A field that
// has none there is absent.
func (r *ResourceSpec) On(node NodeID) ResourceSpec {
	out := *r
	out.Fields = maps.Clone(r.Fields)
	for _, name := range slices.Sorted(maps.Keys(r.Fields)) {
		values, differs := r.Fields[name].(ByNode)
		if !differs {
			continue
		}
		delete(out.Fields, name)
		if value, has := values[node]; has {
			out.Fields[name] = value
		}
	}
	return out
}

// On returns the group as it is on one node.
func (g *GroupSpec) On(node NodeID) *GroupSpec {
	out := *g
	out.Resources = make([]ResourceSpec, len(g.Resources))
	for i := range g.Resources {
		out.Resources[i] = g.Resources[i].On(node)
	}
	return &out
}
