package trial

import (
	"context"
	"net/netip"
	"baton/internal/io/addr"
	"testing"
	"time"

	"baton/internal/lab"
)

func TestZZOneWay(t *testing.T) {
	c := start(t, Options{})
	fault := c.at(func() error { return c.Lab.CutOneWay(Alpha, "", lab.Out) })
	c.failsOver2(Beta, fault)
	c.must(c.Lab.Heal(Alpha, ""))
	for range 3 {
		time.Sleep(time.Second)
		for _, n := range Nodes {
			out, _ := c.command(n, "status")
			t.Logf("%s:\n%s", n, out)
		}
		t.Log(c.shell(Alpha, "ip neigh; ping -c1 -W1 10.77.0.12; ping -c1 -W1 10.78.0.12; grep State /proc/*/status; ss -uanp | head; cat /proc/net/snmp | grep Udp:; true"))
	}
	t.Fail()
}

func (c *incident) failsOver2(owner string, since time.Duration) {
	c.await(c.probe, "x", func(r lab.Record) bool { return r.AnsweredSince(since, owner) })
}

func TestZZCarrier(t *testing.T) {
	c := start(t, Options{Takeover: "3s"})
	fault := c.at(func() error { return c.Lab.CutCarrier(Alpha, LAN) })
	c.movesTo(Beta, fault)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	go c.Host(Alpha).Do(func() error {
		for _, a := range []string{"10.77.0.50", "fd77::50", "10.77.0.11"} {
			n, err := addr.InterfaceFor(netip.MustParseAddr(a))
			t.Log(a, n, err)
		}
		return addr.WatchLinks(ctx, func(s addr.LinkState) { t.Logf("%+v", s) })
	})
	time.Sleep(3 * time.Second)
	for _, n := range Nodes {
	out, err := c.command(n, "switch", Group, "--dry-run")
	t.Log(n, out, err)
	}
	t.Fail()
}
