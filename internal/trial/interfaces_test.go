package trial

import (
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

// A VPN or a container network brings a wider subnet, to which the address belongs as well, to both members' other
// interface. The standby stays fit, the address stays where it is though the agent beside it is killed, and fails over.
func TestWiderSubnetBeside(t *testing.T) {
	t.Parallel()
	c := start(t, Options{})
	began := c.at(func() error {
		for _, node := range []string{Alpha, Beta} {
			c.shell(node, "ip addr add 10.0.0.5/8 dev cross noprefixroute")
		}
		return nil
	})
	time.Sleep(2 * slack)
	if g := c.group(Gamma); g.Next != Beta {
		t.Errorf("next is %q, %+v", g.Next, g)
	}
	c.undisturbed("the agent of alpha is killed", 2*c.takeover(), c.Agent(Alpha).Process().Kill)
	c.noGap("a subnet beside and a killed agent", began)
	if !c.holdsVIP(Alpha) {
		t.Error("alpha has the address no more")
	}
	c.failsOver(Beta, c.at(c.Host(Alpha).PowerOff))
}

// A bond takes another port, and with it another hardware address. A router with a cache of hours is told at once,
// though there is no refresh.
func TestHardwareAddressChanges(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Edit: func(file string) string {
		return strings.Replace(file, "- vip: 10.77.0.50/24", "- vip: { address: 10.77.0.50/24, refresh: 0s }", 1)
	}})
	c.shell(Alpha, "sysctl -qw net.ipv4.conf.lan.arp_announce=2") // what it asks by itself tells nothing of the address
	c.shell(Client, "sysctl -qw net.ipv4.neigh.lan.base_reachable_time_ms=14400000; ping -c 1 -W 2 10.77.0.50")
	time.Sleep(8 * time.Second) // longer than the first announcements go on
	c.shell(Alpha, "ip link set dev lan address 02:00:00:00:aa:01")
	changed := c.at(func() error { return nil }) // what was answered before is none of it
	c.must(c.probe.Await(limit, func(r lab.Record) bool { return r.AnsweredSince(changed, Alpha) }))
	if gap := firstSince(c.probe.Record(), Alpha, changed) - changed; gap > 5*time.Second {
		t.Errorf("told only after %v", gap)
	}
}
