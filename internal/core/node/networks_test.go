package node

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/state"
)

// Clients' networks: two links, of which the first is in the subnet of web's address.

func twoLinks(s *cluster.Spec) {
	s.Links = nil
	for k, name := range []string{"lan", "cross"} {
		u := &cluster.UDPLink{Addresses: map[cluster.NodeID]netip.Addr{}}
		for i, n := range s.Nodes {
			u.Addresses[n.ID] = netip.AddrFrom4([4]byte{10, 0, byte(k), byte(11 + i)})
		}
		s.Links = append(s.Links, cluster.LinkSpec{Name: name, UDP: u})
	}
	s.Groups[0].Resources[1].Subnets = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
}

// networked makes such a cluster, in which alpha has served for a while. What a test has put into dead is lost.
func networked(t *testing.T, change func(*cluster.Spec)) (r *rig, dead map[string]bool) {
	dead = map[string]bool{}
	spec := file("one", func(s *cluster.Spec) {
		twoLinks(s)
		if change != nil {
			change(s)
		}
	})
	r = newRig(t, spec)
	r.drops = func(from, to cluster.NodeID, link int) bool {
		name := spec.Links[link].Name
		return dead[name] || dead[string(from)+">"+name] || dead[string(to)+"<"+name] || dead[string(from)+">"+string(to)+" "+name]
	}
	r.start()
	r.until("alpha serves", 3*time.Second, func() bool { return r.at("alpha").open("web") && r.at("beta").n.number != 0 })
	r.run(3 * time.Second)
	return r, dead
}

// What dies is told by who hears whom on the link: both directions of a switch port, or one of them.
func TestOwnerLosesItsClientsNetwork(t *testing.T) {
	for name, ways := range map[string][]string{
		"its port": {"alpha>lan", "alpha<lan"}, "what it sends": {"alpha>lan"}, "what it would hear": {"alpha<lan"},
	} {
		t.Run(name, func(t *testing.T) {
			r, dead := networked(t, nil)
			for _, w := range ways {
				dead[w] = true
			}
			cut := r.now
			r.until("beta serves", timing.Takeover, func() bool { return r.at("beta").open("web") && !r.at("alpha").open("web") })
			r.isOnRecord(r.now.Sub(cut), 250*time.Millisecond)
			if o := r.at("gamma").n.Overview(cluster.Now{Mono: r.now}); !strings.Contains(o.Groups[0].Nodes[0].InNeed, "is out of touch on link lan with") {
				t.Errorf("gamma says of alpha: %+v", o.Groups[0].Nodes[0])
			}
			clear(dead)
			r.never("web goes back", 10*time.Second, func() bool { return r.at("alpha").open("web") })
		})
	}
}

// isOnRecord checks that web's outages on record add up to what its clients had, within what nobody can know of it.
func (r *rig) isOnRecord(want, within time.Duration) {
	r.t.Helper()
	var s *state.Service
	r.until("the outage is on record", 10*time.Second, func() bool {
		s = &r.at("gamma").group("web").Service
		return s.Count > 1 && s.Open == nil
	})
	if d := s.Unplanned - want; d < -5*time.Millisecond || d > within {
		r.t.Errorf("on record are %v, and clients had an outage of %v", s.Unplanned, want)
	}
}

// While nobody can take the group over, the time in which its clients don't reach its owner is an outage all the same.
func TestOutOfSightInPlace(t *testing.T) {
	r, dead := networked(t, nil)
	r.at(r.leader()).ask(cluster.Part{Drain: &cluster.Drain{Node: "beta"}})
	r.run(time.Second)
	dead["alpha>lan"], dead["alpha<lan"] = true, true
	cut := r.now
	r.run(2 * time.Second)
	if o := r.at("gamma").n.Overview(cluster.Now{Mono: r.now}).Groups[0]; o.Serving || !strings.Contains(o.Degraded, "out of touch") || o.Service.Down < 1900*time.Millisecond {
		t.Errorf("gamma says: %+v", o)
	}
	clear(dead)
	r.isOnRecord(r.now.Sub(cut), 200*time.Millisecond)
}

// Nothing moves where no candidate is better off, or nobody can tell.
func TestNetworksThatMoveNothing(t *testing.T) {
	for name, c := range map[string]struct {
		dead   []string
		change func(*cluster.Spec)
	}{
		"the whole network":            {dead: []string{"lan"}},
		"another network of the owner": {dead: []string{"alpha>cross", "alpha<cross"}},
		"the candidate's port":         {dead: []string{"beta>lan", "beta<lan"}},
		"both ports":                   {dead: []string{"alpha>lan", "alpha<lan", "beta>lan", "beta<lan"}},
		"one pair of nodes":            {dead: []string{"alpha>beta lan", "beta>alpha lan"}},
		"nothing is to be judged": {dead: []string{"alpha>lan", "alpha<lan"}, change: func(s *cluster.Spec) {
			s.Groups[0].Reach.None = true
		}},
		"a link of two": {dead: []string{"alpha>lan", "alpha<lan"}, change: func(s *cluster.Spec) {
			delete(s.Links[0].UDP.Addresses, "gamma")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r, dead := networked(t, c.change)
			for _, w := range c.dead {
				dead[w] = true
			}
			r.never("web moves", 10*time.Second, func() bool { return !r.at("alpha").open("web") })
			clear(dead)
			r.never("web moves afterwards", 10*time.Second, func() bool { return !r.at("alpha").open("web") })
		})
	}
}

// A link that comes and goes for all, with the owner a little behind each time, moves nothing: whoever gets it back
// first has not had it for long. One of the owner's alone moves the group once.
func TestBlinkingLink(t *testing.T) {
	r, dead := networked(t, nil)
	for range 5 {
		dead["lan"], dead["alpha>lan"] = true, true
		r.never("web moves", 1500*time.Millisecond, func() bool { return !r.at("alpha").open("web") })
		delete(dead, "lan")
		r.never("web moves", 1500*time.Millisecond, func() bool { return !r.at("alpha").open("web") })
		delete(dead, "alpha>lan")
		r.never("web moves", 300*time.Millisecond, func() bool { return !r.at("alpha").open("web") })
	}
	r.run(6 * time.Second)
	for k := range 5 {
		dead["alpha>lan"] = true
		r.run(1500 * time.Millisecond)
		delete(dead, "alpha>lan")
		r.run(1500 * time.Millisecond)
		if e := r.at("gamma").group("web").Epoch; e != 2 {
			t.Fatalf("web has epoch %d after %d blinks, not 2", e, k+1)
		}
	}
}

// Where something drops heartbeats alone, the nodes still answer each other there: nothing moves. Whoever is silent is
// asked for; who answers no more is lost, and one that answers is as good as heard.
func TestHeartbeatsAloneAreDropped(t *testing.T) {
	r, dead := networked(t, nil)
	answers := true
	asking := func() bool {
		for _, h := range r.hosts {
			if a := h.n.networks.asked; len(a) > 0 && answers {
				h.step(&Reach{Reached: a})
			} else if len(a) > 0 {
				h.step(&Reach{Missed: a})
			}
		}
		return !r.at("alpha").open("web")
	}
	dead["alpha>lan"], dead["alpha<lan"] = true, true
	r.never("web moves", 5*time.Second, asking)
	if a := r.at("beta").n.networks.asked; len(a) != 1 || a[0] != netip.MustParseAddr("10.0.0.11") {
		t.Errorf("beta asks %v", a)
	}
	answers = false
	r.until("web moves", timing.Takeover, asking)
	clear(dead)
	r.run(time.Second)
	if a := r.at("beta").n.networks.asked; len(a) != 0 {
		t.Errorf("beta goes on asking %v", a)
	}
}

// Targets do the same for networks without a link, and replace it: what alpha alone misses, or all, or nobody.
func TestTargets(t *testing.T) {
	gateway := netip.MustParseAddr("10.9.0.1")
	r, dead := networked(t, func(s *cluster.Spec) {
		s.Targets = []netip.Addr{gateway}
		s.Groups[0].Reach.Targets = s.Targets
	})
	tell := func(reached bool, ids ...cluster.NodeID) {
		for _, id := range ids {
			in := &Reach{Missed: []netip.Addr{gateway}}
			if reached {
				in = &Reach{Reached: []netip.Addr{gateway}}
			}
			r.at(id).step(in)
		}
	}
	stays := func(d time.Duration) {
		t.Helper()
		r.never("web moves", d, func() bool { return !r.at("alpha").open("web") })
	}
	tell(true, "alpha", "beta")
	dead["alpha>lan"] = true
	stays(3 * time.Second)
	tell(false, "alpha", "beta")
	stays(3 * time.Second)
	tell(true, "beta")
	stays(4 * time.Second) // it has not had it for long
	tell(true, "alpha")
	stays(3 * time.Second)
	tell(false, "alpha")
	r.until("beta serves", timing.Takeover, func() bool { return r.at("beta").open("web") })
	tell(true, "alpha")
	r.never("web goes back", 10*time.Second, func() bool { return !r.at("beta").open("web") })
	if g := r.at("gamma").group("web"); g.Epoch != 2 {
		t.Errorf("web has epoch %d", g.Epoch)
	}
}

// What is served is announced again when a port, a target or a neighbour is there again.
func TestAnnouncedWhenANetworkReturns(t *testing.T) {
	gateway := netip.MustParseAddr("10.9.0.1")
	for name, c := range map[string]struct {
		away, back func(r *rig, dead map[string]bool)
	}{
		"the port of its own node": {
			func(_ *rig, dead map[string]bool) { dead["lan"] = true },
			func(_ *rig, dead map[string]bool) { delete(dead, "lan") }},
		"another's port": {
			func(_ *rig, dead map[string]bool) { dead["gamma>lan"] = true },
			func(_ *rig, dead map[string]bool) { delete(dead, "gamma>lan") }},
		"a target": {
			func(r *rig, _ map[string]bool) { r.at("alpha").step(&Reach{Missed: []netip.Addr{gateway}}) },
			func(r *rig, _ map[string]bool) { r.at("alpha").step(&Reach{Reached: []netip.Addr{gateway}}) }},
		"a neighbour": {
			func(*rig, map[string]bool) {},
			func(r *rig, _ map[string]bool) { r.at("alpha").step(&Returned{}) }},
	} {
		r, dead := networked(t, func(s *cluster.Spec) { s.Targets = []netip.Addr{gateway} })
		announced := func() bool {
			for _, w := range r.at("alpha").wants {
				if w.Resource == "ip" && w.Announce {
					return true
				}
			}
			return false
		}
		c.away(r, dead)
		r.run(2 * time.Second)
		r.forget()
		r.never(name+": it is announced", time.Second, announced)
		c.back(r, dead)
		r.until(name+": it is announced", time.Second, announced)
	}
}

// A program that fails is restarted where it is, if the standby has lost the clients' network; else that takes over sooner.
func TestRestartWhereTheStandbyIsOutOfSight(t *testing.T) {
	for _, c := range []struct {
		dead []string
		in   cluster.NodeID
	}{{nil, "beta"}, {[]string{"beta>lan", "beta<lan"}, "alpha"}, {[]string{"lan"}, "beta"}} {
		r, dead := networked(t, func(s *cluster.Spec) { s.Groups[0].Resources[0].Depth, s.Groups[0].Restarts = cluster.Hot, 1 })
		for _, w := range c.dead {
			dead[w] = true
		}
		r.run(3 * time.Second)
		r.forget()
		r.at("alpha").step(&Done{cluster.Done{Group: "web", Resource: "proc", Status: cluster.StatusFailed, Reason: "it ended"}})
		r.run(time.Second)
		check(t, r.at(c.in).open("web"), "with %v dead, %s does not serve", c.dead, c.in)
		check(t, r.at("alpha").wanted("proc", cluster.TargetRunning) == (c.in == "alpha"), "with %v dead, alpha wants %v", c.dead, r.at("alpha").wants)
	}
}
