package decide

import (
	"fmt"
	"slices"
	"strings"

	"baton/internal/core/cluster"
)

// groupRule is a rule on one group. `then` returns the parts to propose; it may add to the decision.
type groupRule struct {
	id      string
	verdict Verdict
	when    func(p *planner, g *cluster.GroupFacts) bool
	why     string
	then    func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part
}

// groupRules decide where a group is. Their ids are stored in every record and never change meaning.
var groupRules = []groupRule{
	{id: "G01", verdict: Record, why: "its release was heard",
		when: func(p *planner, g *cluster.GroupFacts) bool { return len(g.Released) > 0 },
		then: putReleased},
	{id: "G02", verdict: Wait, why: "its owner is being evicted; the same entry places it",
		when: func(p *planner, g *cluster.GroupFacts) bool { return p.leaving[g.Owner] != "" && p.paused(g) == nil }},
	{id: "G03", verdict: Record, why: "a ban has run out",
		when: func(p *planner, g *cluster.GroupFacts) bool { return expired(p, g) != nil },
		then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
			b := expired(p, g)
			return []cluster.Part{{Unban: &cluster.Unban{Group: g.ID, Node: b.Node}}}
		}},
	{id: "G04", verdict: Record, why: "a ban's cause is mended: it was not the group that failed, but what is around it",
		when: func(p *planner, g *cluster.GroupFacts) bool { return p.mended(g) != nil },
		then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
			return []cluster.Part{{Unban: &cluster.Unban{Group: g.ID, Node: p.mended(g).Node}}}
		}},
	{id: "G05", verdict: Stay, why: "somebody has stopped it, and it stays so until it is started or its time is up", when: stopped, then: toldToStop},
	{id: "G10", verdict: Record, why: "the move has ended: the target serves",
		when: func(p *planner, g *cluster.GroupFacts) bool { return moved(g) && reportOf(p, g, g.Move.To).Serving },
		then: endMove(true, "")},
	pausedRule,
	{id: "G06", verdict: Stay, why: "it is paused: it is watched, and nothing is decided on it",
		when: func(p *planner, g *cluster.GroupFacts) bool { return p.paused(g) != nil },
		then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
			d.Evidence = append(d.Evidence, "paused "+p.paused(g).Note.String())
			_, d.Rejected = p.choose(g)
			return nil
		}},
	{id: "G11", verdict: Move, why: "the move failed: the target could not start it; it goes back where it was",
		when: func(p *planner, g *cluster.GroupFacts) bool {
			return moved(g) && g.Owner == g.Move.To && reportOf(p, g, g.Owner).Failed && p.inability(g, g.Move.From) == "" && !p.shared(g, g.Owner)
		},
		then: giveBack},
	{id: "G14", verdict: Record, why: "the move failed, and it can't go back where it was: it waits for a command, or goes elsewhere",
		when: func(p *planner, g *cluster.GroupFacts) bool {
			return moved(g) && g.Owner == g.Move.To && reportOf(p, g, g.Owner).Failed
		},
		then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
			return endMove(false, fmt.Sprintf("%s could not start it: %s", g.Owner, reportOf(p, g, g.Owner).Reason))(p, g, d)
		}},
	{id: "G12", verdict: Move, why: "a switchover was asked for, and the target is ready",
		when: func(p *planner, g *cluster.GroupFacts) bool {
			return g.Move != nil && g.Move.Assigned == 0 && p.refusal(g, g.Move.To) == ""
		},
		then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
			return []cluster.Part{p.assign(g, p.f.Node(g.Move.To))}
		}},
	{id: "G13", verdict: Record, why: "the move is given up: the target can't take it",
		when: func(p *planner, g *cluster.GroupFacts) bool { return g.Move != nil && g.Move.Assigned == 0 },
		then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
			reason := p.refusal(g, g.Move.To)
			d.Evidence = append(d.Evidence, string(g.Move.To)+": "+reason)
			return endMove(false, string(g.Move.To)+" "+reason)(p, g, d)
		}},
	{id: "G20", verdict: Wait, why: "the cluster starts: the node where it served last, or is preferred, may still come",
		when: func(p *planner, g *cluster.GroupFacts) bool { return g.Owner == "" && p.mayStillCome(g) }},
	{id: "G24", verdict: Wait, why: "it is new, and a node that it prefers has not told yet how it is there",
		when: func(p *planner, g *cluster.GroupFacts) bool { return g.Owner == "" && p.awaitsWord(g) }},
	{id: "G21", verdict: Stay, why: "its failover is manual: it waits until somebody moves it, with baton switch",
		when: func(p *planner, g *cluster.GroupFacts) bool {
			return g.Owner == "" && p.manual(g) && g.Epoch > 0 && p.best(g) == nil && !p.pinnedElsewhere(g)
		},
		then: explainByHand},
	{id: "G22", verdict: Move, why: "nobody owns it",
		when: func(p *planner, g *cluster.GroupFacts) bool { return g.Owner == "" && p.best(g) != nil },
		then: place},
	{id: "G23", verdict: Wait, why: "no node can take it",
		when: func(p *planner, g *cluster.GroupFacts) bool { return g.Owner == "" },
		then: explainNobody},
	{id: "G33", verdict: Record, why: "it is pinned to another node, which can take it", when: toItsPin, then: moveToPin},
	{id: "G42", verdict: Record, why: "every node that could have it says the same of the same probe, and that is not on record yet",
		when: func(p *planner, g *cluster.GroupFacts) bool {
			return p.shared(g, g.Owner) && !onRecord(p, g) && p.certain(g)
		},
		then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
			r := reportOf(p, g, g.Owner)
			tellShared(p, g, d)
			return []cluster.Part{{Shared: &cluster.Shared{Group: g.ID, Epoch: g.Epoch, Probe: r.Probe, Reason: r.Reason, Wall: p.f.Now.Wall}}}
		}},
	{id: "G38", verdict: Stay, why: "every node that could have it says the same of the same probe: it is not the nodes, so it stays, and nothing that is up is stopped for it",
		when: func(p *planner, g *cluster.GroupFacts) bool { return p.shared(g, g.Owner) },
		then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
			tellShared(p, g, d)
			return nil
		}},
	{id: "G30", verdict: Move, why: "it failed on its node, and another can take it",
		when: func(p *planner, g *cluster.GroupFacts) bool {
			return reportOf(p, g, g.Owner).Failed && !p.manual(g) && p.best(g) != nil
		},
		then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
			r := reportOf(p, g, g.Owner)
			d.Evidence = append(d.Evidence, fmt.Sprintf("%s: %s", g.Owner, r.Reason))
			parts := append(place(p, g, d), p.ban(g, r.Reason, r.Reason))
			if o := p.f.Node(g.Owner); o.Sick { // as in G32
				d.Evidence = append(d.Evidence, fmt.Sprintf("%s is sick: its disk, run record or gate does not answer", o.ID))
				parts = append(evict(o), parts...)
			}
			return parts
		}},
	{id: "G32", verdict: Move, why: "its node has lost its uplink or is sick, and another can take it",
		when: offUnfit,
		then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
			o := p.f.Node(g.Owner)
			d.Evidence = append(d.Evidence, fmt.Sprintf("%s: uplink gone %v, sick (disk, run record or gate does not answer) %v", o.ID, p.report(g, o.ID).Cut, o.Sick))
			if !o.Sick {
				return place(p, g, d)
			}
			// What is sick keeps it from seeing that it is to hand over: what it does not release ends with its lease.
			return append(evict(o), place(p, g, d)...)
		}},
	{id: OutOfSight, verdict: Move, why: "its node has lost a network from which its clients come, and another that has it can take it",
		when: outOfSight, then: intoSight},
	servedRule,
	amendRule,
	{id: "G39", verdict: Record, why: "it has been well for a while, of which every node had said the same",
		when: func(p *planner, g *cluster.GroupFacts) bool {
			r := reportOf(p, g, g.Owner)
			return g.Shared != nil && r.Serving && r.Probe == 0 && r.Well >= SharedOver
		},
		then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
			return []cluster.Part{{Shared: &cluster.Shared{Group: g.ID, Epoch: g.Epoch, Probe: g.Shared.Probe, Wall: p.f.Now.Wall, Over: true}}}
		}},
	{id: "G41", verdict: Record, why: "its node may not run it from the next revision on: it moves, as in a switchover",
		when: displaced, then: leave},
	{id: "G34", verdict: Record, why: "its node is drained, and another can take it", when: offDrained, then: moveOff},
	{id: "G35", verdict: Wait, why: "its node is drained: what needs no start elsewhere goes first", when: offDrainedLater, then: drainEvidence},
	{id: "G43", verdict: Stay, why: "it failed on its node, and its failover is manual: it is restarted there until somebody moves it, with baton switch",
		when: func(p *planner, g *cluster.GroupFacts) bool {
			return p.manual(g) && reportOf(p, g, g.Owner).Failed
		},
		then: explainByHand},
	{id: "G31", verdict: Stay, why: "it failed on its node, and no other can take it: it is restarted there",
		when: func(p *planner, g *cluster.GroupFacts) bool { return reportOf(p, g, g.Owner).Failed },
		then: explainNobody},
	{id: "G36", verdict: Stay, why: "its node is drained, but no other can take it: it stays", when: onDrained, then: onDrainedStays},
	{id: "G40", verdict: Record, why: "it returns to its preferred node, which has been well for the time asked",
		when: func(p *planner, g *cluster.GroupFacts) bool { return p.failback(g) },
		then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
			to := p.f.Spec.Group(g.ID).Nodes[0]
			back := p.planned("failback", g, to)
			back.Move.Failback = true
			return []cluster.Part{back}
		}},
	{id: "G90", verdict: Stay, why: "its owner holds its lease and reports no failure",
		when: func(p *planner, g *cluster.GroupFacts) bool { return true },
		then: func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
			d.Evidence = append(d.Evidence, fmt.Sprintf("%s serves epoch %d", g.Owner, g.Epoch))
			if lost := p.astray(g, g.Owner); lost != "" {
				d.Evidence = append(d.Evidence, fmt.Sprintf("%s %s%s", g.Owner, lost, p.lonely(g)))
			}
			if spec := p.f.Spec.Group(g.ID); longer(spec, g) && g.Owner != spec.Nodes[0] {
				d.Evidence = append(d.Evidence, fmt.Sprintf("its return to %s waits longer: %s", spec.Nodes[0], Returns(spec, g)))
			}
			_, d.Rejected = p.choose(g)
			return nil
		}},
}

// group applies the first group rule that fits.
func (p *planner) group(g *cluster.GroupFacts) {
	for _, r := range groupRules {
		if !r.when(p, g) {
			continue
		}
		d := Decision{Rule: r.id, Verdict: r.verdict, Group: g.ID, Node: g.Owner, Why: r.why}
		var parts []cluster.Part
		if r.then != nil {
			parts = r.then(p, g, &d)
		}
		p.propose(d, parts)
		return
	}
}

func putReleased(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
	var parts []cluster.Part
	for _, e := range g.Released {
		parts = append(parts, cluster.Part{Released: &cluster.Released{Group: g.ID, Epoch: e}})
	}
	// An owner that let go of the newest epoch (its lease had run out) leaves the group to whoever can take it.
	if !slices.Contains(g.Released, g.Epoch) || p.manual(g) || stopped(p, g) || p.paused(g) != nil {
		return parts
	}
	if best, rejected := p.choose(g); best != nil {
		d.Rejected = rejected
		parts = append(parts, p.assign(g, best))
	}
	return parts
}

func place(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
	best, rejected := p.choose(g)
	d.Rejected = rejected
	held := "not banned"
	if p.f.Instructions.Pin(g.ID) != nil {
		held = "pinned there"
	} else if p.banned(g, best.ID) != nil {
		held = "kept off after a failure, but no better is left"
	}
	d.Evidence = append(d.Evidence, fmt.Sprintf("%s: holds lease number %d, heard, %s", best.ID, best.Number, held))
	return []cluster.Part{p.assign(g, best)}
}

func explainNobody(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
	_, d.Rejected = p.choose(g)
	return nil
}

// explainByHand is explainNobody for a group that only a person moves: what keeps it off each node if one asks.
func explainByHand(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
	q := *p
	q.asked = true
	d.Evidence = append(d.Evidence, p.byHand(g))
	return explainNobody(&q, g, d)
}

// byHand tells what a person types to move a group that nobody else moves.
func (p *planner) byHand(g *cluster.GroupFacts) string {
	q := *p
	q.asked = true
	best := q.best(g)
	if best == nil {
		return fmt.Sprintf("no other node could be given %s now", g.ID)
	}
	if why := q.refusal(g, best.ID); why != "" {
		return fmt.Sprintf("baton switch %s would be refused now: %s %s", g.ID, best.ID, why)
	}
	return fmt.Sprintf("baton switch %s --to %s moves it", g.ID, best.ID)
}

func giveBack(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
	seen := reportOf(p, g, g.Owner).Reason
	reason := fmt.Sprintf("%s could not start it: %s", g.Owner, seen)
	d.Evidence = append(d.Evidence, reason)
	parts := endMove(false, reason)(p, g, d)
	return append(parts, p.assign(g, p.f.Node(g.Move.From)), p.ban(g, reason, seen))
}

// ban keeps the group off its owner, on which it has failed. What was seen begins with the resource's name.
func (p *planner) ban(g *cluster.GroupFacts, reason, seen string) cluster.Part {
	b := cluster.Ban{Group: g.ID, Node: g.Owner, Until: p.f.Now.Wall + cluster.WallTime(BanFor), Reason: reason,
		Surroundings: p.report(g, g.Owner).Lacks, Probe: p.report(g, g.Owner).Probe, Tries: 1}
	if before := p.banOn(g, g.Owner); before != nil && p.report(g, g.Owner).Brief {
		b.Tries += before.Tries
	}
	name, _, _ := strings.Cut(seen, ": ")
	if r := p.f.Spec.Group(g.ID).Resource(cluster.ResourceID(name)); r != nil {
		b.Resource = r.ID
	}
	return cluster.Part{Ban: &b}
}

func endMove(done bool, reason string) func(*planner, *cluster.GroupFacts, *Decision) []cluster.Part {
	return func(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
		return []cluster.Part{{MoveEnd: &cluster.MoveEnd{Group: g.ID, ID: g.Move.ID, Done: done, Reason: reason}}}
	}
}

// moved tells whether the Assign of a move has been applied.
func moved(g *cluster.GroupFacts) bool {
	return g.Move != nil && g.Move.Assigned != 0 && g.Move.Assigned == g.Epoch
}

// reportOf returns what a node last said of the group; nothing if it speaks of another epoch than the newest.
func reportOf(p *planner, g *cluster.GroupFacts, id cluster.NodeID) cluster.Report {
	for i := range p.f.Nodes {
		if p.f.Nodes[i].ID == id && p.f.Nodes[i].Fresh && g.Reports[i].Known && g.Reports[i].Epoch == g.Epoch {
			return g.Reports[i]
		}
	}
	return cluster.Report{}
}

func (p *planner) manual(g *cluster.GroupFacts) bool {
	return p.f.Spec.Group(g.ID).Failover == cluster.FailoverManual
}

func expired(p *planner, g *cluster.GroupFacts) *cluster.Ban {
	for i := range g.Bans {
		if g.Bans[i].Until <= p.f.Now.Wall {
			return &g.Bans[i]
		}
	}
	return nil
}

// mended returns a ban whose cause was the node's surroundings and is no more, by the node's word, or nil.
func (p *planner) mended(g *cluster.GroupFacts) *cluster.Ban {
	for i := range g.Bans {
		if b := &g.Bans[i]; b.Surroundings {
			if r := reportOf(p, g, b.Node); r.Known && !r.Failed && !r.Lacks && !r.Cut {
				return b
			}
		}
	}
	return nil
}

// Refusal tells why a node can't take a group now, or "" if it can. Commands use it before they ask.
func Refusal(f *cluster.Facts, g *cluster.GroupFacts, to cluster.NodeID) string {
	return (&planner{f: f}).refusal(g, to)
}

// Could tells why a node can't take a group that is to be placed now, or "" if it can; and inNeed why it would only if
// none that is better were left. Of a manual group it tells who could if a person asked.
func Could(f *cluster.Facts, g *cluster.GroupFacts, to cluster.NodeID) (refusal, inNeed string) {
	p := &planner{f: f, asked: true}
	if why := p.against(g, to); why != "" {
		return why, ""
	}
	var need []string
	if to != g.Owner && p.astray(g, to) != "" {
		need = append(need, p.unreachable(g, to))
	}
	if b := p.banned(g, to); b != nil {
		need = append(need, "it failed there before: "+b.Reason)
	}
	return "", strings.Join(need, "; ")
}

// refusal is what keeps a move that somebody has planned off a node: an instruction, a ban, or that it is not able.
func (p *planner) refusal(g *cluster.GroupFacts, to cluster.NodeID) string {
	if why := p.inability(g, to); why != "" {
		return why
	}
	if d := p.f.Instructions.Drain(to); d != nil {
		return "is drained " + d.Note.String()
	}
	if b := p.banned(g, to); b != nil && !p.report(g, to).Hot {
		return "is banned after a failure: " + b.Reason
	}
	if p.saysSame(g, to, g.Owner) {
		return sameWord
	}
	if g.Owner != "" && p.f.Node(to).Late {
		return "has missed three heartbeats"
	}
	if p.farther(g, to) {
		return p.unreachable(g, to)
	}
	return ""
}

// inability is why a node can't run a group now, or may not at all. A ban is no such reason: it is a preference.
func (p *planner) inability(g *cluster.GroupFacts, to cluster.NodeID) string {
	n, pin := p.f.Node(to), p.f.Instructions.Pin(g.ID)
	switch {
	case n == nil || p.f.Spec.Group(g.ID).Prefers(to) < 0:
		return "is not among the group's nodes"
	case barred(p.f, g, to) != "":
		return barred(p.f, g, to)
	case pin != nil && pin.Node != to:
		return fmt.Sprintf("is not where it is pinned: to %s, %v", pin.Node, pin.Note.String())
	case p.leaving[to] != "":
		return "is being evicted: " + p.leaving[to]
	case !n.Heard:
		return "was never heard"
	case !n.Fresh:
		return fmt.Sprintf("has not been heard for more than %v", p.f.Spec.Timing.D)
	case !n.Admitted:
		return "holds no lease" + p.unadmitted(n)
	case n.NewBoot:
		return "has booted anew and holds no lease yet"
	case !n.LeaseRuns:
		return "says that its lease does not run"
	case n.Isolated:
		return "hears no majority of the voters"
	case n.Deaf:
		return fmt.Sprintf("does not hear %s, which coordinates", p.f.Lead)
	case n.Bound && g.Owner == p.f.Self: // nobody could tell it to serve, nor that this node's lease is over
		return fmt.Sprintf("is in touch with no majority of the voters without %s, whose disk does not answer", g.Owner)
	case !p.report(g, to).Known:
		return untold
	case p.report(g, to).Cut:
		return "has lost its uplink"
	case p.report(g, to).Lacks:
		return "can't run it: " + p.report(g, to).Reason
	case n.Sick:
		return "says that it is sick: its disk, run record or gate does not answer"
	}
	return ""
}

// unadmitted tells what keeps a node that is heard from getting a lease, to stand behind that.
func (p *planner) unadmitted(n *cluster.NodeFacts) string {
	switch {
	case n.Sick:
		return ": it says that its disk, run record or gate does not answer"
	case len(n.SilentTo) >= cluster.Quorum(p.f.Voters):
		return ": a majority of the voters does not hear it"
	case n.Isolated:
		return ": it hears no majority of the voters"
	case n.Deaf:
		return fmt.Sprintf(": it does not hear %s, which coordinates", p.f.Lead)
	}
	return " yet"
}

// untold is why a node can't run a group of which it has told nothing yet.
const untold = "has not told yet how the group is there"

// sameWord is why a group does not go where the probe that failed it fails as well.
const sameWord = "says the same of the same probe"

// unreachable is why a group does not go to a node that is farther from its clients.
func (p *planner) unreachable(g *cluster.GroupFacts, to cluster.NodeID) string {
	return p.astray(g, to) + ": its clients would not reach it there"
}

// awaitsWord tells whether a group that never served waits for the word of a node that comes before all that can take
// it: a revision has just named it, and some have carried that out sooner than others.
func (p *planner) awaitsWord(g *cluster.GroupFacts) bool {
	best := p.best(g)
	if g.Last != "" || best == nil {
		return false
	}
	for _, id := range p.f.Spec.Group(g.ID).Nodes {
		switch {
		case id == best.ID:
			return false
		case p.report(g, id).Awaited && p.inability(g, id) == untold:
			return true
		}
	}
	return false
}

// banned returns the ban that keeps a group off a node, or nil. Where a person has pinned it, none counts.
func (p *planner) banned(g *cluster.GroupFacts, node cluster.NodeID) *cluster.Ban {
	if p.f.Instructions.Pin(g.ID) != nil {
		return nil
	}
	return p.banOn(g, node)
}

// banOn returns the ban of a node, whether it counts or not; nil: there is none.
func (p *planner) banOn(g *cluster.GroupFacts, node cluster.NodeID) *cluster.Ban {
	for i := range g.Bans {
		if g.Bans[i].Node == node { // also one that has run out: it ends by an entry
			return &g.Bans[i]
		}
	}
	return nil
}

// offUnfit tells whether a group is moved off a node that has lost its uplink or is sick.
func offUnfit(p *planner, g *cluster.GroupFacts) bool {
	return (p.report(g, g.Owner).Cut || p.f.Node(g.Owner).Sick) && !p.manual(g) && p.worthLeaving(g)
}

// Leaves tells where a group would be moved from its owner, as that has lost its uplink or is sick; "": it stays.
func Leaves(f *cluster.Facts, g *cluster.GroupFacts) cluster.NodeID {
	p := &planner{f: f}
	if g.Owner == "" || stopped(p, g) || p.paused(g) != nil || !offUnfit(p, g) {
		return ""
	}
	return p.best(g).ID
}

// Relief tells whether another node takes a group that has failed on its owner without a start, in its clients' sight, and
// has not failed it before: that is sooner than a restart where it is.
func Relief(f *cluster.Facts, g *cluster.GroupFacts) bool {
	p := &planner{f: f}
	if g.Owner == "" || stopped(p, g) || p.paused(g) != nil || p.manual(g) {
		return false
	}
	best := p.best(g)
	return best != nil && p.report(g, best.ID).Hot && !p.report(g, best.ID).Failed && p.banOn(g, best.ID) == nil && !p.farther(g, best.ID)
}

// worthLeaving tells whether a group is better off elsewhere than on a node that is cut off or sick. What a sick one
// serves is not given up for a node that failed it.
func (p *planner) worthLeaving(g *cluster.GroupFacts) bool {
	best, here := p.best(g), reportOf(p, g, g.Owner)
	if best == nil {
		return false
	}
	if p.farther(g, best.ID) && here.Serving && !here.Cut {
		return false
	}
	return here.Cut || !here.Serving || p.banned(g, best.ID) == nil || p.report(g, best.ID).Hot
}

// justFailed tells whether a ban was made so short a while ago that its node is not tried again yet. A wall clock
// that was set back, or another coordinator's, must not keep it off for longer.
func (p *planner) justFailed(b *cluster.Ban) bool {
	since := p.f.Now.Wall - made(b)
	return since >= 0 && since < cluster.WallTime(BanTryAgain<<min(max(b.Tries, 1)-1, banDoublings))
}

// made returns when a ban was made.
func made(b *cluster.Ban) cluster.WallTime { return b.Until - cluster.WallTime(BanFor) }

// best returns the node that should take the group, other than its present owner, or nil.
func (p *planner) best(g *cluster.GroupFacts) *cluster.NodeFacts {
	n, _ := p.choose(g)
	return n
}

// choose returns the best candidate other than the owner: where clients reach it before where they don't, where the
// group has not failed before where it has, members before spares, a hot standby before one that must start, then by the group's preference; and for all
// others why not. A node on which it failed is better than none; but while it fails where it is now it goes there
// only once that is a while ago: else it would go to and fro. A node that is being drained keeps a group that it
// had to keep, also through a blip. A manual group that nobody owns may only go back to where it was.
func (p *planner) choose(g *cluster.GroupFacts) (*cluster.NodeFacts, []Alternative) {
	spec := p.f.Spec.Group(g.ID)
	var best *cluster.NodeFacts
	var bestRank [6]int
	var rejected []Alternative
	for i := range spec.Nodes {
		id := spec.Nodes[i]
		if id == g.Owner {
			continue
		}
		if why := p.against(g, id); why != "" {
			rejected = append(rejected, Alternative{id, why})
			continue
		}
		n := p.f.Node(id)
		rank := [6]int{p.distance(g, id), 0, 0, int(n.Role), 1, 1}
		if p.f.Instructions.Drain(id) != nil {
			rank[1] = 1
		}
		if p.banned(g, id) != nil {
			rank[2] = 1
		}
		if g.Owner == "" && id == g.Last {
			rank[4] = 0 // it served here last: after a cold start it goes on where it was
		}
		if p.report(g, id).Hot {
			rank[5] = 0
		}
		if best != nil && slices.Compare(bestRank[:], rank[:]) <= 0 {
			rejected = append(rejected, Alternative{id, fmt.Sprintf("could, but %s comes first", best.ID)})
			continue
		}
		if best != nil {
			rejected = append(rejected, Alternative{best.ID, fmt.Sprintf("could, but %s comes first", id)})
		}
		best, bestRank = n, rank
	}
	return best, rejected
}

// against is why a node is no candidate for a group at all, or "".
func (p *planner) against(g *cluster.GroupFacts, id cluster.NodeID) string {
	if why := p.inability(g, id); why != "" {
		return why
	}
	if drain := p.f.Instructions.Drain(id); drain != nil && (g.Owner != "" || id != g.Last) {
		return "is drained " + drain.Note.String()
	}
	if p.manual(g) && !p.asked && g.Epoch > 0 && id != g.Last && !p.pinnedElsewhere(g) {
		return "would be a move, and its failover is manual: only a person moves it"
	}
	if ban := p.banned(g, id); ban != nil && reportOf(p, g, g.Owner).Failed && p.justFailed(ban) {
		return "has just failed it: " + ban.Reason
	}
	if id != g.Owner && p.saysSame(g, id, g.Owner) {
		return sameWord
	}
	return ""
}

// report returns what a node last said of the group, whatever epoch it speaks of.
func (p *planner) report(g *cluster.GroupFacts, id cluster.NodeID) cluster.Report {
	for i := range p.f.Nodes {
		if p.f.Nodes[i].ID == id && p.f.Nodes[i].Fresh {
			return g.Reports[i]
		}
	}
	return cluster.Report{}
}

// mayStillCome tells whether this agent started so recently that the node which served the group last
// (at the very first: the preferred one) may be booting along with it.
func (p *planner) mayStillCome(g *cluster.GroupFacts) bool {
	if p.f.Age >= p.f.Spec.Timing.Takeover+startGraceExtra {
		return false
	}
	home := g.Last
	if home == "" {
		home = p.f.Spec.Group(g.ID).Nodes[0]
	}
	if pin := p.f.Instructions.Pin(g.ID); pin != nil {
		home = pin.Node
	}
	n := p.f.Node(home)
	return n != nil && !n.Lost && (!n.Admitted || !n.LeaseRuns) && (!n.Heard || n.Fresh)
}

// failback tells whether the group should return to its preferred node by itself.
func (p *planner) failback(g *cluster.GroupFacts) bool {
	spec := p.f.Spec.Group(g.ID)
	if !spec.Failback.Automatic || g.Move != nil || g.Owner == spec.Nodes[0] || !reportOf(p, g, g.Owner).Serving {
		return false
	}
	home := p.f.Node(spec.Nodes[0])
	return p.refusal(g, home.ID) == "" && p.report(g, home.ID).Well >= spec.Failback.Wait(g.Returns)
}

// Returns tells for how long a group's preferred node must be well for its return, and why so long.
func Returns(spec *cluster.GroupSpec, g *cluster.GroupFacts) string {
	if !longer(spec, g) {
		return spec.Failback.After.String()
	}
	last := "one before"
	if g.Returns > 1 {
		last = fmt.Sprintf("the last %d", g.Returns)
	}
	return fmt.Sprintf("%v (%v, and longer since %s did not last)", spec.Failback.Wait(g.Returns), spec.Failback.After, last)
}

// longer tells whether a group's return waits for longer than the file asks for.
func longer(spec *cluster.GroupSpec, g *cluster.GroupFacts) bool {
	return spec.Failback.Automatic && spec.Failback.Wait(g.Returns) > spec.Failback.After
}

// Best returns the node that a person who names none moves a group to, or "": manual groups have one too.
func Best(f *cluster.Facts, g *cluster.GroupFacts) cluster.NodeID {
	p := &planner{f: f, asked: true}
	if best := p.best(g); best != nil {
		return best.ID
	}
	return ""
}

// Next returns who would take a group over if its node were lost now, or "". InNeed: the group failed there before, or
// its clients do not reach that node, and it would go there all the same. OnCommand: that node could take it, but only
// if a person moves it, since its failover is manual.
func Next(f *cluster.Facts, g *cluster.GroupFacts) (id cluster.NodeID, inNeed, onCommand bool) {
	p := &planner{f: f}
	if stopped(p, g) || p.paused(g) != nil {
		return "", false, false
	}
	best := p.best(g)
	if best == nil {
		p.asked, onCommand = true, true
		best = p.best(g)
	}
	if best == nil {
		return "", false, false
	}
	return best.ID, p.banned(g, best.ID) != nil || p.astray(g, best.ID) != "", onCommand
}
