package node

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// What no datagram holds (an entry that places many groups, a text, a snapshot) takes the road of all else: it goes
// in pieces, each over every link, and each is sent again until its receiver says that it has it. So it passes
// wherever heartbeats do, and a dead link costs it nothing (protocol.md, "Large messages").

// Figures of that.
const (
	windowFirst = 32 // pieces under way at first: what a takeover of a hundred groups needs
	windowMost  = 64 // all that a Got can tell of; to all peers together: what one interface takes in a few ms at 100 Mbit/s
	windowLeast = 4
	fewPieces   = 8                // so many are repeated as quickly as anything urgent
	streamDepth = 2 * maxInflight  // messages that wait for one peer
	againMost   = time.Second      // between two repeats to a peer that does not answer
	givesUp     = 2 * time.Second  // without an answer, or after 2 L if that is longer
	lateRun     = 10 * time.Second // a set of a lower run counts if nothing came for so long: its sender has lost its disk
	gotAgain    = time.Millisecond // between two answers to pieces that are here already
)

// stream is what goes to one peer in pieces, and what must not overtake that.
type stream struct {
	queue  []wire.Message // in order; the first is under way
	data   []byte         // that one, encoded; nil: it is not begun
	set    uint64         // its number; it only grows within this run
	base   uint64         // the pieces before this one have arrived
	more   uint64         // bit i: so has piece base+1+i
	next   uint64         // the pieces from here on were never sent
	mended uint64         // the base for which a lost piece was sent again ahead of time, plus one
	window uint64
	times  int // they were repeated in vain
	at     cluster.Instant
	since  cluster.Instant // nothing new has arrived
	done   *raftpb.Message // the append that was the last to arrive
	doneAt cluster.Instant
}

// inflow is what comes from one peer in pieces: one message at a time, so that at most MaxMessage is held of each peer.
type inflow struct {
	run   cluster.RunID
	set   uint64
	size  uint64
	base  uint64
	more  uint64
	data  []byte // up to the last piece that came
	full  bool
	gotAt cluster.Instant // when its sender was last told
}

// send sends a message: at once, or behind what is on its way in pieces.
func (n *Node) send(to int, m wire.Message) {
	s := &n.peers[to].out
	r, _ := m.(*wire.Raft)
	follows := r != nil && r.Msg.GetType() == raftpb.MsgApp && len(s.queue) > 0 // it would be refused as one that left something out
	if !follows && !wire.IsLarge(m) {
		n.emit(to, m)
		return
	}
	if s.enqueue(m, n.now.Mono) {
		n.pump(to)
	}
}

func (n *Node) emit(to int, m wire.Message) {
	n.out.Sends = append(n.out.Sends, Send{To: n.peers[to].id, Msg: m})
}

// enqueue puts a message into the stream, unless it is there already. What is left out is sent again by whoever wants it.
func (s *stream) enqueue(m wire.Message, now cluster.Instant) bool {
	r, _ := m.(*wire.Raft)
	begun := 0
	if s.data != nil {
		begun = 1
	}
	for i, q := range s.queue {
		switch q := q.(type) {
		case *wire.Raft:
			switch {
			case r == nil || q.Msg.GetType() != r.Msg.GetType():
			case r.Msg.GetType() != raftpb.MsgApp, sameAppend(q.Msg, r.Msg):
				return false // of snapshots and proposals one is enough
			case i >= begun && i == len(s.queue)-1 && len(q.Msg.Entries)+len(r.Msg.Entries) == 0:
				s.queue[i] = m
				return true
			}
		case *wire.Ask:
			if _, ok := m.(*wire.Ask); ok {
				return false
			}
		case *wire.Founding:
			if _, ok := m.(*wire.Founding); ok {
				return false
			}
		}
	}
	if len(s.queue) >= streamDepth || r != nil && s.done != nil && now.Sub(s.doneAt) < snapshotPatience && sameAppend(s.done, r.Msg) {
		return false
	}
	s.queue = append(s.queue, m)
	return true
}

// sameAppend tells whether two appends bring the same entries.
func sameAppend(a, b *raftpb.Message) bool {
	return a.GetType() == b.GetType() && a.GetTerm() == b.GetTerm() && a.GetTo() == b.GetTo() &&
		a.GetIndex() == b.GetIndex() && a.GetLogTerm() == b.GetLogTerm() && len(a.Entries) == len(b.Entries) && len(a.Entries) > 0
}

// holds tells whether a snapshot is on its way.
func (s *stream) holds(t raftpb.MessageType) bool {
	return slices.ContainsFunc(s.queue, func(m wire.Message) bool {
		r, ok := m.(*wire.Raft)
		return ok && r.Msg.GetType() == t
	})
}

// clear gives up what is on its way. Sets go on being counted.
func (s *stream) clear() { *s = stream{set: s.set} }

// pump sends what the window allows.
func (n *Node) pump(to int) {
	s := &n.peers[to].out
	for len(s.queue) > 0 {
		if s.data == nil && !n.begin(to) {
			continue
		}
		end := min(s.base+n.windowOf(s), wire.Pieces(uint64(len(s.data))))
		for ; s.next < end; s.next++ {
			n.emit(to, wire.PieceOf(s.set, s.data, s.next))
			s.at = n.now.Mono.Add(n.again(s))
		}
		return
	}
}

// begin takes the first message of a stream. It reports false if that has gone already, or can't be sent.
func (n *Node) begin(to int) bool {
	s := &n.peers[to].out
	m := s.queue[0]
	if !wire.IsLarge(m) {
		s.queue = slices.Delete(s.queue, 0, 1)
		n.emit(to, m)
		return false
	}
	b, err := wire.Append(nil, m)
	if err != nil { // the state and its entries are bounded so that this does not come (state.SizeMax)
		n.event("unsendable", n.peers[to].id, "a message to %s can't be sent: %v", n.peers[to].id, err)
		s.queue = slices.Delete(s.queue, 0, 1)
		return false
	}
	s.set++
	s.data, s.base, s.more, s.next, s.mended, s.times = b, 0, 0, 0, 0, 0
	s.window, s.since = windowFirst, n.now.Mono
	return true
}

// windowOf is how many pieces may be under way: what all streams send at once must not hold up heartbeats.
func (n *Node) windowOf(s *stream) uint64 {
	busy := uint64(0)
	for i := range n.peers {
		if n.peers[i].out.data != nil {
			busy++
		}
	}
	return min(s.window, max(windowMost/max(busy, 1), windowLeast))
}

// again is how long the answer to pieces may take.
func (n *Node) again(s *stream) time.Duration {
	if s.next-s.base <= fewPieces && s.times < promptRepeats {
		return n.prompt(s.times)
	}
	return min(max(promptLeast, 4*n.election.rtt)<<min(s.times/promptRepeats, 8), againMost)
}

// tendStreams sends again what was not answered.
func (n *Node) tendStreams() {
	for i := range n.peers {
		s := &n.peers[i].out
		if s.data == nil || n.now.Mono < s.at {
			continue
		}
		if n.now.Mono.Sub(s.since) >= max(givesUp, n.lastingFor()) {
			n.abandon(i)
			continue
		}
		s.window = max(s.window/2, windowLeast)
		left := n.windowOf(s)
		for k := s.base; k < s.next && left > 0; k++ {
			if !s.arrived(k) {
				n.emit(i, wire.PieceOf(s.set, s.data, k))
				left--
			}
		}
		s.times++
		s.at = n.now.Mono.Add(n.again(s))
	}
}

// arrived tells whether a piece from base on has arrived.
func (s *stream) arrived(k uint64) bool { return k > s.base && s.more>>(k-s.base-1)&1 != 0 }

// abandon gives up what is on its way to a peer that does not answer.
func (n *Node) abandon(to int) {
	p := &n.peers[to]
	if p.out.holds(raftpb.MsgSnap) {
		p.snapshot = n.now.Mono
	}
	p.out.clear()
}

// gotIn takes the word of what has arrived.
func (n *Node) gotIn(i int, g *wire.Got) {
	s := &n.peers[i].out
	if g.Run != n.run || g.Set != s.set || s.data == nil || g.Upto < s.base || g.Upto > s.next {
		return
	}
	if g.Upto == s.base && g.More&^s.more == 0 {
		return
	}
	if g.Upto > s.base {
		s.base, s.more = g.Upto, g.More
	} else {
		s.more |= g.More
	}
	s.times, s.since = 0, n.now.Mono
	s.window = min(s.window+1, windowMost)
	s.at = n.now.Mono.Add(n.again(s))
	if s.base == wire.Pieces(uint64(len(s.data))) {
		if r, ok := s.queue[0].(*wire.Raft); ok && r.Msg.GetType() == raftpb.MsgApp {
			s.done, s.doneAt = r.Msg, n.now.Mono
		}
		s.data, s.queue = nil, slices.Delete(s.queue, 0, 1)
	} else if bits.OnesCount64(s.more) >= 3 && s.mended != s.base+1 { // three later ones have arrived: it is lost
		s.mended = s.base + 1
		n.emit(i, wire.PieceOf(s.set, s.data, s.base))
	}
	n.pump(i)
}

// pieceIn takes a piece, and the message that it completes.
func (n *Node) pieceIn(i int, in *Packet, m *wire.Piece) {
	f := &n.peers[i].in
	if in.Run != f.run || m.Set > f.set {
		if in.Run < f.run && n.now.Mono.Sub(f.gotAt) < lateRun {
			return
		}
		*f = inflow{run: in.Run, set: m.Set, size: m.Size}
	}
	k := m.At / wire.PieceSize
	if m.Set < f.set || m.Size != f.size || k > f.base+windowMost {
		return
	}
	if f.full || k < f.base || k > f.base && f.more>>(k-f.base-1)&1 != 0 {
		if n.now.Mono.Sub(f.gotAt) >= gotAgain { // each comes over every link, and comes again if the answer was lost
			n.tellGot(i)
		}
		return
	}
	if need := int(m.At) + len(m.Data); need > len(f.data) {
		f.data = slices.Grow(f.data, need-len(f.data))[:need]
	}
	copy(f.data[m.At:], m.Data)
	f.note(k)
	if f.base < wire.Pieces(f.size) {
		n.tellGot(i)
		return
	}
	data := f.data
	f.full, f.data = true, nil
	n.tellGot(i)
	msg, err := wire.Decode(data)
	if err != nil {
		n.once("piece "+err.Error(), "unreadable", n.peers[i].id, "a large message of %s was refused: %v", n.peers[i].id, err)
		return
	}
	switch msg.(type) {
	case *wire.Raft, *wire.Ask, *wire.Founding:
		n.packet(&Packet{From: in.From, Run: in.Run, Link: in.Link, Msg: msg})
	}
}

// note keeps that piece k, at base or beyond, has come.
func (f *inflow) note(k uint64) {
	if k > f.base {
		f.more |= 1 << (k - f.base - 1)
		return
	}
	run := uint64(bits.TrailingZeros64(^f.more)) // those that follow it at once are here already
	f.base += 1 + run
	if run < 64 {
		f.more = f.more >> run >> 1
	} else {
		f.more = 0
	}
}

func (n *Node) tellGot(i int) {
	f := &n.peers[i].in
	f.gotAt = n.now.Mono
	n.emit(i, &wire.Got{Run: f.run, Set: f.set, Upto: f.base, More: f.more})
}

// copying tells how far a copy of the state is on its way to a peer; size 0: none is.
func (s *stream) copying() (done, size uint64) {
	if s.data == nil {
		return 0, 0
	}
	if r, ok := s.queue[0].(*wire.Raft); !ok || r.Msg.GetType() != raftpb.MsgSnap {
		return 0, 0
	}
	size = uint64(len(s.data))
	return min(s.base*wire.PieceSize, size), size
}

// receiving tells how far something large is that comes from a peer.
func (n *Node) receiving() string {
	for i := range n.peers {
		f := &n.peers[i].in
		if f.size > 0 && !f.full && n.now.Mono.Sub(f.gotAt) < givesUp {
			return progress(min(f.base*wire.PieceSize, f.size), f.size)
		}
	}
	return ""
}

// progress says how far a copy is; empty: there is none.
func progress(done, size uint64) string {
	if size == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f of %.1f MiB", float64(done)/(1<<20), float64(size)/(1<<20))
}
