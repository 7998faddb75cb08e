package node

import (
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"baton/internal/core/cluster"
	"baton/internal/core/state"
	"baton/internal/core/wire"
)

// What the tests ask the rig for, in few words.

func (r *rig) start() {
	for _, h := range r.hosts {
		h.start()
	}
}

func (r *rig) at(id cluster.NodeID) *host {
	return r.hosts[slices.IndexFunc(r.hosts, func(h *host) bool { return h.id == id })]
}

func (r *rig) leader() cluster.NodeID {
	for _, h := range r.hosts {
		if h.n != nil && h.n.raft != nil && h.n.raft.leading && !h.cut {
			return h.id
		}
	}
	return ""
}

// until lets time pass until something is so; it must be so in time.
func (r *rig) until(what string, limit time.Duration, so func() bool) {
	r.t.Helper()
	if !r.pursue(limit, so) {
		r.t.Fatalf("not within %v: %s", limit, what)
	}
}

func (r *rig) run(d time.Duration) { r.pursue(d, func() bool { return false }) }

// forget begins what was sent, asked for and told anew. Gates are kept: the last one tells whether they are open.
func (r *rig) forget() {
	r.sent = nil
	for _, h := range r.hosts {
		h.wants, h.persists, h.events, h.replies = nil, nil, nil, nil
	}
}

// sent returns the messages of a kind that one node has sent.
func sent[M wire.Message](r *rig, from cluster.NodeID) []M {
	var out []M
	for _, p := range r.sent {
		if m, ok := p.in.(*Packet).Msg.(M); ok && p.from == from {
			out = append(out, m)
		}
	}
	return out
}

// raftSent returns Raft's messages of a kind that one node has sent.
func raftSent(r *rig, from cluster.NodeID, kind raftpb.MessageType) []*raftpb.Message {
	var out []*raftpb.Message
	for _, m := range sent[*wire.Raft](r, from) {
		if m.Msg.GetType() == kind {
			out = append(out, m.Msg)
		}
	}
	return out
}

// beat returns a node's newest heartbeat.
func (r *rig) beat(from cluster.NodeID) *wire.Heartbeat {
	r.t.Helper()
	all := sent[*wire.Heartbeat](r, from)
	if len(all) == 0 {
		r.t.Fatalf("%s has sent no heartbeat", from)
	}
	return all[len(all)-1]
}

// hand gives a node one packet, as if another had sent it; it returns what the node does.
func (r *rig) hand(from, to cluster.NodeID, m wire.Message) *Output {
	run := cluster.NewRun(1, 7)
	if i := slices.IndexFunc(r.hosts, func(h *host) bool { return h.id == from }); i >= 0 {
		run = cluster.NewRun(r.hosts[i].runs, 7)
	}
	return r.at(to).step(&Packet{From: from, Run: run, Msg: m})
}

// switchTo asks the coordinator to move web.
func (r *rig) switchTo(to cluster.NodeID) {
	r.t.Helper()
	if r.leader() == "" {
		r.t.Fatal("nobody coordinates")
	}
	r.at(r.leader()).step(&Command{ID: uint64(r.now), Op: OpSwitch, Group: "web", To: to, By: "test"})
}

// ask puts a part into the log, through a node.
func (h *host) ask(p cluster.Part) {
	h.step(&Command{ID: uint64(h.r.now), Op: OpPropose, Part: p, By: "test"})
}

func deed(text string) cluster.Part { return cluster.Part{Deed: &cluster.Deed{Text: text}} }

// wanted tells whether a resource was asked to reach a target.
func (h *host) wanted(id cluster.ResourceID, to cluster.Target) bool {
	return slices.ContainsFunc(h.wants, func(w cluster.Want) bool { return w.Resource == id && w.Target == to })
}

func (h *host) told(code string) bool {
	return slices.ContainsFunc(h.events, func(e cluster.Event) bool { return e.Code == code })
}

// group is a group by the log, as a node has it.
func (h *host) group(id cluster.GroupID) *state.Group { return h.n.state.Group(id) }

// never lets time pass in which something must not come to be so.
func (r *rig) never(what string, d time.Duration, so func() bool) {
	r.t.Helper()
	if r.pursue(d, so) {
		r.t.Fatalf("it was so: %s", what)
	}
}

func check(t *testing.T, ok bool, what string, args ...any) {
	t.Helper()
	if !ok {
		t.Errorf(what, args...)
	}
}

// unheard loses what one node sends to another, of one kind.
func unheard[M wire.Message](from, to cluster.NodeID) func(cluster.NodeID, cluster.NodeID, wire.Message) wire.Message {
	return func(f, o cluster.NodeID, m wire.Message) wire.Message {
		if _, is := m.(M); is && (from == "" || f == from) && (to == "" || o == to) {
			return nil
		}
		return m
	}
}
