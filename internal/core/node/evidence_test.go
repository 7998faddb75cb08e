package node

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/state"
	"baton/internal/core/wire"
)

// What a node concludes from what others say, where something of it is lost, overtaken or one-sided.

// Alpha's lease did not run for a moment. The heartbeat that says so is overtaken by the next, in which it runs again:
// since when alpha is fit to have web back begins anew all the same.
func TestOvertakenHeartbeatTellsOfALostLease(t *testing.T) {
	r := settled(t, file("one", hotStandby))
	n := r.at("beta").n
	r.run(time.Second)
	hb := *r.beat("alpha")
	late, on := hb, hb
	late.Seq, on.Seq = hb.Seq+1, hb.Seq+2
	late.LeaseRuns = false
	since := n.groups[1].fit["alpha"]
	r.hand("alpha", "beta", &on)
	check(t, since != 0 && n.groups[1].fit["alpha"] == since, "alpha is fit since %d, and was since %d", n.groups[1].fit["alpha"], since)
	r.now += ms
	r.hand("alpha", "beta", &late)
	check(t, n.groups[1].fit["alpha"] == r.now, "alpha is fit since %d, and its lease ran out for a moment", n.groups[1].fit["alpha"])
	r.now += ms
	r.hand("alpha", "beta", &late)
	check(t, n.groups[1].fit["alpha"] == r.now-ms, "the same heartbeat over another link begins it once more")
}

// Beta has some of the pieces that alpha sends it. What it says of them comes out of order, and each word names only
// what was there when it was said: what has arrived stays so, and is not sent again.
func TestWhatHasArrivedStays(t *testing.T) {
	r := settled(t, file("one", nil))
	n := r.at("alpha").n
	to := n.index("beta")
	n.send(to, &wire.Ask{Incarnation: 11, Text: []byte(largeText(40_000))})
	s := &n.peers[to].out
	check(t, s.data != nil && s.next > 6, "nothing is on its way")
	for _, more := range []uint64{0b0110, 0b1000, 0b0010} {
		r.hand("beta", "alpha", &wire.Got{Run: n.run, Set: s.set, Upto: 0, More: more})
	}
	for k, want := range []bool{false, false, true, true, true, false} {
		check(t, s.arrived(uint64(k)) == want, "piece %d counts as arrived: %v", k, !want)
	}
	r.forget()
	r.now = max(r.now, s.at)
	r.at("alpha").step(&Tick{})
	for _, p := range sent[*wire.Piece](r, "alpha") {
		k := p.At / wire.PieceSize
		check(t, k < 2 || k > 4, "piece %d has arrived, and is sent again", k)
	}
}

// Gamma hears alpha and beta no more, and says nothing to alpha, which coordinates: beta, which hears it, may know how
// to reach it, and leads for that. It does not, and so alpha, which is idle, leads again, and for good.
func TestLeadershipIsEntrustedOnce(t *testing.T) {
	r := settled(t, file("one", nil))
	r.switchTo("beta")
	r.until("beta serves", 500*time.Millisecond, func() bool { return r.at("beta").open("web") })
	r.until("alpha, which is idle, coordinates", 5*time.Second, func() bool { return r.leader() == "alpha" })
	r.pass = func(from, to cluster.NodeID, m wire.Message) wire.Message {
		if to == "gamma" || from == "gamma" && to == "alpha" {
			return nil
		}
		return m
	}
	r.at("alpha").stop()
	r.at("alpha").start()
	r.until("alpha coordinates again", 10*time.Second, func() bool { return r.leader() == "alpha" })
	changes, lead := 0, r.leader()
	for range 300 {
		r.run(100 * time.Millisecond)
		if now := r.leader(); now != "" && now != lead {
			changes, lead = changes+1, now
		}
	}
	check(t, changes == 2 && lead == "alpha", "leadership has changed %d times within half a minute, and is with %s", changes, lead)
}

// Packets are lost in either direction, for a while all of one: whenever a heartbeat names its receiver among those who
// know all that there is to tell of groups, that one does, once it has it.
func TestWhoIsNamedKnowsAll(t *testing.T) {
	r := serving(t, file("a", many(80)))
	alpha, beta := r.at("alpha").n, r.at("beta").n
	k := beta.index("alpha")
	dice := rand.New(rand.NewPCG(7, 0))
	percent, deaf := 0, false
	named := map[uint64][]wire.GroupReport{} // by heartbeat: what alpha had to tell
	r.pass = func(from, to cluster.NodeID, m wire.Message) wire.Message {
		if dice.IntN(100) < percent || deaf && from == "beta" && to == "alpha" {
			return nil
		}
		if hb, ok := m.(*wire.Heartbeat); ok && from == "alpha" && to == "beta" {
			for i := range hb.Heard {
				if hb.Heard[i].Node != "beta" || hb.Whole>>i&1 == 0 {
					continue
				}
				for x := range alpha.telling.items {
					named[hb.Seq] = append(named[hb.Seq], alpha.telling.items[x].report)
				}
			}
		}
		return m
	}
	judged := 0
	for round := range 240 {
		percent, deaf = []int{0, 20, 60}[round/8%3], round/24%3 == 1
		for range dice.IntN(3) * dice.IntN(40) {
			g := dice.IntN(len(alpha.groups))
			report := alpha.telling.items[g].report
			report.Reason = fmt.Sprintf("%0100d", dice.IntN(1000))
			alpha.tell(g, report, true, nil)
		}
		for range 25 {
			r.run(2 * time.Millisecond)
			p := &beta.peers[k]
			for g, want := range named[p.hb.Seq] {
				got, ok := beta.groupReport(k, g)
				got.Phase = want.Phase // that of another changes as well where its lease does not run
				if !ok || got != want {
					t.Fatalf("round %d: beta is named among those who know all, and knows of group %d %q, not %q", round, g, got.Reason, want.Reason)
				}
			}
			if named[p.hb.Seq] != nil {
				judged++
			}
			delete(named, p.hb.Seq)
		}
	}
	check(t, judged > 40, "only %d heartbeats name beta", judged)
}

// Of five nodes alpha, whose disk hangs, has web, which only beta could take. Gamma, delta and epsilon are in touch with
// each other, a majority; but they do not hear beta: nobody could place web there.
func TestOthersDecideForWhomTheyHear(t *testing.T) {
	r := settled(t, file("one", func(s *cluster.Spec) {
		s.Nodes = append(s.Nodes, cluster.NodeSpec{ID: "delta", Role: cluster.Witness}, cluster.NodeSpec{ID: "epsilon", Role: cluster.Witness})
	}))
	n := r.at("alpha").n
	to := n.index("beta")
	check(t, n.othersDecide(to), "all hear each other, and nobody could place web on beta")
	r.pass = func(from, to cluster.NodeID, m wire.Message) wire.Message {
		if from == "beta" && to != "alpha" {
			return nil
		}
		return m
	}
	r.until("nobody could place web on beta", 1100*time.Millisecond, func() bool { return !n.othersDecide(to) })
	r.pass = nil
	r.until("they could again", 300*time.Millisecond, func() bool { return n.othersDecide(to) })
}

// Alpha, which serves, is gone. How long its clients have not been served counts from the last that beta heard of it,
// not from when it was missed.
func TestOutageCountsFromTheLastWord(t *testing.T) {
	r := settled(t, file("one", nil))
	beta := r.at("beta")
	down := func() time.Duration { return beta.n.Overview(cluster.Now{Mono: r.now}).Groups[0].Service.Down }
	check(t, down() == 0, "it is served, and has been down for %v", down())
	r.at("alpha").stop()
	last := beta.n.peers[0].hbAt
	r.until("alpha is missed", time.Second, func() bool { return down() != 0 })
	check(t, r.now.Sub(last) > 800*time.Millisecond, "alpha is missed after %v", r.now.Sub(last))
	for range 5 {
		off := down() - r.now.Sub(last)
		check(t, off >= 0 && off < 20*time.Millisecond, "%v after the last word of alpha it has been down for %v", r.now.Sub(last), down())
		r.run(15 * time.Millisecond)
	}
	r.until("beta serves", time.Second, func() bool { return beta.open("web") })
	r.run(50 * time.Millisecond)
	check(t, down() == 0, "it is served again, and has been down for %v", down())
}

// Gamma has not heard alpha for D, and says so. Then gamma is gone as well: its last word counts for 2 h, and no longer.
func TestOldWordOfASilence(t *testing.T) {
	r := settled(t, file("one", nil))
	beta := r.at("beta").n
	alpha := beta.index("alpha")
	says := func() bool {
		by, _ := beta.silentTo(alpha)
		return slices.Contains(by, "gamma")
	}
	r.pass = unheard[wire.Message]("alpha", "gamma")
	r.until("gamma says that alpha is silent", 1200*time.Millisecond, says)
	last := beta.peers[beta.index("gamma")].hbAt
	r.at("gamma").stop()
	r.until("its word is too old", time.Second, func() bool { return !says() })
	check(t, r.now.Sub(last) <= 2*timing.H+20*time.Millisecond, "the word of gamma counts for %v", r.now.Sub(last))
}

// Of a group's placements those that were heard of last are kept, in the order of their epochs.
func TestNewestPlacementsAreKept(t *testing.T) {
	r := settled(t, file("one", nil))
	n := r.at("beta").n
	n.groups[0].tellers = nil
	for e := cluster.Epoch(1); e <= 3*tellersMax; e++ {
		n.hear(0, "alpha", 7, e).first = cluster.Instant(e)
		n.hear(0, "alpha", 7, max(e, 2)-1) // once more of the one before
	}
	kept := n.groups[0].tellers
	check(t, len(kept) == tellersMax, "%d are kept", len(kept))
	for i := range kept {
		want := cluster.Epoch(2*tellersMax + 1 + i)
		check(t, kept[i].epoch == want && kept[i].first == cluster.Instant(want), "number %d is epoch %d of %d", i, kept[i].epoch, kept[i].first)
	}
}

// The uplink of alpha was gone, and is back: clients may have been served again before that was noticed, so the gap may
// have been shorter than it looks, and nothing of it is certain.
func TestUplinkBackBeforeItIsNoticed(t *testing.T) {
	r := settled(t, file("one", func(s *cluster.Spec) { s.Groups[0].Failover = cluster.FailoverManual }))
	alpha := r.at("alpha")
	alpha.step(&Observed{LinkDown: []bool{true}, Cut: []cluster.GroupID{"web"}})
	r.run(300 * time.Millisecond)
	check(t, !alpha.n.groups[0].service.Up, "clients are served without an uplink")
	alpha.step(&Observed{LinkDown: []bool{false}})
	r.until("clients are served again", 100*time.Millisecond, func() bool { return alpha.n.groups[0].service.Up })
	gaps := alpha.n.groups[0].service.OtherGaps
	check(t, gaps.Most >= 300*time.Millisecond && gaps.Most < 350*time.Millisecond && gaps.Least == 0, "the gap was %v to %v", gaps.Least, gaps.Most)
}

// On which set of voters a lease rests is said of one lease number: of the next nothing is known by that.
func TestRestsOfAnotherNumber(t *testing.T) {
	r := settled(t, file("one", nil))
	n := r.at("beta").n
	i := n.index("alpha")
	at := n.restsOf(i)
	check(t, at != 0 && n.peers[i].rests.number == 1, "alpha has said nothing")
	n.state.Nodes[i].Number++
	check(t, n.restsOf(i) == 0, "of number 2 it counts that number 1 rests on %d", n.restsOf(i))
	n.peers[i].rests.number++
	check(t, n.restsOf(i) == at, "number 2 rests on %d", n.restsOf(i))
}

// Alpha has lost its disk: of what its former self has told and heard nothing counts.
func TestAnotherDiskIsToldAnew(t *testing.T) {
	r := settled(t, file("one", nil))
	n := r.at("beta").n
	alpha := &n.peers[n.index("alpha")]
	check(t, alpha.told[0].seq != 0 && alpha.has[0] != 0 && alpha.whole != 0, "nothing was told yet")
	n.state.Members[slices.IndexFunc(n.state.Members, func(m state.Member) bool { return m.Node == "alpha" })].Incarnation = replaced
	n.seatVoters()
	check(t, alpha.inc == replaced && alpha.told[0].seq == 0 && alpha.has[0] == 0 && alpha.whole == 0, "what the former disk told counts still: %+v", alpha.told[0])
	check(t, alpha.missing == len(n.groups), "it lacks %d reports, not %d", alpha.missing, len(n.groups))
}

// A revision takes web from alpha: what alpha tells of how clients were served there is the last.
func TestAccountOfWhatIsTakenAway(t *testing.T) {
	r := settled(t, file("one", nil))
	l := &r.at("alpha").n.groups[0]
	check(t, l.service.Up && !l.service.Over, "web is not served")
	r.at("alpha").n.letGo(l)
	check(t, !l.service.Up && l.service.Over && l.service.Ordered, "the account of web says %+v", l.service.Account)
}
