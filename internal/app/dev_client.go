package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/io/nowait"
)

const (
	askEvery = time.Millisecond
	// gapShown is the shortest time without an answer that is worth a line: shorter ones come from a busy
	// machine. What comes with a change of node is told in any case.
	gapShown = 30 * time.Millisecond
	// lateShown is how late an answer must be to be worth one.
	lateShown = 100 * time.Millisecond
	// sightingsMax bounds what waits to be shown; more are counted only.
	sightingsMax = 256
	// askPriority is the client's real-time priority, where it may have one: below all agents.
	askPriority = 1
	// oldest is how many requests may be outstanding; an answer to an earlier one is too late to count.
	oldest = 4096
)

// answer is one answer to a request.
type answer struct {
	seq      uint64
	node     string
	epoch    uint64
	sent, at time.Duration
}

// sighting is what a client tells a person: who answers now, after which gap.
type sighting struct {
	node  string
	epoch uint64
	gap   time.Duration // before this answer
	moved bool          // it is the first of this node and epoch
	late  time.Duration // the service was slow: no request was lost, but the answer took so long
	wall  time.Time
}

// placement is one node's tenure as a client knows it.
type placement struct {
	node        string
	epoch       uint64
	first, last answer
}

// sightings judges answers as they come: who answers, how long nobody did, and whether two did at once.
type sightings struct {
	began   time.Duration
	last    time.Duration // of any answer
	stalled time.Duration // for which the client itself stood still since then
	highest uint64        // request that was answered
	newest  answer        // of the highest epoch
	older   answer        // the newest of those under a lower epoch than was seen before
	longest time.Duration // without an answer, since the last mark
	placed  []placement   // since the last mark, in the order of their first answer
	changes int           // of the node that answers, since the last mark
}

// since is when the silence began that goes on now.
func (s *sightings) since() time.Duration { return max(s.began, s.last) }

// add takes in an answer. It tells whether a person wants to know. While one node serves on, two things are
// no gap: one through most of which the client itself did not run, and one after which the very next
// request is answered, since then the service (or its machine) was busy and nothing was lost.
func (s *sightings) add(a answer) (sighting, bool) {
	gap, late := a.at-s.since(), time.Duration(0)
	moved := a.epoch > s.newest.epoch || s.newest.node == ""
	switch {
	case moved:
	case 2*s.stalled > gap:
		gap = 0
	case a.seq <= s.highest+1:
		gap, late = 0, gap
	}
	s.highest = max(s.highest, a.seq)
	s.last, s.stalled = a.at, 0
	s.longest = max(s.longest, gap)
	out := sighting{node: a.node, epoch: a.epoch, gap: gap, late: late, moved: moved}
	switch {
	case a.epoch < s.newest.epoch:
		s.older = a
	default:
		if s.newest.node != "" && a.node != s.newest.node {
			s.changes++
		}
		s.newest = a
	}
	s.place(a)
	return out, out.moved || gap >= gapShown || late >= lateShown
}

func (s *sightings) place(a answer) {
	for i := range s.placed {
		if p := &s.placed[i]; p.node == a.node && p.epoch == a.epoch {
			if a.seq > p.last.seq {
				p.last = a
			}
			return
		}
	}
	s.placed = append(s.placed, placement{a.node, a.epoch, a, a})
}

// mark begins a new time to judge.
func (s *sightings) mark() { s.longest, s.placed, s.changes = 0, nil, 0 }

// both returns the longest time for which two nodes answered: from the first answer of the one with the
// higher epoch to the sending of the last request that the other one answered. When the first answer's request was
// sent proves nothing: all nodes on loopback are asked, and on a busy machine it may have lain in the socket
// from before the node served.
func (s *sightings) both() time.Duration {
	var longest time.Duration
	for i, old := range s.placed {
		for _, other := range s.placed[i+1:] {
			former, later := old, other
			if later.epoch < former.epoch {
				former, later = later, former
			}
			if former.node != later.node {
				longest = max(longest, former.last.sent-later.first.at)
			}
		}
	}
	return longest
}

// devClient asks a service all the time, as a client of it would, and notes who answers.
type devClient struct {
	conn    *net.UDPConn
	targets []unix.Sockaddr // all are asked; in a cluster with an address it is one
	news    chan sighting
	stop    context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	sight    sightings
	sent     map[uint64]time.Duration // when the requests that may still be answered were sent
	requests uint64
	answers  uint64
}

// newDevClient begins to ask. It owns the connection.
func newDevClient(conn net.PacketConn, targets []netip.AddrPort) (*devClient, error) {
	ctx, stop := context.WithCancel(context.Background())
	c := &devClient{conn: conn.(*net.UDPConn), news: make(chan sighting, sightingsMax), stop: stop, sent: make(map[uint64]time.Duration)}
	for _, t := range targets {
		c.targets = append(c.targets, &unix.SockaddrInet4{Addr: t.Addr().As4(), Port: int(t.Port())})
	}
	raw, err := c.conn.SyscallConn()
	if err != nil {
		stop()
		return nil, errors.Join(err, conn.Close())
	}
	c.sight.began = monotonic()
	c.running.Go(func() { c.run(ctx, raw) })
	return c, nil
}

func (c *devClient) close() error {
	c.stop()
	c.running.Wait()
	return c.conn.Close()
}

// monotonic reads CLOCK_MONOTONIC.
func monotonic() time.Duration { return time.Duration(nowait.Clock(unix.CLOCK_MONOTONIC)) }

// run takes what was answered and asks again, each millisecond, whether answers come or not. It is one
// thread of its own, with real-time priority if it may, so that what it sees is the service's time.
func (c *devClient) run(ctx context.Context, raw syscall.RawConn) {
	runtime.LockOSThread() // never unlocked: the thread ends with its priority
	// Without the right to it, the client is as late as its machine is busy.
	_ = setScheduler(unix.SCHED_FIFO, askPriority)
	buffer := make([]byte, 512)
	last := monotonic()
	for ctx.Err() == nil {
		now := monotonic()
		if rest := last + askEvery - now; rest > 0 {
			ts := unix.NsecToTimespec(int64(rest))
			_ = unix.Nanosleep(&ts, nil) // interrupted, it asks a little early
			now = monotonic()
		}
		late := now - last - askEvery
		last = now
		// An error is that of a socket which is being closed.
		_ = raw.Control(func(fd uintptr) {
			for {
				n, _, err := unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT)
				if err == unix.EAGAIN || err == unix.EBADF {
					break
				}
				if err == nil {
					c.take(buffer[:n], now, late)
				} // else it is an ICMP error for an earlier request
			}
			c.ask(int(fd), now)
		})
		c.mu.Lock()
		if late > askEvery {
			c.sight.stalled += late
		}
		c.mu.Unlock()
	}
}

// ask sends one request to every target.
func (c *devClient) ask(fd int, now time.Duration) {
	c.mu.Lock()
	c.requests++
	seq := c.requests
	c.sent[seq] = now
	delete(c.sent, seq-oldest)
	c.mu.Unlock()
	request := strconv.AppendUint(nil, seq, 10)
	for _, t := range c.targets {
		// A request that can't be sent, since no neighbour has the address, is one without an answer.
		_ = unix.Sendto(fd, request, unix.MSG_DONTWAIT, t)
	}
}

// take takes an answer, "NODE EPOCH REQUEST".
func (c *devClient) take(text []byte, now, late time.Duration) {
	a := answer{at: now}
	if k, _ := fmt.Sscanf(string(text), "%s %d %d", &a.node, &a.epoch, &a.seq); k != 3 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	sent, ok := c.sent[a.seq]
	if !ok {
		return
	}
	a.sent = sent
	c.answers++
	if late > askEvery {
		c.sight.stalled += late
	}
	if s, worth := c.sight.add(a); worth {
		s.wall = time.Now()
		select {
		case c.news <- s:
		default: // nobody shows them so fast
		}
	}
}

// view is what a client has seen since the last mark.
type clientView struct {
	node    string // who answered last; empty: nobody ever did
	epoch   uint64
	silence time.Duration // since the last answer
	longest time.Duration // without an answer, that under way included
	both    time.Duration // two nodes answered
	changes int
	answers uint64
	// older is the last node that answered under a lower epoch than was seen before, and how long ago.
	older    string
	olderAgo time.Duration
}

func (c *devClient) view() clientView {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.sight
	now := monotonic()
	v := clientView{node: s.newest.node, epoch: s.newest.epoch, silence: now - s.since(), longest: s.longest, both: s.both(), changes: s.changes, answers: c.answers}
	if s.older.node != "" {
		v.older, v.olderAgo = s.older.node, now-s.older.at
	}
	if v.silence >= gapShown {
		v.longest = max(v.longest, v.silence)
	}
	return v
}

func (c *devClient) mark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sight.mark()
}
