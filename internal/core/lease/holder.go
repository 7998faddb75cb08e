// Package lease is the arithmetic of who may serve: what the holder of a lease may conclude from acks,
// and what a voter has promised (protocol.md, "Quorum leases"). Two properties make it safe: a lease
// counts from the sending of a heartbeat, a promise from its arrival; and a promise lasts (1+rho) longer.
package lease

import (
	"slices"
	"time"

	"baton/internal/core/cluster"
)

// ringSize is how many heartbeats a holder remembers; acks of older ones renew nothing. It exceeds
// what is sent within two lease lengths at the quickest pace (L/50).
const ringSize = 256

// Flaws are planted bugs, for the tests of the simulator only.
type Flaws struct {
	QuorumOne  bool // one ack renews the lease
	AckArrival bool // the lease counts from the arrival of the ack
	NoRho      bool // a promise lasts L
}

// Holder is the side that owns a lease.
type Holder struct {
	quorum int
	flaws  Flaws
	sent   [ringSize]sent
	until  []cluster.Instant // per voter: the latest `sent + L` over its acked heartbeats
	sorted []cluster.Instant // scratch
	end    cluster.Instant
}

type sent struct {
	seq uint64
	at  cluster.Instant
	l   time.Duration
}

// NewHolder returns a holder whose lease rests on the given number of voters.
func NewHolder(voters int, flaws Flaws) *Holder {
	h := &Holder{quorum: cluster.Quorum(voters), flaws: flaws, until: make([]cluster.Instant, voters), sorted: make([]cluster.Instant, voters)}
	if flaws.QuorumOne {
		h.quorum = 1
	}
	return h
}

// Reset forgets all acks: they were given to another lease number.
func (h *Holder) Reset() {
	clear(h.until)
	h.end = 0
}

// Resume takes over the end that a former run had reached under the same number: it stands in the kernel.
func (h *Holder) Resume(end cluster.Instant) {
	h.end = max(h.end, end)
}

// Sent notes that heartbeat seq, which asks for a promise of l, leaves at the given instant.
func (h *Holder) Sent(seq uint64, at cluster.Instant, l time.Duration) {
	h.sent[seq%ringSize] = sent{seq, at, l}
}

// Acked notes a voter's ack of heartbeat seq. It reports whether the lease's end has moved.
func (h *Holder) Acked(voter int, seq uint64, now cluster.Instant) bool {
	s := h.sent[seq%ringSize]
	if s.seq != seq || s.l == 0 {
		return false
	}
	until := s.at.Add(s.l)
	if h.flaws.AckArrival {
		until = now.Add(s.l)
	}
	if until <= h.until[voter] {
		return false
	}
	h.until[voter] = until
	copy(h.sorted, h.until)
	slices.Sort(h.sorted)
	end := h.sorted[len(h.sorted)-h.quorum]
	moved := end > h.end
	h.end = max(h.end, end)
	return moved
}

// SentAt returns when heartbeat seq was sent, or false if it is no longer remembered.
func (h *Holder) SentAt(seq uint64) (cluster.Instant, bool) {
	s := h.sent[seq%ringSize]
	return s.at, s.seq == seq && s.l != 0
}

// End returns when the lease ends: the q-th largest over the voters. It never goes back.
func (h *Holder) End() cluster.Instant { return h.end }

// Runs tells whether the lease runs.
func (h *Holder) Runs(now cluster.Instant) bool { return now < h.end }
