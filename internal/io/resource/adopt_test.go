package resource

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// adopt makes a worker for what a former agent started, as the next one does; to be ready, it gives a program two seconds.
func (b *bench) adopt() (w *Worker, found cluster.Status, answers chan cluster.Done) {
	b.t.Helper()
	const limit = 2 * time.Second
	b.env.Spec.Fields["start_timeout"] = limit
	answers = make(chan cluster.Done, 10)
	w, err := NewWorker(Process{}, b.env, func(d cluster.Done) { answers <- d })
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(w.Close)
	begun := time.Now()
	found = w.Adopt(b.t.Context())
	if took := time.Since(begun); took >= limit {
		b.t.Errorf("an agent that begins stands still for %v, for this resource alone", took)
	}
	return w, found, answers
}

// An agent that begins while a program is not ready yet does not wait for that before it does anything else, and then
// goes on waiting for it: the program is not stopped and started anew.
func TestAdoptsWhatIsNotReadyYet(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0") // it accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	b := newBench(t, spec("sleep 1000", map[string]any{
		"start_timeout": 300 * time.Millisecond,
		"ready":         map[string]any{"http": "http://" + mute.Addr().String() + "/"}}))
	if err := b.p.Start(t.Context(), 1); err == nil {
		t.Fatal("ready")
	}
	pid := b.pid()
	b.p.Close()
	w, found, answers := b.adopt()
	if found != cluster.StatusUnknown { // so that the core asks for it, without a restart
		t.Errorf("found %v", found)
	}
	w.Want(cluster.Want{N: 1, Target: cluster.TargetRunning, Epoch: 1, Deadline: patience, Restart: found == cluster.StatusFailed})
	if d := <-answers; d.Status != cluster.StatusFailed {
		t.Errorf("answered %+v", d)
	}
	if !alive(pid) {
		t.Error("the program that was starting was killed")
	}
	w.Close()
	b.open(b.env)
}

// A program became ready while no agent was there to see: the next one asks it, and from then on notices its end.
func TestAdoptsWhatBecameReady(t *testing.T) {
	b := newBench(t, spec("sleep 1000", nil))
	up := filepath.Join(b.env.RunDir, "up")
	b.env.Spec.Fields["start_timeout"] = 100 * time.Millisecond
	b.env.Spec.Fields["ready"] = map[string]any{"command": []string{"test", "-e", up}, "interval": 10 * time.Millisecond}
	b.p.Close()
	b.open(b.env)
	if err := b.p.Start(t.Context(), 1); err == nil {
		t.Fatal("ready")
	}
	pid := b.pid()
	b.p.Close()
	if err := os.WriteFile(up, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w, found, answers := b.adopt()
	if found != cluster.StatusRunning { // as the core does
		w.Want(cluster.Want{N: 1, Target: cluster.TargetRunning, Epoch: 1, Deadline: patience, Restart: found == cluster.StatusFailed})
		if d := <-answers; d.Status != cluster.StatusRunning {
			t.Errorf("answered %+v", d)
		}
	}
	if !alive(pid) {
		t.Fatal("the program was killed")
	}
	unix.Kill(pid, unix.SIGKILL)
	select {
	case d := <-answers:
		if d.Status != cluster.StatusFailed {
			t.Errorf("its end was told as %+v", d)
		}
	case <-time.After(patience):
		t.Error("its end was not noticed")
	}
	w.Close()
	b.open(b.env)
}
