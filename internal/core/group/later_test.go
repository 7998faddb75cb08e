package group

import (
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// A start is under way by the former description when it changes: what comes up by that is not what is wanted, so it is
// begun anew, and its answer counts for nothing.
func TestRefitWhileStarting(t *testing.T) {
	b := newBench(cluster.Cold)
	s := Situation{Role: Owner, Epoch: 3, MayStart: true, MayServe: true}
	b.expect(t, s, "db running@3")
	g := spec(cluster.Cold)
	g.Resources[1].Fields = map[string]any{"command": "x"}
	b.g.Refit(g)
	former := b.open[0]
	b.expect(t, s, "db running@3 anew")
	if b.g.Done(cluster.Done{N: former.N, Group: "web", Resource: "db", Status: cluster.StatusRunning}, b.now) {
		t.Error("the answer to the start by the former description counts")
	}
	b.expect(t, s, "")
	b.done(t, "db", cluster.StatusRunning)
	b.expect(t, s, "app running@3")
}

// Something has come that programs wait for: what has failed and is down is tried at once. What is up, and only ill by
// its probe, is not killed sooner for that.
func TestWhatIsUpIsNotKilledForWhatCame(t *testing.T) {
	b, s := serving(t)
	b.g.spec.Restarts = 0
	b.probe(cluster.StatusFailed, asked)
	b.g.TryNow()
	b.expect(t, s, "")
	b.now += second
	b.expect(t, s, "app running@3 anew")
	b.done(t, "app", cluster.StatusRunning)
	b.expect(t, s, "")
	b.fails("app")
	b.g.TryNow()
	b.expect(t, s, "app running@3 anew")
}

// That somebody ordered a stop is over once it runs again: what then fails, fails unasked.
func TestOrderedUntilItRunsAgain(t *testing.T) {
	for name, order := range map[string]func(b *bench, s *Situation){
		"a restart": func(b *bench, _ *Situation) { b.g.Restart("app") },
		"a stop":    func(_ *bench, s *Situation) { s.Held = []cluster.ResourceID{"app"} },
		"a change": func(b *bench, _ *Situation) {
			g := spec(cluster.Cold)
			g.Resources[2].Fields = map[string]any{"command": "x"}
			b.g.Refit(g)
		},
	} {
		b, s := serving(t)
		if b.g.Ordered() {
			t.Fatalf("%s: nobody has ordered anything yet", name)
		}
		order(b, &s)
		b.step(s)
		if !b.g.Ordered() {
			t.Errorf("%s: it was ordered", name)
		}
		for range 3 {
			for _, w := range b.open {
				status := cluster.StatusRunning
				if w.Target == cluster.TargetStopped {
					status = cluster.StatusStopped
				}
				b.done(t, w.Resource, status)
			}
			s.Held = nil
			b.step(s)
		}
		if b.g.Ordered() {
			t.Errorf("%s: all runs again", name)
		}
		b.now = b.now.Add(time.Minute)
		b.fails("app")
		b.step(s)
		if b.g.Ordered() {
			t.Errorf("%s: a failure long after counts as ordered", name)
		}
	}
}
