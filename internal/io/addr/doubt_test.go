package addr

import (
	"net/netip"
	"strings"
	"testing"

	"baton/internal/core/cluster"
)

// TestDoubt: an address on an interface whose own addresses are all in other subnets is told of; where that is as it may
// well be, nothing is.
func TestDoubt(t *testing.T) {
	s := newSegment(t, "a")
	s.ip("a", "link add clients type bridge")
	s.ip("a", "link set clients up")
	for _, c := range []struct{ address, iface, text, hint string }{
		{"10.99.0.50/24", "eth0", "10.99.0.50/24 is in no subnet of interface eth0, which has 10.77.0.0/24", "if routers send it here, write 10.99.0.50/32"},
		{"10.78.0.50/24", "eth0", "is in no subnet of interface eth0", "eth0.100 is in that subnet: write interface: eth0.100"},
		{"fd99::50/64", "eth0", "is in no subnet of interface eth0, which has fd77::/64", "write fd99::50/128"},
		{"10.77.0.50/24", "eth0", "", ""},
		{"10.77.0.50/16", "eth0", "", ""},
		{"10.77.0.150/25", "eth0", "", ""},
		{"10.99.0.50/32", "eth0", "", ""},
		{"10.99.0.50/24", "clients", "", ""},
		{"fd99::50/64", "clients", "", ""},
		{"10.99.0.50/24", "nowhere", "", ""},
		{"10.99.0.50/24", "", "", ""},
	} {
		fields := map[string]any{"address": netip.MustParsePrefix(c.address)}
		if c.iface != "" {
			fields["interface"] = c.iface
		}
		var text, hint string
		s.on("a", func() { text, hint = VIP{}.Doubt(cluster.ResourceSpec{Fields: fields}) })
		if (text == "") != (c.text == "") || !strings.Contains(text, c.text) || !strings.Contains(hint, c.hint) {
			t.Errorf("%s on %s: %q, hint %q", c.address, c.iface, text, hint)
		}
	}
	v := s.vip("a", netip.MustParsePrefix("10.99.0.50/24"), "clients", runDir(t))
	v.mustStart(1)
	defer v.mustStop()
	s.on("a", func() {
		fields := map[string]any{"address": netip.MustParsePrefix("10.98.0.50/24"), "interface": "clients"}
		if text, _ := (VIP{}).Doubt(cluster.ResourceSpec{Fields: fields}); text != "" {
			t.Errorf("beside another group's address alone: %s", text)
		}
	})
}
