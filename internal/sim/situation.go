package sim

import (
	"fmt"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/state"
)

// Situation is a cluster that runs, as one of its nodes sees it.
type Situation struct {
	State    []byte            // the replicated state, encoded
	Spec     *cluster.Spec     // the configuration that counts
	Read     state.Reader      // reads the configuration's texts
	Wall     cluster.WallTime  // calendars show so
	Overview *cluster.Overview // who is heard, and how each group is on each node
}

// standing is a Situation made ready to begin worlds with.
type standing struct {
	*Situation
	state *state.State
	data  []byte // of a snapshot
}

// prepare reads the state, and leaves out what a simulation has no use for.
func (s *Situation) prepare() (*standing, error) {
	st, err := state.Decode(s.State, s.Read, state.Flaws{})
	if err != nil {
		return nil, fmt.Errorf("the cluster's state: %w", err)
	}
	st.Journal, st.Asked, st.Draft, st.DraftEnd = nil, nil, nil, nil
	st.Revisions = st.Revisions[len(st.Revisions)-1:]
	return &standing{s, st, st.Encode()}, nil
}

// machine properties that a simulated cluster has in place of what is not known of the real one
const (
	assumedLatency = 200 * time.Microsecond
	assumedSync    = time.Millisecond
)

// plan makes the plan of a cluster as it is: what starts, starts at once, and a node that is not heard has
// no power.
func (s *standing) plan(seed uint64) *Plan {
	p := &Plan{Seed: seed, Takeover: s.Spec.Timing.Takeover, Links: len(s.Spec.Links), Goal: Safety,
		Latency: assumedLatency / 2, Jitter: assumedLatency, SyncMin: assumedSync / 4, SyncMax: assumedSync}
	for i := range s.Spec.Nodes {
		n := &s.Spec.Nodes[i]
		p.Nodes = append(p.Nodes, PlanNode{ID: n.ID, Role: n.Role})
	}
	for i := range s.Spec.Groups {
		p.Groups = append(p.Groups, PlanGroup{ID: s.Spec.Groups[i].ID, Nodes: s.Spec.Groups[i].Nodes})
	}
	for i := range s.Overview.Nodes {
		if v := &s.Overview.Nodes[i]; !v.Fresh {
			p.Faults = append(p.Faults, Fault{Kind: Power, Node: string(v.ID), Link: -1})
			continue
		}
		p.Faults = append(p.Faults, s.deadLinks(&s.Overview.Nodes[i])...)
	}
	return p
}

// deadLinks are the links on which a node that is heard has fallen silent.
func (s *standing) deadLinks(v *cluster.NodeView) []Fault {
	var out []Fault
	for i, l := range v.Links {
		if l.Heard && l.Ago > s.Spec.Timing.D {
			out = append(out, Fault{Kind: Cut, Node: string(s.Overview.Node), Peer: string(v.ID), Link: i})
		}
	}
	return out
}

// world begins a world in which every node that is heard has just restarted its agent, and all goes on as it
// was: same boot, run record, open gates, running programs.
func (s *standing) world(p *Plan, opt Options) *world {
	w := makeWorld(p, opt, s.Spec)
	w.reader, w.calendar = s.Read, int64(s.Wall)
	w.latest.spec = s.Spec
	w.check.init(w)
	w.check.before = s.state.Applied
	w.check.said.begin(s.state)
	w.check.heard.begin(s.state)
	w.check.agreed.begin(s.state)
	for i := range w.spec.Groups {
		g := s.state.Group(w.spec.Groups[i].ID)
		c := &w.check.groups[i]
		c.epoch, c.server = g.Epoch, w.index(g.Last)
		if g.Move != nil {
			c.moves, c.permits, c.froms = []string{g.Move.ID}, []cluster.NodeID{g.Move.To}, map[string]cluster.NodeID{g.Move.ID: g.Move.From}
		}
	}
	for i, m := range w.machines {
		m.file = s.Spec
		s.furnish(m, &s.Overview.Nodes[i])
	}
	w.scheduleFaults()
	return w
}

// furnish gives a machine the disk, the memory and the kernel that its node has.
func (s *standing) furnish(m *machine, v *cluster.NodeView) {
	member, n := s.state.Member(m.id), s.state.Node(m.id)
	if member != nil {
		m.inc = member.Incarnation
		m.disk.image = cluster.DiskImage{Incarnation: m.inc, Notes: cluster.Notes{LongestPromise: s.Spec.Timing.L},
			Snapshot: &cluster.Snapshot{Index: s.state.Applied, Term: s.Overview.Term, Data: s.data},
			Hard:     cluster.HardState{Term: s.Overview.Term, Commit: s.state.Applied}}
	} else {
		m.wiped = true
	}
	if !v.Fresh {
		return
	}
	m.powered, m.boot = true, cluster.BootID(m.id64())
	m.life++
	m.w.push(s.agentStart(m), evAgent, m.idx, m.life, 0, 0)
	if member == nil || !n.Admitted || n.Incarnation != m.inc {
		return
	}
	m.boot = n.Boot
	m.record = &cluster.Record{Incarnation: m.inc, Boot: m.boot, Run: 1, Number: n.Number, First: n.Number,
		Rests: s.state.Set().Index, View: 1, Groups: make(map[cluster.GroupID]cluster.GroupRecord)}
	for i := range s.Overview.Groups {
		s.furnishGroup(m, &s.Overview.Groups[i])
	}
}

// agentStart makes who coordinates begin first, so that it will be elected: the others are late by less than
// a lease, and their gates stay open.
func (s *standing) agentStart(m *machine) int64 {
	if m.id == s.Overview.Coordinator {
		return 0
	}
	return int64(s.Spec.Timing.L)*4/10 + m.between(0, s.Spec.Timing.H)
}

// furnishGroup makes a group be on a machine what its node says of it.
func (s *standing) furnishGroup(m *machine, g *cluster.GroupView) {
	i := slices.IndexFunc(g.Nodes, func(v cluster.GroupNodeView) bool { return v.Node == m.id })
	if i < 0 {
		return
	}
	v := &g.Nodes[i]
	index := m.w.groupIndex(g.ID)
	serves := g.Owner == m.id && g.Serving && v.Epoch == g.Epoch
	if serves {
		m.record.Groups[g.ID] = cluster.GroupRecord{Activated: g.Epoch}
		m.gates[index] = gate{epoch: g.Epoch, end: m.clock.read(0).Add(s.Spec.Timing.L)}
	}
	for k := range m.resources {
		r := &m.resources[k]
		held := s.state.Instructions.Stop(g.ID, r.spec.ID) != nil
		switch {
		case r.group != index || held:
		case serves:
			r.status = cluster.StatusRunning
		case v.Hot && r.spec.Depth == cluster.Hot:
			r.status = cluster.StatusStandby
		}
	}
}

// begin takes over what people have said before the run.
func (x *instructed) begin(s *state.State) {
	for _, p := range s.Instructions.Paused {
		x.paused[p.Group] = p.Note
	}
	for _, p := range s.Instructions.Pinned {
		x.pinned[p.Group] = p
	}
	for _, d := range s.Instructions.Drained {
		x.drained[d.Node] = d.Note
	}
	for _, p := range s.Instructions.Stopped {
		x.stopped[resourceOf{p.Group, p.Resource}] = p.Note
	}
}

// settling time before a fault: elections, the grace of restarted voters, and a coordinator that moves to its
// best place, which must have lasted 2 L; and the start grace of the planner.
func (s *standing) settles() time.Duration {
	t := s.Spec.Timing
	return 5*t.L + t.Takeover + 2*time.Second
}
