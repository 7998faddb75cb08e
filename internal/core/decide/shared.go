package decide

import (
	"fmt"

	"baton/internal/core/cluster"
)

// This file judges what a program's probe says against it. Where every node on which a group could run says the same
// of the same probe, it is what the probe asks for that fails, and neither a restart nor a move mends that.

// Shared tells whether a probe has failed at a node, and every other node that could have the group says the same of
// it. Without another node that could have it, it is none's word but its own.
func Shared(f *cluster.Facts, g *cluster.GroupFacts, at cluster.NodeID) bool {
	return (&planner{f: f, asked: true}).shared(g, at)
}

func (p *planner) shared(g *cluster.GroupFacts, at cluster.NodeID) bool {
	here := reportOf(p, g, at)
	if !here.Failed || here.Probe == 0 {
		return false
	}
	others := 0
	for _, id := range p.f.Spec.Group(g.ID).Nodes {
		if id == at || p.inability(g, id) != "" || p.f.Instructions.Drain(id) != nil {
			continue
		}
		if !p.saysSame(g, id, at) {
			return false
		}
		others++
	}
	return others > 0
}

// saysSame tells whether a node says of a probe what another says that has failed: it has failed there as well, or its
// last try has; or it failed there a moment ago, when the group ran there. What a node said is over once the group has
// been well for a while, there or where it went: where all said the same, not all find it mended at the same moment.
// Where a fault of its own explains why the other does not find it mended, only what is said now counts.
func (p *planner) saysSame(g *cluster.GroupFacts, id, at cluster.NodeID) bool {
	here := reportOf(p, g, at)
	if !here.Failed || here.Probe == 0 {
		return false
	}
	there := p.report(g, id)
	if there.Probe == here.Probe {
		return true
	}
	if here.Cut || p.f.Node(at).Sick || p.nearer(g, id, at) {
		return false
	}
	if g.Shared != nil && g.Shared.Probe == here.Probe && there.Hot && !there.Failed && there.Well < SharedOver {
		return true
	}
	b := p.banOn(g, id)
	return b != nil && b.Probe == here.Probe && here.Brief && !(there.Hot && there.Well >= SharedOver)
}

// certain tells whether no node's word is a first failed try only.
func (p *planner) certain(g *cluster.GroupFacts) bool {
	for _, id := range p.f.Spec.Group(g.ID).Nodes {
		if r := p.report(g, id); r.Probe != 0 && !r.Failed {
			return false
		}
	}
	return true
}

// onRecord tells whether what is said of a group now is on record.
func onRecord(p *planner, g *cluster.GroupFacts) bool {
	return g.Shared != nil && g.Shared.Epoch == g.Epoch && g.Shared.Probe == reportOf(p, g, g.Owner).Probe
}

func tellShared(p *planner, g *cluster.GroupFacts, d *Decision) {
	d.Evidence = append(d.Evidence, fmt.Sprintf("%s: %s", g.Owner, reportOf(p, g, g.Owner).Reason))
	_, d.Rejected = p.choose(g)
}
