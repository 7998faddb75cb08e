package state

import (
	"testing"
	"time"

	"baton/internal/core/cluster"
)

func serves(node cluster.NodeID, e cluster.Epoch, count uint64, down time.Duration, planned bool) cluster.Part {
	return cluster.Part{Served: &cluster.Served{Group: "web", Node: node, Epoch: e, Count: count, Wall: cluster.WallTime(count) * cluster.WallTime(time.Hour), Down: down, Planned: planned}}
}

// What a group's outages add up to outlives the journal, and a snapshot.
func TestOutagesAddUp(t *testing.T) {
	s := begin(t)
	apply(t, s, "", serves("alpha", 1, 1, 0, false))
	apply(t, s, "", evict("alpha", 1), assign("beta", 1, 2))
	apply(t, s, "", serves("beta", 2, 2, 976*time.Millisecond, false))
	apply(t, s, "on record already", serves("beta", 2, 2, 976*time.Millisecond, false))
	apply(t, s, "epoch 2, and 2 is on record", serves("beta", 3, 3, time.Second, false))
	apply(t, s, "epoch 2, and 2 is on record", serves("alpha", 1, 3, time.Second, false))
	for range journalMax {
		apply(t, s, "there is no such ban", cluster.Part{Unban: &cluster.Unban{Group: "web", Node: "beta"}})
	}
	s, err := Decode(s.Encode(), read, Flaws{})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, "", serves("beta", 2, 3, 24*time.Millisecond, true)) // a restart in place: the same epoch
	x := s.Group("web").Service
	want := Service{Count: 3, Epoch: 2, First: cluster.WallTime(time.Hour), Since: cluster.WallTime(3 * time.Hour),
		Planned: 24 * time.Millisecond, Unplanned: 976 * time.Millisecond, Moves: cluster.MoveCounts{Failovers: 1}}
	if x != want {
		t.Errorf("got %+v, want %+v", x, want)
	}
	if n := len(s.Journal[len(s.Journal)-1].Served); n != 1 {
		t.Errorf("the line of the history holds %d services, want 1", n)
	}
}

// A move is counted by what asked for it, and asks for the outage that follows; one whose owner is lost
// before is no switchover any more.
func TestMovesAreCountedByReason(t *testing.T) {
	asked := cluster.WallTime(time.Hour)
	move := func(id string, from, to cluster.NodeID, e cluster.Epoch, failback bool) cluster.Part {
		return cluster.Part{Move: &cluster.Move{ID: id, Group: "web", From: from, To: to, Epoch: e, Failback: failback}}
	}
	s := begin(t)
	entry := func(parts ...cluster.Part) {
		t.Helper()
		if l := s.Apply(s.Applied+1, &cluster.Entry{By: "test", Wall: asked, Parts: parts}); len(l.Dropped) > 0 {
			t.Fatalf("dropped %q", l.Dropped)
		}
	}
	expected := func(began cluster.WallTime, want bool) {
		t.Helper()
		if x := s.Group("web").Service; x.Expected(began) != want {
			t.Errorf("an outage that began %v after it was asked for: expected %v, want %v", time.Duration(began-asked), !want, want)
		}
	}
	expected(asked, false)
	entry(move("m1", "alpha", "beta", 1, false), assign("beta", 1, 2))
	expected(asked+cluster.WallTime(time.Second), true)
	expected(asked+cluster.WallTime(time.Hour), false)
	entry(serves("beta", 2, 1, 0, true))
	expected(asked, false)
	entry(released(1), cluster.Part{MoveEnd: &cluster.MoveEnd{Group: "web", ID: "m1", Done: true}})
	entry(move("m2", "beta", "alpha", 2, true), assign("alpha", 1, 3))
	entry(serves("alpha", 3, 2, 0, true), released(2), cluster.Part{MoveEnd: &cluster.MoveEnd{Group: "web", ID: "m2", Done: true}})
	entry(move("m3", "alpha", "beta", 3, false))
	entry(evict("alpha", 1), assign("beta", 1, 4))
	expected(asked, false)
	if got, want := s.Group("web").Service.Moves, (cluster.MoveCounts{Switchovers: 1, Failbacks: 1, Failovers: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
