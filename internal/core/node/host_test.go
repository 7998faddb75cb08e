package node

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// The clusters that the tests put on the table, and what a host keeps between two runs of its agent.

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
	h.owe(fitted, &Fitted{h.n.Revision()}, nil)
}

// stop ends the agent; what was not answered is lost.
func (h *host) stop() {
	h.n, h.owed = nil, nil
	h.r.air = slices.DeleteFunc(h.r.air, func(p parcel) bool { return p.from == "" && p.to == h.id })
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

// write carries a write to the disk out.
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
