// Package addr gives a node the addresses under which clients reach a group, and tells the segment.
//
// VIP is the resource kind `vip`. Start adds the address by one netlink request and announces it by one or
// two frames on a packet socket that is open already: some tenths of a millisecond, in which no program is
// run and nothing is waited for. IPv6 addresses are added without duplicate address detection (RFC 4862,
// 5.4), which would keep them unusable for a second or two; in its place a packet socket watches for other
// hosts that answer for the address while it is held. The agent is the judge of who may serve, by its lease,
// so a duplicate is reported and answered, never obeyed.
//
// An announcement is what moves clients: their neighbour caches, and the tables of the switches between, go
// on pointing to the former owner until they hear the new one. It is repeated (see repeats), since a frame
// may be lost and the gate may open a moment after the address comes up. From then on it is refreshed slowly: a host
// that heard none of them, behind a blocked port, must not ask the former owner for as long as its cache lasts.
//
// The address shall serve and not become the source of this node's own connections. An IPv4 address in a
// subnet that its interface has already is secondary by the kernel's own rule, and source selection passes
// it over; alone in its subnet it is primary, since nothing else could be the source there. An IPv6 address
// has a preferred lifetime of zero: deprecated in the words of RFC 4862, 5.5.4, so that RFC 6724's rule 3
// avoids it as a source, while what comes in to it is accepted and answered from it as usual.
//
// Addresses of ours carry the protocol number Protocol in the kernel (IFA_PROTO, Linux 5.18), so that a
// successor finds them wherever they are. Older kernels drop the mark; there an address is found on its
// configured interface only.
//
// A resource works in the network namespace of the thread that calls New and Start.
//
// WatchLinks tells of interfaces that come, go, and gain or lose their carrier; WatchNeighbours of neighbours that
// return.
package addr
