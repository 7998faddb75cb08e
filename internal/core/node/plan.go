package node

import (
	"fmt"
	"slices"
	"time"

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
	if len(plan.Entries) > 0 {
		n.propose(plan.Entries)
	}
}

// facts makes the picture that the planner decides on.
func (n *Node) facts() *cluster.Facts {
	f := &cluster.Facts{Now: n.now, Self: n.id(), Spec: n.spec, Voters: len(n.peers), Age: n.now.Mono.Sub(n.start)}
	for i := range n.peers {
		f.Nodes = append(f.Nodes, n.nodeFacts(i))
	}
	for i := range n.groups {
		f.Groups = append(f.Groups, n.groupFacts(i))
	}
	return f
}

func (n *Node) nodeFacts(i int) cluster.NodeFacts {
	p, s := &n.peers[i], &n.state.Nodes[i]
	x := cluster.NodeFacts{ID: p.id, Role: p.role, Number: s.Number, Admitted: s.Admitted, Over: s.Over(s.Number),
		SaidOver: n.said.Over(i, s.Number)}
	if i == n.self {
		x.Fresh, x.Heard, x.Incarnation, x.Boot = true, true, n.inc, n.boot
		x.LeaseRuns, x.Sick = n.leaseRuns(), n.pulse.sick
	} else {
		x.Fresh, x.Heard = p.det.Fresh(n.now.Mono) && p.hb != nil, p.det.Heard()
		if p.hb != nil {
			x.Incarnation, x.Boot = p.hb.Incarnation, p.hb.Boot
			x.LeaseRuns, x.Sick = p.hb.LeaseRuns, p.hb.Sick
		}
	}
	if p.leaseDown != 0 {
		x.LeaseDown = n.now.Mono.Sub(max(p.leaseDown, p.admitted))
	}
	x.NewBoot = s.Admitted && x.Boot != 0 && (x.Boot != s.Boot || x.Incarnation != s.Incarnation)
	x.SilentTo = n.silentTo(i)
	if x.Fresh && x.Admitted && x.LeaseRuns {
		if p.well == 0 {
			p.well = n.now.Mono
		}
		x.Well = n.now.Mono.Sub(p.well)
	} else {
		p.well = 0
	}
	return x
}

// silentTo names the voters that have not heard a node for its D. A report older than 2 h of its sender
// (h is a tenth of the lease length that it names) does not count.
func (n *Node) silentTo(i int) []cluster.NodeID {
	var out []cluster.NodeID
	for v := range n.peers {
		if v == i {
			continue
		}
		if v == n.self {
			if n.peers[i].det.Silent(n.now.Mono) {
				out = append(out, n.id())
			}
			continue
		}
		p := &n.peers[v]
		if p.hb == nil || n.now.Mono.Sub(p.hbAt) > p.hb.L/5 {
			continue
		}
		for _, h := range p.hb.Heard {
			if h.Node == n.peers[i].id && h.Ago >= n.peers[i].det.D() {
				out = append(out, p.id)
			}
		}
	}
	return out
}

func (n *Node) groupFacts(i int) cluster.GroupFacts {
	l, st := &n.groups[i], &n.state.Groups[i]
	g := cluster.GroupFacts{ID: st.ID, Owner: st.Owner, Last: st.Last, Epoch: st.Epoch, Move: st.Move, Bans: st.Bans}
	if l.behindIdx != st.Index {
		l.behindIdx, l.behindAt = st.Index, n.now.Mono
	}
	for _, t := range st.Tenures {
		x := n.index(t.Node)
		released := slices.Contains(l.heard, heardRelease{t.Epoch, x}) ||
			(x == n.self && slices.Contains(n.released, wire.Tenure{Group: st.ID, Epoch: t.Epoch}))
		if released {
			g.Released = append(g.Released, t.Epoch)
		}
		node := &n.state.Nodes[x]
		waited := n.now.Mono.Sub(l.behindAt)
		if !released && t.Epoch < st.Epoch && t.Node != st.Owner && x != n.self && node.Admitted && node.Number == t.Number &&
			waited >= n.timing.D && (waited >= 2*n.timing.L || n.peers[x].hb == nil || n.peers[x].hb.Applied < st.Index) {
			g.Behind = append(g.Behind, t.Node)
		}
	}
	for k := range n.peers {
		g.Reports = append(g.Reports, n.reportOf(k, i))
	}
	g.Serves = n.serves(i)
	return g
}

// groupReport returns what a node last said of a group, or what is so here.
func (n *Node) groupReport(k, i int) (wire.GroupReport, bool) {
	if k == n.self {
		if n.groups[i].group == nil {
			return wire.GroupReport{}, false
		}
		return n.report(i), true
	}
	if hb := n.peers[k].hb; hb != nil {
		for _, r := range hb.Groups {
			if r.Group == n.groups[i].spec.ID {
				return r, true
			}
		}
	}
	return wire.GroupReport{}, false
}

// reportOf returns how a group is on a node, as the planner sees it.
func (n *Node) reportOf(k, i int) cluster.Report {
	r, ok := n.groupReport(k, i)
	if !ok {
		return cluster.Report{}
	}
	return cluster.Report{Known: true, Epoch: r.Epoch, Serving: r.Phase == wire.PhaseServing, Failed: r.Phase == wire.PhaseFailed,
		Hot: r.Hot, Cut: r.Cut, Reason: r.Reason}
}

// moveWork is a command of this node that is under way.
type moveWork struct {
	id       uint64
	move     cluster.Move
	by       string
	at       cluster.Instant // the next try, or look
	deadline cluster.Instant
}

// moveTimeout is how long a command is pursued before its asker is told that it is still under way.
const moveTimeout = time.Minute

// command takes a person's request: it is refused with the reason, or proposed until the log has it.
func (n *Node) command(c *Command) {
	refuse := func(hint, format string, args ...any) {
		n.out.Replies = append(n.out.Replies, Reply{ID: c.ID, Text: fmt.Sprintf(format, args...), Hint: hint})
	}
	if n.state == nil {
		refuse("see baton status", "the cluster is still forming: %s", n.Waits())
		return
	}
	spec := n.spec.Group(c.Group)
	if spec == nil {
		refuse("baton status lists the groups", "there is no group %q", c.Group)
		return
	}
	f := n.facts()
	g := f.Group(c.Group)
	move, hint, why := Intend(f, g, c)
	if why != "" {
		refuse(hint, "%s", why)
		return
	}
	move.ID = fmt.Sprintf("%s-%x-%d", n.id(), uint64(n.run), c.ID)
	n.moves = append(n.moves, moveWork{id: c.ID, move: *move, by: c.By, at: n.now.Mono, deadline: n.now.Mono.Add(moveTimeout)})
}

// Intend works out the Move that a command asks for, or why it can't be had, and what to do instead.
func Intend(f *cluster.Facts, g *cluster.GroupFacts, c *Command) (m *cluster.Move, hint, why string) {
	spec := f.Spec.Group(g.ID)
	to := c.To
	switch {
	case c.Op == OpFailback:
		to = spec.Nodes[0]
	case to == "":
		best := decide.Best(f, g)
		if best == "" {
			return nil, "baton explain " + string(g.ID), fmt.Sprintf("no other node can take %s now", g.ID)
		}
		to = best
	}
	if g.Move != nil {
		return nil, "wait until it has ended: baton status --wait", fmt.Sprintf("a move of %s to %s is under way", g.ID, g.Move.To)
	}
	if g.Owner == to {
		return nil, "nothing to do", fmt.Sprintf("%s is on %s already", g.ID, to)
	}
	if r := decide.Refusal(f, g, to); r != "" {
		return nil, "baton status shows the nodes", fmt.Sprintf("%s can't take %s: it %s", to, g.ID, r)
	}
	return &cluster.Move{Group: g.ID, From: g.Owner, To: to, Epoch: g.Epoch, Failback: c.Op == OpFailback}, "", ""
}

// tendMoves pursues the commands of this node.
func (n *Node) tendMoves() {
	n.moves = slices.DeleteFunc(n.moves, func(m moveWork) bool {
		r, done := n.moveEnded(&m)
		if done {
			n.out.Replies = append(n.out.Replies, r)
		}
		return done
	})
	for i := range n.moves {
		m := &n.moves[i]
		if n.now.Mono < m.at {
			continue
		}
		m.at = n.now.Mono.Add(max(n.timing.H, n.timing.L/5))
		if st := n.state.Group(m.move.Group); st.Move == nil {
			mv := m.move
			n.propose([]cluster.Entry{{Wall: n.now.Wall, By: m.by, Why: "asked for", Parts: []cluster.Part{{Move: &mv}}}})
		}
	}
}

// moveEnded tells how a command has ended, if it has.
func (n *Node) moveEnded(m *moveWork) (Reply, bool) {
	st := n.state.Group(m.move.Group)
	r := Reply{ID: m.id}
	switch {
	case st.Ended != nil && st.Ended.ID == m.move.ID && st.Ended.Done:
		r.Done, r.Text = true, fmt.Sprintf("%s serves on %s, epoch %d", st.ID, m.move.To, st.Epoch)
	case st.Ended != nil && st.Ended.ID == m.move.ID:
		r.Text, r.Hint = fmt.Sprintf("the move of %s to %s failed: %s", st.ID, m.move.To, st.Ended.Reason), "baton explain "+string(st.ID)
	case st.Move != nil && st.Move.ID == m.move.ID && n.now.Mono < m.deadline:
		return r, false
	case st.Epoch != m.move.Epoch || (st.Move != nil && st.Move.ID != m.move.ID):
		r.Text, r.Hint = fmt.Sprintf("%s was moved otherwise meanwhile", st.ID), "baton history"
	case n.now.Mono >= m.deadline:
		r.Text, r.Hint = fmt.Sprintf("the move of %s to %s has not ended after %v", st.ID, m.move.To, moveTimeout), "baton explain "+string(st.ID)
	default:
		return r, false
	}
	return r, true
}
