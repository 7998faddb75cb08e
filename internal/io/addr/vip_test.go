package addr

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/io/resource"
)

var (
	_ resource.Kind      = VIP{}
	_ resource.Announcer = (*vip)(nil)
)

// kinds of address that every promise must hold for. The interface is found where it is empty.
var variants = []struct {
	name, prefix, iface, on string
}{
	{"ipv4", "10.77.0.50/24", "", "eth0"},
	{"ipv6", "fd77::50/64", "", "eth0"},
	{"ipv4 vlan", "10.78.0.50/24", "", "eth0.100"},
	{"ipv6 vlan", "fd78::50/64", "eth0.100", "eth0.100"},
	{"ipv4 host", "10.77.0.51/32", "eth0", "eth0"},
}

// A client connects as soon as Start has returned, and Stop leaves nothing.
func TestStartServesAtOnce(t *testing.T) {
	s := newSegment(t, "a", "client")
	s.serve("a")
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			p := netip.MustParsePrefix(v.prefix)
			a := s.vip("a", p, v.iface, "")
			a.mustBe(cluster.StatusStopped)
			a.mustStop() // of what is not there
			a.mustStart(3)
			line := s.ip("a", "-o address show dev %s to %s", v.on, p.Addr())
			if got := s.ask("client", p.Addr()); got != "a" {
				t.Fatalf("asked at once: %q, want a", got)
			}
			a.mustBe(cluster.StatusRunning)
			if p.Addr().Is6() && (strings.Contains(line, "tentative") || !strings.Contains(line, "deprecated")) {
				t.Errorf("want a deprecated address without duplicate detection, the kernel says: %s", line)
			}
			list, err := a.route.addresses(familyOf(p.Addr()))
			if err != nil || !slices.ContainsFunc(list, func(x present) bool { return x.addr == p.Addr() && x.ours }) {
				t.Errorf("want the address with our mark, the kernel has %v (%v)", list, err)
			}
			a.mustStart(3) // again
			a.mustStart(4)
			if n := strings.Count(s.ip("a", "-o address show"), p.Addr().String()+"/"); n != 1 {
				t.Fatalf("the address is there %d times after three starts", n)
			}
			a.mustStop()
			a.mustStop()
			a.mustBe(cluster.StatusStopped)
			if s.has("a", p.Addr()) {
				t.Fatal("the address is there after Stop")
			}
		})
	}
}

// The address moves between hosts that both live. The client, which had a connection to the first, must
// learn from the announcement alone: it sends nothing in between.
func TestMoveUpdatesNeighbours(t *testing.T) {
	s := newSegment(t, "a", "b", "client")
	s.serve("a")
	s.serve("b")
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			p := netip.MustParsePrefix(v.prefix)
			a, b := s.vip("a", p, v.iface, ""), s.vip("b", p, v.iface, "")
			for n, to := range []*node{a, b, a} {
				if n > 0 {
					[]*node{a, b}[n-1].mustStop()
				}
				to.mustStart(cluster.Epoch(n + 1))
				mac := s.mac(to.host, v.on)
				if n > 0 {
					eventually(t, "the client's neighbour cache", mac, func() string { return s.neighbour("client", v.on, p.Addr()) })
				}
				if got := s.ask("client", p.Addr()); got != to.host {
					t.Fatalf("asked after the move to %s: %q", to.host, got)
				}
			}
		})
	}
}

// The gate still drops what leaves the node when the address comes up: Start succeeds, and the repeats
// reach the client when the gate opens.
func TestFirstAnnouncementLost(t *testing.T) {
	s := newSegment(t, "a", "b", "client")
	s.serve("a")
	p := netip.MustParsePrefix("10.77.0.50/24")
	a, b := s.vip("a", p, "", ""), s.vip("b", p, "", "")
	a.mustStart(1)
	s.ask("client", p.Addr())
	a.mustStop()
	nft := func(command string) error {
		return exec.Command("ip", "netns", "exec", s.prefix+"b", "nft", command).Run()
	}
	if err := errors.Join(nft("add table netdev gate"),
		nft("add chain netdev gate out { type filter hook egress device eth0 priority 0; policy drop; }")); err != nil {
		t.Skip("no nftables hook for what leaves an interface here: ", err)
	}
	b.mustStart(2)
	if err := b.Announce(context.Background()); err == nil {
		t.Error("an announcement that the kernel dropped was no error")
	}
	if got := s.neighbour("client", "eth0", p.Addr()); got != s.mac("a", "eth0") {
		t.Fatalf("behind a closed gate the client learned %q", got)
	}
	if err := nft("delete table netdev gate"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client's neighbour cache", s.mac("b", "eth0"), func() string { return s.neighbour("client", "eth0", p.Addr()) })
}

// Announce makes good what the client was told wrongly while links were cut.
func TestAnnounce(t *testing.T) {
	s := newSegment(t, "a", "client")
	s.serve("a")
	for _, v := range variants[:2] {
		p := netip.MustParsePrefix(v.prefix)
		a := s.vip("a", p, "", "")
		if err := a.Announce(context.Background()); err == nil {
			t.Error("an address that is not held was announced")
		}
		a.repeats = nil
		a.mustStart(1)
		s.ask("client", p.Addr())
		s.ip("client", "neigh replace %s lladdr 02:00:00:00:00:99 dev eth0 nud reachable", p.Addr())
		if err := a.Announce(context.Background()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the client's neighbour cache", s.mac("a", "eth0"), func() string { return s.neighbour("client", "eth0", p.Addr()) })
	}
}

func TestStaleEpoch(t *testing.T) {
	s := newSegment(t, "a")
	p := netip.MustParsePrefix("10.77.0.50/24")
	dir := runDir(t)
	a := s.vip("a", p, "", dir)
	a.mustStart(7)
	if err := a.start(6); !errors.Is(err, resource.ErrStaleEpoch) {
		t.Fatalf("an older epoch: %v", err)
	}
	if err := a.Standby(context.Background(), 6); !errors.Is(err, resource.ErrStaleEpoch) || !s.has("a", p.Addr()) {
		t.Fatalf("standby for an older epoch: %v", err)
	}
	if err := a.Standby(context.Background(), 9); err != nil || s.has("a", p.Addr()) {
		t.Fatalf("standby for a newer epoch: %v", err)
	}
	next := s.vip("a", p, "", dir)
	if err := next.start(8); !errors.Is(err, resource.ErrStaleEpoch) || s.has("a", p.Addr()) {
		t.Fatalf("the successor took an older epoch: %v", err)
	}
	next.mustStart(9)
}

// An agent is killed. Its successor finds the address, announces and watches it on, and can remove it.
func TestAdopt(t *testing.T) {
	s := newSegment(t, "a", "client")
	s.serve("a")
	for _, v := range variants[:2] {
		p := netip.MustParsePrefix(v.prefix)
		dir := runDir(t)
		die := exec.Command("ip", "netns", "exec", s.prefix+"a", "/proc/self/exe")
		die.Args[4] = testBinary(t)
		die.Env = append(die.Environ(), "ADDR_TEST_DIE="+v.prefix, "ADDR_TEST_DIR="+dir, "ADDR_TEST_EPOCH=5")
		if out, _ := die.CombinedOutput(); !strings.Contains(string(out), "started: <nil>") {
			t.Fatalf("the first agent: %s", out)
		}
		if got := s.ask("client", p.Addr()); got != "a" {
			t.Fatalf("after the agent's death: %q", got)
		}
		b := s.vip("a", p, "", dir)
		b.mustBe(cluster.StatusRunning)
		if err := b.start(4); !errors.Is(err, resource.ErrStaleEpoch) {
			t.Fatalf("an epoch older than the dead agent's: %v", err)
		}
		b.mustStart(5)
		b.Close()
		if !s.has("a", p.Addr()) {
			t.Fatal("Close removed the address")
		}
		// The file names another interface now: the address is found by the note.
		c := s.vip("a", p, "eth0.100", dir)
		c.mustBe(cluster.StatusUnknown)
		c.mustStop()
		if s.has("a", p.Addr()) {
			t.Fatal("a dead agent's address outlived Stop")
		}
		// Nor is one that an administrator added spared on the resource's own interface.
		s.ip("a", "address add %s dev eth0", p)
		d := s.vip("a", p, "", dir)
		d.mustBe(cluster.StatusRunning)
		d.mustStop()
		if s.has("a", p.Addr()) {
			t.Fatal("an address without mark outlived Stop")
		}
	}
}

func testBinary(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(run(t, "readlink", "/proc/"+strconv.Itoa(unix.Getpid())+"/exe"))
}

// The node's own connections don't come from the address, and a connection to it is answered from it.
func TestNotASource(t *testing.T) {
	s := newSegment(t, "a", "client")
	s.serve("a")
	s.serve("client")
	for _, c := range []struct{ vip, peer, want string }{
		{"10.77.0.50/24", "10.77.0.2", "10.77.0.1"},
		{"fd77::50/64", "fd77::2", "fd77::1"},
	} {
		p := netip.MustParsePrefix(c.vip)
		s.vip("a", p, "", "").mustStart(1)
		s.on("a", func() {
			conn, err := net.Dial("tcp", net.JoinHostPort(c.peer, "9"))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if got := conn.LocalAddr().(*net.TCPAddr).IP.String(); got != c.want {
				t.Errorf("a connects to %s from %s, want %s", c.peer, got, c.want)
			}
		})
		if got := s.ask("client", p.Addr()); got != "a" {
			t.Errorf("asked %s: %q", p.Addr(), got)
		}
	}
}

// Two addresses in a subnet of their own: to remove the first, which is primary, must not take the second.
func TestStopKeepsOthers(t *testing.T) {
	s := newSegment(t, "a")
	first := s.vip("a", netip.MustParsePrefix("10.99.0.50/24"), "eth0", "")
	second := s.vip("a", netip.MustParsePrefix("10.99.0.51/24"), "eth0", "")
	first.mustStart(1)
	second.mustStart(1)
	if line := s.ip("a", "-o address show to 10.99.0.51"); !strings.Contains(line, "secondary") {
		t.Fatalf("the test needs a secondary address, the kernel says: %s", line)
	}
	first.mustStop()
	second.mustBe(cluster.StatusRunning)
}

// The interface gets another hardware address: clients are told that one, and who claims the address with the former one
// is another host.
func TestNewHardwareAddress(t *testing.T) {
	s := newSegment(t, "a", "rogue", "client")
	s.serve("a")
	p := netip.MustParsePrefix("10.77.0.50/24")
	a := s.vip("a", p, "", "")
	a.repeats, a.refresh = []time.Duration{time.Millisecond}, 0
	a.mustStart(1)
	if got := s.ask("client", p.Addr()); got != "a" {
		t.Fatalf("asked: %q", got)
	}
	former, latter := s.mac("a", "eth0"), "02:00:00:00:aa:01"
	s.ip("a", "link set dev eth0 address %s", latter)
	if err := a.Announce(context.Background()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client's neighbour cache", latter, func() string { return s.neighbour("client", "eth0", p.Addr()) })
	time.Sleep(100 * time.Millisecond) // the repeat is sent by then
	s.ip("rogue", "link set dev eth0 address %s", former)
	s.rogue(t, "rogue", "eth0")(p.Addr())
	want := change{cluster.StatusRunning, "another host (MAC " + former + ") answers for " + p.Addr().String(), false}
	if got := a.waitChange(); got != want {
		t.Errorf("reported %v, want %v", got, want)
	}
}

// Another host answers for the address: it is reported, and the client is set right.
func TestDuplicate(t *testing.T) {
	s := newSegment(t, "a", "rogue", "client")
	s.serve("a")
	for _, v := range variants[:4] {
		t.Run(v.name, func(t *testing.T) {
			p := netip.MustParsePrefix(v.prefix)
			a := s.vip("a", p, v.iface, "")
			a.repeats = nil // what sets the client right must be the answer to the rogue
			a.mustStart(1)
			if got := s.ask("client", p.Addr()); got != "a" {
				t.Fatalf("asked: %q", got)
			}
			rogue := s.rogue(t, "rogue", v.on)
			rogue(p.Addr())
			want := change{cluster.StatusRunning, "another host (MAC " + s.mac("rogue", v.on) + ") answers for " + p.Addr().String(), false}
			if got := a.waitChange(); got != want {
				t.Fatalf("reported %v, want %v", got, want)
			}
			eventually(t, "the client's neighbour cache", s.mac("a", v.on), func() string { return s.neighbour("client", v.on, p.Addr()) })
			// A second claim within the interval is answered when it has passed; nothing is reported twice.
			rogue(p.Addr())
			time.Sleep(20 * time.Millisecond) // until the client has taken it in
			eventually(t, "the client's neighbour cache", s.mac("a", v.on), func() string { return s.neighbour("client", v.on, p.Addr()) })
			if len(a.changes) != 0 {
				t.Errorf("the same duplicate was reported again: %v", <-a.changes)
			}
		})
	}
}

// A duplicate that has been silent for long is reported as gone, once.
func TestDuplicateOver(t *testing.T) {
	s := newSegment(t, "a")
	a := s.vip("a", netip.MustParsePrefix("10.77.0.50/24"), "", "")
	d := duplicate{hold: a.hold, tick: time.NewTimer(time.Hour), reported: "02:00:00:00:00:99", at: time.Now()}
	d.check()
	if len(a.changes) != 0 {
		t.Fatalf("reported %v right after a claim", <-a.changes)
	}
	d.at = time.Now().Add(-duplicateOver)
	d.check()
	if got := a.waitChange(); got != (change{cluster.StatusRunning, "", false}) {
		t.Fatalf("reported %v", got)
	}
	d.check()
	if len(a.changes) != 0 {
		t.Fatalf("reported again: %v", <-a.changes)
	}
}

// rogue returns a function that sends announcements of an address from the host.
func (s *segment) rogue(t *testing.T, host, iface string) func(netip.Addr) {
	t.Helper()
	var c *packet.Conn
	var mac net.HardwareAddr
	s.on(host, func() {
		i, err := net.InterfaceByName(iface)
		if err != nil {
			t.Error(err)
			return
		}
		mac = i.HardwareAddr
		if c, err = packet.Listen(i, packet.Raw, unix.ETH_P_LOOP, nil); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() { c.Close() })
	return func(a netip.Addr) {
		for _, f := range announcement(a, mac, false) {
			if _, err := c.WriteTo(f.bytes, &packet.Addr{HardwareAddr: f.to}); err != nil {
				t.Error(err)
			}
		}
	}
}

// The filter in the kernel passes claims of others only: neither other traffic on the interface, nor the
// same address on a VLAN above it, nor our own frames, nor a host that asks whether the address is free.
func TestFilterPassesClaimsOnly(t *testing.T) {
	s := newSegment(t, "a", "client")
	s.serve("a")
	for _, v := range variants[:2] {
		p := netip.MustParsePrefix(v.prefix)
		a := s.vip("a", p, "", "")
		a.mustStart(1)
		s.ask("client", p.Addr())
		s.ip("client", "neigh flush dev eth0")
		s.ask("client", netip.MustParseAddr(map[bool]string{true: "10.77.0.1", false: "fd77::1"}[p.Addr().Is4()]))
		s.ask("client", p.Addr())
		s.rogue(t, "client", "eth0.100")(p.Addr())
		s.rogue(t, "client", "eth0")(p.Addr().Next())
		for _, f := range announcement(p.Addr(), a.hold.iface.mac, false) { // reflected
			s.on("client", func() { s.send(t, "eth0", f) })
		}
		time.Sleep(50 * time.Millisecond)
		stats, err := a.hold.packet.Stats()
		if err != nil || stats.Packets != 0 {
			t.Errorf("%s: %d frames passed the filter (%v), want none", p, stats.Packets, err)
		}
		s.rogue(t, "client", "eth0")(p.Addr())
		if c := a.waitChange(); c.status != cluster.StatusRunning || !strings.Contains(c.reason, s.mac("client", "eth0")) {
			t.Errorf("reported %v", c)
		}
	}
}

func (s *segment) send(t *testing.T, iface string, f frame) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		t.Error(err)
		return
	}
	c, err := packet.Listen(i, packet.Raw, unix.ETH_P_LOOP, nil)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	if _, err := c.WriteTo(f.bytes, &packet.Addr{HardwareAddr: f.to}); err != nil {
		t.Error(err)
	}
}

// Somebody takes the address away: that is reported, and Start puts it back. A Stop of ours is not reported.
func TestTakenAway(t *testing.T) {
	s := newSegment(t, "a", "client")
	s.serve("a")
	for _, v := range variants[:2] {
		p := netip.MustParsePrefix(v.prefix)
		a := s.vip("a", p, "", "")
		a.mustStart(1)
		s.ip("a", "address del %s dev eth0", p)
		if c := a.waitChange(); c.status != cluster.StatusFailed || !c.around || !strings.Contains(c.reason, "was taken off eth0") {
			t.Fatalf("reported %v", c)
		}
		a.mustBe(cluster.StatusStopped)
		if err := a.Announce(context.Background()); err == nil {
			t.Error("an address that is not there was announced")
		}
		a.mustStart(1)
		if got := s.ask("client", p.Addr()); got != "a" {
			t.Fatalf("asked after the address was put back: %q", got)
		}
		a.mustStop()
		if len(a.changes) != 0 {
			t.Errorf("Stop was reported as %v", <-a.changes)
		}
	}
}

// The interface is made anew under the same name, as network daemons do.
func TestInterfaceMadeAnew(t *testing.T) {
	s := newSegment(t, "a", "client")
	s.serve("a")
	p := netip.MustParsePrefix("10.78.0.50/24")
	a := s.vip("a", p, "eth0.100", "")
	a.mustStart(1)
	s.ip("a", "link del eth0.100")
	if c := a.waitChange(); c.status != cluster.StatusFailed {
		t.Fatalf("reported %v", c)
	}
	a.mustBe(cluster.StatusStopped)
	if err := a.start(1); err == nil || !strings.Contains(err.Error(), "eth0.100") {
		t.Fatalf("start without the interface: %v", err)
	}
	s.addVLAN("a")
	if err := a.start(1); err == nil || !strings.Contains(err.Error(), "interface eth0.100 is down") {
		t.Fatalf("start on an interface that is down: %v", err)
	}
	s.ip("a", "link set eth0.100 up")
	a.mustStart(1)
	if got := s.ask("client", p.Addr()); got != "a" {
		t.Fatalf("asked: %q", got)
	}
	a.mustStop()
}

func TestInterfaceFor(t *testing.T) {
	s := newSegment(t, "a")
	s.ip("a", "address add 10.78.0.9/24 dev eth0 scope link")
	s.ip("a", "address add 10.80.0.9/24 dev eth0")
	s.ip("a", "address add 10.80.0.8/12 dev eth0.100")
	s.ip("a", "address add fd80::8/32 dev eth0 nodad")
	s.ip("a", "address add fd80::9/64 dev eth0.100 nodad")
	for _, c := range []struct{ address, want, err string }{
		{"10.77.0.50/24", "eth0", ""},
		{"10.77.0.1/24", "eth0", ""},
		{"fd78::50/64", "eth0.100", ""},
		{"10.78.0.50/24", "", "2 interfaces (eth0, eth0.100) have an address in the subnet of 10.78.0.50"},
		{"192.0.2.1/24", "", "no interface has an address in the subnet of 192.0.2.1"},
		{"10.80.0.50/24", "eth0", ""},     // in the wider one of eth0.100, too
		{"10.80.0.50/32", "eth0", ""},     // the narrower of two
		{"10.80.0.50/12", "eth0.100", ""}, // its own subnet
		{"fd80::50/64", "eth0.100", ""},
	} {
		s.on("a", func() {
			index, err := InterfaceFor(netip.MustParsePrefix(c.address))
			got := ""
			if i, none := net.InterfaceByIndex(index); none == nil {
				got = i.Name
			}
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %q, %v; want %q, %q", c.address, got, err, c.want, c.err)
			}
		})
	}
}

// What is held stays where it is, whatever subnets come beside it: a successor finds it running there.
func TestHeldWhereItIs(t *testing.T) {
	s := newSegment(t, "a", "client")
	s.serve("a")
	for _, beside := range []string{"10.0.0.9/8", "10.77.0.33/27", "10.77.0.34/24"} {
		p, dir := netip.MustParsePrefix("10.77.0.50/24"), runDir(t)
		first := s.vip("a", p, "", dir)
		first.mustStart(1)
		s.ip("a", "address add %s dev eth0.100 noprefixroute", beside)
		next := s.vip("a", p, "", dir)
		next.mustBe(cluster.StatusRunning)
		next.mustStart(1)
		if home := s.ip("a", "-o address show to 10.77.0.50"); !strings.Contains(home, " eth0 ") {
			t.Errorf("with %s beside it is at %q", beside, home)
		}
		s.on("a", func() {
			if err := (VIP{}).Lacks(cluster.ResourceSpec{Fields: map[string]any{"address": p}}); err != nil {
				t.Errorf("with %s beside: %v", beside, err)
			}
		})
		next.mustStop()
		if s.has("a", p.Addr()) {
			t.Errorf("with %s beside it outlived Stop", beside)
		}
		s.ip("a", "address del %s dev eth0.100", beside)
	}

	// The name in the file is nobody's any more.
	p, dir := netip.MustParsePrefix("10.78.0.50/24"), runDir(t)
	s.vip("a", p, "eth0.100", dir).mustStart(1)
	s.ip("a", "link set eth0.100 name office")
	next := s.vip("a", p, "eth0.100", dir)
	next.mustBe(cluster.StatusRunning)
	next.mustStart(1)
	next.mustStop()
}

// What is held stays, though its interface has lost the subnet and another one has a wider one. Where the subnet itself has
// gone to another interface, the address follows it.
func TestHeldWhereItsSubnetWent(t *testing.T) {
	s := newSegment(t, "a")
	s.ip("a", "link add name tun0 type veth peer name tun1")
	s.ip("a", "link set tun0 up")
	s.ip("a", "link set tun1 up")
	s.ip("a", "address add 10.0.0.1/8 dev tun0")
	a := s.vip("a", netip.MustParsePrefix("10.77.0.50/24"), "", "")
	a.mustStart(1)
	run(t, "ip", "netns", "exec", s.prefix+"a", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/promote_secondaries")
	s.ip("a", "address del 10.77.0.1/24 dev eth0")
	for _, c := range []struct{ on, beside string }{{"eth0", "10.77.0.9/16"}, {"tun0", "10.77.0.9/24"}} {
		s.ip("a", "address add %s dev tun0 noprefixroute", c.beside)
		if c.on == "eth0" {
			a.mustBe(cluster.StatusRunning)
		}
		a.mustStart(1) // an announcement, as when a neighbour comes back
		if at := s.ip("a", "-o address show to 10.77.0.50"); !strings.Contains(at, " "+c.on+" ") || strings.Count(at, "\n") != 1 {
			t.Errorf("with %s beside it is at %q", c.beside, at)
		}
	}
}

func TestInterfaceWith(t *testing.T) {
	s := newSegment(t, "a")
	for _, c := range []struct{ address, want string }{{"10.77.0.1", "eth0"}, {"192.0.2.1", ""}} {
		s.on("a", func() {
			index, err := InterfaceWith(netip.MustParseAddr(c.address))
			got := ""
			if i, none := net.InterfaceByIndex(index); none == nil {
				got = i.Name
			}
			if err != nil || got != c.want {
				t.Errorf("%s: %q, %v; want %q", c.address, got, err, c.want)
			}
		})
	}
}

// An interface is found by an alternative name too, also by one that is longer than a name of its own may be.
func TestAlternativeName(t *testing.T) {
	s := newSegment(t, "a", "client")
	p := netip.MustParsePrefix("10.79.0.50/24")
	s.ip("client", "address add 10.79.0.9/24 dev eth0")
	s.serve("a")
	for _, name := range []string{"enp1s0", "enx0123456789abcdef-of-the-left-card"} {
		a := s.vip("a", p, name, "")
		if err := a.start(1); err == nil || !strings.Contains(err.Error(), name) {
			t.Fatalf("started on an interface that is not there: %v", err)
		}
		s.ip("a", "link property add dev eth0 altname %s", name)
		a.mustStart(1)
		if got := s.ask("client", p.Addr()); got != "a" {
			t.Errorf("%s: asked: %q", name, got)
		}
		a.mustStop()
	}
}

func TestFields(t *testing.T) {
	guards := VIP{}.Spec().Guards
	addresses, ports, err := guards(map[string]any{"address": netip.MustParsePrefix("fd77::50/64")})
	if err != nil || len(ports) != 0 || len(addresses) != 1 || addresses[0] != "fd77::50/64" { // with its length, which tells its subnet
		t.Errorf("guards %v %v, %v", addresses, ports, err)
	}
	for p, want := range map[string]string{
		"10.0.0.0/24":        "host part is zero",
		"10.0.0.255/24":      "broadcast",
		"224.0.0.1/24":       "not one of a host",
		"::1/128":            "not one of a host",
		"fd77::/64":          "host part is zero",
		"::ffff:10.0.0.1/96": "write it as IPv4",
	} {
		if _, _, err := guards(map[string]any{"address": netip.MustParsePrefix(p)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", p, err, want)
		}
	}
	if _, err := (VIP{}).New(resource.Env{RunDir: t.TempDir()}); err == nil {
		t.Error("a vip without address was made")
	}
}

// What a takeover and a release cost.
func BenchmarkStart(b *testing.B) {
	for _, v := range variants[:2] {
		b.Run(v.name, func(b *testing.B) {
			s := newSegment(b, "a", "client")
			a := s.vip("a", netip.MustParsePrefix(v.prefix), "", "")
			var starting, stopping []time.Duration
			s.on("a", func() {
				for n := 0; b.Loop(); n++ {
					t0 := time.Now()
					if err := a.Start(context.Background(), cluster.Epoch(n+1)); err != nil {
						b.Error(err)
						return
					}
					t1 := time.Now()
					if err := a.Stop(context.Background()); err != nil {
						b.Error(err)
						return
					}
					starting, stopping = append(starting, t1.Sub(t0)), append(stopping, time.Since(t1))
				}
			})
			for name, d := range map[string][]time.Duration{"start": starting, "stop": stopping} {
				slices.Sort(d)
				b.ReportMetric(float64(d[len(d)/2].Microseconds()), name+"-median-us")
				b.ReportMetric(float64(d[len(d)*9/10].Microseconds()), name+"-p90-us")
			}
		})
	}
}

// What comes and goes with an interface is told as lacking, and a start that fails for it says so.
func TestLacksItsInterface(t *testing.T) {
	s := newSegment(t, "a")
	p := netip.MustParsePrefix("10.77.0.50/24")
	for _, named := range []string{"eth0", ""} {
		a := s.vip("a", p, named, "")
		fields := map[string]any{"address": p}
		if named != "" {
			fields["interface"] = named
		}
		look := func() (err error) {
			s.on("a", func() { err = resource.Lacks(VIP{}, cluster.ResourceSpec{ID: "vip", Kind: "vip", Fields: fields}) })
			return err
		}
		start := func() (surroundings bool, err error) {
			s.on("a", func() { err = a.Start(t.Context(), 1) })
			_, surroundings = errors.AsType[resource.Lacking](err)
			return surroundings, err
		}
		if err := look(); err != nil {
			t.Errorf("interface %q: all is there, and it lacks %v", named, err)
		}
		if named == "" {
			s.ip("a", "address flush dev eth0")
		} else {
			s.ip("a", "link set eth0 down")
		}
		if err := look(); err == nil {
			t.Errorf("interface %q: it lacks nothing", named)
		}
		if around, err := start(); err == nil || !around {
			t.Errorf("interface %q: start: %v, for its surroundings %v", named, err, around)
		}
		if named != "" {
			s.ip("a", "link set eth0 up")
		}
	}
}

// Addresses that come and go are told of.
func TestWatchAddresses(t *testing.T) {
	s := newSegment(t, "a")
	changed, ended := make(chan struct{}, 100), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	s.on("a", func() {
		begun := make(chan struct{})
		go func() { // on a thread of that network namespace
			s.on("a", func() { close(begun); ended <- WatchAddresses(ctx, func() { signal(changed) }) })
		}()
		<-begun
	})
	for _, change := range []string{"add", "del"} {
		for deadline := time.Now().Add(10 * time.Second); ; {
			s.ip("a", "address %s 10.77.0.99/24 dev eth0", change)
			select {
			case <-changed:
			case <-time.After(100 * time.Millisecond): // it had not begun yet
				if time.Now().After(deadline) {
					t.Fatalf("address %s: not told", change)
				}
				s.ip("a", "address %s 10.77.0.99/24 dev eth0", map[string]string{"add": "del", "del": "add"}[change])
				continue
			}
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Taken away once, put back, and taken away again before the watch has heard that it was put back: that is noticed.
func TestTakenAwayAgainAtOnce(t *testing.T) {
	s := newSegment(t, "a")
	a := s.vip("a", netip.MustParsePrefix("10.77.0.50/24"), "", "")
	a.mustStart(1)
	s.ip("a", "address del 10.77.0.50/24 dev eth0")
	if c := a.waitChange(); c.status != cluster.StatusFailed {
		t.Fatalf("%+v", c)
	}
	i, err := a.iface()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.route.add(i.index, a.prefix); err != nil { // what Start does, with somebody in between
		t.Fatal(err)
	}
	s.ip("a", "address del 10.77.0.50/24 dev eth0")
	time.Sleep(50 * time.Millisecond)
	if err := a.hold.run(i); err != nil {
		t.Fatal(err)
	}
	if c := a.waitChange(); c.status != cluster.StatusFailed {
		t.Fatalf("%+v", c)
	}
}

// The same by chance alone: somebody takes the address off as soon as it comes.
func TestTakenAwayByARival(t *testing.T) {
	s := newSegment(t, "a")
	a := s.vip("a", netip.MustParsePrefix("10.77.0.50/24"), "", "")
	a.mustStart(1)
	i, err := a.iface()
	if err != nil {
		t.Fatal(err)
	}
	var rival *route
	s.on("a", func() { rival, err = openRoute() })
	if err != nil {
		t.Fatal(err)
	}
	news := rival.table.watch()
	stop := make(chan struct{})
	var taking sync.WaitGroup
	taking.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-news:
				if err := rival.remove(i.index, a.prefix); err != nil {
					t.Error(err)
				}
			}
		}
	})
	defer rival.close()
	defer taking.Wait()
	defer close(stop)
	s.ip("a", "address del 10.77.0.50/24 dev eth0")
	for range 100 {
		if c := a.waitChange(); c.status != cluster.StatusFailed {
			t.Fatalf("%+v", c)
		}
		if err := a.start(1); err != nil {
			t.Fatal(err)
		}
	}
}
