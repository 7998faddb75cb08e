package state

import (
	"reflect"
	"testing"

	"baton/internal/core/cluster"
)

func until(until cluster.WallTime) cluster.Note { return cluster.Note{By: "ann", Until: until} }

// What is forbidden is not applied, though it was decided on before: neither at once nor by a later entry.
func TestPlacementsThatAreForbidden(t *testing.T) {
	for _, c := range []struct {
		say, back cluster.Part
		want      string
		elsewhere bool // a placement on alpha is allowed
	}{
		{cluster.Part{Pause: &cluster.Pause{Group: "web", Note: until(0)}}, cluster.Part{Resume: &cluster.Resume{Group: "web"}}, "it was paused by ann", false},
		{cluster.Part{Pause: &cluster.Pause{Note: until(0)}}, cluster.Part{Resume: &cluster.Resume{}}, "it was paused by ann", false},
		{cluster.Part{Stop: &cluster.Stop{Group: "web", Note: until(0)}}, cluster.Part{Start: &cluster.Start{Group: "web"}}, "it was stopped by ann", false},
		{cluster.Part{Pin: &cluster.Pin{Group: "web", Node: "alpha", Note: until(0)}}, cluster.Part{Unpin: &cluster.Unpin{Group: "web"}}, "it was pinned to alpha by ann", true},
	} {
		s := begin(t)
		apply(t, s, "", c.say)
		apply(t, s, c.want, assign("beta", 1, 2))
		if c.elsewhere {
			apply(t, s, "", assign("alpha", 1, 2))
		} else {
			apply(t, s, c.want, assign("alpha", 1, 2))
		}
		apply(t, s, "", c.back)
		apply(t, s, "it is not", c.back)
		apply(t, s, "", assign("beta", 1, s.Group("web").Epoch+1))
	}
}

// A whole group that is stopped has no owner, and its tenure stands until it is released.
func TestStopTakesTheGroup(t *testing.T) {
	s := begin(t)
	apply(t, s, "", cluster.Part{Move: &cluster.Move{ID: "m", Group: "web", From: "alpha", To: "beta", Epoch: 1}},
		cluster.Part{Stop: &cluster.Stop{Group: "web", Note: until(0)}})
	g := s.Group("web")
	if g.Owner != "" || g.Last != "alpha" || len(g.Tenures) != 1 || g.Move != nil || g.Ended.Reason != "it was stopped" {
		t.Errorf("after the stop: %+v, %+v", g, g.Ended)
	}
	apply(t, s, "", released(1))
	apply(t, s, "", cluster.Part{Start: &cluster.Start{Group: "web"}}, assign("beta", 1, 2))
}

// An end takes back only what it was meant for: what was said anew meanwhile stays.
func TestEndsOfWhatWasSaidAnew(t *testing.T) {
	s := begin(t)
	say := func(end cluster.WallTime) {
		apply(t, s, "", cluster.Part{Pause: &cluster.Pause{Group: "web", Note: until(end)}}, cluster.Part{Pin: &cluster.Pin{Group: "web", Node: "alpha", Note: until(end)}},
			cluster.Part{Drain: &cluster.Drain{Node: "beta", Note: until(end)}}, cluster.Part{Stop: &cluster.Stop{Group: "web", Resource: "app", Note: until(end)}})
	}
	end := func(want string, only cluster.WallTime) {
		apply(t, s, want, cluster.Part{Resume: &cluster.Resume{Group: "web", Only: only}})
		apply(t, s, want, cluster.Part{Unpin: &cluster.Unpin{Group: "web", Only: only}})
		apply(t, s, want, cluster.Part{Undrain: &cluster.Undrain{Node: "beta", Only: only}})
		apply(t, s, want, cluster.Part{Start: &cluster.Start{Group: "web", Resource: "app", Only: only}})
	}
	say(10)
	say(20)
	end("anew", 10)
	end("", 20)
	s.Instructions.Tasks = nil
	if !reflect.DeepEqual(s.Instructions, cluster.Instructions{Paused: []cluster.Pause{}, Pinned: []cluster.Pin{}, Drained: []cluster.Drain{}, Stopped: []cluster.Stop{}}) {
		t.Errorf("left: %+v", s.Instructions)
	}
}

// A command that comes into the log twice takes effect once, and its answer is kept.
func TestCommandsTakeEffectOnce(t *testing.T) {
	s := begin(t)
	ask := func(id string, p cluster.Part) cluster.Line {
		return s.Apply(s.Applied+1, &cluster.Entry{By: "ann", ID: id, Parts: []cluster.Part{p}})
	}
	pause := cluster.Part{Pause: &cluster.Pause{Group: "web", Note: until(0)}}
	ask("1", pause)
	ask("2", cluster.Part{Resume: &cluster.Resume{Group: "web"}})
	lines := len(s.Journal)
	if l := ask("1", pause); len(l.Did) != 0 || s.Instructions.Pause("web") != nil || len(s.Journal) != lines {
		t.Errorf("the same pause again: %+v", l)
	}
	ask("3", cluster.Part{Resume: &cluster.Resume{Group: "web"}})
	if a, b := s.Answer("1"), s.Answer("3"); a == nil || a.Dropped != "" || b == nil || b.Dropped != "resume web: it is not paused" || s.Answer("4") != nil {
		t.Errorf("answers %+v, %+v", a, b)
	}
}

// A restart is bound to the placement that it was asked for under; a stop or start of a resource is not.
func TestTasks(t *testing.T) {
	s := begin(t)
	restart := func(id string, e cluster.Epoch) cluster.Part {
		return cluster.Part{Restart: &cluster.Restart{Group: "web", Epoch: e, ID: id}}
	}
	performed := func(id string) cluster.Part {
		return cluster.Part{Performed: &cluster.Performed{ID: id, Verb: cluster.TaskRestart, Group: "web"}}
	}
	apply(t, s, "it was decided on epoch 2", restart("0", 2))
	apply(t, s, "", restart("1", 1))
	if x := s.Instructions.Task("1"); x == nil || x.Index != s.Applied || x.Epoch != 1 || s.Outcome("1") != nil {
		t.Errorf("the task is %+v", x)
	}
	apply(t, s, "", performed("1"))
	apply(t, s, "not under way", performed("1"))
	if s.Instructions.Task("1") != nil || s.Outcome("1") == nil {
		t.Errorf("it has not ended: %+v", s.Instructions.Tasks)
	}
	apply(t, s, "", restart("2", 1))
	apply(t, s, "", assign("beta", 1, 2))
	for i, id := range []string{"3", "4"} { // the second takes the place of the first; neither is bound to an epoch
		s.Apply(s.Applied+1, &cluster.Entry{ID: id, Parts: []cluster.Part{{Stop: &cluster.Stop{Group: "web", Resource: "app", Note: until(cluster.WallTime(i))}}}})
	}
	if x := s.Instructions.Tasks; len(x) != 1 || x[0].ID != "4" || x[0].Epoch != 0 {
		t.Errorf("tasks %+v", x)
	}
	apply(t, s, "", evict("beta", 1))
	apply(t, s, "nobody has the group", restart("5", 2))
}

func TestClearForgetsBans(t *testing.T) {
	s := begin(t)
	ban := func(n cluster.NodeID, r cluster.ResourceID) cluster.Part {
		return cluster.Part{Ban: &cluster.Ban{Group: "web", Node: n, Until: 5, Reason: "seen", Resource: r}}
	}
	apply(t, s, "", ban("alpha", "app"), ban("beta", "db"), cluster.Part{Clear: &cluster.Clear{Group: "web", Resource: "app"}})
	if b := s.Group("web").Bans; len(b) != 1 || b[0].Node != "beta" {
		t.Errorf("bans %+v", b)
	}
	apply(t, s, "", cluster.Part{Clear: &cluster.Clear{Group: "web"}})
	if b := s.Group("web").Bans; len(b) != 0 {
		t.Errorf("bans %+v", b)
	}
}

// Snapshots carry it all.
func TestInstructionsOutliveASnapshot(t *testing.T) {
	s := begin(t)
	s.Apply(s.Applied+1, &cluster.Entry{ID: "1", Parts: []cluster.Part{{Restart: &cluster.Restart{Group: "web", Epoch: 1, ID: "1"}},
		{Pause: &cluster.Pause{Note: cluster.Note{By: "ann", Reason: "why", Until: 7}}}}})
	r, err := Decode(s.Encode(), read, Flaws{})
	if err != nil || !reflect.DeepEqual(r.Instructions, s.Instructions) || !reflect.DeepEqual(r.Asked, s.Asked) {
		t.Errorf("%v: %+v became %+v", err, s.Instructions, r.Instructions)
	}
}
