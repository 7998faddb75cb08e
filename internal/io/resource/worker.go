package resource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"baton/internal/core/cluster"
)

// probeLimit bounds the probe that settles an unknown outcome. The operation's own time is used up by then.
const probeLimit = 5 * time.Second

// Worker pursues the newest target of one resource. While there is something to do it has a goroutine, in which it calls
// the resource's operations, one at a time, and its caller's callback. Of a thousand that wait, each would keep the stack
// that its largest operation took.
//
// A newer Want supersedes: the running operation's context is cancelled, its end awaited, then the newest
// is pursued. Every Want whose pursuit began is answered by one Done, unless the worker is closed first;
// one that was superseded before it began is answered by nothing. A target that is reached is answered by
// the status of its name: TargetStandby by StatusStandby, also where the depth is cold and nothing runs.
type Worker struct {
	group cluster.GroupID
	id    cluster.ResourceID
	done  func(cluster.Done)
	turns sync.WaitGroup // of the goroutine, one after the other
	life  context.Context
	end   context.CancelFunc // ends life, and with it every operation and probe

	calling sync.Mutex // held while a method of res runs; guards what follows
	kind    Kind
	env     Env
	spec    cluster.ResourceSpec // of env
	res     Resource
	// patience is the longest time that a former description, by which it may run still, gives it to stop.
	patience time.Duration

	mu      sync.Mutex
	next    *cluster.Want      // the newest target, not yet begun
	other   *description       // what the resource is to become, not yet begun
	change  *change            // what the resource last told of itself, not yet passed on
	named   Guards             // of the newest description, begun or not
	former  Guards             // of former ones, as far as it may be up by them, and the newest has it not
	cancel  context.CancelFunc // of the running operation; nil: none
	opened  bool               // it may have a goroutine
	busy    bool               // it has one
	again   bool               // there may be something to do that its goroutine has not looked at
	retired bool               // nothing is pursued or told any more
	closed  bool
}

// description is what a resource is made from.
type description struct {
	kind Kind
	env  Env
}

// change is what is news of the resource.
type change struct {
	status       cluster.Status
	reason       string
	surroundings bool   // it failed for what is around it
	probe        string // what a probe says against it
}

// failure makes what is told of an operation that failed.
func failure(err error) change {
	probe := ""
	if u, ok := errors.AsType[unwell](err); ok {
		probe = u.probe()
	}
	return change{cluster.StatusFailed, err.Error(), fromSurroundings(err), probe}
}

// NewWorker makes a resource of this kind and a worker for it. It replaces env.Changed. The callback done
// must not block; it is called from the worker's goroutine, for Wants and, with N zero, for what the
// resource did by itself (of several such changes that wait, the last one counts).
func NewWorker(kind Kind, env Env, done func(cluster.Done)) (*Worker, error) {
	w := newWorker(kind, env, done)
	former, err := Recall(env.RunDir)
	if err != nil {
		return w.begin(err)
	}
	w.patience = former.StopTimeout
	w.former = former.Guards().Without(w.named)
	w.make()
	if b, ok := w.res.(broken); ok {
		return w.begin(b.cause)
	}
	return w.begin(nil)
}

// NewBroken makes a worker for a resource that NewWorker could not make. At each Want it is tried again; until
// then the answer is the reason.
func NewBroken(kind Kind, env Env, done func(cluster.Done), reason error) *Worker {
	w := newWorker(kind, env, done)
	w.res = broken{reason}
	_, _ = w.begin(nil) // it fails with the error given
	return w
}

// NewLeftover makes a worker for what a run directory tells of and no file describes: it is there to be
// retired, or to be replaced by what the file describes under this name now.
func NewLeftover(kind Kind, env Env, done func(cluster.Done)) (w *Worker, err error) {
	w = newWorker(kind, env, done)
	env.Changed, env.Doubts = w.changed, w.doubts
	w.res, err = kind.Leftover(env)
	return w.begin(err)
}

func newWorker(kind Kind, env Env, done func(cluster.Done)) *Worker {
	w := &Worker{group: env.Group, id: env.Spec.ID, kind: kind, spec: env.Spec, env: env,
		done: done, named: GuardsOf(env.Spec)}
	w.life, w.end = context.WithCancel(context.Background())
	return w
}

func (w *Worker) begin(err error) (*Worker, error) {
	if err != nil {
		w.end()
		return nil, fmt.Errorf("resource %s/%s: %w", w.group, w.id, err)
	}
	w.mu.Lock()
	w.opened = true
	w.mu.Unlock()
	w.poke()
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

// Replace makes this the resource's description; it never blocks. A running operation is cancelled, its end
// awaited, and its target pursued under the new description, unless a newer Want has come. What runs goes on
// until a Want says otherwise: a resource of the same kind stops, before it starts again, what was started
// by the former description, by what that said. One of another kind is stopped at once.
func (w *Worker) Replace(kind Kind, env Env) {
	w.mu.Lock()
	w.other = &description{kind, env}
	named := GuardsOf(env.Spec)
	w.former, w.named = w.former.And(w.named).Without(named), named
	if w.cancel != nil {
		w.cancel()
	}
	w.mu.Unlock()
	w.poke()
}

// Former returns what the gate guarded for the resource by descriptions that do not count any more, as long as it is
// not known to be down: the resource was not stopped since, nor started by the newest.
func (w *Worker) Former() Guards {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.former
}

// forgetFormer notes that nothing is up any more by former descriptions. The note in the run directory may tell of
// more: that costs nothing but a closed gate. It is called with calling held.
func (w *Worker) forgetFormer(status cluster.Status) {
	w.mu.Lock()
	// What is up was brought up by a description that does not count any more where another waits.
	known := !w.former.Empty() && !w.retired && (status == cluster.StatusStopped || w.other == nil)
	if known {
		w.former = Guards{}
	}
	w.mu.Unlock()
	if !known {
		return
	}
	if err := remember(w.kind.Spec().Name, w.env, Guards{}); err != nil && w.env.Log != nil {
		w.env.Log.Warn("a note of what was up before stays", "cause", err)
	}
}

// found notes what a probe tells of former descriptions: by one that can't go on under the present the status would
// not be known.
func (w *Worker) found(status cluster.Status) {
	w.calling.Lock()
	defer w.calling.Unlock()
	switch status {
	case cluster.StatusStopped, cluster.StatusStandby, cluster.StatusRunning:
		w.forgetFormer(status)
	}
}

// Retire stops the resource for good, closes the worker, and removes the run directory. From its call on
// nothing is told any more. On an error the resource is not known to be stopped, and Retire is to be called
// again.
func (w *Worker) Retire(ctx context.Context) error {
	w.mu.Lock()
	w.retired = true
	w.next, w.other = nil, nil
	if w.cancel != nil {
		w.cancel()
	}
	w.mu.Unlock()
	w.calling.Lock()
	err := w.res.Stop(ctx)
	dir, output := w.env.RunDir, w.env.OutputDir
	w.calling.Unlock()
	if err != nil {
		return fmt.Errorf("stop %s/%s, which is to go: %w", w.group, w.id, err)
	}
	w.Close()
	err = os.RemoveAll(dir)
	if output != "" {
		err = errors.Join(err, os.RemoveAll(output))
	}
	if err != nil {
		return fmt.Errorf("remove the directory of %s/%s: %w", w.group, w.id, err)
	}
	return nil
}

// Adopt probes the resource and so takes over what already runs. A probe that fails is StatusUnknown.
func (w *Worker) Adopt(ctx context.Context) cluster.Status {
	status, err := w.probe(ctx)
	if err == nil {
		w.found(status)
	}
	return status
}

// Keep makes anew what was deleted of the run directory, and keeps room there for what a start notes; an error says
// why it can't. Where an operation runs, that has noted what there is to note, and Keep does nothing. Anew: the directory
// was gone.
func (w *Worker) Keep() (anew bool, err error) {
	if !w.calling.TryLock() {
		return false, nil
	}
	defer w.calling.Unlock()
	w.mu.Lock()
	over, former := w.retired || w.closed, w.former
	w.mu.Unlock()
	if over {
		return false, nil
	}
	_, err = os.Stat(w.env.RunDir)
	anew = errors.Is(err, fs.ErrNotExist)
	if _, ok := w.res.(broken); ok {
		w.make()
	}
	if b, ok := w.res.(broken); ok {
		return false, b.cause
	}
	if !NoteKept(filepath.Join(w.env.RunDir, memoryFile)) {
		if err := remember(w.kind.Spec().Name, w.env, former); err != nil {
			return false, err
		}
	}
	if k, ok := w.res.(Keeper); ok {
		return anew, k.Keep()
	}
	return anew, nil
}

// Close cancels what is under way, ends the goroutine and lets go of the resource, which runs on. After
// it has returned, the callback is not called any more.
func (w *Worker) Close() {
	w.mu.Lock()
	first := !w.closed
	w.closed = true
	w.mu.Unlock()
	w.end()
	w.turns.Wait()
	if first {
		w.calling.Lock()
		defer w.calling.Unlock()
		w.res.Close()
	}
}

func (w *Worker) changed(status cluster.Status, reason string, surroundings bool) {
	w.mu.Lock()
	w.change = &change{status, reason, surroundings, ""}
	w.mu.Unlock()
	w.poke()
}

func (w *Worker) doubts(status cluster.Status, reason, probe string) {
	w.mu.Lock()
	w.change = &change{status, reason, false, probe}
	w.mu.Unlock()
	w.poke()
}

// poke has the goroutine look for something to do.
func (w *Worker) poke() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.again = true
	if w.opened && !w.busy && !w.closed {
		w.busy = true
		w.turns.Go(w.loop)
	}
}

func (w *Worker) loop() {
	for w.more() {
		for w.step() {
		}
	}
}

// more tells whether something may have come since the last look; if not, the goroutine ends.
func (w *Worker) more() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy, w.again = w.again && !w.closed, false
	return w.busy
}

// step passes on one change, takes over one description or pursues one Want. It returns false when there was
// none of them.
func (w *Worker) step() bool {
	w.mu.Lock()
	if w.closed || w.retired {
		w.mu.Unlock()
		return false
	}
	if w.other != nil {
		w.mu.Unlock()
		return w.become()
	}
	if c := w.change; c != nil {
		w.change = nil
		w.mu.Unlock()
		w.answer(0, *c)
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
	if err != nil && w.next == nil && w.other != nil {
		w.next = &want // cut short by a new description: once more, under that
		w.mu.Unlock()
		cancel()
		return true
	}
	superseded, over := w.next != nil, w.closed || w.retired
	// What the resource told of itself meanwhile is settled with the outcome: its order against the
	// operation's end is not known.
	meanwhile := w.change
	w.change = nil
	w.mu.Unlock()
	cancel()
	if over {
		return false
	}
	if superseded && err != nil {
		// No probe: the newer target is pursued now, and finds out for itself.
		w.answer(want.N, change{cluster.StatusUnknown, "superseded by a newer target: " + err.Error(), false, ""})
		return true
	}
	end := w.settle(want, err, meanwhile)
	if end.status == cluster.StatusStopped {
		w.found(end.status)
	}
	w.answer(want.N, end)
	return true
}

// become makes the resource anew by the description that waits. If what is to go before can't be stopped, it
// stays as it is, the description waits on, and a Want that waits is answered by the reason.
func (w *Worker) become() bool {
	w.mu.Lock()
	d := w.other
	w.change = nil // news of a description that does not count any more
	w.mu.Unlock()
	if d == nil {
		return true
	}
	if err := w.makeRoom(d); err != nil {
		w.mu.Lock()
		want := w.next
		w.next = nil
		w.mu.Unlock()
		if want == nil {
			return false
		}
		w.answer(want.N, change{cluster.StatusUnknown, err.Error(), false, ""})
		return true
	}
	w.calling.Lock()
	w.patience = max(w.patience, w.spec.StopTimeout)
	w.kind, w.env, w.spec = d.kind, d.env, d.env.Spec
	w.make()
	w.calling.Unlock()
	w.mu.Lock()
	if w.other == d {
		w.other = nil
	}
	waits := w.next != nil || w.other != nil
	w.mu.Unlock()
	if waits {
		return true // that finds out for itself how it is
	}
	// It may have ended while nobody looked, and a probe has it watched from now on.
	status, err := w.probeNow()
	if err != nil {
		return true
	}
	w.found(status)
	if status == cluster.StatusStopped || status == cluster.StatusFailed {
		w.answer(0, change{status, "found so when its description had changed", false, ""})
	}
	return true
}

// make makes the resource; where that fails, what stands for it knows why. It is called with calling held.
func (w *Worker) make() {
	env := w.env
	env.Changed, env.Doubts = w.changed, w.doubts
	err := remember(w.kind.Spec().Name, env, w.Former())
	if err == nil {
		w.res, err = w.kind.New(env)
	}
	if err != nil {
		w.res = broken{err}
	}
}

// makeRoom lets go of the resource. One of another kind than the next is stopped before, and its directory
// cleared.
func (w *Worker) makeRoom(d *description) error {
	w.calling.Lock()
	defer w.calling.Unlock()
	if w.kind.Spec().Name != d.kind.Spec().Name {
		ctx, cancel := context.WithTimeout(w.life, w.spec.StopTimeout+time.Second)
		defer cancel()
		if err := w.res.Stop(ctx); err != nil {
			return fmt.Errorf("stop the %s that it was: %w", w.kind.Spec().Name, err)
		}
		if err := os.RemoveAll(w.env.RunDir); err != nil {
			return fmt.Errorf("clear the directory of the %s that it was: %w", w.kind.Spec().Name, err)
		}
		w.mu.Lock()
		w.former = Guards{}
		w.mu.Unlock()
	}
	w.res.Close()
	w.res = broken{errors.New("it is being made anew")}
	return nil
}

func (w *Worker) answer(n uint64, c change) {
	w.done(cluster.Done{N: n, Group: w.group, Resource: w.id, Status: c.status, Reason: c.reason,
		Surroundings: c.surroundings && c.status == cluster.StatusFailed, Probe: c.probe})
}

// limit is the Want's deadline, or what the specification allows for the operations that it takes. The stop
// of a restart has its own time, and what runs by a former description has the time that that gave it: what
// was started with patience is not killed because its successor needs none.
func (w *Worker) limit(want cluster.Want) time.Duration {
	// Room for an operation to report its own limit, which says more than a deadline does.
	const room = time.Second
	stop := max(w.spec.StopTimeout, w.patience)
	switch {
	case want.Target == cluster.TargetStopped && want.Deadline > 0:
		return max(want.Deadline, w.patience)
	case want.Target == cluster.TargetStopped:
		return stop + room
	case want.Deadline > 0 && want.Restart:
		return want.Deadline + stop
	case want.Deadline > 0:
		return want.Deadline
	case want.Restart || w.spec.Depth == cluster.Cold:
		return w.spec.StartTimeout + stop + room
	}
	return w.spec.StartTimeout + room
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
	if _, ok := w.res.(broken); ok {
		w.make()
	}
	if want.Restart && want.Target != cluster.TargetStopped {
		if err := w.res.Stop(ctx); err != nil {
			return errRestart{err}
		}
		w.forgetFormer(cluster.StatusStopped)
	}
	if err := w.goTo(ctx, want); err != nil {
		return err
	}
	w.forgetFormer(reached[want.Target])
	if want.Target != cluster.TargetRunning {
		return nil
	}
	if front, ok := w.res.(Announcer); ok && want.Announce {
		if err := front.Announce(ctx); err != nil {
			return errAnnounce{err}
		}
	}
	return nil
}

// goTo calls the operation of the target.
func (w *Worker) goTo(ctx context.Context, want cluster.Want) error {
	switch want.Target {
	case cluster.TargetStopped:
		return w.res.Stop(ctx)
	case cluster.TargetStandby:
		return w.res.Standby(ctx, want.Epoch)
	}
	return w.res.Start(ctx, want.Epoch)
}

var reached = [...]cluster.Status{
	cluster.TargetStopped: cluster.StatusStopped,
	cluster.TargetStandby: cluster.StatusStandby,
	cluster.TargetRunning: cluster.StatusRunning,
}

// settle turns the end of an operation into what is known of the resource. Only where that end leaves it
// open does it ask the resource.
func (w *Worker) settle(want cluster.Want, err error, meanwhile *change) change {
	goal := reached[want.Target]
	if announce, ok := errors.AsType[errAnnounce](err); ok {
		return change{goal, announce.Error(), false, ""}
	}
	if err == nil {
		if meanwhile == nil || want.Target == cluster.TargetStopped {
			return change{goal, "", false, ""}
		}
		if found, _ := w.probeNow(); found == goal {
			return change{goal, "", false, ""}
		}
		return change{cluster.StatusFailed, meanwhile.reason, meanwhile.surroundings, meanwhile.probe}
	}
	reason := err.Error()
	_, inStop := errors.AsType[errRestart](err)
	late := errors.Is(err, context.DeadlineExceeded)
	if want.Target == cluster.TargetRunning && !inStop && !late {
		return failure(err)
	}
	found, probeErr := w.probeNow()
	switch {
	case probeErr != nil:
		return change{cluster.StatusUnknown, fmt.Sprintf("%s; probe: %v", reason, probeErr), false, ""}
	case !inStop && found == goal:
		return change{goal, "", false, ""}
	case want.Target == cluster.TargetStopped, inStop && found != cluster.StatusStopped:
		return change{cluster.StatusUnknown, fmt.Sprintf("%s; a probe found it %s", reason, found), false, ""}
	case want.Target == cluster.TargetStandby && found == cluster.StatusRunning:
		return change{cluster.StatusUnknown, fmt.Sprintf("%s; a probe found it %s", reason, found), false, ""}
	case want.Target == cluster.TargetStandby && found == cluster.StatusStopped && w.spec.Depth == cluster.Cold:
		return change{goal, "", false, ""}
	}
	return failure(err)
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
