// Package sim runs the real core of several nodes on a virtual network, clock, disk and kernel, all
// from one seed, and checks the invariants of the protocol after every step, in true time. A group is
// served where the simulated kernel's gate would let its traffic through, whatever an agent believes.
package sim

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/core/node"
	"baton/internal/core/state"
	"baton/internal/core/wire"
)

const (
	// wallStart is what calendars show when a run begins.
	wallStart = int64(1_800_000_000_000_000_000)
	// stallFits is the stall of a machine that every takeover time allows for.
	stallFits = 15 * time.Millisecond
)

// derive chooses the timers of a simulated cluster.
func derive(takeover time.Duration) (cluster.Timing, error) {
	t, _, err := config.Derive(takeover, stallFits, time.Millisecond, time.Millisecond)
	return t, err
}

// active is a fault of the plan with what its names stood for when it began.
type active struct {
	*Fault
	on                bool
	down              bool // a flap is at its bad turn
	node, peer, group int
	copies            []data // of every machine's data directory, for SetBack
}

// world is everything outside the cores, and the instant.
type world struct {
	plan      *Plan
	opt       Options
	spec      *cluster.Spec            // every node and group that the plan knows
	specs     map[string]*cluster.Spec // read from the texts of revisions
	latest    latest
	planGroup []int // index in the plan of each group of the specification
	groupOf   map[wire.GroupKey]cluster.GroupID

	reader   state.Reader // reads the texts of revisions
	outcome  *outcome     // nil: nobody asks for it
	onlooker *onlooker    // nil: nobody looks
	watcher  *watcher     // keeps what happens to each group, for a forecast; nil: nobody asks
	calendar int64        // what calendars show when the run begins

	now      int64
	queue    queue
	machines []*machine
	net      network
	running  []active // all faults of the plan
	rand     *rand.Rand
	commands uint64
	clients  []client // one per group, where the plan has them

	check  checker
	trace  *trace
	hash   uint64
	counts Counts
	broken *Violation

	stopped bool // from outside (Options.Done)
}

func newWorld(p *Plan, opt Options) (*world, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	spec, err := p.spec()
	if err != nil {
		return nil, err
	}
	w := makeWorld(p, opt, spec)
	first, err := w.read(p.first().text())
	if err != nil {
		return nil, err
	}
	w.latest.spec = first
	for i, m := range w.machines {
		m.file, m.out = first, first.Node(spec.Nodes[i].ID) == nil
	}
	w.check.init(w)
	w.scheduleFaults()
	w.beginClients()
	for i, m := range w.machines {
		w.push(m.between(0, 50*time.Millisecond), evBoot, i, 0, 0, 0)
		w.nextStall(m)
	}
	return w, nil
}

// makeWorld makes the machines, all without power, and the network between them.
func makeWorld(p *Plan, opt Options, spec *cluster.Spec) *world {
	w := &world{plan: p, opt: opt, spec: spec, calendar: wallStart, rand: rand.New(rand.NewPCG(p.Seed, 1)), hash: 14695981039346656037}
	w.reader = w.read
	if opt.Outcome {
		w.outcome = new(outcome)
	}
	if opt.Looks {
		w.onlooker = &onlooker{rand: rand.New(rand.NewPCG(p.Seed, 4))}
	}
	w.counts.init()
	if opt.Trace != nil {
		w.trace = &trace{to: opt.Trace, packets: opt.Packets}
	}
	w.groupOf = make(map[wire.GroupKey]cluster.GroupID)
	for i := range spec.Groups {
		w.groupOf[wire.KeyOf(spec.Groups[i].ID)] = spec.Groups[i].ID
		w.planGroup = append(w.planGroup, p.group(spec.Groups[i].ID))
	}
	w.specs = make(map[string]*cluster.Spec)
	for i := range spec.Nodes {
		w.machines = append(w.machines, w.newMachine(i))
	}
	w.net = newNetwork(p.Links, len(w.machines), rand.New(rand.NewPCG(p.Seed, 2)))
	return w
}

// scheduleFaults makes the plan's faults happen when they are due.
func (w *world) scheduleFaults() {
	for i := range w.plan.Faults {
		w.running = append(w.running, active{Fault: &w.plan.Faults[i], node: -1, peer: -1, group: -1})
		w.push(int64(w.plan.Faults[i].At), evFault, 0, 0, 0, int32(i))
		if f := &w.plan.Faults[i]; f.Kind == SetBack {
			w.push(int64(max(0, f.At-f.Amount)), evCopy, 0, 0, 0, int32(i))
		}
	}
}

// copyDisks keeps what every disk holds now: the fault's node may be named by what it does then.
func (w *world) copyDisks(fault int) {
	f := &w.running[fault]
	for _, m := range w.machines {
		f.copies = append(f.copies, data{m.disk.read(), m.inc, m.runs})
	}
}

func (w *world) newMachine(i int) *machine {
	id := w.spec.Nodes[i].ID
	m := &machine{w: w, idx: i, id: id, rand: rand.New(rand.NewPCG(w.plan.Seed, uint64(100+i))), timer: far, due: far}
	m.clock = clock{base: int64(time.Hour) + m.rand.Int64N(int64(24*time.Hour)), ppm: w.plan.Nodes[w.plan.node(id)].PPM}
	m.wipe()
	m.gates, m.parts = make([]gate, len(w.spec.Groups)), make([][]int, len(w.spec.Groups))
	for g := range w.spec.Groups {
		spec := &w.spec.Groups[g]
		if spec.Prefers(id) < 0 {
			continue
		}
		for r := range spec.Resources {
			m.parts[g] = append(m.parts[g], len(m.resources))
			m.resources = append(m.resources, resource{group: g, spec: &spec.Resources[r], status: cluster.StatusStopped})
		}
	}
	return m
}

func (w *world) push(at int64, k eventKind, n int, gen uint32, num uint64, idx int32) {
	w.queue.push(event{at: at, kind: k, node: uint8(n), gen: gen, n: num, idx: idx})
}

// run lets the world go on until the plan's end or the first violation.
func (w *world) run() {
	end := int64(w.plan.Run + w.plan.tail(w.check.length))
	for n := uint(0); w.broken == nil; n++ {
		if n%1024 == 0 && w.opt.stopped() { // each event would cost more than many of them do
			w.stopped = true
			return
		}
		e, ok := w.queue.pop()
		if !ok || e.at > end {
			break
		}
		w.now = e.at
		w.happen(&e)
		w.check.outages.look(w)
		w.onlooker.glance(w)
	}
	if w.broken == nil {
		w.now = end
		w.check.finish(w)
	}
}

func (w *world) happen(e *event) {
	m := w.machines[e.node]
	if m.still && m.keepsBack(e) {
		return
	}
	switch e.kind {
	case evPacket:
		w.arrive(m, w.net.under.take(e.idx))
		return
	case evWake:
		if e.at == m.timer {
			m.timer = far
		}
		m.wake()
		return
	case evFault:
		w.begin(int(e.idx))
		return
	case evFaultEnd:
		w.end(int(e.idx))
		return
	case evCopy:
		w.copyDisks(int(e.idx))
		return
	case evSample:
		w.check.sample(w)
		return
	case evLook:
		w.watcher.look(w)
		return
	case evClients:
		w.askClients()
		return
	case evFlap:
		w.flap(int(e.idx))
		return
	case evStarve:
		w.starve(int(e.idx))
		return
	case evStall:
		w.stall(m)
		return
	case evResume:
		m.resume()
		return
	case evBoot:
		if !w.off(m) && !m.out {
			m.powerOn()
		}
		return
	case evDone:
		if e.gen == m.resources[e.idx].gen && m.agent != nil {
			m.finished(int(e.idx))
		}
		return
	}
	if e.gen != m.life {
		return
	}
	switch e.kind {
	case evGated:
		if m.blocked() {
			m.deliver(&node.Gated{N: e.n})
			return
		}
		m.in.gated.N = e.n
		m.deliver(&m.in.gated)
	case evGate:
		m.writeLateGates()
	case evGateAgain:
		m.writeGatesAgain()
	case evSweep:
		m.sweep()
	case evAsk:
		m.askAround()
	case evHealth:
		m.findHealth()
	case evAnnounce:
		m.announce(int(e.idx))
	case evDisk:
		m.written()
	case evFitted:
		m.deliver(&node.Fitted{Revision: cluster.Revision(e.n)})
	case evRecorded:
		if m.recording == nil || m.recording.N != e.n || m.faultOn(FailRecord, -1) {
			return
		}
		m.putRecord(&m.recording.Record)
		m.recording = nil
		m.deliver(&node.Recorded{N: e.n})
	case evAgent:
		if !m.powered || m.agent != nil || w.killed(m) {
			return
		}
		if m.refuses() {
			w.push(w.now+int64(startsAgain), evAgent, m.idx, m.life, 0, 0)
			return
		}
		m.startAgent()
	}
}

func (w *world) arrive(m *machine, p packet) {
	if m.agent == nil {
		return
	}
	if w.trace != nil {
		w.tracePacket(m, &p)
	}
	in := &m.in.packet
	*in = node.Packet{From: w.machines[p.from].id, Run: p.run, Link: int(p.link), Msg: p.msg}
	m.deliver(in)
}

func (w *world) nextStall(m *machine) {
	if w.plan.StallEvery > 0 {
		w.push(w.now+int64(w.plan.StallEvery)/4+m.rand.Int64N(int64(w.plan.StallEvery)*3/2), evStall, m.idx, 0, 0, 0)
	}
}

func (w *world) stall(m *machine) {
	m.stalled = max(m.stalled, w.now+m.between(time.Millisecond, w.plan.StallMax))
	w.push(m.stalled, evResume, m.idx, 0, 0, 0)
	w.nextStall(m)
}

func (w *world) index(id cluster.NodeID) int {
	for i, m := range w.machines {
		if m.id == id {
			return i
		}
	}
	return -1
}

func (w *world) groupIndex(id cluster.GroupID) int {
	for i := range w.spec.Groups {
		if w.spec.Groups[i].ID == id {
			return i
		}
	}
	return -1
}

// off and killed tell whether a fault keeps the machine or its agent down.
func (w *world) off(m *machine) bool {
	return m.faultOn(Power, -1) || m.faultOn(Wipe, -1) || m.faultOn(SetBack, -1)
}

func (w *world) killed(m *machine) bool { return m.faultOn(Kill, -1) || m.faultOn(Forget, -1) }

// slowness returns the length of a sync by fault; 0: the disk is well.
func (w *world) slowness(m int) int64 { return w.greatest(SlowDisk, m) }

// lateness returns by how much gate writes are late by fault.
func (w *world) lateness(m int) int64 { return w.greatest(LateGate, m) }

func (w *world) greatest(k Kind, m int) int64 {
	most := int64(0)
	for i := range w.running {
		if f := &w.running[i]; f.on && f.Kind == k && f.node == m {
			most = max(most, int64(f.Amount))
		}
	}
	return most
}

// resolve turns a name of the plan into a machine.
func (w *world) resolve(name string) int {
	owner, lead := w.check.owner(0), w.coordinator()
	switch name {
	case "":
		return -1
	case TheOwner:
		return max(owner, 0)
	case TheCoordinator:
		return max(lead, 0)
	case TheOther:
		for i := range w.machines {
			if i != owner && i != lead {
				return i
			}
		}
	}
	return w.index(cluster.NodeID(name))
}

// coordinator returns who last said that it leads, in the highest term; -1: nobody.
func (w *world) coordinator() int {
	best := -1
	for i, m := range w.machines {
		if m.lead > 0 && (best < 0 || m.lead > w.machines[best].lead) {
			best = i
		}
	}
	return best
}

// begin lets a fault act.
func (w *world) begin(i int) {
	f := &w.running[i]
	f.node, f.peer = w.resolve(f.Node), w.resolve(f.Peer)
	if f.Group != "" {
		f.group = w.groupIndex(cluster.GroupID(f.Group))
	}
	f.on = true
	w.disturbed()
	w.hurts(f)
	w.counts.Faults[f.Kind]++
	w.note(nil, "fault: %v", f.Fault)
	w.check.changedBy(w, true)
	if f.For > 0 && shapes[f.Kind].lasts {
		w.push(w.now+int64(f.For), evFaultEnd, 0, 0, 0, int32(i))
	}
	var m *machine
	if f.node >= 0 {
		m = w.machines[f.node]
	}
	switch f.Kind {
	case Power:
		m.powerOff()
	case Wipe:
		m.powerOff()
		m.wipe()
		m.wiped = true
	case SetBack:
		m.powerOff()
		m.setBack(f.copies[m.idx])
	case Kill:
		m.kill()
	case Forget:
		m.kill()
		m.record = nil
		clear(m.gates)
	case Freeze:
		m.frozen = true
	case Drift:
		m.clock.bend(w.now, f.PPM)
	case Wall:
		m.wall += int64(f.Amount)
	case Fail:
		m.fail(f.group)
	case DropRun:
		m.dropRun()
	case DropData:
		m.disk.gone = m.inc != 0
	case FlushGate:
		m.flush()
	case Ungate:
		m.flush()
		m.tellLacks()
	case Suspend, PauseClock:
		m.stop(f.Kind)
	case Starve:
		w.starve(i)
	case FlapLink, FlapUplink:
		f.down = true
		w.push(w.now+int64(f.Second), evFlap, 0, 0, 0, int32(i))
	case Lack:
		m.lack(f.group)
	case NoAnswer, Unanswered:
		w.check.outages.groups[f.group].doubted = true
		for _, m := range w.machines {
			m.checkHealth()
		}
	case DropAddr:
		m.dropAddress(f.group)
	case Switch, Failback, Pause, Resume, Pin, Unpin, Drain, Undrain, Stop, Start, Restart, Clear:
		w.command(f)
	case Apply:
		w.apply(f)
	case Form:
		w.form(f)
	}
	if !shapes[f.Kind].lasts {
		f.on = false
	}
	w.conditions(f)
}

// end lets a fault cease.
func (w *world) end(i int) {
	f := &w.running[i]
	f.on = false
	w.disturbed()
	w.hurts(f)
	w.note(nil, "fault ends: %v", f.Fault)
	w.check.changedBy(w, false)
	switch f.Kind {
	case Power, Wipe, SetBack:
		if m := w.machines[f.node]; !w.off(m) && (!m.out || m.disk.image.Hard.Term > 0) {
			m.powerOn()
		}
	case Kill, Forget, Unreadable:
		if m := w.machines[f.node]; m.powered && m.agent == nil && !w.killed(m) {
			w.push(w.now+m.between(time.Millisecond, 5*time.Millisecond), evAgent, m.idx, m.life, 0, 0)
		}
	case Freeze:
		m := w.machines[f.node]
		m.frozen = m.faultOn(Freeze, -1)
		m.resume()
	case HangDisk:
		w.machines[f.node].diskWell()
	case DiskFull, DiskError:
		w.machines[f.node].diskWell()
	case FailGate:
		m := w.machines[f.node]
		w.push(w.now+m.between(0, gateAgain), evGateAgain, m.idx, m.life, 0, 0)
	case FailRecord:
		if m := w.machines[f.node]; m.recording != nil {
			w.push(w.now+m.between(0, recordAgain), evRecorded, m.idx, m.life, m.recording.N, 0)
		}
	case Suspend, PauseClock:
		w.machines[f.node].goOn(f.Kind)
	case Lack:
		w.machines[f.node].tellLacks()
	case NoAnswer, Unanswered:
		for _, m := range w.machines {
			m.checkHealth()
		}
	case Ungate:
		m := w.machines[f.node]
		w.push(w.now+m.between(0, sweepEvery), evSweep, m.idx, m.life, 0, 0)
	}
	w.conditions(f)
}

// conditions works out what all faults together make of the network, and tells agents what they can see.
func (w *world) conditions(f *active) {
	switch f.Kind {
	case Cut, OneWay, Isolate, Link, Carrier, Loss, Dup, Late, Replay, Narrow, MTU, Skew, Bloat, FlapLink, Port, PortIn, PortOut:
	case Uplink, FlapUplink:
		w.machines[f.node].tell()
		return
	default:
		return
	}
	w.net.heal()
	for l := range w.net.links {
		for i := range w.running {
			if r := &w.running[i]; r.on && (r.Link < 0 || r.Link == l) {
				w.impair(l, r)
			}
		}
	}
	if f.Kind == Carrier || f.Kind == FlapLink {
		for _, m := range w.machines {
			m.tell()
		}
	}
}

func (m *machine) tell() {
	if m.agent != nil {
		m.deliver(m.observed())
	}
}

func (w *world) impair(l int, f *active) {
	c, cut := &w.net.links[l], w.net.cut[l]
	switch f.Kind {
	case Cut:
		cut[f.node][f.peer], cut[f.peer][f.node] = true, true
	case OneWay:
		cut[f.node][f.peer] = true
	case Isolate:
		for i := range w.machines {
			cut[f.node][i], cut[i][f.node] = true, true
		}
	case Port, PortIn, PortOut:
		for i := range w.machines {
			cut[f.node][i] = cut[f.node][i] || f.Kind != PortIn
			cut[i][f.node] = cut[i][f.node] || f.Kind != PortOut
		}
	case Link, Carrier:
		c.dead = true
	case Loss:
		c.loss = max(c.loss, f.Percent)
	case Dup:
		c.dup = max(c.dup, f.Percent)
	case Late:
		c.late, c.lateBy = max(c.late, f.Percent), max(c.lateBy, f.Amount)
	case Replay:
		c.replay, c.replBy = max(c.replay, f.Percent), max(c.replBy, f.Amount)
	case Narrow:
		w.net.narrow = true
		lower(&w.net.least[f.node][f.peer], f.Bytes)
	case MTU:
		w.net.narrow = true
		lower(&c.mtu, f.Bytes)
	case Skew:
		w.net.skew[f.node][f.peer] = max(w.net.skew[f.node][f.peer], int64(f.Amount))
	case Bloat:
		c.bloat = max(c.bloat, f.Amount)
	case FlapLink:
		c.dead = c.dead || f.down
	}
}

// lower makes a size that passes smaller; 0 stands for any.
func lower(size *int, to int) {
	if *size == 0 || to < *size {
		*size = to
	}
}

// asked returns a node whose agent runs, or nil.
func (w *world) asked() *machine {
	var able []*machine
	for _, m := range w.machines {
		if m.agent != nil && !m.blocked() && !m.out {
			able = append(able, m)
		}
	}
	if len(able) == 0 {
		return nil
	}
	return able[w.rand.IntN(len(able))]
}

// command asks a node whose agent runs.
func (w *world) command(f *active) {
	m := w.asked()
	if m == nil {
		return
	}
	w.commands++
	c := &node.Command{ID: w.commands, Group: cluster.GroupID(f.Group), By: "operator"}
	if f.node >= 0 {
		c.To = w.machines[f.node].id
	}
	switch f.Kind {
	case Switch:
		c.Op = node.OpSwitch
	case Failback:
		c.Op = node.OpFailback
	default:
		c.Op, c.Part = node.OpPropose, m.instruction(f, c.To)
	}
	w.gives(c)
	m.deliver(c)
}

// fail notes the first violation; the run ends with it.
func (w *world) fail(rule, format string, args ...any) {
	if w.broken != nil || !strings.HasPrefix(rule, w.opt.Only) {
		return
	}
	w.broken = &Violation{Rule: rule, At: time.Duration(w.now), Text: fmt.Sprintf(format, args...)}
	w.note(nil, "VIOLATION of %s: %s", rule, w.broken.Text)
}

// panicked notes that a core has stopped itself, or crashed.
func (w *world) panicked(m *machine, r any) {
	if b, ok := r.(cluster.BrokenInvariant); ok {
		w.fail("assert", "%s: %s", m.id, string(b))
		return
	}
	w.fail("panic", "%s: %v\n%s", m.id, r, debug.Stack())
}

// digest folds what a step has put out into the run's hash.
func (w *world) digest(m *machine, out *node.Output) {
	h := w.hash
	mix := func(v uint64) { h = (h ^ v) * 1099511628211 }
	mix(uint64(w.now))
	mix(uint64(m.idx))
	mix(uint64(out.WakeAt))
	for i := range out.Gates {
		mix(uint64(out.Gates[i].End))
		mix(uint64(out.Gates[i].Epoch))
	}
	for i := range out.Sends {
		mix(messageDigest(out.Sends[i].Msg))
	}
	for i := range out.Persists {
		mix(out.Persists[i].N)
		mix(uint64(len(out.Persists[i].Entries)))
		if hs := out.Persists[i].Hard; hs != nil {
			mix(hs.Term<<32 | hs.Vote<<24>>24 ^ hs.Commit)
		}
	}
	for i := range out.Wants {
		mix(out.Wants[i].N)
		mix(uint64(out.Wants[i].Target))
	}
	for i := range out.Applied {
		mix(out.Applied[i].Index)
		mix(bytesDigest(out.Applied[i].Data))
	}
	w.hash = h
}

func bytesDigest(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// owner returns who serves a group or served it last; -1: nobody yet.
func (c *checker) owner(group int) int { return c.groups[group].server }
