package app

import (
	"context"
	"slices"
	"sync"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/addr"
	"baton/internal/io/resource"
)

const (
	lacksEvery = 10 * time.Second // the host is looked at so often while it lacks nothing
	lackEvery  = 5 * time.Second  // while it lacks something, of which nobody may tell when it comes
	// exhaustedEvery is that while it has no more of something, such as processes: nothing tells when there is some again.
	exhaustedEvery = time.Second
	lackLeast      = 100 * time.Millisecond // between two looks, however much happens
	// lackAgain: what failed for its surroundings, was well at a look, and fails so again within this time, waits
	// longer each time, from lackFirst to lackMost: some of what is missing no look shows.
	lackAgain = time.Minute
	lackFirst = time.Second
	lackMost  = time.Minute
)

// lacks is what this host lacks for groups to run here, as far as kinds of resources can tell.
type lacks struct {
	kick chan struct{} // holds one token: something may have changed

	mu     sync.Mutex
	failed map[place]*deprived // what failed for its surroundings
	unkept map[place]string    // whose notes in the run directory can't be written, and why
	ungate string              // why the gate is not whole; "": it is

	arrivals arrivals
}

// deprived is a resource that failed for what is around it.
type deprived struct {
	why   string
	at    time.Time
	waits time.Duration // so long it counts as lacking at least
	over  time.Time     // when it was found to lack nothing; zero: it has not been
	new   bool          // the core is to be told once at least
}

func newLacks() *lacks {
	return &lacks{kick: make(chan struct{}, 1), failed: make(map[place]*deprived)}
}

// look has the host looked at soon.
func (l *lacks) look() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// gate takes why the gate is not whole, or "".
func (l *lacks) gate(why string) {
	l.mu.Lock()
	l.ungate = why
	l.mu.Unlock()
	l.look()
}

// note takes what a resource answers.
func (l *lacks) note(d cluster.Done, now time.Time) {
	if !d.Surroundings {
		return
	}
	at := place{d.Group, d.Resource}
	l.mu.Lock()
	f := l.failed[at]
	switch {
	case f == nil || !f.over.IsZero() && now.Sub(f.over) >= lackAgain:
		l.failed[at] = &deprived{why: d.Reason, at: now, new: true}
	case f.over.IsZero():
		f.why = d.Reason
	default:
		*f = deprived{why: d.Reason, at: now, new: true, waits: min(max(2*f.waits, lackFirst), lackMost)}
	}
	l.mu.Unlock()
	l.look()
}

// gather lists what is lacking, by what a look at each resource shows and by what has failed. What failed is listed
// once at least, though it is there again: its end is what has the core try again. Unless something happens before, the
// next look is due after wait; 0: at once.
func (l *lacks) gather(spec *cluster.Spec, self cluster.NodeID, look func(cluster.ResourceSpec) error, now time.Time) (list []cluster.Lack, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait = lacksEvery
	named := make(map[place]bool)
	for i := range spec.Groups {
		g := &spec.Groups[i]
		if g.Prefers(self) < 0 {
			continue
		}
		if l.ungate != "" {
			list = append(list, cluster.Lack{Group: g.ID, Why: "a whole gate: " + l.ungate})
		}
		for _, r := range g.On(self).Resources {
			at := place{g.ID, r.ID}
			named[at] = true
			why, f := "", l.failed[at]
			if err := look(r); err != nil {
				if why = err.Error(); resource.Exhausted(err) {
					wait = exhaustedEvery
				}
			} else if unkept := l.unkept[at]; unkept != "" {
				why = unkept
			} else if f != nil && f.over.IsZero() {
				if err := blockedOf(r); err != nil {
					why = err.Error()
				} else if f.new || now.Sub(f.at) < f.waits {
					why = f.why
					wait = min(wait, max(0, f.waits-now.Sub(f.at)))
				} else {
					f.over = now
				}
			}
			if f != nil {
				f.new = false
			}
			if why != "" {
				list = append(list, cluster.Lack{Group: g.ID, Resource: r.ID, Why: why})
			}
		}
	}
	for at := range l.failed {
		if !named[at] {
			delete(l.failed, at)
		}
	}
	if len(list) > 0 {
		wait = min(wait, lackEvery)
	}
	return list, wait
}

// watchLacks tells the core what this host lacks, whenever that has changed.
func (a *agent) watchLacks(ctx context.Context) {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		if err := addr.WatchAddresses(ctx, func() { a.lacks.arrivals.changed(); a.lacks.look() }); err != nil {
			a.log.Error("addresses are no longer watched", "cause", err)
		}
	})
	var told []cluster.Lack
	watch := newAwaiting(a.log, a.lacks.look)
	defer watch.close()
	for {
		spec := a.shared.Load()
		list, wait := a.lacks.gather(spec, a.self, lackOf, time.Now())
		came := a.lacks.arrivals.came(spec)
		if came || !slices.Equal(list, told) {
			a.tellLacks(told, list)
			told = list
			a.inbox.put(&node.Lacking{Lacks: list, Came: came})
		}
		if watch.await(a.log, spec, a.self, list) {
			continue // it may have come in between
		}
		if wait == 0 {
			continue // what failed is there again
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(lackLeast):
		}
		select {
		case <-ctx.Done():
			return
		case <-a.lacks.kick:
		case <-time.After(wait):
		}
	}
}

// lackOf asks a resource's kind.
func lackOf(r cluster.ResourceSpec) error {
	if k := kindOf(r.Kind); k != nil {
		return resource.Lacks(k, r)
	}
	return nil
}

// tellLacks tells the log what is missing now, and what is there again.
func (a *agent) tellLacks(before, now []cluster.Lack) {
	same := func(x cluster.Lack) func(cluster.Lack) bool {
		return func(y cluster.Lack) bool { return x.Group == y.Group && x.Resource == y.Resource }
	}
	for _, l := range now {
		if l.Resource == "" {
			continue // the gate, which has told so itself, and once
		}
		if i := slices.IndexFunc(before, same(l)); i < 0 || before[i].Why != l.Why {
			a.log.Warn("this host lacks what it takes to run here", "group", l.Group, "resource", l.Resource, "cause", l.Why)
		}
	}
	for _, l := range before {
		if l.Resource != "" && !slices.ContainsFunc(now, same(l)) {
			a.log.Info("this host has again what it takes to run here", "group", l.Group, "resource", l.Resource)
		}
	}
}
