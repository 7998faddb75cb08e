package node

import (
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// pulse is the sending of heartbeats.
type pulse struct {
	at     cluster.Instant // the next regular one
	seq    uint64
	now    bool            // send to all at once …
	repeat bool            // … and again quickly until it is acked
	soon   cluster.Instant // the next that is due to news of groups; Never: there is none
	last   cluster.Instant // when the last went to all
	sick   bool
	teller int           // the group whose account was told last
	due    []int         // scratch: the peers that a heartbeat goes to now
	former time.Duration // the interval before it grew, until the lease has grown as well; 0: it has
}

// urgent makes the next heartbeat go at once, and again each L/50 until it is acked, for 2 L at most.
func (n *Node) urgent() {
	if !n.flawed(NeverUrgent) {
		n.pulse.now, n.pulse.repeat = true, true
	}
}

// tellSoon is urgent for news of groups: of many that come within a moment each would cost a heartbeat.
func (n *Node) tellSoon() {
	u := &n.pulse
	if at := u.last.Add(min(n.timing.L/400, newsPace)); at > n.now.Mono {
		u.soon = min(u.soon, at)
		return
	}
	n.urgent()
}

// newsPace is the time between two heartbeats that tell of nothing but groups, at the most.
const newsPace = 2 * time.Millisecond

// beat is the interval between heartbeats. Where it grows with the takeover, the former one counts until the
// lease has been renewed for the new length: a lease that was short would run out before the next heartbeat.
func (n *Node) beat() time.Duration {
	u := &n.pulse
	if u.former != 0 && (!n.leaseRuns() || n.holder.End().Sub(n.now.Mono) >= n.timing.L/2) {
		u.former = 0
	}
	if u.former != 0 {
		return u.former
	}
	return n.timing.H
}

// quick is the pace at which what is urgent, or not acked, is repeated: L/50.
func (n *Node) quick() time.Duration { return n.beat() / 5 }

// The first repeats of what is urgent come sooner: at a long lease one lost packet would cost more than the stall
// that the budget allows for.
const (
	promptRepeats = 3
	promptLeast   = 4 * time.Millisecond // and no sooner than 4 round trips
)

// prompt is when what is urgent is sent again after so many repeats: a few round trips at first, then L/50.
func (n *Node) prompt(repeats int) time.Duration {
	if repeats >= promptRepeats {
		return n.timing.Quick()
	}
	return min(n.timing.Quick(), max(promptLeast, 4*n.election.rtt))
}

// patience is how long an ack may be missing before the pace to a silent voter shrinks.
func (n *Node) patience() time.Duration { return max(n.beat()/2, 4*n.election.rtt) }

// quickAt returns when the next heartbeat to a peer is due ahead of the regular one.
func (n *Node) quickAt(p *peer) cluster.Instant {
	at := cluster.Never
	unheard := p.acked < p.urgentSeq || p.missing > 0 && p.isHeard()
	if next := p.sentAt.Add(min(n.quick(), n.prompt(p.repeats))); unheard && next < p.urgentEnd {
		at = next
	}
	if n.number != 0 && p.waiting != 0 {
		next := max(p.sentAt.Add(n.quick()), p.waiting.Add(n.patience()))
		if next.Sub(p.waiting) <= n.lastingFor() {
			at = min(at, next)
		}
	}
	return at
}

func (u *pulse) next(n *Node) cluster.Instant {
	at := min(u.at, u.soon)
	for i := range n.peers {
		if i != n.self {
			at = min(at, n.quickAt(&n.peers[i]))
		}
	}
	return at
}

// tendPulse sends the heartbeats that are due.
func (n *Node) tendPulse() {
	u := &n.pulse
	if n.now.Mono >= u.soon {
		n.urgent()
	}
	all := u.now || n.now.Mono >= u.at
	u.due = u.due[:0]
	for i := range n.peers {
		if i != n.self && (all || n.now.Mono >= n.quickAt(&n.peers[i])) {
			u.due = append(u.due, i)
		}
	}
	for k := 0; len(u.due) > 0 && (k == 0 || k < burstMax && n.telling.unsent); k++ {
		n.beatTo(u.due)
	}
	if all {
		u.at = u.at.Add(n.beat())
		if u.at <= n.now.Mono || u.now {
			u.at = n.now.Mono.Add(n.beat())
		}
		u.now, u.repeat, u.soon, u.last = false, false, cluster.Never, n.now.Mono
	}
}

// beatTo sends one heartbeat to some of the peers.
func (n *Node) beatTo(due []int) {
	hb := n.heartbeat()
	n.tellGroups(hb, due)
	for _, i := range due {
		p := &n.peers[i]
		n.send(i, hb)
		if p.waiting == 0 {
			p.waiting = n.now.Mono
		}
		p.sentSeq, p.sentAt = hb.Seq, n.now.Mono
		p.repeats++
		if n.pulse.repeat {
			p.urgentSeq, p.urgentEnd, p.repeats = hb.Seq, n.now.Mono.Add(n.lastingFor()), 0
		}
	}
}

// heartbeat makes the next heartbeat, but for what it tells of groups; this node's own promise renews its lease with it.
func (n *Node) heartbeat() *wire.Heartbeat {
	n.pulse.seq++
	n.countMatched()
	hb := &wire.Heartbeat{
		Incarnation: n.inc, Boot: n.boot, Number: n.asksFor(), Seq: n.pulse.seq, L: n.timing.L, Rests: n.rests, View: 1,
		Sent: n.now.Mono, LeaseRuns: n.leaseRuns(), Sick: n.pulse.sick, Faulty: n.faulty,
		Said: n.lines, Revision: n.revised, Sight: n.ownSight(),
		Heard: make([]wire.Heard, 0, len(n.peers)-1),
	}
	for i := range n.peers {
		if p := &n.peers[i]; i != n.self {
			hb.Heard = append(hb.Heard, wire.Heard{Node: p.id, Incarnation: p.inc, Run: p.run, Ago: p.det.Ago(n.now.Mono), Durable: p.durable})
		}
	}
	if n.raft != nil {
		hb.Lead, hb.Applied = n.raft.leads(), n.raft.applied
	}
	n.holder.Sent(hb.Seq, n.now.Mono, hb.L)
	n.peers[n.self].det.Named(n.now.Mono, hb.L)
	if n.number != 0 && n.mayPromise(n.self, hb) {
		n.promise(n.self, hb)
		n.acked(n.self, hb.Seq)
	}
	return hb
}

// asksFor is the lease number for which a heartbeat asks promises. While the kernel takes no gate write there is none:
// traffic ends with the last one that it took, and a lease renewed meanwhile would only make the next owner wait.
func (n *Node) asksFor() cluster.Number {
	if n.gateOK < n.gateN && n.now.Mono.Sub(n.gateAt) >= 2*n.timing.H {
		return 0
	}
	return n.number
}

// leaseRuns tells whether this node's lease runs now.
func (n *Node) leaseRuns() bool { return n.number != 0 && n.holder.Runs(n.now.Mono) }

// isSick tells whether what decisions wait for has not answered for L: the disk, the run record, the gate.
func (n *Node) isSick() bool { return n.unwell() != "" }

// unwell names what has not answered for L; empty: nothing.
func (n *Node) unwell() string {
	since := func(at cluster.Instant) bool { return n.now.Mono.Sub(at) >= n.timing.L }
	switch {
	case len(n.stores) > 0 && since(n.stores[0].at):
		return "disk"
	case n.flawed(UntoldRecord):
	case n.recOK < n.recN && since(n.recAt):
		return "run record"
	case n.gateOK < n.gateN && since(n.gateAt):
		return "gate"
	}
	return ""
}

// packet takes what a peer has sent.
func (n *Node) packet(in *Packet) {
	i := n.index(in.From)
	if i < 0 || i == n.self {
		return
	}
	p := &n.peers[i]
	switch m := in.Msg.(type) {
	case *wire.Heartbeat:
		n.heard(i, in, m)
	case *wire.Ack:
		n.roundTrip(i, in, m)
		n.ackIn(i, in.Run, m)
	case *wire.Raft:
		if n.raft != nil {
			n.raftIn(i, m.Msg)
		} else {
			n.letIn(i, m.Msg)
		}
	case *wire.Ask:
		p.asked, p.askedAt = *m, n.now.Mono
		n.fileIn(m)
		n.agree(i, m)
		n.askIn(i, m)
	case *wire.Founding:
		n.foundingIn(i, m)
	case *wire.Piece:
		n.pieceIn(i, in, m)
	case *wire.Got:
		n.gotIn(i, m)
	}
}

// heard takes a heartbeat: evidence of life, a request for a promise, and what its sender knows.
func (n *Node) heard(i int, in *Packet, hb *wire.Heartbeat) {
	p := &n.peers[i]
	if p.inc != 0 && hb.Incarnation != p.inc {
		p.stranger, p.strangerAt = hb.Incarnation, n.now.Mono
		n.stranger(p, hb.Incarnation)
		n.otherwise(p)
		return
	}
	if p.inc == 0 && n.state != nil && !n.state.IsBlank() {
		return // it belongs to the cluster's file, but not to the cluster yet
	}
	if n.isPast(i, hb) {
		return
	}
	former := p.hb
	ok, fresh := p.admitRun(in.Run)
	if !ok {
		return
	}
	if fresh {
		n.heardLast(i, former)
		p.forget(n.telling.items)
		p.urgentEnd, p.repeats = n.now.Mono.Add(n.lastingFor()), 0
	}
	newest := p.slot(in.Link)
	if hb.Seq <= *newest {
		n.heardLate(i, in, hb) // a late copy is no sign of life
		return
	}
	*newest = hb.Seq
	if in.Link < len(n.spec.Links) && p.det.Link(in.Link) != 0 {
		if _, lost := p.det.OnLink(in.Link, n.now.Mono); lost && n.raft != nil {
			n.announce() // a port or a network is there again
		}
	}
	p.det.Arrived(in.Link, n.now.Mono, n.namedLength(hb))
	if p.silentTold {
		p.silentTold = false
		n.planDue, n.groupsDue = true, true
		n.election.failed = 0
		if n.raft != nil {
			n.announce()
		}
	}
	if p.hb != nil && hb.Seq <= p.hb.Seq {
		n.heardLate(i, in, hb)
		return
	}
	if n.toldSetBack(hb) {
		n.goneBack(p.id)
		return
	}
	n.noteLength(hb.L)
	ack := &wire.Ack{Incarnation: n.inc, Run: in.Run, Seq: hb.Seq, At: n.now.Mono}
	if hb.Number != 0 && n.mayPromise(i, hb) {
		n.promise(i, hb)
		ack.Number = hb.Number
	}
	if n.state != nil {
		ack.Newest = n.state.Nodes[i].Number
	}
	n.send(i, ack)
	n.learn(i, hb, fresh)
}

// heardLate takes a heartbeat that has come over another link already, or was overtaken: that its sender had no lease
// for a moment, and what it tells of groups, if nothing later was told.
func (n *Node) heardLate(i int, in *Packet, hb *wire.Heartbeat) {
	p := &n.peers[i]
	if p.hb == nil || hb.Seq >= p.hb.Seq {
		return
	}
	if !hb.LeaseRuns && hb.Seq > p.unleased {
		p.unleased = hb.Seq
		n.fitAnew(p.id)
		n.groupsDue = true
	}
	if !p.lacksPart(hb, n.places.byKey) {
		return
	}
	n.send(i, &wire.Ack{Incarnation: n.inc, Run: in.Run, Seq: hb.Seq})
	if n.toldBy(p, hb) {
		n.planDue = true
	}
}

// isPast tells whether a heartbeat is a late packet of a boot or incarnation that is over for good.
func (n *Node) isPast(i int, hb *wire.Heartbeat) bool {
	if n.state == nil {
		return false
	}
	for _, past := range n.state.Nodes[i].Past {
		if past.Incarnation == hb.Incarnation && past.Boot == hb.Boot {
			return true
		}
	}
	return false
}

// learn takes what a heartbeat says.
func (n *Node) learn(i int, hb *wire.Heartbeat, fresh bool) {
	p := &n.peers[i]
	old := p.hb
	if old != nil && old.LeaseRuns && !hb.LeaseRuns {
		n.heardLast(i, old)
	}
	p.hb, p.hbAt = hb, n.now.Mono
	n.hearAccounts(i, hb)
	if fresh {
		n.fitAnew(p.id)
	}
	if p.inc != 0 {
		p.durable = max(p.durable, hb.Applied) // what is applied is committed, and durable there: it never goes
	}
	if p.rests.number < hb.Number || (p.rests.number == hb.Number && p.rests.index < hb.Rests) {
		p.rests = rested{hb.Number, hb.Rests}
		n.planDue = true
	}
	if hb.LeaseRuns {
		p.leaseDown = 0
	} else if p.unleased = hb.Seq; p.leaseDown == 0 {
		p.leaseDown = n.now.Mono
	}
	if old != nil && old.Sick && !hb.Sick {
		n.election.afresh(n)
	}
	p.deaf = n.isDeaf(hb)
	if hb.Lead != 0 && n.raft != nil && hb.Lead >= n.raft.term() {
		if p.deaf {
			n.leaderDeaf()
		} else {
			n.election.named = hb.L
			n.leaderHeard()
		}
	}
	if fresh || old == nil || old.Boot != hb.Boot || old.LeaseRuns != hb.LeaseRuns || old.Sick != hb.Sick || old.Number != hb.Number ||
		p.nowSilent(old, hb) || old.Revision != hb.Revision {
		n.planDue, n.groupsDue = true, true
	}
	if old == nil || !old.Sight.Equal(&hb.Sight) {
		n.networks.news = true
	}
	for _, s := range hb.Said {
		if n.said.Add(s.Node, s.Number, p.inc) {
			n.planDue, n.groupsDue = true, true
		}
	}
	if n.toldBy(p, hb) {
		n.planDue = true
	}
	n.knowsAll(p, hb)
}

// isDeaf tells whether the sender of a heartbeat has not heard this run of ours for half the lease length that
// we name (D is 0.9 of it): it can't lead us, though we hear it (a one-way cut).
func (n *Node) isDeaf(hb *wire.Heartbeat) bool {
	for _, h := range hb.Heard {
		if h.Node == n.id() {
			return h.Run == n.run && h.Ago >= n.silenceOf(n.self)*5/9
		}
	}
	return false
}

// nowSilent tells whether a heartbeat reports a silence beyond D that the one before did not.
func (p *peer) nowSilent(old, hb *wire.Heartbeat) bool {
	for k := range hb.Heard {
		if hb.Heard[k].Ago >= p.det.D() && (k >= len(old.Heard) || old.Heard[k].Ago < p.det.D()) {
			return true
		}
	}
	return false
}

// heardMax bounds the releases remembered per group; the oldest go first.
const heardMax = 64

func (l *local) hearRelease(e cluster.Epoch, node cluster.NodeID) bool {
	r := heardRelease{e, node}
	if slices.Contains(l.heard, r) {
		return false
	}
	if len(l.heard) == heardMax {
		l.heard = slices.Delete(l.heard, 0, 1)
	}
	l.heard = append(l.heard, r)
	return true
}

// mayPromise tells whether this voter may promise the sender of a heartbeat not to take its lease away:
// the log knows number, incarnation and boot as current, and no Evict of it has been appended.
func (n *Node) mayPromise(i int, hb *wire.Heartbeat) bool {
	if n.state == nil || hb.L > n.durable.LongestPromise && !n.flawed(PromiseUndurable) {
		return false
	}
	s := &n.state.Nodes[i]
	return s.Admitted && (s.Number == hb.Number || n.flawed(PromiseToAnyNumber)) && s.Incarnation == hb.Incarnation && (s.Boot == hb.Boot || n.flawed(AnyBoot)) &&
		!n.raft.evictAppended(s.ID, hb.Number)
}

func (n *Node) promise(i int, hb *wire.Heartbeat) {
	from := n.now.Mono
	switch n.mutation() {
	case SenderStamp:
		from = hb.Sent
	case StaleNow:
		from = n.last
	}
	l := hb.L
	if n.flawed(OwnLength) {
		l = n.timing.L
	}
	n.voter.Promise(n.peers[i].id, from, l)
	if hb.L > max(n.timing.L, n.timing.Longest) {
		n.longAt = n.now.Mono
	}
}

// ackIn takes a voter's ack.
func (n *Node) ackIn(i int, run cluster.RunID, a *wire.Ack) {
	p := &n.peers[i]
	if (a.Run != n.run && !n.flawed(AckNoRun)) || (p.inc != 0 && a.Incarnation != p.inc) {
		return
	}
	if run == p.run {
		n.hasHeard(p, a.Seq)
	}
	// An ack that promises nothing is a sign of life only: the voter may still have to note a longer length on
	// its disk, and a heartbeat that is urgent is repeated until it has.
	if a.Seq > p.acked && (a.Number == n.number || n.number == 0) {
		p.acked = a.Seq
		if at, ok := n.holder.SentAt(a.Seq); ok && a.Seq == p.sentSeq {
			n.election.rtt = (7*n.election.rtt + n.now.Mono.Sub(at)) / 8
		}
		p.waiting = 0
		if p.sentSeq > a.Seq {
			p.waiting = p.sentAt
			if at, ok := n.holder.SentAt(a.Seq + 1); ok {
				p.waiting = at
			}
		}
	}
	if n.number != 0 && a.Newest > n.number {
		n.outlived(p.id, a.Newest)
		return
	}
	if a.Number != 0 && a.Number == n.number {
		n.acked(i, a.Seq)
	}
}

// outlived ends what is served under a lease number of which a voter's log knows a higher one: it is over, and this
// node has only not read that far. It uses no number until it has.
func (n *Node) outlived(by cluster.NodeID, newest cluster.Number) {
	n.event("lease.outlived", n.id(), "%s says that number %d was given to %s: number %d, which is in use here, is over", by, newest, n.id(), n.number)
	n.passed, n.number, n.rests = newest, 0, 0
	n.holder.Reset()
	n.groupsDue = true
	n.urgent()
}

// acked counts an ack towards the lease.
func (n *Node) acked(i int, seq uint64) {
	if !n.mayRenew() || !n.holder.Acked(n.incarnation(i), seq, n.now.Mono) {
		return
	}
	n.renewed()
}

// renewed carries the lease's end into the kernel.
func (n *Node) renewed() {
	if runs := n.leaseRuns(); runs != n.leaseShown {
		n.groupsDue = true
	}
	for k := range n.groups {
		if l := &n.groups[k]; l.open != 0 && n.leaseRuns() {
			n.gate(l, l.open, n.holder.End())
		}
	}
}

// gate asks for a group's gate.
func (n *Node) gate(l *local, e cluster.Epoch, end cluster.Instant) {
	if n.gateOK == n.gateN {
		n.gateAt = n.now.Mono
	}
	n.gateN++
	g := cluster.Gate{N: n.gateN, Group: l.spec.ID, Epoch: e, End: end}
	if n.flawed(GateTooLong) && end > 0 {
		g.End = end.Add(n.timing.L / 20)
	}
	if n.flawed(RelativeGate) && end > 0 {
		g.Left = end.Sub(n.now.Mono)
	}
	n.noteGate(l, g)
	n.out.Gates = append(n.out.Gates, g)
}
