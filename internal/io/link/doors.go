package link

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// handshakeTimeout is how long a caller may take to say who it is.
const handshakeTimeout = 3 * time.Second

// segmentSize is TCP's largest segment (TCP_MAXSEG), of both directions: with its headers and those of IPv6 it is a
// packet of 1,280 bytes. So the API passes where the links' packets do.
const segmentSize = 1280 - 40 - 20

// doors are this node's TCP ports, at the addresses of its links: who comes in is let through the handshake and handed
// on (Config.Others). Messages between nodes never take this way.
type doors struct {
	counters
	lamp
	links  *Links
	server *tls.Config
	open   map[netip.AddrPort]context.CancelFunc // listeners; guarded by Links.changing
	guard  *guard

	mu     sync.Mutex
	conns  map[io.Closer]struct{} // listeners and connections to close at the end; nil once closed
	faults map[netip.AddrPort]error
}

func newDoors(l *Links) *doors {
	g := &doors{
		links: l, open: make(map[netip.AddrPort]context.CancelFunc),
		guard: newGuard(), server: l.config.Identity.Server(), conns: make(map[io.Closer]struct{}), faults: make(map[netip.AddrPort]error),
	}
	g.know(nil)
	return g
}

// close closes all that waits for the network.
func (g *doors) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.Close()
	}
	g.conns = nil
}

// hold has c closed at the end. It returns false, and closes it, if the end has come.
func (g *doors) hold(c io.Closer) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns == nil {
		c.Close()
		return false
	}
	g.conns[c] = struct{}{}
	return true
}

func (g *doors) drop(c io.Closer) {
	c.Close()
	g.release(c)
}

// release leaves the closing to others.
func (g *doors) release(c io.Closer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}

// listen opens one listener, and notes why it could not.
func (g *doors) listen(address netip.AddrPort) net.Listener {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, segmentSize) // a host that refuses it serves all the same
		})
	}}
	ln, err := config.Listen(g.links.ctx, network("tcp", address.Addr()), address.String())
	g.report(address, err)
	if err != nil || !g.hold(ln) {
		return nil
	}
	return ln
}

// serve accepts connections on one address until the context ends.
func (g *doors) serve(ctx context.Context, address netip.AddrPort, ln net.Listener) {
	defer g.forget(address)
	for {
		if ln != nil {
			stop := context.AfterFunc(ctx, func() { ln.Close() })
			err := g.accept(ln)
			stop()
			g.drop(ln)
			g.report(address, err)
		}
		if !wait(ctx, retryInterval) {
			return
		}
		ln = g.listen(address)
	}
}

// forget drops what is known of a listener that is not wanted any more.
func (g *doors) forget(address netip.AddrPort) { g.report(address, nil) }

// report notes how it stands with one listener. Up means that all of them listen.
func (g *doors) report(address netip.AddrPort, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.faults[address] = err; err == nil {
		delete(g.faults, address)
	}
	var details []string
	for _, fault := range g.faults {
		details = append(details, fault.Error())
	}
	slices.Sort(details)
	g.set(len(details) == 0, strings.Join(details, "; "))
}

func (g *doors) accept(ln net.Listener) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		admitted := g.guard.admit(conn)
		if admitted == nil {
			g.strange.Add(1)
			continue
		}
		g.links.wg.Go(func() { g.take(tls.Server(admitted, g.server)) })
	}
}

// take finds out who calls, and hands the connection on.
func (g *doors) take(conn *tls.Conn) {
	if !g.hold(conn) {
		return
	}
	ctx, cancel := context.WithTimeout(g.links.ctx, handshakeTimeout)
	defer cancel()
	if conn.HandshakeContext(ctx) != nil {
		g.strange.Add(1)
		g.drop(conn)
		return
	}
	g.release(conn)
	if g.links.config.Others == nil {
		conn.Close()
		return
	}
	g.links.config.Others(conn)
}
