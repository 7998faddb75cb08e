package sim

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/core/state"
	"baton/internal/core/wire"
)

// This file judges what a node says and writes into its kernel against what is true of it at that instant: its
// disk, its run record, its gates, and the promises that it has ever sent. The rule is named "said".

// speaker is what an observer keeps of one machine for that.
type speaker struct {
	promises []promised // all that its acks have promised, whichever run of this data directory sent them
	lengths  []length
	number   cluster.Number // that its newest heartbeat carried
	used     cluster.Number // the highest that a heartbeat ever carried
	dead     cluster.Number // numbers up to this one were used under a run record that is gone
	reach    uint64         // log index up to which some run of this boot has applied
	released map[released]bool
}

// promised is until when, on the promiser's clock, nobody takes a node's lease away.
type promised struct {
	to     int // machine
	number cluster.Number
	until  cluster.Instant
}

// length is until when a promise under a lease length stands.
type length struct {
	l     time.Duration
	until cluster.Instant
}

// released is a release that stood in a run record of this boot.
type released struct {
	group cluster.GroupID
	epoch cluster.Epoch
}

// former is a data directory that was lost, with what its node had promised.
type former struct {
	inc      cluster.Incarnation
	clock    *clock
	promises []promised
}

// heardFrom is what the log says of leases, as far as anybody has applied it.
type heardFrom struct {
	admits  []admitted
	evicts  map[wire.Lease]uint64 // log index of the Evict of a number
	leaders map[uint64]cluster.Incarnation
	former  []former
	setBack bool // the plan sets a disk back: what others remember of it is more than it holds
}

type admitted struct {
	cluster.Admit
	index uint64
}

func (h *heardFrom) init(p *Plan) {
	h.evicts, h.leaders = map[wire.Lease]uint64{}, map[uint64]cluster.Incarnation{}
	h.setBack = slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Kind == SetBack })
}

// begin takes over what the log has said before the run.
func (h *heardFrom) begin(s *state.State) {
	for i := range s.Nodes {
		n := &s.Nodes[i]
		h.admits = append(h.admits, admitted{cluster.Admit{Node: n.ID, Incarnation: n.Incarnation, Boot: n.Boot, Number: n.Number}, n.AdmitIndex})
		if !n.Admitted && n.Number > 0 {
			h.evicts[wire.Lease{Node: n.ID, Number: n.Number}] = n.EvictIndex
		}
	}
}

// rho is what a promise lasts longer than the lease that rests on it.
var rho = cluster.Timing{RhoPPM: cluster.RhoPPM}

// says judges the messages of a step, before anything that the step asks for is carried out: the parts of an
// output are independent.
func (w *world) says(m *machine, in node.Input, out *node.Output) {
	var last message
	for i := range out.Sends {
		s := &out.Sends[i]
		if s.Msg == last { // one heartbeat goes to all
			continue
		}
		last = s.Msg
		switch v := s.Msg.(type) {
		case *wire.Heartbeat:
			w.saysHeartbeat(m, v)
		case *wire.Ack:
			w.saysAck(m, s.To, v, in)
		case *wire.Raft:
			w.saysRaft(m, v.Msg)
		case *wire.Founding:
			if d := &m.disk.image; string(d.Founding) != string(v.Record) && d.Snapshot == nil { // a snapshot holds it too
				w.fail("said", "%s sends a founding record that is not durable here", m.id)
			}
		}
	}
}

// held returns the index of the last entry that is durable on a disk; the founding record stands for the first.
func (d *disk) held() uint64 {
	if i := lastIndex(&d.image); i > 0 {
		return i
	}
	if d.image.Founding != nil {
		return 1
	}
	return 0
}

// termAt returns the term of a durable entry; 0: it is not there, or covered by a snapshot.
func (d *disk) termAt(index uint64) uint64 {
	e := d.image.Entries
	if len(e) == 0 || index < e[0].Index || index > e[len(e)-1].Index {
		return 0
	}
	return e[index-e[0].Index].Term
}

func (w *world) saysHeartbeat(m *machine, hb *wire.Heartbeat) {
	x, r := &m.speaker, m.record
	if hb.Number != 0 {
		switch {
		case r == nil || r.Boot != m.boot || r.Incarnation != m.inc:
			w.fail("said", "%s uses lease number %d, but has no run record of this boot", m.id, hb.Number)
		case hb.Number < r.First || hb.Number > r.Number:
			w.fail("said", "%s uses lease number %d, its run record holds %d to %d", m.id, hb.Number, r.First, r.Number)
		case hb.Number <= x.dead:
			w.fail("said", "%s uses lease number %d, which a former run used whose run record is gone", m.id, hb.Number)
		case hb.Rests > r.Rests:
			w.fail("said", "%s says that its lease rests on set %d, its run record says on %d", m.id, hb.Rests, r.Rests)
		case !w.check.heard.admitted(m, hb.Number):
			w.fail("said", "%s uses lease number %d and has applied no Admit of it for this boot", m.id, hb.Number)
		}
	}
	m.renews(hb)
	x.number, x.used = hb.Number, max(x.used, hb.Number)
	if held := m.disk.held(); hb.Applied > held {
		w.fail("said", "%s says that it has applied entry %d, its disk holds %d", m.id, hb.Applied, held)
	}
	if hb.Lead != 0 {
		if by, ok := w.check.heard.leaders[hb.Lead]; ok && by != m.inc {
			w.fail("said", "%s says that it leads in term %d, and so has another", m.id, hb.Lead)
		} else if !ok {
			w.check.heard.leaders[hb.Lead] = m.inc
		}
	}
	if !w.check.heard.setBack {
		for i := range hb.Heard {
			h := &hb.Heard[i]
			if k := w.index(h.Node); k >= 0 && w.machines[k].inc == h.Incarnation && h.Durable > w.machines[k].disk.held() {
				w.fail("said", "%s says that %s holds entry %d, its disk holds %d", m.id, h.Node, h.Durable, w.machines[k].disk.held())
			}
		}
	}
	for _, t := range hb.Released {
		w.saysReleased(m, w.groupOf[t.Group], t.Epoch)
	}
}

// admitted tells whether a run of the machine's present boot has applied the Admit of a number for it.
func (h *heardFrom) admitted(m *machine, n cluster.Number) bool {
	for i := len(h.admits) - 1; i >= 0; i-- {
		a := &h.admits[i]
		if a.Node == m.id && a.Number == n && a.Incarnation == m.inc && a.Boot == m.boot {
			return a.index <= max(m.speaker.reach, m.applied)
		}
	}
	return false
}

// saysReleased checks that a release is on record, the gate shut, and stopped what goes beyond it.
func (w *world) saysReleased(m *machine, id cluster.GroupID, epoch cluster.Epoch) {
	i := w.groupIndex(id)
	if !m.speaker.released[released{id, epoch}] {
		w.fail("said", "%s releases epoch %d of %s, which is not in its run record", m.id, epoch, id)
	}
	if i < 0 {
		return
	}
	if m.gates[i].epoch == epoch && m.serves(i) && !m.flushed {
		w.fail("said", "%s releases epoch %d of %s, whose gate is open", m.id, epoch, id)
	}
	for _, g := range m.late {
		if g.Group == id && g.Epoch == epoch && g.End > 0 {
			w.fail("said", "%s releases epoch %d of %s, whose gate is being opened", m.id, epoch, id)
		}
	}
	for k := range m.resources {
		r := &m.resources[k]
		up := r.status == cluster.StatusRunning || r.busy && r.doing.Target == cluster.TargetRunning
		if r.group == i && r.spec.Effects == cluster.EffectsBeyond && up && r.doing.Epoch <= epoch {
			w.fail("said", "%s releases epoch %d of %s, for which %s runs or is being started", m.id, epoch, id, r.spec.ID)
		}
	}
}

// saysAck keeps what an ack promises. Promises are kept by what was sent and when, not by what the core notes.
func (w *world) saysAck(m *machine, to cluster.NodeID, a *wire.Ack, in node.Input) {
	if a.Number == 0 {
		return
	}
	p, _ := in.(*node.Packet)
	var hb *wire.Heartbeat
	if p != nil {
		hb, _ = p.Msg.(*wire.Heartbeat)
	}
	if hb == nil || p.From != to || hb.Seq != a.Seq || hb.Number != a.Number || p.Run != a.Run {
		w.fail("said", "%s acks heartbeat %d of %s, which it has not received just now", m.id, a.Seq, to)
		return
	}
	if noted := m.disk.image.Notes.LongestPromise; hb.L > noted {
		w.fail("said", "%s promises %s a lease of %v, its disk has noted %v", m.id, to, hb.L, noted)
	}
	if at, ok := w.check.heard.evicts[wire.Lease{Node: to, Number: a.Number}]; ok && m.holds(at) {
		w.fail("said", "%s promises number %d of %s, of which entry %d of its own log is the Evict", m.id, a.Number, to, at)
	}
	x := &m.speaker
	until := m.clock.read(w.now).Add(rho.Promised(hb.L))
	keep(&x.promises, promised{w.index(to), a.Number, until})
	for i := range x.lengths {
		if x.lengths[i].l == hb.L {
			x.lengths[i].until = until
			return
		}
	}
	x.lengths = append(x.lengths, length{hb.L, until})
}

// keep adds a promise, or lengthens that of the same number.
func keep(all *[]promised, p promised) {
	for i := len(*all) - 1; i >= 0; i-- {
		if q := &(*all)[i]; q.to == p.to && q.number == p.number {
			q.until = max(q.until, p.until)
			return
		}
	}
	*all = append(*all, p)
}

// holds tells whether an entry that was applied somewhere is durable here.
func (m *machine) holds(index uint64) bool {
	if s := m.disk.image.Snapshot; s != nil && s.Index >= index {
		return true
	}
	c := &m.w.check
	i := index - c.before
	return i < uint64(len(c.log)) && c.log[i].set && m.disk.termAt(index) == c.log[i].term
}

// noted checks a note that has become durable: the grace of the next run rests on it.
func (m *machine) noted() {
	now := m.clock.read(m.w.now)
	for _, x := range m.speaker.lengths {
		if x.until > now && x.l > m.disk.image.Notes.LongestPromise {
			m.w.fail("said", "%s notes that it promises leases of %v at the most; one of %v was promised and stands for %v",
				m.id, m.disk.image.Notes.LongestPromise, x.l, x.until.Sub(now))
		}
	}
}

func (w *world) saysRaft(m *machine, r *raftpb.Message) {
	d := &m.disk
	switch r.GetType() {
	case raftpb.MsgVoteResp, raftpb.MsgAppResp:
	default:
		return // a request, a heartbeat's answer and a prevote bind nobody
	}
	hard := d.image.Hard
	if r.GetTerm() > max(hard.Term, 1) {
		w.fail("said", "%s answers in term %d, its disk knows term %d", m.id, r.GetTerm(), hard.Term)
	}
	switch {
	case r.GetReject():
	case r.GetType() == raftpb.MsgVoteResp:
		if hard.Term == r.GetTerm() && hard.Vote != r.GetTo() {
			w.fail("said", "%s votes in term %d, and its disk holds another vote", m.id, r.GetTerm())
		}
	case r.GetIndex() > d.held():
		w.fail("said", "%s acknowledges entry %d, its disk holds %d", m.id, r.GetIndex(), d.held())
	default:
		w.saysMatch(m, r)
	}
}

// saysMatch checks that an entry which is acknowledged is the one that the leader has.
func (w *world) saysMatch(m *machine, r *raftpb.Message) {
	for _, o := range w.machines {
		if uint64(o.inc) != r.GetTo() {
			continue
		}
		mine, theirs := m.disk.termAt(r.GetIndex()), o.disk.newest(r.GetIndex(), r.GetTerm())
		if o.agent != nil && mine != 0 && theirs != 0 && mine != theirs && w.check.heard.leaders[r.GetTerm()] == o.inc {
			w.fail("said", "%s acknowledges entry %d, which is of term %d here and of %d on %s, who leads", m.id, r.GetIndex(), mine, theirs, o.id)
		}
	}
}

// newest returns the term of an entry as the core last wrote it, durable or not; 0: unknown, or its node is
// beyond the given term.
func (d *disk) newest(index, term uint64) uint64 {
	found := d.termAt(index)
	if d.image.Hard.Term > term {
		return 0
	}
	for _, list := range [][]cluster.Persist{d.cached, d.queue} {
		for i := range list {
			p := &list[i]
			if p.Hard != nil && p.Hard.Term > term || p.Snapshot != nil {
				return 0
			}
			if n := len(p.Entries); n > 0 && p.Entries[0].Index <= index {
				found = 0
				if index <= p.Entries[n-1].Index {
					found = p.Entries[index-p.Entries[0].Index].Term
				}
			}
		}
	}
	return found
}

// saysOver judges "nothing left", once what the step has applied is known.
func (w *world) saysOver(m *machine, out *node.Output) {
	for i := range out.Sends {
		hb, ok := out.Sends[i].Msg.(*wire.Heartbeat)
		if !ok || len(hb.Said) == 0 || i > 0 && out.Sends[i].Msg == out.Sends[i-1].Msg {
			continue
		}
		for _, l := range hb.Said {
			w.saysNothingLeft(m, hb, l)
		}
	}
}

func (w *world) saysNothingLeft(m *machine, hb *wire.Heartbeat, l wire.Lease) {
	at, committed := w.check.heard.evicts[l]
	switch {
	case !committed || m.applied < at:
		w.fail("said", "%s says that nothing is left of number %d of %s, and has applied no Evict of it", m.id, l.Number, l.Node)
	case !m.holds(at):
		w.fail("said", "%s says that nothing is left of number %d of %s, whose Evict is not durable here", m.id, l.Number, l.Node)
	case l.Node == m.id && hb.Number != 0 && hb.Number <= l.Number:
		w.fail("said", "%s says that nothing is left of its own number %d, and uses it", m.id, l.Number)
	}
	now, to := m.clock.read(w.now), w.index(l.Node)
	for i := range m.speaker.promises {
		if p := &m.speaker.promises[i]; p.to == to && p.number <= l.Number && p.until > now {
			w.fail("said", "%s says that nothing is left of number %d of %s, its promise stands for %v", m.id, l.Number, l.Node, p.until.Sub(now))
		}
	}
}

// entry takes what the log says of leases.
func (h *heardFrom) entry(index uint64, e *cluster.Entry) {
	for _, p := range e.Parts {
		switch {
		case p.Admit != nil:
			h.admits = append(h.admits, admitted{*p.Admit, index})
		case p.Evict != nil:
			if l := (wire.Lease{Node: p.Evict.Node, Number: p.Evict.Number}); h.evicts[l] == 0 {
				h.evicts[l] = index
			}
		}
	}
}

// begins notes that an agent starts: without a run record, what a former one used is gone for good.
func (m *machine) begins() {
	x := &m.speaker
	if m.record == nil {
		m.runsSince = 0
		x.dead, x.reach, x.released = x.used, 0, nil
	}
	x.number = 0
}

// putRecord makes a run record true.
func (m *machine) putRecord(r *cluster.Record) {
	m.record, m.dropped = r, false
	x := &m.speaker
	for g, gr := range r.Groups {
		for _, e := range gr.Released {
			if x.released == nil {
				x.released = map[released]bool{}
			}
			x.released[released{g, e}] = true
		}
	}
}

// lost keeps what a data directory's node had promised: its voters may still be counted on.
func (h *heardFrom) lost(m *machine) {
	if m.inc != 0 {
		h.former = append(h.former, former{m.inc, &m.clock, m.speaker.promises})
	}
	m.speaker = speaker{used: m.speaker.used, dead: m.speaker.used}
}

// started checks that what a resource is started for is on record, so that a later run knows of it.
func (m *machine) started(v *cluster.Want) {
	if v.Target != cluster.TargetRunning {
		return
	}
	if m.record == nil || m.record.Groups[v.Group].Activated < v.Epoch {
		m.w.fail("said", "%s starts %s/%s for epoch %d, which is not in its run record", m.id, v.Group, v.Resource, v.Epoch)
	}
}

// opensRightly checks a gate that was opened or renewed: its epoch is on record, and the lease is one that
// others have promised to leave in place for so long.
func (w *world) opensRightly(m *machine, group int, was gate) {
	g, id := m.gates[group], w.spec.Groups[group].ID
	now := m.clock.read(w.now)
	if g.end <= now || m.agent == nil {
		return
	}
	renewed := was.end > now && was.epoch == g.epoch
	switch r := m.record; {
	case r == nil || r.Groups[id].Activated < g.epoch: // a late write may open what is followed already, and not released
		w.fail("said", "%s serves %s under epoch %d, which is not activated in its run record", m.id, id, g.epoch)
	case slices.Contains(r.Groups[id].Released, g.epoch):
		w.fail("said", "%s serves %s under epoch %d, which its run record says was released", m.id, id, g.epoch)
	}
	if (g.end > was.end || !renewed) && !w.backed(m, g.end) && !m.relic.of(g) {
		w.fail("lease", "%s serves %s for %v, and no majority has promised it so much", m.id, id, g.end.Sub(now))
	}
}

// backed tells whether a majority of a set of voters that the machine knows has promised it its lease until
// then. Promises are compared in true time, by clocks that go on as they do now: within rho that can't turn out
// differently.
func (w *world) backed(m *machine, end cluster.Instant) bool {
	s := m.agent.State()
	if s == nil {
		return false
	}
	t := m.clock.when(end)
	for i := len(s.Sets) - 1; i >= 0; i-- {
		set, have := s.Sets[i].Voters, 0
		for _, v := range set {
			if v == m.inc || w.promisedBy(v, m.idx, t) {
				have++
			}
		}
		if len(set) > 0 && have >= cluster.Quorum(len(set)) {
			return true
		}
	}
	return false
}

// promisedBy tells whether a voter has promised a machine its lease until a true instant.
func (w *world) promisedBy(v cluster.Incarnation, to int, t int64) bool {
	for _, o := range w.machines {
		if o.inc == v {
			return covers(o.speaker.promises, to, o.clock.read(t))
		}
	}
	for i := range w.check.heard.former {
		if f := &w.check.heard.former[i]; f.inc == v {
			return covers(f.promises, to, f.clock.read(t))
		}
	}
	return false
}

func covers(all []promised, to int, at cluster.Instant) bool {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].to == to && all[i].until >= at {
			return true
		}
	}
	return false
}
