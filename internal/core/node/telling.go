package node

import (
	"slices"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// This file is how nodes tell each other of their groups, in turns: a heartbeat is one datagram, whatever the number
// of groups (protocol.md, "Quorum leases", 7).

const (
	// burstMax is how many heartbeats go at once, so that each change is told at once; of what is left the next tell.
	// Reports without reasons of 500 groups take 7 of them, and 16 where 7 nodes have names of full length.
	burstMax = 16
	// refreshMax is how many reports that all have acked a heartbeat repeats.
	refreshMax = 16
	// partsKept is of how many heartbeats it is remembered what they told.
	partsKept = 128
)

// telling is what this node tells of its groups.
type telling struct {
	items   []item // in the order of the specification's groups
	changes uint64 // counted over this run
	unsent  bool   // some item was not sent since it changed
	parts   [partsKept]part
	again   int // the place where the search for what somebody lacks goes on
	gone    int // the place where the search for releases goes on
	turn    int // the place where the refresh goes on
	scratch []byte
}

// item is what this node tells of one group.
type item struct {
	key      wire.GroupKey
	report   wire.GroupReport
	reports  bool            // there is a report
	released []cluster.Epoch // until the log has them
	version  uint64          // the change that made it so; 0: there was nothing to tell yet
	freed    uint64          // the newest change that released something
	sent     uint64          // the newest version that was sent
	seq      uint64          // the newest heartbeat that it is in
}

// part is what one heartbeat told.
type part struct {
	seq   uint64
	items []toldItem
}

type toldItem struct {
	place   int
	version uint64
}

// hearing is what a peer is known to have heard, and what it has told, both by place among the specification's groups.
type hearing struct {
	has     []uint64 // the version of each item that it has acked
	missing int      // how many items it has not acked as they are
	told    []told
	others  []told          // of groups that this node does not know yet
	whole   cluster.Instant // when it sent the newest heartbeat that left out nothing that this node had not acked, by its clock
}

// told is the last word of a peer on a group.
type told struct {
	seq    uint64          // of the heartbeat that brought it; 0: nothing was told
	sent   cluster.Instant // when that was sent, by the peer's clock
	report wire.GroupReport
}

// retell begins anew with another list of groups: all of it is told again, and what was heard finds its new place.
func (n *Node) retell() {
	t := &n.telling
	*t = telling{items: make([]item, len(n.groups)), changes: t.changes, scratch: t.scratch}
	n.places = places{byID: make(map[cluster.GroupID]int, len(n.groups)), byKey: make(map[wire.GroupKey]int, len(n.groups))}
	for i := range n.groups {
		id := n.groups[i].spec.ID
		t.items[i].key = wire.KeyOf(id)
		n.places.byID[id], n.places.byKey[t.items[i].key] = i, i
	}
	for i := range n.peers {
		p := &n.peers[i]
		heard := append(slices.Clone(p.told), p.others...)
		p.hearing = hearing{has: make([]uint64, len(n.groups)), told: make([]told, len(n.groups)), whole: p.whole}
		for _, h := range heard {
			if h.seq == 0 {
				continue
			}
			if k, ok := n.places.byKey[h.report.Group]; !ok || n.groups[k].spec.Prefers(p.id) >= 0 {
				p.hear(h, n.places.byKey)
			}
		}
	}
}

// forget drops what a peer has acked and told: it is another run, or another incarnation.
func (h *hearing) forget(items []item) {
	clear(h.has)
	clear(h.told)
	h.others, h.missing, h.whole = nil, 0, 0
	for i := range items {
		if items[i].version != 0 {
			h.missing++
		}
	}
}

// hear keeps a peer's word on a group, unless a later one is known. It returns the group's place and whether it is
// news; -1: this node does not know the group yet.
func (p *hearing) hear(h told, places map[wire.GroupKey]int) (place int, news bool) {
	place, ok := places[h.report.Group]
	if !ok {
		k := slices.IndexFunc(p.others, func(o told) bool { return o.report.Group == h.report.Group })
		switch {
		case k >= 0 && p.others[k].seq < h.seq:
			p.others[k] = h
		case k < 0 && len(p.others) < othersMax:
			p.others = append(p.others, h)
		}
		return -1, false
	}
	old := &p.told[place]
	if old.seq >= h.seq {
		return place, false
	}
	news = old.seq == 0 || old.report != h.report
	*old = h
	return place, news
}

// othersMax bounds the reports kept of groups that this node does not know yet.
const othersMax = 1024

// tell takes in how a group is here, and which of its tenures are released and not in the log yet. It reports whether
// that is news.
func (n *Node) tell(place int, report wire.GroupReport, reports bool, released []cluster.Epoch) bool {
	t := &n.telling
	x := &t.items[place]
	if reports {
		report.Group = x.key
	}
	if x.reports == reports && x.report == report && slices.Equal(x.released, released) {
		return false
	}
	t.changes++
	for i := range n.peers {
		if p := &n.peers[i]; p.has[place] == x.version {
			p.missing++
		}
	}
	if len(released) > 0 && !slices.Equal(x.released, released) {
		x.freed = t.changes
	}
	x.report, x.reports, x.released, x.version = report, reports, released, t.changes
	t.unsent = true
	return true
}

// isHeard tells whether a peer has been heard in this run, and has not fallen silent since.
func (p *peer) isHeard() bool { return p.hb != nil && !p.silentTold }

// lacks tells whether a peer that is heard has not acked an item as it is.
func (p *peer) lacks(place int, version uint64) bool {
	return p.has[place] < version && p.isHeard()
}

// hasHeard takes a peer's ack of a heartbeat for what that told.
func (n *Node) hasHeard(p *peer, seq uint64) {
	t := &n.telling
	x := &t.parts[seq%partsKept]
	if x.seq != seq {
		return
	}
	for _, k := range x.items {
		if p.has[k.place] >= k.version {
			continue
		}
		p.has[k.place] = k.version
		if t.items[k.place].version == k.version {
			p.missing--
		}
	}
}

// tellGroups fills a heartbeat with what it tells of groups: what has changed first, then what one of the peers that
// it goes to lacks, then releases, then the others in turn. Of the first two, releases come first: another node waits
// for them to serve.
func (n *Node) tellGroups(hb *wire.Heartbeat, to []int) {
	t := &n.telling
	room := 0
	room, t.scratch = wire.Room(t.scratch, hb)
	x := &t.parts[hb.Seq%partsKept]
	*x = part{seq: hb.Seq, items: x.items[:0]}
	f := filling{t: t, hb: hb, part: x, room: room}
	if t.unsent {
		t.unsent = !f.putAll(func(x *item) bool { return x.sent < x.freed }) || !f.putAll(func(x *item) bool { return x.sent < x.version })
	}
	lacking := func(k int) bool {
		return slices.ContainsFunc(to, func(i int) bool { return n.peers[i].lacks(k, t.items[k].version) })
	}
	if slices.ContainsFunc(to, func(i int) bool { return n.peers[i].missing > 0 }) {
		t.gone = f.walk(t.gone, len(t.items), func(k int) bool { return len(t.items[k].released) > 0 && lacking(k) })
		t.again = f.walk(t.again, len(t.items), lacking)
	}
	n.nameKnowing(hb, to, !t.unsent && !f.full)
	t.gone = f.walk(t.gone, len(t.items), func(k int) bool { return len(t.items[k].released) > 0 })
	t.turn = f.walk(t.turn, refreshMax, func(k int) bool { return t.items[k].version != 0 })
	n.tellAccounts(hb, f.room)
}

// nameKnowing names those who know by this heartbeat all that there is to tell of groups: they have acked it, or (all)
// find here what they have not. To whom is not heard, what he lacks is not told.
func (n *Node) nameKnowing(hb *wire.Heartbeat, to []int, all bool) {
	for _, i := range to {
		p := &n.peers[i]
		if p.missing > 0 && !(all && p.isHeard()) {
			continue
		}
		for k := range hb.Heard {
			if hb.Heard[k].Node == p.id {
				hb.Whole |= 1 << k
			}
		}
	}
}

// filling is a heartbeat that is being filled.
type filling struct {
	t    *telling
	hb   *wire.Heartbeat
	part *part
	room int
	full bool // something had no room
}

// putAll puts in all items that are wanted; false: not all had room.
func (f *filling) putAll(wanted func(x *item) bool) bool {
	for k := range f.t.items {
		if wanted(&f.t.items[k]) && !f.put(k) {
			return false
		}
	}
	return true
}

// walk puts in, from a place on and around, items that are wanted, at most so many, as long as there is room. It
// returns where the next walk begins.
func (f *filling) walk(from, most int, wanted func(place int) bool) int {
	count := len(f.t.items)
	for k := range count {
		place := (from + k) % count
		if most == 0 {
			return place
		}
		if !wanted(place) {
			continue
		}
		if !f.put(place) {
			return place
		}
		most--
	}
	return from
}

// put puts an item in; false: there is no room for it. Where it is the first it is shortened to fit: its reason, and
// its latest releases, which have their turn once the first are in the log.
func (f *filling) put(place int) bool {
	x := &f.t.items[place]
	if x.seq == f.hb.Seq {
		return true
	}
	report, released := x.report, x.released
	size := func() int {
		s := 0
		if x.reports {
			s = report.Size()
		}
		for _, e := range released {
			s += (&wire.Tenure{Epoch: e}).Size()
		}
		return s
	}
	if over := size() - f.room; over > 0 && len(f.part.items) == 0 {
		report.Reason = shorten(report.Reason, max(0, len(report.Reason)-over))
		for size() > f.room && len(released) > 0 {
			released = released[:len(released)-1]
		}
	}
	if size() > f.room {
		f.full = true
		return false
	}
	f.room -= size()
	if x.reports {
		f.hb.Groups = append(f.hb.Groups, report)
	}
	for _, e := range released {
		f.hb.Released = append(f.hb.Released, wire.Tenure{Group: x.key, Epoch: e})
	}
	x.sent, x.seq = x.version, f.hb.Seq
	f.part.items = append(f.part.items, toldItem{place, x.version})
	return true
}

// lacksPart tells whether a heartbeat tells of a group what this node has no later word on.
func (p *hearing) lacksPart(hb *wire.Heartbeat, places map[wire.GroupKey]int) bool {
	return slices.ContainsFunc(hb.Groups, func(r wire.GroupReport) bool {
		place, ok := places[r.Group]
		return ok && p.told[place].seq < hb.Seq
	})
}

// toldBy takes what a heartbeat tells of groups. It reports whether any of it is news.
func (n *Node) toldBy(p *peer, hb *wire.Heartbeat) bool {
	news := false
	for _, r := range hb.Groups {
		former := told{}
		if k, ok := n.places.byKey[r.Group]; ok {
			former = p.told[k]
		}
		if place, fresh := p.hear(told{hb.Seq, hb.Sent, r}, n.places.byKey); fresh && place >= 0 {
			n.due(place)
			n.servedLast(p, place, &former, hb.Boot)
			news = true
		}
	}
	for _, r := range hb.Released {
		place, ok := n.places.byKey[r.Group]
		if !ok || !n.groups[place].hearRelease(r.Epoch, p.id) {
			continue
		}
		n.due(place)
		news = true
		if n.state != nil && n.state.Groups[place].Epoch == r.Epoch {
			n.fitAnew(p.id) // nobody told it to: its lease has ended for a moment that no heartbeat told of
		}
	}
	return news
}
