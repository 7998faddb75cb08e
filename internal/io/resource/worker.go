package resource

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"baton/internal/core/cluster"
)

// probeLimit bounds the probe that settles an unknown outcome. The operation's own time is used up by then.
const probeLimit = 5 * time.Second

// Worker pursues the newest target of one resource. It owns a goroutine, in which it calls the resource's
// operations, one at a time, and its caller's callback.
//
// A newer Want supersedes: the running operation's context is cancelled, its end awaited, then the newest
// is pursued. Every Want whose pursuit began is answered by one Done, unless the worker is closed first;
// one that was superseded before it began is answered by nothing. A target that is reached is answered by
// the status of its name: TargetStandby by StatusStandby, also where the depth is cold and nothing runs.
type Worker struct {
	group cluster.GroupID
	id    cluster.ResourceID
	spec  cluster.ResourceSpec
	res   Resource
	done  func(cluster.Done)
	wake  chan struct{} // holds one token: there is something to look at
	ended chan struct{} // closed when the goroutine has ended
	life  context.Context
	end   context.CancelFunc // ends life, and with it every operation and probe

	calling sync.Mutex // held while a method of res runs

	mu     sync.Mutex
	next   *cluster.Want      // the newest target, not yet begun
	change *change            // what the resource last told of itself, not yet passed on
	cancel context.CancelFunc // of the running operation; nil: none
	closed bool
}

type change struct {
	status cluster.Status
	reason string
}

// NewWorker makes a resource of this kind and a worker for it. It replaces env.Changed. The callback done
// must not block; it is called from the worker's goroutine, for Wants and, with N zero, for what the
// resource did by itself (of several such changes that wait, the last one counts).
func NewWorker(kind Kind, env Env, done func(cluster.Done)) (*Worker, error) {
	w := &Worker{
		group: env.Group,
		id:    env.Spec.ID,
		spec:  env.Spec,
		done:  done,
		wake:  make(chan struct{}, 1),
		ended: make(chan struct{}),
	}
	w.life, w.end = context.WithCancel(context.Background())
	env.Changed = w.changed
	res, err := kind.New(env)
	if err != nil {
		w.end()
		return nil, fmt.Errorf("resource %s/%s: %w", env.Group, env.Spec.ID, err)
	}
	w.res = res
	go w.loop()
	return w, nil
}

// Want makes this the target to pursue. It never blocks.
func (w *Worker) Want(want cluster.Want) {
	w.mu.Lock()
	w.next = &want
	if w.cancel != nil {
		w.cancel()
	}
	w.mu.Unlock()
	w.poke()
}

// Adopt probes the resource and so takes over what already runs. A probe that fails is StatusUnknown.
func (w *Worker) Adopt(ctx context.Context) cluster.Status {
	status, _ := w.probe(ctx)
	return status
}

// Close cancels what is under way, ends the goroutine and lets go of the resource, which runs on. After
// it has returned, the callback is not called any more.
func (w *Worker) Close() {
	w.mu.Lock()
	first := !w.closed
	w.closed = true
	w.mu.Unlock()
	w.end()
	w.poke()
	<-w.ended
	if first {
		w.calling.Lock()
		defer w.calling.Unlock()
		w.res.Close()
	}
}

func (w *Worker) changed(status cluster.Status, reason string) {
	w.mu.Lock()
	w.change = &change{status, reason}
	w.mu.Unlock()
	w.poke()
}

func (w *Worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Worker) loop() {
	defer close(w.ended)
	for range w.wake {
		for w.step() {
		}
		w.mu.Lock()
		closed := w.closed
		w.mu.Unlock()
		if closed {
			return
		}
	}
}

// step passes on one change or pursues one Want. It returns false when there was neither.
func (w *Worker) step() bool {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return false
	}
	if c := w.change; c != nil {
		w.change = nil
		w.mu.Unlock()
		w.answer(0, c.status, c.reason)
		return true
	}
	if w.next == nil {
		w.mu.Unlock()
		return false
	}
	want := *w.next
	w.next = nil
	ctx, cancel := context.WithTimeout(w.life, w.limit(want))
	w.cancel = cancel
	w.mu.Unlock()

	err := w.reach(ctx, want)

	w.mu.Lock()
	w.cancel = nil
	superseded, closed := w.next != nil, w.closed
	// What the resource told of itself meanwhile is settled with the outcome: its order against the
	// operation's end is not known.
	meanwhile := w.change
	w.change = nil
	w.mu.Unlock()
	cancel()
	if closed {
		return false
	}
	if superseded && err != nil {
		// No probe: the newer target is pursued now, and finds out for itself.
		w.answer(want.N, cluster.StatusUnknown, "superseded by a newer target: "+err.Error())
		return true
	}
	status, reason := w.settle(want, err, meanwhile)
	w.answer(want.N, status, reason)
	return true
}

func (w *Worker) answer(n uint64, status cluster.Status, reason string) {
	w.done(cluster.Done{N: n, Group: w.group, Resource: w.id, Status: status, Reason: reason})
}

// limit is the Want's deadline, or what the specification allows for the operations that it takes.
func (w *Worker) limit(want cluster.Want) time.Duration {
	if want.Deadline > 0 {
		return want.Deadline
	}
	var limit time.Duration
	if want.Target == cluster.TargetStopped || want.Restart || w.spec.Depth == cluster.Cold {
		limit += w.spec.StopTimeout
	}
	if want.Target != cluster.TargetStopped {
		limit += w.spec.StartTimeout
	}
	// Room for an operation to report its own limit, which says more than a deadline does.
	return limit + time.Second
}

// errAnnounce means that the target is reached, and only the announcement failed.
type errAnnounce struct{ cause error }

func (e errAnnounce) Error() string { return "up, but not announced again: " + e.cause.Error() }
func (e errAnnounce) Unwrap() error { return e.cause }

// errRestart means that a restart did not get past its stop.
type errRestart struct{ cause error }

func (e errRestart) Error() string { return "restart: stop: " + e.cause.Error() }
func (e errRestart) Unwrap() error { return e.cause }

// reach calls the operations that bring the resource to the target.
func (w *Worker) reach(ctx context.Context, want cluster.Want) error {
	w.calling.Lock()
	defer w.calling.Unlock()
	if want.Restart && want.Target != cluster.TargetStopped {
		if err := w.res.Stop(ctx); err != nil {
			return errRestart{err}
		}
	}
	switch want.Target {
	case cluster.TargetStopped:
		return w.res.Stop(ctx)
	case cluster.TargetStandby:
		return w.res.Standby(ctx, want.Epoch)
	}
	if err := w.res.Start(ctx, want.Epoch); err != nil {
		return err
	}
	if front, ok := w.res.(Announcer); ok && want.Announce {
		if err := front.Announce(ctx); err != nil {
			return errAnnounce{err}
		}
	}
	return nil
}

var reached = [...]cluster.Status{
	cluster.TargetStopped: cluster.StatusStopped,
	cluster.TargetStandby: cluster.StatusStandby,
	cluster.TargetRunning: cluster.StatusRunning,
}

// settle turns the end of an operation into what is known of the resource. Only where that end leaves it
// open does it ask the resource.
func (w *Worker) settle(want cluster.Want, err error, meanwhile *change) (cluster.Status, string) {
	goal := reached[want.Target]
	if announce, ok := errors.AsType[errAnnounce](err); ok {
		return goal, announce.Error()
	}
	if err == nil {
		if meanwhile == nil || want.Target == cluster.TargetStopped {
			return goal, ""
		}
		if found, _ := w.probeNow(); found == goal {
			return goal, ""
		}
		return cluster.StatusFailed, meanwhile.reason
	}
	reason := err.Error()
	_, inStop := errors.AsType[errRestart](err)
	late := errors.Is(err, context.DeadlineExceeded)
	if want.Target == cluster.TargetRunning && !inStop && !late {
		return cluster.StatusFailed, reason
	}
	found, probeErr := w.probeNow()
	switch {
	case probeErr != nil:
		return cluster.StatusUnknown, fmt.Sprintf("%s; probe: %v", reason, probeErr)
	case !inStop && found == goal:
		return goal, ""
	case want.Target == cluster.TargetStopped, inStop && found != cluster.StatusStopped:
		return cluster.StatusUnknown, fmt.Sprintf("%s; a probe found it %s", reason, found)
	case want.Target == cluster.TargetStandby && found == cluster.StatusRunning:
		return cluster.StatusUnknown, fmt.Sprintf("%s; a probe found it %s", reason, found)
	case want.Target == cluster.TargetStandby && found == cluster.StatusStopped && w.spec.Depth == cluster.Cold:
		return goal, ""
	}
	return cluster.StatusFailed, reason
}

func (w *Worker) probeNow() (cluster.Status, error) {
	ctx, cancel := context.WithTimeout(w.life, probeLimit)
	defer cancel()
	return w.probe(ctx)
}

func (w *Worker) probe(ctx context.Context) (cluster.Status, error) {
	w.calling.Lock()
	defer w.calling.Unlock()
	status, err := w.res.Probe(ctx)
	if err != nil {
		return cluster.StatusUnknown, err
	}
	return status, nil
}
