package decide

import (
	"fmt"
	"strings"

	"baton/internal/core/cluster"
)

// This file holds what follows from the networks that clients come by (protocol.md, "Clients' networks"). It is a
// preference: a node that has lost one takes a group all the same where nobody else can.

// OutOfSight is the rule by which a group leaves a node that has lost a network of its clients.
const OutOfSight = "G37"

// astray tells which networks a node has lost by which a group's clients come, in words; "": none.
func (p *planner) astray(g *cluster.GroupFacts, id cluster.NodeID) string {
	var lost []string
	for i := range g.Networks {
		if v := p.on(&g.Networks[i], id); v.State == cluster.NetLost {
			lost = append(lost, v.Why)
		}
	}
	return strings.Join(lost, ", and ")
}

func (p *planner) on(w *cluster.Network, id cluster.NodeID) cluster.NetworkView {
	for i := range p.f.Nodes {
		if p.f.Nodes[i].ID == id {
			return w.On[i]
		}
	}
	return cluster.NetworkView{}
}

// nearer tells whether a node has a network for good that another has lost, and has lost none besides: clients reach
// the group there, and not here.
func (p *planner) nearer(g *cluster.GroupFacts, id, than cluster.NodeID) bool {
	has := false
	for i := range g.Networks {
		a, b := p.on(&g.Networks[i], id).State, p.on(&g.Networks[i], than).State
		if a == cluster.NetLost && b != cluster.NetLost {
			return false
		}
		has = has || a == cluster.NetHas && b == cluster.NetLost
	}
	return has
}

// distance ranks a candidate by its networks: nearer to the clients than the owner, where that has lost one; then who
// has lost none.
func (p *planner) distance(g *cluster.GroupFacts, id cluster.NodeID) int {
	switch {
	case p.astray(g, id) != "":
		return 2
	case g.Owner != "" && p.astray(g, g.Owner) != "" && !p.nearer(g, id, g.Owner):
		return 1
	}
	return 0
}

// farther tells whether a group would be moved out of its clients' sight.
func (p *planner) farther(g *cluster.GroupFacts, to cluster.NodeID) bool {
	return g.Owner != "" && p.astray(g, to) != "" && p.astray(g, g.Owner) == ""
}

// outOfSight: the owner has lost a network, and another node is nearer to the clients. It must be heard at the moment,
// or the same fault may only not have shown there yet; and must not just have failed the group.
func outOfSight(p *planner, g *cluster.GroupFacts) bool {
	if p.manual(g) || p.astray(g, g.Owner) == "" {
		return false
	}
	best := p.best(g)
	if best == nil || best.Late || !p.nearer(g, best.ID, g.Owner) {
		return false
	}
	ban := p.banned(g, best.ID)
	return ban == nil || !p.justFailed(ban)
}

// lonely says, of a group whose owner has lost a network, that nobody is known to be nearer to its clients.
func (p *planner) lonely(g *cluster.GroupFacts) string {
	for i := range p.f.Nodes {
		if id := p.f.Nodes[i].ID; p.f.Spec.Group(g.ID).Prefers(id) >= 0 && p.nearer(g, id, g.Owner) {
			return ""
		}
	}
	return "; no other of its nodes is known to be better off"
}

func intoSight(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
	d.Evidence = append(d.Evidence, fmt.Sprintf("%s %s", g.Owner, p.astray(g, g.Owner)))
	return place(p, g, d)
}

// Astray tells how a node has lost the networks that a group's clients come by, or "".
func Astray(f *cluster.Facts, g *cluster.GroupFacts, id cluster.NodeID) string {
	return (&planner{f: f}).astray(g, id)
}
