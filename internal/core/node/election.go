package node

import (
	"time"

	"baton/internal/core/cluster"
)

// election starts campaigns in a fixed order in place of Raft's random timers, so that equal inputs give
// equal traces and two candidates do not collide (protocol.md, "The coordinator").
type election struct {
	heard  cluster.Instant // when a heartbeat last said "I lead"
	named  time.Duration   // the lease length that this heartbeat named; 0: none did
	forgot bool            // the former leader was forgotten
	nextAt cluster.Instant // the next campaign
	failed int             // rounds that failed although a quorum was heard: the step doubles with each
	tickAt cluster.Instant // the next tick, while this node leads
	rtt    time.Duration   // smoothed round trip of heartbeats
	sync   time.Duration   // recent time of a sync

	better      int // a voter that would be the better coordinator …
	betterSince cluster.Instant
}

// maxDoublings bounds the shift; the step is capped at 2 L anyway.
const maxDoublings = 16

// step is the time between the campaigns of two candidates.
func (e *election) step(n *Node) time.Duration {
	s := max(n.timing.L*8/100, 4*e.rtt+2*e.sync)
	if !n.flawed(NoBackoff) {
		s <<= min(e.failed, maxDoublings)
	}
	return min(s, 2*n.timing.L)
}

// turn is this node's place in the order of candidates: members, spares, witnesses, by name.
func (n *Node) turn() int {
	turn := 0
	me := &n.spec.Nodes[n.self]
	for i := range n.spec.Nodes {
		o := &n.spec.Nodes[i]
		if o.Role < me.Role || (o.Role == me.Role && o.ID < me.ID) {
			turn++
		}
	}
	return turn
}

// afresh begins the order of campaigns anew: a disk answers again, so rounds that failed tell nothing more.
func (e *election) afresh(n *Node) {
	e.failed = 0
	e.nextAt = min(e.nextAt, n.now.Mono.Add(time.Duration(n.turn()+1)*e.step(n)))
}

// patience is the silence after which a leader is forgotten: half the lease length that it last named.
func (e *election) patience(n *Node) time.Duration {
	if e.named > 0 {
		return e.named / 2
	}
	return n.timing.L / 2
}

func (n *Node) leaderHeard() {
	n.election.heard, n.election.forgot = n.now.Mono, false
}

// leaderDeaf notes that who leads does not hear this node: that is the silence of a leader, seen from the
// other side, and found at once.
func (n *Node) leaderDeaf() {
	n.election.heard = min(n.election.heard, n.now.Mono.Add(-n.election.patience(n)))
}

// led notes that a leader is known.
func (e *election) led(n *Node) {
	e.failed = 0
	n.leaderHeard()
}

// granted makes who granted a vote wait another step.
func (e *election) granted(n *Node) {
	e.nextAt = max(e.nextAt, n.now.Mono.Add(e.step(n)))
}

func (e *election) next(n *Node) cluster.Instant {
	switch {
	case n.raft == nil:
		return cluster.Never
	case n.raft.leading:
		return e.tickAt
	case e.forgot:
		return e.nextAt
	default:
		return e.heard.Add(e.patience(n))
	}
}

// tendElection ticks a leader, and lets others campaign in turn once the leader has been silent for L/2.
func (n *Node) tendElection() {
	e, r := &n.election, n.raft
	if r.leading {
		if n.now.Mono >= e.tickAt {
			r.rn.Tick()
			e.tickAt = max(e.tickAt.Add(n.timing.H), n.now.Mono.Add(n.timing.H/2))
			n.placeLeader()
		}
		return
	}
	if n.now.Mono.Sub(e.heard) < e.patience(n) {
		return
	}
	if !e.forgot {
		e.forgot = true
		e.nextAt = n.now.Mono.Add(time.Duration(n.turn()) * e.step(n))
		_ = r.rn.ForgetLeader() // a no-op where no leader is known
	}
	if n.now.Mono < e.nextAt {
		return
	}
	if !n.isSick() {
		_ = r.rn.Campaign()
	}
	if n.fresh() >= cluster.Quorum(n.voters) {
		e.failed++
	}
	// The wait grows with the turn: two candidates that met by chance would meet again after equal waits,
	// and waits between n and 2n-1 steps differ however often either side has doubled its own.
	e.nextAt = n.now.Mono.Add(time.Duration(len(n.peers)+n.turn()) * e.step(n))
}

// fresh counts the voters heard within D, this node included.
func (n *Node) fresh() int {
	c := 0
	for i := range n.peers {
		if n.peers[i].votes && (i == n.self || n.peers[i].det.Fresh(n.now.Mono)) {
			c++
		}
	}
	return c
}

// placeLeader moves leadership to the voter that hears the most nodes, then to a member that serves
// nothing. The better place must last 2 L, unless this node's own disk does not answer.
func (n *Node) placeLeader() {
	e := &n.election
	best, bestRank := -1, 2*n.hears(n.self)+n.idle(n.self)
	if n.pulse.sick || n.leaves(n.id()) {
		bestRank = -1
	}
	for i := range n.peers {
		p := &n.peers[i]
		if i == n.self || !p.votes || n.leaves(p.id) || p.hb == nil || !p.det.Fresh(n.now.Mono) || p.hb.Sick {
			continue
		}
		if rank := 2*n.hears(i) + n.idle(i); rank > bestRank {
			best, bestRank = i, rank
		}
	}
	if next := (n.self + 1) % len(n.peers); best < 0 && n.flawed(WanderingCoordinator) && n.peers[next].votes {
		best = next
	}
	if best < 0 {
		e.better = -1
		return
	}
	if best != e.better {
		e.better, e.betterSince = best, n.now.Mono
	}
	if n.pulse.sick || n.leaves(n.id()) || n.now.Mono.Sub(e.betterSince) >= n.lastingFor() {
		e.betterSince = n.now.Mono
		for k := range n.peers {
			n.peers[k].entrusted = n.peers[k].entrusted || n.mute(best, k)
		}
		n.raft.rn.TransferLeader(uint64(n.peers[best].inc))
	}
}

// hears counts the other voters that a node hears and that hear it: whoever coordinates must reach them. One
// measure holds for all: silence as each of them judges it, a stall of its own deducted.
func (n *Node) hears(i int) int {
	count := 0
	for k := range n.peers {
		if k != i && n.peers[k].votes && (n.inTouch(i, k) || n.mute(i, k) && !n.peers[k].entrusted) {
			count++
		}
	}
	return count
}

// mute tells whether another node hears a third that has never said anything to this one: it may have been away when
// this one was let in, and does not know it before its log has come so far. Whom it does know can tell it, and leads
// for that, once.
func (n *Node) mute(i, k int) bool {
	return i != n.self && k != n.self && n.peers[k].hb == nil && n.hearsOf(i, k)
}

// hearsOf tells whether a node hears another, by its own word.
func (n *Node) hearsOf(i, k int) bool {
	if i == n.self {
		return n.peers[k].run != 0 && n.peers[k].det.Ago(n.now.Mono) < n.silenceOf(k)
	}
	if n.peers[i].hb == nil {
		return false
	}
	for _, h := range n.peers[i].hb.Heard {
		if h.Node == n.peers[k].id {
			return h.Run != 0 && h.Ago < n.silenceOf(k)
		}
	}
	return false
}

// idle is 1 for a node that may run groups and serves none, else 0.
func (n *Node) idle(i int) int {
	if n.spec.Nodes[i].Role == cluster.Witness {
		return 0
	}
	for k := range n.state.Groups {
		if n.state.Groups[k].Owner == n.spec.Nodes[i].ID {
			return 0
		}
	}
	return 1
}
