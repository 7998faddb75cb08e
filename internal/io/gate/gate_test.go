package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

var (
	vip4 = netip.MustParseAddr("10.77.0.50")
	vip6 = netip.MustParseAddr("fd77::50")

	addresses = Group{ID: "orders", Addresses: []netip.Addr{vip4, vip6}}
	ports     = Group{ID: "cache", Ports: []cluster.Port{{Protocol: "tcp", Number: 8000}, {Protocol: "udp", Number: 8000}}}
)

// each runs a test with every mechanism.
func each(t *testing.T, f func(t *testing.T, prefer string)) {
	for _, prefer := range []string{PreferEBPF, PreferClsact, PreferNFTables} {
		t.Run(prefer, func(t *testing.T) {
			t.Parallel()
			f(t, prefer)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func hence(d time.Duration) int64 { return boottime() + int64(d) }

func TestAddresses(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		for _, a := range []string{"10.77.0.50:7000", "[fd77::50]:7000", "10.77.0.1:7000", "[fd77::1]:7000"} {
			w.serve(t, w.node, "udp", a)
			w.serve(t, w.node, "tcp", a)
		}
		w.wantPass(t, w.client, "udp", "10.77.0.50:7000", 64)
		g := w.open(t, Options{Prefer: prefer})
		must(t, g.Guard([]Group{addresses}))
		run(t, "ip -n "+w.client+" neigh flush all")

		guarded := func(judge func(*testing.T, string, string, string, int)) {
			for _, a := range []string{"10.77.0.50:7000", "[fd77::50]:7000"} {
				for _, ns := range []string{w.client, w.node} { // the node itself goes over lo
					judge(t, ns, "udp", a, 64)
					judge(t, ns, "tcp", a, 64)
				}
				judge(t, w.client, "udp", a, 5000) // fragments
			}
		}
		guarded(w.wantCut)
		for _, a := range []string{"10.77.0.50", "fd77::50"} {
			if n := run(t, "ip -n "+w.client+" neigh show to "+a); strings.Contains(n, "lladdr") {
				t.Errorf("a closed gate let the node answer who has %s: %s", a, n)
			}
		}
		w.wantPass(t, w.client, "udp", "10.77.0.1:7000", 5000)
		w.wantPass(t, w.client, "tcp", "[fd77::1]:7000", 64)

		must(t, g.Set("orders", 3, hence(time.Hour)))
		run(t, "ip -n "+w.client+" neigh flush all")
		guarded(w.wantPass)
		for _, a := range []string{"10.77.0.50", "fd77::50"} {
			if n := run(t, "ip -n "+w.client+" neigh show to "+a); !strings.Contains(n, "lladdr") {
				t.Errorf("an open gate: the client does not know who has %s: %s", a, n)
			}
		}

		// With addresses known to the client, what is cut is cut without the help of ARP and ND.
		closeGroup(t, g, "orders", 3)
		guarded(w.wantCut)

		must(t, g.Guard(nil))
		guarded(w.wantPass)
	})
}

func TestPorts(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		for _, a := range []string{"10.77.0.1", "[fd77::1]", "127.0.0.1", "[::1]"} {
			for _, port := range []string{":8000", ":8001"} {
				w.serve(t, w.node, "udp", a+port)
				w.serve(t, w.node, "tcp", a+port)
			}
		}
		g := w.open(t, Options{Prefer: prefer})
		must(t, g.Guard([]Group{ports, {ID: "other", Ports: []cluster.Port{{Protocol: "tcp", Number: 9}}}}))
		all := func(port string, judge func(*testing.T, string, string, string, int)) {
			for _, a := range []string{"10.77.0.1", "[fd77::1]"} {
				judge(t, w.client, "tcp", a+port, 64)
				judge(t, w.client, "udp", a+port, 64)
				judge(t, w.client, "udp", a+port, 5000)
				judge(t, w.node, "tcp", a+port, 64) // over lo, and judged there
				judge(t, w.node, "udp", a+port, 64)
			}
		}
		// Probes of a group that is not open yet come this way.
		probes := func() {
			for _, a := range []string{"127.0.0.1", "[::1]"} {
				w.wantPass(t, w.node, "tcp", a+":8000", 64)
				w.wantPass(t, w.node, "udp", a+":8000", 64)
			}
		}
		all(":8001", w.wantPass)
		all(":8000", w.wantCut)
		probes()
		must(t, g.Set("cache", 1, hence(time.Hour)))
		all(":8000", w.wantPass)
		probes()
		closeGroup(t, g, "cache", 1)
		all(":8000", w.wantCut)
		all(":8001", w.wantPass)
		probes()
	})
}

// A loopback address in a packet from outside opens nothing, even on a node whose kernel takes such packets.
func TestForgedLoopback(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		in(t, w.node, func() {
			for name, value := range map[string]string{
				"all/rp_filter": "0", "va/rp_filter": "0", "va/accept_local": "1", "va/route_localnet": "1",
			} {
				must(t, os.WriteFile("/proc/sys/net/ipv4/conf/"+name, []byte(value), 0))
			}
		})
		g := w.open(t, Options{Prefer: prefer})
		must(t, g.Guard([]Group{ports}))
		send := w.raw(t)
		for _, p := range []packet{
			{src: local4, dst: plain4, sport: 9, dport: 8000},
			{src: other4, dst: local4, sport: 9, dport: 8000},
			{src: netip.MustParseAddr("127.0.0.2"), dst: local4, sport: 9, dport: 8000},
		} {
			c := w.listen(t, netip.AddrPortFrom(p.dst, 8000).String())
			came := func(patience time.Duration) bool {
				for end := time.Now().Add(patience); time.Now().Before(end); {
					send(p.ip())
					c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
					if _, _, err := c.ReadFrom(make([]byte, 64)); err == nil {
						return true
					}
				}
				return false
			}
			if came(short) {
				t.Errorf("%s to %s from outside came through a closed gate", p.src, p.dst)
			}
			must(t, g.Set("cache", 1, hence(time.Hour)))
			if !came(long) {
				t.Errorf("%s to %s from outside did not come through an open gate: nothing is shown", p.src, p.dst)
			}
			closeGroup(t, g, "cache", 1)
			c.Close()
		}
	})
}

// raw returns a function that sends an IPv4 packet, as it is, from the client to the node.
func (w *world) raw(t *testing.T) func(ip []byte) {
	t.Helper()
	var va, vb *net.Interface
	var fd int
	var err error
	in(t, w.node, func() { va, err = net.InterfaceByName("va") })
	must(t, err)
	in(t, w.client, func() {
		if vb, err = net.InterfaceByName("vb"); err == nil {
			fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		}
	})
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return func(ip []byte) {
		f := frame(nil, unix.ETH_P_IP, ip)
		copy(f, va.HardwareAddr)
		if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: vb.Index}); err != nil {
			t.Errorf("send: %v", err)
		}
	}
}

// A node whose gate is closed must still be able to be a client of the address where it serves.
func TestClosedNodeIsClient(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		for _, a := range []string{"10.77.0.50/24", "fd77::50/64"} {
			run(t, "ip -n "+w.node+" addr del "+a+" dev va")
			w.address(t, w.client, "vb", a)
		}
		w.serve(t, w.client, "tcp", "10.77.0.50:7000")
		w.serve(t, w.client, "udp", "[fd77::50]:7000")
		g := w.open(t, Options{Prefer: prefer})
		must(t, g.Guard([]Group{addresses}))
		w.wantPass(t, w.node, "tcp", "10.77.0.50:7000", 64)
		w.wantPass(t, w.node, "udp", "[fd77::50]:7000", 5000)
	})
}

func TestVLAN(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		stack := func(ns, dev, host string) {
			if out, err := try("ip -n " + ns + " link add link " + dev + " name " + dev + ".7 type vlan id 7"); err != nil {
				t.Skipf("no VLAN interfaces here (the program's own test sees tagged frames): %s", out)
			}
			run(t, "ip -n "+ns+" link set "+dev+".7 up")
			run(t, "ip -n "+ns+" link add link "+dev+".7 name "+dev+".7.8 type vlan id 8")
			run(t, "ip -n "+ns+" link set "+dev+".7.8 up")
			w.address(t, ns, dev+".7", "10.78.0."+host+"/24")
			w.address(t, ns, dev+".7.8", "10.79.0."+host+"/24")
		}
		stack(w.node, "va", "50")
		stack(w.client, "vb", "2")
		w.serve(t, w.node, "udp", "10.78.0.50:7000")
		w.serve(t, w.node, "udp", "10.79.0.50:7000")
		g := w.open(t, Options{Prefer: prefer})
		must(t, g.Guard([]Group{
			{ID: "one", Addresses: []netip.Addr{netip.MustParseAddr("10.78.0.50")}},
			{ID: "two", Addresses: []netip.Addr{netip.MustParseAddr("10.79.0.50")}},
		}))
		if g, ok := g.(*clsact); ok { // leave the cable's own hooks only: they see tagged packets
			g.end() // or it puts back what is taken off
			for _, dev := range []string{"va.7", "va.7.8"} {
				if prefer == PreferClsact {
					run(t, "tc -n "+w.node+" qdisc del dev "+dev+" clsact")
					continue
				}
				index := w.index(t, dev)
				must(t, errors.Join(g.hooks.pins.remove(hook{index, false}), g.hooks.pins.remove(hook{index, true})))
			}
		}
		w.wantCut(t, w.client, "udp", "10.78.0.50:7000", 64)
		w.wantCut(t, w.client, "udp", "10.79.0.50:7000", 64)
		must(t, g.Set("two", 1, hence(time.Hour)))
		w.wantCut(t, w.client, "udp", "10.78.0.50:7000", 64)
		w.wantPass(t, w.client, "udp", "10.79.0.50:7000", 64)
		must(t, g.Set("one", 1, hence(time.Hour)))
		w.wantPass(t, w.client, "udp", "10.78.0.50:7000", 64)
	})
}

// stamped has a socket tell when the kernel got each datagram, and have room for many, so that none is lost while nobody
// reads.
func stamped(t *testing.T, c *net.UDPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20))
	}))
	must(t, err)
}

// stamp reads when the kernel got a datagram, in CLOCK_BOOTTIME; 0: it does not tell.
func stamp(oob []byte) int64 {
	// Both clocks are read here: a step of the wall clock between receipt and here would show as
	// nonsense, not as a late packet that passes for an early one.
	shift := boottime() - time.Now().UnixNano()
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) == 0 || len(messages[0].Data) < 16 {
		return 0
	}
	d := messages[0].Data
	return int64(binary.NativeEndian.Uint64(d))*1e9 + int64(binary.NativeEndian.Uint64(d[8:])) + shift
}

// reading is how far a stamp may be off: of two clocks one is read after the other.
const reading = int64(time.Millisecond)

// arrivals reads UDP datagrams and the kernel's receive time of each, in CLOCK_BOOTTIME, until it is quiet for so long
// after an instant.
func arrivals(c *net.UDPConn, after int64, quiet time.Duration) []int64 {
	var times []int64
	b, oob := make([]byte, 64), make([]byte, 256)
	for {
		c.SetReadDeadline(time.Now().Add(max(0, time.Duration(after-boottime())) + quiet))
		_, n, _, _, err := c.ReadMsgUDP(b, oob)
		if err != nil {
			return times
		}
		if at := stamp(oob[:n]); at != 0 {
			times = append(times, at)
		}
	}
}

// hammer sends datagrams about every millisecond until stopped. It tells how many were sent between two instants.
func (w *world) hammer(t *testing.T, address string) (sent func(from, to int64) int, stop func()) {
	t.Helper()
	var mu sync.Mutex
	var times [][2]int64 // before and after each
	var c net.Conn
	var err error
	in(t, w.client, func() { c, err = net.Dial("udp", address) })
	must(t, err)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				begun := boottime()
				if _, err := c.Write([]byte("probe")); err == nil { // refused while nobody listens yet: the next one counts
					mu.Lock()
					times = append(times, [2]int64{begun, boottime()})
					mu.Unlock()
				}
			}
		}
	}()
	sent = func(from, to int64) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, at := range times {
			if at[0] > from && at[1] < to {
				n++
			}
		}
		return n
	}
	return sent, func() { close(done); <-ended; c.Close() }
}

func (w *world) listen(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	var err error
	listen := func() { c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address))) }
	// A socket that was closed stays for a moment in a child that another test forks, until that runs its program.
	for end := time.Now().Add(long); ; time.Sleep(time.Millisecond) {
		if in(t, w.node, listen); !errors.Is(err, unix.EADDRINUSE) || time.Now().After(end) {
			break
		}
	}
	must(t, err)
	t.Cleanup(func() { c.Close() })
	stamped(t, c)
	return c
}

// judgeEnd checks that packets passed until shortly before the deadline, if any were sent, and none after it. A packet's
// receive time is taken before the gate sees it, so a scheduling delay can't make it look late.
func judgeEnd(t *testing.T, times []int64, sent func(from, to int64) int, deadline int64) {
	t.Helper()
	if len(times) == 0 {
		t.Fatal("no packet passed before the deadline")
	}
	last := times[len(times)-1]
	t.Logf("%d packets; the last %v before the deadline", len(times), time.Duration(deadline-last))
	if last > deadline+reading {
		t.Errorf("a packet passed %v after the deadline", time.Duration(last-deadline))
	}
	if early := deadline - last; early > int64(500*time.Millisecond) {
		if n := sent(last+reading, deadline-int64(100*time.Millisecond)); n > 0 {
			t.Errorf("the last packet passed %v before the deadline, and %d were sent after it", time.Duration(early), n)
		}
	}
}

// The process that opened the gate is killed: the gate stays open until its deadline and no longer,
// and a successor goes on from there.
func TestKilledProcess(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		c := w.listen(t, "10.77.0.50:7000")
		sent, stop := w.hammer(t, "10.77.0.50:7000")
		defer stop()
		process := w.child(t, prefer, 1500*time.Millisecond)
		process.kill()
		if boottime() > process.deadline-int64(500*time.Millisecond) {
			t.Skip("the machine is too busy: the child was killed only after half a second")
		}
		judgeEnd(t, arrivals(c, process.deadline, 400*time.Millisecond), sent, process.deadline)

		g := w.open(t, Options{Prefer: prefer})
		left, err := g.Left()
		must(t, err)
		if len(left) != 1 || left[0].Group != "orders" || left[0].Epoch != 7 || left[0].Deadline > process.deadline {
			t.Errorf("left: %+v, want orders, epoch 7, deadline %d or 0", left, process.deadline)
		}
		if got := arrivals(c, 0, short); len(got) > 0 {
			t.Errorf("%d packets passed a gate whose deadline is over", len(got))
		}
		if err := g.Set("orders", 6, hence(time.Hour)); !errors.Is(err, ErrStaleEpoch) {
			t.Errorf("epoch 6 after 7: %v, want ErrStaleEpoch", err)
		}
		if got := arrivals(c, 0, short); len(got) > 0 {
			t.Errorf("%d packets passed after a stale epoch", len(got))
		}
		deadline := hence(time.Second)
		must(t, g.Set("orders", 8, deadline))
		judgeEnd(t, arrivals(c, deadline, 400*time.Millisecond), sent, deadline)
	})
}

// A successor that comes back in time neither opens nor closes anything by taking over.
func TestSuccessorInTime(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		w.serve(t, w.node, "udp", "10.77.0.50:7000")
		w.serve(t, w.node, "udp", "10.77.0.1:8000")
		both := []Group{addresses, ports}
		process := w.child(t, prefer, time.Hour)
		process.kill()
		steps := w.pulse(t, "10.77.0.50:7000")
		g := w.open(t, Options{Prefer: prefer})
		left, err := g.Left()
		must(t, err)
		if len(left) != 1 || left[0].Epoch != 7 || left[0].Deadline > process.deadline ||
			left[0].Deadline < process.deadline-int64(time.Second) {
			t.Errorf("left: %+v, want orders, epoch 7, deadline %d", left, process.deadline)
		}
		for range 3 {
			must(t, g.Guard(both))
		}
		if sent, lost := steps(); lost > 0 || sent == 0 {
			t.Errorf("%d of %d packets were lost while a successor took over an open gate", lost, sent)
		}
		w.wantCut(t, w.client, "udp", "10.77.0.1:8000", 64)
		closeGroup(t, g, "orders", 7)
		w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
	})
}

// pulse sends one datagram after another, each when the last was answered, until stopped.
func (w *world) pulse(t *testing.T, address string) (stop func() (sent, lost int)) {
	t.Helper()
	w.wantPass(t, w.client, "udp", address, 8)
	var c net.Conn
	var err error
	in(t, w.client, func() { c, err = net.Dial("udp", address) })
	must(t, err)
	done, begun, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var sent, lost int
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
			}
			if sent++; !echo(c, 8, 5*time.Second) { // a machine that stands still for a while loses none
				lost++
			}
			if sent == 1 {
				close(begun)
			}
		}
	}()
	<-begun
	return func() (int, int) { close(done); <-ended; c.Close(); return sent, lost }
}

// Renewals keep the gate open past earlier deadlines, and it ends at the last one.
func TestRenewal(t *testing.T) {
	for _, mode := range []string{PreferEBPF, PreferNFTables, "nftables before 6.12"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c := w.listen(t, "10.77.0.50:7000")
			prefer, _, old := strings.Cut(mode, " ")
			g := w.open(t, Options{Prefer: prefer})
			if old {
				g.(*tables).writer.replace = true
			}
			must(t, g.Guard([]Group{addresses}))
			sent, stop := w.hammer(t, "10.77.0.50:7000")
			defer stop()
			var deadline int64
			for i := range 40 {
				// At a steady pace what is left is the same each time: a renewal must count all the same.
				deadline = hence(400 * time.Millisecond)
				must(t, g.Set("orders", cluster.Epoch(1+i/20), deadline))
				time.Sleep(20 * time.Millisecond)
			}
			judgeEnd(t, arrivals(c, deadline, 600*time.Millisecond), sent, deadline)
			time.Sleep(50 * time.Millisecond) // the element has expired: setting it anew, closing and closing again work
			closeGroup(t, g, "orders", 2)
			closeGroup(t, g, "orders", 2)
			must(t, g.Set("orders", 2, hence(time.Hour)))
			must(t, g.Set("orders", 2, hence(time.Hour)))
			c.SetReadDeadline(time.Now().Add(long))
			if _, _, err := c.ReadFrom(make([]byte, 64)); err != nil {
				t.Errorf("nothing passed a gate that was opened again: %v", err)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		g := w.open(t, Options{Prefer: prefer})
		bad := [][]Group{
			{{ID: ""}},
			{{ID: cluster.GroupID(strings.Repeat("x", maxNameBytes+1))}},
			{{ID: "a"}, {ID: "a"}},
			{{ID: "a", Addresses: []netip.Addr{vip4}}, {ID: "b", Addresses: []netip.Addr{vip4}}},
			{{ID: "a", Addresses: []netip.Addr{{}}}},
			{{ID: "a", Addresses: []netip.Addr{netip.MustParseAddr("::")}}},
			{{ID: "a", Ports: []cluster.Port{{Protocol: "sctp", Number: 1}}}},
			{{ID: "a", Ports: []cluster.Port{{Protocol: "tcp"}}}},
			{{ID: "a", Ports: ports.Ports}, {ID: "b", Ports: ports.Ports}},
		}
		for _, groups := range bad {
			if err := g.Guard(groups); err == nil {
				t.Errorf("guard %+v: no error", groups)
			}
		}
		must(t, g.Guard([]Group{addresses}))
		if err := g.Set("nobody", 1, 0); !errors.Is(err, ErrUnknownGroup) {
			t.Errorf("set of an unknown group: %v", err)
		}
		must(t, g.Set("orders", 5, hence(time.Hour)))
		if err := g.Set("orders", 5, -1); err != nil && !errors.Is(err, ErrOff) { // see closeGroup
			t.Fatal(err)
		}
		if err := g.Set("orders", 4, 0); !errors.Is(err, ErrStaleEpoch) {
			t.Errorf("set of a stale epoch: %v", err)
		}
		if left, err := g.Left(); err != nil || len(left) != 1 || left[0] != (State{"orders", 5, 0}) {
			t.Errorf("left: %+v, %v", left, err)
		}
		must(t, g.Close())
		for name, err := range map[string]error{
			"set": g.Set("orders", 5, 0), "guard": g.Guard(nil), "close": g.Close(), "remove": g.Remove(), "sweep": g.Sweep(),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("%s after Close: %v, want ErrClosed", name, err)
			}
		}
	})
	if _, err := Open(Options{Cluster: "c"}); err == nil {
		t.Error("open without a node: no error")
	}
	if _, err := Open(Options{Cluster: "c", Node: "n", Prefer: "prayer"}); err == nil {
		t.Error("open with an unknown mechanism: no error")
	}
}

// Group names, addresses and slots may change freely; no group ever opens by another one's deadline.
func TestGroupsComeAndGo(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		w.serve(t, w.node, "udp", "10.77.0.50:7000")
		w.serve(t, w.node, "udp", "10.77.0.1:7000")
		g := w.open(t, Options{Prefer: prefer})
		one := Group{ID: "one", Addresses: []netip.Addr{vip4}}
		must(t, g.Guard([]Group{one}))
		must(t, g.Set("one", 1, hence(time.Hour)))
		w.wantPass(t, w.client, "udp", "10.77.0.50:7000", 64)
		must(t, g.Guard([]Group{{ID: "two", Addresses: one.Addresses}}))
		w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
		must(t, g.Set("two", 1, hence(time.Hour)))
		must(t, g.Guard([]Group{{ID: "one", Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.1")}}, {ID: "two", Addresses: one.Addresses}}))
		w.wantPass(t, w.client, "udp", "10.77.0.50:7000", 64)
		w.wantCut(t, w.client, "udp", "10.77.0.1:7000", 64)
		must(t, g.Set("one", 1, hence(time.Hour)))
		w.wantPass(t, w.client, "udp", "10.77.0.1:7000", 64)
	})
}

func TestInterfaceAppears(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		g := w.open(t, Options{Prefer: prefer})
		late := netip.MustParseAddr("10.80.0.50")
		must(t, g.Guard([]Group{{ID: "late", Addresses: []netip.Addr{late}}}))
		w.cable(t, "va2", "vb2")
		if g, ok := g.(*clsact); ok {
			index := w.index(t, "va2")
			for end := time.Now().Add(long); !g.guards(index); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("no filters on an interface that appeared %v ago", long)
				}
			}
		}
		w.address(t, w.node, "va2", "10.80.0.50/24")
		w.address(t, w.client, "vb2", "10.80.0.2/24")
		w.serve(t, w.node, "udp", "10.80.0.50:7000")
		w.wantCut(t, w.client, "udp", "10.80.0.50:7000", 64)
		must(t, g.Set("late", 1, hence(time.Hour)))
		w.wantPass(t, w.client, "udp", "10.80.0.50:7000", 64)
	})
}

// A device without an Ethernet header: a tun whose other end is the test.
func TestTunnel(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		tun := w.tun(t)
		w.address(t, w.node, "tun1", "10.81.0.50/24")
		w.serve(t, w.node, "udp", "10.81.0.50:7000")
		w.serve(t, w.node, "udp", "10.81.0.50:8000")
		g := w.open(t, Options{Prefer: prefer})
		must(t, g.Guard([]Group{ports, {ID: "inner", Addresses: []netip.Addr{netip.MustParseAddr("10.81.0.50")}}}))
		answered := func(port uint16, patience time.Duration) bool {
			p := packet{src: netip.MustParseAddr("10.81.0.2"), dst: netip.MustParseAddr("10.81.0.50"), sport: 1234, dport: port}
			if _, err := tun.Write(p.ip()); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 2000)
			for end := time.Now().Add(patience); ; {
				tun.SetReadDeadline(end)
				n, err := tun.Read(b)
				if err != nil {
					return false
				}
				if n > 28 && b[0]>>4 == 4 && b[9] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(b[20:]) == port {
					return true
				}
			}
		}
		want := func(port uint16, want bool) {
			t.Helper()
			patience := 2 * short
			if want {
				patience = long
			}
			if got := answered(port, patience); got != want {
				t.Errorf("port %d answered: %v, want %v", port, got, want)
			}
		}
		want(7000, false)
		must(t, g.Set("inner", 1, hence(time.Hour)))
		want(7000, true)
		want(8000, false)
		must(t, g.Set("cache", 1, hence(time.Hour)))
		want(8000, true)
	})
}

func (w *world) tun(t *testing.T) *os.File {
	t.Helper()
	var fd int
	var err error
	in(t, w.node, func() {
		var r *unix.Ifreq
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		if r, err = unix.NewIfreq("tun1"); err == nil {
			r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
		}
	})
	if err != nil {
		t.Skipf("no tun here: %v", err)
	}
	f := os.NewFile(uintptr(fd), "tun1")
	t.Cleanup(func() { f.Close() })
	run(t, "ip -n "+w.node+" link set tun1 up")
	return f
}

// index returns the index of a device in the node's namespace.
func (w *world) index(t *testing.T, dev string) int {
	t.Helper()
	var i *net.Interface
	var err error
	in(t, w.node, func() { i, err = net.InterfaceByName(dev) })
	must(t, err)
	return i.Index
}

// guards tells whether an interface has all that the gate puts there.
func (g *clsact) guards(index int) bool {
	g.work.Lock()
	defer g.work.Unlock()
	return g.hooks.known[index] && !g.hooks.later[index]
}

// filters counts the filters on both hooks of a device in the node's namespace.
func (w *world) filters(t *testing.T, dev string) int {
	t.Helper()
	n := 0
	for _, hook := range []string{"ingress", "egress"} {
		out, _ := try("tc -n " + w.node + " filter show dev " + dev + " " + hook)
		n += strings.Count(out, " handle ")
	}
	return n
}

func TestRemove(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		w.serve(t, w.node, "udp", "10.77.0.50:7000")
		process := w.child(t, prefer, 0)
		process.kill()
		w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
		must(t, w.open(t, Options{Prefer: prefer}).Remove())
		w.wantPass(t, w.client, "udp", "10.77.0.50:7000", 64)
		w.wantNothing(t)
	})
}

func (w *world) wantNothing(t *testing.T) {
	t.Helper()
	for _, dev := range []string{"lo", "va"} {
		if n := w.filters(t, dev); n > 0 {
			t.Errorf("%d filters are left on %s", n, dev)
		}
	}
	if q := run(t, "tc -n "+w.node+" qdisc show"); strings.Contains(q, "clsact") {
		t.Errorf("a qdisc is left: %s", q)
	}
	if dir := pinsOf("/run/netns/" + w.node); mounted(dir) {
		t.Errorf("a bpffs is left at %s", dir)
	}
	if r := run(t, "nsenter --net=/run/netns/"+w.node+" nft list ruleset"); strings.TrimSpace(r) != "" {
		t.Errorf("rules are left: %s", r)
	}
}

// The gates of two nodes in one namespace, as when trying out, do not disturb each other.
func TestTwoNodesOneHost(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		w.serve(t, w.node, "udp", "10.77.0.1:8000")
		w.serve(t, w.node, "udp", "10.77.0.1:8001")
		alpha := w.open(t, Options{Prefer: prefer, SharedHost: true})
		beta := w.open(t, Options{Prefer: prefer, SharedHost: true, Node: "beta"})
		must(t, alpha.Guard([]Group{ports}))
		must(t, beta.Guard([]Group{{ID: "cache", Ports: []cluster.Port{{Protocol: "udp", Number: 8001}}}}))
		must(t, beta.Set("cache", 1, hence(time.Hour)))
		w.wantCut(t, w.node, "udp", "10.77.0.1:8000", 64)
		w.wantPass(t, w.node, "udp", "10.77.0.1:8001", 64)
		must(t, alpha.Set("cache", 1, hence(time.Hour)))
		closeGroup(t, beta, "cache", 1)
		w.wantPass(t, w.node, "udp", "10.77.0.1:8000", 64)
		w.wantCut(t, w.node, "udp", "10.77.0.1:8001", 64)
		must(t, alpha.Remove())
		w.wantCut(t, w.node, "udp", "10.77.0.1:8001", 64)
		must(t, beta.Remove())
		w.wantPass(t, w.node, "udp", "10.77.0.1:8001", 64)
	})
}

// A change of mechanism keeps the deadline and leaves nothing of the old one.
func TestChangeOfMechanism(t *testing.T) {
	for _, c := range [][2]string{
		{PreferEBPF, PreferNFTables}, {PreferNFTables, PreferEBPF}, {PreferClsact, PreferNFTables}, {PreferNFTables, PreferClsact},
		{PreferClsact, PreferEBPF}, {PreferEBPF, PreferClsact},
	} {
		t.Run(c[0]+" to "+c[1], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.serve(t, w.node, "udp", "10.77.0.50:7000")
			w.child(t, c[0], time.Hour).kill()
			steps := w.pulse(t, "10.77.0.50:7000")
			g := w.open(t, Options{Prefer: c[1]})
			must(t, g.Set("orders", 8, hence(time.Hour)))
			if left, err := g.Left(); err != nil || len(left) != 1 || left[0].Epoch != 8 {
				t.Errorf("left: %+v, %v; want orders, epoch 8", left, err)
			}
			// Between eBPF and nftables the new gate begins closed for some microseconds, until the deadline is
			// carried over.
			must(t, g.Guard([]Group{addresses}))
			if g, ok := g.(*clsact); ok {
				w.moved(t, g)
			}
			if sent, lost := steps(); lost > 2 || sent == 0 {
				t.Errorf("%d of %d packets were lost by the change", lost, sent)
			}
			if c[1] == PreferEBPF && w.filters(t, "va") > 0 {
				t.Error("filters are left")
			}
			closeGroup(t, g, "orders", 8)
			w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
			must(t, g.Remove())
			w.wantNothing(t)
		})
	}
}

// moved waits until every interface has gone over.
func (w *world) moved(t *testing.T, g *clsact) {
	t.Helper()
	for _, dev := range []string{"lo", "va"} {
		index := w.index(t, dev)
		for end := time.Now().Add(long); !g.guards(index); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s has not gone over", dev)
			}
		}
	}
}

// Which mechanism is taken depends on what the kernel lets this process do: all, nftables only (root of
// a user namespace), nothing.
func TestChoice(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	own := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	user := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}},
	}
	for _, c := range []struct {
		attr *syscall.SysProcAttr
		uid  string
		want []string
	}{
		{own, "", []string{"ebpf tcx <nil> <nil>"}},
		{user, "", []string{"nftables <nil> <nil>"}},
		{own, "65534", []string{"no mechanism works here", "ebpf: ", "nftables: ", "operation not permitted"}},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "GATE_CHILD=describe", "GATE_UID="+c.uid)
		cmd.SysProcAttr = c.attr
		out, err := cmd.CombinedOutput()
		must(t, err)
		t.Logf("%s", out)
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("uid %q: %s; want %q in it", c.uid, out, want)
			}
		}
	}
}

func BenchmarkSet(b *testing.B) {
	for _, prefer := range []string{PreferEBPF, PreferNFTables} {
		b.Run(prefer, func(b *testing.B) {
			g, err := Open(Options{Cluster: "bench", Node: "bench", Prefer: prefer})
			if err != nil {
				b.Skip(err)
			}
			defer g.Remove()
			if err := g.Guard([]Group{{ID: "orders", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := g.Set("orders", 1, hence(time.Minute)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSuccessor measures how long a new process takes until it has taken over the gate of one that
// was killed, with one group and three interfaces. Until Open has returned nothing can be renewed.
func BenchmarkSuccessor(b *testing.B) {
	for _, prefer := range []string{PreferEBPF, PreferNFTables} {
		b.Run(prefer, func(b *testing.B) {
			w := newWorld(b)
			w.cable(b, "va2", "vb2")
			w.child(b, prefer, time.Hour).kill()
			steps := [3][]float64{}
			for b.Loop() {
				cmd := exec.Command("nsenter", "--net=/run/netns/"+w.node, os.Args[0], "-test.run=^$")
				cmd.Env = append(os.Environ(), "GATE_CHILD=successor", "GATE_PREFER="+prefer)
				out, err := cmd.Output()
				must(b, err)
				var ns [3]float64
				if _, err := fmt.Sscan(string(out), &ns[0], &ns[1], &ns[2]); err != nil {
					b.Fatalf("successor said %q: %v", out, err)
				}
				for i := range steps {
					steps[i] = append(steps[i], ns[i]/1e6)
				}
			}
			for i, name := range []string{"ms-open", "ms-left", "ms-guard"} {
				slices.Sort(steps[i])
				b.ReportMetric(steps[i][len(steps[i])/2], name)
				b.ReportMetric(steps[i][len(steps[i])-1], name+"-max")
			}
		})
	}
}
