// Package detect turns the arrivals of heartbeats into how long a peer has been silent, per link and
// over all links, and notices its own stalls. Silence is evidence, never proof: only the lease protocol
// decides what may follow from it.
package detect

import (
	"time"

	"baton/internal/core/cluster"
)

// Peer is what one node has heard of another.
type Peer struct {
	links []cluster.Instant // per link: the last arrival; 0: none
	last  cluster.Instant
	heard bool
	since cluster.Instant // silence counts from here at the earliest: the start
	slept time.Duration   // the longest stall of this node itself since the peer was heard: it counts as no silence
	d     time.Duration   // 0.9 of the lease length that the last heartbeat named
	// was is the D before that length shrank. It counts for what others report until wasUntil: till then
	// they may not have heard the shorter one.
	was      time.Duration
	wasUntil cluster.Instant
}

// NewPeer returns a peer of which nothing was heard yet; its silence counts from now.
func NewPeer(links int, now cluster.Instant, timing cluster.Timing) *Peer {
	return &Peer{links: make([]cluster.Instant, links), since: now, d: timing.D}
}

// Arrived notes a heartbeat on a link that named lease length l.
func (p *Peer) Arrived(link int, now cluster.Instant, l time.Duration) {
	if link >= 0 && link < len(p.links) {
		p.links[link] = now
	}
	p.last, p.heard, p.slept = now, true, 0
	p.Named(now, l)
}

// Named notes the lease length that a heartbeat named; 0: none.
func (p *Peer) Named(now cluster.Instant, l time.Duration) {
	d := l * 9 / 10
	if l <= 0 || d == p.d {
		return
	}
	if d < p.d && (now >= p.wasUntil || p.d >= p.was) {
		p.was, p.wasUntil = p.d, now.Add(p.d*2/9)
	}
	p.d = d
}

// Reported returns the silence at which a report of another node tells that the peer is silent. Reports count
// for 2 h of the length that their sender names. So long after the peer has named a shorter length, one may
// be from before, when the peer was heard less often.
func (p *Peer) Reported(now cluster.Instant) time.Duration {
	if now < p.wasUntil {
		return max(p.d, p.was)
	}
	return p.d
}

// Stalled notes that this node itself stood still for so long. What arrived meanwhile waits in its sockets and is
// heard next, so the stall is deducted from the silence, and restarts nothing. Of several stalls in one silence
// only the longest is: a node that stalls again and again must not hide for ever that a peer is dead.
func (p *Peer) Stalled(d time.Duration) { p.slept = max(p.slept, d) }

// Relink carries what arrived on each link over to another list of links: from names, for each of them, its
// former place, or -1.
func (p *Peer) Relink(from []int) {
	links := make([]cluster.Instant, len(from))
	for i, k := range from {
		if k >= 0 {
			links[i] = p.links[k]
		}
	}
	p.links = links
}

// Heard tells whether anything was heard of the peer in this run.
func (p *Peer) Heard() bool { return p.heard }

// Ago returns how long ago the peer was heard on any link, as far as this node can vouch for it.
func (p *Peer) Ago(now cluster.Instant) time.Duration {
	return max(0, now.Sub(max(p.last, p.since))-p.slept)
}

// Fresh tells whether the peer was heard within its D, whatever this node did meanwhile.
func (p *Peer) Fresh(now cluster.Instant) bool { return p.heard && now.Sub(p.last) < p.d }

// Silent tells whether the peer has been silent for its D, a stall of this node deducted.
func (p *Peer) Silent(now cluster.Instant) bool { return p.Ago(now) >= p.d }

// SilentAt returns when the peer will have been silent for its D if nothing more is heard.
func (p *Peer) SilentAt() cluster.Instant { return max(p.last, p.since).Add(p.d + p.slept) }

// Link returns when the peer was last heard on a link; 0: never.
func (p *Peer) Link(i int) cluster.Instant { return p.links[i] }

// OnLink tells how the peer is heard on one link: just now, which is within 0.4 of the lease length that it names, or
// not for D. Between these, neither can be said: where a network dies, whose last packet came a little earlier must not
// look cut off while another does not yet. As for Ago, a stall of this node itself is no silence.
func (p *Peer) OnLink(i int, now cluster.Instant) (heard, lost bool) {
	ago := max(0, now.Sub(max(p.links[i], p.since))-p.slept)
	return p.links[i] != 0 && ago < p.d*4/9, ago >= p.d
}

// D returns the silence after which the peer is suspected.
func (p *Peer) D() time.Duration { return p.d }
