package node

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/state"
	"baton/internal/core/wire"
)

// foundingWork is what an agent with an empty data directory does: it asks every voter in its file. When
// all are empty and hold the same file, the first by name writes the one founding record.
type foundingWork struct {
	at      cluster.Instant
	pending bool // the record is being written
	told    string
}

// askMax bounds the time between two asks, whatever the heartbeat interval.
const askMax = 100 * time.Millisecond

func (n *Node) askEvery() time.Duration { return min(n.timing.H, askMax) }

func (n *Node) ask() *wire.Ask {
	return &wire.Ask{Incarnation: n.inc, File: n.file, Empty: n.raft == nil || n.state.IsBlank(), Without: n.durable.Without}
}

// askAll asks every other node that the file names.
func (n *Node) askAll() {
	for i := range n.peers {
		if i != n.self {
			n.send(i, n.ask())
		}
	}
}

func (n *Node) tendFounding() {
	f := n.founding
	if n.now.Mono < f.at {
		return
	}
	f.at = n.now.Mono.Add(n.askEvery())
	n.askAll()
	if waits := n.Waits(); waits != f.told {
		f.told = waits
		n.event("forming", n.id(), "the cluster is forming: %s", waits)
	}
	n.tendForms()
	if f.pending || !n.founds() || n.Waits() != "" {
		return
	}
	without := n.durable.Without
	rec := &cluster.Founding{ID: fmt.Sprintf("%s-%016x", n.spec.Cluster, uint64(n.inc)), File: n.spec.Text, Wall: n.now.Wall, Without: without}
	for i := range n.peers {
		inc := n.peers[i].asked.Incarnation
		switch {
		case i == n.self:
			inc = n.inc
		case listed(without, n.peers[i].id):
			inc = nobodys(rec.ID, n.peers[i].id)
		}
		rec.Nodes = append(rec.Nodes, cluster.FoundingNode{Node: n.peers[i].id, Incarnation: inc})
	}
	n.storeFounding(rec)
}

// founds tells whether it is this node that founds the cluster.
func (n *Node) founds() bool {
	return n.flawed(TwoFoundings) || (n.notes.Without == n.durable.Without && n.founder(n.durable.Without) == n.self)
}

// Waits tells what forming waits for, or "" if this node could found the cluster now.
func (n *Node) Waits() string {
	if n.founding == nil {
		return ""
	}
	if id, ok := n.member(); ok {
		return fmt.Sprintf("%s belongs to a cluster already, and this node, whose data directory is empty, waits to be let in", id)
	}
	without := n.durable.Without
	for i := range n.peers {
		p := &n.peers[i]
		switch {
		case i == n.self || listed(without, p.id):
		case p.askedAt == 0 || n.now.Mono.Sub(p.askedAt) > 5*n.askEvery():
			return fmt.Sprintf("%s is not heard", p.id)
		case p.asked.File != n.file:
			return fmt.Sprintf("%s has another cluster file", p.id)
		case n.founder(p.asked.Without) != n.founder(without):
			return n.disagrees(p)
		}
	}
	return ""
}

// storeFounding makes the record, and the longest promise under it, durable before anything is said of it.
func (n *Node) storeFounding(rec *cluster.Founding) {
	n.founding.pending = true
	n.notes.Without = ""
	n.notes.LongestPromise = max(n.notes.LongestPromise, n.timing.L, n.timing.Longest)
	notes := n.notes
	n.persist(cluster.Persist{Founding: rec.Encode(), Notes: &notes, Sync: true}, unstored{founding: rec, notes: &notes})
}

// founded begins the cluster's life on this node, and tells the others of the record.
func (n *Node) founded(rec *cluster.Founding) {
	r := n.load(&cluster.DiskImage{Incarnation: n.inc, Founding: rec.Encode()})
	n.seat(n.spec.Links)
	n.refit()
	n.startRaft(r)
	n.event("founded", n.id(), "the cluster %s is founded%s", rec.ID, without(rec.Without))
	n.formed(rec)
	n.tellFounding()
}

func (n *Node) tellFounding() {
	if n.founder(n.state.Founding.Without) != n.self && !n.flawed(TwoFoundings) {
		return
	}
	for i := range n.peers {
		if i != n.self {
			n.send(i, &wire.Founding{Record: n.state.Founding.Encode()})
		}
	}
}

// askIn answers an empty node: with the founding record if that names it by its own incarnation. Any other
// is let in by the coordinator, to copy the log.
func (n *Node) askIn(i int, a *wire.Ask) {
	if n.raft == nil || !a.Empty || n.state.IsBlank() {
		return
	}
	answer := n.ask()
	p := &n.peers[i]
	if a.File != sha256.Sum256(n.spec.Text) && n.now.Mono >= p.textAt {
		p.textAt = n.now.Mono.Add(textEvery)
		answer.Text = n.spec.Text
	}
	n.send(i, answer)
	switch {
	case p.inc != a.Incarnation:
		n.planDue = true
		n.stranger(p, a.Incarnation)
	case p.durable > 0 && !n.flawed(SetBackUnseen): // it held more once: its directory was set back, as this node's next heartbeat tells it
	case slices.Contains(n.state.Founding.Nodes, cluster.FoundingNode{Node: p.id, Incarnation: a.Incarnation}):
		n.send(i, &wire.Founding{Record: n.state.Founding.Encode()})
	}
}

// textEvery is how often at the most a newcomer is sent the cluster file.
const textEvery = time.Second

// fileIn takes the cluster file from a member, on a node that has no copy of the log: its own may be older,
// and it must know every node that may coordinate.
func (n *Node) fileIn(a *wire.Ask) {
	if a.Empty || a.Text == nil || (n.founding == nil && !n.state.IsBlank()) || (n.founding != nil && n.founding.pending) {
		return
	}
	spec, err := n.read(a.Text)
	if err != nil || spec.Node(n.name) == nil {
		n.once("file "+string(a.File[:4]), "file.other", n.id(), "the cluster's file differs from this node's, and can't be used here: take it anew by baton join")
		return
	}
	if n.state != nil {
		n.state = state.Blank(spec, n.read, n.stateFlaws())
		n.takeRevision()
	} else {
		before := n.spec.Links
		n.takeSpec(spec)
		n.seat(before)
		n.refit()
		n.carryOut(spec)
	}
	n.file = sha256.Sum256(spec.Text)
}

// tendCopy asks on while this node has no copy of the log yet.
func (n *Node) tendCopy() {
	if n.now.Mono < n.askAt {
		return
	}
	n.askAt = n.now.Mono.Add(n.askEvery())
	n.askAll()
}

// stranger tells of a node whose data directory is not the one that the cluster knows.
func (n *Node) stranger(p *peer, inc cluster.Incarnation) {
	if n.awaited(p) {
		return
	}
	n.once(fmt.Sprintf("stranger %s %x", p.id, uint64(inc)), "stranger", p.id,
		"%s has another data directory than the one the cluster knows it by: it is let in anew once its former self is silent", p.id)
	n.foreign()
}

// foundingIn stores a founding record, only if this node has none and the record names its own incarnation.
func (n *Node) foundingIn(from int, m *wire.Founding) {
	if n.founding == nil || n.founding.pending {
		return
	}
	rec, err := cluster.DecodeFounding(m.Record)
	if err != nil {
		n.once("founding "+err.Error(), "founding.unreadable", n.id(), "a founding record was refused: %v", err)
		return
	}
	if sha256.Sum256(rec.File) != n.file {
		n.once("founding file", "founding.file", n.id(), "the cluster was founded with another file than this node's: copy the file from a node that runs")
		return
	}
	named := false
	for _, f := range rec.Nodes {
		if n.index(f.Node) < 0 || f.Incarnation == 0 || (f.Node == n.name && f.Incarnation != n.inc) {
			return
		}
		named = named || f.Node == n.name
	}
	if !named {
		return // it was formed without this node, which joins it like any newcomer
	}
	if by := n.founder(n.notes.Without); by != n.self && by != from && by != n.founder(rec.Without) {
		n.once("founding without", "founding.without", n.id(), "a founding record%s was refused: this node has agreed that its cluster be founded%s by %s",
			without(rec.Without), without(n.notes.Without), n.peers[by].id)
		return
	}
	n.storeFounding(rec)
}

// once emits an event only if nothing was said under the key before.
func (n *Node) once(key, code string, node cluster.NodeID, format string, args ...any) {
	if n.decisions[key] == "" {
		n.decisions[key] = code
		n.event(code, node, format, args...)
	}
}
