package link

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
	"baton/internal/io/identity"
)

// Limits of the way for large messages.
const (
	maxQueued      = 64      // messages that wait for one peer
	maxQueuedBytes = 8 << 20 // and their bytes; one message always fits

	dialTimeout   = 3 * time.Second // TCP and TLS together
	dialPause     = 100 * time.Millisecond
	writeTimeout  = 5 * time.Second
	ackTimeout    = 3 * time.Second  // TCP_USER_TIMEOUT: a peer whose power is gone answers nothing
	idleOutgoing  = 30 * time.Second // then the sender closes the connection
	idleIncoming  = 90 * time.Second // longer than the sender's, so that it does not write into a closed one
	lengthPrefix  = 4
	maxFramedSize = wire.MaxMessage + wire.MaxEnvelope
)

// Large carries messages that are too large for a datagram: envelopes as on every link, each behind its
// length (4 bytes, big-endian), over TLS 1.3 in which both sides prove with a certificate of the cluster's
// authority which node they are. A connection carries messages one way, from who dialled. It owns the TCP
// ports, and hands connections that speak another protocol on (Config.Others).
type Large struct {
	counters
	lamp
	links  *Links
	server *tls.Config
	peers  map[cluster.NodeID]*largePeer         // guarded by Links.sending
	doors  map[netip.AddrPort]context.CancelFunc // listeners; guarded by Links.changing
	guard  *guard

	mu     sync.Mutex
	conns  map[io.Closer]struct{} // listeners and connections to close at the end; nil once closed
	faults map[netip.AddrPort]error
}

type queued struct {
	m wire.Message
	b []byte
}

func newLarge(l *Links) *Large {
	return &Large{
		links: l, peers: make(map[cluster.NodeID]*largePeer), doors: make(map[netip.AddrPort]context.CancelFunc),
		guard: newGuard(), server: l.config.Identity.Server(), conns: make(map[io.Closer]struct{}), faults: make(map[netip.AddrPort]error),
	}
}

// close closes all that waits for the network.
func (g *Large) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.Close()
	}
	g.conns = nil
}

// hold has c closed at the end. It returns false, and closes it, if the end has come.
func (g *Large) hold(c io.Closer) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns == nil {
		c.Close()
		return false
	}
	g.conns[c] = struct{}{}
	return true
}

func (g *Large) drop(c io.Closer) {
	c.Close()
	g.release(c)
}

// release leaves the closing to others.
func (g *Large) release(c io.Closer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}

// hangUp ends all connections, as what proved them is no longer valid; senders make new ones.
func (g *Large) hangUp() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		if conn, ok := c.(*tls.Conn); ok {
			conn.Close()
		}
	}
}

// listen opens one listener, and notes why it could not.
func (g *Large) listen(address netip.AddrPort) net.Listener {
	ln, err := net.Listen(network("tcp", address.Addr()), address.String())
	g.report(address, err)
	if err != nil || !g.hold(ln) {
		return nil
	}
	return ln
}

// serve accepts connections on one address until the context ends.
func (g *Large) serve(ctx context.Context, address netip.AddrPort, ln net.Listener) {
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
func (g *Large) forget(address netip.AddrPort) { g.report(address, nil) }

// report notes how it stands with one listener. Up means that all of them listen.
func (g *Large) report(address netip.AddrPort, err error) {
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

func (g *Large) accept(ln net.Listener) error {
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

// take finds out who calls and for what, and receives large messages or hands the connection on.
func (g *Large) take(conn *tls.Conn) {
	if !g.hold(conn) {
		return
	}
	ctx, cancel := context.WithTimeout(g.links.ctx, dialTimeout)
	defer cancel()
	if conn.HandshakeContext(ctx) != nil {
		g.strange.Add(1)
		g.drop(conn)
		return
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != identity.LinkProtocol {
		g.release(conn)
		if g.links.config.Others == nil {
			conn.Close()
			return
		}
		g.links.config.Others(conn)
		return
	}
	defer g.drop(conn)
	caller := g.links.config.Identity.Caller(state)
	if node, ok := caller.Node(); ok {
		g.receive(conn, node)
	}
}

// receive delivers what a node sends, until the connection ends or brings anything but that.
func (g *Large) receive(conn net.Conn, node cluster.NodeID) {
	var buf []byte
	for {
		_ = conn.SetReadDeadline(time.Now().Add(idleIncoming))
		var prefix [lengthPrefix]byte
		if _, err := io.ReadFull(conn, prefix[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint32(prefix[:]))
		if n > maxFramedSize {
			g.tooLarge.Add(1)
			return
		}
		buf = slices.Grow(buf[:0], n)[:n]
		if _, err := io.ReadFull(conn, buf); err != nil {
			return
		}
		// The envelope proves the sender by the cluster's key, which every node has; the certificate proves no
		// more. But a name that differs in both is a fault, and not to be believed in either.
		if claimed := wire.SenderOf(buf); claimed != node {
			g.peer(node).forged.Add(1)
			return
		}
		_, err := g.links.deliver(&g.counters, wire.LinkTCP, wire.LinkTCP, buf)
		if errors.Is(err, wire.ErrForged) || errors.Is(err, wire.ErrUnknownSender) {
			return
		}
	}
}

// enqueue puts a copy of an encoded message into the peer's queue and returns what had to make room.
func (g *Large) enqueue(to cluster.NodeID, m wire.Message, b []byte) ([]queued, error) {
	p := g.peers[to]
	if p == nil {
		return nil, ErrUnknownPeer
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, queued{m, slices.Clone(b)})
	p.bytes += len(b)
	var dropped []queued
	for len(p.queue) > maxQueued || (len(p.queue) > 1 && p.bytes > maxQueuedBytes) {
		dropped = append(dropped, p.queue[0])
		p.bytes -= len(p.queue[0].b)
		p.queue = slices.Delete(p.queue, 0, 1)
	}
	p.dropped.Add(uint64(len(dropped)))
	p.look()
	return dropped, nil
}

// giveUp tells that messages will not be sent.
func (g *Large) giveUp(to cluster.NodeID, messages []queued) {
	if tell := g.links.config.Undelivered; tell != nil {
		for _, q := range messages {
			tell(to, q.m)
		}
	}
}

func (p *largePeer) take() []queued {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.queue
	p.queue, p.bytes = nil, 0
	return all
}

// send sends what is in one peer's queue, over a connection that it keeps while there is something to send
// and its way is one of the peer's.
func (g *Large) send(p *largePeer) {
	var conn net.Conn
	var over route
	hangUp := func() {
		if conn != nil {
			g.drop(conn)
			conn = nil
		}
	}
	defer hangUp()
	idle := time.NewTimer(idleOutgoing)
	defer idle.Stop()
	for {
		idle.Reset(idleOutgoing)
		select {
		case <-p.ctx.Done():
			return
		case <-idle.C:
			hangUp()
			continue
		case <-p.wake:
		}
		if conn != nil && !slices.Contains(p.ways(), over) {
			hangUp()
		}
		messages := p.take()
		for i := 0; i < len(messages); i++ {
			fresh := conn == nil
			var err error
			if conn == nil {
				conn, over, err = g.dial(p)
			}
			if err == nil {
				err = g.write(conn, p.id, messages[i].b)
			}
			if err == nil {
				p.sent.Add(1)
				continue
			}
			hangUp()
			if !fresh {
				i-- // the peer may have restarted since: once more, over a new connection
				continue
			}
			// What can't be sent now is not kept: it is old when the peer is back, and who sent it repeats it.
			p.failed.Add(uint64(len(messages) - i))
			g.giveUp(p.id, messages[i:])
			if !wait(p.ctx, dialPause) {
				return
			}
			break
		}
	}
}

// write sends one message. It is sealed only now, so that the counters of a connection rise in order.
func (g *Large) write(conn net.Conn, to cluster.NodeID, message []byte) error {
	frame := make([]byte, lengthPrefix, lengthPrefix+wire.MaxEnvelope+len(message))
	g.links.sending.Lock()
	frame = g.links.config.Sealer.Seal(frame, wire.LinkTCP, to, message)
	g.links.sending.Unlock()
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-lengthPrefix))
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := conn.Write(frame)
	return err
}

func (g *Large) dialRoute(p *largePeer, r route) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	defer cancel()
	dialer := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(r.from, 0)),
		Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(ackTimeout.Milliseconds()))
			})
		},
	}
	raw, err := dialer.DialContext(ctx, network("tcp", r.to.Addr()), r.to.String())
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, g.links.config.Identity.Client(p.id, identity.LinkProtocol))
	if !g.hold(conn) {
		return nil, net.ErrClosed
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		g.drop(conn)
		return nil, fmt.Errorf("connect to %s at %s: %w", p.id, r.to, err)
	}
	// The peer sends nothing here; reading tells when it has gone, and closing makes the next write fail.
	g.links.wg.Go(func() {
		_, _ = io.Copy(io.Discard, conn)
		g.drop(conn)
	})
	return conn, nil
}
