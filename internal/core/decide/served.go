package decide

import "baton/internal/core/cluster"

// servedRule puts on record that a group serves, once its owner has said so: what is done here is never on
// the way to serving.
var servedRule = groupRule{id: "G80", verdict: Record, why: "clients are served: since when, and for how long they were not, is put on record",
	when: func(p *planner, g *cluster.GroupFacts) bool {
		return g.Serves != nil && reportOf(p, g, g.Owner).Serving
	},
	then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
		return []cluster.Part{{Served: g.Serves}}
	}}

// amendRule puts an outage on record right.
var amendRule = groupRule{id: "G81", verdict: Record, why: "the node that had served before is back, and tells until when it did",
	when: func(p *planner, g *cluster.GroupFacts) bool { return g.Amends != nil },
	then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
		return []cluster.Part{{Amend: g.Amends}}
	}}

// pausedRule does the same for a group that is paused: to be watched is what is left of it.
var pausedRule = groupRule{id: "G82", verdict: Record, why: "it is paused, and watched all the same: what its clients got is put on record",
	when: func(p *planner, g *cluster.GroupFacts) bool {
		return p.paused(g) != nil && (servedRule.when(p, g) || amendRule.when(p, g))
	},
	then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
		if servedRule.when(p, g) {
			return servedRule.then(p, g, d)
		}
		return amendRule.then(p, g, d)
	}}
