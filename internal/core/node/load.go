package node

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"baton/internal/core/cluster"
	"baton/internal/core/state"
)

// SpecOf returns the configuration that a data directory's log has come to, or the node's own file if it
// belongs to no cluster yet. It returns an error if the directory is another node's.
func SpecOf(self cluster.NodeID, disk *cluster.DiskImage, own *cluster.Spec, read state.Reader) (*cluster.Spec, error) {
	s, err := begin(disk, read, state.Flaws{})
	if err != nil || s == nil {
		return own, err
	}
	for _, m := range s.Members {
		if m.Incarnation == disk.Incarnation && m.Node != self {
			return nil, fmt.Errorf("the data directory is that of node %s, not of %s", m.Node, self)
		}
	}
	for i := range disk.Entries {
		e := raftEntry(&disk.Entries[i])
		if e.GetIndex() <= s.Applied || e.GetIndex() > disk.Hard.Commit || len(command(e)) == 0 {
			continue
		}
		c, err := cluster.DecodeEntry(command(e))
		if err == nil {
			err = s.Unread(c)
		}
		if err != nil {
			return nil, fmt.Errorf("entry %d of the log in the data directory can't be read by this version: %w", e.GetIndex(), err)
		}
		s.Apply(e.GetIndex(), c)
	}
	return s.Spec(), nil
}

// begin returns the state that the log on a disk goes on from: the snapshot's, or the founding record's;
// nil if there is neither.
func begin(disk *cluster.DiskImage, read state.Reader, flaws state.Flaws) (*state.State, error) {
	switch {
	case disk.Snapshot != nil:
		s, err := state.Decode(disk.Snapshot.Data, read, flaws)
		if err != nil {
			return nil, fmt.Errorf("the snapshot in the data directory: %w", err)
		}
		return s, nil
	case disk.Founding != nil:
		f, err := cluster.DecodeFounding(disk.Founding)
		if err != nil {
			return nil, fmt.Errorf("the data directory: %w", err)
		}
		s, err := state.New(f, read, foundingIndex, flaws)
		if err != nil {
			return nil, fmt.Errorf("the file that the cluster was founded with: %w", err)
		}
		return s, nil
	}
	return nil, nil
}

func raftEntry(e *cluster.LogEntry) *raftpb.Entry {
	t := raftpb.EntryType(e.Type)
	return &raftpb.Entry{Index: new(e.Index), Term: new(e.Term), Type: &t, Data: e.Data}
}

// load reads the log on the disk as far as it is known to be committed. It returns nil if this node belongs
// to no cluster yet.
func (n *Node) load(disk *cluster.DiskImage) *replica {
	s, err := begin(disk, n.read, n.stateFlaws())
	cluster.Assert(err == nil, "%v", err)
	if s == nil {
		return nil
	}
	index, term := uint64(foundingIndex), uint64(1)
	if disk.Snapshot != nil {
		index, term = disk.Snapshot.Index, disk.Snapshot.Term
	}
	n.state = s
	r := n.open(index, term, s, disk.Hard)
	entries := make([]*raftpb.Entry, 0, len(disk.Entries))
	for i := range disk.Entries {
		entries = append(entries, raftEntry(&disk.Entries[i]))
	}
	must(r.store.Append(entries))
	last, err := r.store.LastIndex()
	must(err)
	r.durable, r.last = last, last
	for _, e := range entries {
		if e.GetIndex() > r.applied && e.GetIndex() <= r.hard.Commit && !n.ended() {
			n.applyOne(r, e)
		}
	}
	r.store.conf = confState(n.state)
	r.note(entries, n.id())
	n.takeSpec(n.state.Spec())
	return r
}

// open makes a replica whose log begins after a state.
func (n *Node) open(index, term uint64, s *state.State, hard cluster.HardState) *replica {
	r := &replica{store: &storage{MemoryStorage: raft.NewMemoryStorage(), conf: &raftpb.ConfState{}},
		applied: index, durable: index, last: index, snapped: index}
	if index > 0 {
		r.store.conf = confState(s)
		must(r.store.ApplySnapshot(&raftpb.Snapshot{
			Metadata: &raftpb.SnapshotMetadata{Index: new(index), Term: new(term), ConfState: r.store.conf}}))
		hard.Term, hard.Commit = max(hard.Term, 1), max(hard.Commit, index)
	}
	r.store.made = func() *raftpb.Snapshot {
		term, err := r.store.Term(r.applied)
		must(err)
		return &raftpb.Snapshot{Data: n.encode(),
			Metadata: &raftpb.SnapshotMetadata{Index: new(r.applied), Term: new(term), ConfState: r.store.conf}}
	}
	must(r.store.SetHardState(&raftpb.HardState{Term: new(hard.Term), Vote: new(hard.Vote), Commit: new(hard.Commit)}))
	r.hard = hard
	return r
}

// startRaft begins this node's part in Raft.
func (n *Node) startRaft(r *replica) {
	n.raft = r
	if n.rec.Number == 0 && !n.flawed(NumberOfFormerRun) {
		r.usable = r.last
	}
	var err error
	r.rn, err = raft.NewRawNode(&raft.Config{
		ID: uint64(n.inc), ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks, Storage: r.store, Applied: r.applied,
		AsyncStorageWrites: true, MaxSizePerMsg: maxAppendBytes, MaxCommittedSizePerReady: maxCommittedSize,
		MaxUncommittedEntriesSize: maxUncommitted, MaxInflightMsgs: maxInflight,
		CheckQuorum: true, PreVote: true, Logger: quiet{},
	})
	must(err)
	n.founding = nil
	n.election.heard = n.now.Mono
	n.seatVoters()
	n.groupsDue, n.planDue = true, true
}

// letIn begins copying the log: the coordinator of a cluster that this empty node has asked sends it. Until
// the copy is complete this node knows nothing, and so neither votes nor promises nor serves. It begins after a
// heartbeat of the sender's: that tells a directory that was set back to its empty beginning of what it once held.
func (n *Node) letIn(i int, m *raftpb.Message) {
	if n.founding == nil || n.founding.pending || m == nil || m.GetTo() != uint64(n.inc) {
		return
	}
	if n.peers[i].hb == nil && !n.flawed(SetBackUnseen) {
		return
	}
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgSnap, raftpb.MsgHeartbeat:
	default:
		return
	}
	n.state = state.Blank(n.spec, n.read, n.stateFlaws())
	n.startRaft(n.open(0, 0, n.state, cluster.HardState{}))
	n.event("joining", n.id(), "%s copies the cluster's log from %s", n.id(), n.peers[i].id)
	n.raftIn(i, m)
}
