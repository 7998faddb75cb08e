package gate

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watch tells of interfaces that appear in the network namespace where it was made.
type watch struct {
	conn *netlink.Conn
	done chan struct{}
	once sync.Once
	all  sync.WaitGroup
}

// news is what the kernel says of one interface.
type news struct {
	index int
	gone  bool
	lost  bool // news was lost: anything may have happened
}

func newWatch(log *slog.Logger, heard func(news) error) (*watch, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: unix.RTMGRP_LINK})
	if err != nil {
		return nil, fmt.Errorf("subscribe to news of interfaces: %w", err)
	}
	w := &watch{conn: conn, done: make(chan struct{})}
	w.all.Go(func() { w.run(log, heard) })
	return w, nil
}

func (w *watch) run(log *slog.Logger, heard func(news) error) {
	tell := func(n news) {
		if err := heard(n); err != nil {
			log.Error("a new interface is not guarded", "index", n.index, "cause", err)
		}
	}
	for {
		messages, err := w.conn.Receive()
		if w.closed() {
			return
		}
		if err != nil { // the socket's buffer ran over, most likely: look at everything
			log.Warn("news of interfaces was lost", "cause", err)
			tell(news{lost: true})
			select {
			case <-w.done:
				return
			case <-time.After(settle):
			}
			continue
		}
		for _, m := range messages {
			// A bridge says RTM_DELLINK too, in a family of its own, of a port that it lets go.
			if len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] != unix.AF_UNSPEC {
				continue
			}
			// struct ifinfomsg, rtnetlink(7): the index follows family and type.
			index := int(int32(native.Uint32(m.Data[4:8])))
			switch m.Header.Type {
			case unix.RTM_NEWLINK:
				tell(news{index: index})
			case unix.RTM_DELLINK:
				tell(news{index: index, gone: true})
			}
		}
	}
}

func (w *watch) closed() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// close ends the watch and waits for it. The caller must hold no lock that heard takes.
func (w *watch) close() {
	w.once.Do(func() {
		close(w.done)
		w.conn.Close()
	})
	w.all.Wait()
}
