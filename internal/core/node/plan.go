package node

import (
	"slices"

	"baton/internal/core/cluster"
	"baton/internal/core/decide"
	"baton/internal/core/wire"
)

// tendPlan runs the planner on the coordinator, when something has changed and, for what only time brings
// about, every other heartbeat.
// Nothing is planned before its first own entry and its last proposal are applied.
func (n *Node) tendPlan() {
	r := n.raft
	if r == nil || !r.leading || r.begins || r.applied < r.ready || r.applied < r.proposed {
		n.planAt = cluster.Never // an entry that is applied makes a plan due
		return
	}
	if !n.planDue && n.now.Mono < n.planAt {
		return
	}
	n.planDue, n.planAt = false, n.now.Mono.Add(2*n.timing.H)
	plan := decide.Make(n.facts())
	n.tellDecisions(plan.Decisions)
	if n.flawed(SwapVoters) {
		n.swapVoters(plan.Entries)
	}
	if len(plan.Entries) > 0 {
		n.propose(plan.Entries)
	}
}

// facts makes the picture that the planner decides on. It changes nothing: whoever looks at the cluster asks for
// it too, on any node and at any time.
func (n *Node) facts() *cluster.Facts {
	lead := n.lead()
	f := &cluster.Facts{Now: n.now, Self: n.id(), Spec: n.spec, Voters: n.voters, Set: n.setFacts(), Draft: n.draftFacts(),
		Age: n.now.Mono.Sub(n.start), Instructions: &n.state.Instructions}
	if lead >= 0 {
		f.Lead = n.peers[lead].id
	}
	if n.flawed(ManualMoves) {
		f.Spec = unbound(n.spec)
	}
	hangs := n.unwell() == "disk"
	for i := range n.peers {
		x := n.nodeFacts(i)
		x.Deaf = lead >= 0 && lead != i && x.Fresh && !n.hearsOf(i, lead)
		x.Isolated = x.Fresh && n.hearsVoters(i) < cluster.Quorum(n.voters)
		x.Bound = hangs && i != n.self && !n.othersDecide(i)
		f.Nodes = append(f.Nodes, x)
	}
	networks := n.judge()
	for i := range n.groups {
		g := n.groupFacts(i)
		if i > 0 && n.sameNetworks(i, i-1) { // as most of many have
			g.Networks = f.Groups[i-1].Networks
		} else {
			g.Networks = n.networksOf(i, networks)
		}
		f.Groups = append(f.Groups, g)
	}
	return f
}

// hearsVoters counts the voters that a node hears by its own word, itself included.
func (n *Node) hearsVoters(i int) int {
	count := 0
	for k := range n.peers {
		if n.peers[k].votes && (k == i || n.hearsOf(i, k)) {
			count++
		}
	}
	return count
}

// lead returns the peer that is known to coordinate, or -1.
func (n *Node) lead() int {
	if id := n.raft.rn.BasicStatus().Lead; id != 0 {
		return n.holderOf(cluster.Incarnation(id))
	}
	return -1
}

func (n *Node) nodeFacts(i int) cluster.NodeFacts {
	p, s := &n.peers[i], &n.state.Nodes[i]
	x := cluster.NodeFacts{ID: p.id, Role: p.role, Number: s.Number, Admitted: s.Admitted, Over: s.Over(s.Number),
		SaidOver: n.saidOver(s.ID, s.Number), Rests: n.restsOf(i)}
	n.memberFacts(i, &x)
	if i == n.self {
		x.Fresh, x.Heard, x.Incarnation, x.Boot = true, true, n.inc, n.boot
		x.LeaseRuns, x.Sick = n.leaseRuns(), n.pulse.sick
	} else {
		x.Fresh, x.Heard = p.det.Fresh(n.now.Mono) && p.hb != nil, p.det.Heard()
		if p.hb != nil {
			x.Incarnation, x.Boot = p.hb.Incarnation, p.hb.Boot
			x.LeaseRuns, x.Sick = p.hb.LeaseRuns, p.hb.Sick
			x.Late = p.det.Ago(n.now.Mono) > p.hb.L*3/10
		}
	}
	if p.leaseDown != 0 {
		x.LeaseDown = n.now.Mono.Sub(max(p.leaseDown, p.admitted))
	}
	x.NewBoot = s.Admitted && x.Boot != 0 && (x.Boot != s.Boot || x.Incarnation != s.Incarnation)
	x.SilentTo, x.Lost = n.silentTo(i)
	x.Carried = n.carried(i)
	return x
}

// silentTo names the voters that have not heard a node for its D. A report older than 2 h of its sender
// (h is a tenth of the lease length that it names) does not count. It also tells whether one of them had heard the
// node before.
func (n *Node) silentTo(i int) (out []cluster.NodeID, lost bool) {
	for v := range n.peers {
		if v == i || !n.peers[v].votes {
			continue
		}
		if v == n.self {
			if n.peers[i].det.Silent(n.now.Mono) {
				out, lost = append(out, n.id()), lost || n.peers[i].det.Heard()
			}
			continue
		}
		p := &n.peers[v]
		if p.hb == nil || n.now.Mono.Sub(p.hbAt) > p.hb.L/5 {
			continue
		}
		for _, h := range p.hb.Heard {
			if h.Node == n.peers[i].id && h.Ago >= n.silenceOf(i) {
				out, lost = append(out, p.id), lost || h.Run != 0
			}
		}
	}
	return out, lost
}

func (n *Node) groupFacts(i int) cluster.GroupFacts {
	l, st := &n.groups[i], &n.state.Groups[i]
	g := cluster.GroupFacts{ID: st.ID, Owner: st.Owner, Last: st.Last, Epoch: st.Epoch, Move: st.Move, Bans: st.Bans, Shared: st.Shared,
		Returns: st.FailedReturns(l.spec.Nodes[0])}
	if n.flawed(BanForgotten) {
		g.Bans = slices.DeleteFunc(slices.Clone(st.Bans), func(b cluster.Ban) bool { return b.Until-cluster.WallTime(decide.BanFor) < n.raft.since })
	}
	for _, t := range st.Tenures {
		x := n.index(t.Node)
		released := slices.Contains(l.heard, heardRelease{t.Epoch, t.Node}) ||
			(x == n.self && slices.Contains(n.telling.items[i].released, t.Epoch))
		if released {
			g.Released = append(g.Released, t.Epoch)
		}
		node := &n.state.Nodes[x]
		waited := n.now.Mono.Sub(l.behindAt)
		if !released && (t.Epoch < st.Epoch || st.Owner == "") && t.Node != st.Owner && x != n.self && node.Admitted && node.Number == t.Number &&
			waited >= n.timing.D && (waited >= 2*n.timing.L || n.peers[x].hb == nil || n.peers[x].hb.Applied < st.Index) {
			g.Behind = append(g.Behind, t.Node)
		}
	}
	g.Behind = append(g.Behind, n.holdsOn(i)...)
	if x := n.index(st.Owner); st.Owner != "" && x >= 0 && x != n.self && n.state.Nodes[x].Admitted && n.peers[x].hb != nil &&
		n.peers[x].hb.Applied < st.Index && n.now.Mono.Sub(l.behindAt) >= n.timing.D {
		g.Behind = append(g.Behind, st.Owner) // it does not see what it was given
	}
	for k := range n.peers {
		r := n.reportOf(k, i)
		if since := l.fit[n.peers[k].id]; since != 0 {
			r.Well = n.now.Mono.Sub(since)
		}
		n.misreport(&g, k, &r)
		g.Reports = append(g.Reports, r)
	}
	g.Serves, g.Amends = n.toRecord(i), n.toAmend(i)
	return g
}

// holdsOn names the nodes that keep a group from being served: they have not given up an address that a revision
// took from theirs, for 2 L.
func (n *Node) holdsOn(i int) (out []cluster.NodeID) {
	l, st := &n.groups[i], &n.state.Groups[i]
	if st.Owner == "" || n.now.Mono.Sub(max(l.behindAt, n.revisedAt)) < 2*n.timing.L {
		return nil
	}
	for _, f := range n.state.FreedFor(l.spec) {
		k := n.index(f.Node)
		if k < 0 || k == n.self || f.Node == st.Owner || !n.state.Nodes[k].Admitted || n.state.Nodes[k].Number != f.Number {
			continue
		}
		if hb := n.peers[k].hb; hb == nil || hb.Revision < f.Revision {
			out = append(out, f.Node)
		}
	}
	return out
}

// carried returns the revision that a node has carried out, if that is to be put on record; else 0.
func (n *Node) carried(i int) cluster.Revision {
	r := n.revised
	if i != n.self {
		if n.peers[i].hb == nil {
			return 0
		}
		r = n.peers[i].hb.Revision
	}
	for _, f := range n.state.Freed {
		if f.Node == n.peers[i].id && f.Revision <= r {
			return r
		}
	}
	return 0
}

// groupReport returns what a node last said of a group, or what is so here.
func (n *Node) groupReport(k, i int) (wire.GroupReport, bool) {
	if k == n.self {
		x := &n.telling.items[i]
		return x.report, x.reports
	}
	p := &n.peers[k]
	if p.hb == nil || p.told[i].seq == 0 {
		return wire.GroupReport{}, false
	}
	r := p.told[i].report
	if r.Phase == wire.PhaseServing && !p.hb.LeaseRuns {
		r.Phase = wire.PhasePreparing // it has told since that its lease has ended: the report is of before
	}
	return r, true
}

// reportOf returns how a group is on a node, as the planner sees it.
func (n *Node) reportOf(k, i int) cluster.Report {
	r, ok := n.groupReport(k, i)
	if !ok {
		return cluster.Report{Awaited: k != n.self && n.now.Mono.Sub(n.revisedAt) < n.timing.D}
	}
	return cluster.Report{Known: true, Epoch: r.Epoch, Serving: r.Phase == wire.PhaseServing, Failed: r.Phase == wire.PhaseFailed,
		Hot: r.Hot, Cut: r.Cut, Lacks: r.Lacks, Reason: r.Reason, Probe: r.Probe, Brief: r.Brief}
}
