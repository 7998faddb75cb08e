package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// many adds groups with names of full length, one process and one address each.
func many(count int) func(*cluster.Spec) {
	return func(s *cluster.Spec) {
		s.Groups = nil
		for i := range count {
			id := fmt.Sprintf("%s-%03d", strings.Repeat("g", wire.MaxName-4), i)
			s.Groups = append(s.Groups, service(cluster.GroupID(id), fmt.Sprintf("10.0.%d.%d", i/200, 1+i%200)))
		}
	}
}

// knows tells whether one node has the present word of another on every group.
func knows(r *rig, who, of cluster.NodeID) bool {
	n, o := r.at(who).n, r.at(of).n
	k := n.index(of)
	for i := range n.groups {
		if got, ok := n.groupReport(k, i); !ok || got != o.telling.items[i].report {
			return false
		}
	}
	return true
}

// Every heartbeat of 500 groups with names of full length is encoded on its way (rig.send), which fails where no datagram holds it.
func TestManyGroupsInTurns(t *testing.T) {
	r := serving(t, file("a", many(500)))
	all := func() bool {
		return !slices.ContainsFunc(r.at("alpha").n.groups, func(l local) bool { return l.phase != wire.PhaseServing })
	}
	r.until("alpha serves all", 3*time.Second, all)
	r.until("the others know", 100*time.Millisecond, func() bool { return knows(r, "beta", "alpha") && knows(r, "gamma", "alpha") })
	r.until("alpha knows of the standby", 100*time.Millisecond, func() bool { return knows(r, "alpha", "beta") })
}

// What has changed is in the very next heartbeat, and it comes again until it is acked.
func TestChangeIsToldFirst(t *testing.T) {
	r := serving(t, file("a", many(300)))
	r.until("all is known", 5*time.Second, func() bool { return knows(r, "beta", "alpha") && knows(r, "gamma", "alpha") })
	r.run(time.Second)
	last := r.at("alpha").spec.Groups[299].ID
	tells := func(m wire.Message) bool {
		hb, ok := m.(*wire.Heartbeat)
		return ok && slices.ContainsFunc(hb.Groups, func(g wire.GroupReport) bool { return g.Group == wire.KeyOf(last) && g.Phase == wire.PhaseFailed })
	}
	lost := 0
	r.pass = func(from, to cluster.NodeID, m wire.Message) wire.Message {
		if to == "gamma" && tells(m) && lost < 5 {
			lost++
			return nil
		}
		return m
	}
	r.forget()
	r.at("alpha").hold(done) // the restart takes its time
	r.at("alpha").step(&Done{cluster.Done{Group: last, Resource: "proc", Status: cluster.StatusFailed, Reason: "exited with status 1"}})
	r.run(newsPace)
	check(t, tells(r.beat("alpha")), "the next heartbeat tells of the failure")
	r.until("beta knows", 3*time.Millisecond, func() bool { return knows(r, "beta", "alpha") })
	r.until("gamma knows, though five such packets were lost", 200*time.Millisecond, func() bool { return knows(r, "gamma", "alpha") })
	check(t, lost == 5, "%d packets were lost", lost)
}

// An agent that was restarted knows nothing: it is told all of it anew, and until then guesses nothing.
func TestRestartedIsToldAnew(t *testing.T) {
	r := settled(t, file("a", many(300)))
	r.until("all is known", 5*time.Second, func() bool { return knows(r, "gamma", "alpha") })
	gamma := r.at("gamma")
	gamma.stop()
	r.run(300 * time.Millisecond)
	gamma.start()
	check(t, !knows(r, "gamma", "alpha"), "a new run has been told nothing")
	r.until("gamma knows again", 300*time.Millisecond, func() bool { return knows(r, "gamma", "alpha") })
}

// A report of serving of a node that says since that its lease has ended is of before.
func TestServingNeedsALease(t *testing.T) {
	r := settled(t, file("a", many(3)))
	r.until("all is known", 5*time.Second, func() bool { return knows(r, "beta", "alpha") })
	hb := *r.beat("alpha")
	hb.Seq, hb.LeaseRuns, hb.Groups = hb.Seq+1, false, nil
	r.hand("alpha", "beta", &hb)
	n := r.at("beta").n
	got, ok := n.groupReport(n.index("alpha"), 0)
	check(t, ok && got.Phase != wire.PhaseServing, "a report of serving counts without a lease")
}

// Heartbeats that were overtaken still tell of groups, and are no sign of life.
func TestOvertakenHeartbeatTellsOfGroups(t *testing.T) {
	r := settled(t, file("a", many(3)))
	n := r.at("beta").n
	i := n.index("alpha")
	hb := *r.beat("alpha")
	late, on := hb, hb
	late.Seq, on.Seq = hb.Seq+1, hb.Seq+2
	late.Groups = []wire.GroupReport{{Group: wire.KeyOf(n.groups[0].spec.ID), Epoch: 1, Phase: wire.PhaseFailed, Reason: "late"}}
	on.Groups = []wire.GroupReport{{Group: wire.KeyOf(n.groups[1].spec.ID), Epoch: 1, Phase: wire.PhaseFailed, Reason: "on time"}}
	r.hand("alpha", "beta", &on)
	at := n.peers[i].hbAt
	r.now += ms
	r.hand("alpha", "beta", &late)
	for k, want := range []string{"late", "on time"} {
		got, _ := n.groupReport(i, k)
		check(t, got.Reason == want, "of group %d %q is known", k, got.Reason)
	}
	check(t, n.peers[i].hbAt == at, "a heartbeat that was overtaken counts as a sign of life")
	late.Groups[0].Reason = "again"
	late.Seq = hb.Seq
	r.hand("alpha", "beta", &late)
	got, _ := n.groupReport(i, 0)
	check(t, got.Reason == "late", "an older word than the last counts: %q", got.Reason)
}

// A release is in the very next heartbeat, however many reports have changed before it in the file; and where that was
// lost, it comes again before what else is missing.
func TestReleaseIsToldFirst(t *testing.T) {
	r := serving(t, file("a", many(300)))
	r.until("all is known", 5*time.Second, func() bool { return knows(r, "beta", "alpha") && knows(r, "gamma", "alpha") })
	n := r.at("alpha").n
	last := len(n.groups) - 1
	for k := range n.groups {
		report := n.telling.items[k].report
		report.Reason = strings.Repeat("r", 100)
		var released []cluster.Epoch
		if k == last {
			released = []cluster.Epoch{7}
		}
		n.tell(k, report, true, released)
	}
	to := []int{n.index("beta"), n.index("gamma")}
	hb := &wire.Heartbeat{Seq: 1 << 40}
	beat := func() bool {
		hb = &wire.Heartbeat{Seq: hb.Seq + 1}
		n.tellGroups(hb, to)
		return slices.Contains(hb.Released, wire.Tenure{Group: wire.KeyOf(n.groups[last].spec.ID), Epoch: 7})
	}
	check(t, beat(), "the next heartbeat tells of the release")
	check(t, n.telling.unsent, "one heartbeat has room for all: the test shows nothing")
	for n.telling.unsent {
		beat()
	}
	check(t, beat(), "the release was lost, and is not the first to come again")
}

func BenchmarkStep(b *testing.B) {
	for _, count := range []int{10, 500} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			var t testing.T
			r := serving(&t, file("a", many(count)))
			r.run(5 * time.Second)
			b.ResetTimer()
			for b.Loop() {
				r.run(time.Second)
			}
		})
	}
}
