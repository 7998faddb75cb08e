package api

import (
	"context"
	"errors"
	"sync"
	"time"

	"baton/internal/core/cluster"
)

// Vitals is how an agent is, for monitors: what the loop knows, and what the parts around it have counted.
type Vitals struct {
	Overview     *cluster.Overview
	Links        []LinkVitals
	InboxDropped uint64 // packets that waited for the core and were displaced
	LogDropped   uint64 // lines of the log
	at           time.Time
}

// LinkVitals counts what went over one link.
type LinkVitals struct {
	Link    string // a link's name, or "tcp"
	Up      bool
	Strange uint64 // packets that came from no node of this cluster
	Peers   []PeerVitals
}

// PeerVitals counts packets to and from one node over one link.
type PeerVitals struct {
	Node           cluster.NodeID
	Sent, Received uint64
	Dropped        uint64 // there was no room to send
	Failed         uint64 // could not be sent
	Forged         uint64 // came, and was not that node's
	Replayed       uint64 // came before
	Malformed      uint64 // was not understood
	Narrow         bool   // full packets are lost on the way there, small ones arrive
}

// vitalsFor is how long one look serves whoever asks: monitors that nobody vouches for may ask as often as
// they like, and the loop is asked no more often than this.
const vitalsFor = 50 * time.Millisecond

var errNoVitals = errors.New("the agent's loop does not answer")

// gauge takes the vitals when somebody asks, one at a time.
type gauge struct {
	source func() (*Vitals, error)

	mu   sync.Mutex
	last *Vitals
	err  error
	busy chan struct{} // closed when the look under way has ended; nil: none is
}

// read returns vitals no older than vitalsFor. If the loop does not answer, it returns when ctx ends.
func (g *gauge) read(ctx context.Context) (*Vitals, error) {
	g.mu.Lock()
	if g.last != nil && time.Since(g.last.at) < vitalsFor {
		defer g.mu.Unlock()
		return g.last, nil
	}
	busy := g.busy
	if busy == nil {
		busy = make(chan struct{})
		g.busy = busy
		go g.look(busy)
	}
	g.mu.Unlock()
	select {
	case <-busy:
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.last, g.err
	case <-ctx.Done():
		return nil, errNoVitals
	}
}

// look ends when the loop answers, or has ended.
func (g *gauge) look(done chan struct{}) {
	v, err := g.source()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last, g.err = v, err; v != nil {
		v.at = time.Now()
	}
	g.busy = nil
	close(done)
}
