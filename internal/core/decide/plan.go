package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"baton/internal/core/cluster"
)

// Ban and start times of the planner, in units that people think in.
const (
	BanFor = 30 * time.Minute // how long a group stays off a node on which it failed, where another can take it
	// BanTryAgain is after what time it may go there all the same while it fails where it is and no other is left.
	// Each time it fails there again without having been well for a while, that is twice as long: banDoublings times.
	BanTryAgain  = 30 * time.Second
	banDoublings = 5
	// SharedOver is for how long a group must have been well before what every node said of its probe is over, and a
	// node before it no longer counts among those.
	SharedOver = time.Minute
	// startGraceExtra is added to `takeover` for nodes that boot together with this one.
	startGraceExtra = time.Second
)

// Plan is what the planner comes to.
type Plan struct {
	Entries   []cluster.Entry
	Decisions []Decision
}

// Make plans: it returns the entries to propose now and the decision on every group and on every node
// whose lease changes. Rules are tried in the order of the tables below; the first that fits decides.
func Make(f *cluster.Facts) Plan {
	p := &planner{f: f, leaving: make(map[cluster.NodeID]string)}
	p.instructions()
	for i := range f.Nodes {
		p.node(&f.Nodes[i])
	}
	for i := range f.Groups {
		p.group(&f.Groups[i])
	}
	p.voters()
	p.draft()
	return p.plan
}

type planner struct {
	f    *cluster.Facts
	plan Plan
	// leaving names the nodes that this plan evicts, and why: their groups are placed in the same entry.
	leaving map[cluster.NodeID]string
	asked   bool // a person asks: a manual group may go anywhere
}

// nodeRule is a rule on one node's lease.
type nodeRule struct {
	id      string
	verdict Verdict
	when    func(f *cluster.Facts, n *cluster.NodeFacts) bool
	why     string
	parts   func(n *cluster.NodeFacts) []cluster.Part
}

func evict(n *cluster.NodeFacts) []cluster.Part {
	return []cluster.Part{{Evict: &cluster.Evict{Node: n.ID, Number: n.Number}}}
}

func admit(n *cluster.NodeFacts) []cluster.Part {
	var parts []cluster.Part
	if !n.Over {
		parts = append(parts, cluster.Part{Ended: &cluster.Ended{Node: n.ID, Number: n.Number}})
	}
	return append(parts, cluster.Part{Admit: &cluster.Admit{
		Node: n.ID, Incarnation: n.Incarnation, Boot: n.Boot, Number: n.Number + 1}})
}

func admissible(f *cluster.Facts, n *cluster.NodeFacts) bool {
	return !n.Admitted && !leaves(f, n) && votes(n) && n.Role != cluster.Witness && n.Fresh && !n.Sick && !n.Deaf && !n.Isolated && n.Boot != 0 && (n.Over || n.SaidOver) &&
		len(n.SilentTo) < cluster.Quorum(f.Voters) // else it would be evicted again at once
}

// nodeRules decide on leases (protocol.md, "Taking a lease away", and "Quorum leases", 2).
var nodeRules = []nodeRule{
	{id: "N01", verdict: Evict, why: "its machine has booted anew: its former lease is taken without waiting for silence",
		when:  func(f *cluster.Facts, n *cluster.NodeFacts) bool { return n.Admitted && n.NewBoot },
		parts: evict},
	{id: "N02", verdict: Evict, why: "a majority of the voters has not heard it for the detection time",
		when: func(f *cluster.Facts, n *cluster.NodeFacts) bool {
			return n.Admitted && len(n.SilentTo) >= cluster.Quorum(f.Voters)
		},
		parts: evict},
	{id: "N03", verdict: Evict, why: "it is heard, but has said for two lease lengths that its lease does not run",
		when: func(f *cluster.Facts, n *cluster.NodeFacts) bool {
			return n.Admitted && n.Fresh && n.LeaseDown >= 2*f.Spec.Timing.L
		},
		parts: evict},
	{id: "N04", verdict: Evict, why: "it was given a group, or told to hand one or an address over, and has not applied that for the detection time",
		when: func(f *cluster.Facts, n *cluster.NodeFacts) bool {
			return n.Admitted && slices.ContainsFunc(f.Groups, func(g cluster.GroupFacts) bool { return slices.Contains(g.Behind, n.ID) })
		},
		parts: evict},
	{id: "N07", verdict: Evict, why: "it leaves the cluster, and nothing is assigned to it any more",
		when: func(f *cluster.Facts, n *cluster.NodeFacts) bool {
			return n.Admitted && leaves(f, n) && !slices.ContainsFunc(f.Groups, func(g cluster.GroupFacts) bool { return g.Owner == n.ID })
		},
		parts: evict},
	{id: "N09", verdict: Admit, why: "it is heard, and has had no lease before",
		when:  func(f *cluster.Facts, n *cluster.NodeFacts) bool { return n.Number == 0 && admissible(f, n) },
		parts: admit},
	{id: "N05", verdict: Admit, why: "it is heard, and its former lease is over", when: admissible, parts: admit},
	{id: "N06", verdict: Record, why: "a majority of the voters has said that nothing is left of its lease",
		when: func(f *cluster.Facts, n *cluster.NodeFacts) bool { return !n.Admitted && !n.Over && n.SaidOver },
		parts: func(n *cluster.NodeFacts) []cluster.Part {
			return []cluster.Part{{Ended: &cluster.Ended{Node: n.ID, Number: n.Number}}}
		}},
	{id: "N08", verdict: Record, why: "it has carried out a revision that took addresses from its groups: others may have them",
		when: func(f *cluster.Facts, n *cluster.NodeFacts) bool { return n.Carried != 0 },
		parts: func(n *cluster.NodeFacts) []cluster.Part {
			return []cluster.Part{{Carried: &cluster.Carried{Node: n.ID, Revision: n.Carried}}}
		}},
}

// node applies the first node rule that fits. An eviction carries the placement of what the node owned.
func (p *planner) node(n *cluster.NodeFacts) {
	for _, r := range nodeRules {
		if !r.when(p.f, n) {
			continue
		}
		d := Decision{Rule: r.id, Verdict: r.verdict, Node: n.ID, Why: r.why}
		if r.verdict == Evict {
			d.Evidence = nodeEvidence(p.f, n)
		}
		parts := r.parts(n)
		if r.verdict == Evict {
			p.leaving[n.ID] = r.why
			for i := range p.f.Groups {
				g := &p.f.Groups[i]
				if g.Owner == n.ID {
					parts = append(parts, p.rescue(g, &d)...)
				}
			}
		}
		p.propose(d, parts)
		return
	}
}

// rescue places a group whose owner is evicted in the same entry.
func (p *planner) rescue(g *cluster.GroupFacts, d *Decision) []cluster.Part {
	spec := p.f.Spec.Group(g.ID)
	if x := p.paused(g); x != nil {
		d.Evidence = append(d.Evidence, fmt.Sprintf("%s stays where it is: it is paused %v", g.ID, x.Note.String()))
		return nil
	}
	if spec.Failover == cluster.FailoverManual && !p.pinnedElsewhere(g) {
		d.Evidence = append(d.Evidence, fmt.Sprintf("%s goes nowhere by itself: its failover is manual; %s", g.ID, p.byHand(g)))
		return nil
	}
	best, rejected := p.choose(g)
	d.Rejected = append(d.Rejected, rejected...)
	if best == nil {
		d.Evidence = append(d.Evidence, fmt.Sprintf("no node can take %s", g.ID))
		return nil
	}
	return []cluster.Part{p.assign(g, best)}
}

func (p *planner) assign(g *cluster.GroupFacts, to *cluster.NodeFacts) cluster.Part {
	return cluster.Part{Assign: &cluster.Assign{Group: g.ID, To: to.ID, Number: to.Number, Epoch: g.Epoch + 1}}
}

// propose keeps a decision and, if it changes something, the entry that does it.
func (p *planner) propose(d Decision, parts []cluster.Part) {
	p.plan.Decisions = append(p.plan.Decisions, d)
	if len(parts) == 0 {
		return
	}
	e := cluster.Entry{Wall: p.f.Now.Wall, By: string(p.f.Self), Rule: d.Rule, Why: d.Why, Evidence: d.Evidence, Parts: parts}
	for _, r := range d.Rejected {
		e.Rejected = append(e.Rejected, string(r.Node)+": "+r.Why)
	}
	p.plan.Entries = append(p.plan.Entries, e)
}

// nodeEvidence tells what was seen of a node, in words.
func nodeEvidence(f *cluster.Facts, n *cluster.NodeFacts) []string {
	var ev []string
	if len(n.SilentTo) > 0 {
		names := make([]string, len(n.SilentTo))
		for i, v := range n.SilentTo {
			names[i] = string(v)
		}
		ev = append(ev, fmt.Sprintf("not heard for %v by %s (%d of %d voters, %d needed)",
			f.Spec.Timing.D, strings.Join(names, ", "), len(names), f.Voters, cluster.Quorum(f.Voters)))
	}
	if n.NewBoot {
		ev = append(ev, "its heartbeats carry a boot id that the log does not know")
	}
	if n.LeaseDown > 0 {
		ev = append(ev, fmt.Sprintf("says for %v that its lease does not run", n.LeaseDown.Round(time.Millisecond)))
	}
	if n.Number > 0 {
		ev = append(ev, fmt.Sprintf("lease number %d", n.Number))
	}
	return ev
}
