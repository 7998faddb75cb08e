package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// scripted is a resource whose operations do what the test says. It records the calls.
type scripted struct {
	env Env
	// Each, if not nil, takes the operation's place.
	start, standby, stop func(ctx context.Context) error
	status               cluster.Status
	probeErr             error

	mu    sync.Mutex
	calls []string
	busy  bool
	t     *testing.T
}

func (s *scripted) Spec() cluster.KindSpec             { return cluster.KindSpec{Name: "scripted"} }
func (s *scripted) New(env Env) (Resource, error)      { s.env = env; return s, nil }
func (s *scripted) Leftover(env Env) (Resource, error) { return s.New(env) }

func (s *scripted) call(name string, ctx context.Context, f func(context.Context) error, then cluster.Status) error {
	s.mu.Lock()
	if s.busy {
		s.t.Errorf("%s was called while another operation ran", name)
	}
	s.busy = true
	s.calls = append(s.calls, name)
	s.mu.Unlock()
	var err error
	if f != nil {
		err = f(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	if err == nil {
		s.status = then
	}
	return err
}

func (s *scripted) Start(ctx context.Context, epoch cluster.Epoch) error {
	return s.call(fmt.Sprintf("start %d", epoch), ctx, s.start, cluster.StatusRunning)
}
func (s *scripted) Standby(ctx context.Context, epoch cluster.Epoch) error {
	return s.call(fmt.Sprintf("standby %d", epoch), ctx, s.standby, cluster.StatusStandby)
}
func (s *scripted) Stop(ctx context.Context) error {
	return s.call("stop", ctx, s.stop, cluster.StatusStopped)
}
func (s *scripted) Announce(ctx context.Context) error {
	return s.call("announce", ctx, nil, cluster.StatusRunning)
}
func (s *scripted) Probe(ctx context.Context) (cluster.Status, error) {
	var found cluster.Status
	s.call("probe", ctx, func(context.Context) error { found = s.status; return errors.New("unchanged") }, 0)
	return found, s.probeErr
}
func (s *scripted) Close() { s.call("close", context.Background(), nil, s.status) }

func (s *scripted) called() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.calls, ", ")
}

// untilCancelled stands for an operation that takes for ever; begun tells that it runs.
func untilCancelled(begun chan<- struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		if begun != nil {
			begun <- struct{}{}
		}
		<-ctx.Done()
		return fmt.Errorf("half way: %w", ctx.Err())
	}
}

// desk is a worker under test and what it answered.
type desk struct {
	t *testing.T
	*Worker
	answers chan cluster.Done
}

func newDesk(t *testing.T, kind Kind, env Env) *desk {
	t.Helper()
	d := &desk{t: t, answers: make(chan cluster.Done, 10_000)}
	env.Group = cluster.GroupID(strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()))
	if env.RunDir == "" {
		env.RunDir = filepath.Join(t.TempDir(), "run")
	}
	if env.Spec.ID == "" {
		env.Spec = cluster.ResourceSpec{ID: "r", StartTimeout: time.Minute, StopTimeout: time.Minute}
	}
	w, err := NewWorker(kind, env, func(done cluster.Done) { d.answers <- done })
	if err != nil {
		t.Fatal(err)
	}
	d.Worker = w
	t.Cleanup(w.Close)
	return d
}

func (d *desk) answer() cluster.Done {
	d.t.Helper()
	select {
	case done := <-d.answers:
		return done
	case <-time.After(patience):
		d.t.Fatal("no answer")
		return cluster.Done{}
	}
}

func (d *desk) expect(n uint64, status cluster.Status, reason string) {
	d.t.Helper()
	if got := d.answer(); got.N != n || got.Status != status || got.Reason != reason || got.Group != d.group || got.Resource != "r" {
		d.t.Errorf("answer %+v; want %d %v %q", got, n, status, reason)
	}
}

func want(n uint64, target cluster.Target) cluster.Want {
	return cluster.Want{N: n, Resource: "r", Target: target, Epoch: 5, Deadline: patience}
}

func TestWorkerReachesEachTarget(t *testing.T) {
	s := &scripted{t: t}
	d := newDesk(t, s, Env{})
	d.Want(want(1, cluster.TargetStandby))
	d.expect(1, cluster.StatusStandby, "")
	d.Want(want(2, cluster.TargetRunning))
	d.expect(2, cluster.StatusRunning, "")
	again := want(3, cluster.TargetRunning)
	again.Restart, again.Announce = true, true
	d.Want(again)
	d.expect(3, cluster.StatusRunning, "")
	d.Want(want(4, cluster.TargetStopped))
	d.expect(4, cluster.StatusStopped, "")
	d.Close()
	if got := s.called(); got != "standby 5, start 5, stop, start 5, announce, stop, close" {
		t.Errorf("calls: %s", got)
	}
}

// The newest target is pursued as soon as the running operation has ended; those between are not begun.
func TestWorkerSupersedes(t *testing.T) {
	begun := make(chan struct{})
	s := &scripted{t: t, start: untilCancelled(begun)}
	d := newDesk(t, s, Env{})
	d.Want(want(1, cluster.TargetRunning))
	<-begun
	hold := make(chan struct{})
	s.stop = func(context.Context) error { <-hold; return nil }
	d.Want(want(2, cluster.TargetStopped))
	d.expect(1, cluster.StatusUnknown, "superseded by a newer target: half way: context canceled")
	until(t, "the stop has begun", func() bool { return strings.HasSuffix(s.called(), "stop") })
	d.Want(want(3, cluster.TargetRunning))
	d.Want(want(4, cluster.TargetStandby))
	close(hold)
	d.expect(2, cluster.StatusStopped, "")
	d.expect(4, cluster.StatusStandby, "")
	if got := s.called(); got != "start 5, stop, standby 5" {
		t.Errorf("calls: %s", got)
	}
}

// An outcome that the operation leaves open is settled by a probe.
func TestWorkerSettlesByProbe(t *testing.T) {
	broken := func(context.Context) error { return errors.New("broken") }
	for _, c := range []struct {
		name     string
		s        *scripted
		target   cluster.Target
		restart  bool
		deadline time.Duration
		status   cluster.Status
		reason   string
	}{
		{"start fails", &scripted{start: broken}, cluster.TargetRunning, false, 0, cluster.StatusFailed, "broken"},
		{"start is late", &scripted{start: untilCancelled(nil), status: cluster.StatusStopped}, cluster.TargetRunning, false, time.Millisecond,
			cluster.StatusFailed, "half way: context deadline exceeded"},
		{"start is late, but done", &scripted{start: untilCancelled(nil), status: cluster.StatusRunning}, cluster.TargetRunning, false, time.Millisecond,
			cluster.StatusRunning, ""},
		{"stop fails", &scripted{stop: broken, status: cluster.StatusRunning}, cluster.TargetStopped, false, 0,
			cluster.StatusUnknown, "broken; a probe found it running"},
		{"stop fails, but it is stopped", &scripted{stop: broken, status: cluster.StatusStopped}, cluster.TargetStopped, false, 0,
			cluster.StatusStopped, ""},
		{"stop is late", &scripted{stop: untilCancelled(nil), status: cluster.StatusFailed}, cluster.TargetStopped, false, time.Millisecond,
			cluster.StatusUnknown, "half way: context deadline exceeded; a probe found it failed"},
		{"stop and probe fail", &scripted{stop: broken, status: cluster.StatusStopped, probeErr: errors.New("no view")}, cluster.TargetStopped, false, 0,
			cluster.StatusUnknown, "broken; probe: no view"},
		{"restart does not stop", &scripted{stop: broken, status: cluster.StatusRunning}, cluster.TargetRunning, true, 0,
			cluster.StatusUnknown, "restart: stop: broken; a probe found it running"},
		{"demotion fails", &scripted{standby: broken, status: cluster.StatusRunning}, cluster.TargetStandby, false, 0,
			cluster.StatusUnknown, "broken; a probe found it running"},
		{"standby fails", &scripted{standby: broken, status: cluster.StatusFailed}, cluster.TargetStandby, false, 0,
			cluster.StatusFailed, "broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.s.t = t
			d := newDesk(t, c.s, Env{})
			w := want(1, c.target)
			w.Restart = c.restart
			if c.deadline != 0 {
				w.Deadline = c.deadline
			}
			d.Want(w)
			d.expect(1, c.status, c.reason)
		})
	}
}

func TestWorkerPassesChangesOn(t *testing.T) {
	s := &scripted{t: t}
	d := newDesk(t, s, Env{})
	s.env.Changed(cluster.StatusFailed, "died", false)
	d.expect(0, cluster.StatusFailed, "died")

	// It told of a failure while its start returned: which came first is for the probe to say.
	s.start = func(context.Context) error { s.env.Changed(cluster.StatusFailed, "died before", false); return nil }
	d.Want(want(1, cluster.TargetRunning))
	d.expect(1, cluster.StatusRunning, "")
	s.start = func(context.Context) error { s.env.Changed(cluster.StatusFailed, "died at last", false); return nil }
	s.probeErr = errors.New("nothing there")
	d.Want(want(2, cluster.TargetRunning))
	d.expect(2, cluster.StatusFailed, "died at last")
}

func TestWorkerCloseEndsOperation(t *testing.T) {
	begun := make(chan struct{})
	s := &scripted{t: t, start: untilCancelled(begun)}
	d := newDesk(t, s, Env{})
	d.Want(want(1, cluster.TargetRunning))
	<-begun
	d.Close()
	d.Close()
	d.Want(want(2, cluster.TargetStopped))
	s.env.Changed(cluster.StatusFailed, "late", false)
	if got := s.called(); got != "start 5, close" {
		t.Errorf("calls: %s", got)
	}
	if len(d.answers) != 0 {
		t.Errorf("answered %+v", <-d.answers)
	}
}

// A target that is reached already costs microseconds.
func TestWorkerLatency(t *testing.T) {
	d := newDesk(t, &scripted{t: t}, Env{})
	best := time.Hour
	for n := range uint64(1000) {
		begun := time.Now()
		d.Want(want(n+1, cluster.TargetRunning))
		d.answer()
		best = min(best, time.Since(begun))
	}
	t.Logf("best of 1000 from want to done: %s", best)
	if best > time.Millisecond {
		t.Errorf("best of 1000 from want to done: %s", best)
	}
}

// A start is superseded by a stop at many points of its course, with a real program, and the other way
// round: the last target is always the one that is reached, and nothing is left behind.
func TestWorkerSupersedesProcessInEveryPhase(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "resource-test-")
	if err != nil {
		dir = t.TempDir()
	}
	defer os.RemoveAll(dir)
	s := spec(`trap "sleep 0.01; exit" TERM; sleep 0.01; echo up > "${BATON_STATE_FILE%/*}"/up; while :; do sleep 0.002; done`,
		map[string]any{"ready": map[string]any{"command": []string{"test", "-e", filepath.Join(dir, "up")}, "interval": time.Millisecond}})
	d := newDesk(t, Process{}, Env{Cluster: testCluster(), Node: "n", Spec: s, RunDir: dir})
	p := d.res.(*process)
	n := uint64(0)
	last := func(target cluster.Target) cluster.Done {
		n++
		d.Want(want(n, target))
		for {
			if done := d.answer(); done.N == n {
				return done
			}
		}
	}
	for i := range 40 {
		wait := time.Duration(i) * time.Millisecond
		os.Remove(filepath.Join(dir, "up"))
		n++
		d.Want(want(n, cluster.TargetRunning))
		time.Sleep(wait)
		if done := last(cluster.TargetStopped); done.Status != cluster.StatusStopped {
			t.Fatalf("stop %s after a start: %+v", wait, done)
		}
		if some, err := p.group.populated(); some || err != nil || p.state.PID != 0 {
			t.Fatalf("stop %s after a start: cgroup populated %v, %v; state %+v", wait, some, err, p.state)
		}
		if done := last(cluster.TargetRunning); done.Status != cluster.StatusRunning {
			t.Fatalf("start: %+v", done)
		}
		n++
		d.Want(want(n, cluster.TargetStopped))
		time.Sleep(wait / 2)
		if done := last(cluster.TargetRunning); done.Status != cluster.StatusRunning {
			t.Fatalf("start %s after a stop: %+v", wait/2, done)
		}
		if !alive(p.state.PID) {
			t.Fatalf("start %s after a stop: process %d is dead", wait/2, p.state.PID)
		}
	}
	if done := last(cluster.TargetStopped); done.Status != cluster.StatusStopped {
		t.Fatalf("stop: %+v", done)
	}
}

// With a real program: its death is told by N zero, and a restart brings it back.
func TestWorkerTellsDeath(t *testing.T) {
	dir := t.TempDir()
	d := newDesk(t, Process{}, Env{Cluster: testCluster(), Node: "n", Spec: spec("exec sleep 1000", nil), RunDir: dir})
	p := d.res.(*process)
	if got := d.Adopt(t.Context()); got != cluster.StatusStopped {
		t.Errorf("adopt: %v", got)
	}
	d.Want(want(1, cluster.TargetRunning))
	d.expect(1, cluster.StatusRunning, "")
	unix.Kill(p.seenPID(), unix.SIGKILL)
	if done := d.answer(); done.N != 0 || done.Status != cluster.StatusFailed || !strings.HasPrefix(done.Reason, "was killed by SIGKILL") {
		t.Errorf("answer %+v", done)
	}
	again := want(2, cluster.TargetRunning)
	again.Restart = true
	d.Want(again)
	d.expect(2, cluster.StatusRunning, "")
	d.Want(want(3, cluster.TargetStopped))
	d.expect(3, cluster.StatusStopped, "")
}

func (p *process) seenPID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.PID
}
