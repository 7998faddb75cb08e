package gate

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// early is before connection tracking joins fragments (NF_IP_PRI_RAW_BEFORE_DEFRAG), so that address
// rules see every one.
const early = nftables.ChainPriority(-450)

// rules adds chains and rules to the transaction. What arrives is judged by its destination before
// routing, what leaves by its source after it. Ports are judged at the local hooks: there IPv4
// fragments are joined (in) or not yet made (out).
func (t *tables) rules() {
	arrive := t.chain("arrive", nftables.ChainHookPrerouting)
	leave := t.chain("leave", nftables.ChainHookPostrouting)
	in := t.chain("in", nftables.ChainHookInput)
	out := t.chain("out", nftables.ChainHookOutput)
	const network, transport = expr.PayloadBaseNetworkHeader, expr.PayloadBaseTransportHeader

	t.rule(arrive, t.sets.addr4, is(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV4), field(network, 16, 4))
	t.rule(leave, t.sets.addr4, is(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV4), field(network, 12, 4))
	t.rule(arrive, t.sets.addr6, is(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6), field(network, 24, 16))
	t.rule(leave, t.sets.addr6, is(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6), field(network, 8, 16))
	t.rule(arrive, t.sets.addr6, icmp6(ndSolicit), field(transport, 8, 16))
	t.rule(leave, t.sets.addr6, icmp6(ndAdvert), field(transport, 8, 16))
	t.exempt(in, expr.MetaKeyIIF, 16, 24)
	t.exempt(out, expr.MetaKeyOIF, 12, 8)
	t.rule(in, t.sets.tcp, is(expr.MetaKeyL4PROTO, unix.IPPROTO_TCP), field(transport, 2, 2))
	t.rule(out, t.sets.tcp, is(expr.MetaKeyL4PROTO, unix.IPPROTO_TCP), field(transport, 0, 2))
	t.rule(in, t.sets.udp, is(expr.MetaKeyL4PROTO, unix.IPPROTO_UDP), field(transport, 2, 2))
	t.rule(out, t.sets.udp, is(expr.MetaKeyL4PROTO, unix.IPPROTO_UDP), field(transport, 0, 2))

	// ARP for IPv4 over Ethernet: protocol 0x0800, address lengths 6 and 4; the sender's is at 14.
	arp := t.conn.AddChain(&nftables.Chain{
		Name: "leave", Table: t.sets.arp, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookRef(1), Priority: nftables.ChainPriorityFilter, // NF_ARP_OUT
	})
	t.judge(arp, t.sets.arpAddr4, t.sets.arpOpen, slices.Concat(
		field(network, 2, 4), equals(0x08, 0x00, 6, 4),
		field(network, 14, 4)))
}

func (t *tables) chain(name string, hook *nftables.ChainHook) *nftables.Chain {
	priority := early
	return t.conn.AddChain(&nftables.Chain{
		Name: name, Table: t.sets.inet, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: &priority,
	})
}

func (t *tables) rule(c *nftables.Chain, to *nftables.Set, match ...[]expr.Any) {
	t.judge(c, to, t.sets.open, slices.Concat(match...))
}

// exempt ends a chain of ports for a packet on lo whose end at the offset given, of IPv4 and of IPv6, is
// a loopback address.
func (t *tables) exempt(c *nftables.Chain, device expr.MetaKey, end4, end6 uint32) {
	const network = expr.PayloadBaseNetworkHeader
	lo := slices.Concat([]expr.Any{&expr.Meta{Key: device, Register: 1}}, equals(native.AppendUint32(nil, loopbackIndex)...))
	for _, local := range [][]expr.Any{
		slices.Concat(is(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV4), field(network, end4, 1), equals(loopbackNet)),
		slices.Concat(is(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6), field(network, end6, 16), equals(loopback6[:]...)),
		slices.Concat(is(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6), field(network, end6, 13), equals(append([]byte(mapped4), loopbackNet)...)),
	} {
		t.conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: slices.Concat(lo, local,
			[]expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}})})
	}
}

var loopback6 = netip.IPv6Loopback().As16()

// judge drops a packet whose key, in register 1 after match, leads to a slot that is not open. A key
// that leads nowhere ends the rule.
func (t *tables) judge(c *nftables.Chain, to, open *nftables.Set, match []expr.Any) {
	t.conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: slices.Concat(match, []expr.Any{
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: to.Name, SetID: to.ID},
		&expr.Lookup{SourceRegister: 1, SetName: open.Name, SetID: open.ID, Invert: true},
		&expr.Verdict{Kind: expr.VerdictDrop},
	})})
}

func is(key expr.MetaKey, value byte) []expr.Any {
	return append([]expr.Any{&expr.Meta{Key: key, Register: 1}}, equals(value)...)
}

func equals(data ...byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
}

func field(base expr.PayloadBase, offset, size uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: size}}
}

func icmp6(kind byte) []expr.Any {
	return slices.Concat(
		is(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6), is(expr.MetaKeyL4PROTO, protoICMPv6),
		field(expr.PayloadBaseTransportHeader, 0, 1), equals(kind))
}
