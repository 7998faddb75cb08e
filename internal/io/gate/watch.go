package gate

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// hookParent is where a clsact or ingress qdisc hangs, TC_H_CLSACT in linux/pkt_sched.h.
const hookParent = 0xfffffff1

// watch tells of interfaces that appear in the network namespace where it was made, and of what is taken off them.
type watch struct {
	conn *netlink.Conn
	done chan struct{}
	once sync.Once
	all  sync.WaitGroup
}

// news is what the kernel says of one interface.
type news struct {
	index   int
	gone    bool
	filters bool // a qdisc or filter was taken off, or another put in its place
	lost    bool // news was lost: anything may have happened
}

func newWatch(log *slog.Logger, heard func(news) error) (*watch, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: unix.RTMGRP_LINK | unix.RTMGRP_TC})
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
			log.Error("an interface is not guarded", "index", n.index, "cause", err)
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
			if index, ok := filterNews(m); ok {
				tell(news{index: index, filters: true})
				continue
			}
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

// filterNews tells of which interface a qdisc in clsact's place or a filter of our priority went or was exchanged.
func filterNews(m netlink.Message) (index int, ok bool) {
	const size = 20 // struct tcmsg, rtnetlink(7): family and padding 4, then ifindex, handle, parent and info
	if len(m.Data) < size {
		return 0, false
	}
	index = int(int32(native.Uint32(m.Data[4:])))
	parent, info := native.Uint32(m.Data[12:]), native.Uint32(m.Data[16:])
	switch m.Header.Type {
	case unix.RTM_NEWQDISC, unix.RTM_DELQDISC:
		return index, parent == hookParent
	case unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER:
		return index, info>>16 == priority || info>>16 == 0 // 0: of all priorities
	}
	return 0, false
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
