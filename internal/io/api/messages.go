package api

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

// stamp returns a wall time as the schema has it; absent if it is not known.
func stamp(w cluster.WallTime) *timestamppb.Timestamp {
	if w == 0 {
		return nil
	}
	return timestamppb.New(time.Unix(0, int64(w)))
}

// texts turns named strings into plain ones.
func texts[T ~string](in []T) []string {
	var out []string
	for _, x := range in {
		out = append(out, string(x))
	}
	return out
}

func statusOf(o *cluster.Overview, now time.Time, version string) *batonv1.StatusResponse {
	t := o.Timing
	s := &batonv1.StatusResponse{
		Cluster: o.Cluster, Id: o.ID, Node: string(o.Node), Time: timestamppb.New(now), Version: version, Forming: o.Forming,
		Quorum: o.Quorum, Coordinator: string(o.Coordinator), Term: o.Term, Applied: o.Applied, Links: o.Links, Drift: driftOf(o.Drift),
		Timing: &batonv1.Timing{
			Takeover: durationpb.New(t.Takeover), Lease: durationpb.New(t.L), Heartbeat: durationpb.New(t.H), Detect: durationpb.New(t.D),
			Stall: durationpb.New(t.Stall), Sync: durationpb.New(t.Sync), RoundTrip: durationpb.New(t.RTT), Step: durationpb.New(t.Step), RhoPpm: t.RhoPPM,
		},
	}
	s.Unanswered = o.Unanswered
	s.Joining, s.Revision, s.Voters, s.VotersHeard = o.Joining, uint64(o.Revision), uint32(o.Voters), uint32(o.VotersHeard)
	s.Left = o.Left
	s.TermSince, s.TermWhy = stamp(o.TermSince), o.TermWhy
	if d := o.Draft; d != nil {
		s.Draft = draftOf(d)
	}
	for i := range o.Nodes {
		s.Nodes = append(s.Nodes, nodeOf(&o.Nodes[i], o.Links))
	}
	for i := range o.Groups {
		g := groupOf(&o.Groups[i])
		g.Service = serviceOf(&o.Groups[i].Service, now)
		s.Groups = append(s.Groups, g)
	}
	for i := range o.Instructions {
		s.Instructions = append(s.Instructions, instructionOf(&o.Instructions[i]))
	}
	return s
}

func nodeOf(v *cluster.NodeView, links []string) *batonv1.Node {
	n := &batonv1.Node{
		Name: string(v.ID), Role: v.Role.String(), Heard: v.Heard, Fresh: v.Fresh, Ago: durationpb.New(v.Ago), Number: uint64(v.Number),
		Admitted: v.Admitted, LeaseRuns: v.LeaseRuns, LeaseLeft: durationpb.New(v.LeaseLeft), Sick: v.Sick, Trouble: v.Trouble, Progress: v.Progress, Faulty: v.Faulty,
		Deaf: v.Deaf, Leads: v.Leads,
		Membership: string(v.Membership),
	}
	for i, l := range v.Links {
		link := &batonv1.NodeLink{Heard: l.Heard, Absent: l.Absent}
		if i < len(links) {
			link.Link = links[i]
		}
		if l.Heard { // else the age is of nothing
			link.Ago = durationpb.New(l.Ago)
		}
		if l.RoundTrip > 0 {
			link.RoundTrip = durationpb.New(l.RoundTrip)
		}
		n.Links = append(n.Links, link)
	}
	for _, f := range v.Faults {
		n.Faults = append(n.Faults, &batonv1.LinkFault{Link: f.Link, Text: f.Text, Hint: f.Hint})
	}
	return n
}

func groupOf(v *cluster.GroupView) *batonv1.Group {
	g := &batonv1.Group{
		Name: string(v.ID), Owner: string(v.Owner), Last: string(v.Last), Epoch: uint64(v.Epoch), Serving: v.Serving, Failover: v.Policy,
		Failback: v.Failback, Next: string(v.Next), NextBanned: v.NextBanned, NextOnCommand: v.NextOnCommand, Decision: v.Decision, Rule: v.Rule, Evidence: v.Evidence, Rejected: v.Rejected, Degraded: v.Degraded,
	}
	if m := v.Move; m != nil {
		g.Move = &batonv1.Move{Id: m.ID, From: string(m.From), To: string(m.To), Epoch: uint64(m.Epoch), Failback: m.Failback, Assigned: uint64(m.Assigned)}
	}
	for _, b := range v.Bans {
		g.Bans = append(g.Bans, &batonv1.Ban{Node: string(b.Node), Until: stamp(b.Until), Reason: b.Reason})
	}
	for _, n := range v.Nodes {
		g.Nodes = append(g.Nodes, &batonv1.GroupNode{Node: string(n.Node), Phase: n.Phase, Hot: n.Hot, Epoch: uint64(n.Epoch), Reason: n.Reason, Refusal: n.Can, InNeed: n.InNeed})
	}
	for _, r := range v.Own {
		g.Resources = append(g.Resources, &batonv1.Resource{Name: string(r.ID), Kind: r.Kind, Status: r.Status.String(), Depth: r.Depth.String(), Reason: r.Reason})
	}
	return g
}

func lineOf(l *cluster.Line) *batonv1.Line {
	return &batonv1.Line{
		Index: l.Index, Time: stamp(l.Wall), By: l.By, Rule: l.Rule, Why: l.Why, Evidence: l.Evidence, Rejected: l.Rejected,
		Did: l.Did, Dropped: l.Dropped, Groups: texts(l.Groups), Nodes: texts(l.Nodes), Served: servedOf(l.Served),
	}
}
