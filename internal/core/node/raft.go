package node

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"baton/internal/core/cluster"
	"baton/internal/core/decide"
	"baton/internal/core/state"
	"baton/internal/core/wire"
)

// Raft's own figures, counted in ticks of H (only a leader is ticked, for CheckQuorum and heartbeats).
const (
	electionTicks    = 10
	heartbeatTicks   = 3   // three rounds within CheckQuorum's time: loss of 30 % on both links ends no leadership
	maxAppendBytes   = 800 // so that an append fits a datagram, unless a single entry is larger
	maxInflight      = 64
	foundingIndex    = 1       // the log begins after the founding record
	compactAfter     = 1024    // entries applied since the last snapshot; Config.CompactAfter overrides it
	compactKeepShare = 4       // of that, one in so many is kept for followers that lag a little …
	compactBytes     = 8 << 20 // bytes of entries applied since the last snapshot that make one due, too
	compactKeepBytes = 2 << 20 // … and no more bytes than these
	maxUncommitted   = 8 << 20 // a text of the largest size must not keep an Evict out
	snapshotPatience = 200 * time.Millisecond
	maxCommittedSize = 1 << 20
)

// replica is this node's part in Raft, on etcd's RawNode with asynchronous storage writes.
type replica struct {
	rn       *raft.RawNode
	store    *storage
	applied  uint64
	durable  uint64
	snapped  uint64 // index of the newest snapshot
	grown    int    // bytes of entries applied after it
	usable   uint64 // Admits at this index or below are not this run's: its run record is gone
	evicts   []appended
	hard     cluster.HardState // the newest handed to the disk
	early    cluster.Number    // planted bug EarlyNumber: the newest Admit of this node appended
	leading  bool
	last     uint64           // index of the newest entry appended
	begins   bool             // it has just begun to lead: its first own entry is being appended
	ready    uint64           // index of that entry: nothing is planned before it is applied
	proposes bool             // a proposal is being appended
	proposed uint64           // index of the last proposal: nothing is planned before it is applied
	since    cluster.WallTime // planted bug BanForgotten only: when this node began to lead
}

// appended is an Evict in the log that is not applied yet.
type appended struct {
	index uint64
	cluster.Evict
}

// unstored is a write that the disk owes.
type unstored struct {
	n         uint64
	at        cluster.Instant
	entries   []*raftpb.Entry
	hard      *raftpb.HardState
	snapshot  *raftpb.Snapshot
	responses []*raftpb.Message
	notes     *cluster.Notes
	founding  *cluster.Founding
}

func (n *Node) stateFlaws() state.Flaws {
	return state.Flaws{EvictKeepsOwner: n.flawed(EvictKeepsOwner), ApplyStale: n.flawed(ApplyStale),
		Heedless: n.flawed(Heedless), Swap: n.flawed(SwapVoters), JournalLost: n.flawed(JournalLost)}
}

func must(err error) { cluster.Assert(err == nil, "raft storage: %v", err) }

// leads returns the term in which this node leads, or 0.
func (r *replica) leads() uint64 {
	if !r.leading {
		return 0
	}
	return r.rn.BasicStatus().GetTerm()
}

func (r *replica) term() uint64 { return r.rn.BasicStatus().GetTerm() }

// evictAppended tells whether an Evict of this lease stands in the log: then the voter promises no more.
func (r *replica) evictAppended(node cluster.NodeID, number cluster.Number) bool {
	for i := range r.evicts {
		if r.evicts[i].Node == node && r.evicts[i].Number == number {
			return true
		}
	}
	return false
}

// note keeps track of the Evicts that these entries bring into the log, and of those that they cut off it.
func (r *replica) note(entries []*raftpb.Entry, self cluster.NodeID) {
	if len(entries) == 0 {
		return
	}
	first := entries[0].GetIndex()
	r.evicts = slices.DeleteFunc(r.evicts, func(a appended) bool { return a.index >= first })
	for _, e := range entries {
		data := command(e)
		if len(data) == 0 || e.GetIndex() <= r.applied {
			continue
		}
		c, err := cluster.DecodeEntry(data)
		if err != nil {
			continue
		}
		for _, p := range c.Parts {
			if p.Evict != nil {
				r.evicts = append(r.evicts, appended{e.GetIndex(), *p.Evict})
			}
			if p.Admit != nil && p.Admit.Node == self {
				r.early = p.Admit.Number
			}
		}
	}
}

// raftIn hands a peer's message to Raft.
func (n *Node) raftIn(i int, m *raftpb.Message) {
	p := &n.peers[i]
	if n.state.IsBlank() && m != nil && m.GetFrom() != uint64(p.inc) {
		p.become(cluster.Incarnation(m.GetFrom()), p.det) // who has no copy yet takes the coordinator's word
		p.forget(n.telling.items)
	}
	if m == nil || m.GetTo() != uint64(n.inc) || raft.IsLocalMsg(m.GetType()) {
		return
	}
	if m.GetFrom() != uint64(p.inc) {
		if !n.mayKnowMore(m) {
			return
		}
		p.unknown = cluster.Incarnation(m.GetFrom())
	}
	switch m.GetType() {
	case raftpb.MsgAppResp:
		if m.GetReject() || m.GetIndex() >= p.append.index {
			p.append.msg = nil
		}
		if m.GetReject() && m.GetRejectHint() < p.matched {
			return // it is late; or the disk there was set back, and Raft would send the same again for each copy of this
		}
		if !m.GetReject() {
			if p.snapshot != 0 { // taken; Raft may wait for that word where its log begins later by now
				p.snapshot = 0
				defer n.raft.rn.ReportSnapshot(m.GetFrom(), raft.SnapshotFinish)
			}
			if n.raft.leading && m.GetTerm() == n.raft.term() {
				p.matched = max(p.matched, m.GetIndex())
			}
		}
	case raftpb.MsgVoteResp, raftpb.MsgPreVoteResp:
		p.vote.msg = nil
	case raftpb.MsgProp:
		if len(m.Entries) != 1 || bytes.Equal(p.proposed, m.Entries[0].GetData()) {
			return // the same over another link: a proposal is the one message that Raft does not take twice for once
		}
		p.proposed = m.Entries[0].GetData()
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
		if p.deaf {
			return // it hears no answer; taken for the leader, it would only keep others from being elected
		}
		if m.GetType() == raftpb.MsgHeartbeat && m.GetCommit() > n.logEnd() { // it names no more than was acknowledged
			if !n.flawed(SetBackUnseen) {
				n.goneBack(p.id)
			}
			return
		}
		if s := m.GetSnapshot(); m.GetType() == raftpb.MsgSnap && !n.readable(s) {
			return
		}
	default:
	}
	_ = n.raft.rn.Step(m) // what Raft refuses (an unknown peer, a late answer) needs no action
}

// mayKnowMore tells whether a message of Raft from an incarnation that the log here does not know is to be heard: of
// one that leads, or asks for a vote, in no lower term than this node's. It is of a node whose disk was replaced
// while this one was away. Raft's own rules make it safe: its log proves better, or it gets nothing.
func (n *Node) mayKnowMore(m *raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgSnap, raftpb.MsgHeartbeat, raftpb.MsgVote, raftpb.MsgPreVote:
		return m.GetTerm() >= n.raft.term()
	}
	return false
}

// drainRaft carries out what Raft has become ready to do.
func (n *Node) drainRaft() {
	r := n.raft
	if r == nil {
		return
	}
	for r.rn.HasReady() && !n.ended() {
		rd := r.rn.Ready()
		if rd.SoftState != nil {
			n.softState(rd.SoftState)
		}
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				n.persistRaft(m)
			case raft.LocalApplyThread:
				n.apply(m.GetEntries())
				for _, resp := range m.GetResponses() {
					_ = r.rn.Step(resp)
				}
			default:
				n.sendRaft(m)
			}
		}
	}
	if r.begins {
		r.begins, r.ready = false, r.last
	}
	if r.proposes {
		r.proposes, r.proposed = false, r.last
	}
	if (r.applied >= r.snapped+n.compactAfter || r.grown >= compactBytes) && len(n.stores) == 0 {
		n.compact()
	}
}

// softState notices that this node has begun or ceased to lead.
func (n *Node) softState(s *raft.SoftState) {
	r := n.raft
	leads := s.RaftState == raft.StateLeader
	if s.RaftState == raft.StateFollower && s.Lead != raft.None || leads {
		n.election.led(n)
	}
	if s.RaftState != raft.StateCandidate && s.RaftState != raft.StatePreCandidate {
		for i := range n.peers {
			n.peers[i].vote.msg = nil
		}
	}
	if leads == r.leading {
		return
	}
	r.leading = leads
	if !leads {
		for i := range n.peers {
			p := &n.peers[i]
			p.append.msg, p.commit.msg, p.proposed, p.snapshot, p.matched = nil, nil, nil, 0, 0
			p.out.clear()
		}
		n.leaderHeard() // from now on: others get their turn before this node campaigns again
		n.event("coordinator.lost", n.id(), "%s no longer coordinates", n.id())
		return
	}
	r.begins, r.proposed = true, 0
	n.election.better = -1 // what was noted while it led before tells nothing now
	r.since = n.now.Wall
	n.election.tickAt = n.now.Mono.Add(n.timing.H)
	n.planDue = true
	n.urgent()
	n.event("coordinator", n.id(), "%s coordinates, term %d", n.id(), r.term())
}

// persistRaft hands a write of Raft to the disk. Its responses wait until every write that must be durable
// is: entries, a snapshot, a term or a vote. A commit index need not be (raft.MustSync), so an answer never
// waits for a sync of its own that nothing asks for.
func (n *Node) persistRaft(m *raftpb.Message) {
	r := n.raft
	u := unstored{entries: m.GetEntries()}
	p := cluster.Persist{Sync: len(m.GetEntries()) > 0}
	if m.Term != nil || m.Vote != nil || m.Commit != nil {
		u.hard = &raftpb.HardState{Term: new(m.GetTerm()), Vote: new(m.GetVote()), Commit: new(m.GetCommit())}
		p.Hard = &cluster.HardState{Term: m.GetTerm(), Vote: m.GetVote(), Commit: m.GetCommit()}
		p.Sync = p.Sync || (m.GetTerm() != r.hard.Term || m.GetVote() != r.hard.Vote) && !n.flawed(VoteUnsynced)
		r.hard = *p.Hard
	}
	if s := m.GetSnapshot(); s != nil && !raft.IsEmptySnap(s) {
		u.snapshot = s
		p.Snapshot = &cluster.Snapshot{Index: s.GetMetadata().GetIndex(), Term: s.GetMetadata().GetTerm(), Data: s.GetData()}
		p.Sync = true
	}
	for _, e := range m.GetEntries() {
		p.Entries = append(p.Entries, cluster.LogEntry{Index: e.GetIndex(), Term: e.GetTerm(), Type: int32(e.GetType()), Data: e.GetData()})
	}
	if k := len(m.GetEntries()); k > 0 {
		r.last = m.GetEntries()[k-1].GetIndex()
	}
	r.note(m.GetEntries(), n.id())
	if p.Sync {
		u.responses = m.GetResponses()
		if n.flawed(VoteUndurable) {
			n.answerAtOnce(&u)
		}
		n.persist(p, u)
		return
	}
	if responses := m.GetResponses(); len(responses) > 0 {
		n.await(unstored{n: n.syncN, at: n.now.Mono, responses: responses})
	}
	if p.Hard != nil {
		n.persist(p, u)
	}
}

// persist numbers a write and remembers what waits for it.
func (n *Node) persist(p cluster.Persist, u unstored) {
	n.storeN++
	if p.Sync {
		n.syncN = n.storeN
	}
	p.N, u.n, u.at = n.storeN, n.storeN, n.now.Mono
	n.wroteAt = n.now.Mono
	n.stores = append(n.stores, u)
	n.out.Persists = append(n.out.Persists, p)
}

// await remembers what waits for writes up to u.n, or carries it out if those are answered.
func (n *Node) await(u unstored) {
	if u.n <= n.storeOK {
		n.carryOn(&u)
		return
	}
	i := len(n.stores)
	for i > 0 && n.stores[i-1].n > u.n {
		i--
	}
	n.stores = slices.Insert(n.stores, i, u)
}

// stored takes the disk's answer: what waited for it goes on.
func (n *Node) stored(upTo uint64) {
	n.storeOK = max(n.storeOK, min(upTo, n.storeN))
	for len(n.stores) > 0 && n.stores[0].n <= n.storeOK {
		u := n.stores[0]
		n.stores = slices.Delete(n.stores, 0, 1)
		n.carryOn(&u)
	}
}

// carryOn does what a write that is now durable allows.
func (n *Node) carryOn(u *unstored) {
	if u.notes != nil {
		n.durable = *u.notes
	}
	if u.founding != nil {
		n.founded(u.founding)
		return
	}
	if n.raft == nil {
		return
	}
	if u.snapshot != nil {
		if err := n.raft.store.ApplySnapshot(u.snapshot); err != nil && err != raft.ErrSnapOutOfDate {
			must(err)
		}
		n.raft.durable = max(n.raft.durable, u.snapshot.GetMetadata().GetIndex())
		n.restore(u.snapshot)
	}
	if u.hard != nil {
		must(n.raft.store.SetHardState(u.hard))
	}
	if len(u.entries) > 0 {
		must(n.raft.store.Append(u.entries))
		n.raft.durable = u.entries[len(u.entries)-1].GetIndex()
	}
	for _, m := range u.responses {
		switch {
		case m.GetTo() == uint64(n.inc):
			_ = n.raft.rn.Step(m)
		case m.GetType() == raftpb.MsgAppResp && m.GetTerm() < n.raft.term():
			// A later leader may have cut off meanwhile what this acknowledges; nobody counts it any more.
		default:
			n.sendRaft(m)
		}
	}
}

// sendRaft sends one message of Raft. An append with entries and a request for a vote are repeated quickly until they
// are answered, and the word that entries are committed until the peer says that it has applied them: a lost one
// must not cost a heartbeat's time.
func (n *Node) sendRaft(m *raftpb.Message) {
	to := n.holderOf(cluster.Incarnation(m.GetTo()))
	if to < 0 || to == n.self || m.GetFrom() != uint64(n.inc) {
		return // what another has proposed, or asked of a leader, is not relayed: who wants it tries again
	}
	p := &n.peers[to]
	again := resend{msg: m, at: n.now.Mono.Add(n.prompt(0)), end: n.now.Mono.Add(n.lastingFor())}
	switch m.GetType() {
	case raftpb.MsgApp:
		if len(m.Entries) > 0 && !wire.IsLarge(&wire.Raft{Msg: m}) { // pieces are repeated each
			again.index = m.Entries[len(m.Entries)-1].GetIndex()
			p.append = again
		} else if len(m.Entries) == 0 && m.GetCommit() > p.applied() && m.GetCommit() <= m.GetIndex() && !n.flawed(CommitUnrepeated) {
			again.index = m.GetCommit()
			p.commit = again
		}
	case raftpb.MsgVote, raftpb.MsgPreVote:
		p.vote = again
	case raftpb.MsgVoteResp, raftpb.MsgPreVoteResp:
		if !m.GetReject() {
			n.election.granted(n)
		}
	case raftpb.MsgSnap:
		p.snapshot = n.now.Mono.Add(n.snapshotFor())
	default:
	}
	n.send(to, &wire.Raft{Msg: m})
}

// snapshotFor is how long a snapshot that has arrived may be unanswered until it counts as lost.
func (n *Node) snapshotFor() time.Duration { return max(n.timing.L/2, snapshotPatience) }

func (n *Node) resendRaft() {
	for i := range n.peers {
		p := &n.peers[i]
		if p.snapshot != 0 && n.now.Mono >= p.snapshot && p.out.holds(raftpb.MsgSnap) { // it is on its way
			p.snapshot = n.now.Mono.Add(n.snapshotFor())
		}
		if p.snapshot != 0 && n.now.Mono >= p.snapshot { // it, or the answer to it, was lost
			p.snapshot = 0
			n.raft.rn.ReportSnapshot(uint64(p.inc), raft.SnapshotFailure)
		}
		if p.commit.msg != nil && p.applied() >= p.commit.index {
			p.commit.msg = nil
		}
		for _, r := range []*resend{&p.append, &p.commit, &p.vote} {
			if r.msg == nil || n.now.Mono < r.at {
				continue
			}
			if n.now.Mono >= r.end {
				r.msg = nil
				continue
			}
			n.send(i, &wire.Raft{Msg: r.msg})
			r.times++
			r.at = n.now.Mono.Add(n.prompt(r.times))
		}
	}
}

// apply applies committed entries, all of which are durable here.
func (n *Node) apply(entries []*raftpb.Entry) {
	r := n.raft
	for _, e := range entries {
		if e.GetIndex() <= r.applied {
			continue
		}
		revision := n.state.Revision()
		c, applied := n.applyOne(r, e)
		if n.ended() {
			return
		}
		n.groupsDue, n.planDue = true, true
		if cc := confChange(e); cc != nil {
			if c != nil && !applied { // the state has refused it, and so must Raft: a change of node 0 is none
				add := raftpb.ConfChangeAddNode
				cc.Changes = []*raftpb.ConfChangeSingle{{Type: &add, NodeId: new(uint64(raft.None))}}
			}
			r.store.conf = r.rn.ApplyConfChange(cc)
			n.seatVoters()
		}
		if n.state.Revision() != revision {
			n.takeRevision()
		}
		if c != nil {
			n.instructed(e.GetIndex(), c)
			n.noticeParts(c)
		}
	}
	r.evicts = slices.DeleteFunc(r.evicts, func(a appended) bool { return a.index <= r.applied })
	n.prune()
}

// applyOne applies one entry to the state. It reports whether any part of it did.
func (n *Node) applyOne(r *replica, e *raftpb.Entry) (c *cluster.Entry, applied bool) {
	data := command(e)
	if len(data) > 0 {
		var err error
		if c, err = cluster.DecodeEntry(data); err != nil {
			n.halt("entry %d of the log can't be read by this version: %v", e.GetIndex(), err)
			return nil, false
		}
		if !n.adoptable(e.GetIndex(), c) {
			return nil, false
		}
	}
	r.applied = e.GetIndex()
	r.grown += len(data)
	n.out.Applied = append(n.out.Applied, cluster.LogEntry{Index: e.GetIndex(), Term: e.GetTerm(), Type: int32(e.GetType()), Data: data})
	if c == nil {
		return nil, false
	}
	j := n.state.Apply(e.GetIndex(), c)
	if n.alive {
		n.event("applied", "", "%s", describe(j))
	}
	return c, len(j.Did) > 0
}

// noticeParts does what follows from an entry at once.
func (n *Node) noticeParts(c *cluster.Entry) {
	for _, p := range c.Parts {
		if p.Evict != nil {
			n.urgent()
		}
		if a := p.Assign; a != nil && c.Rule == decide.OutOfSight {
			if i, ok := n.places.byID[a.Group]; ok && n.state.Groups[i].Epoch == a.Epoch && a.To != n.id() {
				n.takenAway(i)
			}
		}
		if p.Admit != nil {
			if i := n.index(p.Admit.Node); i >= 0 {
				n.peers[i].admitted = n.now.Mono
			}
		}
	}
}

// describe renders a line of history as text.
func describe(j cluster.Line) string {
	s := ""
	for i, d := range j.Did {
		if i > 0 {
			s += " + "
		}
		s += d
	}
	if len(j.Did) == 0 {
		s = "nothing"
	}
	for _, d := range j.Dropped {
		s += "; dropped " + d
	}
	if j.Rule != "" {
		s += " (" + j.Rule + ": " + j.Why + ")"
	}
	return s
}

// prune forgets heard releases of tenures that are over by the log.
func (n *Node) prune() {
	for i := range n.groups {
		l, g := &n.groups[i], &n.state.Groups[i]
		l.heard = slices.DeleteFunc(l.heard, func(h heardRelease) bool {
			return h.epoch <= g.Epoch && !slices.ContainsFunc(g.Tenures, func(t state.Tenure) bool { return t.Epoch == h.epoch })
		})
	}
}

// compact writes a snapshot of the state and drops most of the log before it.
func (n *Node) compact() {
	r := n.raft
	snap, err := r.store.CreateSnapshot(r.applied, r.store.conf, n.encode())
	if err != nil {
		return // not that far yet
	}
	r.snapped, r.grown = r.applied, 0
	term := snap.GetMetadata().GetTerm()
	n.persist(cluster.Persist{Sync: true, Snapshot: &cluster.Snapshot{Index: r.applied, Term: term, Data: snap.GetData()}}, unstored{})
	if keep := r.keepFrom(n.compactAfter / compactKeepShare); keep > foundingIndex {
		if err := r.store.Compact(keep); err != nil && err != raft.ErrCompacted {
			must(err)
		}
	}
}

// keepFrom returns the index up to which the log is dropped: so many entries before the newest one applied are kept, if
// they are not too large.
func (r *replica) keepFrom(entries uint64) uint64 {
	first, err := r.store.FirstIndex()
	must(err)
	keep, bytes := r.applied, 0
	for keep >= first && r.applied-keep < entries {
		e, err := r.store.Entries(keep, keep+1, math.MaxUint64)
		must(err)
		if bytes += len(e[0].GetData()); bytes > compactKeepBytes {
			break
		}
		keep--
	}
	return keep
}

// encode returns the state's stored form, for a snapshot.
func (n *Node) encode() []byte {
	if !n.flawed(SnapshotWithoutTenures) && !n.flawed(SnapshotWithoutPeople) {
		return n.state.Encode()
	}
	s := *n.state
	if n.flawed(SnapshotWithoutPeople) {
		s.Instructions = cluster.Instructions{}
		return s.Encode()
	}
	s.Groups = slices.Clone(s.Groups)
	for i := range s.Groups {
		if t := s.Groups[i].Tenures; len(t) > 1 {
			s.Groups[i].Tenures = t[len(t)-1:]
		}
	}
	return s.Encode()
}

// answerAtOnce is a planted bug: what others wait for is said before it is durable.
func (n *Node) answerAtOnce(u *unstored) {
	own := u.responses[:0:0]
	for _, m := range u.responses {
		if m.GetTo() == uint64(n.inc) {
			own = append(own, m)
		} else {
			n.sendRaft(m)
		}
	}
	u.responses = own
}

// restore replaces the state by a leader's snapshot.
func (n *Node) restore(s *raftpb.Snapshot) {
	st, err := state.Decode(s.GetData(), n.read, n.stateFlaws())
	cluster.Assert(err == nil, "a snapshot that could be read when it came can't be any more: %v", err)
	n.state, n.raft.applied, n.raft.snapped, n.raft.grown = st, s.GetMetadata().GetIndex(), s.GetMetadata().GetIndex(), 0
	n.raft.store.conf = s.GetMetadata().GetConfState()
	n.raft.evicts = nil // the log that they stood in is replaced
	n.groupsDue, n.planDue = true, true
	n.takeRevision()
	n.prune()
}

// propose appends entries to the log, through the leader.
func (n *Node) propose(entries []cluster.Entry) {
	r := n.raft
	for i := range entries {
		if err := r.propose(&entries[i]); err != nil {
			break // no leader is known, or leadership is moving: the caller tries again
		}
	}
	r.proposes = r.leading
	n.drainRaft()
}

// quiet keeps Raft's logger silent: what matters is told by events.
type quiet struct{}

func (quiet) Debug(...any)            {}
func (quiet) Debugf(string, ...any)   {}
func (quiet) Error(...any)            {}
func (quiet) Errorf(string, ...any)   {}
func (quiet) Info(...any)             {}
func (quiet) Infof(string, ...any)    {}
func (quiet) Warning(...any)          {}
func (quiet) Warningf(string, ...any) {}
func (quiet) Fatal(v ...any)          { panic(cluster.BrokenInvariant("raft: " + fmt.Sprint(v...))) }
func (quiet) Fatalf(f string, v ...any) {
	panic(cluster.BrokenInvariant("raft: " + fmt.Sprintf(f, v...)))
}
func (quiet) Panic(v ...any) { panic(cluster.BrokenInvariant("raft: " + fmt.Sprint(v...))) }
func (quiet) Panicf(f string, v ...any) {
	panic(cluster.BrokenInvariant("raft: " + fmt.Sprintf(f, v...)))
}
