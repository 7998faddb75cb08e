package link

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

const (
	receiveBuffer = 1 << 20 // bytes of SO_RCVBUF: a stall of the agent must not lose what was said meanwhile
	classCS6      = 0xc0    // DSCP CS6, network control (RFC 4594, 3.2), in the TOS byte
	receiveBatch  = 256     // packets taken at once: a flood must not keep the caller from its other work
	priority      = 6       // SO_PRIORITY: the highest without a privilege (socket(7))
	maxPacket     = wire.MaxDatagram + wire.MaxEnvelope
)

// udpLink is one link's socket on this node. The socket comes when the address does, and then stays: it
// survives that the address goes and comes back.
type udpLink struct {
	counters
	lamp
	index   uint8
	name    string
	address netip.AddrPort
	peers   map[cluster.NodeID]*udpPeer
	socket  atomic.Pointer[socket]
}

type udpPeer struct {
	address netip.AddrPort
	to      unix.Sockaddr
	*peerCounters
}

// socket is one open socket. It is not among the Go runtime's own: that would wake a thread of the runtime
// for each packet, which the caller's own waiting (Links.Fd) then repeats.
type socket struct {
	fd int
}

func newUDPLink(index int, spec cluster.LinkSpec, self cluster.NodeID) *udpLink {
	u := &udpLink{
		index: uint8(index), name: spec.Name, peers: make(map[cluster.NodeID]*udpPeer),
		address: netip.AddrPortFrom(spec.UDP.Addresses[self].Unmap(), spec.UDP.Port),
	}
	var ids []cluster.NodeID
	for id := range spec.UDP.Addresses {
		if id != self {
			ids = append(ids, id)
		}
	}
	u.know(ids)
	for _, id := range ids {
		address := netip.AddrPortFrom(spec.UDP.Addresses[id].Unmap(), spec.UDP.Port)
		u.peers[id] = &udpPeer{address: address, to: sockaddr(address), peerCounters: u.byPeer[id]}
	}
	return u
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// bind opens the socket, and notes why it could not.
func (u *udpLink) bind(l *Links) {
	s, err := openSocket(u.address)
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
		l.config.Changed(int(u.index), up, detail)
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
	err := unix.Sendto(s.fd, packet, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, p.to)
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
	for l.wait(retryInterval) {
		if u.socket.Load() == nil {
			u.bind(l)
		}
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
		n, err := unix.Read(s.fd, l.buffer)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			u.close(l)
			if u.set(false, err.Error()) && l.config.Changed != nil {
				l.config.Changed(int(u.index), false, err.Error())
			}
			return
		case n > maxPacket:
			u.tooLarge.Add(1)
		default:
			_, _ = l.deliver(&u.counters, u.index, l.buffer[:n]) // counted there
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
