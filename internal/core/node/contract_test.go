package node

import (
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// The rows of the contract in docs/internals/core.md, "this waits for".

// A voter whose disk hangs grants no vote: after a power loss it could grant another in the same term.
func TestVoteWaitsForStored(t *testing.T) {
	r := settled(t, file("one", nil))
	r.at("beta").cut = true
	r.at("gamma").hold(stored)
	r.forget()
	r.run(800 * time.Millisecond)
	check(t, len(raftSent(r, "alpha", raftpb.MsgVote)) > 0, "alpha asks for no vote though the coordinator is gone")
	check(t, len(raftSent(r, "gamma", raftpb.MsgVoteResp)) == 0, "gamma answers before its vote is on the disk")
	r.at("gamma").answer(stored)
	r.until("alpha coordinates", 10*time.Millisecond, func() bool { return r.leader() == "alpha" })
}

// An entry is acknowledged once it is on the disk, also when it comes again over another link meanwhile.
func TestAppendAckWaitsForStored(t *testing.T) {
	r := settled(t, file("one", nil))
	last := r.at("beta").n.raft.last
	r.at("gamma").hold(stored)
	r.forget()
	r.at("beta").ask(deed("said"))
	acked := func() bool {
		for _, m := range raftSent(r, "gamma", raftpb.MsgAppResp) {
			if m.GetIndex() > last {
				return true
			}
		}
		return false
	}
	r.never("gamma acknowledges what is not on its disk", 500*time.Millisecond, acked)
	check(t, len(raftSent(r, "beta", raftpb.MsgApp)) > 10, "beta does not repeat the entry")
	r.at("gamma").answer(stored)
	r.until("gamma acknowledges", 5*time.Millisecond, acked)
}

func saysNothingLeft(r *rig, voter, of cluster.NodeID) bool {
	for _, l := range r.beat(voter).Said {
		if l.Node == of {
			return true
		}
	}
	return false
}

// Alpha loses power. Beta and gamma evict it after D, and say that nothing is left once their promises have run out:
// L(1+rho) after its last heartbeat came, though the Evict is applied 100 ms before.
func TestNothingLeftWaitsForThePromisesEnd(t *testing.T) {
	r := settled(t, file("one", nil))
	r.at("alpha").stop()
	r.forget()
	heard := r.at("gamma").n.peers[0].hbAt
	r.until("alpha is evicted", time.Second, func() bool { return !r.at("gamma").n.state.Nodes[0].Admitted })
	check(t, r.now < heard+920*ms, "evicted only after %v", r.now.Sub(heard))
	r.until("gamma says that nothing is left", time.Second, func() bool { return saysNothingLeft(r, "gamma", "alpha") })
	check(t, r.now >= heard+1005*ms, "gamma says so %v after it heard alpha last", r.now.Sub(heard))
}

// Gamma has the Evict in its log, but its disk hangs: the entry could still be cut off and the promise be renewed, so
// the promise's end alone is no reason to say that nothing is left of it.
func TestNothingLeftWaitsForTheEvictApplied(t *testing.T) {
	r := settled(t, file("one", nil))
	r.at("alpha").stop()
	r.at("gamma").hold(stored)
	r.until("the Evict stands in gamma's log", 1500*time.Millisecond, func() bool { return len(r.at("gamma").n.raft.evicts) > 0 })
	r.forget()
	r.run(500 * time.Millisecond)
	check(t, r.at("gamma").n.voter.Left("alpha") < r.now, "the promise has not run out yet")
	for _, id := range []cluster.NodeID{"beta", "gamma"} {
		check(t, !saysNothingLeft(r, id, "alpha"), "%s says that nothing is left under an Evict that is not committed", id)
	}
	r.at("gamma").answer(stored)
	r.until("beta serves", 50*time.Millisecond, func() bool { return r.at("beta").open("web") })
}

// A heartbeat names a lease longer than any before. Gamma acks it, and promises nothing before that length is on its
// disk: after a restart its grace would be too short.
func TestFirstLongerPromiseWaitsForItsNote(t *testing.T) {
	r := settled(t, file("one", nil))
	gamma := r.at("gamma")
	long := *r.beat("alpha")
	long.L, long.Seq = 3*time.Second, long.Seq+1000
	gamma.hold(stored)
	r.forget()
	promised := func() cluster.Number {
		hb := long
		r.hand("alpha", "gamma", &hb)
		acks := sent[*wire.Ack](r, "gamma")
		check(t, len(acks) > 0 && acks[len(acks)-1].Seq == long.Seq, "no ack")
		return acks[len(acks)-1].Number
	}
	check(t, promised() == 0, "gamma promises for 3 s, and could forget it")
	check(t, gamma.n.voter.Left("alpha") < r.now+1100*ms, "the promise counts already")
	gamma.answer(stored)
	r.run(time.Millisecond)
	long.Seq++
	check(t, promised() == 1 && gamma.disk.Notes.LongestPromise == 3*time.Second, "gamma does not promise, now that it has noted %v", gamma.disk.Notes)
}

// The founding record is told to nobody before it is on the founder's disk: it could be forgotten, and another made.
func TestFoundingWaitsForStored(t *testing.T) {
	r := newRig(t, file("one", nil))
	r.at("alpha").hold(stored)
	r.start()
	r.run(time.Second)
	writes := r.at("alpha").persists
	check(t, len(writes) > 0 && writes[len(writes)-1].Founding != nil, "alpha does not write the record")
	check(t, len(sent[*wire.Founding](r, "alpha")) == 0, "alpha tells of a record that it may forget")
	r.at("alpha").answer(stored)
	r.until("gamma has the record", 50*time.Millisecond, func() bool { return r.at("gamma").disk.Founding != nil })
}

// Alpha was evicted while it was cut off, and is admitted again under number 2. All others have applied that; alpha has
// it in its log, but not on its disk: it uses no number yet.
func TestNumberWaitsForItsAdmitApplied(t *testing.T) {
	r := settled(t, file("one", nil))
	alpha, beta := r.at("alpha"), r.at("beta")
	alpha.cut = true
	r.until("nothing is left of number 1", 2*time.Second, func() bool { return beta.n.state.Nodes[0].Ended == 1 })
	alpha.cut, r.pass = false, unheard[*wire.Heartbeat]("alpha", "")
	r.until("alpha has the log again", time.Second, func() bool { return alpha.n.raft.applied == beta.n.raft.applied })
	r.pass = nil
	alpha.hold(stored)
	r.until("alpha is admitted again", time.Second, func() bool { return beta.n.state.Nodes[0].Number == 2 })
	r.run(300 * time.Millisecond)
	check(t, alpha.n.raft.last >= beta.n.state.Nodes[0].AdmitIndex, "alpha does not have the Admit")
	check(t, r.beat("alpha").Number == 0, "alpha uses number %d", r.beat("alpha").Number)
	alpha.answer(stored)
	r.until("alpha uses the number", 20*time.Millisecond, func() bool { return r.beat("alpha").Number == 2 })
}

// A number is used once the run record holds it: a restarted agent must know under which it may have served.
func TestNumberWaitsForRecorded(t *testing.T) {
	r := newRig(t, file("one", nil))
	r.at("alpha").hold(recorded)
	r.start()
	r.until("alpha has applied its Admit", 2*time.Second, func() bool { return r.at("alpha").n.state != nil && r.at("alpha").n.state.Nodes[0].Admitted })
	r.run(300 * time.Millisecond)
	check(t, r.beat("alpha").Number == 0, "alpha uses a number that its run record does not hold")
	r.at("alpha").answer(recorded)
	r.until("alpha uses the number", 20*time.Millisecond, func() bool { return r.beat("alpha").Number == 1 && r.at("alpha").record.Number == 1 })
}

// Beta is given web. It starts nothing for the epoch before that stands in its run record.
func TestStartWaitsForRecorded(t *testing.T) {
	r := settled(t, file("one", nil))
	beta := r.at("beta")
	beta.hold(recorded)
	r.forget()
	r.switchTo("beta")
	r.run(300 * time.Millisecond)
	check(t, beta.group("web").Owner == "beta" && beta.group("web").Epoch == 2, "web was not assigned to beta")
	check(t, !beta.wanted("proc", cluster.TargetRunning), "beta starts it for an epoch that it could forget")
	beta.answer(recorded)
	r.until("beta starts it", 5*time.Millisecond, func() bool { return beta.wanted("proc", cluster.TargetRunning) })
	check(t, beta.record.Groups["web"].Activated == 2, "the run record holds %v", beta.record.Groups)
}

// fronts is a group that needs no start: an address, and nothing else.
func fronts(s *cluster.Spec) { s.Groups[0].Resources = s.Groups[0].Resources[1:] }

// Nothing has to start, and alpha has released: the gate waits for the run record all the same, and so does the address.
func TestGateWaitsForRecorded(t *testing.T) {
	r := settled(t, file("one", fronts))
	beta := r.at("beta")
	beta.hold(recorded)
	r.switchTo("beta")
	r.never("beta serves an epoch that it could forget", 300*time.Millisecond, func() bool { return beta.open("web") || beta.wanted("ip", cluster.TargetRunning) })
	check(t, len(beta.group("web").Tenures) == 1, "alpha has not released")
	beta.answer(recorded)
	r.until("beta serves", 5*time.Millisecond, func() bool { return beta.open("web") && beta.wanted("ip", cluster.TargetRunning) })
}

// Beta's acks are lost after it was given web: its lease ends while its process starts. What then runs stays shut
// until the lease runs again.
func TestGateWaitsForTheLease(t *testing.T) {
	r := settled(t, file("one", nil))
	beta := r.at("beta")
	beta.hold(done)
	r.switchTo("beta")
	r.run(50 * time.Millisecond)
	r.pass = unheard[*wire.Ack]("", "beta")
	r.run(1200 * time.Millisecond)
	check(t, beta.group("web").Owner == "beta" && len(beta.group("web").Tenures) == 1, "web is not beta's alone")
	check(t, !beta.n.leaseRuns(), "the lease runs")
	beta.answer(done)
	r.never("beta serves without a lease", 200*time.Millisecond, func() bool { return beta.open("web") || beta.wanted("ip", cluster.TargetRunning) })
	r.pass = nil
	r.until("beta serves", 200*time.Millisecond, func() bool { return beta.open("web") })
}

// The process starts for as long as it likes: neither gate nor address come before it runs.
func TestGateWaitsForTheRest(t *testing.T) {
	r := settled(t, file("one", nil))
	beta := r.at("beta")
	beta.hold(done)
	r.switchTo("beta")
	r.never("beta serves what does not run", 500*time.Millisecond, func() bool { return beta.open("web") || beta.wanted("ip", cluster.TargetRunning) })
	check(t, beta.wanted("proc", cluster.TargetRunning), "it does not even start")
	beta.answer(done)
	r.until("beta serves", 10*time.Millisecond, func() bool { return beta.open("web") })
}

// deafToSaid takes out of heartbeats what they say of alpha's number.
func deafToSaid(_, _ cluster.NodeID, m wire.Message) wire.Message {
	if hb, ok := m.(*wire.Heartbeat); ok && len(hb.Said) > 0 {
		c := *hb
		c.Said = nil
		return &c
	}
	return m
}

// Alpha is cut off and may still serve. Beta has web, all of it runs: it waits until a majority has said that nothing
// is left of alpha's number.
func TestGateWaitsForTheFormerTenure(t *testing.T) {
	r := settled(t, file("one", nil))
	beta := r.at("beta")
	r.at("alpha").cut = true
	r.pass = deafToSaid
	r.until("web is assigned to beta", time.Second, func() bool { return beta.group("web").Owner == "beta" })
	r.never("beta serves while alpha may", 1500*time.Millisecond, func() bool { return beta.open("web") || beta.wanted("ip", cluster.TargetRunning) })
	check(t, beta.wanted("proc", cluster.TargetRunning), "what does not serve is not started meanwhile")
	r.pass = nil
	r.until("beta serves", 150*time.Millisecond, func() bool { return beta.open("web") })
}

// Alpha is cut off; beta gets web, and has it moved on to gamma before it ever served. That beta has released it says
// nothing of alpha, two epochs before.
func TestGateWaitsForEveryEarlierTenure(t *testing.T) {
	r := settled(t, file("one", func(s *cluster.Spec) {
		s.Nodes[2].Role = cluster.Member
		s.Groups[0].Nodes = []cluster.NodeID{"alpha", "beta", "gamma"}
	}))
	gamma := r.at("gamma")
	r.at("alpha").cut = true
	r.pass = deafToSaid
	r.until("web is assigned to beta", 2*time.Second, func() bool { return gamma.group("web").Owner != "alpha" && gamma.group("web").Epoch == 2 })
	first, other := gamma, r.at("beta")
	if gamma.group("web").Owner == "beta" {
		first, other = other, gamma
	}
	r.switchTo(other.id)
	r.until("the release is in the log", time.Second, func() bool { return other.group("web").Epoch == 3 && len(other.group("web").Tenures) == 2 })
	r.never("it serves while alpha may", time.Second, func() bool { return other.open("web") || first.open("web") })
	r.pass = nil
	r.until("it serves", 150*time.Millisecond, func() bool { return other.open("web") })
}

func saysReleased(r *rig, id cluster.NodeID) bool {
	return slices.ContainsFunc(sent[*wire.Heartbeat](r, id), func(hb *wire.Heartbeat) bool { return len(hb.Released) > 0 })
}

// Web moves to beta, and alpha shuts its gate. It says so once the kernel has it, and its run record as well.
func TestReleaseWaitsForGatedAndRecorded(t *testing.T) {
	for _, kind := range []answer{gated, recorded} {
		r := settled(t, file("one", nil))
		alpha, beta := r.at("alpha"), r.at("beta")
		alpha.hold(kind)
		r.switchTo("beta")
		r.never("alpha says that it has released, before "+string(kind), 500*time.Millisecond, func() bool { return saysReleased(r, "alpha") || beta.open("web") })
		check(t, !alpha.open("web"), "alpha does not shut its gate")
		alpha.answer(kind)
		r.until("alpha says so", 10*time.Millisecond, func() bool { return saysReleased(r, "alpha") })
		r.until("beta serves", 20*time.Millisecond, func() bool { return beta.open("web") })
	}
}

// The process writes to shared storage: no gate reaches that, so the release waits until it has stopped.
func TestReleaseWaitsForWhatActsBeyondTheGate(t *testing.T) {
	r := settled(t, file("one", func(s *cluster.Spec) { s.Groups[0].Resources[0].Effects = cluster.EffectsBeyond }))
	alpha := r.at("alpha")
	alpha.hold(done)
	r.switchTo("beta")
	r.never("alpha says that it has released", 500*time.Millisecond, func() bool { return saysReleased(r, "alpha") })
	check(t, !alpha.open("web"), "alpha does not shut its gate")
	alpha.answer(done)
	r.until("alpha says so", 20*time.Millisecond, func() bool { return saysReleased(r, "alpha") })
}

func planned(h *host) bool {
	for _, p := range h.persists {
		for _, e := range p.Entries {
			if c, err := cluster.DecodeEntry(e.Data); err == nil && c.Rule != "" {
				return true
			}
		}
	}
	return false
}

// A new coordinator knows the log to be complete only once its own first entry is applied: it plans nothing before.
func TestPlanWaitsForTheFirstEntry(t *testing.T) {
	r := settled(t, file("one", nil))
	r.at("beta").stop()
	r.until("another coordinates", time.Second, func() bool { return r.leader() != "" })
	r.at("gamma").hold(stored)
	r.forget()
	next := r.at(r.leader())
	r.run(800 * time.Millisecond) // beta is silent for D by then
	check(t, next.n.peers[1].silentTold, "%s still hears beta", next.id)
	check(t, next.n.raft.leading && !planned(next), "%s plans on a log that it does not know to be complete", next.id)
	r.at("gamma").answer(stored)
	r.until("beta is evicted", 100*time.Millisecond, func() bool { return !next.n.state.Nodes[1].Admitted })
}

// What was proposed last is not applied yet: a plan made without it could do the same twice.
func TestPlanWaitsForTheLastProposal(t *testing.T) {
	r := settled(t, file("one", nil))
	beta := r.at("beta")
	r.at("alpha").hold(stored)
	r.at("gamma").hold(stored)
	r.forget()
	beta.ask(deed("said"))
	r.at("alpha").step(&Observed{LinkDown: []bool{true}, Cut: []cluster.GroupID{"web"}})
	r.run(500 * time.Millisecond)
	check(t, beta.n.raft.last > beta.n.raft.applied, "it was applied")
	check(t, !planned(beta), "beta plans while an entry of its own is under way")
	r.at("alpha").answer(stored)
	r.at("gamma").answer(stored)
	r.until("web moves off the host without an uplink", 50*time.Millisecond, func() bool { return beta.group("web").Owner == "beta" })
}

// Nothing answers on alpha but the kernel: no disk, no tmpfs, no worker. Its heartbeats, its acks and promises, and the
// renewals of its gate go on as ever; when its lease ends nonetheless, what it runs is told to stop.
func TestPulseWaitsForNothing(t *testing.T) {
	r := settled(t, file("one", nil))
	alpha := r.at("alpha")
	alpha.hold(stored, recorded, done)
	r.at("beta").ask(deed("it hangs on alpha's disk"))
	r.run(100 * time.Millisecond)
	check(t, len(alpha.n.stores) > 0, "nothing is unanswered")
	r.forget()
	gates := len(alpha.gates)
	r.run(500 * time.Millisecond)
	check(t, len(sent[*wire.Heartbeat](r, "alpha")) >= 10, "alpha's heartbeats wait")
	promised := 0
	for _, a := range sent[*wire.Ack](r, "alpha") {
		if a.Number == 1 {
			promised++
		}
	}
	check(t, promised >= 5, "alpha's promises wait: %d", promised)
	check(t, len(alpha.gates) >= gates+5 && alpha.gates[len(alpha.gates)-1].End > r.now+800*ms, "the renewals of alpha's gate wait")
	r.pass = unheard[*wire.Ack]("", "alpha")
	r.until("alpha's lease ends", 1100*time.Millisecond, func() bool { return !alpha.n.leaseRuns() })
	r.run(5 * time.Millisecond)
	check(t, !alpha.open("web") && alpha.gates[len(alpha.gates)-1].End == 0 && alpha.wanted("ip", cluster.TargetStopped), "alpha waits with the stop")
}

// The kernel takes no gate write on alpha: from two heartbeats on its lease is renewed no more, since traffic ends with
// the last write that was taken. Once the kernel answers, it is renewed again.
func TestNoRenewalWithoutAGate(t *testing.T) {
	r := settled(t, file("one", nil))
	alpha := r.at("alpha")
	alpha.hold(gated)
	r.until("its heartbeats ask for nothing", 4*timing.H, func() bool { return r.beat("alpha").Number == 0 })
	end := alpha.n.holder.End()
	r.run(200 * time.Millisecond)
	check(t, alpha.n.holder.End() == end, "its lease was renewed")
	alpha.answer(gated)
	r.until("its lease is renewed", 4*timing.H, func() bool { return alpha.n.holder.End() > end })
	check(t, alpha.open("web"), "it has given web up")
}
