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
	headers = wire.MaxEnvelope + wire.MaxHeaders
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
	skew   [][]int64  // from, to: so much slower
	least  [][]int    // from, to: bytes of the largest packet that passes on any link; 0: any that is sent
	narrow bool       // some link drops packets by their size
	busy   []int64    // of each link: when what queues there is through
	under  slab
	rand   *rand.Rand
	buffer []byte // for encoding
}

func newNetwork(links, nodes int, r *rand.Rand) network {
	n := network{links: make([]condition, links), busy: make([]int64, links), rand: r}
	for range links {
		n.cut = append(n.cut, square[bool](nodes))
	}
	n.skew, n.least = square[int64](nodes), square[int](nodes)
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
	for i := range n.skew {
		clear(n.skew[i])
		clear(n.least[i])
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
	if hb, ok := msg.(*wire.Heartbeat); n.narrow || ok && len(hb.Groups)+len(hb.Released) > 20 {
		size = n.size(msg)
	}
	if size > wire.MaxDatagram || wire.IsLarge(msg) {
		w.fail("datagram", "%s sends %T of %d bytes: no datagram holds it", from.id, msg, n.size(msg))
	}
	if _, ok := msg.(*wire.Piece); ok {
		w.counts.Pieces++
	}
	for l := range n.links {
		c := &n.links[l]
		w.counts.Packets++
		if c.dead || n.cut[l][from.idx][t] || c.loss > 0 && n.percent(c.loss) || tooLarge(size, c.mtu) || tooLarge(size, n.least[from.idx][t]) {
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

// tooLarge tells whether a path that lets packets of up to most bytes through drops a message; 0: it drops none.
func tooLarge(size, most int) bool { return most > 0 && size+headers > most }

// size returns how many bytes a message has on the wire. What can't be encoded is not sent by any agent.
func (n *network) size(msg message) int {
	b, err := wire.Append(n.buffer[:0], msg)
	cluster.Assert(err == nil, "a message must be encodable: %v", err)
	n.buffer = b
	return len(b)
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
