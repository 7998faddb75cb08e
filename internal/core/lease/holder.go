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

// backMax bounds the voters whose acks are kept, those of a coming set included.
const backMax = 64

// Flaws are planted bugs, for the tests of the simulator only.
type Flaws struct {
	QuorumOne  bool // one ack renews the lease
	AckArrival bool // the lease counts from the arrival of the ack
	NoRho      bool // a promise lasts L
	CurrentL   bool // an acked heartbeat counts with the lease length of now, not with the one that it named
	LaterAck   bool // an ack of a later heartbeat backs an earlier, longer one
}

// Holder is the side that owns a lease.
type Holder struct {
	flaws  Flaws
	sent   [ringSize]sent
	voters []cluster.Incarnation // the set that it counts in
	backs  []back
	sorted []cluster.Instant // scratch
	end    cluster.Instant
	length time.Duration // planted bug CurrentL only: the lease length of now
}

// back is until when a voter backs the lease: the latest `sent + L named` over its acked heartbeats. Those
// of nodes that are not in the set are kept too: they may be in the next one.
type back struct {
	voter cluster.Incarnation
	until cluster.Instant
	seq   uint64 // the newest acked
}

type sent struct {
	seq uint64
	at  cluster.Instant
	l   time.Duration
}

// NewHolder returns a holder that counts in no set yet.
func NewHolder(flaws Flaws) *Holder { return &Holder{flaws: flaws} }

// SetVoters makes the holder count in another set. The end reached stays.
func (h *Holder) SetVoters(voters []cluster.Incarnation) {
	h.voters = slices.Clone(voters)
}

// Rested tells whether the lease rests on the present set alone: no end later than the q-th largest over
// that set stands, or the lease has run out (protocol.md, "Quorum leases", 6).
func (h *Holder) Rested(now cluster.Instant) bool { return now >= h.end || h.counted() >= h.end }

// counted returns the q-th largest over the present set.
func (h *Holder) counted() cluster.Instant {
	if len(h.voters) == 0 {
		return 0
	}
	h.sorted = h.sorted[:0]
	for _, v := range h.voters {
		at := cluster.Instant(0)
		if i := h.find(v); i >= 0 {
			at = h.until(&h.backs[i])
		}
		h.sorted = append(h.sorted, at)
	}
	slices.Sort(h.sorted)
	q := cluster.Quorum(len(h.voters))
	if cluster.Planted && h.flaws.QuorumOne {
		q = 1
	}
	return h.sorted[len(h.sorted)-q]
}

// until returns how long a voter backs the lease.
func (h *Holder) until(b *back) cluster.Instant {
	if s := h.sent[b.seq%ringSize]; cluster.Planted && h.flaws.CurrentL && s.seq == b.seq {
		return s.at.Add(h.length)
	}
	if cluster.Planted && h.flaws.LaterAck {
		return max(b.until, h.earlier(b.seq))
	}
	return b.until
}

// earlier returns the latest end that any heartbeat up to seq asked for.
func (h *Holder) earlier(seq uint64) cluster.Instant {
	end := cluster.Instant(0)
	for i := range h.sent {
		if s := &h.sent[i]; s.l != 0 && s.seq <= seq {
			end = max(end, s.at.Add(s.l))
		}
	}
	return end
}

func (h *Holder) find(voter cluster.Incarnation) int {
	return slices.IndexFunc(h.backs, func(b back) bool { return b.voter == voter })
}

// Reset forgets all acks: they were given to another lease number.
func (h *Holder) Reset() {
	h.backs = h.backs[:0]
	h.end = 0
}

// Suspend forgets every heartbeat sent so far: no ack of theirs renews anything, and the end reached is void.
func (h *Holder) Suspend() {
	h.Reset()
	h.sent = [ringSize]sent{}
}

// Resume takes over the end that a former run had reached under the same number: it stands in the kernel.
func (h *Holder) Resume(end cluster.Instant) {
	h.end = max(h.end, end)
}

// Sent notes that heartbeat seq, which asks for a promise of l, leaves at the given instant.
func (h *Holder) Sent(seq uint64, at cluster.Instant, l time.Duration) {
	h.sent[seq%ringSize] = sent{seq, at, l}
	h.length = l
}

// Acked notes a voter's ack of heartbeat seq. It reports whether the lease's end has moved.
func (h *Holder) Acked(voter cluster.Incarnation, seq uint64, now cluster.Instant) bool {
	s := h.sent[seq%ringSize]
	if s.seq != seq || s.l == 0 {
		return false
	}
	until := s.at.Add(s.l)
	if cluster.Planted && h.flaws.AckArrival {
		until = now.Add(s.l)
	}
	i := h.find(voter)
	if i < 0 {
		if len(h.backs) == backMax {
			h.backs = slices.Delete(h.backs, 0, 1)
		}
		i = len(h.backs)
		h.backs = append(h.backs, back{voter: voter})
	}
	b := &h.backs[i]
	b.seq = max(b.seq, seq)
	b.until = max(b.until, until)
	return h.Renew()
}

// Renew takes in what the acks so far allow in the present set. It reports whether the end has moved.
func (h *Holder) Renew() bool {
	end := h.counted()
	moved := end > h.end
	h.end = max(h.end, end)
	return moved
}

// SentAt returns when heartbeat seq was sent, or false if it is no longer remembered.
func (h *Holder) SentAt(seq uint64) (cluster.Instant, bool) {
	s := h.sent[seq%ringSize]
	return s.at, s.seq == seq && s.l != 0
}

// End returns when the lease ends: the q-th largest over the voters of the sets that it was counted in. It
// never goes back.
func (h *Holder) End() cluster.Instant { return h.end }

// Runs tells whether the lease runs.
func (h *Holder) Runs(now cluster.Instant) bool { return now < h.end }
