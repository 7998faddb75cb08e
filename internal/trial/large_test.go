package trial

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// addressGroups returns further groups for a file, with names of full length and one address each.
func addressGroups(count int) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, "  %s-%03d: { nodes: [alpha, beta], resources: [ { vip: 10.77.0.%d/24 } ] }\n", strings.Repeat("g", 59), i, 100+i)
	}
	return b.String()
}

// With 60 groups more a heartbeat still is one datagram on each link: a firewall that drops the port on one of two
// links of the owner moves nothing, and no node is called silent on the other.
func TestManyGroupsOneLinkFiltered(t *testing.T) {
	const groups = 60
	c := start(t, Options{Extra: addressGroups(groups)})
	c.must(c.Await(Gamma, limit, "all groups serve on alpha", func(s *Status) bool {
		for _, g := range s.Groups {
			if !g.Serving || g.Owner != Alpha || g.Next != Beta {
				return false
			}
		}
		return len(s.Groups) == groups+1
	}))
	before := c.placements()
	c.undisturbed("port 7400 is dropped on one of alpha's links", 4*time.Second, func() error {
		c.shell(Alpha, `nft -f - <<'RULES'
table inet firewall {
	chain in  { type filter hook input priority 0;  iif lan meta l4proto { tcp, udp } th dport 7400 drop; iif lan meta l4proto { tcp, udp } th sport 7400 drop; }
	chain out { type filter hook output priority 0; oif lan meta l4proto { tcp, udp } th dport 7400 drop; oif lan meta l4proto { tcp, udp } th sport 7400 drop; }
}
RULES`)
		return nil
	})
	if after := c.placements(); after != before {
		t.Errorf("groups moved: before\n%s\nafter\n%s", before, after)
	}
	c.shell(Alpha, "nft delete table inet firewall")
	c.eventually("status names no trouble of the links", func() bool { return !strings.Contains(c.run(Gamma, "status"), "degraded") })
}

// placements tells where every group is, and under which epoch.
func (c *incident) placements() string {
	c.t.Helper()
	s, err := c.Status(Gamma)
	c.must(err)
	var b strings.Builder
	for _, g := range s.Groups {
		fmt.Fprintf(&b, "%s %s %s %v\n", g.Name, g.Owner, g.Epoch, g.Serving)
	}
	return b.String()
}
