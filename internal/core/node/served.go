package node

import (
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/state"
	"baton/internal/core/wire"
)

// This file puts outages on record. Each node tells of its own services (account.go); how its clock relates to this
// one's is known within bounds (clocks.go). Every node keeps what it has heard, since each may come to coordinate; it
// is evidence for people, and nothing but the record depends on it.

// teller is what was heard of one placement of a group from its node, in one boot.
type teller struct {
	node  cluster.NodeID
	boot  cluster.BootID
	epoch cluster.Epoch
	// When it first and last said that it serves, by its own clock: the sending of that heartbeat. 0: it has not.
	first, last cluster.Instant
	told        bool // Account is its own; else nothing but the above is known
	account     cluster.Account
}

// tellersMax bounds what is kept of a group; the oldest placements go first.
const tellersMax = 8

func (t *teller) take(a cluster.Account) { t.told, t.account = true, a }

// hear returns what is kept of a placement on a node, made if it is new.
func (n *Node) hear(i int, id cluster.NodeID, boot cluster.BootID, epoch cluster.Epoch) *teller {
	l := &n.groups[i]
	if k := l.teller(id, boot, epoch); k >= 0 {
		return &l.tellers[k]
	}
	if len(l.tellers) == tellersMax {
		l.tellers = slices.Delete(l.tellers, 0, 1)
	}
	at := len(l.tellers)
	for at > 0 && l.tellers[at-1].epoch > epoch {
		at--
	}
	l.tellers = slices.Insert(l.tellers, at, teller{node: id, boot: boot, epoch: epoch})
	return &l.tellers[at]
}

func (l *local) teller(id cluster.NodeID, boot cluster.BootID, epoch cluster.Epoch) int {
	return slices.IndexFunc(l.tellers, func(t teller) bool { return t.node == id && t.boot == boot && t.epoch == epoch })
}

// hearAccounts takes what a heartbeat tells of services.
func (n *Node) hearAccounts(k int, hb *wire.Heartbeat) {
	p := &n.peers[k]
	r := p.relate(hb.Boot)
	r.came = keepMark(r.came, mark{hb.Sent, unbounded, n.now.Mono}, n.timing.H)
	for i := range hb.Accounts {
		g, ok := n.places.byKey[hb.Accounts[i].Key]
		if !ok || n.state == nil {
			continue
		}
		a := hb.Accounts[i].Account
		a.Group = n.groups[g].spec.ID
		t := n.hear(g, p.id, hb.Boot, a.Epoch)
		if !t.told || t.account != a {
			n.planDue = true
		}
		t.take(a)
	}
}

// knowsAll notes that a heartbeat left out nothing of groups that this node does not know.
func (n *Node) knowsAll(p *peer, hb *wire.Heartbeat) {
	for i := range hb.Heard {
		if hb.Heard[i].Node == n.id() && hb.Whole&(1<<i) != 0 {
			p.whole = hb.Sent
		}
	}
}

// tellAccounts adds what is told of services here to a heartbeat that has room left: what is not on record, in turns.
func (n *Node) tellAccounts(hb *wire.Heartbeat, room int) {
	if n.state == nil || n.state.IsBlank() {
		return
	}
	for range n.groups {
		n.pulse.teller = (n.pulse.teller + 1) % len(n.groups)
		if !n.unsettled(n.pulse.teller) {
			continue
		}
		a := wire.Account{Key: n.telling.items[n.pulse.teller].key, Account: n.groups[n.pulse.teller].service.Account}
		a.Group = ""
		if room -= a.Size(); room < 0 {
			n.pulse.teller-- // the next time it is the first
			return
		}
		if hb.Accounts = append(hb.Accounts, a); len(hb.Accounts) == wire.MaxAccounts {
			return
		}
	}
}

// heardLast notes that a peer's heartbeat was the last of its run, or the last under a lease.
func (n *Node) heardLast(k int, hb *wire.Heartbeat) {
	if hb == nil || n.state == nil {
		return
	}
	p := &n.peers[k]
	for i := range p.told {
		n.servedLast(p, i, &p.told[i], hb.Boot)
	}
}

// servedLast notes when a peer last said that it serves a group: by its word on it, or by a later heartbeat that would
// have told otherwise.
func (n *Node) servedLast(p *peer, place int, word *told, boot cluster.BootID) {
	if word.seq == 0 || !answers(&word.report) {
		return
	}
	if t := n.groups[place].teller(p.id, boot, word.report.Epoch); t >= 0 {
		x := &n.groups[place].tellers[t]
		x.last = max(x.last, word.sent, p.whole)
	}
}

// answers tells whether clients get what they should, by a node's word.
func answers(r *wire.GroupReport) bool { return r.Phase == wire.PhaseServing && !r.Cut && !r.Short }

// watch is what this node has seen of one group's way back to service.
type watch struct {
	serves   bool
	noticed  cluster.Instant // when the outage was noticed; 0: there is none
	assigned cluster.Instant // when a newer placement was applied here; 0: none yet
	over     cluster.Instant // when every earlier placement was over; 0: not yet
}

// pauses are those before another try of what has failed under the group's newest placement, as far as they were seen
// here since something was last put on record.
type pauses struct {
	epoch cluster.Epoch
	count uint64          // of what was put on record
	at    cluster.Instant // since when there is one; 0: there is none
	sum   time.Duration   // of those that have ended
}

// watchPauses follows what the group's owner says.
func (n *Node) watchPauses(i int) {
	p, st := &n.groups[i].pauses, &n.state.Groups[i]
	switch {
	case p.epoch != st.Epoch:
		*p = pauses{epoch: st.Epoch, count: st.Service.Count}
	case p.count != st.Service.Count:
		p.count, p.sum = st.Service.Count, 0
	}
	r, ok := wire.GroupReport{}, false
	if k := n.index(st.Owner); k >= 0 && (k == n.self || !n.peers[k].silentTold) {
		r, ok = n.groupReport(k, i)
	}
	switch paused := ok && r.Phase == wire.PhaseFailed && r.Epoch == st.Epoch; {
	case paused && p.at == 0:
		p.at = n.now.Mono
	case !paused && p.at != 0:
		p.sum, p.at = p.sum+n.now.Mono.Sub(p.at), 0
	}
}

// watchService brings what is known of a group's service into line with what was heard.
func (n *Node) watchService(i int) {
	n.watchPauses(i)
	w, st := &n.groups[i].watch, &n.state.Groups[i]
	k, epoch := n.server(i)
	if k >= 0 {
		w.serves = true
		if k != n.self && st.Epoch == epoch && st.Last == n.peers[k].id {
			hb := n.peers[k].hb
			if t := n.hear(i, n.peers[k].id, hb.Boot, epoch); t.first == 0 {
				t.first = n.peers[k].told[i].sent
			}
		}
		return
	}
	if w.serves || w.noticed == 0 {
		*w = watch{noticed: n.now.Mono}
	}
	if w.assigned == 0 && st.Epoch > st.Service.Epoch && st.Owner != "" {
		w.assigned = n.now.Mono
	}
	if w.assigned != 0 && w.over == 0 && n.formerOver(i) {
		w.over = n.now.Mono
	}
}

// server returns the node that says that it serves the group, under the highest epoch; -1: none.
func (n *Node) server(i int) (node int, epoch cluster.Epoch) {
	node = -1
	for k := range n.peers {
		if k != n.self && n.peers[k].silentTold {
			continue
		}
		if r, ok := n.groupReport(k, i); ok && answers(&r) && r.Epoch >= epoch {
			node, epoch = k, r.Epoch
		}
	}
	return node, epoch
}

// formerOver tells whether every placement before the group's newest is over, as far as heard here.
func (n *Node) formerOver(i int) bool {
	st := &n.state.Groups[i]
	for _, t := range st.Tenures {
		if t.Epoch < st.Epoch && t.Node != st.Owner && !n.over(i, t) {
			return false
		}
	}
	return true
}

// length is how long an outage was.
type length struct {
	most, least time.Duration
	known       cluster.Known
	from        cluster.Instant // since when, at the earliest, by this node's clock
	ordered     bool
}

// and adds another outage. Of what is not known at all nothing is left to say.
func (a length) and(b length) length {
	d := length{most: a.most + b.most, least: a.least + b.least, known: a.known, from: a.from}
	if a.from == 0 {
		d.from = b.from
	}
	switch {
	case a.known == cluster.NotKnown || b.known == cluster.NotKnown:
		return length{known: cluster.NotKnown}
	case a.known == cluster.Within:
		d.known = b.known
	case b.known != cluster.Within && b.known != a.known:
		d.known = cluster.About
	}
	return d
}

// tellersOf returns what was heard of a group's placements from an epoch on that were served, with this node's own.
func (n *Node) tellersOf(i int, from cluster.Epoch) []teller {
	l := &n.groups[i]
	var out []teller
	for _, t := range l.tellers {
		if k := n.index(t.node); k >= 0 && k != n.self {
			if hb := n.peers[k].hb; hb != nil && hb.Boot == t.boot {
				if r, ok := n.groupReport(k, i); ok && answers(&r) && r.Epoch == t.epoch {
					t.last = max(t.last, n.peers[k].told[i].sent, n.peers[k].whole)
				}
			}
		}
		own := t.node == n.id() && t.boot == n.boot && t.epoch == l.service.Epoch
		if t.epoch >= from && (t.told || t.first != 0) && !own {
			out = append(out, t)
		}
	}
	if s := &l.service; s.Epoch != 0 && s.Epoch >= from {
		out = append(out, teller{node: n.id(), boot: n.boot, epoch: s.Epoch, told: true, account: s.Account})
	}
	slices.SortStableFunc(out, func(a, b teller) int { return int(a.epoch) - int(b.epoch) })
	return out
}

// ends returns between which instants of this node's clock clients were last served by a placement; known tells how well.
func (n *Node) ends(t *teller) (from, to cluster.Instant, known cluster.Known) {
	a := &t.account
	switch {
	case t.told && a.Over:
		f, _, ok := n.instants(t.node, t.boot, a.From)
		_, l, also := n.instants(t.node, t.boot, a.To)
		switch {
		case !ok || !also:
			return 0, 0, cluster.NotKnown
		case a.Late:
			return f, l, cluster.AtLeast
		}
		return f, l, cluster.Within
	case t.last != 0 || t.told: // it told no end that was the last one: it served until it was last heard, at least
		f, _, ok := n.instants(t.node, t.boot, max(t.last, a.Began, a.From))
		switch {
		case !ok:
			return 0, 0, cluster.NotKnown
		case !a.Up && a.Late && a.From > t.last:
			return f, cluster.Never, cluster.About
		}
		return f, cluster.Never, cluster.AtMost
	}
	return 0, 0, cluster.NotKnown
}

// begins returns between which instants of this node's clock clients were first served by a placement.
func (n *Node) begins(t *teller) (from, to cluster.Instant, known cluster.Known) {
	first, began := t.account.First, t.account.Began
	if !t.told {
		began = t.first
	}
	f, _, _ := n.instants(t.node, t.boot, first)
	_, l, ok := n.instants(t.node, t.boot, began)
	switch {
	case !ok:
		return 0, 0, cluster.NotKnown
	case !t.told:
		return 0, l, cluster.AtMost
	}
	return f, l, cluster.Within
}

// between returns how long nobody served from one placement to the next that served.
func (n *Node) between(a, b *teller) length {
	if a.node == b.node && a.boot == b.boot && a.told && b.told && a.account.Over { // by one clock
		known := cluster.Within
		if a.account.Late {
			known = cluster.AtLeast
		}
		from, _, _ := n.instants(a.node, a.boot, a.account.From)
		return length{most: max(0, b.account.Began.Sub(a.account.From)), least: max(0, b.account.First.Sub(a.account.To)), known: known, from: from, ordered: a.account.Ordered}
	}
	from, to, ended := n.ends(a)
	first, last, began := n.begins(b)
	if ended == cluster.NotKnown || began == cluster.NotKnown {
		return length{known: cluster.NotKnown}
	}
	d := length{most: max(0, last.Sub(from)), known: ended, from: from, ordered: a.told && !a.account.Up && a.account.Ordered}
	switch {
	case ended == cluster.Within && began == cluster.AtMost:
		d.known = cluster.AtMost
	case to != cluster.Never && began == cluster.Within:
		d.least = max(0, first.Sub(to))
	}
	return d
}

// ownerTells returns what the group's owner tells of its service, which goes on; nil: nothing, or it does not.
func (n *Node) ownerTells(i int) *cluster.Account {
	st := &n.state.Groups[i]
	k := n.index(st.Owner)
	if k < 0 {
		return nil
	}
	if k == n.self {
		if s := &n.groups[i].service; s.Up && s.Epoch == st.Epoch {
			return &s.Account
		}
		return nil
	}
	hb := n.peers[k].hb
	if hb == nil {
		return nil
	}
	if r, ok := n.groupReport(k, i); !ok || !answers(&r) || r.Epoch != st.Epoch {
		return nil
	}
	if t := n.groups[i].teller(st.Owner, hb.Boot, st.Epoch); t >= 0 {
		if x := &n.groups[i].tellers[t]; x.told && x.account.Up {
			return &x.account
		}
	}
	return nil
}

// chain returns the placements that were served from the one on record to the present one; nil: what was heard does
// not begin with that.
func (n *Node) chain(i int) []teller {
	st := &n.state.Groups[i]
	all := slices.DeleteFunc(n.tellersOf(i, st.Service.Epoch), func(t teller) bool { return t.epoch > st.Epoch })
	if len(all) < 2 || all[0].epoch != st.Service.Epoch || all[len(all)-1].epoch != st.Epoch {
		return nil
	}
	return all
}

// toRecord returns what is to be put on record of a group once its owner says that it serves, or nil.
func (n *Node) toRecord(i int) *cluster.Served {
	st := &n.state.Groups[i]
	x, a := &st.Service, n.ownerTells(i)
	if a == nil || x.Epoch == st.Epoch && a.OrderedGaps.Most <= x.Ordered && a.OtherGaps.Most <= x.Other {
		return nil // what is on record was told by a later word than this
	}
	s := &cluster.Served{Group: st.ID, Node: st.Owner, Epoch: st.Epoch, Count: x.Count + 1, Wall: n.now.Wall, Ordered: a.OrderedGaps.Most, Other: a.OtherGaps.Most}
	chain := n.chain(i)
	var ordered, other length
	switch {
	case x.Count == 0:
		return s
	case x.Epoch == st.Epoch:
		s.Ordered, s.Other = max(s.Ordered, x.Ordered), max(s.Other, x.Other)
		ordered, other = gapsSince(&a.OrderedGaps, x.Ordered), gapsSince(&a.OtherGaps, x.Other)
		if other.most > 0 && !n.wellFor(i, st.Owner, min(other.most, time.Minute)) {
			return nil // in place: what comes and goes is one outage, not one for each attempt
		}
	case chain == nil:
		n.roughly(i, s)
		return s
	default:
		ordered, other = n.outages(chain, x)
	}
	whole := ordered.and(other)
	if paused := min(n.groups[i].pauses.sum, whole.most); x.Epoch == st.Epoch && paused > 0 {
		s.Phases = cluster.Phases{Paused: paused, Started: whole.most - paused}
	}
	s.Down, s.Least, s.Known = whole.most, whole.least, whole.known
	if n.flawed(OutagesHalved) {
		s.Down, s.Least = s.Down/2, s.Least/2
	}
	s.Planned = other.most == 0 && other.known == cluster.Within && ordered.most > 0
	if !s.Planned {
		s.Share = ordered.most
		if x.Epoch == st.Epoch {
			s.Cause = a.Cause
		}
	}
	if single := len(chain) == 2 && x.Epoch < st.Epoch && s.Share == 0; single && s.Down == n.between(&chain[0], &chain[1]).most {
		if chain[1].epoch == chain[0].epoch+1 {
			s.Before, s.Counted = chain[0].epoch, x.Ordered+x.Other
		}
		s.Phases = n.phases(i, &whole)
	}
	return s
}

// wellFor tells whether a node has been fit to serve a group for some time.
func (n *Node) wellFor(i int, node cluster.NodeID, d time.Duration) bool {
	since := n.groups[i].fit[node]
	return since != 0 && n.now.Mono.Sub(since) >= d
}

// outages adds up, of a chain of placements, what lay between them and within them, as far as it is not on record.
func (n *Node) outages(chain []teller, x *state.Service) (ordered, other length) {
	for k := range chain {
		if t := &chain[k]; t.told {
			since, besides := time.Duration(0), time.Duration(0)
			if k == 0 {
				since, besides = x.Ordered, x.Other
			}
			ordered, other = ordered.and(gapsSince(&t.account.OrderedGaps, since)), other.and(gapsSince(&t.account.OtherGaps, besides))
		}
		if k == 0 {
			continue
		}
		d := n.between(&chain[k-1], &chain[k])
		if chain[k].epoch > chain[k-1].epoch+1 { // one between may have served for a moment
			d.known, d.least = d.and(length{known: cluster.AtMost}).known, 0
		}
		if d.ordered {
			ordered = ordered.and(d)
		} else {
			other = other.and(d)
		}
	}
	return ordered, other
}

// gapsSince returns what gaps within a placement add up to beyond what is on record.
func gapsSince(g *cluster.Gaps, recorded time.Duration) length {
	if g.Most <= recorded {
		return length{}
	}
	d := length{most: g.Most - recorded, least: max(0, g.Least-recorded)}
	if g.Late {
		d.known = cluster.AtLeast
	}
	return d
}

// roughly tells of an outage of which nobody here has heard how it began: the whole site was down, or this node began
// in the middle. Where this run has heard nothing of the former service, its last write to the disk is the nearest.
func (n *Node) roughly(i int, s *cluster.Served) {
	s.Known = cluster.NotKnown
	if x := &n.state.Groups[i].Service; n.lived >= x.Since && n.lived != 0 && n.groups[i].tellers == nil {
		s.Down, s.Known = max(0, time.Duration(n.now.Wall-n.lived)), cluster.About
	}
}

// phases divides an outage by what this node has seen of it.
func (n *Node) phases(i int, d *length) cluster.Phases {
	w := &n.groups[i].watch
	end := d.from.Add(d.most)
	if w.noticed == 0 || d.from == 0 {
		return cluster.Phases{}
	}
	noticed := min(max(w.noticed, d.from), end)
	assigned := min(max(w.assigned, noticed), end)
	over := min(max(w.over, assigned), end)
	paused := min(n.groups[i].pauses.sum, end.Sub(over))
	decided := assigned.Sub(noticed)
	if n.flawed(PhasesOverlap) {
		decided = assigned.Sub(d.from)
	}
	return cluster.Phases{Detected: noticed.Sub(d.from), Decided: decided, Waited: over.Sub(assigned),
		Paused: paused, Started: end.Sub(over) - paused}
}

// toAmend returns what puts the outage before the present placement right, once the node that had served before has
// told until when, or nil.
func (n *Node) toAmend(i int) *cluster.Amend {
	st := &n.state.Groups[i]
	x := st.Service.Open
	if x == nil || x.Epoch != st.Epoch || n.ownerTells(i) == nil {
		return nil
	}
	all := n.tellersOf(i, x.Before)
	a := slices.IndexFunc(all, func(t teller) bool { return t.epoch == x.Before && t.told })
	b := slices.IndexFunc(all, func(t teller) bool { return t.epoch == x.Epoch && t.told })
	if a < 0 || b < 0 {
		return nil
	}
	d := n.between(&all[a], &all[b])
	if d.known != cluster.Within && d.known != cluster.AtLeast { // it may serve again, for all that was heard
		return nil
	}
	gaps := all[a].account.OtherGaps // which it had told nobody
	gaps.Most, gaps.Least = gaps.Most+all[a].account.OrderedGaps.Most, gaps.Least+all[a].account.OrderedGaps.Least
	ordered := d.ordered
	d = d.and(gapsSince(&gaps, x.Counted))
	return &cluster.Amend{Group: st.ID, Node: all[a].node, Epoch: x.Epoch, Count: x.Count, Planned: ordered, Down: d.most, Least: d.least, Known: d.known}
}

// serviceView tells how a group has served so far.
func (n *Node) serviceView(i int) cluster.ServiceView {
	w, x := &n.groups[i].watch, &n.state.Groups[i].Service
	v := cluster.ServiceView{First: x.First, Since: x.Since, Planned: x.Planned, Unplanned: x.Unplanned, Moves: x.Moves, Open: x.Open != nil}
	if k, _ := n.server(i); k >= 0 || v.First == 0 {
		return v
	}
	v.Down = n.now.Mono.Sub(max(n.start, w.noticed))
	if all := n.tellersOf(i, x.Epoch); len(all) > 0 {
		t := &all[len(all)-1]
		if from, _, known := n.ends(t); known != cluster.NotKnown {
			v.Down = n.now.Mono.Sub(from)
		}
		if a := &t.account; t.told && !a.Up && a.From != 0 { // which it may have noticed late
			if from, _, ok := n.instants(t.node, t.boot, a.From); ok {
				v.Down = max(v.Down, n.now.Mono.Sub(from))
			}
		}
	}
	v.Down = max(v.Down, 1) // it is down
	return v
}

// roundTrip measures an answer on the link that it came over, and takes the reading of the peer's clock that it holds.
func (n *Node) roundTrip(i int, in *Packet, a *wire.Ack) {
	p := &n.peers[i]
	at, ok := n.holder.SentAt(a.Seq)
	if a.Run != n.run || !ok {
		return
	}
	if a.At != 0 && a.Seq > p.acked && in.Run == p.run && p.hb != nil {
		r := p.relate(p.hb.Boot)
		r.answered = keepMark(r.answered, mark{a.At, at, n.now.Mono}, n.timing.H)
	}
	if in.Link < 0 || in.Link >= len(p.trips) {
		return
	}
	took := n.now.Mono.Sub(at)
	if t := &p.trips[in.Link]; *t == 0 {
		*t = took
	} else {
		*t = (7**t + took) / 8
	}
}
