package app

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
)

// perSender bounds the packets of one sender that wait for the core; the oldest is dropped.
const perSender = 256

// inbox holds what waits for the core. Many put, one takes. It wakes its taker through an eventfd, since
// the taker sleeps in ppoll, which keeps a deadline to microseconds where a Go timer may be late by one
// millisecond.
type inbox struct {
	mu      sync.Mutex
	inputs  []node.Input
	calls   []func(*node.Node) // to be run in the loop, between two steps
	counts  map[cluster.NodeID]int
	dropped uint64
	event   int // eventfd
	woken   bool
}

func newInbox() (*inbox, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &inbox{event: fd, counts: make(map[cluster.NodeID]int)}, nil
}

// put hands the core an input that must not be lost.
func (b *inbox) put(in node.Input) {
	b.mu.Lock()
	b.inputs = append(b.inputs, in)
	b.wake()
	b.mu.Unlock()
}

// packet hands the core a packet; if too many of its sender wait, the oldest of them is dropped.
func (b *inbox) packet(p *node.Packet) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.counts[p.From] >= perSender {
		b.dropOldest(p.From)
	}
	b.counts[p.From]++
	b.inputs = append(b.inputs, p)
	b.wake()
}

func (b *inbox) dropOldest(from cluster.NodeID) {
	for i, in := range b.inputs {
		if p, ok := in.(*node.Packet); ok && p.From == from {
			b.inputs = append(b.inputs[:i], b.inputs[i+1:]...)
			b.counts[from]--
			b.dropped++
			return
		}
	}
}

// call runs f in the loop and waits until it has run, or the loop has ended.
func (b *inbox) call(f func(*node.Node), ended <-chan struct{}) bool {
	done := make(chan struct{})
	b.mu.Lock()
	b.calls = append(b.calls, func(n *node.Node) { f(n); close(done) })
	b.wake()
	b.mu.Unlock()
	select {
	case <-done:
		return true
	case <-ended:
		return false
	}
}

// wake is called with mu held.
func (b *inbox) wake() {
	if b.woken {
		return
	}
	b.woken = true
	one := [8]byte{1}
	_, _ = unix.Write(b.event, one[:]) // it is full only if the taker is awake already
}

// take returns all that waits, after waiting for at most d.
func (b *inbox) take(d time.Duration, inputs []node.Input) ([]node.Input, []func(*node.Node)) {
	if d > 0 {
		fds := []unix.PollFd{{Fd: int32(b.event), Events: unix.POLLIN}}
		ts := unix.NsecToTimespec(int64(d))
		_, _ = unix.Ppoll(fds, &ts, nil) // interrupted or in time: look either way
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.woken {
		var buf [8]byte
		_, _ = unix.Read(b.event, buf[:])
		b.woken = false
	}
	inputs = append(inputs[:0], b.inputs...)
	clear(b.inputs)
	b.inputs = b.inputs[:0]
	calls := b.calls
	b.calls = nil
	clear(b.counts)
	return inputs, calls
}

func (b *inbox) close() { _ = unix.Close(b.event) }
