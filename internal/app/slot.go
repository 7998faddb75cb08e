package app

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/resource"
)

// retireMargin is what a stop may take beside the time that its program has.
const retireMargin = 2 * time.Second

// place names a resource of this node.
type place struct {
	group    cluster.GroupID
	resource cluster.ResourceID
}

func (p place) String() string { return fmt.Sprintf("%s/%s", p.group, p.resource) }

// slot is where one resource runs on this node. Its worker may come later, when what had to go before has gone;
// until then the newest target waits.
type slot struct {
	place
	after []*slot       // what must have gone before it is opened
	gone  chan struct{} // closed when it is known to be stopped for good

	life    sync.Mutex // held while the worker is made, or the resource stopped for good
	dropped bool       // it is to go, or has gone

	mu     sync.Mutex // held for moments only
	kind   resource.Kind
	env    resource.Env
	worker *resource.Worker
	want   *cluster.Want   // waits for the worker
	left   resource.Guards // what a former run may have left up, until there is a worker that knows
}

// slot makes a place for a resource by a specification; open completes it.
func (a *agent) slot(cluster string, g cluster.GroupID, r cluster.ResourceSpec) *slot {
	s := &slot{place: place{g, r.ID}, gone: make(chan struct{})}
	s.kind, s.env = a.describe(cluster, g, r)
	return s
}

// describe finds a resource's kind, and makes what it is given to live in.
func (a *agent) describe(cluster string, g cluster.GroupID, r cluster.ResourceSpec) (resource.Kind, resource.Env) {
	return kindOf(r.Kind), resource.Env{Cluster: cluster, Node: a.self, Group: g, Spec: r, RunDir: a.run.resource(g, r.ID),
		OutputDir: a.printing.of(g, r.ID), OutputLimit: a.printing.limit,
		Log: a.log.With("group", g, "resource", r.ID)}
}

// kindOf returns the kind of a name; nil: this binary has none.
func kindOf(name string) resource.Kind {
	if i := slices.IndexFunc(kinds, func(k resource.Kind) bool { return k.Spec().Name == name }); i >= 0 {
		return kinds[i]
	}
	return nil
}

// done hands a worker's answers to the core.
func (a *agent) done(d cluster.Done) {
	a.inbox.put(&node.Done{Done: d})
	a.lacks.note(d, time.Now()) // after it: what ends a failure must not come before that
}

// newWorker makes a resource's worker. What a former run has left in its place of another kind is stopped by
// the worker, in its own time.
func newWorker(kind resource.Kind, env resource.Env, done func(cluster.Done)) (*resource.Worker, error) {
	former, err := resource.Recall(env.RunDir)
	if err != nil {
		return nil, err
	}
	if former.Kind == "" || former.Kind == kind.Spec().Name || kindOf(former.Kind) == nil {
		return resource.NewWorker(kind, env, done)
	}
	w, err := resource.NewLeftover(kindOf(former.Kind), leftoverEnv(env, former), done)
	if err == nil {
		w.Replace(kind, env)
	}
	return w, err
}

// leftoverEnv is the environment of what a run directory tells of.
func leftoverEnv(env resource.Env, m resource.Memory) resource.Env {
	env.Spec = cluster.ResourceSpec{ID: env.Spec.ID, Kind: m.Kind, StopTimeout: m.StopTimeout, Addresses: m.Addresses, Ports: m.Ports}
	return env
}

// open makes the worker, unless the resource is to go by now. In a running agent a failure is an answer to what
// is wanted.
func (s *slot) open(a *agent) {
	s.life.Lock()
	defer s.life.Unlock()
	if s.dropped {
		return
	}
	s.mu.Lock()
	kind, env := s.kind, s.env
	s.mu.Unlock()
	w, err := newWorker(kind, env, a.done)
	if err != nil {
		a.log.Error("a resource can't be made", "resource", s.place, "cause", err)
		w = resource.NewBroken(kind, env, a.done, err)
	}
	a.follow(env)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.worker = w
	if !reflect.DeepEqual(env.Spec, s.env.Spec) { // changed meanwhile
		w.Replace(s.kind, s.env)
	}
	if s.want != nil {
		w.Want(*s.want)
		s.want = nil
	}
}

// Want makes this the target to pursue. It never blocks.
func (s *slot) Want(w cluster.Want) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.worker == nil {
		s.want = &w
		return
	}
	s.worker.Want(w)
}

// replace makes this the resource's description.
func (s *slot) replace(kind resource.Kind, env resource.Env) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind, s.env = kind, env
	if s.worker != nil {
		s.worker.Replace(kind, env)
	}
}

// spec returns the resource's description.
func (s *slot) spec() cluster.ResourceSpec {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.env.Spec
}

// former returns what may be up of the resource by descriptions that do not count any more.
func (s *slot) former() resource.Guards {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.worker == nil {
		return s.left.Without(resource.GuardsOf(s.env.Spec))
	}
	return s.worker.Former()
}

// retire stops the resource for good and removes what is left of it. On an error it is to be called again.
func (s *slot) retire(ctx context.Context) error {
	s.life.Lock()
	defer s.life.Unlock()
	s.dropped = true
	if s.worker != nil {
		limited, cancel := context.WithTimeout(ctx, s.spec().StopTimeout+retireMargin)
		defer cancel()
		if err := s.worker.Retire(limited); err != nil {
			return err
		}
	}
	close(s.gone)
	return nil
}

// close lets go of the resource, which runs on.
func (s *slot) close() {
	s.life.Lock()
	defer s.life.Unlock()
	s.dropped = true
	if s.worker != nil {
		s.worker.Close()
	}
}
