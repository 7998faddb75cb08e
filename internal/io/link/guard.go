package link

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits of who gets in. A handshake costs some 300 us of processor time, so strangers together get 3 % of one.
const (
	strangersMax    = 128 // connections from elsewhere than a node's addresses, in all
	strangerMax     = 16  // from one address
	strangersRate   = 100 // new ones per second, in all; so many may come at once
	strangerRate    = 20  // from one address
	nodeMax         = 64  // connections from one address of a node, and twice as many new ones per second
	addressesMax    = 4096
	addressesForget = time.Minute // what is known of an address without connections, after its last one
)

// guard bounds the connections that are taken, so that a flood from one address keeps out nobody but that
// address, and one from many no node.
type guard struct {
	now func() time.Time

	mu      sync.Mutex
	nodes   map[netip.Addr]bool
	callers map[netip.Addr]*caller
	all     caller // of strangers
}

// caller is an address, or all strangers.
type caller struct {
	open   int
	budget float64 // new connections that are allowed at once
	at     time.Time
}

func newGuard() *guard {
	return &guard{now: time.Now, nodes: make(map[netip.Addr]bool), callers: make(map[netip.Addr]*caller), all: caller{budget: strangersRate}}
}

// know makes these the nodes' addresses, unmapped. Connections that are open are counted as what they were.
func (g *guard) know(nodes map[netip.Addr]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nodes = nodes
}

// allow tells whether one more connection fits.
func (c *caller) allow(now time.Time, most int, rate float64) bool {
	c.budget = min(rate, c.budget+now.Sub(c.at).Seconds()*rate)
	c.at = now
	return c.open < most && c.budget >= 1
}

// admit returns a connection whose Close makes room for another, or nil if it was closed at once.
func (g *guard) admit(conn net.Conn) net.Conn {
	var address netip.Addr
	if t, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		address = t.AddrPort().Addr().Unmap()
	}
	leave := g.enter(address)
	if leave == nil {
		if t, ok := conn.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // nothing of it stays in the kernel
		}
		conn.Close()
		return nil
	}
	return &admitted{Conn: conn, leave: leave}
}

// enter counts one more connection, and returns what its end must call; nil: it does not get in.
func (g *guard) enter(address netip.Addr) (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	node := g.nodes[address]
	c := g.callers[address]
	if c == nil {
		if len(g.callers) >= addressesMax && !g.prune(now) {
			if node { // it is never kept out, and then is not counted
				return func() {}
			}
			return nil
		}
		c = &caller{budget: strangerRate}
		g.callers[address] = c
	}
	counted := []*caller{c}
	switch {
	case node:
		if !c.allow(now, nodeMax, 2*nodeMax) {
			return nil
		}
	case !c.allow(now, strangerMax, strangerRate) || !g.all.allow(now, strangersMax, strangersRate):
		return nil
	default:
		counted = append(counted, &g.all)
	}
	for _, x := range counted {
		x.open++
		x.budget--
	}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, x := range counted {
			x.open--
		}
	}
}

// prune forgets addresses without connections.
func (g *guard) prune(now time.Time) bool {
	for a, c := range g.callers {
		if c.open == 0 && now.Sub(c.at) > addressesForget {
			delete(g.callers, a)
		}
	}
	return len(g.callers) < addressesMax
}

// admitted is a connection that got in.
type admitted struct {
	net.Conn
	once  sync.Once
	leave func()
}

// Close closes the connection and makes room for another.
func (c *admitted) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.leave)
	return err
}
