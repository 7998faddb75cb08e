// Package link carries messages between nodes, each as one UDP datagram over every link at once. Every message travels
// in wire's envelope, so what reaches the handler was sealed by a node that knows the cluster key, for this node, and is
// delivered once per link. It also opens the doors for the API: TCP with TLS, at the same addresses and ports.
//
// Sending never waits: what the kernel does not take at once is dropped and counted. The protocol
// tolerates loss, reordering and delay, and repeats what matters.
package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
	"baton/internal/io/identity"
	"baton/internal/io/nowait"
)

// retryInterval is how long a link waits after its socket could not be opened.
const retryInterval = time.Second

// ErrUnknownPeer is returned for a message to a node that is on no link.
var ErrUnknownPeer = errors.New("no link leads to this node")

// Handler takes one message; link is the index in the links of Open or the last Reconfigure. It is called from Receive.
// It must return promptly, and call no method of Links.
type Handler func(from cluster.NodeID, run cluster.RunID, link int, m wire.Message)

// Config says what to open.
type Config struct {
	// Keys are the cluster's keys, of wire.KeySize bytes each: all are accepted, the first is the Sealer's.
	Keys [][]byte
	// Identity proves in TLS who this node is, under the same keys.
	Identity *identity.Identity
	// Sealer seals what is sent. There is one per run of the agent; only one Links may use it at a time.
	Sealer *wire.Sealer
	// Links are the cluster's links in the file's order, at most 255. A link's index is its place here. Between
	// nodes it is known by its name, since two nodes may have read different revisions of the file. Those that
	// this node is not on, and those that are not UDP, are left alone.
	Links   []cluster.LinkSpec
	Handler Handler
	// Quiet keeps Links from trying by itself which sizes of packets arrive.
	Quiet bool
	// Changed tells that the link of this name can or can't be used any more, and why. It may be nil, must not
	// block, and must call no method of Links.
	Changed func(link string, up bool, detail string)
	// Address returns another address, with port, at which connections are taken, each time that links are
	// made; nil, or an invalid address: none but the links'.
	Address func() netip.AddrPort
	// Others takes connections, after the handshake, and closes them. It must not block. Nil: they are closed.
	Others func(*tls.Conn)
}

// Links are this node's open links. Its methods may be called from any goroutine.
type Links struct {
	config  Config
	self    cluster.NodeID
	udp     []*udpLink // by index; nil where this node has no part in the link. Changed with both locks held
	doors   *doors
	ctx     context.Context // ends when the links are closed
	cancel  context.CancelFunc
	closing sync.Once
	wg      sync.WaitGroup

	changing  sync.Mutex // one change at a time; taken before the locks below
	receiving sync.Mutex // held while packets are received and sockets are opened; guards buffer and indexes

	sending sync.Mutex // guards the sealer, the buffers, and the links' peers and sockets while they send
	message []byte
	packet  []byte

	epoll  int // watches every socket
	buffer []byte
	source nowait.Address             // of the packet in buffer; guarded by receiving
	voices map[cluster.NodeID][]voice // who speaks as each node; guarded by receiving

	opening sync.Mutex // guards the opener
	opener  *wire.Opener
}

// Open opens every link. The caller receives: it waits for Fd and calls Receive. A link whose address is not
// there yet, or is in use, is no error: it is tried again each second, and Changed and Stats tell about it.
// An error is a mistake in Config.
func Open(config Config) (*Links, error) {
	l := &Links{
		config: config, self: config.Sealer.Node(),
		message: make([]byte, 0, wire.MaxDatagram), packet: make([]byte, 0, wire.MaxDatagram+wire.MaxEnvelope),
		buffer: make([]byte, maxPacket+1), voices: make(map[cluster.NodeID][]voice),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	var err error
	if l.opener, err = wire.NewOpener(config.Keys, l.self, nil); err != nil {
		return nil, fmt.Errorf("open links: %w", err)
	}
	l.doors = newDoors(l)
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("open links: %w", err)
	}
	if err := l.Reconfigure(config.Links); err != nil {
		l.cancel()
		return nil, errors.Join(err, unix.Close(l.epoll))
	}
	if !config.Quiet {
		l.wg.Go(l.trySizes)
	}
	return l, nil
}

// Close ends every goroutine and closes every socket.
func (l *Links) Close() {
	l.closing.Do(func() {
		l.changing.Lock()
		defer l.changing.Unlock()
		l.cancel()
		l.doors.close()
		l.wg.Wait()
		l.receiving.Lock()
		defer l.receiving.Unlock()
		for _, u := range l.udp {
			if u != nil {
				u.close(l)
			}
		}
		_ = unix.Close(l.epoll)
		l.epoll = -1
	})
	l.wg.Wait()
}

// Fd returns a descriptor that is readable while packets wait (epoll(7); it may be watched by another). It
// is closed by Close.
func (l *Links) Fd() int { return l.epoll }

// Receive hands packets that wait to the handler; if more wait than it takes at once, Fd stays readable. It
// never waits for one.
func (l *Links) Receive() {
	l.receiving.Lock()
	defer l.receiving.Unlock()
	for _, u := range l.udp {
		if u != nil {
			u.receive(l)
		}
	}
}

// wait returns false if the context ends before d has passed.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Send sends a message to one node over all links at once. It returns an error only if the message can't be encoded, no
// datagram holds it, or no link leads there: a lost message is no error.
func (l *Links) Send(to cluster.NodeID, m wire.Message) error { return l.send(-1, to, m) }

// SendOn is Send over one link only.
func (l *Links) SendOn(link int, to cluster.NodeID, m wire.Message) error { return l.send(link, to, m) }

func (l *Links) send(link int, to cluster.NodeID, m wire.Message) error {
	l.sending.Lock()
	err := l.sendLocked(link, to, m)
	l.sending.Unlock()
	if err != nil {
		return fmt.Errorf("send to %s: %w", to, err)
	}
	return nil
}

func (l *Links) sendLocked(link int, to cluster.NodeID, m wire.Message) error {
	b, err := wire.Append(l.message[:0], m)
	if err != nil {
		return err
	}
	if len(b) > wire.MaxDatagram {
		return fmt.Errorf("a message of %d bytes, a datagram holds %d", len(b), wire.MaxDatagram)
	}
	found := false
	for i, u := range l.udp {
		if u == nil || (link >= 0 && i != link) {
			continue
		}
		p := u.peers[to]
		if p == nil {
			continue
		}
		found = true
		l.packet = l.config.Sealer.Seal(l.packet[:0], u.tag, to, b)
		u.send(p, l.packet)
	}
	if !found {
		return ErrUnknownPeer
	}
	return nil
}

// deliver opens a packet that came over the link of this tag and index, and hands its message on. It returns
// the sender; an error says why nothing was handed on, and has been counted.
func (l *Links) deliver(c *counters, tag uint8, index int, packet []byte) (cluster.NodeID, error) {
	from, run, payload, err := l.open(tag, packet)
	if err != nil {
		c.refuse(from, err)
		return from, err
	}
	m, err := wire.Decode(payload)
	if err != nil {
		c.peer(from).malformed.Add(1)
		return from, err
	}
	c.peer(from).received.Add(1)
	l.hears(from, run, l.source.AddrPort(), time.Now())
	if !l.probed(index, from, m) {
		l.config.Handler(from, run, index, m)
	}
	return from, nil
}

func (l *Links) open(tag uint8, packet []byte) (cluster.NodeID, cluster.RunID, []byte, error) {
	if claimed := wire.LinkOf(packet); claimed >= 0 && claimed != int(tag) {
		return "", 0, nil, errWrongLink
	}
	l.opening.Lock()
	defer l.opening.Unlock()
	from, run, _, payload, err := l.opener.Open(packet)
	return from, run, payload, err
}

var errWrongLink = errors.New("packet was sent over another link")

// PeerStats counts packets to and from one node over one link.
type PeerStats struct {
	Sent      uint64
	Dropped   uint64 // the kernel had no room
	Failed    uint64 // the kernel refused: no route, a firewall
	Received  uint64 // handed to the handler
	Forged    uint64 // claimed to come from this node and did not
	Replayed  uint64 // seen before, or too old to tell
	Malformed uint64 // authentic, and yet not understood: another release
}

// Stats counts what came over one link and was not from a node of this cluster, and its state.
type Stats struct {
	Link      string
	Up        bool
	Detail    string // why it is not up
	Strange   uint64 // no packet of this protocol, or truncated
	TooLarge  uint64
	Unknown   uint64 // claimed a sender that is not on any link
	WrongLink uint64
	Peers     map[cluster.NodeID]PeerStats
}

// Stats returns the counters of every link that this node is on, in order, and last those of TCP's callers.
func (l *Links) Stats() []Stats {
	var all []Stats
	l.sending.Lock()
	udp := l.udp
	l.sending.Unlock()
	for _, u := range udp {
		if u != nil {
			s := u.stats()
			s.Link = u.name
			s.Up, s.Detail = u.state()
			all = append(all, s)
		}
	}
	s := l.doors.stats()
	s.Link = "tcp"
	s.Up, s.Detail = l.doors.state()
	return append(all, s)
}

type peerCounters struct {
	sent, dropped, failed, received, forged, replayed, malformed atomic.Uint64
}

// counters are those of one link.
type counters struct {
	strange, tooLarge, unknown, wrongLink atomic.Uint64
	byPeer                                atomic.Pointer[map[cluster.NodeID]*peerCounters] // never changed, but replaced
	elsewhere                             peerCounters                                     // of nodes that are not on this link
}

// know makes these the peers that are counted apart; those of before go on from where they were.
func (c *counters) know(peers []cluster.NodeID) {
	next := make(map[cluster.NodeID]*peerCounters)
	for _, id := range peers {
		if next[id] = c.peer(id); next[id] == &c.elsewhere {
			next[id] = new(peerCounters)
		}
	}
	c.byPeer.Store(&next)
}

func (c *counters) peer(id cluster.NodeID) *peerCounters {
	if all := c.byPeer.Load(); all != nil && (*all)[id] != nil {
		return (*all)[id]
	}
	return &c.elsewhere
}

func (c *counters) refuse(from cluster.NodeID, err error) {
	switch {
	case errors.Is(err, wire.ErrForged):
		c.peer(from).forged.Add(1)
	case errors.Is(err, wire.ErrReplayed):
		c.peer(from).replayed.Add(1)
	case errors.Is(err, wire.ErrUnknownSender):
		c.unknown.Add(1)
	case errors.Is(err, wire.ErrTooLarge):
		c.tooLarge.Add(1)
	case errors.Is(err, errWrongLink):
		c.wrongLink.Add(1)
	default:
		c.strange.Add(1)
	}
}

func (c *counters) stats() Stats {
	s := Stats{
		Strange: c.strange.Load(), TooLarge: c.tooLarge.Load(), Unknown: c.unknown.Load(), WrongLink: c.wrongLink.Load(),
		Peers: make(map[cluster.NodeID]PeerStats),
	}
	for id, p := range *c.byPeer.Load() {
		s.Peers[id] = PeerStats{
			Sent: p.sent.Load(), Dropped: p.dropped.Load(), Failed: p.failed.Load(), Received: p.received.Load(),
			Forged: p.forged.Load(), Replayed: p.replayed.Load(), Malformed: p.malformed.Load(),
		}
	}
	return s
}

// lamp is the state of a link.
type lamp struct {
	mu     sync.Mutex
	up     bool
	detail string
}

// set returns true if that is news.
func (s *lamp) set(up bool, detail string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.up != up || s.detail != detail
	s.up, s.detail = up, detail
	return news
}

func (s *lamp) state() (up bool, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up, s.detail
}

func network(kind string, a netip.Addr) string {
	if a.Is4() {
		return kind + "4"
	}
	return kind + "6"
}
