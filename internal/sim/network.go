package sim

import (
	"math/rand/v2"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

type message = wire.Message

// condition is how one link is at the moment, from all faults that act on it.
type condition struct {
	dead           bool
	loss, dup      int // percent
	late, replay   int // percent
	lateBy, replBy time.Duration
}

// network carries packets. Whether one passes is decided when it is sent: what is under way arrives,
// also after a cut, a reboot of its receiver or the death of its sender.
type network struct {
	links []condition
	cut   [][][]bool // link, from, to
	under slab
	rand  *rand.Rand
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
	for l := range n.links {
		c := &n.links[l]
		w.counts.Packets++
		if c.dead || n.cut[l][from.idx][t] || c.loss > 0 && n.percent(c.loss) {
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

func (w *world) carry(from *machine, to, link int, msg message, extra int64) {
	n := &w.net
	c := &n.links[link]
	d := int64(w.plan.Latency) + extra
	if w.plan.Jitter > 0 {
		d += n.rand.Int64N(int64(w.plan.Jitter))
	}
	if c.late > 0 && n.percent(c.late) {
		d += n.rand.Int64N(int64(c.lateBy) + 1)
	}
	i := n.under.put(packet{msg: msg, run: from.run, from: uint8(from.idx), link: uint8(link)})
	w.push(w.now+d, evPacket, to, 0, 0, i)
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
