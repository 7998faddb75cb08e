package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// rig is a cluster on a table: nodes stepped by hand on one clock, what is under way between them, and no fault but
// what a test makes. Nothing happens by chance. L is a second, h 100 ms, D 900 ms; a packet takes a millisecond, and
// what a node asks for is answered at once unless the test holds the answer back.
type rig struct {
	t     *testing.T
	now   cluster.Instant
	hosts []*host
	air   []parcel                                                   // under way, in the order of sending
	sent  []parcel                                                   // every packet, lost ones included
	pass  func(from, to cluster.NodeID, m wire.Message) wire.Message // nil: lost; or what arrives in its place
	look  func(n *Node, now cluster.Now)                             // called before every step
	trace io.Writer                                                  // gets every output
	often uint64                                                     // entries between two snapshots; 0: as ever
	texts []*cluster.Spec                                            // the cluster files that can be read
}

type parcel struct {
	at       cluster.Instant
	from, to cluster.NodeID
	in       Input
}

// host is what is around one node.
type host struct {
	r      *rig
	n      *Node // nil: down
	id     cluster.NodeID
	spec   *cluster.Spec
	boot   cluster.BootID
	runs   uint64
	disk   cluster.DiskImage
	record *cluster.Record
	held   map[answer]bool
	owed   []owed
	wake   cluster.Instant
	frozen bool                          // stepped by nobody; what comes waits
	cut    bool                          // no packet comes or goes
	blind  bool                          // reads no cluster file but the one it was founded with
	fails  map[cluster.ResourceID]string // what goes wrong when it is started
	status map[string]cluster.Status     // of what runs, by group/resource

	// what it has put out since the test last looked
	last     Output
	gates    []cluster.Gate
	wants    []cluster.Want
	persists []cluster.Persist
	events   []cluster.Event
	replies  []Reply
}

// answer is what a test may hold back.
type answer string

const (
	stored   answer = "Stored"
	recorded answer = "Recorded"
	gated    answer = "Gated"
	done     answer = "Done"
)

type owed struct {
	kind answer
	in   Input
	do   func() // what has happened once it is answered
}

const ms = cluster.Instant(time.Millisecond)

var timing = cluster.Timing{Takeover: 1300 * time.Millisecond, L: time.Second, Longest: time.Second, H: 100 * time.Millisecond, D: 900 * time.Millisecond,
	Stall: 15 * time.Millisecond, Sync: time.Millisecond, RTT: 2 * time.Millisecond, Step: 80 * time.Millisecond, RhoPPM: cluster.RhoPPM}

// file makes the cluster file of alpha, beta and the witness gamma, who run web: a process and an address.
func file(text string, change func(*cluster.Spec)) *cluster.Spec {
	s := &cluster.Spec{Cluster: "test", Text: []byte(text), Timing: timing, Links: []cluster.LinkSpec{{Name: "lan"}},
		Nodes:  []cluster.NodeSpec{{ID: "alpha"}, {ID: "beta"}, {ID: "gamma", Role: cluster.Witness}},
		Groups: []cluster.GroupSpec{service("web", "10.0.0.1")}}
	if change != nil {
		change(s)
	}
	return s
}

func service(id cluster.GroupID, address string) cluster.GroupSpec {
	return cluster.GroupSpec{ID: id, Nodes: []cluster.NodeID{"alpha", "beta"}, Resources: []cluster.ResourceSpec{
		{ID: "proc", Effects: cluster.EffectsAddress},
		{ID: "ip", Effects: cluster.EffectsAddress, Front: true, Addresses: []netip.Addr{netip.MustParseAddr(address)}}}}
}

// newRig makes a cluster of empty disks, all agents started.
func newRig(t *testing.T, spec *cluster.Spec, more ...*cluster.Spec) *rig {
	r := &rig{t: t, now: 1000 * ms, texts: append([]*cluster.Spec{spec}, more...)}
	for i := range spec.Nodes {
		h := &host{r: r, id: spec.Nodes[i].ID, spec: spec, boot: cluster.BootID(100 + i), held: map[answer]bool{}, fails: map[cluster.ResourceID]string{}, status: map[string]cluster.Status{}}
		h.disk.Incarnation = cluster.Incarnation(11 * (i + 1))
		r.hosts = append(r.hosts, h)
	}
	return r
}

// serving makes a cluster in which alpha serves what there is. Alpha leads it as well for 2 L.
func serving(t *testing.T, spec *cluster.Spec, more ...*cluster.Spec) *rig {
	t.Helper()
	r := newRig(t, spec, more...)
	r.start()
	r.until("alpha serves", 3*time.Second, func() bool { return r.at("alpha").open(spec.Groups[0].ID) && r.at("beta").n.number != 0 })
	return r
}

// settled is a cluster in which alpha serves and beta, which is idle, has come to coordinate.
func settled(t *testing.T, spec *cluster.Spec, more ...*cluster.Spec) *rig {
	t.Helper()
	r := serving(t, spec, more...)
	r.until("beta coordinates", 5*time.Second, func() bool { return r.leader() == "beta" })
	r.run(200 * time.Millisecond)
	return r
}

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

// start begins a run of the agent on what its host holds.
func (h *host) start() {
	h.runs++
	h.n = New(Config{Self: h.id, Spec: h.spec, CompactAfter: h.r.often, Read: func(text []byte) (*cluster.Spec, error) {
		for i, s := range h.r.texts {
			if string(s.Text) == string(text) && !(h.blind && i > 0) {
				return s, nil
			}
		}
		return nil, fmt.Errorf("no such text")
	}})
	h.owed = nil
	b := &Boot{Boot: h.boot, Run: cluster.NewRun(h.runs, 7), Disk: h.disk, Record: h.record}
	for _, g := range h.spec.Groups { // what a former run has left in the kernel, and running
		if i := h.lastGate(g.ID); i >= 0 && h.record != nil {
			b.Gates = append(b.Gates, cluster.GateState{Group: g.ID, Epoch: h.gates[i].Epoch, End: h.gates[i].End})
		}
		for _, x := range g.Resources {
			if s, ok := h.status[string(g.ID)+"/"+string(x.ID)]; ok {
				b.Found = append(b.Found, cluster.Done{Group: g.ID, Resource: x.ID, Status: s})
			}
		}
	}
	h.step(b)
}

// stop ends the agent; what was not answered is lost.
func (h *host) stop() { h.n, h.owed = nil, nil }

// step hands one input over, and takes what comes of it.
func (h *host) step(in Input) *Output {
	now := cluster.Now{Mono: h.r.now, Wall: cluster.WallTime(h.r.now)}
	if h.r.look != nil {
		h.r.look(h.n, cluster.Now{Mono: now.Mono + 5*ms, Wall: now.Wall})
	}
	out := h.n.Step(now, in)
	h.last, h.wake = *out, out.WakeAt
	if h.r.trace != nil {
		line := *out
		line.Sends = nil
		_ = json.NewEncoder(h.r.trace).Encode(line)
	}
	h.gates, h.wants, h.events = append(h.gates, out.Gates...), append(h.wants, out.Wants...), append(h.events, out.Events...)
	h.persists, h.replies = append(h.persists, out.Persists...), append(h.replies, out.Replies...)
	for _, p := range out.Persists {
		h.owe(stored, &Stored{p.N}, func() { write(&h.disk, p) })
	}
	if rec := out.Record; rec != nil {
		h.owe(recorded, &Recorded{rec.N}, func() { h.record = &rec.Record })
	}
	for _, g := range out.Gates {
		h.owe(gated, &Gated{g.N}, nil)
	}
	for _, w := range out.Wants {
		d := cluster.Done{N: w.N, Group: w.Group, Resource: w.Resource, Status: [...]cluster.Status{cluster.StatusStopped, cluster.StatusStandby, cluster.StatusRunning}[w.Target]}
		if why := h.fails[w.Resource]; why != "" && w.Target != cluster.TargetStopped {
			d.Status, d.Reason = cluster.StatusFailed, why
		}
		h.owe(done, &Done{d}, func() { h.status[string(d.Group)+"/"+string(d.Resource)] = d.Status })
	}
	for _, s := range out.Sends {
		h.r.send(h, s)
	}
	return out
}

// send puts a packet under way, by the format that it has between machines.
func (r *rig) send(h *host, s Send) {
	b, err := wire.Append(nil, s.Msg)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.trace != nil {
		fmt.Fprintf(r.trace, "%s>%s %x\n", h.id, s.To, b)
	}
	m, _ := wire.Decode(b)
	p := parcel{r.now + ms, h.id, s.To, &Packet{From: h.id, Run: cluster.NewRun(h.runs, 7), Msg: m}}
	r.sent = append(r.sent, p)
	if r.pass != nil {
		m = r.pass(h.id, s.To, m)
	}
	if i := slices.IndexFunc(r.hosts, func(o *host) bool { return o.id == s.To }); m != nil && i >= 0 && !h.cut && !r.hosts[i].cut {
		p.in = &Packet{From: h.id, Run: cluster.NewRun(h.runs, 7), Msg: m}
		r.air = append(r.air, p)
	}
}

func (h *host) owe(kind answer, in Input, do func()) {
	h.owed = append(h.owed, owed{kind, in, do})
	if !h.held[kind] {
		h.answer(kind)
	}
}

// hold keeps answers back from now on; answer gives them, those to come as well.
func (h *host) hold(kinds ...answer) {
	for _, k := range kinds {
		h.held[k] = true
	}
}

func (h *host) answer(kind answer) {
	h.held[kind] = false
	h.owed = slices.DeleteFunc(h.owed, func(o owed) bool {
		if o.kind == kind {
			if o.do != nil {
				o.do()
			}
			h.r.air = append(h.r.air, parcel{at: h.r.now, to: h.id, in: o.in})
		}
		return o.kind == kind
	})
}

// until lets time pass until something is so; it must be so in time.
func (r *rig) until(what string, limit time.Duration, so func() bool) {
	r.t.Helper()
	if !r.pursue(limit, so) {
		r.t.Fatalf("not within %v: %s", limit, what)
	}
}

func (r *rig) run(d time.Duration) { r.pursue(d, func() bool { return false }) }

func (r *rig) pursue(d time.Duration, so func() bool) bool {
	end := r.now.Add(d)
	for busy := 0; !so(); busy++ {
		at, k := end, -1
		var due *host
		for i := range r.air {
			if p := &r.air[i]; max(p.at, r.now) < at && !r.at(p.to).frozen {
				at, k = max(p.at, r.now), i
			}
		}
		for _, h := range r.hosts {
			if h.n != nil && !h.frozen && max(h.wake, r.now) < at {
				at, k, due = max(h.wake, r.now), -1, h
			}
		}
		if at > r.now {
			busy = 0
		}
		if busy > 1000 {
			r.t.Fatal("the nodes ask to be called again and again")
		}
		r.now = at
		switch {
		case k >= 0:
			p := r.air[k]
			r.air = slices.Delete(r.air, k, k+1)
			if h := r.at(p.to); h.n != nil && !h.cut || p.from == "" && h.n != nil {
				h.step(p.in)
			}
		case due != nil:
			due.step(&Tick{})
		default:
			return false
		}
	}
	return true
}

// open tells whether the gate stands open by what the node last wrote.
func (h *host) open(g cluster.GroupID) bool {
	i := h.lastGate(g)
	return i >= 0 && h.gates[i].End > h.r.now
}

func (h *host) lastGate(g cluster.GroupID) int {
	for i := len(h.gates) - 1; i >= 0; i-- {
		if h.gates[i].Group == g {
			return i
		}
	}
	return -1
}

func write(d *cluster.DiskImage, p cluster.Persist) {
	if p.Founding != nil {
		d.Founding = p.Founding
	}
	if p.Hard != nil {
		d.Hard = *p.Hard
	}
	if p.Notes != nil {
		d.Notes = *p.Notes
	}
	if p.Snapshot != nil {
		d.Snapshot = p.Snapshot
		d.Entries = slices.DeleteFunc(slices.Clone(d.Entries), func(e cluster.LogEntry) bool { return e.Index <= p.Snapshot.Index })
	}
	if len(p.Entries) > 0 {
		d.Entries = slices.DeleteFunc(slices.Clone(d.Entries), func(e cluster.LogEntry) bool { return e.Index >= p.Entries[0].Index })
		d.Entries = append(d.Entries, p.Entries...)
	}
}
