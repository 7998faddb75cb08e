package sim

import (
	"math/rand/v2"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

type message = wire.Message

const (
	// underWayMax bounds the packets under way. Whatever a cluster goes through, more is a storm of its own making.
	underWayMax = 200_000
	// headers is what envelope, UDP and IP add to a message.
	headers = wire.MaxEnvelope + 28
	// tcpHeaders is what TLS, TCP and IP add; tcpPacket is the size of a full packet, which all but the last one of a
	// large message are.
	tcpHeaders, tcpPacket = 100, 1500
	// tcpGivesUp is how long TCP tries a way that has died before its sender looks for another.
	tcpGivesUp = 3 * time.Second
	// tcpAgain is TCP's wait before it sends again what was lost, at the least; it doubles, so often at the most.
	tcpAgain, tcpTries = 200 * time.Millisecond, 4
	// bloatPackets is how many packets fill the queue of a link that bloats.
	bloatPackets = 64
)

// condition is how one link is at the moment, from all faults that act on it.
type condition struct {
	dead           bool
	loss, dup      int // percent
	late, replay   int // percent
	lateBy, replBy time.Duration
	mtu            int           // bytes of the largest packet that passes; 0: any that is sent
	bloat          time.Duration // the longest queue; 0: none
}

// network carries packets. Whether one passes is decided when it is sent: what is under way arrives,
// also after a cut, a reboot of its receiver or the death of its sender.
type network struct {
	links  []condition
	cut    [][][]bool // link, from, to
	cutTCP [][]bool   // from, to
	skew   [][]int64  // from, to: so much slower
	narrow bool       // some link drops packets by their size
	busy   []int64    // of each link: when what queues there is through
	tcp    [][]stream // from, to
	under  slab
	rand   *rand.Rand
	buffer []byte // for encoding
}

// stream is the connection over which one node sends another what no datagram holds.
type stream struct {
	open bool
	link int   // over which it goes
	dead int64 // since when its way is found dead; 0: it is not
	last int64 // when what was sent last arrives: nothing overtakes it
}

func newNetwork(links, nodes int, r *rand.Rand) network {
	n := network{links: make([]condition, links), busy: make([]int64, links), rand: r}
	for range links {
		n.cut = append(n.cut, square[bool](nodes))
	}
	n.cutTCP, n.skew, n.tcp = square[bool](nodes), square[int64](nodes), square[stream](nodes)
	return n
}

func square[T any](n int) [][]T {
	all := make([][]T, n)
	for i := range all {
		all[i] = make([]T, n)
	}
	return all
}

// heal makes the network whole, for the faults that act to be applied anew.
func (n *network) heal() {
	n.narrow = false
	for l := range n.links {
		n.links[l] = condition{}
		for i := range n.cut[l] {
			clear(n.cut[l][i])
		}
	}
	for i := range n.cutTCP {
		clear(n.cutTCP[i])
		clear(n.skew[i])
	}
}

func (w *world) send(from *machine, to cluster.NodeID, msg message) {
	t := w.index(to)
	if t < 0 || t == from.idx {
		return
	}
	if w.plan.Codec {
		msg = w.recode(msg)
	}
	n := &w.net
	size := 0
	if n.narrow || mayBeLarge(msg) {
		size = n.size(msg)
	}
	if _, ok := msg.(*wire.Heartbeat); ok && size > wire.MaxDatagram {
		w.fail("datagram", "%s sends a heartbeat of %d bytes: no datagram holds it", from.id, size)
	}
	if size > wire.MaxDatagram {
		w.sendLarge(from, t, msg, size)
		return
	}
	for l := range n.links {
		c := &n.links[l]
		w.counts.Packets++
		if c.dead || n.cut[l][from.idx][t] || c.loss > 0 && n.percent(c.loss) || c.mtu > 0 && size+headers > c.mtu {
			w.counts.Lost++
			continue
		}
		w.carry(from, t, l, msg, 0)
		if c.dup > 0 && n.percent(c.dup) {
			w.carry(from, t, l, msg, 0)
		}
		if c.replay > 0 && n.percent(c.replay) {
			w.carry(from, t, l, msg, 1+n.rand.Int64N(int64(c.replBy)))
		}
	}
}

// mayBeLarge tells, without encoding it, whether a message may be too large for a datagram.
func mayBeLarge(msg message) bool {
	switch v := msg.(type) {
	case *wire.Heartbeat:
		return len(v.Groups)+len(v.Released) > 20 // which it must not be: it is measured
	case *wire.Raft:
		bytes := len(v.Msg.GetSnapshot().GetData())
		for _, e := range v.Msg.GetEntries() {
			bytes += len(e.GetData()) + 16
		}
		return bytes > wire.MaxDatagram/2
	case *wire.Founding, *wire.Ask:
		return true
	}
	return false
}

// size returns how many bytes a message has on the wire. What can't be encoded is not sent by any agent.
func (n *network) size(msg message) int {
	b, err := wire.Append(n.buffer[:0], msg)
	cluster.Assert(err == nil, "a message must be encodable: %v", err)
	n.buffer = b
	return len(b)
}

// sendLarge sends what no datagram holds over TCP: once, over one link, in order. The sender keeps its connection
// until that has been dead for a while, then takes the first link in the file's order that works. What can't be
// sent is not kept.
func (w *world) sendLarge(from *machine, to int, msg message, size int) {
	n := &w.net
	s := &n.tcp[from.idx][to]
	w.counts.Packets++
	w.counts.Large++
	delay := int64(0)
	switch {
	case s.open && n.passes(s.link, from.idx, to, size):
		s.dead = 0
	case s.open && s.dead == 0:
		s.dead = w.now
		w.counts.Lost++
		return
	case s.open && time.Duration(w.now-s.dead) < tcpGivesUp:
		w.counts.Lost++
		return
	default:
		*s = stream{last: s.last}
		for s.link = 0; s.link < len(n.links) && !n.passes(s.link, from.idx, to, size); s.link++ {
		}
		if s.link == len(n.links) {
			w.counts.Lost++
			return
		}
		s.open = true
		delay = 4 * int64(w.plan.Latency) // the handshakes of TCP and TLS
	}
	c := &n.links[s.link]
	for wait, i := int64(tcpAgain), 0; i < tcpTries && c.loss > 0 && n.percent(c.loss); i++ {
		delay += wait
		wait *= 2
	}
	delay += n.delay(w, s.link, from.idx, to)
	s.last = max(s.last+1, w.now+delay)
	w.putUnderWay(packet{msg: msg, run: from.run, from: uint8(from.idx), link: wire.LinkTCP}, to, s.last)
}

// passes tells whether TCP gets a message of a size through over a link. It needs both directions, and a path that
// drops its full packets silently lets none of the message through.
func (n *network) passes(l, from, to, size int) bool {
	c := &n.links[l]
	return !c.dead && !n.cut[l][from][to] && !n.cut[l][to][from] && !n.cutTCP[from][to] &&
		(c.mtu == 0 || min(size+tcpHeaders, tcpPacket) <= c.mtu)
}

func (w *world) carry(from *machine, to, link int, msg message, extra int64) {
	n := &w.net
	c := &n.links[link]
	d := n.delay(w, link, from.idx, to) + extra
	if c.bloat > 0 {
		// One packet takes its part of the queue's length; whoever finds the queue full is lost.
		through := max(w.now, n.busy[link]) + int64(c.bloat)/bloatPackets
		if through-w.now > int64(c.bloat) {
			w.counts.Lost++
			return
		}
		n.busy[link] = through
		d += through - w.now
	}
	w.putUnderWay(packet{msg: msg, run: from.run, from: uint8(from.idx), link: uint8(link)}, to, w.now+d)
}

// delay draws how long a packet is under way, but for queues.
func (n *network) delay(w *world, link, from, to int) int64 {
	c := &n.links[link]
	d := int64(w.plan.Latency) + n.skew[from][to]
	if w.plan.Jitter > 0 {
		d += n.rand.Int64N(int64(w.plan.Jitter))
	}
	if c.late > 0 && n.percent(c.late) {
		d += n.rand.Int64N(int64(c.lateBy) + 1)
	}
	return d
}

func (w *world) putUnderWay(p packet, to int, due int64) {
	i := w.net.under.put(p)
	if len(w.net.under.all) > underWayMax {
		w.fail("storm", "%d packets are under way at once", len(w.net.under.all))
	}
	w.push(due, evPacket, to, 0, 0, i)
}

func (n *network) percent(p int) bool { return int(n.rand.Uint32N(100)) < p }

// recode proves that what travels between nodes says all that the core needs.
func (w *world) recode(msg message) message {
	b, err := wire.Append(nil, msg)
	cluster.Assert(err == nil, "a message must be encodable: %v", err)
	m, err := wire.Decode(b)
	cluster.Assert(err == nil, "a message must be decodable: %v", err)
	return m
}
