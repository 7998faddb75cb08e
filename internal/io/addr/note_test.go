package addr

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"baton/internal/core/cluster"
	"baton/internal/io/resource"
)

// The file gives a resource another address, or another interface: what was up goes, by Stop or by Start,
// whichever comes first, also after a restart of the agent.
func TestAnotherDescription(t *testing.T) {
	s := newSegment(t, "a", "client")
	s.serve("a")
	for _, c := range []struct {
		name, before, beforeOn, after, afterOn string
	}{
		{"address", "10.77.0.50/24", "", "10.77.0.60/24", ""},
		{"ipv6 for ipv4", "10.77.0.50/24", "", "fd77::60/64", ""},
		{"prefix length", "10.77.0.50/24", "eth0", "10.77.0.50/32", "eth0"},
		{"interface", "10.77.0.50/32", "eth0", "10.77.0.50/32", "eth0.100"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, after := netip.MustParsePrefix(c.before), netip.MustParsePrefix(c.after)
			same := before.Addr() == after.Addr()
			dir := runDir(t)
			first := s.vip("a", before, c.beforeOn, dir)
			first.mustStart(3)
			first.Close()
			second := s.vip("a", after, c.afterOn, dir)
			second.mustBe(cluster.StatusUnknown)
			second.mustStart(3)
			second.mustBe(cluster.StatusRunning)
			if !same && s.has("a", before.Addr()) {
				t.Error("the former address is there after a start")
			}
			if n := strings.Count(s.ip("a", "-o address show"), after.Addr().String()+"/"); n != 1 {
				t.Errorf("the address is there %d times after a start", n)
			}
			second.Close()
			third := s.vip("a", before, c.beforeOn, dir)
			third.mustBe(cluster.StatusUnknown)
			third.mustStop()
			third.mustBe(cluster.StatusStopped)
			for _, p := range []netip.Prefix{before, after} {
				if s.has("a", p.Addr()) {
					t.Errorf("%s is there after a stop", p)
				}
			}
		})
	}
}

// A resource that no file describes any more is stopped by its run directory alone.
func TestLeftover(t *testing.T) {
	s := newSegment(t, "a", "client")
	dir := runDir(t)
	p := netip.MustParsePrefix("10.77.0.50/24")
	first := s.vip("a", p, "", dir)
	first.mustStart(3)
	first.Close()
	s.on("a", func() {
		left, err := VIP{}.Leftover(resource.Env{RunDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer left.Close()
		if got, err := left.Probe(t.Context()); err != nil || got != cluster.StatusUnknown {
			t.Errorf("probe: %v, %v; want unknown", got, err)
		}
		if err := left.Start(t.Context(), 4); err == nil {
			t.Error("a leftover was started")
		}
		if err := left.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := left.Probe(t.Context()); err != nil || got != cluster.StatusStopped {
			t.Errorf("probe after the stop: %v, %v; want stopped", got, err)
		}
	})
	if s.has("a", p.Addr()) {
		t.Error("the address is there after the stop")
	}
}

// Two resources change their addresses with each other: none takes away what the other has by now.
func TestAddressesChangeHands(t *testing.T) {
	s := newSegment(t, "a", "client")
	one, two := netip.MustParsePrefix("10.77.0.50/24"), netip.MustParsePrefix("10.77.0.60/24")
	root := runDir(t)
	dirs := []string{filepath.Join(root, "orders", "vip"), filepath.Join(root, "billing", "vip")}
	for i, p := range []netip.Prefix{one, two} {
		if err := os.MkdirAll(dirs[i], 0o755); err != nil {
			t.Fatal(err)
		}
		v := s.vip("a", p, "", dirs[i])
		v.mustStart(3)
		v.Close()
	}
	orders, billing := s.vip("a", two, "", dirs[0]), s.vip("a", one, "", dirs[1])
	orders.mustStop()
	orders.mustStart(3)
	billing.mustStop() // its note tells of what orders has now
	billing.mustStart(3)
	for _, v := range []*node{orders, billing} {
		v.mustBe(cluster.StatusRunning)
	}
	for _, p := range []netip.Prefix{one, two} {
		if !s.has("a", p.Addr()) {
			t.Errorf("%s is gone", p)
		}
	}
}
