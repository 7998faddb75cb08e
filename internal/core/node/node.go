// Package node is the kernel of baton: leases, detection, the replicated state, the planner, the groups
// of this node and Raft, behind one function, Step. It does no I/O, reads no clock, starts no goroutine
// and draws no random number: equal inputs give equal outputs. The agent, the simulator, `plan` and
// `replay` run this very code.
package node

import (
	"crypto/sha256"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/decide"
	"baton/internal/core/group"
	"baton/internal/core/lease"
	"baton/internal/core/state"
	"baton/internal/core/wire"
)

// Config is what a Node is made from.
type Config struct {
	Self cluster.NodeID
	// Spec is this node's own cluster file. It counts until the cluster is founded, or this node has joined
	// one: from then on the log says what counts.
	Spec *cluster.Spec
	// Read reads a cluster file's text that the log holds. nil: only Spec's own text can be read.
	Read     state.Reader
	Mutation Mutation
	// CompactAfter is how many applied entries make a snapshot due; 0: the default. Every node may have its own.
	CompactAfter uint64
}

// Node is one node's mind. It is not safe for concurrent use.
type Node struct {
	name         cluster.NodeID
	self         int // this node's place in spec.Nodes
	spec         *cluster.Spec
	read         state.Reader
	timing       cluster.Timing
	flaw         Mutation
	compactAfter uint64
	file         [sha256.Size]byte

	now    cluster.Now
	last   cluster.Instant // of the former Step
	wakeAt cluster.Instant
	booted bool
	alive  bool            // the first Step is over: what is applied from now on is news
	start  cluster.Instant // when this run began
	lived  cluster.WallTime
	out    Output

	boot cluster.BootID
	run  cluster.RunID
	inc  cluster.Incarnation

	peers    []peer // in the order of Spec.Nodes; this node's own place included
	state    *state.State
	raft     *replica // nil until founded
	founding *foundingWork
	holder   *lease.Holder
	voter    *lease.Voter
	said     *lease.Said
	groups   []local // in the order of Spec.Groups; nil group where this node may not run it
	places   places
	voters   int             // how many are in the set of the last change applied
	askAt    cluster.Instant // of a node that has no copy of the log yet
	left     bool            // this node was made to leave the cluster
	setBack  bool            // its data directory has gone back in time: it takes no part any more
	halted   string          // why it takes no part any more: it can't read what the log holds

	number  cluster.Number // in use; 0: none
	passed  cluster.Number // a voter's log knows this one: lower ones are over, whatever the log here says
	rec     cluster.Record
	recN    uint64          // number of the newest Record; written when it is emitted
	recOK   uint64          // the newest that was answered
	recAt   cluster.Instant // since when one is unanswered, or when the newest was answered
	recDue  bool
	gateN   uint64
	gateOK  uint64
	gateAt  cluster.Instant // since when one is unanswered
	wantN   uint64
	storeN  uint64
	storeOK uint64          // the newest that was answered
	syncN   uint64          // the newest that must be durable
	wroteAt cluster.Instant // when the newest was asked for
	stores  []unstored      // awaiting Stored, in order
	notes   cluster.Notes
	durable cluster.Notes   // as far as answered
	longAt  cluster.Instant // when a promise under a longer lease than this node's own was last given
	rests   uint64          // what is said: the log index of the set that the lease rests on
	moved   cluster.Instant // planted bug RestsTimed only: when the set changed last

	sleptAt   cluster.Instant // when this node was last told that its machine had been suspended
	resumed   cluster.Instant // the end that the lease had when the machine was suspended; it counts no more
	lacks     []cluster.Lack
	picture   *cluster.Facts   // of this pass through the groups; nil: nobody has asked for it
	inLine    bool             // what the present text of the configuration asks for is in place
	asked     cluster.Revision // of Output.Revision, or at boot: what Fitted answers
	fitted    cluster.Revision // carried out here
	revised   cluster.Revision // of that, what is in the run record and said
	revisedAt cluster.Instant  // when the present revision was taken
	pulse     pulse
	election  election
	rise      rise
	cut       []cluster.GroupID
	linkDown  []bool
	networks  networks
	faulty    bool // see Faulty
	moves     []moveWork
	asks      []askWork
	tasks     []taskWork
	forms     []formWork

	lines      []wire.Lease // "nothing left", being said
	telling    telling
	groupsDue  bool // something changed that all groups depend on
	someDue    bool // something changed that one of them depends on
	planDue    bool // something changed that the planner depends on
	planAt     cluster.Instant
	decisions  map[string]string // what was decided last, by subject, so that only news is told
	groupsAt   cluster.Instant   // when one of the groups is due
	allAt      cluster.Instant   // when all of them are
	allDone    cluster.Instant   // when all of them were last looked at
	leaseShown bool              // the lease ran when groups were last looked at
}

// places tells where groups are in the order of Spec.Groups.
type places struct {
	byID  map[cluster.GroupID]int
	byKey map[wire.GroupKey]int
	due   []int // scratch: those that are being tended
}

// local is one group on this node.
type local struct {
	due       bool // something changed that it depends on
	group     *group.Group
	spec      *cluster.GroupSpec
	open      cluster.Epoch // the epoch whose gate is open here; 0: closed
	lost      cluster.Epoch // this epoch was given up
	activated uint64        // number of the Record that first holds the present epoch
	openN     uint64        // number of the Gate that opened it last
	closeN    uint64        // number of the Gate that closed it last
	outcome   group.Outcome
	phase     wire.Phase
	reason    string
	heard     []heardRelease
	behindAt  cluster.Instant // since when the newest Assign, or what ended it, is applied here
	behindIdx uint64
	disowned  bool                               // nobody owned it then
	fit       map[cluster.NodeID]cluster.Instant // since when each node is fit to serve it; 0: it is not
	watch     watch
	pauses    pauses
	service   ownAccount      // this node's own account of it
	unseen    unseen          // since when clients may be served by what that does not know yet
	short     bool            // it is open, and clients don't get what they should
	away      away            // since when clients don't reach it here
	writes    []stood         // of its gate, not answered yet
	stands    cluster.Instant // until when the kernel has taken that it is open
	tellers   []teller        // what nodes have told of their services, oldest epoch first
}

// heardRelease is a release that was heard and may not be in the log yet.
type heardRelease struct {
	epoch cluster.Epoch
	node  cluster.NodeID
}

// New returns a node that waits for its Boot.
func New(c Config) *Node {
	n := &Node{name: c.Self, spec: c.Spec, read: c.Read, flaw: c.Mutation, self: -1, compactAfter: c.CompactAfter,
		file: sha256.Sum256(c.Spec.Text), decisions: make(map[string]string)}
	if n.read == nil {
		n.read = onlyOwn(c.Spec)
	}
	if n.compactAfter == 0 {
		n.compactAfter = compactAfter
	}
	n.takeSpec(c.Spec)
	return n
}

// Step applies one input and returns what the caller must now do. It never waits. The output is valid
// until the next Step.
func (n *Node) Step(now cluster.Now, in Input) *Output {
	n.out.reset()
	cluster.Assert(now.Mono >= n.now.Mono, "the clock went back from %d to %d", n.now.Mono, now.Mono)
	n.last, n.now = n.now.Mono, now
	if b, ok := in.(*Boot); ok {
		n.bootUp(b)
	} else if !n.ended() {
		cluster.Assert(n.booted, "the first input must be Boot, not %T", in)
		n.noticeStall()
		n.take(in)
	}
	if !n.ended() {
		n.settle()
	}
	if n.ended() {
		n.wakeAt = cluster.Never
		n.out.SetBack, n.out.Halted, n.out.WakeAt = n.setBack, n.halted, n.wakeAt
		return &n.out
	}
	n.alive, n.out.Left = true, n.left
	n.wakeAt = max(n.nextWake(), n.now.Mono) // what a shorter lease makes overdue is no stall
	n.out.WakeAt = n.wakeAt
	return &n.out
}

func (o *Output) reset() {
	o.Gates, o.Sends, o.Persists, o.Wants = o.Gates[:0], o.Sends[:0], o.Persists[:0], o.Wants[:0]
	o.Events, o.Decided, o.Replies, o.Applied = o.Events[:0], o.Decided[:0], o.Replies[:0], o.Applied[:0]
	o.Record, o.Spec, o.Ask, o.Revision, o.Left, o.SetBack, o.Halted = nil, nil, nil, 0, false, false, ""
}

// bootUp begins a run.
func (n *Node) bootUp(b *Boot) {
	cluster.Assert(!n.booted, "Boot comes once")
	cluster.Assert(b.Disk.Incarnation != 0 && b.Boot != 0 && b.Run != 0, "an incarnation, boot and run are never 0")
	n.booted, n.boot, n.run, n.inc = true, b.Boot, b.Run, b.Disk.Incarnation
	n.start, n.lived = n.now.Mono, b.Lived
	n.notes, n.durable = b.Disk.Notes, b.Disk.Notes
	r := n.load(&b.Disk)
	if n.ended() {
		return
	}
	n.asked = n.Revision()
	n.seat(nil)
	n.holder = lease.NewHolder(lease.Flaws{QuorumOne: n.flawed(LeaseQuorumOne), AckArrival: n.flawed(AckArrival),
		CurrentL: n.flawed(AckCurrentL), LaterAck: n.flawed(LaterAck)})
	n.voter = lease.NewVoter(n.timing, n.grace(), lease.Flaws{NoRho: n.flawed(NoRho)})
	n.said = lease.NewSaid(lease.Flaws{QuorumOne: n.flawed(SaidQuorumOne)})
	n.pulse = pulse{at: n.now.Mono, soon: cluster.Never}
	n.election = election{heard: n.now.Mono, rtt: n.timing.RTT, sync: n.timing.Sync}
	n.planAt, n.groupsAt, n.allAt = cluster.Never, cluster.Never, cluster.Never
	n.urgent() // a new run, and a new boot, is news
	n.resume(b)
	if r == nil {
		n.founding = &foundingWork{}
		return
	}
	n.startRaft(r)
}

// resume takes over what a former run of this boot has left: the run record, the kernel's gates, and what runs.
func (n *Node) resume(b *Boot) {
	n.rec = cluster.Record{Incarnation: n.inc, Boot: n.boot, Run: n.run, View: 1, Groups: make(map[cluster.GroupID]cluster.GroupRecord)}
	same := b.Record != nil && b.Record.Boot == n.boot && b.Record.Incarnation == n.inc
	if same {
		n.rec.Number, n.rec.First, n.rec.Rests, n.rec.Revision = b.Record.Number, b.Record.First, b.Record.Rests, b.Record.Revision
		if n.flawed(ForgetRests) {
			n.rec.Rests = 0
		}
		for i := range n.spec.Groups {
			id := n.spec.Groups[i].ID
			if r, ok := b.Record.Groups[id]; ok {
				n.rec.Groups[id] = n.forget(cluster.GroupRecord{Activated: r.Activated, Released: slices.Clone(r.Released), Instructed: r.Instructed, Account: r.Account})
			}
		}
		n.number = n.rec.Number
	}
	n.recDue = true
	for i := range n.spec.Groups {
		spec := &n.spec.Groups[i]
		l := local{spec: spec}
		if spec.Prefers(n.spec.Nodes[n.self].ID) >= 0 {
			l.group = group.New(spec.On(n.spec.Nodes[n.self].ID), &n.wantN)
		}
		n.groups = append(n.groups, l)
	}
	n.retell()
	for _, d := range b.Found {
		if l := n.local(d.Group); l != nil && l.group != nil {
			l.group.Found(d, n.rec.Groups[d.Group].Activated)
		}
	}
	for _, g := range b.Gates {
		l := n.local(g.Group)
		if l == nil {
			continue
		}
		l.stands = g.End
		r := n.rec.Groups[g.Group]
		if !same || g.Epoch != r.Activated || slices.Contains(r.Released, g.Epoch) || g.End <= n.now.Mono {
			if g.End > n.now.Mono {
				n.gate(l, g.Epoch, 0)
				l.closeN = n.gateN
			}
			continue
		}
		l.open = g.Epoch
		l.unseen = unseen{epoch: g.Epoch, first: 1} // nobody knows since when a former run has served
		n.holder.Resume(g.End)
	}
	for i := range n.groups {
		if l := &n.groups[i]; n.rec.Groups[l.spec.ID].Account.Epoch != 0 {
			n.resumeService(l, n.rec.Groups[l.spec.ID].Account, b.Gates)
		}
	}
	n.groupsDue = true
}

// forget drops what a planted bug does not keep.
func (n *Node) forget(r cluster.GroupRecord) cluster.GroupRecord {
	if n.flawed(ForgetActivated) {
		r.Activated = 0
	}
	if n.flawed(ForgetReleased) {
		r.Released = nil
	}
	return r
}

// noticeStall makes a node that was not looking deduct that time from the silence of others. It never doubts its
// lease, which is judged by its end alone.
func (n *Node) noticeStall() {
	late := n.now.Mono.Sub(n.wakeAt)
	if n.wakeAt == cluster.Never || late <= max(n.timing.Stall, n.timing.L/4) {
		return
	}
	for i := range n.peers {
		if p := &n.peers[i]; n.flawed(StallRestarts) {
			late = max(late, n.now.Mono.Sub(max(p.hbAt, n.start)))
		}
		n.peers[i].det.Stalled(late)
	}
	n.forgive(late)
	n.event("stall", "", "this node stood still for %v: that time counts as nobody's silence", late.Round(time.Millisecond))
}

// forgive adds an own stall to what disk, run record and gate are given to answer in: their answers may wait.
func (n *Node) forgive(late time.Duration) {
	for i := range n.stores {
		n.stores[i].at = n.stores[i].at.Add(late)
	}
	n.recAt, n.gateAt = n.recAt.Add(late), n.gateAt.Add(late)
}

// take applies one input.
func (n *Node) take(in Input) {
	switch in := in.(type) {
	case *Packet:
		n.packet(in)
	case *Tick:
	case *Stored:
		n.stored(in.N)
	case *Recorded:
		n.recOK, n.recAt = max(n.recOK, min(in.N, n.recN)), n.now.Mono
		n.groupsDue = true
	case *Gated:
		n.gated(in.N)
	case *Done:
		if i, ok := n.places.byID[in.Group]; ok && n.groups[i].group != nil && n.groups[i].group.Done(in.Done, n.now.Mono) {
			n.due(i)
		}
	case *Observed:
		n.observed(in)
	case *Lacking:
		n.lacking(in)
	case *Reach:
		n.reach(in)
	case *Faulty:
		n.faulty = in.On
	case *Returned:
		n.announce()
	case *Fitted:
		n.fittedTo(in.Revision)
	case *Suspended:
		n.suspend()
	case *Command:
		n.command(in)
	case *Boot:
	}
}

// gated takes the answer to gate writes. Only a group whose gate was opened or shut waits for one.
func (n *Node) gated(upTo uint64) {
	before := n.gateOK
	n.gateOK, n.gateAt = max(n.gateOK, min(upTo, n.gateN)), n.now.Mono
	n.gatesTaken(n.gateOK)
	answered := func(write uint64) bool { return before < write && write <= n.gateOK }
	for i := range n.groups {
		if l := &n.groups[i]; answered(l.openN) || answered(l.closeN) {
			n.due(i)
		}
	}
}

// settle brings everything into line with what is known now. Each part is cheap when nothing has changed.
func (n *Node) settle() {
	n.tend()
	n.drainRaft()
	if n.ended() {
		return
	}
	n.tendTerm()
	n.tendNumber()
	n.tendSaying()
	n.tendRests()
	n.tendRevision()
	n.tendNotes()
	n.tendNetworks()
	n.tendGroups()
	n.tendPlan()
	n.tendMoves()
	n.tendAsks()
	n.tendPulse()
	n.drainRaft()
	n.tendRecord()
}

// nextWake returns when Step must be called again though nothing happens.
func (n *Node) nextWake() cluster.Instant {
	at := min(n.pulse.next(n), n.planAt, n.groupsAt)
	at = min(at, n.nextSaying(), n.election.next(n))
	for i := range n.peers {
		p := &n.peers[i]
		if i != n.self && !p.silentTold {
			at = min(at, p.det.SilentAt())
		}
		at = min(at, p.resendAt())
	}
	if n.leaseShown {
		at = min(at, n.holder.End())
	}
	at = min(at, n.nextNotes())
	if n.founding != nil {
		at = min(at, n.founding.at)
	} else if len(n.stores) == 0 {
		at = min(at, n.wroteAt.Add(n.diskEvery()))
	}
	if n.raft != nil && n.state.IsBlank() {
		at = min(at, n.askAt)
	}
	return min(at, n.recordTry(), n.nextCommand())
}

// tend looks at the timers of detection, election and forming.
func (n *Node) tend() {
	if sick := n.isSick(); sick != n.pulse.sick {
		n.pulse.sick = sick
		n.urgent()
		n.planDue, n.groupsDue = true, true
		if sick {
			n.event("sick", n.id(), "the %s of %s has not answered for %v: it leaves decisions to others", n.unwell(), n.id(), n.timing.L)
		} else {
			n.election.afresh(n)
		}
	}
	for i := range n.peers {
		p := &n.peers[i]
		if i == n.self { // judged like any other, also by itself should it come to lead
			if n.leaseRuns() {
				p.leaseDown = 0
			} else if p.leaseDown == 0 {
				p.leaseDown = n.now.Mono
			}
			continue
		}
		silent := p.det.Silent(n.now.Mono)
		if silent && !p.silentTold {
			p.silentTold = true
			n.urgent()
			n.planDue, n.groupsDue = true, true
			if p.det.Heard() {
				n.event("silent", p.id, "%s has not been heard for %v", p.id, p.det.D())
			}
		}
	}
	if n.raft != nil {
		n.tendElection()
		n.resendRaft()
		n.tendDisk()
		if n.state.IsBlank() {
			n.tendCopy()
		}
	} else {
		n.tendFounding()
	}
	n.tendStreams()
}

// diskEveryMin is how often an idle node tries its disk at the most.
const diskEveryMin = 5 * time.Second

func (n *Node) diskEvery() time.Duration { return max(diskEveryMin, n.timing.L) }

// tendDisk writes what is written already if nothing else was for a while: a disk that hangs must be known
// before a takeover needs it.
func (n *Node) tendDisk() {
	if len(n.stores) > 0 || n.now.Mono.Sub(n.wroteAt) < n.diskEvery() {
		return
	}
	hard := n.raft.hard
	n.persist(cluster.Persist{Hard: &hard, Sync: true}, unstored{})
}

func (n *Node) observed(o *Observed) {
	if o.SyncNanos > 0 {
		n.election.sync = time.Duration(o.SyncNanos)
	}
	if o.LinkDown == nil {
		return // it tells nothing of the interfaces
	}
	healed := false
	for i := range o.LinkDown {
		healed = healed || (i < len(n.linkDown) && n.linkDown[i] && !o.LinkDown[i])
	}
	n.linkDown = slices.Clone(o.LinkDown)
	if !slices.Equal(n.cut, o.Cut) {
		n.cut = slices.Clone(o.Cut)
		n.urgent()
		n.planDue, n.groupsDue = true, true
		healed = true
	}
	if healed {
		n.announce()
	}
}

// announce makes served fronts known again: after links have healed, neighbours may hold old addresses.
func (n *Node) announce() {
	for i := range n.groups {
		if l := &n.groups[i]; l.group != nil && l.open != 0 {
			l.group.Announce()
			n.groupsDue = true
		}
	}
}

func (n *Node) local(id cluster.GroupID) *local {
	if i, ok := n.places.byID[id]; ok {
		return &n.groups[i]
	}
	return nil
}

func (n *Node) id() cluster.NodeID { return n.name }

func (n *Node) index(id cluster.NodeID) int {
	return slices.IndexFunc(n.spec.Nodes, func(s cluster.NodeSpec) bool { return s.ID == id })
}

// tellDecisions emits decisions that differ from what was last decided on the same subject.
func (n *Node) tellDecisions(ds []decide.Decision) {
	for _, d := range ds {
		subject := "group " + string(d.Group)
		if d.Group == "" {
			subject = "node " + string(d.Node)
		}
		if gist := d.Rule + string(d.Node); n.decisions[subject] != gist {
			n.decisions[subject] = gist
			n.out.Decided = append(n.out.Decided, d)
		}
	}
}
