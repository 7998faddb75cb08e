package trial

import (
	"context"
	"strings"
	"testing"

	"baton/internal/lab"
)

// This file is about what interfaces are called.

// onInterface has the group's IPv4 address name its interface.
func onInterface(names string) func(string) string {
	return func(file string) string {
		return strings.ReplaceAll(file, "- vip: 10.77.0.50/24", "- vip: { address: 10.77.0.50/24, interface: "+names+" }")
	}
}

// inHost runs a line of shell on a host while it boots.
func inHost(h *lab.Host, line string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_, err := h.Command(ctx, "sh", "-c", line)
	return err
}

// The file names the interface by an alternative name, longer than a name of its own may be: the loss of its carrier is
// noticed though another link lives. A name that is taken away and comes back is there at once.
func TestAlternativeName(t *testing.T) {
	t.Parallel()
	const name = "enx02aabbccddeeff"
	c := start(t, Options{Edit: onInterface(name), Before: func(h *lab.Host) error {
		return inHost(h, "ip link property add dev lan altname "+name)
	}})
	c.failsOver(Beta, c.at(func() error { return c.Lab.CutCarrier(Alpha, LAN) }))
	c.shell(Alpha, "ip link property del dev lan altname "+name)
	c.must(c.Lab.HealAll())
	c.eventually("alpha is known to lack the interface", func() bool {
		return strings.Contains(c.run(Beta, "status"), "there is no interface "+name)
	})
	c.must(c.Host(Beta).PowerOff())
	c.eventually("nobody serves", func() bool { return c.group(Gamma).Owner == "" })
	c.movesTo(Alpha, c.at(func() error { return inHost(c.Host(Alpha), "ip link property add dev lan altname "+name) }))
}

// Each node calls its card differently, and the file says so. Nothing that is judged by the name is judged by another
// node's.
func TestInterfaceByNode(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Edit: onInterface("{ alpha: lan, beta: ens3 }"), Before: func(h *lab.Host) error {
		if h.Name() != Beta {
			return nil
		}
		return inHost(h, "ip link set lan down && ip link set lan name ens3 && ip link set ens3 up && ip address add fd77::12/64 dev ens3 nodad")
	}})
	for _, node := range Nodes[:2] {
		if out, _ := c.command(node, "check", "--node", node, "--measure", "50ms"); strings.Contains(out, "resource vip") {
			t.Errorf("%s's check complains of an address:\n%s", node, out)
		}
	}
	c.failsOver(Beta, c.at(func() error { return c.Lab.CutCarrier(Alpha, LAN) }))
	c.must(c.Lab.HealAll())
	c.must(c.AwaitServing(Beta, limit))
	c.failsOver(Alpha, c.at(func() error { return c.Lab.CutCarrier(Beta, LAN) }))
}
