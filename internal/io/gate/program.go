package gate

import (
	"encoding/binary"
	"strconv"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Verdicts of a direct-action classifier, linux/pkt_cls.h.
const (
	actUnspec = -1 // go on with the next filter
	actShot   = 2  // drop
)

// Places on the program's stack, as offsets from the frame pointer.
const (
	atKey   = -16  // 16 bytes: an address, IPv4 in its mapped form
	atSlot  = -20  // 4
	atPort  = -24  // 4: protocol<<16 | port
	atIP    = -64  // 40: the IP header
	atFrag  = -112 // 40: key of fragments: source 16, destination 16, id 4, protocol 4
	atFirst = -116 // 4: 1 in the first of several fragments
	atSmall = -128 // 8: scratch
	atInner = -132 // 4: 1 if this node's end is a loopback address on lo: ports are not judged

	fragKeySize = 40
)

const (
	skbProtocol      = 16 // offset of protocol in struct __sk_buff, network byte order
	skbIndex         = 40 // and of ifindex
	loopbackIndex    = 1  // of every network namespace's own lo, whatever its name: LOOPBACK_IFINDEX, net/flow.h
	loopbackNet      = 127
	fromNetwork      = 1 // BPF_HDR_START_NET
	etherTypeAt      = 12
	maxTags          = 3 // VLAN tags looked through within the packet
	maxExtensions    = 8 // IPv6 extension headers looked through
	ndSolicit        = 135
	ndAdvert         = 136
	protoICMPv6      = 58
	protoFragment    = 44
	protoAH          = 51
	arpRequest       = 1
	ipv4MoreOrOffset = 0x3fff
	ipv4Offset       = 0x1fff
	ipv6MoreOrOffset = 0xfff9
	ipv6Offset       = 0xfff8
)

// program assembles a classifier. Registers: R6 the packet, R7 where we are in it, R8 the protocol
// looked at (EtherType, then next header), R9 a deadline.
type program struct {
	code     asm.Instructions
	label    string // of the next instruction
	labels   int
	layout   layout
	maps     *maps
	egress   bool
	ethernet bool // the packet begins with an Ethernet header; else it is read from its network header on
}

func assemble(l layout, m *maps, egress, ethernet bool) asm.Instructions {
	p := &program{layout: l, maps: m, egress: egress, ethernet: ethernet}
	p.start()
	p.ipv4()
	p.ipv6()
	p.arp()
	p.neighbour()
	p.transport()
	p.ends()
	return p.code
}

func (p *program) add(ins ...asm.Instruction) {
	for _, in := range ins {
		if p.label != "" {
			in = in.WithSymbol(p.label)
			p.label = ""
		}
		p.code = append(p.code, in)
	}
}

func (p *program) at(label string) {
	if p.label != "" { // two labels on one instruction: lead the first here
		p.add(asm.Ja.Label(label))
	}
	p.label = label
}

func (p *program) fresh(prefix string) string {
	p.labels++
	return prefix + strconv.Itoa(p.labels)
}

// load copies size bytes from R7+skip in the packet to the stack; a shorter packet goes to short.
func (p *program) load(skip int32, to int32, size int32, short string) {
	p.add(
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Add.Imm(asm.R2, skip),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, to),
		asm.Mov.Imm(asm.R4, size),
	)
	if p.ethernet {
		p.add(asm.FnSkbLoadBytes.Call())
	} else {
		p.add(asm.Mov.Imm(asm.R5, fromNetwork), asm.FnSkbLoadBytesRelative.Call())
	}
	p.add(asm.JNE.Imm(asm.R0, 0, short))
}

// half loads a 16-bit number in network byte order from the stack.
func (p *program) half(to asm.Register, from int16) {
	p.add(asm.LoadMem(to, asm.RFP, from, asm.Half), asm.HostTo(asm.BE, to, asm.Half))
}

func (p *program) byte(to asm.Register, from int16) { p.add(asm.LoadMem(to, asm.RFP, from, asm.Byte)) }

// copy moves size bytes (8 or 4 at a time) within the stack.
func (p *program) copy(to, from, size int16) {
	width, bytes := asm.DWord, int16(8)
	if size == 4 {
		width, bytes = asm.Word, 4
	}
	for at := int16(0); at < size; at += bytes {
		p.add(asm.LoadMem(asm.R1, asm.RFP, from+at, width), asm.StoreMem(asm.RFP, to+at, asm.R1, width))
	}
}

// mapped writes the first 12 bytes of an IPv4-mapped address.
func (p *program) mapped(to int16) {
	p.add(
		asm.StoreImm(asm.RFP, to, 0, asm.Word),
		asm.StoreImm(asm.RFP, to+4, 0, asm.Word),
		asm.StoreImm(asm.RFP, to+8, int64(int32(binary.NativeEndian.Uint32([]byte{0, 0, 0xff, 0xff}))), asm.Word),
	)
}

// call calls a map helper with the key at a place on the stack.
func (p *program) call(fn asm.BuiltinFunc, fd int, key int32) {
	p.add(
		asm.LoadMapPtr(asm.R1, fd),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		fn.Call(),
	)
}

// judge drops the packet unless now is before the deadline of the slot in R1. The deadline is read
// before the clock, so that a pause between the two can only close.
func (p *program) judge() {
	p.add(
		asm.JGE.Imm(asm.R1, int32(p.layout.slots), "drop"),
		asm.Mul.Imm(asm.R1, int32(p.layout.stride)),
		asm.LoadMapValue(asm.R2, p.maps.state.FD(), headerSize+slotDeadline),
		asm.Add.Reg(asm.R2, asm.R1),
		asm.LoadMem(asm.R9, asm.R2, 0, asm.DWord),
		asm.FnKtimeGetBootNs.Call(),
		asm.JGE.Reg(asm.R0, asm.R9, "drop"),
	)
}

// address judges the address at atKey, and goes to next if it is not guarded or its gate is open.
func (p *program) address(next string) {
	p.call(asm.FnMapLookupElem, p.maps.addrs.FD(), atKey)
	p.add(asm.JEq.Imm(asm.R0, 0, next), asm.LoadMem(asm.R1, asm.R0, 0, asm.Word))
	p.judge()
	p.add(asm.Ja.Label(next))
}

// inner notes whether this node's end, the address at atKey, is a loopback address on lo.
func (p *program) inner(next string) {
	low := func(b ...byte) int32 { return int32(native.Uint32(b)) }
	p.add(
		asm.LoadMem(asm.R1, asm.R6, skbIndex, asm.Word),
		asm.JNE.Imm(asm.R1, loopbackIndex, next),
		asm.LoadMem(asm.R1, asm.RFP, atKey, asm.DWord),
		asm.JNE.Imm(asm.R1, 0, next),
		asm.LoadMem(asm.R1, asm.RFP, atKey+8, asm.Word),
		asm.LoadMem(asm.R2, asm.RFP, atKey+12, asm.Word),
		asm.JNE.Imm32(asm.R1, low(0, 0, 0, 0), next+" mapped"),
		asm.JNE.Imm32(asm.R2, low(0, 0, 0, 1), next),
		asm.Ja.Label(next+" inner"),
	)
	p.at(next + " mapped")
	p.add(
		asm.JNE.Imm32(asm.R1, low(0, 0, 0xff, 0xff), next),
		asm.LoadMem(asm.R1, asm.RFP, atKey+12, asm.Byte),
		asm.JNE.Imm(asm.R1, loopbackNet, next),
	)
	p.at(next + " inner")
	p.add(asm.StoreImm(asm.RFP, atInner, 1, asm.Word))
}

// exempt goes to pass, where ports are concerned, if inner found that this traffic is the machine's own.
func (p *program) exempt() {
	p.add(asm.LoadMem(asm.R1, asm.RFP, atInner, asm.Word), asm.JNE.Imm(asm.R1, 0, "pass"))
}

// own picks which end of a packet is this node's: the source of what leaves, the destination of what arrives.
func (p *program) own(source, destination int16) int16 {
	if p.egress {
		return source
	}
	return destination
}

// start finds the network header and goes where its protocol is handled.
func (p *program) start() {
	p.add(asm.Mov.Reg(asm.R6, asm.R1))
	if p.ethernet {
		// A tag that the card or the kernel took off is in the packet's metadata and does not concern
		// us; what is left of tags (QinQ, frames that a bridge passes on) is looked through here.
		p.add(asm.Mov.Imm(asm.R7, etherTypeAt))
		p.load(0, atSmall, 2, "pass")
		p.half(asm.R8, atSmall)
		for range maxTags {
			tag := p.fresh("tag")
			p.add(
				asm.JEq.Imm(asm.R8, unix.ETH_P_8021Q, tag),
				asm.JEq.Imm(asm.R8, unix.ETH_P_8021AD, tag),
				asm.JNE.Imm(asm.R8, unix.ETH_P_QINQ1, "network"),
			)
			p.at(tag)
			p.add(asm.Add.Imm(asm.R7, 4))
			p.load(0, atSmall, 2, "pass")
			p.half(asm.R8, atSmall)
		}
		p.at("network")
		p.add(asm.Add.Imm(asm.R7, 2))
	} else {
		p.add(asm.Mov.Imm(asm.R7, 0), asm.LoadMem(asm.R8, asm.R6, skbProtocol, asm.Word), asm.HostTo(asm.BE, asm.R8, asm.Half))
	}
	p.add(
		asm.StoreImm(asm.RFP, atFirst, 0, asm.Word),
		asm.StoreImm(asm.RFP, atInner, 0, asm.Word),
		asm.JEq.Imm(asm.R8, unix.ETH_P_IP, "ipv4"),
		asm.JEq.Imm(asm.R8, unix.ETH_P_IPV6, "ipv6"),
		asm.JEq.Imm(asm.R8, unix.ETH_P_ARP, "arp"),
		asm.Ja.Label("pass"),
	)
}

func (p *program) ipv4() {
	p.at("ipv4")
	p.load(0, atIP, 20, "pass") // shorter: no stack takes it for IPv4
	p.mapped(atKey)
	p.copy(atKey+12, atIP+p.own(12, 16), 4)
	p.address("ipv4 fragment")

	p.at("ipv4 fragment")
	p.inner("ipv4 ends")
	p.at("ipv4 ends")
	p.half(asm.R1, atIP+6)
	p.add(asm.And.Imm(asm.R1, ipv4MoreOrOffset), asm.JEq.Imm(asm.R1, 0, "ipv4 options"))
	p.mapped(atFrag)
	p.copy(atFrag+12, atIP+12, 4)
	p.mapped(atFrag + 16)
	p.copy(atFrag+28, atIP+16, 4)
	p.add(asm.LoadMem(asm.R1, asm.RFP, atIP+4, asm.Half), asm.StoreMem(asm.RFP, atFrag+32, asm.R1, asm.Word))
	p.add(asm.LoadMem(asm.R1, asm.RFP, atIP+9, asm.Byte), asm.StoreMem(asm.RFP, atFrag+36, asm.R1, asm.Word))
	p.half(asm.R1, atIP+6)
	p.add(asm.And.Imm(asm.R1, ipv4Offset), asm.JNE.Imm(asm.R1, 0, "later"))
	p.add(asm.StoreImm(asm.RFP, atFirst, 1, asm.Word))

	p.at("ipv4 options")
	p.byte(asm.R8, atIP+9)
	p.byte(asm.R1, atIP)
	p.add(asm.And.Imm(asm.R1, 0xf), asm.LSh.Imm(asm.R1, 2), asm.Add.Reg(asm.R7, asm.R1))
	p.add(asm.JNE.Imm(asm.R8, protoAH, "transport"))
	p.skip(2, 2)
	p.add(asm.Ja.Label("transport"))
}

// skip goes over an extension header of (length+more) << shift bytes.
func (p *program) skip(more, shift int32) {
	p.load(0, atSmall, 2, "unclear")
	p.byte(asm.R8, atSmall)
	p.byte(asm.R1, atSmall+1)
	p.add(asm.Add.Imm(asm.R1, more), asm.LSh.Imm(asm.R1, shift), asm.Add.Reg(asm.R7, asm.R1))
}

func (p *program) ipv6() {
	p.at("ipv6")
	p.load(0, atIP, 40, "pass")
	p.copy(atKey, atIP+p.own(8, 24), 16)
	p.address("ipv6 headers")

	p.at("ipv6 headers")
	p.inner("ipv6 ends")
	p.at("ipv6 ends")
	p.byte(asm.R8, atIP+6)
	p.add(asm.Add.Imm(asm.R7, 40))
	for i := range maxExtensions {
		n := strconv.Itoa(i)
		next := "header" + strconv.Itoa(i+1)
		if i > 0 {
			p.at("header" + n)
		}
		for _, option := range []int32{unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS, unix.IPPROTO_MH} {
			p.add(asm.JEq.Imm(asm.R8, option, "options"+n))
		}
		p.add(
			asm.JEq.Imm(asm.R8, protoFragment, "fragment"+n),
			asm.JNE.Imm(asm.R8, protoAH, "upper"),
		)
		p.skip(2, 2)
		p.add(asm.Ja.Label(next))
		p.at("options" + n)
		p.skip(1, 3)
		p.add(asm.Ja.Label(next))
		p.at("fragment" + n)
		p.fragment(next)
	}
	p.at("header" + strconv.Itoa(maxExtensions))
	p.add(asm.Ja.Label("unclear"))

	p.at("upper")
	p.add(asm.JEq.Imm(asm.R8, protoICMPv6, "neighbour"), asm.Ja.Label("transport"))
}

// fragment goes over an IPv6 fragment header, RFC 8200 4.5.
func (p *program) fragment(next string) {
	p.load(0, atSmall, 8, "unclear")
	p.byte(asm.R8, atSmall)
	p.add(asm.Add.Imm(asm.R7, 8))
	p.half(asm.R1, atSmall+2)
	p.add(asm.And.Imm(asm.R1, ipv6MoreOrOffset), asm.JEq.Imm(asm.R1, 0, next))
	p.copy(atFrag, atIP+8, 32)
	p.copy(atFrag+32, atSmall+4, 4)
	p.add(asm.StoreImm(asm.RFP, atFrag+36, 0, asm.Word))
	p.half(asm.R1, atSmall+2)
	p.add(asm.And.Imm(asm.R1, ipv6Offset), asm.JNE.Imm(asm.R1, 0, "later"))
	p.add(asm.StoreImm(asm.RFP, atFirst, 1, asm.Word), asm.Ja.Label(next))
}

// arp lets this node neither answer for a closed address nor name it as its own. Gratuitous requests
// that come in pass: by them this node, as a client, learns where the address went.
func (p *program) arp() {
	p.at("arp")
	p.load(0, atSmall, 8, "pass")
	p.half(asm.R1, atSmall+2)
	p.add(asm.JNE.Imm(asm.R1, unix.ETH_P_IP, "pass"))
	p.byte(asm.R1, atSmall+5)
	p.add(asm.JNE.Imm(asm.R1, 4, "pass"))
	if !p.egress {
		p.half(asm.R1, atSmall+6)
		p.add(asm.JNE.Imm(asm.R1, arpRequest, "pass"))
	}
	p.byte(asm.R8, atSmall+4) // length of a hardware address
	p.add(asm.Add.Imm(asm.R7, 8), asm.Add.Reg(asm.R7, asm.R8))
	p.mapped(atKey)
	p.load(0, atKey+12, 4, "pass") // sender's
	if !p.egress {
		p.copy(atSmall, atKey+12, 4)
		p.add(asm.Add.Imm(asm.R7, 4), asm.Add.Reg(asm.R7, asm.R8))
		p.load(0, atKey+12, 4, "pass") // target's
		p.add(
			asm.LoadMem(asm.R1, asm.RFP, atSmall, asm.Word),
			asm.LoadMem(asm.R2, asm.RFP, atKey+12, asm.Word),
			asm.JEq.Reg(asm.R1, asm.R2, "pass"),
		)
	}
	p.address("pass")
}

// neighbour does for IPv6 what arp does: a solicitation for a closed address does not come in, an
// advertisement of it does not go out, RFC 4861 4.3 and 4.4. Fragments of either are void, RFC 6980.
func (p *program) neighbour() {
	p.at("neighbour")
	p.load(0, atSmall, 1, "pass")
	p.byte(asm.R1, atSmall)
	p.add(asm.JNE.Imm(asm.R1, int32(p.own(ndAdvert, ndSolicit)), "pass"))
	p.load(8, atKey, 16, "pass")
	p.address("pass")
}

// transport judges the port. The first fragment tells the later ones, by their common key, whose they are.
func (p *program) transport() {
	p.at("transport")
	p.add(asm.JEq.Imm(asm.R8, unix.IPPROTO_TCP, "ports"), asm.JNE.Imm(asm.R8, unix.IPPROTO_UDP, "pass"))
	p.at("ports")
	p.exempt()
	p.add(
		asm.LoadMapValue(asm.R1, p.maps.state.FD(), atPorts),
		asm.LoadMem(asm.R1, asm.R1, 0, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "pass"),
	)
	p.load(0, atSmall, 4, "unclear")
	p.half(asm.R1, atSmall+p.own(0, 2))
	p.add(asm.LSh.Imm(asm.R8, 16), asm.Or.Reg(asm.R8, asm.R1), asm.StoreMem(asm.RFP, atPort, asm.R8, asm.Word))
	p.call(asm.FnMapLookupElem, p.maps.ports.FD(), atPort)
	p.add(
		asm.JEq.Imm(asm.R0, 0, "unguarded"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.StoreMem(asm.RFP, atSlot, asm.R1, asm.Word),
		asm.LoadMem(asm.R2, asm.RFP, atFirst, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "judge"),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, atSlot),
		asm.Mov.Imm(asm.R4, 0),
	)
	p.call(asm.FnMapUpdateElem, p.maps.frags.FD(), atFrag)
	p.add(asm.LoadMem(asm.R1, asm.RFP, atSlot, asm.Word))
	p.at("judge")
	p.judge()
	p.add(asm.Ja.Label("pass"))

	p.at("unguarded") // an id is used again: what it meant before must not cut this datagram
	p.add(asm.LoadMem(asm.R1, asm.RFP, atFirst, asm.Word), asm.JEq.Imm(asm.R1, 0, "pass"))
	p.call(asm.FnMapDeleteElem, p.maps.frags.FD(), atFrag)
	p.add(asm.Ja.Label("pass"))

	p.at("later")
	p.exempt()
	p.call(asm.FnMapLookupElem, p.maps.frags.FD(), atFrag)
	p.add(asm.JEq.Imm(asm.R0, 0, "pass"), asm.LoadMem(asm.R1, asm.R0, 0, asm.Word))
	p.judge()
	p.add(asm.Ja.Label("pass"))
}

func (p *program) ends() {
	p.at("unclear") // the port can't be found: closed if there is any port to guard
	p.exempt()
	p.add(
		asm.LoadMapValue(asm.R1, p.maps.state.FD(), atPorts),
		asm.LoadMem(asm.R1, asm.R1, 0, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "pass"),
	)
	p.at("drop")
	p.add(asm.Mov.Imm(asm.R0, actShot), asm.Return())
	p.at("pass")
	p.add(asm.Mov.Imm(asm.R0, actUnspec), asm.Return())
}
