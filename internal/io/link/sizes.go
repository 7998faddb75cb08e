package link

import (
	"cmp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// Heartbeats may pass where larger packets do not: a tunnel, a wrong MTU, a firewall that drops fragments and the
// messages that tell of it. Then all looks well until an entry that moves many groups is due. So each node tries both
// sizes on each link, to each peer, all the time.
const (
	sizesEvery = 5 * time.Second
	sizesAgain = 500 * time.Millisecond // while one is missing
	sizesLate  = 3                      // full ones in a row that were not answered, though small ones were: they are lost
)

// sizing is the trial of one peer on one link. Links.sending guards it.
type sizing struct {
	n           uint64 // the newest pair
	small, full bool   // answered, of that pair
	late        int    // pairs in a row of which the small one alone was answered
}

// trySizes sends both sizes to every peer: ever again, and sooner where a full one was not answered.
func (l *Links) trySizes() {
	for k := 0; wait(l.ctx, sizesAgain); k++ {
		l.sending.Lock()
		for _, u := range l.udp {
			if u == nil {
				continue
			}
			for id, p := range u.peers {
				s := u.sizes[id]
				if s == nil {
					s = &sizing{}
					u.sizes[id] = s
				}
				if s.judge(); s.late == 0 && k%int(sizesEvery/sizesAgain) != 0 {
					continue
				}
				s.n++
				s.small, s.full = false, false
				l.sendProbe(u, p, id, &wire.Probe{N: s.n})
				l.sendProbe(u, p, id, wire.FullProbe(s.n, len(l.self)))
			}
		}
		l.sending.Unlock()
	}
}

// judge counts what the last pair has come to. Where not even the small one was answered the path is dead, or the peer
// is: that says nothing of sizes.
func (s *sizing) judge() {
	switch {
	case s.full:
		s.late = 0
	case s.small:
		s.late = min(s.late+1, sizesLate)
		s.small = false // each pair counts once
	}
}

// sendProbe sends a probe over one link. Links.sending is held.
func (l *Links) sendProbe(u *udpLink, p *udpPeer, to cluster.NodeID, m *wire.Probe) {
	b, err := wire.Append(l.message[:0], m)
	if err != nil {
		return
	}
	l.packet = l.config.Sealer.Seal(l.packet[:0], u.tag, to, b)
	u.send(p, l.packet)
}

// probed answers a probe, or notes the answer to one. It reports whether the message was one.
func (l *Links) probed(index int, from cluster.NodeID, m wire.Message) bool {
	probe, ok := m.(*wire.Probe)
	if !ok {
		return false
	}
	l.sending.Lock()
	defer l.sending.Unlock()
	if index < 0 || index >= len(l.udp) || l.udp[index] == nil {
		return true
	}
	u := l.udp[index]
	p := u.peers[from]
	switch s := u.sizes[from]; {
	case p == nil:
	case !probe.Answer:
		l.sendProbe(u, p, from, &wire.Probe{N: probe.N, Answer: true, Full: probe.Full})
	case s != nil && s.n == probe.N:
		if probe.Full {
			s.full, s.late = true, 0
		} else {
			s.small = true
		}
	}
	return true
}

// Narrow is a path on which small packets arrive and full ones do not.
type Narrow struct {
	Link string
	Peer cluster.NodeID
}

// Narrow tells on which paths from this node full packets are lost, in the order of links, then of names.
func (l *Links) Narrow() []Narrow {
	l.sending.Lock()
	defer l.sending.Unlock()
	var all []Narrow
	for _, u := range l.udp {
		if u == nil {
			continue
		}
		at := len(all)
		for id := range u.peers {
			if s := u.sizes[id]; s != nil && s.late >= sizesLate {
				all = append(all, Narrow{u.name, id})
			}
		}
		slices.SortFunc(all[at:], func(a, b Narrow) int { return cmp.Compare(a.Peer, b.Peer) })
	}
	return all
}

// Tried is what became of both sizes on the way to a peer.
type Tried struct {
	Narrow
	Small, Full bool // one of this size was answered
}

// Try sends both sizes on every link to every peer, so many times, and waits for the answers to each. It is for who
// opens the links for that alone (Config.Quiet): it receives meanwhile.
func (l *Links) Try(times int, patience time.Duration) []Tried {
	var all []Tried
	for k := range times {
		l.sending.Lock()
		for _, u := range l.udp {
			if u == nil {
				continue
			}
			for id, p := range u.peers {
				u.sizes[id] = &sizing{n: uint64(k) + 1}
				l.sendProbe(u, p, id, &wire.Probe{N: uint64(k) + 1})
				l.sendProbe(u, p, id, wire.FullProbe(uint64(k)+1, len(l.self)))
			}
		}
		l.sending.Unlock()
		for end := time.Now().Add(patience); time.Now().Before(end); l.Receive() {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(l.epoll), Events: unix.POLLIN}}, int(time.Until(end).Milliseconds())+1)
		}
		all = l.tried(all)
	}
	slices.SortFunc(all, func(a, b Tried) int { return cmp.Or(cmp.Compare(a.Link, b.Link), cmp.Compare(a.Peer, b.Peer)) })
	return all
}

// tried adds what the last pairs have come to.
func (l *Links) tried(all []Tried) []Tried {
	l.sending.Lock()
	defer l.sending.Unlock()
	for _, u := range l.udp {
		if u == nil {
			continue
		}
		for id, s := range u.sizes {
			at := Narrow{u.name, id}
			i := slices.IndexFunc(all, func(t Tried) bool { return t.Narrow == at })
			if i < 0 {
				i, all = len(all), append(all, Tried{Narrow: at})
			}
			all[i].Small, all[i].Full = all[i].Small || s.small, all[i].Full || s.full
		}
	}
	return all
}
