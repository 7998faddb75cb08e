package gate

import (
	"errors"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// view is what a gate had attached when somebody was last done at its hooks. It never changes: who looks whether all of
// it is there needs no lock that those at work hold, perhaps while the kernel lets them wait.
type view struct {
	off     bool     // something is known not to be there, or not yet
	untold  bool     // something was put back, and the owner does not know
	tcx     bool     // links are looked at, else filters
	links   []viewed // at tcx
	filters []int    // interfaces with both filters at clsact
}

type viewed struct {
	hook
	*pinned
}

// publish makes what there is now the view. The caller holds work.
func (g *clsact) publish() {
	h := g.hooks
	v := &view{
		off:    h.unsure || len(h.amiss) > 0 || len(h.missing) > 0 && g.help == nil,
		untold: len(h.taken) > 0,
		tcx:    h.noTCX == nil,
	}
	if v.tcx {
		for at, l := range h.pins.links {
			v.links = append(v.links, viewed{at, l})
		}
	} else {
		for index := range h.known { // in an order of chance
			if len(h.missing[index]) == 0 { // else nftables guards it as well
				v.filters = append(v.filters, index)
			}
		}
	}
	g.view.Store(v)
}

// mostLooks is on how many interfaces a close looks for filters, which takes some 50 µs for each. Of the others the
// kernel's news must do.
const mostLooks = 16

// whole asks the kernel whether all of a view is attached. What it does not say counts as not attached.
func (h *hooks) whole(v *view) bool {
	if v.off {
		return false
	}
	if v.tcx {
		return !slices.ContainsFunc(v.links, func(l viewed) bool { return l.ask() != attached })
	}
	for _, index := range v.filters[:min(mostLooks, len(v.filters))] {
		link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
		for _, at := range parents {
			if ours, _, err := filters(h.eye, h.name, link, at.parent); err != nil || len(ours) == 0 {
				return false
			}
		}
	}
	return true
}

// look is one answer to whether the gate is whole, for all closes of about the same moment.
type look struct {
	began, ended time.Time // ended and whole are valid once over is closed
	over         chan struct{}
	whole        bool
}

// The kernel may let a look wait: it takes a lock that all changes of interfaces take, anywhere on the host, and may be
// held for hundreds of milliseconds. A close waits for so long only:
const (
	lookWaits     = 5 * time.Millisecond
	lookWaitsEach = 50 * time.Microsecond // for each hook
	lookHolds     = 2 * time.Millisecond  // a look's answer is good for
)

func (l *look) isOver() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

// isWhole tells whether all of the gate is known to be attached, and has put back what is not. The caller holds mu.
func (g *clsact) isWhole() bool {
	v := g.view.Load()
	if v == nil { // tables without hooks
		return true
	}
	l := g.last
	if l == nil || l.isOver() && time.Since(l.ended) > lookHolds {
		l = &look{began: time.Now(), over: make(chan struct{})}
		g.last = l
		g.looks.Go(func() {
			l.whole = g.hooks.whole(v)
			l.ended = time.Now()
			close(l.over)
		})
	}
	limit := lookWaits + time.Duration(len(v.links)+2*min(mostLooks, len(v.filters)))*lookWaitsEach
	select {
	case <-l.over:
	case <-time.After(limit - time.Since(l.began)):
		return false
	}
	if !l.whole {
		g.wake()
	}
	return l.whole
}

// The kernel tells nobody when a link is detached or loses its pin, so they are looked at: as often as Look is called,
// and at least each checkEvery. Where there are many, less often: a look at each takes 3 µs.
const (
	checkEvery = 250 * time.Millisecond
	lookEvery  = 20 * time.Millisecond
	lookEach   = 500 * time.Microsecond
)

func (g *clsact) Look() {
	hooks, now := len(g.view.Load().links), time.Now().UnixNano()
	if hooks == 0 || now < g.next.Load() {
		return
	}
	g.next.Store(now + int64(max(lookEvery, time.Duration(hooks)*lookEach)))
	g.wake()
}

// wake has check look now.
func (g *clsact) wake() {
	select {
	case g.odd <- struct{}{}:
	default:
	}
}

// check puts back what others take off, and tells the owner.
func (g *clsact) check() {
	for {
		asked := false
		select {
		case <-g.ends:
			return
		case <-g.odd:
			asked = true
		case <-time.After(checkEvery):
		}
		v := g.view.Load()
		switch { // without a lock
		case v.off, v.untold:
		case v.tcx && slices.ContainsFunc(v.links, func(l viewed) bool { return g.hooks.pins.off(l.hook, l.pinned) }):
		case !v.tcx && asked: // some close found it off
		default:
			continue
		}
		g.work.Lock()
		if g.state == nil || !g.hooks.active {
			g.work.Unlock()
			continue
		}
		err := g.hooks.mend(g.state)
		if err == nil {
			err = g.reinforce(false)
		}
		g.publish()
		if len(g.hooks.taken) == 0 && err == nil && !g.unwhole {
			g.work.Unlock()
			continue
		}
		g.tell(err)
	}
}

// mend puts back what is off.
func (h *hooks) mend(s *state) error {
	if h.noTCX != nil {
		return h.sweep(s)
	}
	var off []int
	for index := range h.amiss {
		off = append(off, index)
	}
	for _, at := range h.pins.missing() {
		off = append(off, at.index)
	}
	slices.Sort(off)
	var failed []error
	for _, index := range slices.Compact(off) {
		if err := h.one(s, index); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
