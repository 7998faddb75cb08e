package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	askEvery = 2 * time.Millisecond
	// gapShown is the shortest time without an answer that is worth a line.
	gapShown = 20 * time.Millisecond
	// sightingsMax bounds what waits to be shown; more are counted only.
	sightingsMax = 256
)

// answer is one answer to a request.
type answer struct {
	seq      uint64
	node     string
	epoch    uint64 // 0: the service knows none
	sent, at time.Duration
}

// sighting is what a client tells a person: who answers now, after which gap.
type sighting struct {
	node  string
	epoch uint64
	gap   time.Duration // before this answer
	moved bool          // another node, or a new epoch, than before
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
	last    answer
	any     bool // there is a last answer
	longest time.Duration
	placed  []placement // since the last mark, in the order of their first answer
	changes int         // of the node that answers, since the last mark
}

// add takes in an answer. It tells whether a person wants to know.
func (s *sightings) add(a answer) (sighting, bool) {
	out := sighting{node: a.node, epoch: a.epoch, gap: a.at - s.last.at, moved: a.node != s.last.node || a.epoch != s.last.epoch}
	if !s.any {
		out.gap = a.at - s.began
	}
	s.longest = max(s.longest, out.gap)
	if s.any && a.node != s.last.node {
		s.changes++
	}
	s.any, s.last = true, a
	for i := range s.placed {
		if p := &s.placed[i]; p.node == a.node && p.epoch == a.epoch {
			if a.seq > p.last.seq {
				p.last = a
			}
			return out, out.moved || out.gap >= gapShown
		}
	}
	s.placed = append(s.placed, placement{a.node, a.epoch, a, a})
	return out, out.moved || out.gap >= gapShown
}

// mark begins a new time to judge.
func (s *sightings) mark() { s.longest, s.placed, s.changes = 0, nil, 0 }

// both returns the longest time for which two nodes answered: from the sending of the first request that
// the one with the higher epoch answered to that of the last that the other one did.
func (s *sightings) both() time.Duration {
	var longest time.Duration
	for i, old := range s.placed {
		for _, other := range s.placed[i+1:] {
			former, later := old, other
			if later.epoch < former.epoch {
				former, later = later, former
			}
			if former.node != later.node && former.last.seq > later.first.seq {
				longest = max(longest, former.last.sent-later.first.sent)
			}
		}
	}
	return longest
}

// devClient asks a service all the time, as a client of it would, and notes who answers.
type devClient struct {
	conn    net.PacketConn
	targets []netip.AddrPort // all are asked; in a cluster with an address it is one
	news    chan sighting
	stop    context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	sight    sightings
	sent     map[uint64]time.Duration // when the requests that may still be answered were sent
	requests uint64
	answers  uint64
}

// oldest is how many requests may be outstanding; an answer to an earlier one is too late to count.
const oldest = 4096

// newDevClient begins to ask. It owns the connection.
func newDevClient(conn net.PacketConn, targets []netip.AddrPort) *devClient {
	ctx, stop := context.WithCancel(context.Background())
	c := &devClient{conn: conn, targets: targets, news: make(chan sighting, sightingsMax), stop: stop, sent: make(map[uint64]time.Duration)}
	c.sight.began = monotonic()
	c.running.Go(func() { c.ask(ctx) })
	c.running.Go(c.listen)
	return c
}

func (c *devClient) close() error {
	c.stop()
	err := c.conn.Close()
	c.running.Wait()
	return err
}

// monotonic reads CLOCK_MONOTONIC.
func monotonic() time.Duration { return time.Duration(read(unix.CLOCK_MONOTONIC)) }

// ask sends requests on time, whether answers come or not.
func (c *devClient) ask(ctx context.Context) {
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		c.mu.Lock()
		c.requests++
		seq := c.requests
		c.sent[seq] = monotonic()
		delete(c.sent, seq-oldest)
		c.mu.Unlock()
		request := strconv.AppendUint(nil, seq, 10)
		for _, t := range c.targets {
			// A request that can't be sent, since no neighbour has the address, is one without an answer.
			_, _ = c.conn.WriteTo(request, net.UDPAddrFromAddrPort(t))
		}
	}
}

// listen takes answers, "NODE EPOCH REQUEST", until the connection is closed.
func (c *devClient) listen() {
	buffer := make([]byte, 512)
	for {
		n, _, err := c.conn.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for an earlier request
		}
		a := answer{at: monotonic()}
		if k, _ := fmt.Sscanf(string(buffer[:n]), "%s %d %d", &a.node, &a.epoch, &a.seq); k == 3 {
			c.take(a)
		}
	}
}

func (c *devClient) take(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent, ok := c.sent[a.seq]
	if !ok {
		return
	}
	a.sent = sent
	c.answers++
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
}

func (c *devClient) view() clientView {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.sight
	since := s.last.at
	if !s.any {
		since = s.began
	}
	v := clientView{s.last.node, s.last.epoch, monotonic() - since, s.longest, s.both(), s.changes, c.answers}
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
