package sim

import (
	"slices"
	"strings"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/core/wire"
)

// checker holds what an observer who sees everything knows. It shares nothing with the core.
type checker struct {
	groups   []served
	log      []applied
	before   uint64 // log index that the run began after
	founding []byte
	every    int64         // between two samples
	from     int64         // samples begin
	deadline int64         // goal Takeover: every group serves again from here on
	cause    time.Duration // goal Takeover, Still: when the fault comes
	said     instructed    // by people
	changed  int64         // when an instruction last took effect
	watch    bool          // goal Still: the tolerated faults have begun
	length   time.Duration // the longest lease of any revision
	heard    heardFrom     // of leases, by the log
	kept     kept          // instructions, bans, answers
	calm     calm          // whether anything was the matter
	agreed   agreed        // states and revisions
	outages  outages       // of clients, and what is on record of them
}

// served is what is known of a group's service.
type served struct {
	server  int // machine; -1: never served
	epoch   cluster.Epoch
	opening int64
	moves   []string                  // ids of the moves in the log: commands and failbacks
	froms   map[string]cluster.NodeID // by id: where the group was before
	permits []cluster.NodeID          // where they allow it to go, as far as they were not made use of yet
	mending mending
	returns returns
	down    int64 // since when samples have found nobody serving; 0: somebody does
}

// applied is one entry that some node has applied, for good.
type applied struct {
	term, digest uint64
	set          bool
	by           int
}

func (c *checker) init(w *world) {
	c.said.init()
	c.heard.init(w.plan)
	c.agreed.init()
	c.kept.init()
	c.outages.init(len(w.spec.Groups))
	c.groups = make([]served, len(w.spec.Groups))
	for i := range c.groups {
		c.groups[i].server = -1
	}
	c.length = w.spec.Timing.L
	for i := range w.plan.Faults { // what a change may make of it
		if f := &w.plan.Faults[i]; f.Kind == Apply {
			if r, err := w.plan.change(w.plan.first(), strings.Fields(f.Words)); err == nil {
				if t, err := derive(r.Takeover); err == nil {
					c.length = max(c.length, t.L)
				}
			}
		}
	}
	l := int64(w.spec.Timing.L)
	c.every = max(l/8, int64(2*time.Millisecond))
	switch w.plan.Goal {
	case Safety:
		return
	case Converge:
		c.from = int64(w.plan.Run + w.settling())
	case Mend:
		if len(w.plan.Faults) > 0 {
			c.from = int64(w.plan.Faults[0].At) - 1
		}
	default:
		// One look just before the fault: was the cluster well at all?
		if len(w.plan.Faults) > 0 {
			c.cause = w.plan.cause(w.settling() + 3*c.length)
			c.from = int64(c.cause) - 1
			c.deadline = c.from + 1 + int64(w.spec.Timing.Promised(w.plan.Takeover)) // in true time: clocks may run slow by rho
		}
		if w.plan.Goal == Takeover {
			c.every = l / 200
		}
	}
	w.push(c.from, evSample, 0, 0, 0, 0)
}

// cause returns when the fault comes whose takeover is measured: the last that comes once all before it have ended
// and the cluster has settled. What follows sooner (a stall that must fit, say) belongs to it. Loss that was there
// before is a condition of the network, and need not have ended.
func (p *Plan) cause(settled time.Duration) time.Duration {
	cause, quiet := time.Duration(-1), time.Duration(0)
	for i := range p.Faults {
		f := &p.Faults[i]
		if p.Goal == Takeover && f.Kind == Loss {
			continue
		}
		if cause < 0 || p.Goal == Takeover && f.At >= quiet {
			cause = f.At
		}
		if end := f.At + f.For + settled; shapes[f.Kind].lasts && f.For == 0 {
			quiet = time.Duration(far)
		} else {
			quiet = max(quiet, end)
		}
	}
	if cause < 0 {
		return p.Faults[0].At
	}
	return cause
}

// settling bounds how long a cluster may need once all faults have ended: 3 L, and what boots and starts.
func (p *Plan) settling(l time.Duration) time.Duration {
	if p.Settle > 0 {
		return p.Settle
	}
	start := time.Duration(0)
	for _, g := range p.Groups {
		start = max(start, g.Start)
	}
	var queued time.Duration // a full queue still delivers what it held when the fault ended
	for i := range p.Faults {
		if f := &p.Faults[i]; f.Kind == Bloat {
			queued = max(queued, f.Amount)
		}
	}
	return 3*l + 2*start + settleSlack + queued
}

func (w *world) settling() time.Duration { return w.plan.settling(w.check.length) }

// plannedGap is what a planned move may take beside the start.
const plannedGap = 100 * time.Millisecond

// settleSlack covers the boot of a machine, the start of its agent, elections among slow disks.
const settleSlack = 500 * time.Millisecond

// tail returns how long the run goes on after the faults.
func (p *Plan) tail(l time.Duration) time.Duration {
	if p.Tail > 0 {
		return p.Tail
	}
	if p.Goal == Converge {
		return p.settling(l) + 2*l + time.Second
	}
	return 0
}

// gateChanged checks a write of the kernel's gate. Gates only close by themselves, so that two can be
// open at once only from the instant of a write on: it is enough to look then.
func (w *world) gateChanged(m *machine, group int, was gate) {
	now := m.clock.read(w.now)
	g := m.gates[group]
	if g.end <= now {
		if was.end > now {
			w.note(m, "gate of %s closes (epoch %d)", w.spec.Groups[group].ID, was.epoch)
			w.tell("%s no longer serves %s", m.id, w.spec.Groups[group].ID)
		}
		return
	}
	if was.end > now && was.epoch == g.epoch {
		return // a renewal
	}
	w.note(m, "gate of %s opens (epoch %d, for %v)", w.spec.Groups[group].ID, g.epoch, g.end.Sub(now))
	w.tell("%s serves %s, epoch %d", m.id, w.spec.Groups[group].ID, g.epoch)
	w.opened(m, group, g.epoch)
}

func (w *world) opened(m *machine, group int, epoch cluster.Epoch) {
	id := w.spec.Groups[group].ID
	for _, o := range w.machines {
		if o != m && o.serves(group) && !w.excused(o, group) && !m.relic.of(m.gates[group]) {
			left := o.gates[group].end.Sub(o.clock.read(w.now))
			w.fail("invariant 1", "%s serves %s (epoch %d) while %s still does (epoch %d, for %v)",
				m.id, id, epoch, o.id, o.gates[group].epoch, left)
		}
	}
	s := &w.check.groups[group]
	if epoch < s.epoch && m.relic.of(m.gates[group]) {
		w.counts.Relics++ // by a clock that stood still: nothing of it counts
		return
	}
	w.place(m, id, epoch)
	switch {
	case epoch < s.epoch:
		w.fail("invariant 2", "%s serves %s under epoch %d after %s did under %d", m.id, id, epoch, w.machines[s.server].id, s.epoch)
	case epoch == s.epoch && s.server >= 0 && s.server != m.idx:
		w.fail("invariant 2", "%s and %s both served %s under epoch %d", m.id, w.machines[s.server].id, id, epoch)
	}
	if w.check.watch {
		w.fail("invariant 5", "the gate of %s on %s opens under epoch %d (it was %d): a tolerated fault has moved or interrupted it",
			id, m.id, epoch, s.epoch)
	}
	if s.server != m.idx {
		if s.server >= 0 && w.spec.Groups[group].Failover == cluster.FailoverManual && !s.use(m.id) && !w.check.said.asked[placement{id, m.id, epoch}] {
			w.fail("invariant 6", "%s, which only a command may move, went from %s to %s", id, w.machines[s.server].id, m.id)
		}
		if s.server >= 0 && w.spec.Groups[group].Failover != cluster.FailoverManual {
			s.use(m.id)
		}
		w.counts.Moves++
		if s.server >= 0 {
			w.check.moved(w, group, m.idx)
		}
	}
	w.counts.Openings++
	w.check.kept.served[placement{group: id, node: m.id}] = w.now
	s.server, s.epoch, s.opening = m.idx, epoch, w.now
}

// observe checks what a step tells observers.
func (w *world) observe(m *machine, out *node.Output) {
	for i := range out.Sends {
		w.identity(m, out.Sends[i].Msg)
	}
	for i := range out.Applied {
		w.applied(m, &out.Applied[i])
	}
	w.stays(m, out)
	if x := m.agent.State(); x != nil { // a snapshot from another counts once it is stored
		m.speaker.reach = max(m.speaker.reach, min(m.applied, x.Applied))
	}
	w.saysOver(m, out)
	w.states(m, out)
	w.stands(m, out)
	w.replies(m, out)
	w.adopted(m)
	for i := range out.Persists { // after what was applied: a node's own snapshot is of what it has just applied
		if s := out.Persists[i].Snapshot; s != nil {
			m.applied = max(m.applied, s.Index)
		}
	}
	for i := range out.Decided {
		w.counts.Rules[out.Decided[i].Rule]++
		if w.watcher != nil {
			w.watcher.decided(w, &out.Decided[i])
		}
	}
	for i := range out.Replies {
		if out.Replies[i].Done {
			w.counts.Replies++
		} else {
			w.counts.Refusals++
		}
		if w.watcher != nil {
			w.watcher.said = append(w.watcher.said, out.Replies[i])
		}
	}
}

// identity checks invariant 8: nobody heartbeats, promises or votes as an incarnation that it is not.
func (w *world) identity(m *machine, msg message) {
	as := m.inc
	switch v := msg.(type) {
	case *wire.Heartbeat:
		as, m.lead = v.Incarnation, v.Lead
	case *wire.Ack:
		as = v.Incarnation
	case *wire.Raft:
		as = cluster.Incarnation(v.Msg.GetFrom())
	}
	if as != m.inc {
		w.fail("invariant 8", "%s, whose incarnation is %x, says as %x: %s", m.id, uint64(m.inc), uint64(as), w.brief(msg))
	}
}

// applied checks invariant 3: one entry per index, whoever applies it, and in order.
func (w *world) applied(m *machine, e *cluster.LogEntry) {
	if e.Index <= m.applied {
		w.fail("invariant 3", "%s applies entry %d again, or late: it has applied %d", m.id, e.Index, m.applied)
	}
	m.applied = e.Index
	c := &w.check
	for uint64(len(c.log)) <= e.Index-c.before {
		c.log = append(c.log, applied{})
	}
	d := bytesDigest(e.Data)
	a := &c.log[e.Index-c.before]
	if a.set && (a.term != e.Term || a.digest != d) {
		w.fail("invariant 3", "%s applies another entry %d (term %d) than %s did (term %d)", m.id, e.Index, e.Term, w.machines[a.by].id, a.term)
	}
	if !a.set {
		w.announced(m, e)
		*a = applied{term: e.Term, digest: d, set: true, by: m.idx}
		w.counts.Entries++
	}
}

// announced notes each move that stands in the log, by a command or by the group's failback policy: it
// permits one change of the node, however often its entry comes.
func (w *world) announced(m *machine, e *cluster.LogEntry) {
	if len(e.Data) == 0 {
		w.keeps(e, nil)
		return
	}
	d, err := cluster.DecodeEntry(e.Data)
	if err != nil {
		w.fail("invariant 3", "entry %d can't be read: %v", e.Index, err)
		return
	}
	if w.watcher != nil {
		w.watcher.entry(w, d)
	}
	w.check.heard.entry(e.Index, d)
	w.check.agreed.entry(e.Index, d)
	w.keeps(e, d)
	w.calmEntry(d)
	if w.check.said.read(d) {
		w.check.changed = w.now
	}
	for _, p := range d.Parts {
		switch {
		case p.Served != nil:
			w.served(m, p.Served)
		case p.Amend != nil:
			w.amended(m, p.Amend)
		}
		if e := p.MoveEnd; e != nil && !e.Done {
			s := &w.check.groups[w.groupIndex(e.Group)]
			s.permit(s.froms[e.ID]) // what failed on the target goes back where it was
		}
		if p.Move == nil {
			continue
		}
		if s := &w.check.groups[w.groupIndex(p.Move.Group)]; !slices.Contains(s.moves, p.Move.ID) {
			s.moves = append(s.moves, p.Move.ID)
			s.permit(p.Move.To)
			if s.froms == nil {
				s.froms = map[string]cluster.NodeID{}
			}
			s.froms[p.Move.ID] = p.Move.From
		}
	}
}

// founding checks that there is one founding record: one that a crash took before it was durable was never
// told to anybody, and is none.
func (w *world) founding(m *machine, record []byte) {
	if record == nil {
		return
	}
	if w.check.founding == nil {
		w.check.founding = record
	}
	if string(w.check.founding) != string(record) && !w.unreached(record) {
		w.fail("invariant 3", "%s has stored another founding record than the first", m.id)
	}
}

// sample looks whether clients of each group get answers, where the goal says that they must.
func (c *checker) sample(w *world) {
	if w.plan.Goal == Mend {
		c.mend(w)
		return
	}
	c.watch = w.plan.Goal == Still
	for g := range w.spec.Groups {
		s := &c.groups[g]
		if !w.expected(g) || slices.ContainsFunc(w.machines, func(m *machine) bool { return m.healthy(g) }) {
			if s.down != 0 && w.plan.Goal == Takeover {
				w.counts.Outages++
				w.counts.Worst = max(w.counts.Worst, int((w.now-s.down)*1000/int64(w.plan.Takeover)))
			}
			s.down = 0
			continue
		}
		if s.down == 0 {
			s.down = w.now
		}
		if w.plan.Goal == Takeover && w.now > c.from && w.now < c.deadline {
			continue
		}
		if w.plan.Goal == Takeover && w.now > c.deadline && time.Duration(w.now-s.down) < plannedGap {
			continue // a handover: a disk that hangs is found, and left, only later
		}
		if w.plan.Goal == Converge && c.changed > 0 && (time.Duration(w.now-c.changed) < w.settling() || w.restarting(g)) {
			s.down = w.now // its time begins when that is over
			continue
		}
		if w.plan.Goal == Converge && time.Duration(w.now-s.down) < w.plan.Groups[w.planGroup[g]].Start+plannedGap {
			continue // a planned move, such as a failback, restarts what does not stand by hot
		}
		rule := "invariant 4"
		if w.plan.Goal == Still && w.now > c.from {
			rule = "invariant 5"
		}
		w.fail(rule, "nobody serves %s although %s", w.spec.Groups[g].ID, c.because(w))
	}
	w.push(w.now+c.every, evSample, 0, 0, 0, 0)
}

func (c *checker) because(w *world) string {
	switch {
	case w.plan.Goal == Converge:
		return "the last fault ended " + (time.Duration(w.now) - w.plan.Run).String() + " ago"
	case w.now == c.from:
		return "no fault has happened yet"
	}
	return "the fault happened " + (time.Duration(w.now) - c.cause).String() + " ago"
}

// expected tells whether a group must be served now: a majority of the voters is well, and a node that
// may run it, on which it never failed, is well too; and no instruction keeps it from being served.
func (w *world) expected(group int) bool {
	spec := w.latest.spec.Group(w.spec.Groups[group].ID)
	if spec == nil || spec.Failover == cluster.FailoverManual && w.plan.Goal != Still {
		return false
	}
	said := &w.check.said
	well, able := 0, 0
	for i, m := range w.machines {
		if w.unfit(i) {
			continue
		}
		if w.latest.applied == 0 || w.votes(m) {
			well++
		}
		_, drained := said.drained[m.id]
		if spec.Prefers(m.id) >= 0 && !drained && said.forbids(spec.ID, m.id) == "" && !w.failedOn(i, group) {
			able++
		}
	}
	return well >= cluster.Quorum(max(len(w.latest.voters), len(w.latest.spec.Nodes))) && able > 0
}

// unfit tells whether a fault that acts at the moment keeps a node from serving anything.
func (w *world) unfit(m int) bool {
	if x := w.machines[m]; x.out || x.wiped && !w.votes(x) {
		return true
	}
	for i := range w.running {
		f := &w.running[i]
		if !f.on || f.node != m {
			continue
		}
		switch f.Kind {
		case Power, Wipe, SetBack, Kill, Forget, Freeze, Isolate, OneWay, HangDisk, Uplink, Starve, FailGate, FailRecord,
			DiskFull, DiskError, Suspend, PauseClock, Skew, FlapUplink, Unreadable, Ungate,
			Port, PortIn, PortOut, Unreach:
			return true
		}
	}
	return false
}

// failedOn tells whether the group has been made to fail on the node: it may be banned there.
func (w *world) failedOn(m, group int) bool {
	for i := range w.running {
		f := &w.running[i]
		if f.node != m && f.Kind != NoAnswer || f.group != group {
			continue
		}
		switch f.Kind {
		case Fail, NoStart, NoStop, Unanswered, NoAnswer: // of the last, no other node may have known
			if w.plan.Goal != Mend || time.Duration(w.now)-f.At-f.For < bannedFor {
				return true
			}
		case Lack:
			if f.on {
				return true
			}
		}
	}
	return false
}

// finish looks at the end of a run.
func (c *checker) finish(w *world) {
	c.unfinished(w)
	w.compareAll()
	w.remains()
	w.unrecorded()
	for i := range w.spec.Groups {
		if c.groups[i].server >= 0 {
			w.counts.Groups++
		}
	}
}

// unfinished checks that no change of the configuration or of the voters is stuck though the faults have ended:
// where every node of the configuration is well, all of them vote, and no draft is under way.
func (c *checker) unfinished(w *world) {
	if w.plan.Goal != Converge || w.latest.applied == 0 {
		return
	}
	for i, m := range w.machines {
		if w.latest.spec.Node(m.id) == nil {
			continue
		}
		if f := w.machines[i]; !f.powered || f.agent == nil || f.frozen || w.hindered(i) {
			return
		}
	}
	for _, m := range w.machines {
		if in := w.latest.spec.Node(m.id) != nil; in && !w.votes(m) {
			w.fail("stuck", "%s does not vote although every node is well", m.id)
		}
	}
	if w.latest.draft {
		w.fail("stuck", "a draft of revision %d is under way although every node is well", w.latest.revision+1)
	}
}

// hindered tells whether a fault acts on a node that keeps it from taking part.
func (w *world) hindered(m int) bool {
	for i := range w.running {
		if f := &w.running[i]; f.on && (f.node == m || f.peer == m || f.node < 0) && shapes[f.Kind].lasts && f.Kind != NoStart && f.Kind != NoStop {
			return true
		}
	}
	return false
}
