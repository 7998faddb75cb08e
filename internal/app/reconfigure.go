package app

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/gate"
	"baton/internal/io/resource"
)

const (
	retireEvery = 5 * time.Second // between two attempts to stop what the file does not name any more
	guardEvery  = time.Second     // between two attempts to guard what the file names, but for the first ones
)

// fitting is what an agent needs to follow the configuration while it runs.
type fitting struct {
	shared     atomic.Pointer[cluster.Spec] // what counts, for all but the loop
	others     atomic.Pointer[node.Ask]     // whom the core wants asked
	asked      chan struct{}                // holds one token: whom to ask may have changed
	interfaces interfaces

	leftAt  cluster.Instant // when this node learned that it has left the cluster; 0: it has not
	ending  *failure        // says so
	setBack bool            // the data directory is of a former state: it is put aside at the end
	bare    bool            // it has left and nothing of it runs here any more, so the gate can go

	raised bool // the loop's thread has realtime priority
	nice   int  // of the threads before

	life    context.Context // ends when the agent lets go of what runs
	letGo   context.CancelFunc
	work    sync.WaitGroup
	lacks   *lacks
	settled chan struct{} // closed when the newest change of resources has been tried

	held     atomic.Pointer[[]*slot] // the resources of this node, for all but the loop
	retiring []*slot                 // what the file does not name any more and is not known to be stopped
	stuck    []resource.Guards       // of what a former run has left and this one can't stop
	former   bool                    // of what the file names something may be up by a former description
	guarded  []gate.Group            // as the gate has them
	guardAt  cluster.Instant         // what is to be guarded is not, and is tried again then; 0: it is
	failing  cluster.Instant         // since when it could not be guarded; 0: it could
	unfitted *node.Fitted            // the answer that the core waits for until what is to be guarded is; nil: it has it

	guardComplaint complaint
}

func newFitting() *fitting {
	f := &fitting{settled: make(chan struct{}), lacks: newLacks(), asked: make(chan struct{}, 1), guardAt: cluster.Never, interfaces: newInterfaces()}
	close(f.settled)
	f.life, f.letGo = context.WithCancel(context.Background())
	return f
}

// endFitting ends what works on a change, and lets go of what is to go: a later agent finds it.
func (a *agent) endFitting() {
	a.letGo()
	a.work.Wait()
	for _, s := range a.retiring {
		s.close()
	}
}

// reconfigure brings links, gate, resources and pace into line with a new configuration. It is called in the
// loop and waits for nothing that may take long: what has to be stopped is stopped in the background, and what
// is new comes after it, since it may need the same address, port or file. An error means that this node must
// not go on.
func (a *agent) reconfigure(spec *cluster.Spec) error {
	if a.opt.NoGate {
		if err := allowNoGate(spec); err != nil {
			return err
		}
	}
	before := a.spec
	a.spec = spec
	a.printing.limit = outputLimit(spec, a.self)
	a.outputs.Limit(a.printing.limit)
	a.shared.Store(spec)
	a.askAnew()
	if err := a.links.Reconfigure(spec.Links); err != nil {
		a.log.Error("the links can't be changed", "cause", err)
	}
	gone, fresh := a.refit(before, spec)
	a.closeGates(before)
	a.settle(gone, fresh)
	a.guard()
	a.tellFit(spec.Timing)
	a.pace(realtime(spec.Timing))
	a.work.Go(a.lookAround)
	a.work.Go(func() { _ = a.run.reserve(len(spec.Groups)) }) // keepRunDir tells if it can't
	a.lacks.look()
	a.work.Go(a.answerMonitors)
	return nil
}

// refit finds out which resources go, in the order in which they stop, and which come, and gives those that
// stay their description.
func (a *agent) refit(before, after *cluster.Spec) (gone, fresh []*slot) {
	kept := make(map[place]*slot)
	for _, g := range after.Groups {
		for _, r := range a.resources(&g) {
			at := place{g.ID, r.ID}
			s := a.slots[at]
			switch {
			case s == nil:
				s = a.slot(after.Cluster, g.ID, r)
				fresh = append(fresh, s)
			case !reflect.DeepEqual(s.spec(), r):
				s.replace(a.describe(after.Cluster, g.ID, r))
			}
			kept[at] = s
		}
	}
	for _, g := range before.Groups {
		for _, r := range slices.Backward(a.resources(&g)) {
			if at := (place{g.ID, r.ID}); kept[at] == nil {
				gone = append(gone, a.slots[at])
			}
		}
	}
	a.slots = kept
	a.holds()
	return gone, fresh
}

// resources are those of a group that this node may run, as they are here.
func (a *agent) resources(g *cluster.GroupSpec) []cluster.ResourceSpec {
	if g.Prefers(a.self) < 0 {
		return nil
	}
	return g.On(a.self).Resources
}

// retireLeftovers begins to stop what a former run has left of resources that the file does not name any more,
// and waits a moment for that: an address that another resource has now is better off its interface before that one is
// probed. What takes longer must not keep this node from being heard.
func (a *agent) retireLeftovers() {
	var gone []*slot
	for _, at := range a.run.places() {
		if a.slots[at] != nil {
			continue
		}
		s, err := a.leftover(at)
		switch {
		case err != nil:
			a.log.Error("what a former run has left can't be stopped", "resource", at, "cause", err)
			a.keepShut(at)
		case s != nil:
			a.log.Info("the file does not name it any more: it is stopped", "resource", at)
			gone = append(gone, s)
		}
	}
	if len(gone) == 0 {
		return
	}
	a.settle(gone, nil)
	select {
	case <-a.settled:
	case <-time.After(retireWait):
	}
}

// keepShut keeps guarded what can't be stopped, as long as this agent lives.
func (a *agent) keepShut(at place) {
	m, err := resource.Recall(a.run.resource(at.group, at.resource))
	if err == nil {
		a.stuck = append(a.stuck, m.Guards())
	}
}

// leftover makes a place for what a run directory tells of; nil: it tells of nothing.
func (a *agent) leftover(at place) (*slot, error) {
	m, err := resource.Recall(a.run.resource(at.group, at.resource))
	if err != nil || m.Kind == "" {
		return nil, err
	}
	if kindOf(m.Kind) == nil {
		return nil, fmt.Errorf("this version knows no kind %q", m.Kind)
	}
	s := a.slot(a.spec.Cluster, at.group, cluster.ResourceSpec{ID: at.resource, Kind: m.Kind})
	s.env = leftoverEnv(s.env, m)
	s.worker, err = resource.NewLeftover(s.kind, s.env, a.done)
	return s, err
}

// settle stops what goes, one after the other, and then opens what is new, all in the background and after
// what an earlier change asked for. What can't be stopped is tried again without end; that holds up only what
// is to take its very place.
func (a *agent) settle(gone, fresh []*slot) {
	for _, s := range fresh {
		for _, old := range append(slices.Clone(a.retiring), gone...) {
			if old.place == s.place {
				s.after = append(s.after, old)
			}
		}
	}
	a.retiring = append(a.retiring, gone...)
	former, done := a.settled, make(chan struct{})
	a.settled = done
	a.work.Go(func() {
		defer close(done)
		<-former
		for _, s := range gone {
			if err := a.retire(s); err != nil {
				a.work.Go(func() { a.retireAtLast(s) })
			}
		}
		if len(gone) > 0 {
			a.run.tidy()
		}
		for _, s := range fresh {
			if len(s.after) == 0 {
				s.open(a)
				continue
			}
			a.work.Go(func() { a.openAfter(s) })
		}
	})
}

// openAfter opens a resource when those before it in its place have gone.
func (a *agent) openAfter(s *slot) {
	for _, old := range s.after {
		select {
		case <-old.gone:
		case <-a.life.Done():
			return
		}
	}
	s.open(a)
}

// retire stops one resource for good, and has the loop forget it.
func (a *agent) retire(s *slot) error {
	a.outputs.Forget(s.group, s.resource) // before another may take its place
	if err := s.retire(a.life); err != nil {
		if a.life.Err() == nil {
			a.log.Error("what the file does not name any more is not known to be stopped", "resource", s.place, "cause", err)
		}
		return err
	}
	a.log.Info("stopped for good", "resource", s.place)
	a.inbox.do(a.forgetRetired)
	return nil
}

func (a *agent) retireAtLast(s *slot) {
	tick := time.NewTicker(retireEvery)
	defer tick.Stop()
	for {
		select {
		case <-a.life.Done():
			return
		case <-tick.C:
			if a.retire(s) == nil {
				return
			}
		}
	}
}

// forgetRetired forgets what is stopped for good, and no longer guards its addresses.
func (a *agent) forgetRetired() {
	a.retiring = slices.DeleteFunc(a.retiring, func(s *slot) bool {
		select {
		case <-s.gone:
			return true
		default:
			return false
		}
	})
	a.guard()
}

// closeGates closes and forgets the gates of groups that this node does not run any more.
func (a *agent) closeGates(before *cluster.Spec) {
	for i := range before.Groups {
		id := before.Groups[i].ID
		if g := a.spec.Group(id); g != nil && g.Prefers(a.self) >= 0 {
			continue
		}
		if open, ok := a.gates[id]; ok && open.End != 0 {
			a.writeGate(cluster.Gate{Group: id, Epoch: open.Epoch})
		}
		delete(a.gates, id)
	}
}

// guard has the gate guard what is to be guarded, if that has changed. If it can't, it is tried again: until
// then nothing of what is new is served, since its gate can't be opened.
func (a *agent) guard() {
	groups := a.toGuard()
	if a.guardAt == 0 && reflect.DeepEqual(groups, a.guarded) {
		a.tellFitted()
		return
	}
	if err := a.gate.Guard(groups); err != nil {
		a.guardComplaint.failed(a.log, "the groups' addresses can't be guarded", "cause", err)
		a.guardLater(a.clock.now().Mono)
		return
	}
	a.guarded, a.guardAt, a.failing = groups, 0, 0
	a.guardComplaint.worked(a.log, "the groups' addresses are guarded")
	a.tellFitted()
}

// fits has the core told that a revision is carried out, as soon as what it asks for is guarded.
func (a *agent) fits(r cluster.Revision) {
	a.unfitted = &node.Fitted{Revision: r}
	if a.guardAt == 0 {
		a.tellFitted()
	}
}

// tellFitted gives the core the answer that it waits for. It is called once everything is guarded.
func (a *agent) tellFitted() {
	if a.unfitted != nil {
		a.inbox.put(a.unfitted)
		a.unfitted = nil
	}
}

// guardLater plans the next try: promptly for the first heartbeat interval, since others may wait for an address.
func (a *agent) guardLater(now cluster.Instant) {
	if a.failing == 0 {
		a.failing = now
	}
	wait := guardEvery
	if now.Sub(a.failing) < a.spec.Timing.H {
		wait = retryPromptly
	}
	a.guardAt = now.Add(wait)
}

// guardWake returns when it is to be tried again.
func (a *agent) guardWake() cluster.Instant {
	if a.guardAt == 0 {
		return cluster.Never
	}
	return a.guardAt
}

// guardAgain guards what could not be guarded before, and no longer keeps shut what has gone down meanwhile.
func (a *agent) guardAgain(now cluster.Instant) {
	if a.guardAt != 0 && now >= a.guardAt || a.guardAt == 0 && a.former {
		a.guard()
	}
}
