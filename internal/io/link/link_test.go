package link

import (
	"bytes"
	"crypto/tls"
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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
	"baton/internal/io/identity"
)

const port = 7400

// TestMain runs the tests in a network namespace of their own, which ends with the process.
func TestMain(m *testing.M) {
	const mark = "BATON_LINK_TEST_NAMESPACE"
	if os.Getenv(mark) == "" {
		cmd := exec.Command(os.Args[0], os.Args[1:]...)
		cmd.Env = append(os.Environ(), mark+"=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "tests in their own network namespace:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "set lo up:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

var testKey = bytes.Repeat([]byte{7}, wire.KeySize)

func twoLinks() []cluster.LinkSpec {
	at := func(net string) map[cluster.NodeID]netip.Addr {
		m := make(map[cluster.NodeID]netip.Addr)
		for i, id := range []cluster.NodeID{"alpha", "beta", "gamma"} {
			m[id] = netip.MustParseAddr(fmt.Sprintf("127.0.%s.%d", net, i+1))
		}
		return m
	}
	return []cluster.LinkSpec{
		{Name: "lan", UDP: &cluster.UDPLink{Port: port, Addresses: at("1")}},
		{Name: "cross", UDP: &cluster.UDPLink{Port: port, Addresses: at("2")}},
	}
}

type delivery struct {
	from cluster.NodeID
	run  cluster.RunID
	link int
	m    wire.Message
}

type node struct {
	*Links
	got chan delivery

	mu      sync.Mutex
	changes []string
}

func newNode(t *testing.T, id cluster.NodeID, run cluster.RunID, change func(*Config)) *node {
	t.Helper()
	n := &node{got: make(chan delivery, 10_000)}
	config := Config{
		Keys: [][]byte{testKey}, Links: twoLinks(), Quiet: true,
		Handler: func(from cluster.NodeID, run cluster.RunID, link int, m wire.Message) {
			n.got <- delivery{from, run, link, m}
		},
		Changed: func(link string, up bool, detail string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.changes = append(n.changes, fmt.Sprint(link, " ", up, detail))
		},
	}
	if change != nil {
		change(&config)
	}
	var err error
	if config.Sealer, err = wire.NewSealer(config.Keys[0], id, run); err != nil {
		t.Fatal(err)
	}
	if config.Identity, err = identity.New(id, config.Keys); err != nil {
		t.Fatal(err)
	}
	if n.Links, err = Open(config); err != nil {
		t.Fatal(err)
	}
	fd, stop, stopped := n.Fd(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10)
				n.Receive()
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-stopped; n.Close() })
	return n
}

func (n *node) next(t *testing.T) delivery {
	t.Helper()
	select {
	case d := <-n.got:
		return d
	case <-time.After(30 * time.Second):
		t.Fatalf("nothing was delivered; %+v", n.Stats())
		return delivery{}
	}
}

func (n *node) nothing(t *testing.T) {
	t.Helper()
	select {
	case d := <-n.got:
		t.Fatalf("delivered %+v", d)
	default:
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not happen: " + what)
		}
	}
}

func send(t *testing.T, n *node, to cluster.NodeID, m wire.Message) {
	t.Helper()
	if err := n.Send(to, m); err != nil {
		t.Fatal(err)
	}
}

func largeMessage(size int) *wire.Founding {
	return &wire.Founding{Record: bytes.Repeat([]byte("b"), size)}
}

func TestEveryLinkDelivers(t *testing.T) {
	a, b, c := newNode(t, "alpha", 1, nil), newNode(t, "beta", 2, nil), newNode(t, "gamma", 3, nil)
	for seq := uint64(1); seq <= 20; seq++ {
		send(t, a, "beta", &wire.Ack{Seq: seq})
		var links []int
		for range 2 {
			d := b.next(t)
			if d.from != "alpha" || d.run != 1 || d.m.(*wire.Ack).Seq != seq {
				t.Fatalf("got %+v", d)
			}
			links = append(links, d.link)
		}
		slices.Sort(links)
		if !slices.Equal(links, []int{0, 1}) {
			t.Fatalf("came over links %v", links)
		}
	}
	if err := b.SendOn(1, "gamma", &wire.Ack{Seq: 7}); err != nil {
		t.Fatal(err)
	}
	if d := c.next(t); d.from != "beta" || d.link != 1 {
		t.Errorf("got %+v", d)
	}
	a.nothing(t)
	b.nothing(t)
	c.nothing(t)
	for i, s := range a.Stats()[:2] {
		if got := s.Peers["beta"]; got != (PeerStats{Sent: 20}) || !s.Up {
			t.Errorf("alpha, link %d: %+v", i, s)
		}
		if got := b.Stats()[i].Peers["alpha"]; got != (PeerStats{Received: 20}) {
			t.Errorf("beta, link %d: %+v", i, got)
		}
	}
}

func TestSendRefusesWhatItCannotSend(t *testing.T) {
	a := newNode(t, "alpha", 1, nil)
	for _, m := range []wire.Message{&wire.Ack{}, largeMessage(5000)} {
		if err := a.Send("delta", m); err == nil {
			t.Errorf("%T was sent to a stranger", m)
		}
		if err := a.Send("alpha", m); err == nil {
			t.Errorf("%T was sent to itself", m)
		}
	}
	if err := a.Send("beta", largeMessage(wire.MaxDatagram)); err == nil {
		t.Error("a message that no datagram holds was sent")
	}
}

// What did not come from a node, or came before, or over the wrong link, changes nothing but the counters.
func TestHostilePackets(t *testing.T) {
	b := newNode(t, "beta", 2, nil)
	to := func(net int) *net.UDPConn {
		conn, err := dialUDP(fmt.Sprintf("127.0.%d.2:%d", net, port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	lan, cross := to(1), to(2)
	lanTag := tagOf("lan")
	seal := func(key byte, from cluster.NodeID, link uint8, m wire.Message) []byte {
		s, err := wire.NewSealer(bytes.Repeat([]byte{key}, wire.KeySize), from, 9)
		if err != nil {
			t.Fatal(err)
		}
		body, err := wire.Append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		return s.Seal(nil, link, "beta", body)
	}
	good := seal(7, "alpha", lanTag, &wire.Ack{Seq: 1})
	forged := seal(8, "alpha", lanTag, &wire.Ack{Seq: 2})
	malformed := func() []byte {
		s, _ := wire.NewSealer(testKey, "alpha", 10)
		return s.Seal(nil, lanTag, "beta", []byte{1, 99})
	}()
	put := func(conn *net.UDPConn, packet []byte) {
		if _, err := conn.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	put(cross, good) // by the wrong link, before it comes by the right one
	put(lan, forged)
	put(lan, good[:10])
	put(lan, []byte("hello"))
	put(lan, make([]byte, 4000))
	put(lan, append([]byte{good[0]}, make([]byte, maxPacket)...))
	put(lan, seal(7, "mallory", lanTag, &wire.Ack{}))
	put(lan, malformed)
	put(lan, good)
	put(lan, good)
	eventually(t, "the last packet is counted", func() bool { return b.Stats()[0].Peers["alpha"].Replayed == 1 })
	eventually(t, "the packet on the wrong link is counted", func() bool { return b.Stats()[1].WrongLink == 1 })
	if d := b.next(t); d.from != "alpha" || d.run != 9 || d.m.(*wire.Ack).Seq != 1 {
		t.Errorf("got %+v", d)
	}
	b.nothing(t)
	s := b.Stats()[0]
	if got, want := s.Peers["alpha"], (PeerStats{Received: 1, Forged: 1, Replayed: 1, Malformed: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if s.Strange != 2 || s.TooLarge != 2 || s.Unknown != 1 || s.WrongLink != 0 {
		t.Errorf("got %+v", s)
	}
}

func dialUDP(address string) (*net.UDPConn, error) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

func TestWrongKeyIsRefused(t *testing.T) {
	b := newNode(t, "beta", 2, nil)
	a := newNode(t, "alpha", 1, func(c *Config) { c.Keys = [][]byte{bytes.Repeat([]byte{8}, wire.KeySize)} })
	send(t, a, "beta", &wire.Ack{Seq: 1})
	eventually(t, "the datagrams are counted as forged", func() bool {
		return b.Stats()[0].Peers["alpha"].Forged == 1 && b.Stats()[1].Peers["alpha"].Forged == 1
	})
	b.nothing(t)
}

// Connections go to whoever serves them, with what they have proved.
func TestOthersGetTheirConnections(t *testing.T) {
	others := make(chan *tls.Conn, 10)
	b := newNode(t, "beta", 2, func(c *Config) { c.Others = func(conn *tls.Conn) { others <- conn } })
	a := newNode(t, "alpha", 1, nil)
	eventually(t, "beta listens", func() bool { return b.Stats()[2].Up })
	address := fmt.Sprintf("127.0.1.2:%d", port)
	pin := a.config.Identity.Fingerprint()
	for want, config := range map[cluster.NodeID]*tls.Config{
		"alpha": a.config.Identity.Client("beta", identity.APIProtocols...),
		"":      identity.Pinned([]identity.Fingerprint{pin}),
	} {
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		got := <-others
		if node, _ := b.config.Identity.Caller(got.ConnectionState()).Node(); node != want || got.ConnectionState().NegotiatedProtocol != "h2" {
			t.Errorf("the caller is %q, want %q; it speaks %q", node, want, got.ConnectionState().NegotiatedProtocol)
		}
		got.Close()
	}
	if _, err := tls.Dial("tcp", address, identity.Pinned(nil)); !errors.Is(err, identity.ErrStranger) {
		t.Errorf("pinned to another authority: %v", err)
	}
	if _, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"else"}}); err == nil {
		t.Error("a protocol that nobody serves")
	}
	if _, err := tls.Dial("tcp", address, a.config.Identity.Client("gamma", identity.APIProtocols...)); err == nil {
		t.Error("beta passed for gamma")
	}
	b.nothing(t)
}

// The key is changed step by step while messages flow; each of them arrives.
func TestRekey(t *testing.T) {
	a, b := newNode(t, "alpha", 1, nil), newNode(t, "beta", 2, nil)
	next := bytes.Repeat([]byte{8}, wire.KeySize)
	rekey := func(n *node, keys ...[]byte) {
		t.Helper()
		if err := errors.Join(n.config.Identity.Rekey(keys), n.Rekey(keys)); err != nil {
			t.Fatal(err)
		}
	}
	exchange := func() {
		t.Helper()
		send(t, a, "beta", &wire.Ack{Seq: 1})
		send(t, b, "alpha", &wire.Ack{Seq: 1})
		for range 2 {
			a.next(t)
			b.next(t)
		}
	}
	exchange()
	rekey(b, testKey, next)
	exchange()
	rekey(a, testKey, next)
	rekey(a, next, testKey)
	exchange()
	rekey(b, next, testKey)
	rekey(b, next)
	exchange()
	rekey(a, next)
	exchange()
	for _, n := range []*node{a, b} {
		for _, s := range n.Stats() {
			for id, p := range s.Peers {
				if p.Forged+p.Replayed > 0 {
					t.Errorf("%s from %s: %+v", s.Link, id, p)
				}
			}
		}
	}
	if _, err := tls.Dial("tcp", fmt.Sprintf("127.0.1.2:%d", port), identity.Pinned([]identity.Fingerprint{a.config.Identity.Fingerprint()})); err != nil {
		t.Errorf("the new authority: %v", err)
	}
}

// Strangers are few at a time and per second; a node's address is not kept out by any number of them.
func TestGuard(t *testing.T) {
	now := time.Unix(1000, 0)
	g := newGuard()
	g.now = func() time.Time { return now }
	node, loud := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1")
	g.know(map[netip.Addr]bool{node: true})
	var leave, loudLeave []func()
	enter := func(a netip.Addr) bool {
		f := g.enter(a)
		if f != nil && a == loud {
			loudLeave = append(loudLeave, f)
		} else if f != nil {
			leave = append(leave, f)
		}
		return f != nil
	}
	for i := range 10_000 {
		enter(loud)
		enter(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}))
	}
	if len(loudLeave) != strangerMax || len(leave) != strangersRate-strangerMax {
		t.Errorf("at once %d from one address, %d from others", len(loudLeave), len(leave))
	}
	if len(g.callers) > addressesMax {
		t.Errorf("%d addresses are kept", len(g.callers))
	}
	if !enter(node) {
		t.Error("a node is kept out")
	}
	for i := range 10_000 {
		now = now.Add(10 * time.Millisecond)
		enter(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}))
	}
	if g.all.open != strangersMax {
		t.Errorf("%d strangers in all", g.all.open)
	}
	for _, f := range append(leave, loudLeave...) {
		f()
	}
	if g.all.open != 0 {
		t.Errorf("%d are counted after all have left", g.all.open)
	}
	now = now.Add(2 * addressesForget)
	if !enter(loud) {
		t.Error("who has left may not come again")
	}
	for range 200 {
		enter(node)
	}
	if got := g.callers[node].open; got != nodeMax {
		t.Errorf("%d connections of a node", got)
	}
}

func TestAddressAppearsLater(t *testing.T) {
	late := netip.MustParseAddr("10.99.0.2")
	links := func(c *Config) {
		c.Links[1].UDP.Addresses["beta"] = late
		c.Links[1].UDP.Addresses["alpha"] = netip.MustParseAddr("127.0.0.1")
	}
	b := newNode(t, "beta", 2, links)
	a := newNode(t, "alpha", 1, links)
	s := b.Stats()[1]
	if s.Up || !strings.Contains(s.Detail, "no address yet") || !strings.Contains(s.Detail, late.String()) {
		t.Errorf("without the address: %+v", s)
	}
	send(t, b, "alpha", &wire.Ack{Seq: 1})
	if d := a.next(t); d.link != 0 {
		t.Errorf("got %+v", d)
	}
	if got := b.Stats()[1].Peers["alpha"]; got != (PeerStats{Failed: 1}) {
		t.Errorf("the link without a socket: %+v", got)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: late.AsSlice(), Mask: net.CIDRMask(32, 32)}}
	if err := netlink.AddrAdd(lo, address); err != nil {
		t.Fatal(err)
	}
	defer netlink.AddrDel(lo, address)
	eventually(t, "the link comes up", func() bool { return b.Stats()[1].Up })
	if err := a.SendOn(1, "beta", &wire.Ack{Seq: 2}); err != nil {
		t.Fatal(err)
	}
	if d := b.next(t); d.link != 1 || d.m.(*wire.Ack).Seq != 2 {
		t.Errorf("got %+v", d)
	}
	// The address goes and comes back: the socket outlives it.
	if err := netlink.AddrDel(lo, address); err != nil {
		t.Fatal(err)
	}
	if err := b.SendOn(1, "alpha", &wire.Ack{Seq: 3}); err != nil {
		t.Fatal(err)
	}
	if got := b.Stats()[1].Peers["alpha"].Failed; got != 2 {
		t.Errorf("%d sends failed", got)
	}
	if err := netlink.AddrAdd(lo, address); err != nil {
		t.Fatal(err)
	}
	if err := b.SendOn(1, "alpha", &wire.Ack{Seq: 4}); err != nil {
		t.Fatal(err)
	}
	if d := a.next(t); d.link != 1 || d.m.(*wire.Ack).Seq != 4 {
		t.Errorf("got %+v", d)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.changes) != 3 || !strings.HasPrefix(b.changes[1], "cross false") || !strings.HasPrefix(b.changes[2], "cross true") {
		t.Errorf("told of %q", b.changes)
	}
}

func TestIPv6(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"fd99::1/128", "fd99::2/128"} {
		address, err := netlink.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(lo, address); err != nil {
			t.Skip("this host has no IPv6: ", err)
		}
		defer netlink.AddrDel(lo, address)
	}
	links := func(c *Config) {
		c.Links = []cluster.LinkSpec{{Name: "six", UDP: &cluster.UDPLink{Port: port, Addresses: map[cluster.NodeID]netip.Addr{
			"alpha": netip.MustParseAddr("fd99::1"), "beta": netip.MustParseAddr("fd99::2"),
		}}}}
	}
	a, b := newNode(t, "alpha", 1, links), newNode(t, "beta", 2, links)
	// The kernel makes a new IPv6 address usable a little later and loses packets to it until then.
	eventually(t, "the first datagram arrives", func() bool {
		send(t, a, "beta", &wire.Ack{Seq: 1})
		return len(b.got) > 0
	})
	if d := b.next(t); d.from != "alpha" || d.link != 0 {
		t.Errorf("got %+v", d)
	}
	checkOption(t, a, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, classCS6)
}

func checkOption(t *testing.T, n *node, level, option, want int) {
	t.Helper()
	if got, err := unix.GetsockoptInt(n.udp[0].socket.Load().fd, level, option); err != nil || got != want {
		t.Errorf("socket option %d/%d is %d, want %d (%v)", level, option, got, want, err)
	}
}

func TestSocketOptions(t *testing.T) {
	a := newNode(t, "alpha", 1, nil)
	checkOption(t, a, unix.IPPROTO_IP, unix.IP_TOS, classCS6)
	checkOption(t, a, unix.SOL_SOCKET, unix.SO_PRIORITY, priority)
	checkOption(t, a, unix.SOL_SOCKET, unix.SO_RCVBUF, 2*receiveBuffer) // the kernel doubles it, socket(7)
}

// An interface that sends slower than is asked makes nobody wait: what the socket can't hold is dropped.
func TestSendNeverWaits(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	const rate, burst = 10_000, 2000 // bytes per second, bytes
	slow := &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: lo.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)},
		Rate:       rate, Limit: 10_000_000, Buffer: netlink.Xmittime(rate, burst),
	}
	a, b := newNode(t, "alpha", 1, nil), newNode(t, "beta", 2, nil)
	if err := netlink.QdiscAdd(slow); err != nil {
		t.Fatal("make lo slow: ", err)
	}
	defer netlink.QdiscDel(slow)
	for range 2000 { // more than 10 s worth of packets
		send(t, a, "beta", &wire.Ack{Seq: 1})
	}
	b.next(t)
	for i, s := range a.Stats()[:2] {
		if p := s.Peers["beta"]; p.Dropped == 0 || p.Sent+p.Dropped != 2000 || p.Failed != 0 {
			t.Errorf("link %d: %+v", i, p)
		}
	}
}

func TestSendAllocatesNothing(t *testing.T) {
	a := newNode(t, "alpha", 1, nil)
	m := &wire.Ack{Incarnation: 1, Run: 2, Number: 3, Seq: 4}
	if n := testing.AllocsPerRun(200, func() { _ = a.Send("gamma", m) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOpenRefusesMistakes(t *testing.T) {
	s, err := wire.NewSealer(testKey, "alpha", 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Keys: [][]byte{testKey[1:]}, Sealer: s, Links: twoLinks()}); err == nil {
		t.Error("a short key was accepted")
	}
}

func BenchmarkSend(b *testing.B) {
	s, err := wire.NewSealer(testKey, "alpha", 1)
	if err != nil {
		b.Fatal(err)
	}
	a, err := Open(Config{Keys: [][]byte{testKey}, Sealer: s, Links: twoLinks()})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	m := &wire.Ack{Incarnation: 1, Run: 2, Number: 3, Seq: 4}
	b.ReportAllocs()
	for b.Loop() {
		_ = a.Send("gamma", m)
	}
}

// What comes in by TCP, and what goes out, is in segments that pass wherever the links' packets do.
func TestSegmentsAreSmall(t *testing.T) {
	others := make(chan *tls.Conn, 1)
	b := newNode(t, "beta", 2, func(c *Config) { c.Others = func(conn *tls.Conn) { others <- conn } })
	a := newNode(t, "alpha", 1, nil)
	eventually(t, "beta listens", func() bool { return b.Stats()[2].Up })
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.1.2:%d", port), a.config.Identity.Client("beta", identity.APIProtocols...))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got := <-others
	defer got.Close()
	inner := got.NetConn().(*admitted).Conn
	for who, c := range map[string]net.Conn{"who calls": conn.NetConn(), "who is called": inner} {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		if err := raw.Control(func(fd uintptr) { size, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) }); err != nil {
			t.Fatal(err)
		}
		if err != nil || size > segmentSize {
			t.Errorf("%s sends segments of %d bytes, want at most %d (%v)", who, size, segmentSize, err)
		}
	}
}
