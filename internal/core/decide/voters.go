package decide

import (
	"fmt"

	"baton/internal/core/cluster"
)

// voterRule is a rule on the set of voters. `when` returns the change of this node's part in it, or nil.
type voterRule struct {
	id   string
	when func(f *cluster.Facts, n *cluster.NodeFacts) (cluster.VoterOp, *cluster.MemberFacts)
	why  string
}

// voterRules change the set of voters, one at a time, and never so that a majority of the new set is not
// heard (protocol.md, "Quorum leases", 6, and "Forming, joining, and a disk that was lost").
var voterRules = []voterRule{
	{id: "V01", why: "it has an empty disk and asks to be let in: it copies the log, without a vote",
		when: func(f *cluster.Facts, n *cluster.NodeFacts) (cluster.VoterOp, *cluster.MemberFacts) {
			if n.Asks == 0 || leaves(f, n) || newest(n) != nil && (!newest(n).Votes || !newest(n).Silent) {
				return "", nil
			}
			return cluster.VoterLearn, &cluster.MemberFacts{Incarnation: n.Asks}
		}},
	{id: "V02", why: "it began to copy the log and is not heard any more, while another of that name is",
		when: func(f *cluster.Facts, n *cluster.NodeFacts) (cluster.VoterOp, *cluster.MemberFacts) {
			m := newest(n)
			if m == nil || m.Votes || !m.Silent || (n.Asks == 0 && !n.Former) {
				return "", nil
			}
			return cluster.VoterRemove, m
		}},
	{id: "V03", why: "its disk was lost: its former self no longer votes, the new one copies the log",
		when: func(f *cluster.Facts, n *cluster.NodeFacts) (cluster.VoterOp, *cluster.MemberFacts) {
			if len(n.Members) < 2 || !ready(newest(n)) || !over(n) || !mayRemove(f, &n.Members[0]) {
				return "", nil
			}
			return cluster.VoterRemove, &n.Members[0]
		}},
	{id: "V04", why: "it has copied the log and gets a vote",
		when: func(f *cluster.Facts, n *cluster.NodeFacts) (cluster.VoterOp, *cluster.MemberFacts) {
			m := newest(n)
			if len(n.Members) != 1 || leaves(f, n) || m.Votes || !ready(m) || !f.Set.Settled || f.Set.Fresh+1 < cluster.Quorum(f.Voters+1) {
				return "", nil
			}
			return cluster.VoterAdd, m
		}},
	{id: "V05", why: "it leaves the cluster: it no longer votes",
		when: func(f *cluster.Facts, n *cluster.NodeFacts) (cluster.VoterOp, *cluster.MemberFacts) {
			m := newest(n)
			if !leaves(f, n) || m == nil || !m.Votes || n.ID == f.Self || !over(n) || !mayRemove(f, m) || f.Draft.Awaited != "" {
				return "", nil
			}
			return cluster.VoterDemote, m
		}},
	{id: "V06", why: "it leaves the cluster, and knows it or is not heard",
		when: func(f *cluster.Facts, n *cluster.NodeFacts) (cluster.VoterOp, *cluster.MemberFacts) {
			m := newest(n)
			if !leaves(f, n) || m == nil || m.Votes || !(m.Knows || m.Silent) {
				return "", nil
			}
			return cluster.VoterRemove, m
		}},
}

// newest returns the newest incarnation of a node that has a copy of the log, or nil.
func newest(n *cluster.NodeFacts) *cluster.MemberFacts {
	if len(n.Members) == 0 {
		return nil
	}
	return &n.Members[len(n.Members)-1]
}

// votes tells whether a node, as it is heard, is a voter.
func votes(n *cluster.NodeFacts) bool { m := newest(n); return m != nil && m.Votes }

// leaves tells whether a node leaves the cluster by a draft that can be adopted.
func leaves(f *cluster.Facts, n *cluster.NodeFacts) bool {
	return n.Leaves && f.Draft != nil && unfit(f, f.Draft) == ""
}

// ready tells whether a newcomer may get its vote.
func ready(m *cluster.MemberFacts) bool { return !m.Votes && m.Heard && m.Copied }

// over tells whether a node holds no lease, and may hold none any more.
func over(n *cluster.NodeFacts) bool { return !n.Admitted && (n.Number == 0 || n.Over || n.SaidOver) }

// mayRemove tells whether a voter may go: every lease rests on the set, and a majority of what remains is heard.
func mayRemove(f *cluster.Facts, m *cluster.MemberFacts) bool {
	fresh := f.Set.Fresh
	if m.Heard {
		fresh--
	}
	return m.Votes && f.Set.Settled && f.Voters > 1 && fresh >= cluster.Quorum(f.Voters-1)
}

// voters proposes at most one change of the set.
func (p *planner) voters() {
	for i := range p.f.Nodes {
		n := &p.f.Nodes[i]
		for _, r := range voterRules {
			op, m := r.when(p.f, n)
			if m == nil {
				continue
			}
			d := Decision{Rule: r.id, Verdict: Record, Node: n.ID, Why: r.why,
				Evidence: []string{fmt.Sprintf("%d voters, %d of them heard", p.f.Voters, p.f.Set.Fresh)}}
			p.propose(d, []cluster.Part{{Voter: &cluster.Voter{Op: op, Node: n.ID, Incarnation: m.Incarnation, Base: p.f.Set.Index}}})
			return
		}
	}
}

// draftRule is a rule on the draft of the configuration under way.
type draftRule struct {
	id      string
	verdict Verdict
	when    func(f *cluster.Facts, d *cluster.DraftFacts) bool
	why     string
	then    func(f *cluster.Facts, d *cluster.DraftFacts, to *Decision) []cluster.Part
}

// draftRules bring a draft to its end. What it removes must not be in use any more: groups are stopped,
// groups on nodes that may not run them move (G41), nodes that leave lose lease (N07) and vote (V05, V06).
var draftRules = []draftRule{
	{id: "D02", verdict: Record, why: "the draft is given up: it can't be adopted",
		when: func(f *cluster.Facts, d *cluster.DraftFacts) bool { return unfit(f, d) != "" },
		then: func(f *cluster.Facts, d *cluster.DraftFacts, to *Decision) []cluster.Part {
			to.Evidence = []string{unfit(f, d)}
			return []cluster.Part{{Drop: &cluster.Drop{Base: d.Base, Draft: d.ID, Reason: unfit(f, d)}}}
		}},
	{id: "D04", verdict: Record, why: "the draft removes a group: it is stopped first",
		when: func(f *cluster.Facts, d *cluster.DraftFacts) bool { return len(stops(f, d)) > 0 },
		then: func(f *cluster.Facts, d *cluster.DraftFacts, _ *Decision) []cluster.Part { return stops(f, d) }},
	{id: "D01", verdict: Record, why: "nothing that the draft removes is in use any more",
		when: func(_ *cluster.Facts, d *cluster.DraftFacts) bool { return d.Waits == "" },
		then: func(_ *cluster.Facts, d *cluster.DraftFacts, _ *Decision) []cluster.Part {
			return []cluster.Part{{Adopt: &cluster.Adopt{Base: d.Base, Draft: d.ID}}}
		}},
	{id: "D03", verdict: Wait, why: "the draft waits: what it removes is still in use",
		when: func(*cluster.Facts, *cluster.DraftFacts) bool { return true },
		then: func(_ *cluster.Facts, d *cluster.DraftFacts, to *Decision) []cluster.Part {
			to.Evidence = []string{d.Waits}
			return nil
		}},
}

// draft decides on the draft of the configuration under way.
func (p *planner) draft() {
	d := p.f.Draft
	if d == nil {
		return
	}
	for _, r := range draftRules {
		if r.when(p.f, d) {
			to := Decision{Rule: r.id, Verdict: r.verdict, Why: r.why}
			parts := r.then(p.f, d, &to)
			p.propose(to, parts)
			return
		}
	}
}

// stops returns the stops of the groups that the draft removes and that nobody has stopped.
func stops(f *cluster.Facts, d *cluster.DraftFacts) []cluster.Part {
	var parts []cluster.Part
	for i := range f.Groups {
		id := f.Groups[i].ID
		if d.Spec != nil && d.Spec.Group(id) == nil && f.Instructions.Stop(id, "") == nil {
			note := cluster.Note{By: d.By, Reason: fmt.Sprintf("revision %d removes it", d.Base+1)}
			parts = append(parts, cluster.Part{Stop: &cluster.Stop{Group: id, Note: note}})
		}
	}
	return parts
}

// unfit tells why a draft can never be adopted, or "".
func unfit(f *cluster.Facts, d *cluster.DraftFacts) string {
	switch {
	case d.Spec == nil:
		return d.Err
	case d.Spec.Cluster != f.Spec.Cluster:
		return fmt.Sprintf("the cluster's name can't change from %s to %s", f.Spec.Cluster, d.Spec.Cluster)
	case len(d.Spec.Nodes) < cluster.VotersMin && len(f.Spec.Nodes) >= cluster.VotersMin:
		return fmt.Sprintf("from %d voters to %d is not possible in this version: at least %d must remain", len(f.Spec.Nodes), len(d.Spec.Nodes), cluster.VotersMin)
	}
	return ""
}

// displaced tells whether a group must move on purpose: by the draft under way its node may not run it.
func displaced(p *planner, g *cluster.GroupFacts) bool {
	d := p.f.Draft
	if d == nil || d.Spec == nil || g.Owner == "" || g.Move != nil || unfit(p.f, d) != "" {
		return false
	}
	spec := d.Spec.Group(g.ID)
	return spec != nil && (spec.Prefers(g.Owner) < 0 || d.Spec.Node(g.Owner) == nil)
}

// barred tells why a node may not take a group any more by the draft under way, or "".
func barred(f *cluster.Facts, g *cluster.GroupFacts, id cluster.NodeID) string {
	d := f.Draft
	if d == nil || d.Spec == nil || unfit(f, d) != "" {
		return ""
	}
	if d.Spec.Node(id) == nil {
		return "leaves the cluster"
	}
	if spec := d.Spec.Group(g.ID); spec != nil && spec.Prefers(id) < 0 {
		return fmt.Sprintf("may not run it from revision %d on", d.Base+1)
	}
	return ""
}

func leave(p *planner, g *cluster.GroupFacts, d *Decision) []cluster.Part {
	asked := &planner{f: p.f, leaving: p.leaving, asked: true} // by whoever changes the configuration
	best, rejected := asked.choose(g)
	d.Rejected = rejected
	if best == nil || p.farther(g, best.ID) {
		d.Evidence = append(d.Evidence, "no other node can take it now: the draft waits")
		return nil
	}
	return []cluster.Part{p.planned(fmt.Sprintf("revision-%d", p.f.Draft.Base+1), g, best.ID)}
}
