package addr

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// LinkState is what is known of a network interface. The index is what it is: names come and go, and it may have
// several. One that went has neither Up nor Carrier.
type LinkState struct {
	Index    int
	Name     string
	AltNames []string // its alternative names (ip link property), sorted
	Up       bool     // set up by the administrator (IFF_UP)
	Carrier  bool     // the cable is in and somebody at its other end (IFF_LOWER_UP)
	MAC      string   // its hardware address, as in 02:00:00:00:aa:01; empty: it has none
	Gone     bool     // there is no interface of this index any more
}

// Named tells whether the interface has a name, as its own or as an alternative one.
func (l LinkState) Named(name string) bool {
	return l.Name == name || slices.Contains(l.AltNames, name)
}

func (l LinkState) equal(other LinkState) bool {
	return l.Name == other.Name && l.Up == other.Up && l.Carrier == other.Carrier && l.MAC == other.MAC &&
		slices.Equal(l.AltNames, other.AltNames)
}

// WatchLinks tells of every interface of this network namespace as it is now, then of each change, in
// order, until the context ends; then it returns nil. It calls changed from its own goroutine, which is
// the caller's. Where changes come faster than they are taken, what lay between is skipped, never the last.
//
// It is early evidence, not proof: the kernel may hold back a loss of carrier for up to a second if the
// interface has changed a moment before, and a switch that drops everything keeps its carrier.
func WatchLinks(ctx context.Context, changed func(LinkState)) error {
	w := linkWatch{known: map[int]LinkState{}, changed: changed}
	for {
		err := w.watch(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("watch the network interfaces: %w", err)
		}
	}
}

type linkWatch struct {
	known   map[int]LinkState // by index
	listed  map[int]bool      // those of the list being read; nil: none is
	changed func(LinkState)
}

// watch subscribes first and lists then, so that no change falls between. It returns unix.ENOBUFS if the
// kernel had to drop events: the caller begins anew.
func (w *linkWatch) watch(ctx context.Context) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, s.Close)()
	if err := w.list(s); err != nil {
		return err
	}
	for {
		messages, from, err := s.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return err
		case from.Pid != nl.PidKernel: // any process may write to our socket
			continue
		}
		for _, m := range messages {
			if w.listed != nil && m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
				return unix.ENOBUFS // the list changed while it was read
			}
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				w.endList()
			case unix.RTM_NEWLINK, unix.RTM_DELLINK:
				w.take(m.Header.Type, m.Data)
			}
		}
	}
}

func (w *linkWatch) list(s *nl.NetlinkSocket) error {
	w.listed = map[int]bool{}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	return s.Send(req)
}

// endList tells of those that went while nobody listened.
func (w *linkWatch) endList() {
	for _, index := range slices.Sorted(maps.Keys(w.known)) {
		if !w.listed[index] {
			w.forget(index)
		}
	}
	w.listed = nil
}

// take reads one message. Those of a bridge about its ports (AF_BRIDGE) are passed over: an RTM_DELLINK of
// that family means that the port left the bridge, not that it went.
func (w *linkWatch) take(kind uint16, body []byte) {
	if len(body) < unix.SizeofIfInfomsg || nl.DeserializeIfInfomsg(body).Family != unix.AF_UNSPEC {
		return
	}
	link, err := netlink.LinkDeserialize(nil, body)
	if err != nil {
		return
	}
	a := link.Attrs()
	if kind == unix.RTM_DELLINK {
		w.forget(a.Index)
		return
	}
	if w.listed != nil {
		w.listed[a.Index] = true
	}
	now := LinkState{Name: a.Name, Index: a.Index, AltNames: slices.Sorted(slices.Values(a.AltNames)),
		Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0, MAC: a.HardwareAddr.String()}
	if before, known := w.known[a.Index]; known && before.equal(now) {
		return
	}
	w.known[a.Index] = now
	w.changed(now)
}

func (w *linkWatch) forget(index int) {
	if l, ok := w.known[index]; ok {
		delete(w.known, index)
		w.changed(LinkState{Name: l.Name, Index: index, AltNames: l.AltNames, Gone: true})
	}
}

// WatchAddresses tells when an address of this network namespace has come, gone or changed, or may have, until the
// context ends; then it returns nil. What is asked of this package from then on knows of it. It calls changed from its
// own goroutine, which is the caller's.
func WatchAddresses(ctx context.Context, changed func()) error {
	r, err := openRoute()
	if err != nil {
		return fmt.Errorf("watch the addresses: %w", err)
	}
	defer r.close()
	news := r.table.watch()
	defer r.table.unwatch(news)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-news:
			changed()
		}
	}
}
