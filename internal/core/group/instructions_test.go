package group

import (
	"testing"

	"baton/internal/core/cluster"
)

func (b *bench) fails(id cluster.ResourceID) {
	b.g.Done(cluster.Done{Resource: id, Status: cluster.StatusFailed, Reason: "it died"}, b.now)
}

// A restart takes the fronts down first, then the rest in reverse, and starts nothing before all is down.
func TestRestartInPlace(t *testing.T) {
	b, s := serving(t)
	b.g.Restart("")
	for _, x := range []struct {
		id   cluster.ResourceID
		want string
	}{{"ip", "ip stopped@3"}, {"app", "app stopped@3"}, {"db", "db stopped@3"}} {
		b.expect(t, s, x.want)
		if b.g.Runs("", 3) {
			t.Error("it counts as running")
		}
		b.done(t, x.id, cluster.StatusStopped)
	}
	b.expect(t, s, "db running@3")
	b.done(t, "db", cluster.StatusRunning)
	b.expect(t, s, "app running@3")
	b.done(t, "app", cluster.StatusRunning)
	b.expect(t, s, "ip running@3")
	b.done(t, "ip", cluster.StatusRunning)
	if o := b.expect(t, s, ""); !o.Ready || !o.Fronts || !b.g.Runs("", 3) {
		t.Errorf("serving again: %+v", o)
	}
}

// One resource alone: the others, and the front, stay up. It does not outlive the placement.
func TestRestartOfOneResource(t *testing.T) {
	b, s := serving(t)
	b.g.Restart("db")
	if o := b.expect(t, s, "db stopped@3"); !o.Fronts {
		t.Errorf("the front went: %+v", o)
	}
	b.done(t, "db", cluster.StatusStopped)
	b.expect(t, s, "db running@3")
	b.done(t, "db", cluster.StatusRunning)
	b.g.Restart("app")
	b.expect(t, Situation{Role: Owner, Epoch: 4, MayStart: true, MayServe: true}, "db running@4, ip stopped@4")
	b.done(t, "db", cluster.StatusRunning)
	b.expect(t, Situation{Role: Owner, Epoch: 4, MayStart: true, MayServe: true}, "app running@4")
}

// What fails to come back after a restart is a failure like any other.
func TestRestartThatFails(t *testing.T) {
	b, s := serving(t)
	s.HotElsewhere = true
	b.g.Restart("app")
	b.expect(t, s, "app stopped@3")
	b.done(t, "app", cluster.StatusStopped)
	b.expect(t, s, "app running@3")
	b.done(t, "app", cluster.StatusFailed)
	if o := b.expect(t, s, ""); o.Failed != "app: seen" {
		t.Errorf("it is not told: %+v", o)
	}
}

// What is held is stopped on the owner, missed by nobody, and comes back when it is held no longer.
func TestHeldResource(t *testing.T) {
	b, s := serving(t)
	s.Held = []cluster.ResourceID{"app"}
	if o := b.expect(t, s, "app stopped@3"); !o.Ready || !o.Fronts {
		t.Errorf("it is missed: %+v", o)
	}
	b.done(t, "app", cluster.StatusFailed) // it could not be stopped cleanly: that is no failure of the group
	if o := b.expect(t, s, ""); o.Failed != "" || b.g.Stopped("app") {
		t.Errorf("it counts as failed, or as stopped: %+v", o)
	}
	b.now += second
	b.expect(t, s, "app stopped@3")
	b.done(t, "app", cluster.StatusStopped)
	if o := b.expect(t, s, ""); !o.Ready || !o.Hot || !b.g.Stopped("app") || !b.g.Runs("", 3) {
		t.Errorf("held: %+v", o)
	}
	b.g.Restart("") // all but what is held
	b.expect(t, s, "ip stopped@3")
	b.done(t, "ip", cluster.StatusStopped)
	b.expect(t, s, "db stopped@3")
	b.done(t, "db", cluster.StatusStopped)
	b.expect(t, s, "db running@3")
	b.done(t, "db", cluster.StatusRunning)
	b.expect(t, s, "ip running@3")
	b.done(t, "ip", cluster.StatusRunning)
	s.Held = nil
	b.expect(t, s, "app running@3")
}

// A standby is not held, a stopped group has none.
func TestStoppedGroup(t *testing.T) {
	b := newBench(cluster.Hot)
	s := Situation{Epoch: 1, Held: []cluster.ResourceID{"db"}}
	b.expect(t, s, "db standby@1")
	b.done(t, "db", cluster.StatusStandby)
	b.expect(t, s, "app standby@1")
	b.done(t, "app", cluster.StatusStandby)
	s.Stopped = true
	if o := b.expect(t, s, "app stopped@1"); o.AtDepth || o.Hot {
		t.Errorf("it stands by: %+v", o)
	}
	b.done(t, "app", cluster.StatusStopped)
	b.expect(t, s, "db stopped@1")
	b.done(t, "db", cluster.StatusStopped)
	if o := b.expect(t, s, ""); !o.AtDepth || o.Hot || !o.Closed {
		t.Errorf("stopped: %+v", o)
	}
	s.Stopped = false
	b.expect(t, s, "db standby@1")
}

// A clear gives a resource, or the whole group, its restarts back, and ends the waiting.
func TestClear(t *testing.T) {
	for _, id := range []cluster.ResourceID{"", "app", "db"} {
		b, s := serving(t)
		b.fails("app")
		b.expect(t, s, "app running@3 anew")
		b.done(t, "app", cluster.StatusFailed)
		b.expect(t, s, "")
		b.g.Clear(id)
		if id == "db" {
			b.expect(t, s, "")
			continue
		}
		b.expect(t, s, "app running@3 anew")
		b.done(t, "app", cluster.StatusRunning)
		b.fails("app")
		b.expect(t, s, "app running@3 anew") // at once: the former one counts no longer
	}
}
