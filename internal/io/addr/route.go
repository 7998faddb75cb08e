package addr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Protocol marks the addresses that this package adds (IFA_PROTO of rtnetlink(7), Linux 5.18).
const Protocol = 0xBA

const (
	ifaProto = 11 // IFA_PROTO of linux/if_addr.h; x/sys lacks it

	// promoteSecondaries is IPV4_DEVCONF_PROMOTE_SECONDARIES of linux/ip.h, inetConf IFLA_INET_CONF of linux/if_link.h.
	promoteSecondaries = 20
	inetConf           = 1

	skipStatistics = 1 << 3 // RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: counting them all is slow

	forever = 0xFFFFFFFF // a lifetime that does not end

	// answerSeconds bounds the wait for the kernel's answer: it comes while the request is sent, unless
	// another program holds the kernel's routing lock.
	answerSeconds = 2
)

// route speaks rtnetlink(7) over one socket, which stays in the network namespace it was opened in.
type route struct {
	sockets map[int]*nl.SocketHandle
	table   *table // the addresses of that namespace, as all routes in it share them
}

func openRoute() (*route, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	timeout := unix.Timeval{Sec: answerSeconds}
	if err := errors.Join(s.SetReceiveTimeout(&timeout), s.SetSendTimeout(&timeout)); err != nil {
		s.Close()
		return nil, fmt.Errorf("set up a netlink socket: %w", err)
	}
	t, err := shareTable(s.GetFd())
	if err != nil {
		s.Close()
		return nil, err
	}
	return &route{map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}, t}, nil
}

func (r *route) close() {
	r.table.release()
	r.sockets[unix.NETLINK_ROUTE].Close()
}

func (r *route) request(kind, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = r.sockets
	return req
}

// iface is what is needed of a network interface.
type iface struct {
	index int
	name  string
	mac   net.HardwareAddr
	up    bool
	// ether: it carries Ethernet frames, so that neighbours can and must be told.
	ether bool
}

// byName finds an interface; the error wraps unix.ENODEV if there is none of that name.
func (r *route) byName(name string) (iface, error) {
	i, err := r.iface(0, name)
	if err != nil {
		return iface{}, fmt.Errorf("look up interface %s: %w", name, err)
	}
	return i, nil
}

func (r *route) byIndex(index int) (iface, error) {
	i, err := r.iface(index, "")
	if err != nil {
		return iface{}, fmt.Errorf("look up interface number %d: %w", index, err)
	}
	return i, nil
}

func (r *route) iface(index int, name string) (iface, error) {
	req := r.request(unix.RTM_GETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics)))
	switch { // the kernel looks through alternative names for either attribute, but the one takes short names only
	case len(name) >= unix.IFNAMSIZ:
		req.AddData(nl.NewRtAttr(unix.IFLA_ALT_IFNAME, nl.ZeroTerminated(name)))
	case name != "":
		req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	}
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return iface{}, err
	}
	if len(answers) != 1 {
		return iface{}, fmt.Errorf("the kernel named %d interfaces", len(answers))
	}
	link, err := netlink.LinkDeserialize(nil, answers[0])
	if err != nil {
		return iface{}, err
	}
	a := link.Attrs()
	return iface{
		index: a.Index, name: a.Name, mac: a.HardwareAddr, up: a.RawFlags&unix.IFF_UP != 0,
		ether: a.EncapType == "ether" && len(a.HardwareAddr) == 6 && a.RawFlags&unix.IFF_NOARP == 0,
	}, nil
}

// present is an address that the kernel has on an interface.
type present struct {
	index   int
	addr    netip.Addr
	bits    int
	network netip.Prefix // what is reached over it: the peer's, on a point-to-point link
	flags   uint32
	ours    bool
}

// addresses lists the addresses of one family on all interfaces. It costs little, since all share one table. What this
// process has changed is in it, and what table.watch has told of; what another program does this very moment, or what
// another subscription has just told of, may not be: see dump. The list is not to be changed.
func (r *route) addresses(family int) ([]present, error) {
	return r.table.addresses(family, r.dump)
}

// dump asks the kernel for the addresses of one family on all interfaces: the more there are, the longer it takes.
// If they changed meanwhile, some that are there may be missing, and whole is false.
func (r *route) dump(family int) (list []present, whole bool, err error) {
	req := r.request(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfAddrmsg(family))
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, false, fmt.Errorf("list addresses: %w", err)
	}
	whole = err == nil
	list = make([]present, 0, len(answers))
	for _, m := range answers {
		p, err := parseAddress(m)
		if err != nil {
			return nil, false, fmt.Errorf("list addresses: %w", err)
		}
		if p.addr.IsValid() {
			list = append(list, p)
		}
	}
	return list, whole, nil
}

// parseAddress reads the body of an RTM_NEWADDR or RTM_DELADDR.
func parseAddress(m []byte) (present, error) {
	if len(m) < unix.SizeofIfAddrmsg {
		return present{}, fmt.Errorf("address message of %d bytes, want %d or more", len(m), unix.SizeofIfAddrmsg)
	}
	msg := nl.DeserializeIfAddrmsg(m)
	attrs, err := nl.ParseRouteAttr(m[msg.Len():])
	if err != nil {
		return present{}, fmt.Errorf("address message: %w", err)
	}
	p := present{index: int(msg.Index), bits: int(msg.Prefixlen), flags: uint32(msg.Flags)}
	var peer netip.Addr
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFA_LOCAL:
			p.addr, _ = netip.AddrFromSlice(a.Value)
		case unix.IFA_ADDRESS:
			peer, _ = netip.AddrFromSlice(a.Value)
		case unix.IFA_FLAGS:
			p.flags = binary.NativeEndian.Uint32(a.Value)
		case ifaProto:
			p.ours = a.Value[0] == Protocol
		}
	}
	if !p.addr.IsValid() { // IPv6 names the local address IFA_ADDRESS alone
		p.addr = peer
	}
	if peer.IsValid() {
		p.network = netip.PrefixFrom(peer, p.bits).Masked()
	}
	return p, nil
}

// add makes the address present on the interface and marks it; if it is there already, it is only marked.
func (r *route) add(index int, p netip.Prefix) error {
	req := r.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	fillAddress(req, index, p)
	req.AddData(nl.NewRtAttr(ifaProto, []byte{Protocol}))
	if p.Addr().Is4() {
		if p.Bits() < 31 { // RFC 3021: a subnet of two has no broadcast address
			req.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, lastAddress(p).AsSlice()))
		}
	} else {
		req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD)))
		life := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Valid: forever, Prefered: 0}}
		req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, life.Serialize()))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if p.Addr().Is6() { // of one without duplicate detection the kernel tells a moment later
		r.table.forget(unix.AF_INET6)
	}
	return err
}

// remove takes the address off the interface; it is no error if it is not there.
func (r *route) remove(index int, p netip.Prefix) error {
	req := r.request(unix.RTM_DELADDR, unix.NLM_F_ACK)
	fillAddress(req, index, p)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func fillAddress(req *nl.NetlinkRequest, index int, p netip.Prefix) {
	msg := nl.NewIfAddrmsg(familyOf(p.Addr()))
	msg.Index = uint32(index)
	msg.Prefixlen = uint8(p.Bits())
	if p.Addr().IsLinkLocalUnicast() {
		msg.Scope = unix.RT_SCOPE_LINK
	}
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, p.Addr().AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, p.Addr().AsSlice()))
}

// keepSecondaries makes the interface keep the other IPv4 addresses of a subnet when the primary one goes
// (promote_secondaries of the kernel's ip-sysctl; systemd's default). Without it they would vanish with ours.
func (r *route) keepSecondaries(index int) error {
	req := r.request(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET, nil).AddRtAttr(inetConf, nil).AddRtAttr(promoteSecondaries, nl.Uint32Attr(1))
	req.AddData(spec)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// find returns the interface that an address belongs on: one that has another address in a subnet that it belongs to,
// or else the one that has the address itself. Of several it is the one where this host holds the address already, by
// its mark or on the interface noted (0: none is), though that has no such subnet any more, unless the address's own
// subnet is on another one now; else one whose subnet is the address's own; else one in the narrowest subnet. The error
// says if there is none, or which several are alike.
func (r *route) find(address netip.Prefix, noted int) (iface, error) {
	list, err := r.addresses(familyOf(address.Addr()))
	if err != nil {
		return iface{}, err
	}
	own := address.Addr().BitLen() + 1 // the address's own subnet counts as narrower than all
	var beside, holding []int
	held, narrowest := map[int]bool{}, map[int]int{} // by interface
	for _, p := range list {
		switch {
		case p.addr == address.Addr():
			holding = append(holding, p.index)
			held[p.index] = held[p.index] || p.ours || p.index == noted
		case p.network.Contains(address.Addr()):
			bits := p.network.Bits()
			if bits == address.Bits() {
				bits = own
			}
			beside = append(beside, p.index)
			narrowest[p.index] = max(narrowest[p.index], bits)
		}
	}
	narrowestOf := func(some []int) (most int) {
		for _, index := range some {
			most = max(most, narrowest[index])
		}
		return most
	}
	found := beside
	switch {
	case len(found) == 0:
		found = holding
	case narrowestOf(beside) < own:
		found = append(found, only(holding, func(index int) bool { return held[index] })...)
	}
	slices.Sort(found)
	found = slices.Compact(found)
	if here := only(found, func(index int) bool { return held[index] }); len(here) > 0 {
		found = here
	}
	most := narrowestOf(found)
	found = only(found, func(index int) bool { return narrowest[index] == most })
	if len(found) == 1 {
		return r.byIndex(found[0])
	}
	if len(found) == 0 {
		return iface{}, fmt.Errorf("no interface has an address in the subnet of %s: name the interface", address.Addr())
	}
	var names []string
	for _, index := range found {
		if i, err := r.byIndex(index); err == nil {
			names = append(names, i.name)
		}
	}
	return iface{}, fmt.Errorf("%d interfaces (%s) have an address in the subnet of %s: name the interface",
		len(found), strings.Join(names, ", "), address.Addr())
}

// only returns those of a list that are as asked.
func only(list []int, is func(int) bool) (some []int) {
	for _, n := range list {
		if is(n) {
			some = append(some, n)
		}
	}
	return some
}

// InterfaceFor returns the index of the interface of this network namespace that an address with its prefix length
// belongs on: where it is held, or which has another address in its subnet. It is an error if there is none or if
// several are alike, which says so.
func InterfaceFor(address netip.Prefix) (index int, err error) {
	r, err := openRoute()
	if err != nil {
		return 0, err
	}
	defer r.close()
	i, err := r.find(address, 0)
	return i.index, err
}

// InterfaceWith returns the index of the interface of this network namespace that has the address; 0: none has.
func InterfaceWith(address netip.Addr) (index int, err error) {
	r, err := openRoute()
	if err != nil {
		return 0, err
	}
	defer r.close()
	list, err := r.addresses(familyOf(address.Unmap()))
	if i := slices.IndexFunc(list, func(p present) bool { return p.addr == address.Unmap() }); i >= 0 {
		return list[i].index, nil
	}
	return 0, err
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// lastAddress returns the highest address of an IPv4 prefix: its broadcast address.
func lastAddress(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|uint32(1<<(32-p.Bits())-1))
	return netip.AddrFrom4(a)
}
