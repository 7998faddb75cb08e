package group

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"baton/internal/core/cluster"
)

const second = cluster.Instant(time.Second)

func spec(depth cluster.Depth) *cluster.GroupSpec {
	r := func(id cluster.ResourceID, front bool) cluster.ResourceSpec {
		d := depth
		if front {
			d = cluster.Cold
		}
		return cluster.ResourceSpec{ID: id, Depth: d, Front: front, Effects: cluster.EffectsAddress, StartTimeout: 3 * time.Second, StopTimeout: 5 * time.Second}
	}
	return &cluster.GroupSpec{ID: "web", Restarts: 1, Resources: []cluster.ResourceSpec{r("ip", true), r("db", false), r("app", false)}}
}

// bench drives one group and answers its wants.
type bench struct {
	g       *Group
	counter uint64
	now     cluster.Instant
	open    []cluster.Want // asked, not answered
}

func newBench(depth cluster.Depth) *bench {
	b := &bench{now: second}
	b.g = New(spec(depth), &b.counter)
	return b
}

// step steps the group and returns what it asks for, as text.
func (b *bench) step(s Situation) (string, Outcome) {
	o := b.g.Step(b.now, s)
	var asked []string
	for _, w := range o.Wants {
		b.open = append(slices.DeleteFunc(b.open, func(x cluster.Want) bool { return x.Resource == w.Resource }), w)
		text := fmt.Sprintf("%s %v@%d", w.Resource, w.Target, w.Epoch)
		if w.Restart {
			text += " anew"
		}
		asked = append(asked, text)
	}
	return strings.Join(asked, ", "), o
}

// done answers the open want of a resource.
func (b *bench) done(t *testing.T, id cluster.ResourceID, status cluster.Status) {
	t.Helper()
	i := slices.IndexFunc(b.open, func(w cluster.Want) bool { return w.Resource == id })
	if i < 0 {
		t.Fatalf("nothing is asked of %s", id)
	}
	b.g.Done(cluster.Done{N: b.open[i].N, Group: "web", Resource: id, Status: status, Reason: "seen"}, b.now)
	b.open = slices.Delete(b.open, i, i+1)
}

func (b *bench) expect(t *testing.T, s Situation, want string) Outcome {
	t.Helper()
	got, o := b.step(s)
	if got != want {
		t.Fatalf("asks for %q, want %q", got, want)
	}
	return o
}

func TestOwnerStartsInOrderAndItsFrontLast(t *testing.T) {
	b := newBench(cluster.Cold)
	s := Situation{Role: Owner, Epoch: 3}
	b.expect(t, s, "") // not before the epoch is in the run record
	s.MayStart = true
	b.expect(t, s, "db running@3")
	b.expect(t, s, "")
	b.done(t, "db", cluster.StatusRunning)
	b.expect(t, s, "app running@3")
	b.done(t, "app", cluster.StatusRunning)
	if o := b.expect(t, s, ""); !o.Ready || o.Fronts {
		t.Errorf("ready but closed: %+v", o)
	}
	s.MayServe = true
	b.expect(t, s, "ip running@3")
	b.done(t, "ip", cluster.StatusRunning)
	if o := b.expect(t, s, ""); !o.Ready || !o.Fronts {
		t.Errorf("serving: %+v", o)
	}
}

func TestBystanderStopsInReverse(t *testing.T) {
	b := newBench(cluster.Cold)
	for _, id := range []cluster.ResourceID{"ip", "db", "app"} {
		b.g.Found(cluster.Done{Resource: id, Status: cluster.StatusRunning}, 3)
	}
	s := Situation{Epoch: 4}
	b.expect(t, s, "app stopped@4")
	b.done(t, "app", cluster.StatusStopped)
	b.expect(t, s, "db stopped@4")
	b.done(t, "db", cluster.StatusStopped)
	b.expect(t, s, "ip stopped@4")
	b.done(t, "ip", cluster.StatusStopped)
	if o := b.expect(t, s, ""); !o.AtDepth || o.Hot {
		t.Errorf("at rest: %+v", o)
	}
}

func TestHotStandby(t *testing.T) {
	b := newBench(cluster.Hot)
	s := Situation{Epoch: 1}
	b.expect(t, s, "db standby@1")
	b.done(t, "db", cluster.StatusStandby)
	b.expect(t, s, "app standby@1")
	b.done(t, "app", cluster.StatusStandby)
	if o := b.expect(t, s, ""); !o.AtDepth || !o.Hot {
		t.Errorf("standing by: %+v", o)
	}
	// It dies while standing by: started again, with a pause that grows.
	for _, wait := range []cluster.Instant{1, 2, 4} {
		b.g.Done(cluster.Done{Resource: "app", Status: cluster.StatusFailed, Reason: "it died"}, b.now)
		if o := b.expect(t, s, ""); o.Failed == "" || o.WakeAt != b.now+wait*second {
			t.Errorf("failed: %+v", o)
		}
		b.now += wait * second
		b.expect(t, s, "app standby@1 anew")
	}
	b.done(t, "app", cluster.StatusStandby)
	// Assigned here: no start, only promotions, in order.
	s = Situation{Role: Owner, Epoch: 2, MayStart: true, MayServe: true}
	b.expect(t, s, "db running@2")
	b.done(t, "db", cluster.StatusRunning)
	b.expect(t, s, "app running@2")
	b.done(t, "app", cluster.StatusRunning)
	b.expect(t, s, "ip running@2")
}

func serving(t *testing.T) (*bench, Situation) {
	b := newBench(cluster.Cold)
	s := Situation{Role: Owner, Epoch: 3, MayStart: true, MayServe: true}
	for _, id := range []cluster.ResourceID{"db", "app", "ip"} {
		b.step(s)
		b.done(t, id, cluster.StatusRunning)
	}
	b.expect(t, s, "")
	return b, s
}

func TestRestartsBeforeAMove(t *testing.T) {
	b, s := serving(t)
	die := func() {
		b.g.Done(cluster.Done{Resource: "app", Status: cluster.StatusFailed, Reason: "it died"}, b.now)
	}
	die()
	if o := b.expect(t, s, "app running@3 anew"); o.Failed != "" || o.Again != "app: it died" || o.Tries != "it is started again, and 1 of 1 restarts within 10m are used" {
		t.Errorf("a restart under way is no failure yet: %+v", o)
	}
	b.done(t, "app", cluster.StatusRunning)
	die()
	if o := b.expect(t, s, ""); o.Failed != "app: it died" || o.Tries != "its restarts are used up, 1 within 10m" {
		t.Errorf("the limit of one restart is reached: %+v", o)
	}
	b.now += second / 2
	if next := b.g.NextTry("app", b.now); next <= 0 || next > 2*time.Second {
		t.Errorf("the next try comes in %v", next)
	}
	b.now += 2 * second
	b.expect(t, s, "app running@3 anew") // nobody has taken it: go on trying
	b.done(t, "app", cluster.StatusRunning)
	b.now = b.now.Add(restartsForgotten + time.Second)
	b.expect(t, s, "")
	die()
	b.expect(t, s, "app running@3 anew") // the former restarts are forgotten
}

func TestNoRestartWhereAHotStandbyWaits(t *testing.T) {
	b, s := serving(t)
	s.HotElsewhere = true
	b.g.Done(cluster.Done{Resource: "app", Status: cluster.StatusFailed, Reason: "it died"}, b.now)
	if o := b.expect(t, s, ""); o.Failed == "" || o.Tries != "not restarted here: a standby is ready" {
		t.Errorf("the failure is not told at once: %+v", o)
	}
}

func TestLateAnswersMeanNothing(t *testing.T) {
	b := newBench(cluster.Cold)
	s := Situation{Role: Owner, Epoch: 3, MayStart: true}
	b.expect(t, s, "db running@3")
	old := b.open[0]
	b.expect(t, Situation{Epoch: 4}, "db stopped@4")
	if b.g.Done(cluster.Done{N: old.N, Resource: "db", Status: cluster.StatusRunning}, b.now) {
		t.Error("an answer to a Want that was superseded counted")
	}
	if b.g.Done(cluster.Done{N: old.N + 99, Resource: "db", Status: cluster.StatusRunning}, b.now) {
		t.Error("an answer to a Want that is not the newest counted")
	}
	if b.g.Done(cluster.Done{N: 0, Resource: "nothing", Status: cluster.StatusFailed}, b.now) {
		t.Error("news of an unknown resource counted")
	}
}

func TestKeepChangesNothing(t *testing.T) {
	b, s := serving(t)
	s.Keep, s.Role, s.MayServe = true, Owner, false
	b.g.Done(cluster.Done{Resource: "app", Status: cluster.StatusFailed, Reason: "it died"}, b.now)
	b.expect(t, s, "")
}

// Whatever happens in whatever order, a group that is left alone ends where it should: all running and open
// on the owner, all at rest elsewhere; and a front never runs while the group may not serve.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		depth := rapid.SampledFrom([]cluster.Depth{cluster.Cold, cluster.Hot}).Draw(rt, "depth")
		b := newBench(depth)
		s := Situation{Epoch: 1}
		statuses := []cluster.Status{cluster.StatusFailed, cluster.StatusUnknown, cluster.StatusStopped, cluster.StatusRunning, cluster.StatusStandby}
		for range rapid.IntRange(0, 30).Draw(rt, "steps") {
			switch rapid.IntRange(0, 3).Draw(rt, "what") {
			case 0:
				s = Situation{Role: Role(rapid.IntRange(0, 1).Draw(rt, "role")), Epoch: s.Epoch + 1,
					MayStart: rapid.Bool().Draw(rt, "start"), HotElsewhere: rapid.Bool().Draw(rt, "hot")}
				s.MayServe = s.MayStart && rapid.Bool().Draw(rt, "serve")
			case 1:
				b.now += second
			case 2:
				if len(b.open) > 0 {
					w := b.open[rapid.IntRange(0, len(b.open)-1).Draw(rt, "which")]
					b.g.Done(cluster.Done{N: w.N, Resource: w.Resource, Status: rapid.SampledFrom(statuses).Draw(rt, "status")}, b.now)
				}
			case 3:
				id := rapid.SampledFrom([]cluster.ResourceID{"ip", "db", "app"}).Draw(rt, "id")
				b.g.Done(cluster.Done{Resource: id, Status: cluster.StatusFailed, Reason: "by itself"}, b.now)
			}
			b.step(s)
		}
		s.Epoch++
		s.MayStart, s.MayServe = s.Role == Owner, s.Role == Owner
		for range 100 {
			_, o := b.step(s)
			if (s.Role == Owner && o.Ready && o.Fronts) || (s.Role == Bystander && o.AtDepth) {
				return
			}
			b.now += 31 * second
			for _, w := range b.open {
				status := map[cluster.Target]cluster.Status{cluster.TargetRunning: cluster.StatusRunning,
					cluster.TargetStandby: cluster.StatusStandby, cluster.TargetStopped: cluster.StatusStopped}[w.Target]
				b.g.Done(cluster.Done{N: w.N, Resource: w.Resource, Status: status}, b.now)
			}
			b.open = nil
		}
		rt.Fatalf("it does not converge as %v: %+v", s.Role, b.g.res)
	})
}

// A start may take as long as the description says of starts, a stop as long as it says of stops.
func TestDeadlines(t *testing.T) {
	b := newBench(cluster.Hot)
	b.step(Situation{Role: Owner, Epoch: 1, MayStart: true, Alone: true, MayServe: true})
	if w := b.open[0]; w.Target != cluster.TargetRunning || w.Deadline != 3*time.Second {
		t.Errorf("a start: %+v", w)
	}
	b.done(t, b.open[0].Resource, cluster.StatusRunning)
	b.step(Situation{Epoch: 1, Stopped: true})
	for _, w := range b.open {
		if w.Target != cluster.TargetStopped || w.Deadline != 5*time.Second {
			t.Errorf("a stop: %+v", w)
		}
	}
	if len(b.open) == 0 {
		t.Error("nothing is stopped")
	}
}
