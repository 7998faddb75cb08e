package node

import (
	"encoding/json"
	"fmt"
	"io"
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
	drops func(from, to cluster.NodeID, link int) bool               // whether a link loses a packet; nil: there is one, which loses none
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
	fitted   answer = "Fitted"
)

type owed struct {
	kind answer
	in   Input
	do   func() // what has happened once it is answered
}

// newRig makes a cluster of empty disks, no agent started yet.
func newRig(t *testing.T, spec *cluster.Spec, more ...*cluster.Spec) *rig {
	r := &rig{t: t, now: 1000 * ms, texts: append([]*cluster.Spec{spec}, more...)}
	for i := range spec.Nodes {
		h := &host{r: r, id: spec.Nodes[i].ID, spec: spec, boot: cluster.BootID(100 + i), held: map[answer]bool{}, fails: map[cluster.ResourceID]string{}, status: map[string]cluster.Status{}}
		h.disk.Incarnation = cluster.Incarnation(11 * (i + 1))
		r.hosts = append(r.hosts, h)
	}
	return r
}

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
		if err := json.NewEncoder(h.r.trace).Encode(line); err != nil {
			h.r.t.Fatal(err)
		}
	}
	h.gates, h.wants, h.events = append(h.gates, out.Gates...), append(h.wants, out.Wants...), append(h.events, out.Events...)
	h.persists, h.replies = append(h.persists, out.Persists...), append(h.replies, out.Replies...)
	for _, p := range out.Persists {
		h.owe(stored, &Stored{p.N}, func() { write(&h.disk, p) })
	}
	if rec := out.Record; rec != nil {
		h.owe(recorded, &Recorded{rec.N}, func() { h.record = &rec.Record })
	}
	if out.Spec != nil {
		h.owe(fitted, &Fitted{out.Revision}, nil)
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
		links := 1
		if r.drops != nil {
			links = len(h.spec.Links)
		}
		for k := range links {
			if r.drops == nil || !r.drops(h.id, s.To, k) {
				p.in = &Packet{From: h.id, Run: cluster.NewRun(h.runs, 7), Link: k, Msg: m}
				r.air = append(r.air, p)
			}
		}
	}
}

// pursue lets time pass until something is so, and tells whether it came to be so in time. What is due first happens
// first; of what is due at once, packets and answers come before a node that wants to be called.
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
		if busy > 1000+20*len(r.texts[0].Groups) {
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
