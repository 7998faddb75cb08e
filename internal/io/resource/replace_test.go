package resource

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// programs is a worker of a real program.
func programs(t *testing.T, s cluster.ResourceSpec) (*desk, Env) {
	t.Helper()
	b := newBench(t, s) // makes the directory, and stops what is left at the end
	b.p.Close()
	d := newDesk(t, Process{}, Env{Cluster: b.env.Cluster, Node: b.env.Node, Spec: s, RunDir: b.env.RunDir})
	env := b.env
	return d, env
}

func (d *desk) silent() {
	d.t.Helper()
	select {
	case done := <-d.answers:
		d.t.Errorf("told %+v, nothing expected", done)
	case <-time.After(100 * time.Millisecond):
	}
}

// pidOf reads the state file as `baton dev` does.
func pidOf(t *testing.T, dir string) int {
	t.Helper()
	p := &process{env: Env{RunDir: dir}}
	if _, err := p.open(); err != nil {
		t.Fatal(err)
	}
	p.Close()
	if p.state.PID == 0 {
		t.Fatal("no process is known")
	}
	return p.state.PID
}

// trapping waits for a signal, tells of it in a file, and ends.
func trapping(file string) string {
	return `trap 'echo USR1 >> ` + file + `; exit' USR1; trap 'echo TERM >> ` + file + `; exit' TERM; touch ` + file + `.up; while :; do sleep 0.02; done`
}

// The command changes, and the signal that stops it: the old program is stopped by the old signal, and runs
// until it is said so.
func TestReplaceStopsByTheFormerDescription(t *testing.T) {
	told := filepath.Join(t.TempDir(), "told")
	d, env := programs(t, spec(trapping(told), map[string]any{"stop_signal": "SIGUSR1"}))
	d.Want(want(1, cluster.TargetRunning))
	d.expect(1, cluster.StatusRunning, "")
	until(t, "the program listens", func() bool { _, err := os.Stat(told + ".up"); return err == nil })
	pid := pidOf(t, env.RunDir)
	env.Spec = spec("exec sleep 1000", nil)
	d.Replace(Process{}, env)
	d.silent()
	if !alive(pid) {
		t.Fatal("the program was stopped before anybody said so")
	}
	w := want(2, cluster.TargetRunning)
	w.Restart = true
	d.Want(w)
	d.expect(2, cluster.StatusRunning, "")
	if text, _ := os.ReadFile(told); string(text) != "USR1\n" {
		t.Errorf("the old program was told %q", text)
	}
	if now := pidOf(t, env.RunDir); now == pid || alive(pid) || !alive(now) {
		t.Errorf("%d runs for %d", now, pid)
	}
	unix.Kill(pidOf(t, env.RunDir), unix.SIGKILL)
	if got := d.answer(); got.N != 0 || got.Status != cluster.StatusFailed {
		t.Errorf("the new program's end: %+v", got)
	}
}

// What can go on under the new description does: it is neither stopped nor told of, and its end is noticed.
func TestReplaceLetsRunOn(t *testing.T) {
	told := filepath.Join(t.TempDir(), "told")
	d, env := programs(t, spec(trapping(told), map[string]any{"stop_signal": "SIGUSR1"}))
	d.Want(want(1, cluster.TargetRunning))
	d.expect(1, cluster.StatusRunning, "")
	until(t, "the program listens", func() bool { _, err := os.Stat(told + ".up"); return err == nil })
	pid := pidOf(t, env.RunDir)
	env.Spec = spec(trapping(told), map[string]any{"stop_signal": "SIGTERM"})
	d.Replace(Process{}, env)
	d.silent()
	d.Want(want(2, cluster.TargetRunning))
	d.expect(2, cluster.StatusRunning, "")
	if now := pidOf(t, env.RunDir); now != pid || !alive(pid) {
		t.Errorf("%d runs for %d", now, pid)
	}
	d.Want(want(3, cluster.TargetStopped))
	d.expect(3, cluster.StatusStopped, "")
	if text, _ := os.ReadFile(told); string(text) != "TERM\n" {
		t.Errorf("the program was told %q", text)
	}
	d.Want(want(4, cluster.TargetRunning))
	d.expect(4, cluster.StatusRunning, "")
	env.Spec.Fields["stop_signal"] = "SIGUSR1"
	d.Replace(Process{}, env)
	d.silent()
	unix.Kill(pidOf(t, env.RunDir), unix.SIGKILL)
	if got := d.answer(); got.N != 0 || got.Status != cluster.StatusFailed {
		t.Errorf("the program's end after the change: %+v", got)
	}
}

// A program that ended while its description changed is told of.
func TestReplaceFindsWhatEnded(t *testing.T) {
	first, second := &scripted{t: t, status: cluster.StatusRunning}, &scripted{t: t, status: cluster.StatusStopped}
	d := newDesk(t, first, Env{})
	env := Env{Group: d.group, Spec: cluster.ResourceSpec{ID: "r"}, RunDir: d.env.RunDir}
	d.Replace(second, env)
	d.expect(0, cluster.StatusStopped, "found so when its description had changed")
	first.env.Changed(cluster.StatusFailed, "late news of what is gone", false)
	if got := first.called(); got != "close" {
		t.Errorf("called %s", got)
	}
}

// An operation under way is cut short and begun again under the new description, as the same Want.
func TestReplaceDuringAnOperation(t *testing.T) {
	begun := make(chan struct{}, 1)
	first, second := &scripted{t: t}, &scripted{t: t}
	first.start = untilCancelled(begun)
	d := newDesk(t, first, Env{})
	d.Want(want(1, cluster.TargetRunning))
	<-begun
	d.Replace(second, Env{Group: d.group, Spec: cluster.ResourceSpec{ID: "r"}, RunDir: d.env.RunDir})
	d.expect(1, cluster.StatusRunning, "")
	if got := first.called() + "; " + second.called(); got != "start 5, close; start 5" {
		t.Errorf("called %s", got)
	}
}

// stranger is a kind of another name.
type stranger struct{ *scripted }

func (stranger) Spec() cluster.KindSpec           { return cluster.KindSpec{Name: "stranger"} }
func (s stranger) New(env Env) (Resource, error)  { s.scripted.env = env; return s.scripted, nil }
func (s stranger) Leftover(Env) (Resource, error) { return nil, errors.New("unused") }

// A resource becomes one of another kind: what it was is stopped before, and until that is done nothing of the
// new kind is touched.
func TestReplaceByAnotherKind(t *testing.T) {
	first, second := &scripted{t: t}, &scripted{t: t}
	stuck := true
	first.stop = func(context.Context) error {
		if stuck {
			stuck = false
			return errors.New("it hangs")
		}
		return nil
	}
	d := newDesk(t, first, Env{})
	if err := os.WriteFile(filepath.Join(d.env.RunDir, "old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.Replace(stranger{second}, Env{Group: d.group, Spec: cluster.ResourceSpec{ID: "r"}, RunDir: d.env.RunDir})
	d.silent()
	d.Want(want(1, cluster.TargetRunning))
	d.expect(1, cluster.StatusRunning, "")
	if got := first.called() + "; " + second.called(); got != "stop, stop, close; start 5" {
		t.Errorf("called %s", got)
	}
	if _, err := os.Stat(filepath.Join(d.env.RunDir, "old")); err == nil {
		t.Error("the directory was not cleared")
	}
	if m, err := Recall(d.env.RunDir); err != nil || m.Kind != "stranger" {
		t.Errorf("the directory is for %+v, %v", m, err)
	}
}

// A description that no resource can be made from is an answer, and the next one mends it.
func TestReplaceByWhatCannotBe(t *testing.T) {
	d, env := programs(t, spec("exec sleep 1000", nil))
	env.Spec = spec("exec sleep 1000", map[string]any{"stop_signal": "SIGNONE"})
	d.Replace(Process{}, env)
	d.Want(want(1, cluster.TargetRunning))
	if got := d.answer(); got.N != 1 || got.Status != cluster.StatusFailed || !strings.Contains(got.Reason, "SIGNONE") {
		t.Errorf("answer %+v", got)
	}
	env.Spec = spec("exec sleep 1000", nil)
	d.Replace(Process{}, env)
	d.Want(want(2, cluster.TargetRunning))
	for got := d.answer(); got.N != 2 || got.Status != cluster.StatusRunning; got = d.answer() {
		if got.N != 0 {
			t.Fatalf("answer %+v", got)
		}
	}
}

// A resource that can't be made is tried again at each Want.
func TestBroken(t *testing.T) {
	d, env := programs(t, spec("exec sleep 1000", nil))
	d.Close()
	state := filepath.Join(env.RunDir, "process.json")
	if err := os.WriteFile(state, []byte("no JSON"), 0o600); err != nil {
		t.Fatal(err)
	}
	answers := make(chan cluster.Done, 10)
	tell := func(done cluster.Done) { answers <- done }
	_, err := NewWorker(Process{}, env, tell)
	if err == nil || !strings.Contains(err.Error(), state) {
		t.Fatalf("made with an unreadable state: %v", err)
	}
	w := NewBroken(Process{}, env, tell, err)
	defer w.Close()
	w.Want(want(1, cluster.TargetRunning))
	if got := <-answers; got.N != 1 || got.Status != cluster.StatusFailed || !strings.Contains(got.Reason, state) {
		t.Errorf("answer %+v", got)
	}
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	w.Want(want(2, cluster.TargetRunning))
	if got := <-answers; got.N != 2 || got.Status != cluster.StatusRunning {
		t.Errorf("answer %+v", got)
	}
}

// A resource goes for good: nothing runs, nothing is left, nothing is told, whatever it was doing.
func TestRetire(t *testing.T) {
	requireCgroup(t)
	d, env := programs(t, spec(`setsid sleep 1000 & exec sleep 1000`, map[string]any{"ready": map[string]any{
		"command": []string{"false"}, "interval": 10 * time.Millisecond}}))
	d.Want(want(1, cluster.TargetRunning))
	until(t, "it starts", func() bool {
		text, err := ReadNote(filepath.Join(env.RunDir, "process.json"))
		return err == nil && text != nil
	})
	pid := pidOf(t, env.RunDir)
	if err := d.Retire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive(pid) {
		t.Error("the program runs")
	}
	if _, err := os.Stat(env.RunDir); err == nil {
		t.Error("the directory is there")
	}
	d.Want(want(2, cluster.TargetRunning))
	d.silent()
}

// Retire fails while the resource does not stop, and may be called again.
func TestRetireAgain(t *testing.T) {
	s := &scripted{t: t}
	s.stop = func(context.Context) error { return errors.New("it hangs") }
	d := newDesk(t, s, Env{})
	if err := d.Retire(t.Context()); err == nil || !strings.Contains(err.Error(), "it hangs") {
		t.Errorf("retired: %v", err)
	}
	if _, err := os.Stat(d.env.RunDir); err != nil {
		t.Errorf("the directory of what runs on: %v", err)
	}
	s.stop = nil
	if err := d.Retire(t.Context()); err != nil {
		t.Error(err)
	}
	if got := s.called(); got != "stop, stop, close" {
		t.Errorf("called %s", got)
	}
}

// What a dead agent has left of a resource that no file describes is stopped as it was to be stopped.
func TestRetireLeftover(t *testing.T) {
	told := filepath.Join(t.TempDir(), "told")
	d, env := programs(t, spec(trapping(told), map[string]any{"stop_signal": "SIGUSR1"}))
	d.Want(want(1, cluster.TargetRunning))
	d.expect(1, cluster.StatusRunning, "")
	until(t, "the program listens", func() bool { _, err := os.Stat(told + ".up"); return err == nil })
	pid := pidOf(t, env.RunDir)
	d.Close()
	m, err := Recall(env.RunDir)
	if err != nil || m.Kind != "process" || m.StopTimeout != stopTimeout {
		t.Fatalf("the directory tells %+v, %v", m, err)
	}
	env.Spec = cluster.ResourceSpec{ID: "r", Kind: m.Kind, StopTimeout: m.StopTimeout}
	left, err := NewLeftover(Process{}, env, func(done cluster.Done) { t.Errorf("told %+v", done) })
	if err != nil {
		t.Fatal(err)
	}
	if got := left.Adopt(t.Context()); got != cluster.StatusUnknown {
		t.Errorf("adopted as %v", got)
	}
	if err := left.Retire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(told); string(text) != "USR1\n" || alive(pid) {
		t.Errorf("the program was told %q", text)
	}
}

// What a former description had guarded is told of until the resource is known to be down by it: until it was stopped
// or restarted, or was found by a probe to be as the newest description has it. A later worker knows of it as well.
func TestFormerIsKnownUntilItIsDown(t *testing.T) {
	address := func(n byte) cluster.ResourceSpec {
		return cluster.ResourceSpec{ID: "r", StartTimeout: time.Minute, StopTimeout: time.Minute, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, n})}}
	}
	made := func(t *testing.T, s *scripted) *desk {
		return newDesk(t, s, Env{Spec: address(1)})
	}
	become := func(d *desk, s *scripted, n byte) {
		d.Replace(s, Env{Group: d.group, Spec: address(n), RunDir: d.env.RunDir})
	}
	former := func(t *testing.T, w *Worker, want string) {
		t.Helper()
		until(t, "former are "+want, func() bool { return fmt.Sprint(w.Former().Addresses) == want })
	}
	t.Run("restart", func(t *testing.T) {
		s := &scripted{t: t, status: cluster.StatusUnknown}
		d := made(t, s)
		for n := range byte(2) {
			become(d, s, n+2)
		}
		d.silent()
		former(t, d.Worker, "[10.0.0.1 10.0.0.2]")
		become(d, s, 2)
		former(t, d.Worker, "[10.0.0.1 10.0.0.3]")
		stuck := errors.New("it hangs")
		s.stop = func(context.Context) error { return stuck }
		w := want(1, cluster.TargetRunning)
		w.Restart = true
		d.Want(w)
		d.answer()
		former(t, d.Worker, "[10.0.0.1 10.0.0.3]")
		m, err := Recall(d.env.RunDir)
		if err != nil || fmt.Sprint(m.Addresses) != "[10.0.0.2 10.0.0.1 10.0.0.3]" {
			t.Errorf("a later run is told %v, %v", m, err)
		}
		// It was stopped, and only its start fails: nothing of the former is up.
		s.stop, s.start = nil, func(context.Context) error { return errors.New("no such interface") }
		d.Want(w)
		d.answer()
		former(t, d.Worker, "[]")
		if m, err := Recall(d.env.RunDir); err != nil || fmt.Sprint(m.Addresses) != "[10.0.0.2]" {
			t.Errorf("a later run is told %v, %v", m, err)
		}
	})
	t.Run("found", func(t *testing.T) {
		s := &scripted{t: t, status: cluster.StatusStopped}
		d := made(t, s)
		become(d, s, 2)
		former(t, d.Worker, "[]")
	})
	t.Run("next run", func(t *testing.T) {
		s := &scripted{t: t, status: cluster.StatusUnknown}
		d := made(t, s)
		d.Close()
		next, err := NewWorker(s, Env{Group: d.group, Spec: address(2), RunDir: d.env.RunDir}, func(cluster.Done) {})
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		former(t, next, "[10.0.0.1]")
		next.Adopt(t.Context())
		former(t, next, "[10.0.0.1]")
		s.status = cluster.StatusStopped
		next.Adopt(t.Context())
		former(t, next, "[]")
	})
	t.Run("started by what does not count any more", func(t *testing.T) {
		s := &scripted{t: t, status: cluster.StatusUnknown}
		d := made(t, s)
		s.start = func(context.Context) error {
			s.start = func(context.Context) error { return errors.New("it fails") }
			s.probeErr = errors.New("it was started by another description")
			become(d, s, 2)
			return nil
		}
		d.Want(want(1, cluster.TargetRunning))
		d.expect(1, cluster.StatusRunning, "")
		if got := fmt.Sprint(d.Former().Addresses); got != "[10.0.0.1]" {
			t.Errorf("former are %s", got)
		}
	})
}
