package group

import (
	"slices"
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

// The group was well for long where it fails, and comes back under another epoch, where its probe fails before it was
// ever well: that it had been well is of the former placement.
func TestNeverWellUnderThisEpoch(t *testing.T) {
	b, s := serving(t)
	b.g.spec.Restarts = 0
	b.now = b.now.Add(time.Hour)
	b.probe(cluster.StatusFailed, asked)
	if o := b.expect(t, s, ""); o.Probe.Brief {
		t.Error("it had been well for an hour")
	}
	s.Epoch++
	b.step(s)
	i := slices.IndexFunc(b.open, func(w cluster.Want) bool { return w.Resource == "app" })
	if i < 0 { // the one before it comes first
		b.done(t, "db", cluster.StatusRunning)
		b.step(s)
		i = slices.IndexFunc(b.open, func(w cluster.Want) bool { return w.Resource == "app" })
	}
	if i < 0 {
		t.Fatalf("nothing is asked of app: %v", b.open)
	}
	b.g.Done(cluster.Done{N: b.open[i].N, Resource: "app", Status: cluster.StatusFailed, Reason: asked, Probe: asked}, b.now)
	if _, o := b.step(s); !o.Probe.Ill || !o.Probe.Brief {
		t.Errorf("under epoch %d it was never well: %+v", s.Epoch, o.Probe)
	}
}
