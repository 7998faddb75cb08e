package node

import (
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// What a node does that can't go on as it should: what it waits for does not answer, or it can't read the log.

// Something that beta waits for answers nothing for L: it says that it is sick, and names what. Once that is answered
// it is well again.
func TestSick(t *testing.T) {
	for _, c := range []struct {
		kind  answer
		names string
		begin func(r *rig)
	}{
		{stored, "disk", func(r *rig) { r.at("alpha").ask(deed("said")) }},
		{recorded, "run record", func(r *rig) { r.switchTo("beta") }},
		{gated, "gate", func(r *rig) { r.switchTo("beta") }},
	} {
		r := settled(t, file("one", nil))
		beta, kind := r.at("beta"), c.kind
		beta.hold(kind)
		c.begin(r)
		since := r.now
		r.until("beta says that it is sick: its "+c.names+" does not answer", 1100*time.Millisecond, func() bool { return r.beat("beta").Sick })
		check(t, r.now.Sub(since) >= time.Second, "%s: sick after %v", kind, r.now.Sub(since))
		said := ""
		for _, e := range beta.events {
			if e.Code == "sick" {
				said = e.Text
			}
		}
		check(t, strings.Contains(said, "the "+c.names+" of beta"), "%s: it blames another: %s", kind, said)
		beta.answer(kind)
		r.until("beta is well again", 20*time.Millisecond, func() bool { return !r.beat("beta").Sick })
		r.never("beta is sick", 1500*time.Millisecond, func() bool { return r.beat("beta").Sick })
	}
}

// isHalted checks that a node has halted as it should: said why, its gate shut, nothing written over, and that it
// neither hears nor says anything from then on.
func isHalted(t *testing.T, r *rig, h *host, why string) {
	t.Helper()
	check(t, strings.Contains(h.last.Halted, why), "%s does not halt: %q", h.id, h.last.Halted)
	check(t, !h.open("web"), "%s halts with its gate open", h.id)
	check(t, h.last.WakeAt == cluster.Never, "%s wants to be called again", h.id)
	r.forget()
	for _, in := range []Input{&Tick{}, &Stored{1000}, &Suspended{}, &Command{ID: 9, Op: OpPropose, Part: deed("said")}} {
		h.step(in)
	}
	r.run(500 * time.Millisecond)
	for _, p := range r.sent {
		check(t, p.from != h.id, "%s halts, and says %v", h.id, p.in)
	}
	check(t, len(h.persists)+len(h.wants)+len(h.events)+len(h.replies) == 0, "%s goes on after it has halted", h.id)
}

// An entry of a newer version is committed: nobody applies another state than the one meant, so each node halts, and
// what served is shut.
func TestHaltsOnAnEntryThatCantBeRead(t *testing.T) {
	for _, data := range []string{`{"parts":[{"swap":{"group":"web"}}]}`, `{"wall":1,"mood":"good","parts":[]}`, `{"parts":[`} {
		r := settled(t, file("one", nil))
		_ = r.at("beta").n.raft.rn.Propose([]byte(data))
		r.at("beta").step(&Tick{})
		r.until("alpha halts", 100*time.Millisecond, func() bool { return r.at("alpha").last.Halted != "" })
		last := r.at("alpha").disk.Entries[len(r.at("alpha").disk.Entries)-1]
		check(t, string(last.Data) == data, "what can't be read is not kept")
		for _, h := range r.hosts {
			isHalted(t, r, h, "of the log can't be read by this version")
		}
	}
}

// The coordinator sends a snapshot that this version can't read. What is on the disk stays there.
func TestHaltsOnASnapshotThatCantBeRead(t *testing.T) {
	r := settled(t, file("one", nil))
	alpha, beta := r.at("alpha"), r.at("beta")
	data := strings.Replace(string(beta.n.state.Encode()), `{"founding"`, `{"of_tomorrow":1,"founding"`, 1)
	index, term := beta.n.raft.applied+10, beta.n.raft.term()
	kind := raftpb.MsgSnap
	r.forget()
	r.hand("beta", "alpha", &wire.Raft{Msg: &raftpb.Message{Type: &kind, From: new(uint64(22)), To: new(uint64(11)), Term: new(term),
		Snapshot: &raftpb.Snapshot{Data: []byte(data), Metadata: &raftpb.SnapshotMetadata{Index: new(index), Term: new(term), ConfState: beta.n.raft.store.conf}}}})
	for _, p := range alpha.persists {
		check(t, p.Snapshot == nil, "what can't be read is written over what can")
	}
	isHalted(t, r, alpha, "the snapshot that the coordinator sends can't be read")
}

// Revision 2 is adopted, and alpha's version can't read it. Alpha halts; the others go on without it.
func TestHaltsOnARevisionThatCantBeRead(t *testing.T) {
	r := settled(t, file("one", nil), file("two", nil))
	alpha, beta := r.at("alpha"), r.at("beta")
	alpha.blind = true
	beta.ask(cluster.Part{Draft: &cluster.Draft{Base: 1, Text: []byte("two")}})
	r.until("alpha halts", 500*time.Millisecond, func() bool { return alpha.last.Halted != "" })
	check(t, alpha.n.state.Revision() == 1, "alpha counts revision %d, which it can't read", alpha.n.state.Revision())
	isHalted(t, r, alpha, "makes a configuration count that can't be read")
	r.until("beta serves under revision 2", 2*time.Second, func() bool { return beta.open("web") && beta.n.state.Revision() == 2 })
}

// Gamma's disk holds, under a committed index, an entry with a field that this version does not know.
func TestHaltsOnWhatTheDiskHolds(t *testing.T) {
	r := settled(t, file("one", nil))
	gamma := r.at("gamma")
	gamma.stop()
	last := &gamma.disk.Entries[len(gamma.disk.Entries)-1]
	last.Data, gamma.disk.Hard.Commit = []byte(`{"wall":1,"mood":"good","parts":[]}`), last.Index
	gamma.start()
	isHalted(t, r, gamma, "of the log can't be read by this version")
	for _, h := range r.hosts[:2] {
		check(t, h.last.Halted == "", "%s halts too", h.id)
	}
}

// The disk of gamma goes back to what it held a while ago: it lacks entries that it has acknowledged, and a later run
// of it was heard. It takes no part any more, and asks to begin anew.
func TestSetBack(t *testing.T) {
	r := settled(t, file("one", nil))
	alpha := r.at("alpha")
	for _, c := range []struct {
		what string
		set  func(*wire.Heard)
	}{
		{"an entry that it has acknowledged", func(h *wire.Heard) { h.Durable = alpha.n.logEnd() + 1 }},
		{"a later run of it", func(h *wire.Heard) { h.Run = alpha.n.run + 1 }},
	} {
		r := settled(t, file("one", nil))
		alpha := r.at("alpha")
		hb := *r.beat("beta")
		hb.Seq, hb.Heard = hb.Seq+1000, append([]wire.Heard(nil), hb.Heard...)
		check(t, alpha.open("web") && hb.Heard[0].Node == "alpha", "alpha does not serve")
		c.set(&hb.Heard[0])
		r.forget()
		out := r.hand("beta", "alpha", &hb)
		check(t, out.SetBack && len(out.Sends) == 0 && !alpha.open("web"), "alpha goes on though beta has heard of %s", c.what)
		r.never("alpha says something", 500*time.Millisecond, func() bool { return len(sent[*wire.Heartbeat](r, "alpha"))+len(sent[*wire.Ack](r, "alpha")) > 0 })
	}
	hb := *r.beat("beta")
	hb.Seq += 1000
	check(t, !r.hand("beta", "alpha", &hb).SetBack, "alpha stops though beta has heard of nothing that it does not hold")
}

// A leader names as committed no more than a follower has acknowledged. Gamma, whose log ends before that, has forgotten
// what it acknowledged: its disk was set back, and the leader could count on it for what it does not have.
func TestSetBackByTheLeadersWord(t *testing.T) {
	r := settled(t, file("one", nil))
	gamma := r.at("gamma").n
	kind := raftpb.MsgHeartbeat
	say := func(commit uint64) *Output {
		return r.hand("beta", "gamma", &wire.Raft{Msg: &raftpb.Message{Type: &kind, From: new(uint64(22)), To: new(uint64(33)),
			Term: new(gamma.raft.term()), Commit: new(commit)}})
	}
	check(t, !say(gamma.logEnd()).SetBack, "gamma stops though its log holds all that is committed")
	out := say(gamma.logEnd() + 1)
	check(t, out.SetBack && len(out.Sends) == 0, "gamma goes on with a log that lacks what it has acknowledged")
}
