package link

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
	"baton/internal/io/nowait"
)

const (
	receiveBuffer = 1 << 20 // bytes of SO_RCVBUF: a stall of the agent must not lose what was said meanwhile
	classCS6      = 0xc0    // DSCP CS6, network control (RFC 4594, 3.2), in the TOS byte
	receiveBatch  = 256     // packets taken at once: a flood must not keep the caller from its other work
	priority      = 6       // SO_PRIORITY: the highest without a privilege (socket(7))
	maxPacket     = wire.MaxDatagram + wire.MaxEnvelope
)

// udpLink is one link's socket on this node. The socket comes when the address does, and then stays: it
// survives that the address goes and comes back, and every change of the file that leaves the link's name and
// this node's address alone.
type udpLink struct {
	counters
	lamp
	name    string
	tag     uint8
	address netip.AddrPort
	ctx     context.Context // ends when the link goes
	end     context.CancelFunc
	socket  atomic.Pointer[socket]

	index int                         // in the file; guarded by Links.receiving
	cause error                       // why there is no socket; guarded by Links.receiving
	peers map[cluster.NodeID]*udpPeer // guarded by Links.sending
	sizes map[cluster.NodeID]*sizing  // guarded by Links.sending
}

type udpPeer struct {
	address netip.AddrPort
	to      *nowait.Address
	*peerCounters
}

// socket is one open socket. It is not among the Go runtime's own: that would wake a thread of the runtime
// for each packet, which the caller's own waiting (Links.Fd) then repeats.
type socket struct {
	fd int
}

func newUDPLink(l *Links, name string, address netip.AddrPort) *udpLink {
	u := &udpLink{name: name, tag: tagOf(name), address: address, sizes: make(map[cluster.NodeID]*sizing)}
	u.ctx, u.end = context.WithCancel(l.ctx)
	return u
}

// tagOf is what a packet says of the link that it goes over. It is made from the link's name and not from its
// place in the file: where a revision puts a link before the others, nodes that have it and nodes that do not
// must go on hearing each other over the others. Two names may have the same tag; then a packet of one that
// somebody sends on over the other passes, once.
func tagOf(name string) uint8 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return uint8(h.Sum32() % wire.LinksMax)
}

// meet makes these the nodes that the link joins. Links.sending is held, or the link is not in use yet.
func (u *udpLink) meet(self cluster.NodeID, spec *cluster.UDPLink) {
	var ids []cluster.NodeID
	for id := range spec.Addresses {
		if id != self {
			ids = append(ids, id)
		}
	}
	u.know(ids)
	peers := make(map[cluster.NodeID]*udpPeer)
	for _, id := range ids {
		address := netip.AddrPortFrom(spec.Addresses[id].Unmap(), spec.Port)
		peers[id] = &udpPeer{address: address, to: nowait.NewAddress(address), peerCounters: u.peer(id)}
	}
	u.peers = peers
	maps.DeleteFunc(u.sizes, func(id cluster.NodeID, _ *sizing) bool { return peers[id] == nil })
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// bind opens the socket, and notes why it could not. Links.receiving is held.
func (u *udpLink) bind(l *Links) {
	s, err := openSocket(u.address)
	u.cause = err
	up, detail := err == nil, ""
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		detail = fmt.Sprintf("no address yet: %s is not on this node", u.address.Addr())
	} else if err != nil {
		detail = err.Error()
	}
	if up {
		// The descriptor's end ends the watching too.
		_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.fd)})
		u.socket.Store(s)
	}
	if u.set(up, detail) && l.config.Changed != nil {
		l.config.Changed(u.name, up, detail)
	}
}

// openSocket opens a socket that neither sends nor receives with waiting.
func openSocket(address netip.AddrPort) (s *socket, err error) {
	domain := unix.AF_INET
	if !address.Addr().Is4() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a UDP socket: %w", err)
	}
	// A host that refuses one of these serves all the same.
	if domain == unix.AF_INET {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, classCS6)
	} else {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, classCS6)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	// After IP_TOS, which sets the priority too (ip(7)).
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, priority)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if err := unix.Bind(fd, sockaddr(address)); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind %s: %w", address, err)
	}
	return &socket{fd}, nil
}

// send hands a packet to the kernel, or counts why not. Links.sending is held: the socket is not closed
// meanwhile.
func (u *udpLink) send(p *udpPeer, packet []byte) {
	s := u.socket.Load()
	if s == nil {
		p.failed.Add(1)
		return
	}
	err := nowait.Send(s.fd, packet, p.to)
	switch {
	case err == nil:
		p.sent.Add(1)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
		p.dropped.Add(1)
	default:
		p.failed.Add(1)
	}
}

// keep opens the socket again, each retryInterval, while there is none.
func (u *udpLink) keep(l *Links) {
	for wait(u.ctx, retryInterval) {
		l.receiving.Lock()
		if u.ctx.Err() == nil && u.socket.Load() == nil {
			u.bind(l)
		}
		l.receiving.Unlock()
	}
}

// receive hands the packets that wait to the handler, at most receiveBatch of them. An error makes the socket useless: it is closed,
// and opened anew by keep. Links.receiving is held.
func (u *udpLink) receive(l *Links) {
	s := u.socket.Load()
	if s == nil {
		return
	}
	for range receiveBatch {
		n, err := nowait.Receive(s.fd, l.buffer, &l.source)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			u.close(l)
			u.cause = err
			if u.set(false, err.Error()) && l.config.Changed != nil {
				l.config.Changed(u.name, false, err.Error())
			}
			return
		case n > maxPacket:
			u.tooLarge.Add(1)
		default:
			_, _ = l.deliver(&u.counters, u.tag, u.index, l.buffer[:n]) // counted there
		}
	}
}

// close closes the socket. Links.receiving is held.
func (u *udpLink) close(l *Links) {
	l.sending.Lock()
	defer l.sending.Unlock()
	if s := u.socket.Swap(nil); s != nil {
		_ = unix.Close(s.fd)
	}
}
