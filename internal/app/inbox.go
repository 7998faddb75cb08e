package app

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/nowait"
)

// perSender bounds the packets of one sender that wait for the core; the oldest is dropped.
const perSender = 256

// source is what the loop receives from by itself: while Fd is readable, Receive has something to hand over.
type source interface {
	Fd() int
	Receive()
}

// inbox holds what waits for the core. Many put, one takes. The taker sleeps until something was put, its
// source has packets, or an instant comes, to the microsecond (a Go timer may be late by a millisecond).
//
// There are two ways to sleep. Blocking in the kernel wakes the very thread that goes on, which may have
// realtime priority; but Go's monitor thread then polls for a while, which costs an idle agent more than all
// the rest. Sleeping in Go's own poller costs nothing, but any thread of the runtime may be the one that wakes.
type inbox struct {
	mu      sync.Mutex
	inputs  []node.Input
	calls   []func(*node.Node) // to be run in the loop, between two steps
	counts  map[cluster.NodeID]int
	dropped uint64
	called  uint64 // how often something was to be run in the loop
	woken   bool
	event   int // eventfd
	source  source

	blocking bool
	timer    int             // timerfd, of the poller's way
	poll     *os.File        // epoll of eventfd, timerfd and source
	raw      syscall.RawConn // of poll
}

// newInbox makes an inbox; listen completes it. Blocking chooses the way to sleep.
func newInbox(blocking bool) (*inbox, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &inbox{event: fd, timer: -1, blocking: blocking, counts: make(map[cluster.NodeID]int)}, nil
}

// listen makes the taker receive from a source. It is called once, before the first take.
func (b *inbox) listen(s source) error {
	b.source = s
	return b.block(b.blocking)
}

// block chooses the way to sleep. The taker calls it. On an error the way stays.
func (b *inbox) block(blocking bool) error {
	if !blocking && b.poll == nil {
		if err := b.openPoll(); err != nil {
			return err
		}
	}
	b.blocking = blocking
	return nil
}

// openPoll makes what sleeping in Go's poller takes.
func (b *inbox) openPoll() (err error) {
	if b.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	for _, fd := range []int{b.event, b.timer, b.source.Fd()} {
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return errors.Join(err, unix.Close(epoll))
		}
	}
	if err := unix.SetNonblock(epoll, true); err != nil { // that makes os.File hand it to Go's poller
		return errors.Join(err, unix.Close(epoll))
	}
	b.poll = os.NewFile(uintptr(epoll), "inbox")
	b.raw, err = b.poll.SyscallConn()
	return err
}

// sleep returns when there is something to look at, or after d.
func (b *inbox) sleep(d time.Duration) {
	if b.blocking {
		fds := []unix.PollFd{{Fd: int32(b.event), Events: unix.POLLIN}, {Fd: int32(b.source.Fd()), Events: unix.POLLIN}}
		ts := unix.NsecToTimespec(int64(d))
		_, _ = unix.Ppoll(fds, &ts, nil) // interrupted or in time: look either way
		return
	}
	_ = nowait.SetTimer(b.timer, d)
	var events [4]unix.EpollEvent
	_ = b.raw.Read(func(fd uintptr) bool {
		n, err := nowait.Ready(int(fd), events[:])
		return n > 0 || (err != nil && err != unix.EINTR)
	})
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
	b.called++
	b.wake()
	b.mu.Unlock()
	select {
	case <-done:
		return true
	case <-ended:
		return false
	}
}

// do has f run in the loop, if the loop goes on, and does not wait for it.
func (b *inbox) do(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, func(*node.Node) { f() })
	b.called++
	b.wake()
}

// wake is called with mu held.
func (b *inbox) wake() {
	if b.woken {
		return
	}
	b.woken = true
	one := [8]byte{1}
	_, _ = nowait.Write(b.event, one[:]) // it is full only if the taker is awake already
}

// take returns all that waits, after waiting for at most d.
func (b *inbox) take(d time.Duration, inputs []node.Input) ([]node.Input, []func(*node.Node)) {
	if d > 0 {
		b.sleep(d)
	}
	b.source.Receive()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.woken {
		var buf [8]byte
		_, _ = nowait.Read(b.event, buf[:])
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

func (b *inbox) close() {
	_ = unix.Close(b.event)
	if b.poll != nil {
		_ = b.poll.Close()
		_ = unix.Close(b.timer)
	}
}
