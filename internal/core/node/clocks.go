package node

import (
	"math"
	"time"

	"baton/internal/core/cluster"
)

// This file bounds how the clocks of other nodes relate to this one's, for the record of outages only: no lease and
// no promise counts from it. What a peer's clock read when it answered lies between the sending of the question and
// the arrival of the answer; from there on two clocks part by rho at the most (protocol.md, "Clocks").

// mark is one reading of a peer's clock, taken between two instants of this node's.
type mark struct {
	theirs, from, to cluster.Instant
}

// unbounded is the `from` of what only came here, unasked.
const unbounded = cluster.Instant(math.MinInt64)

// marksMax bounds the marks that are kept of each kind. They lie h apart, and none is taken of a peer that is silent:
// those from before its silence are still there when it is back.
const marksMax = 32

// relation is how a peer's clock relates to this node's, for one boot of the peer.
type relation struct {
	boot     cluster.BootID
	answered []mark
	came     []mark // its heartbeats: no later than they arrived
}

// relationsMax: of boots before the last one nobody asks any more.
const relationsMax = 2

// relate returns what is known of the clock of a peer's boot, made if it is new.
func (p *peer) relate(boot cluster.BootID) *relation {
	if r := p.relation(boot); r != nil {
		return r
	}
	if len(p.clocks) == relationsMax {
		p.clocks = append(p.clocks[:0], p.clocks[1:]...)
	}
	p.clocks = append(p.clocks, relation{boot: boot})
	return &p.clocks[len(p.clocks)-1]
}

func (p *peer) relation(boot cluster.BootID) *relation {
	for i := range p.clocks {
		if p.clocks[i].boot == boot {
			return &p.clocks[i]
		}
	}
	return nil
}

// keepMark adds a mark. The newest is always kept, those before it at least apart.
func keepMark(all []mark, m mark, apart time.Duration) []mark {
	n := len(all)
	if n >= 2 && m.to.Sub(all[n-2].to) < apart {
		all[n-1] = m
		return all
	}
	if n == marksMax {
		all = append(all[:0], all[1:]...)
	}
	return append(all, m)
}

// instants returns between which instants of this node's clock a peer's clock read x; false: nothing is known of that
// boot's clock.
func (r *relation) instants(x cluster.Instant) (from, to cluster.Instant, ok bool) {
	from, to = unbounded, cluster.Never
	for _, marks := range [2][]mark{r.answered, r.came} {
		for _, m := range marks {
			d := x.Sub(m.theirs)
			slack := max(d, -d)/1_000_000*cluster.RhoPPM + cluster.RhoPPM
			if m.from != unbounded {
				from = max(from, m.from.Add(d-slack))
			}
			to = min(to, m.to.Add(d+slack))
		}
	}
	if from > to { // one of the clocks stood still meanwhile
		from, to = to, from
	}
	return from, to, from != unbounded && to != cluster.Never
}

// instants returns between which instants of this node's clock that of a node read x, in one of its boots.
func (n *Node) instants(id cluster.NodeID, boot cluster.BootID, x cluster.Instant) (from, to cluster.Instant, ok bool) {
	if id == n.id() {
		return x, x, boot == n.boot
	}
	k := n.index(id)
	if k < 0 {
		return 0, 0, false
	}
	r := n.peers[k].relation(boot)
	if r == nil {
		return 0, 0, false
	}
	return r.instants(x)
}
