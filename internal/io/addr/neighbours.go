package addr

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// neighboursMax bounds what WatchNeighbours remembers of neighbours that are gone; beyond it, it forgets them all.
	neighboursMax = 4096
	// returnsEvery is the least time between two words of WatchNeighbours: the announcements that follow from one go on
	// for longer.
	returnsEvery = 5 * time.Second
)

// WatchNeighbours tells when a neighbour that the kernel could not reach is there again, or has another hardware
// address than before, until the context ends; then it returns nil. What was announced meanwhile, it did not hear. It
// calls changed from its own goroutine, which is the caller's, each 5 s at most.
func WatchNeighbours(ctx context.Context, changed func()) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_NEIGH)
	if err != nil {
		return fmt.Errorf("watch the neighbours: %w", err)
	}
	defer s.Close()
	defer context.AfterFunc(ctx, s.Close)()
	var told time.Time
	w := neighbours{}
	for {
		messages, from, err := s.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS): // some were lost
			continue
		case err != nil:
			return fmt.Errorf("watch the neighbours: %w", err)
		case from.Pid != nl.PidKernel: // any process may write to our socket
			continue
		}
		back := false
		for _, m := range messages {
			if n, err := netlink.NeighDeserialize(m.Data); err == nil {
				back = w.take(n, m.Header.Type == unix.RTM_DELNEIGH) || back
			}
		}
		if back && time.Since(told) >= returnsEvery {
			told = time.Now()
			changed()
		}
	}
}

// neighbours is what was last known of each.
type neighbours map[neighbour]known

type neighbour struct {
	index int
	addr  netip.Addr
}

type known struct {
	mac  string // the last; empty: none
	gone bool
}

// take notes what the kernel says of a neighbour, and reports whether it has returned.
func (w neighbours) take(n *netlink.Neigh, deleted bool) bool {
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok || n.Family != unix.AF_INET && n.Family != unix.AF_INET6 {
		return false
	}
	const valid = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE
	key := neighbour{n.LinkIndex, a.Unmap()}
	before, now := w[key], known{mac: n.HardwareAddr.String()}
	switch {
	case deleted:
		delete(w, key)
		return false
	case n.State&unix.NUD_FAILED != 0:
		now = known{before.mac, true}
	case n.State&valid == 0: // it is being asked
		return false
	}
	if len(w) >= neighboursMax {
		clear(w)
	}
	w[key] = now
	return !now.gone && (before.gone || before.mac != "" && before.mac != now.mac)
}
