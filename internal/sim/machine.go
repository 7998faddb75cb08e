package sim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
)

const (
	// inboxPerSender is how many packets of one sender wait for an agent that does not run; the oldest go.
	inboxPerSender = 64
	// busyWakes is how often in a row an agent may ask to be called at once before it counts as looping.
	busyWakes = 2000
)

// gate is what the kernel knows of one group. It outlives the agent, not the boot. The real one also
// refuses an epoch older than it has seen; this one does not, so that the core alone is judged.
type gate struct {
	epoch cluster.Epoch
	end   cluster.Instant
}

// lateGate is a gate write that has not reached the kernel.
type lateGate struct {
	due int64
	cluster.Gate
}

// machine is one node: its hardware, its kernel, and the agent's process if that runs.
type machine struct {
	w        *world
	idx      int
	id       cluster.NodeID
	rand     *rand.Rand
	clock    clock
	wall     int64 // by which its wall clock has jumped
	disk     disk
	inc      cluster.Incarnation
	runs     uint64           // agents started on this data directory
	wiped    bool             // it has lost its disk, or never had one: it is to be let in
	out      bool             // it is not in the configuration
	file     *cluster.Spec    // its own cluster file
	speaker  speaker          // what an observer keeps of what it has said
	revision cluster.Revision // the newest that an observer has looked at here
	texts    map[string]bool  // of the configuration, that it has read

	// lost with the power
	powered   bool
	boot      cluster.BootID
	gates     []gate
	flushed   bool  // nothing is filtered: others took the gate out of the kernel
	mapped    bool  // that left the deadlines in place (eBPF)
	relic     relic // what a paused clock may leave
	resources []resource
	parts     [][]int // by group: its resources
	record    *cluster.Record
	dropped   bool // it was deleted: the next agent finds none

	// lost with the agent
	agent     *node.Node // nil: it does not run
	life      uint32     // counts agents and powers, so that what was meant for a former one is dropped
	checking  bool       // a look at the health of its programs is due
	run       cluster.RunID
	recording *node.Record
	asking    questions
	late      []lateGate
	unwritten []cluster.Gate // the newest write of each group that failed, to be tried again
	inbox     []node.Input
	applied   uint64
	lead      uint64

	frozen    bool
	still     bool    // suspended or paused: nothing happens in it
	held      []event // what would have happened meanwhile
	stalled   int64   // the machine does nothing until then
	due       int64   // when the agent wants to be called
	timer     int64   // the earliest wake event under way
	busy      int
	runsSince int64 // since when it says that its lease runs; 0: it does not
	hurt      int64 // when a fault that has to do with it last began or ended
	synced    int64 // the last sync's length, as told to the agent

	in struct { // inputs that Step does not keep
		packet   node.Packet
		tick     node.Tick
		stored   node.Stored
		recorded node.Recorded
		gated    node.Gated
	}
}

func (m *machine) coin(n int) bool { return m.rand.IntN(n) == 0 }

// between returns a length from a to b in nanoseconds.
func (m *machine) between(a, b time.Duration) int64 {
	if b <= a {
		return int64(a)
	}
	return int64(a) + m.rand.Int64N(int64(b-a))
}

func (m *machine) id64() uint64 {
	for {
		if v := m.rand.Uint64(); v != 0 {
			return v
		}
	}
}

// powerOn boots the machine; its agent starts a little later.
func (m *machine) powerOn() {
	if m.powered {
		return
	}
	m.powered, m.boot = true, cluster.BootID(m.id64())
	m.life++
	m.w.note(m, "boot %x", uint16(m.boot))
	m.w.push(m.w.now+m.between(5*time.Millisecond, 40*time.Millisecond), evAgent, m.idx, m.life, 0, 0)
}

// powerOff takes the power away: of the unsynced writes a random first part survives.
func (m *machine) powerOff() {
	if !m.powered {
		return
	}
	m.w.note(m, "power off")
	m.unpause()
	m.agentGone()
	m.over(Kill) // the next boot starts the agent
	m.over(Forget)
	m.powered, m.record, m.dropped, m.flushed, m.relic = false, nil, false, false, relic{}
	clear(m.gates)
	for i := range m.resources {
		r := &m.resources[i]
		r.status, r.busy, r.open, r.cancel, r.begun = cluster.StatusStopped, false, false, false, false
		r.gen++
	}
	m.losePower()
}

// wipe replaces the data directory by an empty one.
func (m *machine) wipe() {
	inc := cluster.Incarnation(m.id64())
	m.w.check.heard.lost(m)
	if m.inc == 0 || m.w.opt.Mutation != node.FormerSelf {
		m.inc, m.runs = inc, 0
	}
	m.disk = disk{image: cluster.DiskImage{Incarnation: m.inc}}
}

// data is what a data directory holds.
type data struct {
	image cluster.DiskImage
	inc   cluster.Incarnation
	runs  uint64
}

// setBack puts a former state of the data directory in place.
func (m *machine) setBack(to data) {
	m.disk, m.inc, m.runs = disk{image: to.image}, to.inc, to.runs
}

// survivors returns how many of n unsynced writes are kept: none, all, or some.
func (m *machine) survivors(n int) int {
	switch m.rand.IntN(3) {
	case 0:
		return 0
	case 1:
		return n
	}
	return m.rand.IntN(n + 1)
}

// kill ends the agent's process at once. What it had asked of the kernel is carried out or not.
func (m *machine) kill() {
	if m.agent == nil {
		m.life++ // an agent that was about to start does not
		return
	}
	m.w.note(m, "agent killed")
	if m.recording != nil && m.coin(2) && !m.faultOn(FailRecord, -1) {
		m.putRecord(&m.recording.Record)
	}
	for _, g := range m.late {
		if !m.coin(2) {
			break
		}
		m.setGate(g.Gate)
	}
	m.workersDied()
	m.agentGone()
	m.disk.killed(m.survivors(m.disk.written()))
	m.gateUnheld()
}

func (m *machine) agentGone() {
	m.w.check.outages.forget(m)
	m.agent, m.recording, m.late, m.inbox, m.unwritten = nil, nil, nil, nil, nil
	m.life++
	m.lead = 0
	m.due = far
	m.frozen = false
	m.over(Freeze) // who was frozen is gone
}

// over ends what faults of a kind do to the machine.
func (m *machine) over(k Kind) {
	for i := range m.w.running {
		if f := &m.w.running[i]; f.on && f.Kind == k && f.node == m.idx {
			f.on = false
		}
	}
}

// startAgent starts the agent's process on what it finds.
func (m *machine) startAgent() {
	if m.disk.gone {
		m.w.note(m, "its data directory was deleted")
		m.wipe()
		m.wiped = true
	}
	if m.dropped {
		m.w.note(m, "its run directory was deleted")
		m.record, m.dropped = nil, false
	}
	m.runs++
	m.run = cluster.NewRun(m.runs, uint32(m.id64()))
	m.applied, m.busy, m.synced, m.flushed = 0, 0, 0, m.faultOn(Ungate, -1)
	if m.record == nil {
		clear(m.gates)
	}
	m.begins()
	m.w.founding(m, m.disk.image.Founding)
	boot := &node.Boot{Boot: m.boot, Run: m.run, Disk: m.disk.read(), Record: cloneRecord(m.record)}
	if m.disk.image.Snapshot != nil {
		m.applied = m.disk.image.Snapshot.Index
	}
	for i, g := range m.gates {
		if g.end > 0 {
			boot.Gates = append(boot.Gates, cluster.GateState{Group: m.w.spec.Groups[i].ID, Epoch: g.epoch, End: g.end})
		}
	}
	for i := range m.resources {
		r := &m.resources[i]
		boot.Found = append(boot.Found, cluster.Done{Group: m.w.spec.Groups[r.group].ID, Resource: r.spec.ID, Status: r.found()})
	}
	m.w.note(m, "agent starts, run %d, record %v, log to %d", m.runs, m.record != nil, lastIndex(&boot.Disk))
	m.w.counts.Agents++
	m.agent = node.New(node.Config{Self: m.id, Spec: m.file, Read: m.read, Mutation: m.w.opt.Mutation, CompactAfter: m.w.plan.Compact})
	m.asking = questions{misses: map[netip.Addr]int{}}
	if m.w.judges() {
		m.w.push(m.w.now+m.between(0, time.Duration(m.w.askEvery())), evAsk, m.idx, m.life, 0, 0)
	}
	m.deliver(boot)
	if m.agent != nil {
		m.carriesOut(m.agent.Revision())
	}
	if m.agent != nil && m.observing() {
		m.deliver(m.observed())
	}
	m.checkHealth()
	if m.agent != nil && (m.faultOn(Lack, -1) || m.faultOn(Ungate, -1)) {
		m.tellLacks()
	}
}

func lastIndex(d *cluster.DiskImage) uint64 {
	if n := len(d.Entries); n > 0 {
		return d.Entries[n-1].Index
	}
	if d.Snapshot != nil {
		return d.Snapshot.Index
	}
	return 0
}

func cloneRecord(r *cluster.Record) *cluster.Record {
	if r == nil {
		return nil
	}
	c := *r
	c.Groups = maps.Clone(r.Groups)
	for k, g := range c.Groups {
		g.Released = slices.Clone(g.Released)
		c.Groups[k] = g
	}
	return &c
}

func (m *machine) blocked() bool { return m.frozen || m.still || m.w.now < m.stalled }

// deliver hands an input to the agent, now or as soon as it runs again.
func (m *machine) deliver(in node.Input) {
	if m.agent == nil {
		return
	}
	if m.blocked() || len(m.inbox) > 0 { // what came before comes first
		m.queue(in)
		return
	}
	m.step(in)
}

// queue keeps an input for an agent that does not run at the moment.
func (m *machine) queue(in node.Input) {
	p, ok := in.(*node.Packet)
	if !ok {
		m.inbox = append(m.inbox, in)
		return
	}
	n, oldest := 0, -1
	for i, q := range m.inbox {
		if q, ok := q.(*node.Packet); ok && q.From == p.From {
			if n++; oldest < 0 {
				oldest = i
			}
		}
	}
	if n >= inboxPerSender {
		m.inbox = slices.Delete(m.inbox, oldest, oldest+1)
	}
	c := *p
	m.inbox = append(m.inbox, &c)
}

// resume runs what has waited, packets before the tick.
func (m *machine) resume() {
	if m.blocked() || m.agent == nil {
		return
	}
	waiting := m.inbox
	m.inbox = nil
	for _, in := range waiting {
		if m.agent == nil || m.w.broken != nil {
			return
		}
		m.step(in)
	}
	m.writeLateGates()
	m.writeGatesAgain()
	m.wake()
}

// wake calls the agent if it is due, and sets the timer anew.
func (m *machine) wake() {
	if m.agent == nil || m.blocked() || m.w.broken != nil {
		return
	}
	if m.due <= m.w.now {
		m.step(&m.in.tick)
		return
	}
	m.setTimer()
}

func (m *machine) setTimer() {
	if m.due < m.timer {
		m.timer = m.due
		m.w.push(m.due, evWake, m.idx, 0, 0, 0)
	}
}

// step is the only place where the core runs. An agent that has not begun takes its Boot first, whatever else comes.
func (m *machine) step(in node.Input) {
	w := m.w
	if m.begun() > 0 {
		boot := m.inbox[0]
		m.inbox = m.inbox[1:]
		if m.step(boot); m.agent == nil || w.broken != nil {
			return
		}
	}
	out := m.call(in)
	if w.broken != nil || out == nil {
		return
	}
	w.counts.Steps++
	w.digest(m, out)
	w.says(m, in, out)
	if w.trace != nil {
		w.traceStep(m, in, out)
	}
	if out.Ask != nil {
		m.asking.others = out.Ask.Addresses
	}
	for i := range out.Gates {
		m.writeGate(out.Gates[i])
	}
	if r := out.Record; r != nil {
		m.recording = &node.Record{N: r.N, Record: *cloneRecord(&r.Record)}
		takes := int64(50 * time.Microsecond)
		if !reflect.DeepEqual(&r.Record, m.record) { // the trial of an idle node draws nothing
			takes = m.between(20*time.Microsecond, 80*time.Microsecond)
		}
		w.push(w.now+takes, evRecorded, m.idx, m.life, r.N, 0)
	}
	for i := range out.Sends {
		w.send(m, out.Sends[i].To, out.Sends[i].Msg)
	}
	for i := range out.Persists {
		m.persist(out.Persists[i])
	}
	for i := range out.Wants {
		m.want(out.Wants[i])
	}
	w.observe(m, out)
	if out.Spec != nil {
		m.refit(out.Spec)
		m.carriesOut(out.Revision)
	}
	if out.Left {
		m.leave()
		return
	}
	if out.SetBack {
		m.beginAnew()
		return
	}
	if out.Halted != "" {
		m.halted(out.Halted)
		return
	}
	m.nextWake(out.WakeAt)
}

// halted ends the agent of a node that can't read what the log holds, and what it ran. It is started again once
// it can.
func (m *machine) halted(why string) {
	m.w.note(m, "halts: %s", why)
	m.stopAll()
	m.disk.killed(len(m.disk.queue)) // it ends once all is written
	switch {
	case m.faultOn(Unreadable, -1):
	case slices.ContainsFunc(m.w.running, func(f active) bool { return f.Kind == Unreadable && f.node == m.idx }):
		// It has read the text while it could not, and keeps that: somebody starts its agent again.
		m.w.push(m.w.now+m.between(time.Millisecond, 50*time.Millisecond), evAgent, m.idx, m.life, 0, 0)
	default:
		m.w.fail("halted", "%s: %s", m.id, why)
	}
}

// beginAnew ends the agent of a node whose data directory was set back, and what it ran. Another begins with
// an empty one.
func (m *machine) beginAnew() {
	m.w.note(m, "puts its data directory aside")
	m.stopAll()
	m.wipe()
	m.wiped = true
	m.w.push(m.w.now+m.between(time.Millisecond, 50*time.Millisecond), evAgent, m.idx, m.life, 0, 0)
}

// carriesOut brings what is around the agent into line with a revision.
func (m *machine) carriesOut(r cluster.Revision) {
	m.w.push(m.w.now+m.between(10*time.Microsecond, 2*time.Millisecond), evFitted, m.idx, m.life, uint64(r), 0)
}

// refit stops what the configuration no longer names here.
func (m *machine) refit(spec *cluster.Spec) {
	m.file = spec
	for i := range m.resources {
		r := &m.resources[i]
		if g := spec.Group(m.w.spec.Groups[r.group].ID); g == nil || g.Prefers(m.id) < 0 {
			m.stopForGood(r)
		}
	}
}

func (m *machine) stopForGood(r *resource) {
	r.status, r.busy, r.open, r.cancel = cluster.StatusStopped, false, false, false
	r.gen++
}

// leave ends the agent of a node that has left the cluster, and what it ran.
func (m *machine) leave() {
	m.w.note(m, "leaves")
	m.stopAll()
	m.disk.killed(len(m.disk.queue)) // it ends once all is written
	m.out = true
}

// stopAll ends the agent with all that it ran, every gate shut.
func (m *machine) stopAll() {
	for i := range m.resources {
		m.stopForGood(&m.resources[i])
	}
	for i, g := range m.gates {
		if g.end > 0 {
			m.setGate(cluster.Gate{Group: m.w.spec.Groups[i].ID, Epoch: g.epoch})
		}
	}
	m.agentGone()
}

func (m *machine) wallTime() cluster.WallTime {
	return cluster.WallTime(m.w.calendar + m.w.now + m.wall)
}

func (m *machine) call(in node.Input) (out *node.Output) {
	defer func() {
		if r := recover(); r != nil {
			m.w.panicked(m, r)
		}
	}()
	now := cluster.Now{Mono: m.clock.read(m.w.now), Wall: m.wallTime()}
	return m.agent.Step(now, in)
}

func (m *machine) nextWake(at cluster.Instant) {
	t := m.clock.when(at)
	if t == far {
		m.due = far
		return
	}
	if t <= m.w.now {
		t = m.w.now
		if m.busy++; m.busy > busyWakes {
			m.w.fail("loop", "%s asks to be called at once %d times in a row", m.id, m.busy)
			return
		}
	} else {
		m.busy = 0
	}
	m.due = t + 10_000 + m.rand.Int64N(100_000)
	m.setTimer()
}

func (m *machine) want(w cluster.Want) {
	for i := range m.resources {
		r := &m.resources[i]
		if r.spec.ID == w.Resource && m.w.spec.Groups[r.group].ID == w.Group {
			m.started(&w)
			m.pursue(i, w)
			return
		}
	}
	m.w.fail("want", "%s wants %s/%s, which does not exist", m.id, w.Group, w.Resource)
}

func (m *machine) done(d cluster.Done) { m.deliver(&node.Done{Done: d}) }

// writeGate stores a gate in the kernel, at once or late, in order.
func (m *machine) writeGate(g cluster.Gate) {
	if m.gateFails(g) {
		return
	}
	late := m.w.lateness(m.idx)
	if late == 0 && len(m.late) == 0 {
		m.setGate(g)
		m.w.push(m.w.now+5_000, evGated, m.idx, m.life, g.N, 0)
		return
	}
	due := m.w.now + late
	if n := len(m.late); n > 0 {
		due = max(due, m.late[n-1].due)
	}
	m.late = append(m.late, lateGate{due, g})
	m.w.push(due, evGate, m.idx, m.life, 0, 0)
}

// writeLateGates carries out the writes that are due. A frozen process carries out none.
func (m *machine) writeLateGates() {
	for len(m.late) > 0 && m.late[0].due <= m.w.now && !m.blocked() {
		g := m.late[0].Gate
		m.late = slices.Delete(m.late, 0, 1)
		if m.gateFails(g) {
			continue
		}
		m.setGate(g)
		m.w.push(m.w.now+5_000, evGated, m.idx, m.life, g.N, 0)
	}
}

// setGate is the kernel's side.
func (m *machine) setGate(g cluster.Gate) {
	i := m.w.groupIndex(g.Group)
	if i < 0 {
		m.w.fail("gate", "%s opens a gate for %s, which does not exist", m.id, g.Group)
		return
	}
	end := g.End
	if g.Left != 0 {
		end = m.clock.read(m.w.now).Add(g.Left)
	}
	if m.flushed && !m.mapped && end > 0 && !m.faultOn(Ungate, -1) {
		m.flushed = false // an opening write makes the table anew
	}
	was := m.gates[i]
	m.gates[i] = gate{g.Epoch, end}
	m.w.opensRightly(m, i, was)
	m.w.gateChanged(m, i, was)
}

// serves tells whether the kernel lets a group's traffic through here, now.
func (m *machine) serves(group int) bool {
	if !m.powered || m.still {
		return false
	}
	if m.flushed {
		return m.fronts(group) // nothing filters: who has the address answers
	}
	return m.gates[group].end > m.clock.read(m.w.now)
}

// healthy tells whether clients get answers here: the gate is open, the uplink is there, and everything runs
// but what a person has stopped.
func (m *machine) healthy(group int) bool {
	if !m.serves(group) || m.uplinkDown() || m.offNet(group) {
		return false
	}
	for i := range m.resources {
		if r := &m.resources[i]; r.group == group && r.status != cluster.StatusRunning && !m.w.check.said.held(m.w.spec.Groups[group].ID, r.spec.ID) {
			return false
		}
	}
	return true
}

func (m *machine) persist(p cluster.Persist) {
	m.disk.submit(p)
	if m.disk.running == 0 {
		m.beginWrite()
	}
}

func (m *machine) beginWrite() {
	d := int64(cacheWrite)
	if m.disk.begin() {
		d = m.between(m.w.plan.SyncMin, m.w.plan.SyncMax)
		if slow := m.w.slowness(m.idx); slow > 0 {
			d = slow/2 + m.rand.Int64N(slow)
		}
		m.synced = -d
	}
	m.w.push(m.w.now+d, evDisk, m.idx, m.life, 0, 0)
}

func (m *machine) written() {
	if m.diskFails() {
		return
	}
	n := m.disk.finish()
	m.noted()
	m.w.founding(m, m.disk.image.Founding)
	if d := -m.synced; d > 0 && !m.w.plan.Blind {
		m.synced = d
		m.deliver(&node.Observed{Cut: m.cutGroups(), LinkDown: m.linksDown(), SyncNanos: d})
	}
	if m.blocked() {
		m.deliver(&node.Stored{N: n})
	} else {
		m.in.stored.N = n
		m.deliver(&m.in.stored)
	}
	if m.agent != nil && m.disk.running == 0 && len(m.disk.queue) > 0 {
		m.beginWrite()
	}
}

func (m *machine) observing() bool { return m.uplinkDown() || len(m.linksDown()) > 0 }

func (m *machine) observed() *node.Observed {
	return &node.Observed{Cut: m.cutGroups(), LinkDown: m.linksDown()}
}

func (m *machine) cutGroups() []cluster.GroupID {
	if !m.uplinkDown() {
		return nil
	}
	var all []cluster.GroupID
	for i := range m.w.spec.Groups {
		all = append(all, m.w.spec.Groups[i].ID)
	}
	return all
}

func (m *machine) linksDown() []bool {
	down := make([]bool, m.w.plan.Links)
	for i := range m.w.running {
		if f := &m.w.running[i]; f.on && (f.Kind == Carrier || f.Kind == FlapLink && f.down) {
			for l := range down {
				down[l] = down[l] || f.Link < 0 || f.Link == l
			}
		}
	}
	return down
}

// faultOn tells whether a fault of a kind acts on this machine (and group, unless -1).
func (m *machine) faultOn(k Kind, group int) bool {
	for i := range m.w.running {
		if f := &m.w.running[i]; f.on && f.Kind == k && f.node == m.idx && (group < 0 || f.group == group) {
			return true
		}
	}
	return false
}

func (m *machine) String() string { return fmt.Sprintf("%-7s", m.id) }
