package app

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/api"
)

// view is what the API tells of the core: a picture that the loop has published and nobody changes any more.
type view struct {
	taken time.Time
	steps uint64        // of the core, by then
	h     time.Duration // the heartbeat interval, by then: the loop does something at least that often

	overview *cluster.Overview
	history  []cluster.Line
	conf     *cluster.Configuration
	roll     *api.Roll
	spec     *cluster.Spec
}

const (
	// viewLeast is how long a view lasts at least while somebody looks. What many steps in a row change is seen at
	// once then, and a busy core is not slowed down.
	viewLeast = 20 * time.Millisecond
	// viewMost is how old a view may be at most, if the core has done anything since.
	viewMost = 100 * time.Millisecond
	// viewKept is for how long after somebody has looked the loop goes on publishing by itself. Whoever comes later
	// asks for a view, once.
	viewKept = 300 * time.Millisecond
)

// views hands pictures of the core to whoever looks, so that who looks costs the loop nothing: it takes one when
// something has happened and somebody looks, however many do.
type views struct {
	last   atomic.Pointer[view]
	steps  atomic.Uint64 // of the core, so far
	looked atomic.Int64  // when somebody looked last, in Unix nanoseconds

	mu   sync.Mutex
	busy chan struct{} // closed when the view that was asked for is there; nil: none was

	news atomic.Bool // something that people wait to see has happened since the last one
}

// fresh tells whether a view is good enough at an instant. Where nothing has happened for longer than the core ever
// waits, the loop hangs, and whoever looks must notice. What is news to people is seen at once: who has heard of a
// change on one node must find it on the others as soon as they have it.
func (v *views) fresh(p *view, now time.Time) bool {
	if p == nil {
		return false
	}
	age := now.Sub(p.taken)
	return !v.news.Load() && age < viewLasts(p.h) || p.steps == v.steps.Load() && age < 2*p.h
}

// viewLasts is how old a view may be though something has happened since.
func viewLasts(h time.Duration) time.Duration { return min(max(h/2, viewLeast), viewMost) }

// look returns a view of the core: the last one, if that is fresh, or one that is taken now.
func (a *agent) look(ctx context.Context) (*view, error) {
	now := time.Now()
	a.views.looked.Store(now.UnixNano())
	if p := a.views.last.Load(); a.views.fresh(p, now) {
		return p, nil
	}
	return a.lookAnew(ctx)
}

// lookAnew returns a view that is taken from now on: for who is about to change what he sees.
func (a *agent) lookAnew(ctx context.Context) (*view, error) {
	v := &a.views
	v.mu.Lock()
	busy := v.busy
	if busy == nil {
		busy = make(chan struct{})
		v.busy = busy
		a.inbox.do(func() {
			a.publish()
			v.mu.Lock()
			v.busy = nil
			v.mu.Unlock()
			close(busy)
		})
	}
	v.mu.Unlock()
	select {
	case <-busy:
		return v.last.Load(), nil
	case <-a.ended:
		return nil, errEnded
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// publish takes a view. It is called in the loop.
func (a *agent) publish() {
	now := a.clock.now()
	before := a.views.last.Load()
	p := &view{taken: time.Now(), steps: a.views.steps.Load(), h: a.spec.Timing.H, overview: a.node.Overview(now), spec: a.spec}
	if a.ending != nil {
		p.overview.Left = a.ending.text
	}
	p.roll = rollOf(a.node)
	if before != nil && p.roll.ID != "" && p.roll.ID == before.roll.ID && p.roll.Applied == before.roll.Applied {
		p.history, p.conf = before.history, before.conf // they follow the log alone
	} else {
		p.history, p.conf = a.node.History(), a.node.Configuration()
	}
	a.views.last.Store(p)
	a.views.news.Store(false)
}

// publishNews takes a view if something has happened since the last one and somebody looks.
func (a *agent) publishNews() {
	v := &a.views
	p := v.last.Load()
	if p == nil || p.steps == v.steps.Load() {
		return
	}
	now := time.Now()
	if now.UnixNano()-v.looked.Load() > int64(viewKept) {
		return
	}
	least := viewLasts(p.h) / 2
	if v.news.Load() {
		least = viewLeast
	}
	if now.Sub(p.taken) >= least {
		a.publish()
	}
}

// seen returns the overview as of now: ages go on while nobody takes another view.
func (p *view) seen(now time.Time) *cluster.Overview {
	o := *p.overview
	age := max(0, now.Sub(p.taken))
	o.Nodes = slices.Clone(o.Nodes)
	for i := range o.Nodes {
		n := &o.Nodes[i]
		n.LeaseLeft = max(0, n.LeaseLeft-age)
		if n.ID == o.Node {
			continue
		}
		n.Ago += age
		n.Links = slices.Clone(n.Links)
		for k := range n.Links {
			n.Links[k].Ago += age
		}
	}
	o.Groups = slices.Clone(o.Groups)
	for i := range o.Groups {
		if s := &o.Groups[i].Service; s.Down > 0 {
			s.Down += age
		}
	}
	return &o
}

// stepped notes what a step has done. It is called in the loop.
func (v *views) stepped(out *node.Output) {
	v.steps.Add(1)
	if len(out.Events) > 0 || len(out.Decided) > 0 || len(out.Applied) > 0 || out.Spec != nil {
		v.news.Store(true)
	}
}
