// Package gate lets traffic reach a group's addresses and ports only while this node may serve the
// group. The right to serve ends at an instant; the kernel knows that instant and cuts the traffic
// off by itself, so that a frozen, starved or killed agent can't serve on.
//
// # What is cut
//
// A packet belongs to this node at one of its ends, and that end is judged: of what arrives the
// destination address, the destination port, the target of an ARP request or of a neighbour
// solicitation; of what leaves the source address, the source port, the sender in ARP, the target of a
// neighbour advertisement. The other end is not judged on purpose: a node whose gate is closed must
// still reach the address where it serves now, be told by gratuitous ARP or an unsolicited
// advertisement where that is, and probe whether anybody has it. A packet on lo leaves and arrives, so
// both of its ends are judged. An announcement leaves only through an open gate: open it first.
//
// # What is not cut: a port on loopback
//
// A guarded port (not a guarded address) is not judged where this node's end is a loopback address
// (127.0.0.0/8, ::1, or the former in mapped form) on lo. Probes of readiness and liveness come that way
// while the gate is closed; were they cut, no group would ever become ready. Who can reach 127.0.0.1 is
// on this machine, and what a client here does with a standby here is not an effect on others; what acts
// on the group's address is still cut, on lo too, and so is the port at every other address of this
// node. On any other device a loopback address is a forger's and exempts nothing. lo is known by its
// index, 1 in every namespace. Hence two duties: a proxy on this machine that hands others' traffic to
// 127.0.0.1 must itself be reached by a guarded address or port, and a client on this machine that must
// not write to a standby must use the group's address.
//
// # eBPF, the first choice
//
// A classifier sits at both hooks of every interface of the network namespace (hooks.go; program.go is the classifier,
// in package asm's assembler): at tcx where the kernel has it (Linux 6.6, tcx.go), else as a direct-action filter of a
// clsact qdisc. It answers TC_ACT_UNSPEC, which goes on to the next program or filter, or TC_ACT_SHOT. Two hash maps
// lead from an address (IPv4 in mapped form) or a port to a slot; slots stand in the single value of an array map,
// which is mapped into this process too (state.go), so that Set is one atomic 64-bit store of an absolute
// CLOCK_BOOTTIME deadline. A store that a paused process makes late stores a deadline that is past.
// The program reads the deadline first and the clock second: a pause between them can only close.
//
// At tcx it shares nothing with others: each program has a link of its own, before all that is there, and qdiscs, clsact
// and ingress among them, are others' affair. A link ends with its last descriptor, so each is pinned in a bpffs of the
// gate's own (Options.Dir), which outlives the agent as the run directory does. Where it would not, in a mount
// namespace of the agent's unit alone, clsact is used. To attach to tcx takes the kernel up to 20 ms for each hook, to
// find what is pinned 20 µs. At clsact, filters stay when the last descriptor is closed: nothing is pinned. A filter's
// name is "baton:CLUSTER/NODE:HASH".
//
// By pin or name a successor finds program, maps and so state of a dead predecessor. Open only takes over the maps, so
// that Set works again within some 2 ms: the lease must be renewed. Guard leaves alone the programs that this binary
// would load too, by the kernel's tag, and puts newly loaded ones in others' place, which the kernel does at one
// instant. What a predecessor has at clsact stays at first; then one interface after the other goes over to tcx, beside
// all else: its programs run there before its filters go, and both have the same tables. To check one program takes the
// kernel 2 to 3 ms; during that Set works, from another goroutine. The
// header of the state describes its own layout; name, epoch and deadline keep their places within a
// slot. A successor with another layout (raise current.version when maps or slots change) works on the
// old tables until its first Guard, which builds new ones with the same deadlines.
//
// At clsact, filters have priority 1, because a filter before them could end the chain with TC_ACT_OK. Gates of several
// nodes in one namespace share the priority under handles made from their names. A clsact qdisc that is there is shared.
// Of one that this gate made there is a note in the state; Remove deletes it if nobody's filter is left. Where someone
// else has that priority, or an ingress qdisc in clsact's place, the gate does what can be done there (an ingress qdisc
// has no egress hook) and nftables guards everything as well, with the same deadlines, until that has changed.
//
// What others take off is put back: filters and qdiscs as soon as the kernel tells of it (RTNLGRP_TC), links and their
// pins, of which it tells nobody, at the next look. The owner is told (Options.Off). A close looks too, and is done only
// where the kernel says that all is there. To look, the kernel takes a lock that others may hold for long, so a
// goroutine looks, and a close waits for it some milliseconds at most: what it does not know by then is not shut. Closes
// in a row share a look.
//
//   - VLAN tags: one that card or kernel took off is only metadata and changes nothing; up to three in
//     the packet are looked through. What has more is judged where it is untagged: on the VLAN device.
//   - Fragments: addresses stand in each. A port stands in the first only, so the program remembers
//     by source, destination and id whose the datagram is, and later fragments share its fate, also if
//     the gate closes between them. One that comes before its first passes, since without the first the
//     datagram is never delivered. To drop all fragments while some port is closed was the alternative;
//     it would cut the large datagrams of every other service on a node that merely stands by. 4,096
//     datagrams are remembered.
//   - Headers before the port: IPv4 options, IPv6 hop-by-hop, routing, destination options, mobility,
//     fragment, and authentication headers, eight at most. If the chain is longer, or cut off before
//     the port, the packet is dropped while any port is guarded: nobody sends such packets.
//   - Devices without an Ethernet header (tun, wireguard, ppp, ipip) are read from the network header
//     on, by skb->protocol; hooks.go picks the variant by the device's type.
//
// Not covered: what is inside tunnels, seen from the carrying interface (the tunnel's own device is
// guarded like any other), and ports inside ESP in transport mode; PPPoE and MPLS on an Ethernet device;
// UDP-Lite, SCTP; a port that this node's own NAT makes out of another (the wire has the other one:
// guard that); packets sent past tc (AF_XDP, PACKET_QDISC_BYPASS); tcx programs of others that end
// the chain before this gate's (the log names them: they came later, and at the head); the milliseconds between the appearance of an interface and
// its filters. A router in front of the address must not be a node of its group: what it forwards to
// the address arrives at it, and is judged. So is, by the port, what a node forwards for containers
// or machines behind it: while its gate is closed they can't reach that port elsewhere through it.
//
// # nftables, the second choice
//
// Where bpf() is refused, a table of family inet and one of family arp do the same (tables.go,
// ruleset.go): maps lead from address and port to a slot, and the slot must be an element of the set
// "open", whose elements have timeouts. Set writes what is left until the deadline by a prebuilt netlink
// batch (writer.go), less a millisecond, and reads the clock again after the write; the kernel counts in
// jiffies, so traffic ends up to some 10 ms early, never late. NFTA_SET_ELEM_EXPIRATION is always
// sent, because adding an element again with the same timeout does nothing; before Linux 6.12 not even
// that changes an element's end, so there it is deleted and added in one batch. Open finds out which,
// in a predecessor's table or in one made for that.
// A table has its identity in its name, groups and epochs are comments in the set "groups", and a Guard
// is one transaction that replaces all but the two "open" sets.
//
// It is second because its deadline is relative: a process stopped between computing what is left and
// the kernel's commit, and going on after the deadline, opens the gate until it reads the clock again,
// or for as long as it wrote if it is stopped there once more. Jiffies stand still while the machine is
// suspended, so a suspended node finds its gate as open as it left it, until the next Set. It also sees neither bridged frames nor the
// ports of IPv6 datagrams in fragments whose first passed, and "flush ruleset", which many firewall
// scripts begin with, removes it until the kernel's news of that (monitor.go) has it written anew, deadlines included:
// some milliseconds.
//
// # Changing between the two
//
// Open looks for what the other mechanism left under the same identity (relief.go): that goes on until
// the first Guard, which carries its deadlines over and then removes it.
package gate
