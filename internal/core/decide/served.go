package decide

import "baton/internal/core/cluster"

// servedRule puts on record that a group serves, once its owner has said so: what is done here is never on
// the way to serving.
var servedRule = groupRule{id: "G80", verdict: Record, why: "it serves, and that is not on record yet",
	when: func(p *planner, g *cluster.GroupFacts) bool {
		return g.Serves != nil && reportOf(p, g, g.Owner).Serving
	},
	then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
		return []cluster.Part{{Served: g.Serves}}
	}}
