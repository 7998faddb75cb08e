package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/core/wire"
	"baton/internal/io/link"
)

const (
	faultsEvery = time.Second      // the links are looked at so often: that is how often they try again
	holderEvery = 10 * time.Second // who has a port is looked for so often, which takes a look at each process
)

// linkFaults is what this agent has found wrong with its own addresses and ports.
type linkFaults struct {
	now    atomic.Pointer[[]cluster.LinkFault]
	narrow atomic.Pointer[[]link.Narrow] // paths to others on which full packets are lost
	twins  atomic.Pointer[[]link.Twins]  // nodes as which two machines run

	unwritten unwritten
}

// watchFaults looks at this node's own sockets, and tells the log what is wrong with them, once.
func (a *agent) watchFaults(ctx context.Context) {
	tick := time.NewTicker(faultsEvery)
	defer tick.Stop()
	var last []link.Fault
	var looked time.Time
	var told bool
	for {
		found := a.links.Faults()
		same := slices.EqualFunc(found, last, func(x, y link.Fault) bool {
			return x.Link == y.Link && x.Network == y.Network && x.At == y.At && x.Cause.Error() == y.Cause.Error()
		})
		if !same || len(found) > 0 && time.Since(looked) >= holderEvery {
			last, looked = found, time.Now()
			a.noteFaults(toldFaults(found, holderOf))
		}
		narrow := a.links.Narrow()
		a.noteNarrow(narrow)
		twins := a.links.Twins(time.Now())
		a.noteTwins(twins)
		_, gate := a.whole.fault(time.Now())
		if any := len(found) > 0 || len(narrow) > 0 || len(twins) > 0 || gate || len(a.unwritten()) > 0; any != told {
			told = any
			a.inbox.put(&node.Faulty{On: any})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (a *agent) unwritten() []cluster.LinkFault {
	return a.faults.unwritten.faults(a.opt.DataDir, a.opt.RunDir)
}

// swapped publishes a list, and returns the former one.
func swapped[T any](at *atomic.Pointer[[]T], now []T) (before []T) {
	if p := at.Swap(&now); p != nil {
		before = *p
	}
	return before
}

func (a *agent) noteNarrow(now []link.Narrow) {
	before := swapped(&a.faults.narrow, now)
	for _, x := range now {
		if !slices.Contains(before, x) {
			a.log.Warn("small packets to a node arrive, full ones don't", "to", x.Peer, "link", x.Link, "bytes", wire.MaxPacket+wire.MaxHeaders, "hint", narrowHint(x))
		}
	}
	for _, x := range before {
		if !slices.Contains(now, x) {
			a.log.Info("full packets to a node are no longer lost, or small ones are too", "to", x.Peer, "link", x.Link)
		}
	}
}

// narrowText says what is wrong with a path.
func narrowText(self cluster.NodeID) string {
	return fmt.Sprintf("packets of %d bytes from %s are lost on the way, small ones arrive", wire.MaxPacket+wire.MaxHeaders, self)
}

func narrowHint(x link.Narrow) string {
	return fmt.Sprintf("compare the MTU of the interfaces, switches and tunnels of link %s: baton needs %d bytes", x.Link, wire.MaxPacket+wire.MaxHeaders)
}

func (a *agent) noteFaults(now []cluster.LinkFault) {
	before := swapped(&a.faults.now, now)
	for _, f := range now {
		if !slices.Contains(before, f) {
			a.log.Warn("this node can't use an address and port of its own", "link", f.Link, "cause", f.Text, "hint", f.Hint)
		}
	}
	for _, f := range before {
		if !slices.ContainsFunc(now, func(g cluster.LinkFault) bool { return g.Link == f.Link }) {
			a.log.Info("this node can use its address and port again", "link", f.Link)
		}
	}
}

// toldFaults words faults for people: an address that is missing once, and not for each port that it has.
func toldFaults(found []link.Fault, holds func(network string, at netip.AddrPort) (holder, bool)) []cluster.LinkFault {
	var told []cluster.LinkFault
	for i, f := range found {
		x := cluster.LinkFault{Link: f.Link}
		switch {
		case errors.Is(f.Cause, syscall.EADDRNOTAVAIL):
			if slices.ContainsFunc(found[:i], func(g link.Fault) bool { return g.At == f.At && errors.Is(g.Cause, syscall.EADDRNOTAVAIL) }) {
				continue
			}
			x.Text = f.At.Addr().String() + " is not an address of this host"
			x.Hint = "ip address add, or correct the file with baton edit"
		case errors.Is(f.Cause, syscall.EADDRINUSE):
			x.Text, x.Hint = heldBy(f.Network, f.At, holds), heldHint(f.At)
		default:
			x.Text, x.Hint = fmt.Sprintf("%s %s: %v", strings.ToUpper(f.Network), f.At, f.Cause), "baton check names more"
		}
		told = append(told, x)
	}
	return told
}

// heldBy says who has a port that is in use.
func heldBy(network string, at netip.AddrPort, holds func(network string, at netip.AddrPort) (holder, bool)) string {
	who := "another program"
	if h, found := holds(network, at); found {
		who = h.String()
	}
	return fmt.Sprintf("%s %s is held by %s", strings.ToUpper(network), at, who)
}

func heldHint(at netip.AddrPort) string {
	return fmt.Sprintf("stop that program, or write another port than %d into the file", at.Port())
}

// tellFaults says in an overview what is wrong with this node's own addresses and ports, with its gate,
// and with the ways to others.
func (a *agent) tellFaults(o *cluster.Overview) {
	var all []cluster.LinkFault
	if p := a.faults.now.Load(); p != nil {
		all = slices.Clone(*p)
	}
	if f, ok := a.whole.fault(time.Now()); ok {
		all = append(all, f)
	}
	all = append(all, a.unwritten()...)
	var narrow []link.Narrow
	if p := a.faults.narrow.Load(); p != nil {
		narrow = *p
	}
	for i := range o.Nodes {
		n := &o.Nodes[i]
		if n.ID == a.self {
			n.Faults = all
		}
		a.tellTwins(n)
		for _, x := range narrow {
			if n.ID == x.Peer {
				n.Faults = append(n.Faults, cluster.LinkFault{Link: x.Link, Text: narrowText(a.self), Hint: narrowHint(x)})
			}
		}
	}
}
