package reach

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// question asks an address once, in each way that there is. It is an error only if there is none.
func (a *asker) question(t Target) error {
	index := t.Interface
	if index == 0 {
		routes, err := netlink.RouteGet(t.Addr.AsSlice())
		if err != nil {
			return fmt.Errorf("find the way to %s: %w", t.Addr, err)
		}
		if len(routes) > 0 && routes[0].Gw == nil && routes[0].Via == nil {
			index = routes[0].LinkIndex
		}
	}
	direct := errors.New("it is behind a gateway")
	if index != 0 {
		direct = a.direct(t.Addr, index)
	}
	if direct == nil && t.Interface != 0 {
		return nil // an answer by another way would tell nothing of this network
	}
	routed := a.ping(t.Addr)
	if direct != nil && routed != nil {
		return fmt.Errorf("%w; %w", direct, routed)
	}
	return nil
}

// direct asks by ARP or neighbour discovery.
func (a *asker) direct(to netip.Addr, index int) error {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("look up interface number %d: %w", index, err)
	}
	i := link.Attrs()
	if i.EncapType != "ether" || len(i.HardwareAddr) != 6 {
		return fmt.Errorf("%s carries no Ethernet frames", i.Name)
	}
	if to.Is6() {
		return a.solicit(to, i)
	}
	s, err := a.arpOn(i)
	if err != nil {
		return err
	}
	b := arpQuestion(i.HardwareAddr, a.sender(link, to), to)
	if _, err := s.conn.WriteTo(b, &packet.Addr{HardwareAddr: broadcast}); err != nil {
		return fmt.Errorf("ask on %s: %w", i.Name, err)
	}
	return nil
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// sender returns this host's own address in the target's subnet; without one, a host may ask from none (RFC 5227, 1.1).
func (a *asker) sender(link netlink.Link, to netip.Addr) netip.Addr {
	list, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return netip.IPv4Unspecified()
	}
	for _, x := range list {
		own, ok := netip.AddrFromSlice(x.IP.To4())
		if ok && x.Contains(to.AsSlice()) && !slices.Contains(a.avoid, own) {
			return own
		}
	}
	return netip.IPv4Unspecified()
}

// Offsets in an ARP frame.
const (
	offSenderIP = 28
	arpLength   = 42
)

func arpQuestion(mac net.HardwareAddr, from, to netip.Addr) []byte {
	b := make([]byte, 0, arpLength)
	b = append(b, broadcast...)
	b = append(b, mac...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_ARP)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, the lengths of their addresses, a request
	b = append(b, mac...)
	b = append(b, from.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, to.AsSlice()...)
}

// arpSocket hears what the addresses to ask say on one interface.
type arpSocket struct{ conn *packet.Conn }

func (a *asker) arpOn(i *netlink.LinkAttrs) (*arpSocket, error) {
	if s := a.arp[i.Index]; s != nil {
		return s, nil
	}
	filter, err := spokenBy(a.targets)
	if err != nil {
		return nil, fmt.Errorf("make the filter for answers: %w", err)
	}
	on := &net.Interface{Index: i.Index, Name: i.Name, HardwareAddr: i.HardwareAddr}
	conn, err := packet.Listen(on, packet.Raw, unix.ETH_P_ARP, &packet.Config{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("open a packet socket on %s: %w", i.Name, err)
	}
	s := &arpSocket{conn}
	if a.arp == nil {
		a.arp = map[int]*arpSocket{}
	}
	a.arp[i.Index] = s
	a.readers.Go(func() {
		b := make([]byte, 128)
		for {
			n, _, err := conn.ReadFrom(b)
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil: // the interface went down, or is gone: what is asked then fails
				if errors.Is(err, unix.ENETDOWN) {
					continue
				}
				return
			case n >= arpLength:
				from, _ := netip.AddrFromSlice(b[offSenderIP : offSenderIP+4])
				a.heard(from)
			}
		}
	})
	return s, nil
}

// spokenBy is a filter for what any of these addresses says by ARP, so that other frames don't wake the agent.
func spokenBy(targets []netip.Addr) ([]bpf.RawInstruction, error) {
	p := []bpf.Instruction{bpf.LoadAbsolute{Off: offSenderIP, Size: 4}}
	for _, t := range targets {
		if t.Is4() {
			p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(t.AsSlice()), SkipTrue: 1}, bpf.RetConstant{Val: 128})
		}
	}
	return bpf.Assemble(append(p, bpf.RetConstant{Val: 0}))
}

func (a *asker) closeARP() {
	for _, s := range a.arp {
		s.conn.Close()
	}
	a.arp = nil
}

// echo holds the sockets for ICMP, one for each family, from the first question on.
type echo struct {
	id     int
	seq    int
	v4, v6 *icmp.PacketConn
}

func (e *echo) close() {
	for _, c := range []*icmp.PacketConn{e.v4, e.v6} {
		if c != nil {
			c.Close()
		}
	}
}

// socket returns the socket for a family.
func (a *asker) socket(v6 bool) (*icmp.PacketConn, error) {
	e := &a.echo
	if e.id == 0 {
		e.id = 1 + rand.IntN(1<<16-1)
	}
	switch {
	case v6 && e.v6 == nil:
		c, err := icmp.ListenPacket("ip6:ipv6-icmp", "::")
		if err != nil {
			return nil, err
		}
		f := new(ipv6.ICMPFilter)
		f.SetAll(true)
		f.Accept(ipv6.ICMPTypeEchoReply)
		f.Accept(ipv6.ICMPTypeNeighborAdvertisement)
		if err := c.IPv6PacketConn().SetICMPFilter(f); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		e.v6 = c
		a.readers.Go(func() { a.read(c, 58) })
	case !v6 && e.v4 == nil:
		c, err := icmp.ListenPacket("ip4:icmp", "0.0.0.0")
		if err != nil {
			return nil, err
		}
		if err := c.IPv4PacketConn().SetBPF(echoReplies); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		e.v4 = c
		a.readers.Go(func() { a.read(c, 1) })
	}
	if v6 {
		return e.v6, nil
	}
	return e.v4, nil
}

// echoReplies is a filter for echo replies over IPv4; what it is given begins with the IP header.
var echoReplies = must(bpf.Assemble([]bpf.Instruction{
	bpf.LoadMemShift{Off: 0},
	bpf.LoadIndirect{Off: 0, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(ipv4.ICMPTypeEchoReply), SkipFalse: 1},
	bpf.RetConstant{Val: 1500},
	bpf.RetConstant{Val: 0},
}))

func must(p []bpf.RawInstruction, err error) []bpf.RawInstruction {
	if err != nil {
		panic(err)
	}
	return p
}

// read takes answers until the socket is closed.
func (a *asker) read(c *icmp.PacketConn, protocol int) {
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an error that a router sent for some question
		}
		m, err := icmp.ParseMessage(protocol, b[:n])
		if err != nil {
			continue
		}
		switch body := m.Body.(type) {
		case *icmp.Echo:
			if ip, ok := from.(*net.IPAddr); ok && body.ID == a.echo.id {
				if addr, ok := netip.AddrFromSlice(ip.IP); ok {
					a.heard(addr)
				}
			}
		case *icmp.RawBody: // a neighbour advertisement: flags, then the address that it tells of
			if m.Type == ipv6.ICMPTypeNeighborAdvertisement && len(body.Data) >= 20 {
				addr, _ := netip.AddrFromSlice(body.Data[4:20])
				a.heard(addr)
			}
		}
	}
}

// ping asks by ICMP, as the kernel's routes say.
func (a *asker) ping(to netip.Addr) error {
	c, err := a.socket(to.Is6())
	if err != nil {
		return fmt.Errorf("open a socket for ICMP: %w", err)
	}
	a.echo.seq++
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: a.echo.id, Seq: a.echo.seq & 0xffff, Data: []byte("baton: do you answer?")}}
	if to.Is6() {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := c.WriteTo(b, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return fmt.Errorf("ping %s: %w", to, err)
	}
	return nil
}

// solicit asks by neighbour discovery (RFC 4861, 4.3).
func (a *asker) solicit(to netip.Addr, i *netlink.LinkAttrs) error {
	c, err := a.socket(true)
	if err != nil {
		return fmt.Errorf("open a socket for ICMPv6: %w", err)
	}
	body := append(make([]byte, 4), to.AsSlice()...)
	body = append(body, 1, 1) // the sender's link-layer address, one unit of 8 bytes
	body = append(body, i.HardwareAddr...)
	m := icmp.Message{Type: ipv6.ICMPTypeNeighborSolicitation, Body: &icmp.RawBody{Data: body}}
	b, err := m.Marshal(nil) // the kernel works out the checksum
	if err != nil {
		return err
	}
	last := to.As16()
	group := net.IP{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, last[13], last[14], last[15]}
	if _, err := c.IPv6PacketConn().WriteTo(b, &ipv6.ControlMessage{IfIndex: i.Index, HopLimit: 255}, &net.IPAddr{IP: group, Zone: i.Name}); err != nil {
		return fmt.Errorf("ask on %s: %w", i.Name, err)
	}
	return nil
}
