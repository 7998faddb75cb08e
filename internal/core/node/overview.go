package node

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/decide"
	"baton/internal/core/state"
	"baton/internal/core/wire"
)

// at returns a copy of the node at a later instant, to look at: what is worked out there changes nothing here.
func (n *Node) at(now cluster.Now) *Node {
	look := *n
	look.now = cluster.Now{Mono: max(n.now.Mono, now.Mono), Wall: now.Wall}
	return &look
}

// Overview returns how the cluster looks from here. It changes nothing.
func (n *Node) Overview(now cluster.Now) *cluster.Overview { return n.at(now).overview() }

func (n *Node) overview() *cluster.Overview {
	o := &cluster.Overview{Cluster: n.spec.Cluster, Node: n.id(), Timing: n.timing}
	for _, l := range n.spec.Links {
		o.Links = append(o.Links, l.Name)
	}
	if !n.booted {
		o.Forming = "the agent starts"
		return o
	}
	o.Quorum = n.voters > 0 && n.fresh() >= cluster.Quorum(n.voters)
	o.Forming = n.Waits()
	if n.founding != nil && o.Forming == "" {
		o.Forming = "the founding record is on its way"
	}
	n.overviewMembers(o)
	if n.state == nil || n.state.IsBlank() {
		for i := range n.peers {
			o.Nodes = append(o.Nodes, n.nodeView(i))
		}
		return o
	}
	o.ID, o.Term, o.Applied = n.state.Founding.ID, n.raft.term(), n.raft.applied
	o.TermSince, o.TermWhy = n.rise.wall, n.rise.why
	o.Coordinator = n.Coordinator()
	for i := range n.peers {
		o.Nodes = append(o.Nodes, n.nodeView(i))
	}
	o.Instructions = n.instructionViews()
	for k, w := range n.judge() {
		if k >= len(n.spec.Links) && !w.Answers() && slices.ContainsFunc(w.On, func(v cluster.NetworkView) bool { return v.State == cluster.NetLost }) {
			o.Unanswered = append(o.Unanswered, w.Name)
		}
	}
	f := n.facts()
	last := lastDecisions(decide.Make(f))
	for i := range n.groups {
		o.Groups = append(o.Groups, n.groupView(i, f, last))
	}
	return o
}

// decisions are the last ones of a plan that tell of each group, and of each node's admission.
type decisions struct {
	plan   []decide.Decision
	groups map[cluster.GroupID]int
	nodes  map[cluster.NodeID]int
}

func lastDecisions(plan decide.Plan) decisions {
	l := decisions{plan.Decisions, make(map[cluster.GroupID]int), make(map[cluster.NodeID]int)}
	for i, d := range plan.Decisions {
		l.groups[d.Group] = i
		if d.Rule == "N01" || d.Rule == "N02" {
			l.nodes[d.Node] = i
		}
	}
	return l
}

// of returns the last decision that tells of a group or of its owner; nil: none does.
func (l *decisions) of(id cluster.GroupID, owner cluster.NodeID) *decide.Decision {
	i, ofGroup := l.groups[id]
	k, ofOwner := l.nodes[owner]
	switch {
	case ofOwner && owner != "" && (!ofGroup || k > i):
		return &l.plan[k]
	case ofGroup:
		return &l.plan[i]
	}
	return nil
}

// Coordinator returns the node that coordinates, by what this one has heard; "": none is known.
func (n *Node) Coordinator() cluster.NodeID {
	if n.raft == nil {
		return ""
	}
	lead := n.raft.rn.BasicStatus().Lead
	for i := range n.peers {
		if p := &n.peers[i]; uint64(p.inc) == lead && lead != 0 && (i == n.self || p.det.Fresh(n.now.Mono)) {
			return p.id
		}
	}
	return ""
}

func (n *Node) nodeView(i int) cluster.NodeView {
	p := &n.peers[i]
	v := cluster.NodeView{ID: p.id, Role: p.role, Membership: n.membership(i)}
	if n.state != nil {
		v.Number, v.Admitted = n.state.Nodes[i].Number, n.state.Nodes[i].Admitted
	}
	if i == n.self {
		v.Heard, v.Fresh, v.LeaseRuns, v.Sick = true, true, n.leaseRuns(), n.pulse.sick
		if n.isForeign() {
			v.Trouble = "its data directory is of cluster " + n.state.Founding.ID + ", and the nodes that are heard are of another one: it takes no part"
		}
		v.Progress = n.receiving()
		if v.LeaseRuns {
			v.LeaseLeft = n.holder.End().Sub(n.now.Mono)
		}
		return v
	}
	v.Progress = progress(p.out.copying())
	v.Heard, v.Fresh, v.Ago = p.det.Heard(), p.det.Fresh(n.now.Mono), p.det.Ago(n.now.Mono)
	if p.hb != nil {
		v.LeaseRuns, v.Sick, v.Faulty = p.hb.LeaseRuns && v.Fresh, p.hb.Sick, p.hb.Faulty && v.Fresh
		v.Deaf, v.Leads = v.Fresh && (p.deaf || n.neverHeardBy(p.hb)), v.Fresh && p.hb.Lead != 0
	}
	for k := range n.spec.Links {
		at := p.det.Link(k)
		v.Links = append(v.Links, cluster.LinkView{Absent: !n.spec.Links[k].Joins(n.id(), p.id), Heard: at != 0, Ago: n.now.Mono.Sub(at), RoundTrip: p.trips[k]})
	}
	return v
}

// neverHeardBy tells whether the sender of a heartbeat has heard nothing of this run, which is no new one.
func (n *Node) neverHeardBy(hb *wire.Heartbeat) bool {
	return n.now.Mono.Sub(n.start) >= 2*n.silenceOf(n.self) && slices.ContainsFunc(hb.Heard, func(h wire.Heard) bool { return h.Node == n.id() && h.Run != n.run })
}

func (n *Node) groupView(i int, f *cluster.Facts, last decisions) cluster.GroupView {
	st, spec, g := &n.state.Groups[i], n.groups[i].spec, &f.Groups[i]
	v := cluster.GroupView{ID: st.ID, Owner: st.Owner, Last: st.Last, Epoch: st.Epoch, Policy: "automatic", Failback: "never",
		Bans: slices.Clone(st.Bans), Service: n.serviceView(i)}
	if st.Move != nil {
		move := *st.Move // which the state goes on to change
		v.Move = &move
	}
	v.Next, v.NextBanned, v.NextOnCommand = decide.Next(f, g)
	if spec.Failover == cluster.FailoverManual {
		v.Policy = "manual"
	}
	if spec.Failback.Automatic {
		v.Failback = "automatic after " + decide.Returns(spec, g)
	}
	if d := last.of(st.ID, st.Owner); d != nil {
		v.Rule, v.Decision, v.Evidence = d.Rule, d.Why, d.Evidence
		for _, r := range d.Rejected {
			v.Rejected = append(v.Rejected, string(r.Node)+": "+r.Why)
		}
	}
	for _, id := range spec.Nodes {
		k := n.index(id)
		x := cluster.GroupNodeView{Node: id, Phase: "unknown"}
		x.Can, x.InNeed = decide.Could(f, g, id)
		if r, ok := n.groupReport(k, i); ok && f.Nodes[k].Fresh {
			x.Phase, x.Hot, x.Epoch, x.Reason = r.Phase.String(), r.Hot, r.Epoch, r.Reason
			if x.Reason == "" {
				x.Reason = decide.Astray(f, g, id)
			}
			if id == st.Owner && r.Phase == wire.PhaseServing && r.Epoch == st.Epoch {
				v.Degraded = n.degraded(st.ID, id, &r, decide.Astray(f, g, id))
				v.Serving = v.Degraded == ""
			}
			if id == st.Owner && r.Partly && r.Epoch == st.Epoch {
				failed, _, _ := strings.Cut(r.Reason, ": ")
				v.Degraded = failed + " is not served, other addresses are"
			}
		}
		v.Nodes = append(v.Nodes, x)
	}
	if l := &n.groups[i]; l.group != nil {
		for k := range spec.Resources {
			r := &spec.Resources[k]
			status, reason := l.group.Resource(r.ID)
			if next := l.group.NextTry(r.ID, n.now.Mono); next > 0 {
				reason += fmt.Sprintf("; the next try comes in %v", next.Round(100*time.Millisecond))
			}
			v.Own = append(v.Own, cluster.ResourceView{ID: r.ID, Kind: r.Kind, Status: status, Depth: r.Depth, Reason: reason})
		}
	}
	return v
}

// degraded tells why clients don't get what they should of a group that its owner has open, or "".
func (n *Node) degraded(g cluster.GroupID, owner cluster.NodeID, r *wire.GroupReport, astray string) string {
	var held []string
	for i := range n.state.Instructions.Stopped {
		if s := &n.state.Instructions.Stopped[i]; s.Group == g && s.Resource != "" {
			held = append(held, string(s.Resource))
		}
	}
	switch {
	case len(held) > 0:
		return strings.Join(held, ", ") + " stopped"
	case r.Cut:
		return string(owner) + " has lost its uplink"
	case astray != "":
		return string(owner) + " " + astray
	case r.Short:
		return string(owner) + "'s gate is shut, or its clients don't reach it there"
	}
	return ""
}

// History returns the cluster's history as far as this node has it, oldest first.
func (n *Node) History() []cluster.Line {
	if n.state == nil {
		return nil
	}
	return slices.Clone(n.state.Journal)
}

// WouldMove tells what a command would do: the node that the group would go to, or the answer where it would
// not move. Nothing is changed.
func (n *Node) WouldMove(now cluster.Now, c *Command) (cluster.NodeID, *Reply) {
	if n.state == nil {
		return "", refuse("baton status", "the cluster is still forming: %s", n.Waits())
	}
	f := n.at(now).facts()
	g := f.Group(c.Group)
	if g == nil {
		return "", noGroup(n.spec, c.Group)
	}
	m, r := Intend(f, g, c)
	if r != nil {
		return g.Owner, r
	}
	return m.To, nil
}

// Configuration returns the cluster's configuration, as far as this node has it.
func (n *Node) Configuration() *cluster.Configuration {
	c := &cluster.Configuration{}
	if n.state == nil {
		return c
	}
	c.Revisions = slices.Clone(n.state.Revisions)
	if n.state.Draft != nil {
		d := *n.state.Draft
		next, err := n.state.DraftSpec()
		if err != nil {
			d.Waits = err.Error()
		} else {
			d.Waits = n.state.DraftWaits(next)
		}
		c.Draft = &d
	}
	return c
}

// State returns the replicated state as this node has it, for observers: it must not be changed. nil: the
// cluster is still forming.
func (n *Node) State() *state.State { return n.state }
