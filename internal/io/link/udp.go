package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

const (
	receiveBuffer = 1 << 20 // bytes of SO_RCVBUF: a stall of the agent must not lose what was said meanwhile
	classCS6      = 0xc0    // DSCP CS6, network control (RFC 4594, 3.2), in the TOS byte
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

// socket sends without waiting. Its fields are guarded by Links.sending.
type socket struct {
	conn   *net.UDPConn
	raw    syscall.RawConn
	sendto func(fd uintptr) bool // made once, so that sending allocates nothing
	packet []byte
	to     unix.Sockaddr
	err    error
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
		u.socket.Store(s)
	}
	if u.set(up, detail) && l.config.Changed != nil {
		l.config.Changed(int(u.index), up, detail)
	}
}

func openSocket(address netip.AddrPort) (*socket, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		// A host that refuses one of these serves all the same.
		return raw.Control(func(fd uintptr) {
			if address.Addr().Is4() {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, classCS6)
			} else {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_TCLASS, classCS6)
			}
			// After IP_TOS, which sets the priority too (ip(7)).
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, priority)
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
			}
		})
	}}
	pc, err := lc.ListenPacket(context.Background(), network("udp", address.Addr()), address.String())
	if err != nil {
		return nil, err
	}
	s := &socket{conn: pc.(*net.UDPConn)}
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		s.conn.Close()
		return nil, err
	}
	s.sendto = func(fd uintptr) bool {
		s.err = unix.Sendto(int(fd), s.packet, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, s.to)
		return true // never wait until there is room
	}
	return s, nil
}

// send hands a packet to the kernel, or counts why not.
func (u *udpLink) send(p *udpPeer, packet []byte) {
	s := u.socket.Load()
	if s == nil {
		p.failed.Add(1)
		return
	}
	s.packet, s.to, s.err = packet, p.to, nil
	if err := s.raw.Write(s.sendto); err != nil {
		s.err = err
	}
	switch {
	case s.err == nil:
		p.sent.Add(1)
	case errors.Is(s.err, unix.EAGAIN), errors.Is(s.err, unix.ENOBUFS):
		p.dropped.Add(1)
	default:
		p.failed.Add(1)
	}
}

// run receives until the links are closed.
func (u *udpLink) run(l *Links) {
	buf := make([]byte, maxPacket+1)
	for {
		if s := u.socket.Load(); s != nil {
			err := u.receive(l, s, buf)
			s.conn.Close()
			u.socket.Store(nil)
			select {
			case <-l.ctx.Done():
				return
			default:
			}
			if u.set(false, err.Error()) && l.config.Changed != nil {
				l.config.Changed(int(u.index), false, err.Error())
			}
		}
		if !l.wait(retryInterval) {
			return
		}
		u.bind(l)
	}
}

// receive returns the error that makes the socket useless.
func (u *udpLink) receive(l *Links, s *socket, buf []byte) error {
	for {
		select {
		case <-l.ctx.Done():
			return net.ErrClosed
		default:
		}
		n, _, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		if n > maxPacket {
			u.tooLarge.Add(1)
			continue
		}
		_, _ = l.deliver(&u.counters, u.index, buf[:n]) // counted there
	}
}

// close wakes the receiver, which closes the socket.
func (u *udpLink) close() {
	if s := u.socket.Load(); s != nil {
		s.conn.Close()
	}
}
