package node

import (
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// What ends or interrupts service under a lease that seems to run, and who must be heard before another serves.

// The machine of alpha is suspended and goes on. Its gate is shut at once, since nobody knows for how long it slept; an
// ack to a heartbeat from before opens nothing, one to a heartbeat sent since does.
func TestSuspended(t *testing.T) {
	r := settled(t, file("one", nil))
	alpha := r.at("alpha")
	r.pass = unheard[*wire.Ack]("", "alpha")
	r.forget()
	r.until("alpha sends a heartbeat", 150*time.Millisecond, func() bool { return len(sent[*wire.Heartbeat](r, "alpha")) > 0 })
	before := *r.beat("alpha")
	out := alpha.step(&Suspended{})
	check(t, len(out.Gates) == 1 && out.Gates[0].End == 0, "the gate is not shut at once: %v", out.Gates)
	for _, voter := range []cluster.NodeID{"beta", "gamma"} {
		h := r.at(voter)
		r.hand(voter, "alpha", &wire.Ack{Incarnation: h.n.inc, Run: alpha.n.run, Number: 1, Seq: before.Seq, Newest: 1})
	}
	r.never("an ack from before the suspend opens the gate", 100*time.Millisecond, func() bool { return alpha.open("web") })
	r.pass = nil
	r.until("the gate opens again", 50*time.Millisecond, func() bool { return alpha.open("web") })
	check(t, alpha.group("web").Epoch == 1 && !alpha.wanted("proc", cluster.TargetStopped), "web was moved, or stopped")
}

// No ack comes before the lease that it had would have ended: alpha gives web up, and another may have it.
func TestSuspendedForTooLong(t *testing.T) {
	r := settled(t, file("one", nil))
	alpha := r.at("alpha")
	end := alpha.n.holder.End()
	r.pass = unheard[*wire.Ack]("", "alpha")
	alpha.step(&Suspended{})
	r.forget()
	r.never("alpha gives web up before its lease would have ended", end.Sub(r.now)-2*time.Millisecond, func() bool { return saysReleased(r, "alpha") || alpha.wanted("ip", cluster.TargetStopped) })
	r.until("alpha gives it up", 10*time.Millisecond, func() bool { return alpha.wanted("ip", cluster.TargetStopped) })
	r.until("beta serves", 100*time.Millisecond, func() bool { return r.at("beta").open("web") })
}

// A voter's log knows alpha under number 2: number 1, under which alpha serves, is over, whatever alpha's own log says.
// It serves nothing more before it has read that far.
func TestNumberOutlived(t *testing.T) {
	r := settled(t, file("one", nil))
	alpha := r.at("alpha")
	seq := r.beat("alpha").Seq
	r.hand("gamma", "alpha", &wire.Ack{Incarnation: 33, Run: alpha.n.run, Number: 1, Seq: seq, Newest: 1})
	check(t, alpha.open("web"), "alpha does not serve")
	r.hand("gamma", "alpha", &wire.Ack{Incarnation: 33, Run: alpha.n.run, Seq: seq, Newest: 2})
	check(t, !alpha.open("web"), "alpha serves under a number that is over")
	r.forget()
	r.until("alpha is admitted again", 5*time.Second, func() bool {
		for _, hb := range sent[*wire.Heartbeat](r, "alpha") {
			check(t, hb.Number != 1, "alpha uses number 1 again")
		}
		return r.at("beta").n.state.Nodes[0].Number == 2
	})
	r.until("alpha uses number 2", 300*time.Millisecond, func() bool { return r.beat("alpha").Number == 2 })
}

// A revision takes an address from web, which alpha serves, and gives it to mail on beta: in the same revision, or in the
// next. Beta serves mail once alpha's heartbeat says that it has carried out the revision that took the address away, or
// once its lease number is over.
func TestAddressThatAnotherGroupHad(t *testing.T) {
	mail := func(s *cluster.Spec) {
		m := service("mail", "10.0.0.1")
		m.Nodes = []cluster.NodeID{"beta"}
		s.Groups = []cluster.GroupSpec{m, service("web", "10.0.0.2")}
	}
	for _, c := range []struct {
		name      string
		revisions []*cluster.Spec
	}{
		{"in one revision", []*cluster.Spec{file("two", mail)}},
		{"in the next revision", []*cluster.Spec{file("two", func(s *cluster.Spec) { s.Groups = []cluster.GroupSpec{service("web", "10.0.0.2")} }), file("three", mail)}},
	} {
		for _, dies := range []bool{false, true} {
			r := settled(t, file("one", nil), c.revisions...)
			beta := r.at("beta")
			for i, spec := range c.revisions {
				if i == 0 {
					r.at("alpha").hold(fitted) // it has applied the revision, and its gate and addresses lag
				}
				beta.ask(cluster.Part{Draft: &cluster.Draft{Base: cluster.Revision(i + 1), Text: spec.Text}})
				r.until("the revision counts", time.Second, func() bool { return beta.n.state.Revision() == cluster.Revision(i+2) })
			}
			r.until("mail is assigned to beta", time.Second, func() bool { return beta.group("mail").Owner == "beta" })
			r.never("beta serves under an address that alpha may answer for, "+c.name, 800*time.Millisecond, func() bool {
				return beta.open("mail") || beta.wanted("ip", cluster.TargetRunning)
			})
			if dies {
				r.at("alpha").stop()
				r.until("alpha is evicted", time.Second, func() bool { return !r.at("gamma").n.state.Nodes[0].Admitted })
				r.at("gamma").hold(stored) // that alpha's number is over is said, and can't be put on record
				r.until("beta serves mail, alpha being dead", 1200*time.Millisecond, func() bool { return beta.open("mail") })
				check(t, r.now.Sub(beta.n.peers[0].hbAt) > 1000*time.Millisecond, "it serves mail while alpha's lease runs")
				continue
			}
			r.at("alpha").answer(fitted)
			r.until("beta serves mail", 120*time.Millisecond, func() bool { return beta.open("mail") })
			check(t, r.at("alpha").open("web"), "alpha serves web no more")
		}
	}
}

// Four nodes, of which beta, which coordinates, leaves: it hands leadership over, loses lease and vote, and is told so.
func TestLeaving(t *testing.T) {
	four := func(s *cluster.Spec) {
		s.Nodes = append([]cluster.NodeSpec{s.Nodes[0], s.Nodes[1], {ID: "delta"}}, s.Nodes[2])
	}
	r := settled(t, file("one", four), file("two", func(s *cluster.Spec) {
		s.Nodes = []cluster.NodeSpec{{ID: "alpha"}, {ID: "delta"}, {ID: "gamma", Role: cluster.Witness}}
		s.Groups[0].Nodes = []cluster.NodeID{"alpha", "delta"}
	}))
	alpha, beta := r.at("alpha"), r.at("beta")
	alpha.ask(cluster.Part{Draft: &cluster.Draft{Base: 1, Text: []byte("two")}})
	r.until("beta hands leadership over", 500*time.Millisecond, func() bool { return r.leader() != "beta" && r.leader() != "" })
	r.until("beta has left", 3*time.Second, func() bool { return beta.last.Left })
	check(t, beta.told("left") && beta.n.number == 0, "beta has left with lease number %d", beta.n.number)
	beta.stop()
	r.until("revision 2 counts", 2*time.Second, func() bool { return alpha.n.state.Revision() == 2 })
	check(t, len(alpha.n.state.Set().Voters) == 3 && alpha.n.state.Node("beta") == nil && alpha.n.state.Member("beta") == nil, "beta still belongs to the cluster: %v", alpha.n.state.Members)
	check(t, alpha.open("web") && alpha.group("web").Epoch == 1, "web was disturbed")
}

// A lease that nobody renews ends unseen by packets: the node asks to be called by then, and shuts its gate at once.
func TestCalledAtTheLeasesEnd(t *testing.T) {
	r := settled(t, file("one", nil))
	alpha := r.at("alpha")
	alpha.cut = true
	end := alpha.n.holder.End()
	r.until("the lease has ended", 2*time.Second, func() bool {
		end = max(end, alpha.n.holder.End())
		check(t, alpha.wake <= end || r.now >= end, "it asks to be called at %d, and its lease ends at %d", alpha.wake, end)
		return r.now >= end
	})
	r.run(0)
	check(t, !alpha.open("web") && r.now == end, "its gate is open %v after that", r.now.Sub(end))
}

// A node that was silent gets another disk and is not heard under it: that is told anew, after D.
func TestSilenceOfAnotherDisk(t *testing.T) {
	r := settled(t, file("one", nil))
	beta := r.at("beta")
	r.at("alpha").stop()
	r.until("alpha is silent", 2*time.Second, func() bool { return beta.n.peers[0].silentTold })
	beta.n.peers[0].become(77, newPeer(&beta.n.spec.Nodes[0], 1, r.now, timing).det)
	check(t, !beta.n.peers[0].silentTold, "the new disk begins with the silence of the former one")
	r.until("that is told anew", timing.D+timing.H, func() bool { return beta.n.peers[0].silentTold })
}
