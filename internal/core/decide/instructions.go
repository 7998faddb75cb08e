package decide

import (
	"fmt"
	"slices"

	"baton/internal/core/cluster"
)

// instructionRule is a rule on people's standing instructions.
type instructionRule struct {
	id      string
	verdict Verdict
	why     string
	parts   func(f *cluster.Facts) []cluster.Part // none: the rule does not fit
}

// instructionRules end instructions, by the coordinator's wall clock.
var instructionRules = []instructionRule{
	{id: "I01", verdict: Record, why: "the time that an instruction was given for is over", parts: ended},
}

func (p *planner) instructions() {
	for _, r := range instructionRules {
		if parts := r.parts(p.f); len(parts) > 0 {
			p.propose(Decision{Rule: r.id, Verdict: r.verdict, Why: r.why}, parts)
			p.f = withoutEnded(p.f) // whose entry comes first
			return
		}
	}
}

// ended takes back what has come to its end. Each part names that end: an instruction given anew stays.
func ended(f *cluster.Facts) []cluster.Part {
	var parts []cluster.Part
	x, now := f.Instructions, f.Now.Wall
	for i := range x.Paused {
		if p := &x.Paused[i]; p.Over(now) {
			parts = append(parts, cluster.Part{Resume: &cluster.Resume{Group: p.Group, Only: p.Until}})
		}
	}
	for i := range x.Pinned {
		if p := &x.Pinned[i]; p.Over(now) {
			parts = append(parts, cluster.Part{Unpin: &cluster.Unpin{Group: p.Group, Only: p.Until}})
		}
	}
	for i := range x.Drained {
		if d := &x.Drained[i]; d.Over(now) {
			parts = append(parts, cluster.Part{Undrain: &cluster.Undrain{Node: d.Node, Only: d.Until}})
		}
	}
	for i := range x.Stopped {
		if s := &x.Stopped[i]; s.Over(now) {
			parts = append(parts, cluster.Part{Start: &cluster.Start{Group: s.Group, Resource: s.Resource, Only: s.Until}})
		}
	}
	return parts
}

// withoutEnded returns the facts without the instructions whose end has come.
func withoutEnded(f *cluster.Facts) *cluster.Facts {
	rest, x, now := *f, f.Instructions, f.Now.Wall
	rest.Instructions = &cluster.Instructions{
		Paused:  slices.DeleteFunc(slices.Clone(x.Paused), func(p cluster.Pause) bool { return p.Over(now) }),
		Pinned:  slices.DeleteFunc(slices.Clone(x.Pinned), func(p cluster.Pin) bool { return p.Over(now) }),
		Drained: slices.DeleteFunc(slices.Clone(x.Drained), func(d cluster.Drain) bool { return d.Over(now) }),
		Stopped: slices.DeleteFunc(slices.Clone(x.Stopped), func(s cluster.Stop) bool { return s.Over(now) }),
		Tasks:   x.Tasks,
	}
	return &rest
}

func (p *planner) paused(g *cluster.GroupFacts) *cluster.Pause { return p.f.Instructions.Pause(g.ID) }

// pinnedElsewhere tells whether a person has said where the group is to run, and it is not there: to go
// there is no failover of the planner's own.
func (p *planner) pinnedElsewhere(g *cluster.GroupFacts) bool {
	pin := p.f.Instructions.Pin(g.ID)
	return pin != nil && pin.Node != g.Last
}

func stopped(p *planner, g *cluster.GroupFacts) bool { return p.f.Instructions.Stop(g.ID, "") != nil }

func toldToStop(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
	d.Evidence = append(d.Evidence, "stopped "+p.f.Instructions.Stop(g.ID, "").Note.String())
	return nil
}

// toItsPin tells whether the group serves elsewhere than where it is pinned, and could go there. Until it can
// it stays: a pin takes no service away.
func toItsPin(p *planner, g *cluster.GroupFacts) bool {
	pin := p.f.Instructions.Pin(g.ID)
	return pin != nil && g.Owner != "" && g.Owner != pin.Node && g.Move == nil && p.refusal(g, pin.Node) == ""
}

func moveToPin(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
	pin := p.f.Instructions.Pin(g.ID)
	d.Evidence = append(d.Evidence, fmt.Sprintf("pinned to %s %v", pin.Node, pin.Note.String()))
	return []cluster.Part{p.planned("pin", g, pin.Node)}
}

// planned is a Move of the planner's own. Its id is new each time: one that was given up may be tried again.
func (p *planner) planned(by string, g *cluster.GroupFacts, to cluster.NodeID) cluster.Part {
	return cluster.Part{Move: &cluster.Move{ID: fmt.Sprintf("%s-%s-%d-%x", by, g.ID, g.Epoch, int64(p.f.Now.Wall)),
		Group: g.ID, From: g.Owner, To: to, Epoch: g.Epoch}}
}

func onDrained(p *planner, g *cluster.GroupFacts) bool {
	return g.Move == nil && p.f.Instructions.Drain(g.Owner) != nil
}

// refuge returns where a group on a drained node can go: never where it failed before, for it serves now.
// hot tells that it needs no start there.
func (p *planner) refuge(g *cluster.GroupFacts) (to cluster.NodeID, hot bool) {
	if !onDrained(p, g) || p.leaving[g.Owner] != "" || p.paused(g) != nil {
		return "", false
	}
	asked := &planner{f: p.f, leaving: p.leaving, asked: true} // by whoever drains: manual groups go too
	best := asked.best(g)
	if best == nil || p.banned(g, best.ID) != nil || p.farther(g, best.ID) {
		return "", false
	}
	return best.ID, p.report(g, best.ID).Hot
}

// hotLeaves tells whether a group that needs no start elsewhere is still on the node, or on its way off it.
func (p *planner) hotLeaves(node cluster.NodeID) bool {
	for i := range p.f.Groups {
		g := &p.f.Groups[i]
		if g.Move != nil && g.Move.From == node && p.report(g, g.Move.To).Hot {
			return true
		}
		if _, hot := p.refuge(g); hot && g.Owner == node {
			return true
		}
	}
	return false
}

func offDrained(p *planner, g *cluster.GroupFacts) bool {
	to, hot := p.refuge(g)
	return to != "" && (hot || !p.hotLeaves(g.Owner))
}

func offDrainedLater(p *planner, g *cluster.GroupFacts) bool {
	to, _ := p.refuge(g)
	return to != ""
}

func moveOff(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
	to, _ := p.refuge(g)
	drainEvidence(p, g, d)
	return []cluster.Part{p.planned("drain", g, to)}
}

func drainEvidence(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
	d.Evidence = append(d.Evidence, fmt.Sprintf("%s is drained %v", g.Owner, p.f.Instructions.Drain(g.Owner).Note.String()))
	return nil
}

func onDrainedStays(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
	drainEvidence(p, g, d)
	best, rejected := p.choose(g)
	d.Rejected = rejected
	if best != nil { // it serves here, so where it failed before is no better place
		d.Rejected = append(d.Rejected, Alternative{best.ID, p.refusal(g, best.ID)})
	}
	return nil
}

// Stuck tells whether a group on a drained node has no other place now.
func Stuck(f *cluster.Facts, g *cluster.GroupFacts) bool {
	p := &planner{f: f}
	to, _ := p.refuge(g)
	return onDrained(p, g) && to == ""
}

// Banned tells whether a ban keeps a group off a node.
func Banned(f *cluster.Facts, g *cluster.GroupFacts, to cluster.NodeID) bool {
	return (&planner{f: f}).banned(g, to) != nil
}
