package link

import (
	"cmp"
	"net/netip"
	"slices"
)

// Fault is why this node can't use one of its own addresses and ports.
type Fault struct {
	Link    string // by name; empty: where it takes connections, whatever the link
	Network string // "udp" or "tcp"
	At      netip.AddrPort
	Cause   error // EADDRINUSE where another program has the port, EADDRNOTAVAIL where the address is not here
}

// Faults tells which of this node's own sockets could not be opened when they were last tried, links in the file's
// order first.
func (l *Links) Faults() []Fault {
	var all []Fault
	l.receiving.Lock()
	for _, u := range l.udp {
		if u != nil && u.cause != nil {
			all = append(all, Fault{u.name, "udp", u.address, u.cause})
		}
	}
	l.receiving.Unlock()
	return append(all, l.doors.listFaults()...)
}

func (g *doors) listFaults() []Fault {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []Fault
	for at, err := range g.faults {
		all = append(all, Fault{Network: "tcp", At: at, Cause: err})
	}
	slices.SortFunc(all, func(a, b Fault) int {
		return cmp.Or(a.At.Addr().Compare(b.At.Addr()), cmp.Compare(a.At.Port(), b.At.Port()))
	})
	return all
}
