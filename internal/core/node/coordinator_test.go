package node

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// Who coordinates, and whom a node hears as the coordinator.

// replaced is the incarnation of a disk that gamma's log does not know yet.
const replaced = 999

// Alpha and beta are gone, alpha's disk was replaced while gamma slept. What the new alpha says as a leader, or asks as
// a candidate, gamma takes and answers, to the new incarnation: it may know more than gamma.
func TestRaftOfAnUnknownIncarnation(t *testing.T) {
	r := settled(t, file("one", nil))
	snapshot := r.at("beta").n.state
	snapshot.Applied += 10
	data := snapshot.Encode()
	for _, c := range []struct {
		kind, answer raftpb.MessageType
		fill         func(m *raftpb.Message, gamma *Node)
	}{
		{raftpb.MsgApp, raftpb.MsgAppResp, func(m *raftpb.Message, gamma *Node) {
			m.Index, m.Commit = new(gamma.raft.last), new(gamma.raft.applied)
			term, _ := gamma.raft.store.Term(gamma.raft.last)
			m.LogTerm = new(term)
		}},
		{raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, func(m *raftpb.Message, gamma *Node) { m.Commit = new(gamma.raft.applied) }},
		{raftpb.MsgSnap, raftpb.MsgAppResp, func(m *raftpb.Message, gamma *Node) {
			conf := gamma.raft.store.conf
			m.Snapshot = &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{Index: new(snapshot.Applied), Term: new(m.GetTerm()), ConfState: conf}}
		}},
		{raftpb.MsgVote, raftpb.MsgVoteResp, func(m *raftpb.Message, gamma *Node) { m.Index, m.LogTerm = new(gamma.raft.last), new(uint64(50)) }},
		{raftpb.MsgPreVote, raftpb.MsgPreVoteResp, func(m *raftpb.Message, gamma *Node) { m.Index, m.LogTerm = new(gamma.raft.last), new(uint64(50)) }},
	} {
		for _, x := range []struct {
			name  cluster.NodeID
			newer int64 // its term, against gamma's
			taken bool
		}{{"alpha", 0, true}, {"alpha", 1, true}, {"alpha", -1, false}, {"delta", 1, false}} {
			r := settled(t, file("one", nil))
			r.at("alpha").cut, r.at("beta").cut = true, true
			r.run(600 * time.Millisecond) // gamma knows no leader any more
			gamma := r.at("gamma").n
			term := gamma.raft.term()
			m := &raftpb.Message{Type: &c.kind, From: new(uint64(replaced)), To: new(uint64(33)), Term: new(uint64(int64(term) + x.newer))}
			c.fill(m, gamma)
			r.forget()
			r.hand(x.name, "gamma", &wire.Raft{Msg: m})
			r.run(5 * time.Millisecond) // its disk answers
			answers := 0
			for _, a := range sent[*wire.Raft](r, "gamma") {
				if a.Msg.GetTo() == replaced {
					answers++
					check(t, a.Msg.GetType() == c.answer && (x.newer == 0 || !a.Msg.GetReject()), "%v of %s is answered by %v", c.kind, x.name, a.Msg)
				}
			}
			check(t, (answers > 0) == x.taken, "%v of %s in a term %+d: answered %v, must be %v", c.kind, x.name, x.newer, answers > 0, x.taken)
			if c.kind == raftpb.MsgSnap {
				check(t, (gamma.state.Applied == snapshot.Applied) == x.taken, "the snapshot of %s in a term %+d: gamma has applied %d", x.name, x.newer, gamma.state.Applied)
			}
		}
	}
}

// committed counts the packets by which beta tells alpha that an entry is committed.
func committed(r *rig, index uint64) int {
	c := 0
	for _, p := range r.sent {
		if m, ok := p.in.(*Packet).Msg.(*wire.Raft); ok && p.from == "beta" && p.to == "alpha" && m.Msg.GetType() == raftpb.MsgApp && len(m.Msg.Entries) == 0 && m.Msg.GetCommit() == index {
			c++
		}
	}
	return c
}

// Beta tells that an entry is committed again each L/50 until alpha's heartbeat says that it has applied it: that alpha
// has acknowledged the packet is not enough. After 2 L it gives up.
func TestCommitNoticeIsRepeated(t *testing.T) {
	r := settled(t, file("one", nil))
	beta := r.at("beta")
	index := beta.n.raft.last + 1
	r.pass = func(from, to cluster.NodeID, m wire.Message) wire.Message { // alpha's word that it has applied the entry is lost
		if hb, ok := m.(*wire.Heartbeat); ok && from == "alpha" && to == "beta" {
			c := *hb
			c.Applied = min(c.Applied, index-1)
			return &c
		}
		return m
	}
	r.forget()
	beta.ask(deed("said"))
	r.run(400 * time.Millisecond)
	check(t, r.at("alpha").n.raft.applied == index, "alpha has not applied it")
	check(t, committed(r, index) >= 18, "beta says it %d times in 400 ms", committed(r, index))
	r.run(1700 * time.Millisecond)
	check(t, committed(r, index) >= 95, "beta says it %d times in 2 L", committed(r, index))
	r.forget()
	r.run(300 * time.Millisecond)
	check(t, committed(r, index) == 0, "beta says it still after 2 L: %d times", committed(r, index))
	r.pass = nil
	r.forget()
	beta.ask(deed("said again"))
	r.run(300 * time.Millisecond)
	check(t, committed(r, index+1) > 0 && committed(r, index+1) <= 10, "alpha says that it has applied it, and is told %d times", committed(r, index+1))
}

// lead makes a node coordinate, by leave of the one that does.
func (r *rig) lead(id cluster.NodeID) {
	r.t.Helper()
	from := r.at(r.leader())
	from.n.raft.rn.TransferLeader(uint64(r.at(id).n.inc))
	from.step(&Tick{})
	r.until(string(id)+" coordinates", 100*time.Millisecond, func() bool { return r.leader() == id })
}

// Alpha, which serves, has once noted that beta would be the better coordinator. It leads again long after: beta must
// be the better one for 2 L from now, not from then.
func TestNewCoordinatorForgetsWhatItNoted(t *testing.T) {
	r := serving(t, file("one", nil))
	r.run(500 * time.Millisecond)
	check(t, r.leader() == "alpha" && r.at("alpha").n.election.better == 1, "alpha has not noted that beta would be better")
	r.lead("beta")
	r.run(3 * time.Second)
	r.lead("alpha")
	since := r.now
	r.until("beta coordinates", 3*time.Second, func() bool { return r.leader() == "beta" })
	check(t, r.now.Sub(since) >= 2*time.Second, "beta coordinates after %v", r.now.Sub(since))
}

// Beta, which coordinates, stands still for longer than D. It heard no less of the others than they did of it: its own
// stall is deducted from its own word as from theirs, so none of them is the better place.
func TestOneMeasureForAllCoordinators(t *testing.T) {
	r := settled(t, file("one", func(s *cluster.Spec) { s.Nodes[2].Role = cluster.Member }))
	beta := r.at("beta")
	beta.frozen = true
	r.run(950 * time.Millisecond)
	r.air = nil // its sockets overflow
	beta.step(&Tick{})
	check(t, beta.told("stall"), "beta does not notice that it stood still")
	check(t, beta.n.hears(1) == 2 && beta.n.hears(0) == 2, "beta hears %d others by its own measure, alpha %d", beta.n.hears(1), beta.n.hears(0))
}

// Alpha is dead, and beta stands still for half a second: it deducts that from alpha's silence, and nobody else's
// silence begins anew.
func TestOwnStallIsDeducted(t *testing.T) {
	r := settled(t, file("one", nil))
	beta := r.at("beta")
	r.at("alpha").stop()
	died := beta.n.peers[0].hbAt
	r.run(200 * time.Millisecond)
	beta.frozen = true
	r.run(500 * time.Millisecond)
	beta.frozen = false
	beta.step(&Tick{})
	ago, real := beta.n.peers[0].det.Ago(r.now), r.now.Sub(died)
	check(t, ago >= real-510*time.Millisecond && ago <= real-390*time.Millisecond, "%v of silence, of which it stood still for 500 ms, count as %v", real, ago)
	r.until("beta holds alpha for silent", 2*time.Second, func() bool { return beta.n.peers[0].silentTold })
	check(t, r.now.Sub(died) >= 1290*time.Millisecond, "already after %v", r.now.Sub(died))
	check(t, !beta.n.peers[2].silentTold, "gamma, which was heard all the time, is held for silent")
}

// Gamma stands still for 400 ms again and again. It may not hide for ever that alpha is dead: of its stalls the longest
// is deducted, and no more.
func TestStallsAreNoVeto(t *testing.T) {
	r := settled(t, file("one", nil))
	gamma := r.at("gamma")
	r.at("alpha").stop()
	died := gamma.n.peers[0].hbAt
	for range 3 {
		gamma.frozen = true
		r.run(400 * time.Millisecond)
		gamma.frozen = false
		r.run(60 * time.Millisecond)
	}
	hb := r.beat("gamma")
	check(t, r.now.Sub(died) < 1500*time.Millisecond, "it took %v", r.now.Sub(died))
	check(t, hb.Heard[0].Node == "alpha" && hb.Heard[0].Ago >= 900*time.Millisecond, "%v after its death gamma says that it heard alpha %v ago", r.now.Sub(died), hb.Heard[0].Ago)
	r.until("alpha is evicted", 200*time.Millisecond, func() bool { return !gamma.n.state.Nodes[0].Admitted })
}
