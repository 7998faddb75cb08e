package node

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"baton/internal/core/cluster"
	"baton/internal/core/group"
	"baton/internal/core/state"
	"baton/internal/core/wire"
)

// This file keeps the node in line with what the log says of the cluster's nodes: the configuration, the
// set of voters, and the lengths of leases (protocol.md, "Quorum leases", 3, 4 and 6).

// lengthMax is the longest lease that a heartbeat may name: more is an error of its sender.
const lengthMax = 10 * time.Minute

// onlyOwn is the reader of a node that was given none.
func onlyOwn(own *cluster.Spec) state.Reader {
	return func(text []byte) (*cluster.Spec, error) {
		if !bytes.Equal(text, own.Text) {
			return nil, fmt.Errorf("this node reads no file but its own")
		}
		return own, nil
	}
}

// takeSpec makes a specification the one that counts.
func (n *Node) takeSpec(spec *cluster.Spec) {
	n.spec, n.timing = spec, spec.Timing
	n.self = slices.IndexFunc(spec.Nodes, func(s cluster.NodeSpec) bool { return s.ID == n.name })
	cluster.Assert(n.self >= 0, "node %q is not in the cluster file", n.name)
}

// grace is until when this voter answers as if it had promised to everybody: for the longest lease that a
// former run has promised, or that its log knows.
func (n *Node) grace() cluster.Instant {
	longest := max(n.timing.L, n.timing.Longest)
	if !n.flawed(GraceState) {
		longest = max(longest, n.notes.LongestPromise)
	}
	if n.flawed(NoGrace) {
		return 0
	}
	n.longAt = n.now.Mono
	return n.now.Mono.Add(n.timing.Promised(longest))
}

// seat makes the list of peers that the specification names. What is known of one that stays is kept;
// before names the links that it was known by.
func (n *Node) seat(before []cluster.LinkSpec) {
	old := n.peers
	n.peers = make([]peer, 0, len(n.spec.Nodes))
	for i := range n.spec.Nodes {
		s := &n.spec.Nodes[i]
		k := slices.IndexFunc(old, func(p peer) bool { return p.id == s.ID })
		if k < 0 {
			n.peers = append(n.peers, newPeer(s, len(n.spec.Links), n.now.Mono, n.timing))
			continue
		}
		p := old[k]
		p.role = s.Role
		p.relink(before, n.spec.Links)
		n.peers = append(n.peers, p)
	}
}

// relink carries what was heard on each link over to another list of links.
func (p *peer) relink(before, after []cluster.LinkSpec) {
	from := make([]int, len(after))
	seqs := make([]uint64, len(after)+1)
	seqs[len(after)] = p.seqs[len(before)]
	for i := range after {
		from[i] = slices.IndexFunc(before, func(l cluster.LinkSpec) bool { return l.Name == after[i].Name })
		if from[i] >= 0 {
			seqs[i] = p.seqs[from[i]]
		}
	}
	p.seqs = seqs
	trips := make([]time.Duration, len(after))
	for i, k := range from {
		if k >= 0 {
			trips[i] = p.trips[k]
		}
	}
	p.trips = trips
	p.det.Relink(from)
}

// seatVoters takes over the set of voters that the state names.
func (n *Node) seatVoters() {
	set := n.state.Set()
	for i := range n.peers {
		p := &n.peers[i]
		inc := cluster.Incarnation(0)
		if m := n.state.Member(p.id); m != nil {
			inc = m.Incarnation
		}
		if inc != p.inc {
			p.become(inc, newPeer(&n.spec.Nodes[i], len(n.spec.Links), n.now.Mono, n.timing).det)
			p.forget(n.telling.items)
			if n.raft.leading {
				n.urgent() // a newcomer copies the log once it has heard what is known of its directory
			}
		}
		p.votes = n.state.Votes(inc)
	}
	n.voters, n.moved = len(set.Voters), n.now.Mono
	n.holder.SetVoters(set.Voters)
	if n.mayRenew() && n.holder.Renew() {
		n.renewed()
	}
	if n.flawed(RestsAtApply) && n.rec.Rests < set.Index && n.number != 0 {
		n.rec.Rests, n.recDue = set.Index, true
	}
	if m := n.state.Member(n.name); !n.left && n.leaves(n.name) && (m == nil || !n.state.Votes(m.Incarnation)) {
		n.left = true
		n.event("left", n.name, "%s has left the cluster: it serves and votes no longer", n.name)
	}
	n.planDue, n.groupsDue = true, true
}

// takeRevision follows the configuration that the log has come to.
func (n *Node) takeRevision() {
	spec := n.state.Spec()
	before, beat := n.spec.Links, n.beat()
	changed := !bytes.Equal(spec.Text, n.spec.Text)
	n.revisedAt = n.now.Mono
	n.takeSpec(spec)
	n.voter.SetTiming(n.timing)
	n.seat(before)
	n.refit()
	n.seatVoters()
	if !changed {
		return
	}
	n.noteLength(max(n.timing.L, n.timing.Longest))
	n.longAt = n.now.Mono // until now it has promised for the former length
	n.linkDown = nil
	n.networks.reached, n.networks.missed, n.networks.told = 0, 0, Reach{} // the caller tells them anew, by the new text
	n.pulse.at = min(n.pulse.at, n.now.Mono.Add(n.timing.H))
	if n.timing.H > beat {
		n.pulse.former = beat
	}
	n.urgent()
	n.carryOut(spec)
	n.event("revision", n.name, "revision %d of the configuration counts", n.state.Revision())
}

// refit brings this node's groups into line with the configuration.
func (n *Node) refit() {
	old := n.groups
	n.groups = make([]local, 0, len(n.spec.Groups))
	for i := range n.spec.Groups {
		spec := &n.spec.Groups[i]
		l := local{spec: spec}
		if k := slices.IndexFunc(old, func(l local) bool { return l.spec.ID == spec.ID }); k >= 0 {
			l = old[k]
			l.spec = spec
		}
		switch may := spec.Prefers(n.name) >= 0; {
		case may && l.group == nil:
			l.group = group.New(spec.On(n.name), &n.wantN)
		case may:
			l.group.Refit(spec.On(n.name))
		case l.group != nil:
			n.letGo(&l)
		}
		n.groups = append(n.groups, l)
	}
	for i := range old {
		if n.spec.Group(old[i].spec.ID) == nil {
			n.letGo(&old[i])
		}
	}
	n.retell()
}

// letGo forgets a group that this node may no longer run. Nothing of it serves here any more: its tenures
// were over before. What still stands by is stopped by the caller, who takes it off with the configuration.
func (n *Node) letGo(l *local) {
	if l.open != 0 {
		n.gate(l, l.open, 0)
		l.open = 0
	}
	s := &l.service
	if s.Up {
		s.Up, s.From, s.To, s.Ordered = false, n.now.Mono, n.now.Mono, true
	}
	s.Over = s.Epoch != 0
	l.group, l.short = nil, false
}

// incarnation returns a node's own incarnation.
func (n *Node) incarnation(i int) cluster.Incarnation {
	if i == n.self {
		return n.inc
	}
	return n.peers[i].inc
}

// holderOf returns the peer whose newest incarnation this is, or one that the log here does not know yet; or -1.
func (n *Node) holderOf(inc cluster.Incarnation) int {
	return slices.IndexFunc(n.peers, func(p peer) bool { return inc != 0 && (p.inc == inc || p.unknown == inc) })
}

// leaves tells whether the draft under way does not name a node.
func (n *Node) leaves(id cluster.NodeID) bool {
	if n.state == nil || n.state.Draft == nil {
		return false
	}
	next, err := n.state.DraftSpec()
	return err == nil && next.Node(id) == nil
}

// mayRenew tells whether acks count: a restarted agent renews nothing until it has applied the set that its
// lease was said to rest on, since it would count in an older one.
func (n *Node) mayRenew() bool {
	return n.raft != nil && (n.raft.applied >= n.rec.Rests || n.number == 0)
}

// tendRests raises what the lease rests on: to a set that this node has applied, once no end that was
// counted in another still stands. It is in the run record before it is said.
func (n *Node) tendRests() {
	if n.state == nil || n.number == 0 {
		return
	}
	if set := n.state.Set(); n.rec.Rests < set.Index && n.holder.Rested(n.now.Mono) {
		n.rec.Rests, n.recDue = set.Index, true
		return
	}
	if n.rests != n.rec.Rests && !n.recDue && n.recOK >= n.recN {
		n.rests = n.rec.Rests
		n.urgent()
		n.planDue = true
	}
}

// restsOf returns the log index of the set that a node's present lease was said to rest on; 0: not said.
func (n *Node) restsOf(i int) uint64 {
	s, p := &n.state.Nodes[i], &n.peers[i]
	switch {
	case i == n.self && n.number == s.Number:
		return n.rests
	case i != n.self && p.rests.number == s.Number:
		return p.rests.index
	}
	return 0
}

// saidOver tells whether a majority has said that nothing is left of a number: of any set from its Evict on. Before
// that Evict is applied here it is not known which sets these are, and of an older, smaller one two may end what the
// others back.
func (n *Node) saidOver(id cluster.NodeID, number cluster.Number) bool {
	s := n.state.Node(id)
	return s != nil && (!s.Admitted || number < s.Number || n.flawed(FormerSet)) && n.said.Over(id, number, n.state.SetsSince(s.EvictIndex))
}

// noteLength notes a lease length durably before anything is promised under it: the grace after a restart
// rests on it.
func (n *Node) noteLength(l time.Duration) {
	if l <= n.notes.LongestPromise || l > lengthMax {
		return
	}
	n.notes.LongestPromise, n.longAt = l, n.now.Mono
	n.writeNotes()
}

func (n *Node) writeNotes() {
	notes := n.notes
	n.durable.LongestPromise = min(n.durable.LongestPromise, notes.LongestPromise) // a lower one may be on the disk at any time from now on
	n.persist(cluster.Persist{Notes: &notes, Sync: true}, unstored{notes: &notes})
}

// tendNotes lowers the length noted, once every promise under a longer one has run out.
func (n *Node) tendNotes() {
	if n.state == nil || n.now.Mono < n.nextNotes() || len(n.stores) > 0 {
		return
	}
	n.notes.LongestPromise = max(n.timing.L, n.timing.Longest)
	n.writeNotes()
}

// nextNotes returns when the length noted may be lowered.
func (n *Node) nextNotes() cluster.Instant {
	if n.state == nil || n.state.IsBlank() || len(n.stores) > 0 || n.notes.LongestPromise <= max(n.timing.L, n.timing.Longest) {
		return cluster.Never
	}
	return max(n.longAt.Add(n.timing.Promised(n.notes.LongestPromise)), n.voter.Grace())
}

// namedLength is the lease length by which a peer's silence is judged: the one that its heartbeat names.
func (n *Node) namedLength(hb *wire.Heartbeat) time.Duration {
	if n.flawed(SilenceOwnD) {
		return n.timing.L
	}
	return hb.L
}

// silenceOf is the silence after which a node is suspected: 0.9 of the lease length that its heartbeats name.
func (n *Node) silenceOf(i int) time.Duration { return n.peers[i].det.Reported(n.now.Mono) }

// swapVoters is a planted bug: who replaces a lost disk gets its vote in the entry that removes the former one.
func (n *Node) swapVoters(entries []cluster.Entry) {
	for i := range entries {
		v := entries[i].Parts[0].Voter
		if v == nil || v.Op != cluster.VoterRemove || !n.state.Votes(v.Incarnation) {
			continue
		}
		if m := n.state.Member(v.Node); m != nil && m.Incarnation != v.Incarnation {
			entries[i].Parts = append(entries[i].Parts, cluster.Part{Voter: &cluster.Voter{Op: cluster.VoterAdd, Node: v.Node, Incarnation: m.Incarnation, Base: v.Base}})
		}
	}
}

// setFacts tells the planner of the set of voters, and whether it may change.
func (n *Node) setFacts() cluster.SetFacts {
	set := n.state.Set()
	f := cluster.SetFacts{Index: set.Index, Fresh: n.fresh()}
	f.Waits = n.setWaits(set)
	f.Settled = f.Waits == ""
	return f
}

// setWaits tells which lease does not rest on the set yet. Each fact stays true, so no clock is needed, and
// a new coordinator gathers them again.
func (n *Node) setWaits(set *state.VoterSet) string {
	switch n.mutation() {
	case RestsNone:
		return ""
	case RestsTimed:
		if n.now.Mono.Sub(n.moved) < n.timing.Promised(n.timing.L) {
			return "the last change is too young"
		}
		return ""
	}
	for i := range n.state.Nodes {
		s := &n.state.Nodes[i]
		switch {
		case s.Number == 0 || s.Over(s.Number) || n.saidOver(s.ID, s.Number):
		case !s.Admitted && n.flawed(EvictedIsOver):
		case !s.Admitted:
			return fmt.Sprintf("lease number %d of %s is not over", s.Number, s.ID)
		case n.restsOf(i) < set.Index:
			return fmt.Sprintf("the lease of %s rests on former voters", s.ID)
		}
	}
	return ""
}

// askedFor is how long an empty node's question counts.
const askedFor = time.Second

// memberFacts tells the planner of a node's part in the set of voters.
func (n *Node) memberFacts(i int, x *cluster.NodeFacts) {
	p := &n.peers[i]
	x.Leaves = n.leaves(p.id)
	for _, m := range n.state.MembersOf(p.id) {
		f := cluster.MemberFacts{Incarnation: m.Incarnation, Votes: n.state.Votes(m.Incarnation)}
		switch {
		case i == n.self && m.Incarnation == n.inc:
			f.Heard, f.Copied, f.Knows = true, true, true
		case m.Incarnation == p.inc:
			f.Heard, f.Silent = p.hb != nil && p.det.Fresh(n.now.Mono), p.det.Silent(n.now.Mono)
			f.Copied = p.durable > 0 && p.durable+copiedSlack >= n.raft.applied
			f.Knows = p.hb != nil && p.hb.Applied >= n.state.Set().Index
		}
		x.Members = append(x.Members, f)
	}
	x.Former = p.stranger != 0 && n.now.Mono.Sub(p.strangerAt) < n.timing.D && n.state.Votes(p.stranger)
	if a := &p.asked; p.askedAt != 0 && n.now.Mono.Sub(p.askedAt) < askedFor && a.Empty && i != n.self &&
		!slices.ContainsFunc(x.Members, func(m cluster.MemberFacts) bool { return m.Incarnation == a.Incarnation }) {
		x.Asks = a.Incarnation
	}
}

// copiedSlack is by how many entries a newcomer may lag and still be given a vote.
const copiedSlack = 16

// draftFacts tells the planner of the draft under way.
func (n *Node) draftFacts() *cluster.DraftFacts {
	d := n.state.Draft
	if d == nil {
		return nil
	}
	f := &cluster.DraftFacts{Base: d.Base, ID: d.ID, By: d.By}
	next, err := n.state.DraftSpec()
	if err != nil {
		f.Err = err.Error()
		return f
	}
	f.Spec, f.Waits, f.Awaited = next, n.state.DraftWaits(next), n.state.Awaited(next)
	return f
}

// storage is Raft's log in memory, with the set of voters as of the entries that were applied: those are
// read before Raft starts.
type storage struct {
	*raft.MemoryStorage
	conf *raftpb.ConfState
	made func() *raftpb.Snapshot // of the state as it is now
}

// Snapshot implements raft.Storage. It is made when somebody needs it: a newcomer takes none that does not
// know it, so that of the last compaction would not do.
func (s *storage) Snapshot() (*raftpb.Snapshot, error) { return s.made(), nil }

// InitialState implements raft.Storage.
func (s *storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	hard, _, err := s.MemoryStorage.InitialState()
	return hard, s.conf, err
}

// confState is the set of voters in Raft's words.
func confState(s *state.State) *raftpb.ConfState {
	c := &raftpb.ConfState{}
	for _, v := range s.Set().Voters {
		c.Voters = append(c.Voters, uint64(v))
	}
	for _, l := range s.Learners() {
		c.Learners = append(c.Learners, uint64(l))
	}
	return c
}

// confChange returns the change of voters that an entry is in Raft's words, or nil.
func confChange(e *raftpb.Entry) *raftpb.ConfChangeV2 {
	switch e.GetType() {
	case raftpb.EntryConfChange:
		cc := &raftpb.ConfChange{}
		must(proto.Unmarshal(e.GetData(), cc))
		return cc.AsV2()
	case raftpb.EntryConfChangeV2:
		cc := &raftpb.ConfChangeV2{}
		must(proto.Unmarshal(e.GetData(), cc))
		return cc
	}
	return nil
}

// command returns the command that a log entry holds.
func command(e *raftpb.Entry) []byte {
	if cc := confChange(e); cc != nil {
		return cc.GetContext()
	}
	return e.GetData()
}

var voterOps = map[cluster.VoterOp]raftpb.ConfChangeType{
	cluster.VoterLearn:  raftpb.ConfChangeAddLearnerNode,
	cluster.VoterAdd:    raftpb.ConfChangeAddNode,
	cluster.VoterDemote: raftpb.ConfChangeAddLearnerNode,
	cluster.VoterRemove: raftpb.ConfChangeRemoveNode,
}

// propose appends one entry; a change of voters in the form that Raft itself acts on.
func (r *replica) propose(e *cluster.Entry) error {
	cc := &raftpb.ConfChangeV2{Context: e.Encode()}
	for _, p := range e.Parts {
		if p.Voter != nil {
			op := voterOps[p.Voter.Op]
			cc.Changes = append(cc.Changes, &raftpb.ConfChangeSingle{Type: &op, NodeId: new(uint64(p.Voter.Incarnation))})
		}
	}
	if len(cc.Changes) == 0 {
		return r.rn.Propose(cc.GetContext())
	}
	return r.rn.ProposeConfChange(cc)
}
