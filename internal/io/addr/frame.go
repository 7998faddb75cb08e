package addr

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	arpRequest = 1
	arpReply   = 2

	icmpv6                = 58
	neighborSolicitation  = 135
	neighborAdvertisement = 136

	flagRouter   = 0x80
	flagOverride = 0x20

	// Offsets in an Ethernet frame.
	offSource       = 6
	offARPSender    = 22 // hardware address, then protocol address
	offARPSenderIP  = 28
	arpLength       = 42
	offIPv6Next     = 20
	offIPv6HopLimit = 21
	offIPv6Source   = 22
	offICMPType     = 54
	offNDTarget     = 62
	ndLength        = 78

	frameMax = 256 // an ARP or neighbour discovery frame with a few options; the rest is cut off
)

var (
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1} // RFC 2464, 7, of ff02::1
)

// frame is an Ethernet frame to send.
type frame struct {
	to    net.HardwareAddr
	bytes []byte
}

// announcement returns the frames that say "address is at mac".
//
// For IPv4 there are two, and the order matters little. The request is the ARP Announcement of RFC 5227,
// section 3. The reply is the other form of gratuitous ARP (RFC 5944, 4.6); there are hosts, load balancers
// and firewalls that refresh their caches only from the one or only from the other, and a frame more costs
// microseconds, a client that did not hear its cache's whole lifetime. Linux accepts a gratuitous reply
// only if its target hardware address is the sender's.
//
// For IPv6 it is an unsolicited neighbour advertisement to all nodes with the override flag (RFC 4861,
// 7.2.6). The router flag must be as in this host's other advertisements: receivers drop a router that
// says it is none (7.2.5).
func announcement(address netip.Addr, mac net.HardwareAddr, router bool) []frame {
	if address.Is4() {
		return []frame{
			{broadcast, arp(arpRequest, address, mac, make(net.HardwareAddr, 6))},
			{broadcast, arp(arpReply, address, mac, mac)},
		}
	}
	return []frame{{allNodes, advertisement(address, mac, router)}}
}

func arp(op uint16, address netip.Addr, sender, target net.HardwareAddr) []byte {
	b := make([]byte, 0, arpLength)
	b = append(b, broadcast...)
	b = append(b, sender...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_ARP)
	b = append(b, 0, 1, 8, 0, 6, 4) // Ethernet, IPv4, the lengths of their addresses
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(b, sender...)
	b = append(b, address.AsSlice()...)
	b = append(b, target...)
	return append(b, address.AsSlice()...)
}

func advertisement(address netip.Addr, mac net.HardwareAddr, router bool) []byte {
	flags := byte(flagOverride)
	if router {
		flags |= flagRouter
	}
	group := netip.IPv6LinkLocalAllNodes()
	const length = 32 // the message and one option
	b := make([]byte, 0, ndLength+8)
	b = append(b, allNodes...)
	b = append(b, mac...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IPV6)
	b = append(b, 0x60, 0, 0, 0, 0, length, icmpv6, 255)
	b = append(b, address.AsSlice()...)
	b = append(b, group.AsSlice()...)
	b = append(b, neighborAdvertisement, 0, 0, 0, flags, 0, 0, 0)
	b = append(b, address.AsSlice()...)
	b = append(b, 2, 1) // target link-layer address, one unit of 8 bytes
	b = append(b, mac...)
	binary.BigEndian.PutUint16(b[offICMPType+2:], checksum(b[offIPv6Source:], length))
	return b
}

// checksum is that of RFC 4443, 2.3, over both addresses and the message behind them, and the pseudo-header's
// length and protocol.
func checksum(addressesAndMessage []byte, length uint32) uint16 {
	sum := length + icmpv6
	for i := 0; i+1 < len(addressesAndMessage); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(addressesAndMessage[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// claimant returns the hardware address for which a frame that passed the filter claims the address.
func claimant(b []byte, address netip.Addr) net.HardwareAddr {
	switch {
	case address.Is4() && len(b) >= arpLength:
		return net.HardwareAddr(slices.Clone(b[offARPSender:offARPSenderIP]))
	case address.Is6() && len(b) >= ndLength:
		return net.HardwareAddr(slices.Clone(b[offSource : offSource+6]))
	}
	return nil
}

// filter passes frames on the interface in which a host other than mac claims the address: as the sender
// of any ARP packet (RFC 5227, 2.4), as the target of a neighbour advertisement, or as the source of a
// neighbour solicitation. The probes of a host that only asks whether the address is free do not pass: the
// kernel answers them. It runs in the kernel, so that other frames don't wake the agent. The number of the
// interface is compared since a socket on an interface also gets what its VLAN interfaces receive.
func filter(i iface, address netip.Addr) ([]bpf.RawInstruction, error) {
	p := program{}
	p.load(bpf.LoadExtension{Num: bpf.ExtInterfaceIndex}, uint32(i.index))
	source := uint32(offSource)
	if address.Is4() {
		source = offARPSender
		p.load(bpf.LoadAbsolute{Off: offARPSenderIP, Size: 4}, word(address.AsSlice()))
	} else {
		p.load(bpf.LoadAbsolute{Off: offIPv6Next, Size: 1}, icmpv6)
		p.load(bpf.LoadAbsolute{Off: offIPv6HopLimit, Size: 1}, 255)
		p = append(p,
			bpf.LoadAbsolute{Off: offICMPType, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: neighborAdvertisement, SkipFalse: 2},
			bpf.LoadConstant{Dst: bpf.RegX, Val: offNDTarget},
			bpf.Jump{Skip: 2},
			refuse{bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: neighborSolicitation}},
			bpf.LoadConstant{Dst: bpf.RegX, Val: offIPv6Source},
		)
		for n := uint32(0); n < 16; n += 4 {
			p.load(bpf.LoadIndirect{Off: n, Size: 4}, word(address.AsSlice()[n:]))
		}
	}
	p = append(p,
		bpf.LoadAbsolute{Off: source, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: word(i.mac), SkipTrue: 2},
		bpf.LoadAbsolute{Off: source + 4, Size: 2},
		refuse{bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(i.mac[4])<<8 | uint32(i.mac[5])}},
		bpf.RetConstant{Val: frameMax},
	)
	return p.assemble()
}

// nothing is a filter that passes no frame.
var nothing = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: 0}}

// program is a filter in which some jumps go to its end, which refuses the frame.
type program []bpf.Instruction

// refuse is a jump that refuses the frame when it is taken.
type refuse struct{ bpf.JumpIf }

// load refuses frames in which what is loaded differs from want.
func (p *program) load(what bpf.Instruction, want uint32) {
	*p = append(*p, what, refuse{bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: want}})
}

func (p program) assemble() ([]bpf.RawInstruction, error) {
	end := len(p)
	for n, instruction := range p {
		if r, ok := instruction.(refuse); ok {
			r.SkipTrue = uint8(end - n - 1)
			p[n] = r.JumpIf
		}
	}
	return bpf.Assemble(append(p, bpf.RetConstant{Val: 0}))
}

func word(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
