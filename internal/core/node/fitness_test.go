package node

import (
	"bytes"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// Where groups go, and when they go back.

// hotStandby is web with a process that stands by hot and returns to alpha once that has been well for 5 s; and mail,
// which stays where it is.
func hotStandby(s *cluster.Spec) {
	web := &s.Groups[0]
	web.Resources[0].Depth = cluster.Hot
	web.Failback = cluster.FailbackPolicy{Automatic: true, After: 5 * time.Second}
	mail := service("mail", "10.0.0.2")
	mail.Failover = cluster.FailoverManual
	s.Groups = []cluster.GroupSpec{mail, *web}
}

// Web is on beta, and alpha, where it belongs, was well for a while when something befalls it, and is mended. Its time
// begins anew with that: web returns 5 s later. What concerns web alone leaves alone since when alpha is fit for mail.
func TestFailbackCountsFromTheLastTrouble(t *testing.T) {
	for _, c := range []struct {
		name        string
		webOnly     bool
		lasts       time.Duration
		befall, end func(r *rig, alpha *host)
	}{
		{"an uplink gone", true, time.Second,
			func(_ *rig, alpha *host) {
				alpha.step(&Observed{LinkDown: []bool{true}, Cut: []cluster.GroupID{"web"}})
			},
			func(_ *rig, alpha *host) { alpha.step(&Observed{LinkDown: []bool{false}}) }},
		{"a lack", true, time.Second,
			func(_ *rig, alpha *host) {
				alpha.step(&Lacking{Lacks: []cluster.Lack{{Group: "web", Resource: "ip", Why: "no such interface"}}})
			},
			func(_ *rig, alpha *host) { alpha.step(&Lacking{}) }},
		{"a failure of its standby", true, 990 * time.Millisecond,
			func(_ *rig, alpha *host) {
				alpha.step(&Done{cluster.Done{Group: "web", Resource: "proc", Status: cluster.StatusFailed, Reason: "it ended"}})
			},
			func(*rig, *host) {}}, // it is started again after a second
		{"a disk that does not answer", false, 1300 * time.Millisecond,
			func(_ *rig, alpha *host) { alpha.hold(stored) },
			func(_ *rig, alpha *host) { alpha.answer(stored) }},
		{"a lost lease", false, 1300 * time.Millisecond,
			func(r *rig, _ *host) { r.pass = unheard[*wire.Ack]("", "alpha") },
			func(r *rig, _ *host) { r.pass = nil }},
		{"a new run", false, 300 * time.Millisecond,
			func(_ *rig, alpha *host) { alpha.stop() },
			func(_ *rig, alpha *host) { alpha.start() }},
		{"nothing", true, 0, func(*rig, *host) {}, func(*rig, *host) {}},
	} {
		r := serving(t, file("one", hotStandby))
		alpha, beta := r.at("alpha"), r.at("beta")
		r.run(200 * time.Millisecond)
		r.switchTo("beta")
		r.until("beta serves web", 100*time.Millisecond, func() bool { return beta.open("web") })
		r.lead("beta")
		r.run(time.Second)
		since := beta.n.groups[1].fit["alpha"]
		c.befall(r, alpha)
		beta.ask(deed("so that the disk has something to do"))
		r.run(c.lasts)
		c.end(r, alpha)
		mended := r.now
		if c.name == "nothing" {
			mended = since
		}
		r.until(c.name+": web returns", 7*time.Second, func() bool { return beta.group("web").Owner == "alpha" })
		took := r.now.Sub(mended)
		check(t, took >= 5*time.Second && took < 5300*time.Millisecond, "%s: web returns %v after it was mended", c.name, took)
		mail := beta.n.groups[0].fit["alpha"]
		check(t, (mail < mended) == c.webOnly || c.name == "nothing", "%s: alpha is fit for mail since %d, mended at %d", c.name, mail, mended)
	}
}

// On alpha web fails for what is around it: it moves, and stays away for as long as alpha says that this is not mended.
func TestBanOfSurroundingsEndsWhenMended(t *testing.T) {
	r := settled(t, file("one", nil))
	alpha, beta := r.at("alpha"), r.at("beta")
	alpha.step(&Lacking{Lacks: []cluster.Lack{{Group: "web", Resource: "proc", Why: "no room on /srv"}}})
	alpha.fails["proc"] = "no room on /srv"
	alpha.step(&Done{cluster.Done{Group: "web", Resource: "proc", Status: cluster.StatusFailed, Reason: "no room on /srv", Surroundings: true}})
	r.until("beta serves", time.Second, func() bool { return beta.open("web") })
	bans := beta.group("web").Bans
	check(t, len(bans) == 1 && bans[0].Node == "alpha" && bans[0].Surroundings, "the ban: %+v", bans)
	r.never("the ban ends before its cause", 5*time.Second, func() bool { return len(beta.group("web").Bans) == 0 })
	alpha.step(&Lacking{})
	r.until("the ban ends", 100*time.Millisecond, func() bool { return len(beta.group("web").Bans) == 0 })
}

// Web has failed on alpha and is banned there; then beta dies. A node on which it failed once is better than none.
func TestBannedNodeServesWhereNoOtherIsLeft(t *testing.T) {
	r := settled(t, file("one", nil))
	alpha, beta := r.at("alpha"), r.at("beta")
	alpha.step(&Done{cluster.Done{Group: "web", Resource: "proc", Status: cluster.StatusFailed, Reason: "it ended"}})
	r.until("beta serves", time.Second, func() bool { return beta.open("web") })
	check(t, len(alpha.group("web").Bans) == 1 && !alpha.group("web").Bans[0].Surroundings, "the ban: %+v", alpha.group("web").Bans)
	r.run(time.Second)
	beta.stop()
	r.until("alpha serves", 1300*time.Millisecond, func() bool { return alpha.open("web") })
	check(t, len(alpha.group("web").Bans) == 1, "the ban is gone")
}

// Whoever looks at a node changes nothing: two clusters live through the same, one of them looked at before each step,
// and put out the same to the last byte.
func TestLooksChangeNothing(t *testing.T) {
	life := func(look func(*Node, cluster.Now)) []byte {
		var trace bytes.Buffer
		r := newRig(t, file("one", hotStandby), file("two", func(s *cluster.Spec) { hotStandby(s); s.Groups[0].Restarts = 3 }))
		r.look, r.trace, r.often = look, &trace, 8
		r.start()
		r.until("alpha serves", 3*time.Second, func() bool { return r.at("alpha").open("web") })
		r.run(3 * time.Second)
		r.switchTo("beta")
		r.at("alpha").ask(cluster.Part{Draft: &cluster.Draft{Base: 1, Text: []byte("two")}})
		r.run(time.Second)
		r.at("alpha").step(&Observed{LinkDown: []bool{true}, Cut: []cluster.GroupID{"web"}})
		r.run(500 * time.Millisecond)
		r.at("gamma").frozen = true
		r.run(500 * time.Millisecond)
		r.at("gamma").frozen = false
		r.at("alpha").step(&Observed{LinkDown: []bool{false}})
		r.run(6 * time.Second)
		r.at("beta").stop()
		r.run(3 * time.Second)
		return trace.Bytes()
	}
	unseen := life(nil)
	seen := life(func(n *Node, now cluster.Now) {
		n.Overview(now)
		for i := range n.History() {
			n.History()[i] = cluster.Line{}
		}
		n.WouldMove(now, &Command{Op: OpSwitch, Group: "web"})
		n.WouldMove(now, &Command{Op: OpFailback, Group: "web"})
		c := n.Configuration()
		for i := range c.Revisions {
			c.Revisions[i] = cluster.RevisionText{}
		}
		if c.Draft != nil {
			c.Draft.Text = nil
		}
		n.State()
		n.Tokens()
		n.Waits()
	})
	if bytes.Equal(unseen, seen) {
		return
	}
	a, b := bytes.Split(unseen, []byte("\n")), bytes.Split(seen, []byte("\n"))
	for i := range a {
		if i >= len(b) || !bytes.Equal(a[i], b[i]) {
			t.Fatalf("output %d of %d differs:\n%s\nlooked at:\n%s", i, len(a), a[i], b[min(i, len(b)-1)])
		}
	}
	t.Fatal("looked at, it puts out more")
}
