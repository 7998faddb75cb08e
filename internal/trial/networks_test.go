package trial

import (
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

// The networks by which clients come: who is in them is judged, and who was not told where an address is learns it soon.

// The switch port of the owner on the clients' network is dead while its carrier stays, in both directions or in one,
// and the other network goes on. The group moves within the takeover, and stays when the port is back.
func TestClientsNetworkLost(t *testing.T) {
	for name, cut := range map[string]func(*lab.Lab) error{
		"both ways": func(l *lab.Lab) error { return l.CutSilent(Alpha, LAN) },
		"out":       func(l *lab.Lab) error { return l.CutOneWay(Alpha, LAN, lab.Out) },
		"in":        func(l *lab.Lab) error { return l.CutOneWay(Alpha, LAN, lab.In) },
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			c := start(t, Options{})
			before := len(c.records(Gamma))
			since := c.at(func() error { return cut(c.Lab) })
			c.failsOver(Beta, since)
			known := ""
			if name == "out" { // it hears the others, and can't know since when they don't hear it
				known = "at least"
			}
			c.honest("the lost network", before, since, false, known)
			if text := c.run(Gamma, "history"); !strings.Contains(text, "G37") {
				t.Errorf("the lost network was not what decided:\n%s", text)
			}
			c.tellsOf("out of touch on link lan", Gamma, "explain", Group)
			c.refused("out of touch on link lan", Gamma, "switch", Group, "--to", Alpha)
			c.tellsOf("alpha, in need", Gamma, "status")
			c.undisturbed("the port is back", 6*time.Second, func() error { return c.Lab.Heal(Alpha, "") })
		})
	}
}

// Nothing moves where no candidate is better off: the clients' network is dead for all, for the candidate, or blinks; or
// where only heartbeats are dropped. Status tells what is out of order.
func TestClientsNetworkMovesNothing(t *testing.T) {
	t.Parallel()
	c := start(t, Options{})
	if text := c.run(Gamma, "plan", "--if", "port alpha lan"); !strings.Contains(text, "G37") {
		t.Errorf("a dead port is foretold to do nothing:\n%s", text)
	}
	before := c.group(Gamma)
	all := func(f func(string) error) {
		for _, n := range Nodes {
			c.must(f(n))
		}
	}
	for range 3 { // blinks, with the owner a little behind
		all(func(n string) error { return c.Lab.CutSilent(n, LAN) })
		time.Sleep(1500 * time.Millisecond)
		c.must(c.Lab.Heal(Gamma, LAN))
		c.must(c.Lab.Heal(Beta, LAN))
		time.Sleep(1200 * time.Millisecond)
		c.must(c.Lab.Heal(Alpha, LAN))
	}
	c.sameEpoch("the clients' network is dead for all, and blinks", before)
	time.Sleep(time.Second)
	c.undisturbed("the candidate's port is dead", 3*time.Second, func() error { return c.Lab.CutSilent(Beta, LAN) })
	c.tellsOf("beta is silent on lan", Gamma, "status")
	c.must(c.Lab.HealAll())
	time.Sleep(time.Second)
	c.undisturbed("heartbeats alone are dropped", 4*time.Second, func() error { c.dropHeartbeats(Alpha); return nil })
}

// dropHeartbeats makes a host drop what baton's nodes say to it, and it to them, on the clients' network.
func (c *incident) dropHeartbeats(host string) {
	c.t.Helper()
	c.shell(host, `nft -f - <<'NFT'
table inet heartbeats {
	chain in  { type filter hook input priority 0;  iif lan meta l4proto { tcp, udp } th dport 7400 drop; iif lan meta l4proto { tcp, udp } th sport 7400 drop; }
	chain out { type filter hook output priority 0; oif lan meta l4proto { tcp, udp } th dport 7400 drop; oif lan meta l4proto { tcp, udp } th sport 7400 drop; }
}
NFT`)
}

// A target stands for a network without a link. What alpha alone does not reach moves the group, what nobody reaches
// moves nothing; that heartbeats come on the link does not count then.
func TestReach(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Edit: func(file string) string {
		return strings.Replace(file, "groups:\n", "reach: 10.77.0.14\n\ngroups:\n", 1) // the client's
	}})
	time.Sleep(2 * time.Second)
	if text, _ := c.command(Alpha, "check", "--measure", "20ms"); !strings.Contains(text, "all that groups are to reach answers: 1 in all") {
		t.Errorf("check does not tell that the target answers:\n%s", text)
	}
	before := c.group(Gamma)
	c.must(c.Lab.CutSilent(Client, LAN))
	c.eventually("status tells that nobody reaches it", func() bool {
		return strings.Contains(c.run(Alpha, "status"), "no node gets an answer from 10.77.0.14, which is under reach")
	})
	time.Sleep(3 * time.Second)
	c.sameEpoch("a target that nobody reaches", before)
	if g := c.group(Alpha); !g.Serving {
		t.Errorf("for a target that may be dead the group counts as not served: %+v", g)
	}
	c.must(c.Lab.Heal(Client, LAN))
	time.Sleep(7 * time.Second)
	c.sameEpoch("the target is there again", before)
	if all := c.records(Gamma); len(all) > 1 {
		t.Errorf("a target that nobody reached is an outage on record: %+v", all)
	}
	c.outOfSight("gets no answer from 10.77.0.14", func() error { return c.Lab.CutBetween(Alpha, Client, LAN) }, func() error { return c.Lab.Heal(Alpha, "") })
	outages := len(c.records(Gamma))
	since := c.at(func() error { return c.Lab.CutBetween(Alpha, Client, LAN) })
	c.failsOver(Beta, since)
	c.honest("the lost target", outages, since, false, "")
	if text := c.run(Gamma, "history"); !strings.Contains(text, "G37") {
		t.Errorf("the lost target was not what decided:\n%s", text)
	}
	c.refused("gets no answer from 10.77.0.14", Gamma, "switch", Group, "--to", Alpha)
	c.undisturbed("alpha reaches it again", 6*time.Second, func() error { return c.Lab.Heal(Alpha, "") })
}

// outOfSight takes the owner out of its clients' sight for four seconds while nobody can take the group over: that is an
// outage by status and on record.
func (c *incident) outOfSight(why string, cut, heal func() error) {
	c.t.Helper()
	c.run(Gamma, "drain", Beta)
	before := len(c.records(Gamma))
	since := c.at(cut)
	c.eventually("status tells", func() bool { return strings.Contains(c.run(Gamma, "status"), "degraded: alpha "+why) })
	if g := c.group(Gamma); g.Serving || g.Owner != Alpha {
		c.t.Errorf("gamma says: %+v", g)
	}
	time.Sleep(4 * time.Second)
	c.must(heal())
	c.movesTo(Alpha, since)
	if r := c.honest(why, before, since, false, ""); time.Duration(r.Least) < 3*time.Second || !strings.Contains(r.text, "its node "+why) {
		c.t.Errorf("history: %s", r.text)
	}
	c.run(Gamma, "undrain", Beta)
	time.Sleep(7 * time.Second) // alpha's place on the network counts again
}

// An owner that is out of its clients' sight, and that nobody can replace, serves nobody.
func TestLonelyOwnerOutOfSight(t *testing.T) {
	t.Parallel()
	c := start(t, Options{})
	c.outOfSight("is out of touch on link lan", func() error { return c.Lab.CutSilent(Alpha, LAN) }, func() error { return c.Lab.Heal(Alpha, "") })
}

// A router with a cache of hours does not hear the announcements of the new owner, since its port is blocked while the
// old one dies. It is told by the refresh, within a minute.
func TestLongCache(t *testing.T) {
	t.Parallel()
	c := start(t, Options{})
	c.shell(Client, "sysctl -qw net.ipv4.neigh.lan.base_reachable_time_ms=14400000; ping -c 1 -W 2 10.77.0.50")
	c.must(c.Lab.CutSilent(Client, LAN))
	c.must(c.Host(Alpha).PowerOff())
	c.must(c.AwaitServing(Beta, limit))
	time.Sleep(8 * time.Second) // longer than the first announcements go on
	healed := c.at(func() error { return c.Lab.Heal(Client, LAN) })
	c.must(c.probe.Await(65*time.Second, func(r lab.Record) bool { return r.AnsweredSince(healed, Beta) }))
	t.Logf("told after %v", firstSince(c.probe.Record(), Beta, healed)-healed)
}

// Where the router is a target, its return alone has the address announced.
func TestLongCacheOfTarget(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Edit: func(file string) string {
		file = strings.Replace(file, "- vip: 10.77.0.50/24", "- vip: { address: 10.77.0.50/24, refresh: 0s }", 1)
		return strings.Replace(file, "groups:\n", "reach: 10.77.0.14\n\ngroups:\n", 1)
	}})
	c.shell(Client, "sysctl -qw net.ipv4.neigh.lan.base_reachable_time_ms=14400000; ping -c 1 -W 2 10.77.0.50")
	c.must(c.Lab.CutSilent(Client, LAN))
	c.must(c.Host(Alpha).PowerOff())
	c.must(c.Await(Beta, limit, "beta has it, out of touch with the target", func(s *Status) bool { return s.Group().Owner == Beta }))
	time.Sleep(8 * time.Second)
	healed := c.at(func() error { return c.Lab.Heal(Client, LAN) })
	c.must(c.probe.Await(limit, func(r lab.Record) bool { return r.AnsweredSince(healed, Beta) }))
	if gap := firstSince(c.probe.Record(), Beta, healed) - healed; gap > 5*time.Second {
		t.Errorf("told only after %v", gap)
	}
}
