package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/core/wire"
	"baton/internal/io/api"
)

// realAgents runs a cluster of real agents on loopback in this process, and returns one that coordinates once all has
// begun.
func realAgents(t *testing.T, takeover string) *agent {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run programs")
	}
	dir := t.TempDir()
	file, key := filepath.Join(dir, "cluster.yaml"), filepath.Join(dir, "key")
	text := "cluster: look\nkey_file: " + key + "\ntakeover: " + takeover + "\nnodes:\n  a: { address: 127.0.0.64 }\n  b: { address: 127.0.0.65 }\n" +
		"  c: { address: 127.0.0.66, role: witness }\ngroups:\n" + program("web", "exec sleep 1000", 7005)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := wire.Keys{First: []byte(strings.Repeat("k", wire.KeySize))}
	if err := os.WriteFile(key, []byte(keys.Format()), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	begun, ended := make(chan *agent, 3), make(chan error, 3)
	for _, id := range []string{"a", "b", "c"} {
		run := tmpfsDir(t)
		go func() {
			ended <- runAgent(ctx, AgentOptions{ConfigFile: file, Node: id, DataDir: filepath.Join(dir, id), RunDir: run,
				Socket: filepath.Join(dir, id+".sock"), NoGate: true, LogFormat: "text", LogLevel: slog.LevelError}, func(a *agent) { begun <- a })
		}()
	}
	var all []*agent
	t.Cleanup(func() {
		defer cancel()
		if len(all) == 0 {
			return
		}
		_, err := (&backend{all[0]}).Act(context.Background(), api.ActRequest{Part: cluster.Part{Stop: &cluster.Stop{Group: "web"}}, By: "test"})
		if err != nil {
			t.Error(err)
		}
		for _, a := range all {
			a.inbox.do(func() { a.leave = letRun }) // with nothing left to hand over
		}
		for range all {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	for range 3 {
		select {
		case err := <-ended:
			ended <- err
			t.Fatal(err)
		case a := <-begun:
			all = append(all, a)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		for _, a := range all {
			o, err := (&backend{a}).Overview(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if o.ID != "" && o.Coordinator == a.self && len(o.Groups) == 1 && o.Groups[0].Serving {
				return a
			}
			if time.Now().After(deadline) {
				t.Fatalf("it does not begin: %+v", o)
			}
		}
	}
}

func (b *inbox) callsSoFar() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.called
}

func TestViews(t *testing.T) {
	a := realAgents(t, "3s") // long, so that a busy machine disturbs little
	t.Run("watchers cost the loop nothing", func(t *testing.T) { testWatchers(t, a) })
	t.Run("newer than the answer", func(t *testing.T) { testAnswered(t, a) })
	t.Run("fresh", func(t *testing.T) { testFresh(t, a) })
}

// Any number of watchers costs the loop what one does: it takes a view when something has happened, and is hardly
// ever asked for one.
func testWatchers(t *testing.T, a *agent) {
	const long = 2 * time.Second
	// count returns what the loop did meanwhile: steps, calls, views.
	count := func(watchers int) (steps, calls, views uint64) {
		ctx, cancel := context.WithCancel(t.Context())
		var sent, watching atomic.Uint64
		var all sync.WaitGroup
		for range watchers {
			all.Go(func() {
				c := api.Dial(a.opt.Socket)
				defer c.Close()
				for first := true; first && ctx.Err() == nil; {
					s, err := c.Watch(ctx, &batonv1.WatchRequest{})
					for err == nil && s.Receive() {
						if sent.Add(1); first {
							first = false
							watching.Add(1)
						}
					}
					if err == nil {
						err = s.Err()
					}
					if ctx.Err() == nil && (!first || connect.CodeOf(err) != connect.CodeResourceExhausted) {
						t.Errorf("a watch ended: %v", err)
						return
					}
					time.Sleep(10 * time.Millisecond) // the places of those before are not all free yet
				}
			})
		}
		until(t, func() bool { return watching.Load() == uint64(watchers) })
		time.Sleep(long / 4)
		s, c, p := a.views.steps.Load(), a.inbox.callsSoFar(), a.views.last.Load()
		until := time.Now().Add(long)
		for time.Now().Before(until) {
			if x := a.views.last.Load(); x != p {
				views++
				p = x
			}
			time.Sleep(time.Millisecond)
		}
		s, c = a.views.steps.Load()-s, a.inbox.callsSoFar()-c
		cancel()
		all.Wait()
		if watchers > 0 && sent.Load() < uint64(watchers) {
			t.Errorf("%d watchers saw %d pictures", watchers, sent.Load())
		}
		t.Logf("%d watchers, in %v: %d steps, %d calls, %d views", watchers, long, s, c, views)
		return s, c, views
	}
	none, _, _ := count(0)
	_, one, seen := count(1)
	// Whenever the loop is late, for a machine that is busy, somebody asks it. Of five times the calmest tells.
	var said string
	for range 5 {
		steps, calls, views := count(32)
		limit := uint64(long / viewLasts(a.shared.Load().Timing.H))
		if steps <= none+none/4+5 && calls <= one+limit/4+5 && views <= limit*2 && views <= 2*seen+10 {
			return
		}
		said = fmt.Sprintf("%d steps, %d without watchers; %d calls and %d views with 32 watchers, %d and %d with one", steps, none, calls, views, one, seen)
	}
	t.Error(said)
}

// Who has an answer to a command sees at once what it has brought about.
func testAnswered(t *testing.T, a *agent) {
	b := &backend{a}
	for i := range 20 {
		part := cluster.Part{Pause: &cluster.Pause{Group: "web"}}
		if i%2 == 1 {
			part = cluster.Part{Resume: &cluster.Resume{Group: "web"}}
		}
		if _, err := b.Overview(t.Context()); err != nil {
			t.Fatal(err)
		}
		m, err := b.Act(t.Context(), api.ActRequest{Part: part, By: "test"})
		if err != nil || !m.Done {
			t.Fatalf("%+v, %v", m, err)
		}
		o, err := b.Overview(t.Context())
		if err != nil || len(o.Instructions) != 1-i%2 {
			t.Fatalf("after %+v: %+v, %v", m, o.Instructions, err)
		}
		lines, err := b.History(t.Context())
		if err != nil || len(lines) == 0 || !strings.Contains(strings.Join(lines[len(lines)-1].Did, " "), []string{"paus", "resum"}[i%2]) {
			t.Fatalf("after %+v the history ends with %+v, %v", m, lines[len(lines)-1], err)
		}
	}
}

// A view that nobody has looked at for long is not told as it is, and a loop that hangs is noticed.
func testFresh(t *testing.T, a *agent) {
	h := a.shared.Load().Timing.H
	time.Sleep(viewKept + 4*h)
	old := a.views.last.Load()
	before := time.Now()
	p, err := a.look(t.Context())
	if err != nil || p == old || p.taken.Before(before.Add(-2*h)) {
		t.Errorf("a view of %v ago: %v", before.Sub(p.taken), err)
	}
	release := make(chan struct{})
	defer close(release)
	a.inbox.do(func() { <-release })
	time.Sleep(3 * h)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if p, err := a.look(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the loop hangs, and a view of %v ago is told: %v", time.Since(p.taken), err)
	}
}

// Ages go on between two views.
func TestAgesGoOn(t *testing.T) {
	taken := time.Now()
	p := &view{taken: taken, overview: &cluster.Overview{Node: "a", Nodes: []cluster.NodeView{
		{ID: "a", LeaseRuns: true, LeaseLeft: time.Second},
		{ID: "b", Ago: time.Second, Links: []cluster.LinkView{{Heard: true, Ago: 2 * time.Second}}}},
		Groups: []cluster.GroupView{{ID: "down", Service: cluster.ServiceView{Down: time.Minute}}, {ID: "up"}}}}
	for _, age := range []time.Duration{0, 30 * time.Millisecond, 2 * time.Second} {
		o := p.seen(taken.Add(age))
		if o.Nodes[0].LeaseLeft != max(0, time.Second-age) || o.Nodes[0].Ago != 0 || o.Nodes[1].Ago != time.Second+age || o.Nodes[1].Links[0].Ago != 2*time.Second+age ||
			o.Groups[0].Service.Down != time.Minute+age || o.Groups[1].Service.Down != 0 {
			t.Errorf("after %v: %+v", age, o)
		}
		o.Nodes[1].Trouble, o.Nodes[1].Links[0].Heard = "mine", false
	}
	if n := p.overview.Nodes[1]; n.Trouble != "" || !n.Links[0].Heard || n.Ago != time.Second {
		t.Errorf("a reader has changed the view: %+v", n)
	}
}
