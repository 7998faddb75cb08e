package node

import (
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// moved is a revision in which mail, on beta, has the address that web had.
func moved(s *cluster.Spec) {
	mail := service("mail", "10.0.0.1")
	mail.Nodes = []cluster.NodeID{"beta"}
	s.Groups = []cluster.GroupSpec{mail, service("web", "10.0.0.2")}
}

// between passes no packet between two of the nodes.
func between(a, b cluster.NodeID) func(_, _ cluster.NodeID, m wire.Message) wire.Message {
	return func(from, to cluster.NodeID, m wire.Message) wire.Message {
		if from == a && to == b || from == b && to == a {
			return nil
		}
		return m
	}
}

// Alpha has carried out the revision that took web's address, and beta serves mail under it. Alpha's agent is killed
// before the commit index is on its disk, so that the next one reads the former revision, and is cut off from the
// coordinator: until its log has come as far again it serves and changes nothing.
func TestRestartedBehindARevision(t *testing.T) {
	r := settled(t, file("one", nil), file("two", moved))
	alpha, beta := r.at("alpha"), r.at("beta")
	beta.ask(cluster.Part{Draft: &cluster.Draft{Base: 1, Text: []byte("two")}})
	r.until("alpha has the revision in its log", time.Second, func() bool {
		return alpha.n.raft.last > alpha.n.raft.applied && alpha.n.state.Draft != nil && beta.n.state.Revision() == 2
	})
	alpha.hold(stored)
	r.until("beta serves mail", time.Second, func() bool { return beta.open("mail") })
	alpha.stop()
	alpha.held[stored] = false
	alpha.status["web/ip"] = cluster.StatusStopped
	r.pass = between("alpha", "beta")
	alpha.start()
	check(t, alpha.n.Revision() == 1, "alpha has read as far as its disk says")
	r.never("alpha answers for the address that beta serves", 3*time.Second, func() bool {
		return alpha.n.Revision() == 1 && (alpha.open("web") || alpha.status["web/ip"] == cluster.StatusRunning)
	})
	r.pass = nil
	r.until("alpha serves web under its new address", 3*time.Second, func() bool { return alpha.open("web") && alpha.n.Revision() == 2 })
}

// Alpha has long carried out the revision, and that is on record. Cut off from alpha, a beta that boots anew serves.
func TestCarriedOutIsOnRecord(t *testing.T) {
	r := settled(t, file("one", nil), file("two", moved))
	beta := r.at("beta")
	beta.ask(cluster.Part{Draft: &cluster.Draft{Base: 1, Text: []byte("two")}})
	r.until("beta serves mail", 3*time.Second, func() bool { return beta.open("mail") && len(beta.n.state.Freed) == 0 })
	r.pass = between("alpha", "beta")
	r.run(4 * time.Second)
	beta.stop()
	beta.boot, beta.record, beta.gates = beta.boot+1, nil, nil
	clear(beta.status)
	r.run(2 * time.Second)
	beta.start()
	r.until("beta serves mail again", 5*time.Second, func() bool { return beta.open("mail") })
}

// Alpha's disk hangs, so that it never sees the revision that takes the address of its group, which no other node may
// run: it is evicted for that, and mail is served.
func TestAddressThatIsNotGivenUp(t *testing.T) {
	alone := func(s *cluster.Spec) { s.Groups[len(s.Groups)-1].Nodes = []cluster.NodeID{"alpha"} }
	r := settled(t, file("one", alone), file("two", func(s *cluster.Spec) { moved(s); alone(s) }))
	alpha, beta := r.at("alpha"), r.at("beta")
	alpha.hold(stored)
	beta.ask(cluster.Part{Draft: &cluster.Draft{Base: 1, Text: []byte("two")}})
	r.until("mail waits for alpha", time.Second, func() bool {
		g := r.beat("beta").Groups
		return len(g) > 0 && g[0].Reason == "waits until alpha has given up 10.0.0.1"
	})
	r.until("beta serves mail", 6*time.Second, func() bool { return beta.open("mail") })
}

// A group is stopped while its owner's disk hangs, and no other node may have it: the owner is evicted.
func TestStopWhileTheOwnersDiskHangs(t *testing.T) {
	r := settled(t, file("one", func(s *cluster.Spec) { s.Groups[0].Nodes = []cluster.NodeID{"alpha"} }))
	alpha := r.at("alpha")
	alpha.hold(stored)
	r.at("beta").ask(cluster.Part{Stop: &cluster.Stop{Group: "web"}})
	r.until("alpha serves no more", 5*time.Second, func() bool { return !alpha.open("web") })
}

// Web failed on beta. Then alpha, which serves it, has a disk that hangs: it goes on serving.
func TestSickButServing(t *testing.T) {
	r := settled(t, file("one", nil))
	alpha, beta := r.at("alpha"), r.at("beta")
	r.switchTo("beta")
	r.until("beta serves", 3*time.Second, func() bool { return beta.open("web") && beta.group("web").Move == nil })
	beta.fails["proc"] = "broken"
	beta.step(&Done{cluster.Done{Group: "web", Resource: "proc", Status: cluster.StatusFailed, Reason: "broken"}})
	r.until("alpha serves", 10*time.Second, func() bool { return alpha.open("web") })
	r.run(2 * time.Second)
	alpha.hold(stored)
	r.never("web is given up for a node that failed it", 30*time.Second, func() bool { return !alpha.open("web") })
}

// A write waits for a slow sync, and the agent is frozen for almost a lease: that is no hung disk.
func TestOwnStallIsNoHungDisk(t *testing.T) {
	r := settled(t, file("one", nil))
	alpha := r.at("alpha")
	alpha.hold(stored)
	r.at("beta").ask(deed("x"))
	r.run(150 * time.Millisecond)
	alpha.frozen = true
	r.run(880 * time.Millisecond)
	alpha.frozen = false
	alpha.step(&Tick{})
	alpha.answer(stored)
	r.run(time.Millisecond)
	check(t, alpha.open("web"), "alpha has given web up")
}

// A manual group's move failed where its former node has died: the move ends, and a person can move it on.
func TestManualMoveThatCantGoBack(t *testing.T) {
	r := settled(t, file("one", func(s *cluster.Spec) {
		s.Nodes = []cluster.NodeSpec{{ID: "alpha"}, {ID: "beta"}, {ID: "gamma"}}
		s.Groups[0].Nodes = []cluster.NodeID{"alpha", "beta", "gamma"}
		s.Groups[0].Failover = cluster.FailoverManual
	}))
	alpha, beta, gamma := r.at("alpha"), r.at("beta"), r.at("gamma")
	beta.fails["proc"] = "broken"
	beta.hold(done)
	r.switchTo("beta")
	r.until("it is assigned to beta", time.Second, func() bool { return alpha.group("web").Owner == "beta" })
	alpha.stop()
	r.run(2 * time.Second)
	beta.answer(done)
	r.run(5 * time.Second)
	gamma.step(&Command{ID: 6, Op: OpSwitch, Group: "web", To: "gamma", By: "test"})
	r.until("gamma serves", 5*time.Second, func() bool { return gamma.open("web") })
}

// An Adopt that comes late names another draft than the one under way. A node that can't read the latter goes on.
func TestLateAdoptHaltsNobody(t *testing.T) {
	r := settled(t, file("one", nil), file("two", nil))
	alpha, beta := r.at("alpha"), r.at("beta")
	alpha.blind = true
	for _, parts := range [][]cluster.Part{
		{{Draft: &cluster.Draft{Base: 1, ID: "second", Text: []byte("two")}}},
		{{Adopt: &cluster.Adopt{Base: 1, Draft: "first"}}, {Drop: &cluster.Drop{Base: 1, Draft: "second", Reason: "given up"}}},
	} {
		e := cluster.Entry{Wall: 1, By: "test", Parts: parts}
		if err := beta.n.raft.rn.Propose(e.Encode()); err != nil {
			t.Fatal(err)
		}
	}
	beta.step(&Tick{})
	r.run(300 * time.Millisecond)
	check(t, beta.n.Revision() == 1 && alpha.last.Halted == "", "alpha halts for an Adopt that takes no effect: %s", alpha.last.Halted)
}

// After a suspend the gate is shut until the lease is renewed: nobody is told that the group serves.
func TestSuspendedServesNothing(t *testing.T) {
	r := settled(t, file("one", nil))
	r.pass = func(_, to cluster.NodeID, m wire.Message) wire.Message {
		if _, ack := m.(*wire.Ack); ack && to == "alpha" {
			return nil
		}
		return m
	}
	r.run(10 * time.Millisecond)
	r.at("alpha").step(&Suspended{})
	r.run(100 * time.Millisecond)
	check(t, r.beat("alpha").Groups[0].Phase != wire.PhaseServing, "its heartbeat says that it serves")
}
