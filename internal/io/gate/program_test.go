package gate

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// packet is a packet to be put together. The zero protocol is UDP.
type packet struct {
	tags         []uint16 // EtherTypes of VLAN tags within the packet
	src, dst     netip.Addr
	sport, dport uint16
	proto        byte
	options      int    // bytes of IPv4 options
	headers      []byte // kinds of IPv6 extension headers
	fragment     uint16 // offset in bytes
	more         bool
	id           uint16
	payload      []byte // in place of a UDP header and some bytes
	cut          int    // keep only so many bytes of what follows the Ethernet header
}

func (p packet) upper() []byte {
	if p.payload != nil {
		return p.payload
	}
	b := binary.BigEndian.AppendUint16(nil, p.sport)
	b = binary.BigEndian.AppendUint16(b, p.dport)
	return append(b, 0, 20, 0, 0, 'g', 'a', 't', 'e', 'g', 'a', 't', 'e', 'g', 'a', 't', 'e')
}

func (p packet) ip() []byte {
	if p.proto == 0 {
		p.proto = unix.IPPROTO_UDP
	}
	var b []byte
	if p.dst.Is4() {
		b = p.ipv4()
	} else {
		b = p.ipv6()
	}
	if p.cut > 0 {
		b = b[:p.cut]
	}
	return b
}

func (p packet) ipv4() []byte {
	body := p.upper()
	b := make([]byte, 20+p.options)
	b[0] = 0x40 | byte(len(b)/4)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(body)))
	binary.BigEndian.PutUint16(b[4:], p.id)
	flags := p.fragment / 8
	if p.more {
		flags |= 0x2000
	}
	binary.BigEndian.PutUint16(b[6:], flags)
	b[8], b[9] = 64, p.proto
	copy(b[12:], p.src.AsSlice())
	copy(b[16:], p.dst.AsSlice())
	for i := 20; i < len(b); i++ {
		b[i] = 1 // no operation
	}
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
	return append(b, body...)
}

func (p packet) ipv6() []byte {
	kinds := append(slices.Clone(p.headers), p.proto)
	var chain []byte
	for i, kind := range p.headers {
		header := make([]byte, 8)
		header[0] = kinds[i+1]
		switch kind {
		case protoFragment:
			flags := p.fragment
			if p.more {
				flags |= 1
			}
			binary.BigEndian.PutUint16(header[2:], flags)
			binary.BigEndian.PutUint16(header[6:], p.id)
		case protoAH:
			header = append(header, make([]byte, 16)...)
			header[1] = 4 // 24 bytes, in words, less 2
		case unix.IPPROTO_DSTOPTS:
			header = append(header, make([]byte, 8)...)
			header[1] = 1
		}
		chain = append(chain, header...)
	}
	body := append(chain, p.upper()...)
	b := make([]byte, 40)
	b[0], b[6], b[7] = 0x60, kinds[0], 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	copy(b[8:], p.src.AsSlice())
	copy(b[24:], p.dst.AsSlice())
	return append(b, body...)
}

func (p packet) frame() []byte {
	kind := uint16(unix.ETH_P_IP)
	if p.dst.Is6() {
		kind = unix.ETH_P_IPV6
	}
	return frame(p.tags, kind, p.ip())
}

func frame(tags []uint16, kind uint16, body []byte) []byte {
	b := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	for _, tag := range tags {
		b = binary.BigEndian.AppendUint16(b, tag)
		b = append(b, 0, 7)
	}
	return append(binary.BigEndian.AppendUint16(b, kind), body...)
}

func arpFrame(op byte, sender, target netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, op, 2, 0, 0, 0, 0, 2}
	b = append(b, sender.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return frame(nil, unix.ETH_P_ARP, append(b, target.AsSlice()...))
}

// nd is a neighbour message from or to addresses that nobody guards.
func nd(kind byte, target netip.Addr) []byte {
	body := append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	return packet{src: other6, dst: netip.MustParseAddr("ff02::1:ff00:50"), proto: protoICMPv6, payload: body}.frame()
}

var (
	other4 = netip.MustParseAddr("10.77.0.2")
	other6 = netip.MustParseAddr("fd77::2")
	plain4 = netip.MustParseAddr("10.77.0.1")
	plain6 = netip.MustParseAddr("fd77::1")
)

const cut, pass = true, false

const q, ad, qq = unix.ETH_P_8021Q, unix.ETH_P_8021AD, unix.ETH_P_QINQ1

var (
	to4   = packet{src: other4, dst: vip4, sport: 1, dport: 2}
	from4 = packet{src: vip4, dst: other4, sport: 1, dport: 2}
	to6   = packet{src: other6, dst: vip6, sport: 1, dport: 2}
	from6 = packet{src: vip6, dst: other6, sport: 1, dport: 2}
	port4 = packet{src: other4, dst: plain4, sport: 9, dport: 8000}
	port6 = packet{src: other6, dst: plain6, sport: 9, dport: 8000}
	nine  = []byte{60, 60, 60, 60, 60, 60, 60, 60, 60}
)

func with(p packet, change func(*packet)) []byte {
	change(&p)
	return p.frame()
}

func chain(p packet, kinds ...byte) []byte {
	p.headers = kinds
	return p.frame()
}

var packetCases = []struct {
	name           string
	frame          []byte
	ingress        bool // cut when closed
	egress         bool
	ethernet, open bool // only the programs for Ethernet understand it; cut even when open
}{
	{"to address", to4.frame(), cut, pass, false, false},
	{"from address", from4.frame(), pass, cut, false, false},
	{"to address, IPv6", to6.frame(), cut, pass, false, false},
	{"from address, IPv6", from6.frame(), pass, cut, false, false},
	{"tag", with(to4, func(p *packet) { p.tags = []uint16{q} }), cut, pass, true, false},
	{"two tags", with(to4, func(p *packet) { p.tags = []uint16{ad, q} }), cut, pass, true, false},
	{"three tags, IPv6", with(from6, func(p *packet) { p.tags = []uint16{qq, q, q} }), pass, cut, true, false},
	{"tag, port", with(port4, func(p *packet) { p.tags = []uint16{q} }), cut, pass, true, false},
	{"to neither", packet{src: other4, dst: plain4, dport: 1}.frame(), pass, pass, false, false},
	{"later fragment to address", with(to4, func(p *packet) { p.fragment = 8 }), cut, pass, false, false},
	{"later fragment to address, IPv6", with(to6, func(p *packet) { p.headers, p.fragment = []byte{44}, 8 }), cut, pass, false, false},
	{"ICMP to address", with(to4, func(p *packet) { p.proto = unix.IPPROTO_ICMP }), cut, pass, false, false},

	{"to port", port4.frame(), cut, pass, false, false},
	{"from port", packet{src: plain4, dst: other4, sport: 8000, dport: 9}.frame(), pass, cut, false, false},
	{"to port, TCP", with(port4, func(p *packet) { p.proto = unix.IPPROTO_TCP }), cut, pass, false, false},
	{"to port, SCTP", with(port4, func(p *packet) { p.proto = unix.IPPROTO_SCTP }), pass, pass, false, false},
	{"IPv4 options", with(port4, func(p *packet) { p.options = 40 }), cut, pass, false, false},
	{"IPv4 authentication header", with(port4, func(p *packet) {
		p.proto = protoAH
		p.payload = append([]byte{17, 4}, append(make([]byte, 22), packet{dport: 8000}.upper()...)...)
	}), cut, pass, false, false},
	{"no port", with(port4, func(p *packet) { p.cut = 22 }), cut, cut, false, true},
	{"to port, IPv6", port6.frame(), cut, pass, false, false},
	{"extension headers", chain(port6, 0, 43, 60, 51, 135), cut, pass, false, false},
	{"eight extension headers", chain(port6, nine[:7]...), cut, pass, false, false},
	{"too many extension headers", chain(port6, nine...), cut, cut, false, true},
	{"cut extension header", with(port6, func(p *packet) { p.headers, p.cut = []byte{60}, 41 }), cut, cut, false, true},
	{"atomic fragment", chain(port6, 44), cut, pass, false, false},
	{"no next header", with(port6, func(p *packet) { p.proto = 59 }), pass, pass, false, false},

	{"ARP request for address", arpFrame(1, other4, vip4), cut, pass, false, false},
	{"ARP probe for address", arpFrame(1, netip.IPv4Unspecified(), vip4), cut, pass, false, false},
	{"ARP reply by address", arpFrame(2, vip4, other4), pass, cut, false, false},
	{"gratuitous ARP", arpFrame(1, vip4, vip4), pass, cut, false, false},
	{"ARP for another", arpFrame(1, other4, plain4), pass, pass, false, false},
	{"solicitation of address", nd(ndSolicit, vip6), cut, pass, false, false},
	{"advertisement of address", nd(ndAdvert, vip6), pass, cut, false, false},
	{"solicitation of another", nd(ndSolicit, plain6), pass, pass, false, false},
	{"something else", frame(nil, 0x88cc, make([]byte, 40)), pass, pass, false, false},
}

// TestProgram runs the programs on packets made by hand, with both gates closed and with both open. The
// kernel's test run gives them an Ethernet frame; the programs for other devices read the same packet
// from its network header on.
func TestProgram(t *testing.T) {
	w := newWorld(t)
	must(t, enter(w.node)) // the thread ends with the test
	va, err := net.InterfaceByName("va")
	must(t, err)
	outside := uint32(va.Index)
	m, s, err := fresh(current)
	if err != nil {
		t.Skipf("no eBPF here: %v", err)
	}
	defer m.close()
	defer s.unmap()
	g := &clsact{layout: current, maps: m, state: s, slots: s.taken()}
	r, err := check([]Group{addresses, ports})
	must(t, err)
	must(t, g.fill(r))
	var h hooks
	h.use(current, m)
	must(t, h.load())
	defer h.unload()

	for _, c := range packetCases {
		for kind, prog := range h.progs {
			want := c.ingress
			if kind.egress {
				want = c.egress
			}
			if c.ethernet && !kind.ethernet {
				continue
			}
			for _, device := range []uint32{outside, loopbackIndex} {
				setBoth(t, g, 0)
				if got := verdict(t, prog, c.frame, device); got != want {
					t.Errorf("%s, %+v, device %d, closed: cut %v, want %v", c.name, kind, device, got, want)
				}
				setBoth(t, g, hence(time.Hour))
				if got := verdict(t, prog, c.frame, device); got != c.open {
					t.Errorf("%s, %+v, device %d, open: cut %v, want %v", c.name, kind, device, got, c.open)
				}
			}
		}
	}
	setBoth(t, g, 0)
	for _, c := range loopCases {
		for kind, prog := range h.progs {
			onLo, on := c.ingressLo, c.ingress
			if kind.egress {
				onLo, on = c.egressLo, c.egress
			}
			if got := verdict(t, prog, c.frame, loopbackIndex); got != onLo {
				t.Errorf("%s, %+v, on lo: cut %v, want %v", c.name, kind, got, onLo)
			}
			if got := verdict(t, prog, c.frame, outside); got != on {
				t.Errorf("%s, %+v, from outside: cut %v, want %v", c.name, kind, got, on)
			}
		}
	}
	for _, device := range []uint32{outside, loopbackIndex} {
		fragments(t, g, &h, port4, nil, device)
		fragments(t, g, &h, port6, []byte{44}, device)
		fragments(t, g, &h, port6, []byte{0, 44, 60}, device)
	}
	loopFragments(t, g, &h, packet{src: local4, dst: local4, sport: 9, dport: 8000}, nil, outside)
	loopFragments(t, g, &h, packet{src: local6, dst: local6, sport: 9, dport: 8000}, []byte{44}, outside)
}

// What has a loopback address, by the device where it is. The gates are closed.
var loopCases = []struct {
	name                string
	frame               []byte
	ingressLo, egressLo bool
	ingress, egress     bool // elsewhere, where nobody but a forger sends such packets
}{
	{"UDP", loop("127.0.0.1", "127.0.0.5", 0), pass, pass, cut, cut},
	{"TCP", loop("127.0.0.1", "127.255.255.255", unix.IPPROTO_TCP), pass, pass, cut, cut},
	{"UDP, IPv6", loop("::1", "::1", 0), pass, pass, cut, cut},
	{"TCP, IPv6", loop("::1", "::1", unix.IPPROTO_TCP), pass, pass, cut, cut},
	{"UDP, mapped", loop("::ffff:127.0.0.1", "::ffff:127.1.2.3", 0), pass, pass, cut, cut},
	{"TCP, mapped", loop("::ffff:127.0.0.1", "::ffff:127.1.2.3", unix.IPPROTO_TCP), pass, pass, cut, cut},
	{"the other end only", loop("127.0.0.1", "10.77.0.1", 0), cut, pass, cut, cut},
	{"the other end only, answer", loop("10.77.0.1", "127.0.0.1", unix.IPPROTO_TCP), pass, cut, cut, cut},
	{"the other end only, IPv6", loop("::1", "fd77::1", unix.IPPROTO_TCP), cut, pass, cut, cut},
	{"the other end only, IPv6, answer", loop("fd77::1", "::1", 0), pass, cut, cut, cut},
	{"almost loopback", loop("126.255.255.255", "128.0.0.1", 0), cut, cut, cut, cut},
	{"almost loopback, IPv6", loop("::2", "1::1", 0), cut, cut, cut, cut},
	{"almost loopback, lower half", loop("::1:0:1", "::1:0:0:1", 0), cut, cut, cut, cut},
	{"almost mapped", loop("::ffff:128.0.0.1", "::fffe:127.0.0.1", 0), cut, cut, cut, cut},
	{"compatible", loop("::127.0.0.1", "::127.0.0.1", 0), cut, cut, cut, cut},
	{"guarded address", loop("10.77.0.50", "127.0.0.1", 0), pass, cut, cut, cut},
	{"to guarded address", loop("127.0.0.1", "10.77.0.50", 0), cut, pass, cut, cut},
	{"to guarded address, IPv6", loop("::1", "fd77::50", unix.IPPROTO_TCP), cut, pass, cut, cut},
	{"no port", packet{src: local4, dst: local4, cut: 22}.frame(), pass, pass, cut, cut},
	{"too many extension headers", chain(packet{src: local6, dst: local6, dport: 8000}, nine...), pass, pass, cut, cut},
	{"solicitation of guarded address", packet{src: local6, dst: local6, proto: protoICMPv6,
		payload: append([]byte{ndSolicit, 0, 0, 0, 0, 0, 0, 0}, vip6.AsSlice()...)}.frame(), cut, pass, cut, pass},
}

var (
	local4 = netip.MustParseAddr("127.0.0.1")
	local6 = netip.IPv6Loopback()
)

// loop is a packet from guarded port to guarded port.
func loop(src, dst string, proto byte) []byte {
	return packet{src: netip.MustParseAddr(src), dst: netip.MustParseAddr(dst), sport: 8000, dport: 8000, proto: proto}.frame()
}

// loopFragments checks that the fragments of a datagram between loopback addresses pass on lo, also if a
// forger's from outside, which are cut, have the same id.
func loopFragments(t *testing.T, g *clsact, h *hooks, p packet, headers []byte, outside uint32) {
	t.Helper()
	prog := h.progs[kind{false, true}]
	p.headers, p.id, p.more = headers, 78, true
	later := p
	later.fragment, later.payload = 1200, make([]byte, 64)
	setBoth(t, g, 0)
	for _, step := range []struct {
		device uint32
		cut    bool
	}{{loopbackIndex, false}, {outside, true}, {loopbackIndex, false}, {outside, true}} {
		for _, f := range []packet{p, later} {
			if got := verdict(t, prog, f.frame(), step.device); got != step.cut {
				t.Errorf("fragments with headers %v, offset %d, device %d: cut %v, want %v", headers, f.fragment, step.device, got, step.cut)
			}
		}
	}
}

func setBoth(t *testing.T, g *clsact, deadline int64) {
	t.Helper()
	must(t, g.Set("orders", 1, deadline))
	must(t, g.Set("cache", 1, deadline))
}

// verdict runs a program on a frame as if a device of this namespace had it.
func verdict(t *testing.T, prog *loaded, frame []byte, device uint32) (cut bool) {
	t.Helper()
	context := make([]byte, 192) // struct __sk_buff, linux/bpf.h
	native.PutUint32(context[skbIndex:], device)
	code, err := prog.Run(&ebpf.RunOptions{Data: frame, Context: context})
	if err != nil {
		t.Fatalf("run on %x: %v", frame, err)
	}
	if code != actShot && int32(code) != actUnspec {
		t.Fatalf("verdict %d", int32(code))
	}
	return code == actShot
}

// fragments checks that a datagram's later fragments share the fate of its port, also when the gate
// closes between them, and that an id that is used again by another datagram does not inherit it.
func fragments(t *testing.T, g *clsact, h *hooks, p packet, headers []byte, device uint32) {
	t.Helper()
	prog := h.progs[kind{false, true}]
	p.headers, p.id, p.more = headers, 77, true
	later := p
	later.fragment, later.payload = 1200, make([]byte, 64)
	want := func(what string, f packet, want bool) {
		t.Helper()
		if got := verdict(t, prog, f.frame(), device); got != want {
			t.Errorf("fragments with headers %v: %s: cut %v, want %v", headers, what, got, want)
		}
	}
	setBoth(t, g, 0)
	want("later one before its first", later, false)
	want("first, closed", p, true)
	want("later, closed", later, true)
	setBoth(t, g, hence(time.Hour))
	want("first, open", p, false)
	want("later, open", later, false)
	setBoth(t, g, 0)
	want("later, closed meanwhile", later, true)
	p.dport = 8001
	want("first of an unguarded datagram with the same id", p, false)
	want("later of that one", later, false)
}
