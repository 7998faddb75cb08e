package trial

import (
	"fmt"
	"strings"
	"testing"
)

// narrow has the path to a node drop packets above a size, silently, as tunnels and firewalls do: on one network, or on
// every one if that is empty.
func (c *incident) narrow(node, network string, bytes int) {
	c.t.Helper()
	on := ""
	if network != "" {
		on = "iif " + network
	}
	c.shell(node, fmt.Sprintf("nft -f - <<'RULES'\ntable inet narrow {\n\tchain in { type filter hook prerouting priority -300; %s meta length > %d drop; }\n}\nRULES", on, bytes))
}

func (c *incident) widen(node string) { c.shell(node, "nft delete table inet narrow") }

// Every path drops packets above 1,280 bytes. The entry that evicts the owner and places its 61 groups, of names of full
// length, has some 20 kB: it arrives all the same.
func TestTakeoverOverNarrowPaths(t *testing.T) {
	const groups = 60
	c := start(t, Options{Extra: addressGroups(groups)})
	all := func(owner string) func(s *Status) bool {
		return func(s *Status) bool {
			for _, g := range s.Groups {
				if !g.Serving || g.Owner != owner {
					return false
				}
			}
			return len(s.Groups) == groups+1
		}
	}
	c.must(c.Await(Gamma, limit, "all groups serve on alpha", all(Alpha)))
	for _, n := range Nodes {
		c.narrow(n, "", 1280)
	}
	c.failsOver(Beta, c.at(c.Host(Alpha).PowerOff))
	c.must(c.Await(Gamma, limit, "all groups serve on beta", all(Beta)))
}

// One of two links drops full packets on the way to beta, and one end of another has a smaller MTU. Nothing moves, and
// who sends them says where: in status under the node's name, in check, in metrics.
func TestFullPacketsAreLost(t *testing.T) {
	c := start(t, Options{Extra: "health: { port: 7401 }\n"})
	c.undisturbed("full packets to beta are lost on one link", 0, func() error {
		c.narrow(Beta, LAN, 1000)
		return nil
	})
	lost := "beta on link lan: packets of 1248 bytes from alpha are lost on the way, small ones arrive"
	c.wants(Alpha, []string{"status"}, []string{"degraded", "full packets to beta are lost on lan", lost, "hint: compare the MTU", "link lan"}, "on cross", "full packets to gamma")
	c.wants(Gamma, []string{"status"}, []string{"full packets to beta are lost on lan"}, "full packets to alpha")
	c.wants(Alpha, []string{"check", "--measure", "20ms"}, []string{"warning  link lan", "to beta: packets of 1248 bytes from alpha are lost"}, "link cross to")
	m := c.scrape(Alpha)
	if v, ok := m[`baton_link_full_packets{link="lan",peer="beta"}`]; !ok || v != 0 || m[`baton_link_full_packets{link="cross",peer="beta"}`] != 1 {
		t.Errorf("metrics do not tell it: %v", m)
	}
	c.widen(Beta)
	c.wants(Alpha, []string{"status"}, []string{"healthy"}, "are lost")
	c.wants(Alpha, []string{"check", "--measure", "20ms"}, []string{"packet sizes"}, "are lost on the way")

	c.shell(Beta, "ip link set cross mtu 1000")
	c.wants(Alpha, []string{"status"}, []string{"full packets to beta are lost on cross"}, "full packets to gamma", "on lan")
	c.wants(Gamma, []string{"status"}, []string{"full packets from alpha to beta are lost on cross", "beta on link cross: packets of 1248 bytes from alpha are lost on the way", "hint: compare the MTU"}, "healthy")
	c.restartAgent(Alpha, func() { // which asks by itself where no agent runs
		c.wants(Alpha, []string{"check", "--measure", "20ms"}, []string{"warning  link cross", "to beta: packets of 1248 bytes from alpha are lost"}, "link lan    to")
		c.shell(Beta, "ip link set cross mtu 1500")
		c.wants(Alpha, []string{"check", "--measure", "20ms"}, []string{"packets of 1248 bytes arrive wherever small ones do"}, "are lost on the way")
	})
	c.wants(Gamma, []string{"status"}, []string{"healthy"})
}

// After many changes of a large file a node loses its disk: it copies all there is, and votes again. While it copies,
// status says how far it is.
func TestLostDiskAfterLargeFiles(t *testing.T) {
	for name, size := range map[string]int{"18 of 60 kB": 60_000, "8 of 1 MB": 1_000_000} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			c := start(t, Options{})
			base := c.text(Alpha)
			times := 18
			if size > 500_000 {
				times = 8
			}
			line := strings.Repeat("x", 98) + "\n"
			for i := range times {
				text := base + fmt.Sprintf("# change %d\n", i) + strings.Repeat("#"+line, (size-len(base)-20)/100)
				if said := c.run(Alpha, "apply", c.draft(Alpha, text), "--yes"); !strings.Contains(said, "revision") {
					t.Fatal(said)
				}
			}
			c.narrow(Gamma, "", 1280)
			c.must(c.LoseDisk(Gamma))
			c.must(c.Host(Gamma).Boot())
			c.must(c.AwaitVoters(limit, Nodes...))
			c.must(c.AwaitServing(Alpha, limit))
			if got := c.text(Gamma); !strings.Contains(got, fmt.Sprintf("# change %d\n", times-1)) {
				t.Errorf("gamma's configuration is of another change: %.200s", got)
			}
			c.failsOver(Beta, c.at(c.Host(Alpha).PowerOff))
		})
	}
}
