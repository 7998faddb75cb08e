package state

import (
	"slices"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

func serves(node cluster.NodeID, e cluster.Epoch, count uint64, down time.Duration, planned bool) cluster.Part {
	return cluster.Part{Served: &cluster.Served{Group: "web", Node: node, Epoch: e, Count: count, Wall: cluster.WallTime(count) * cluster.WallTime(time.Hour), Down: down, Least: down, Planned: planned}}
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

// A move is counted by what asked for it, which makes the placement one that was ordered; one whose owner is lost
// before is no switchover any more.
func TestMovesAreCountedByReason(t *testing.T) {
	move := func(id string, from, to cluster.NodeID, e cluster.Epoch, failback bool) cluster.Part {
		return cluster.Part{Move: &cluster.Move{ID: id, Group: "web", From: from, To: to, Epoch: e, Failback: failback}}
	}
	s := begin(t)
	entry := func(parts ...cluster.Part) {
		t.Helper()
		if l := s.Apply(s.Applied+1, &cluster.Entry{By: "test", Parts: parts}); len(l.Dropped) > 0 {
			t.Fatalf("dropped %q", l.Dropped)
		}
	}
	ordered := func(want bool) {
		t.Helper()
		if g := s.Group("web"); (g.Service.Asked == g.Epoch) != want {
			t.Errorf("epoch %d, the newest that was ordered is %d: want ordered %v", g.Epoch, g.Service.Asked, want)
		}
	}
	ordered(false)
	entry(move("m1", "alpha", "beta", 1, false), assign("beta", 1, 2))
	ordered(true)
	entry(serves("beta", 2, 1, 0, true))
	entry(released(1), cluster.Part{MoveEnd: &cluster.MoveEnd{Group: "web", ID: "m1", Done: true}})
	entry(move("m2", "beta", "alpha", 2, true), assign("alpha", 1, 3))
	entry(serves("alpha", 3, 2, 0, true), released(2), cluster.Part{MoveEnd: &cluster.MoveEnd{Group: "web", ID: "m2", Done: true}})
	entry(move("m3", "alpha", "beta", 3, false))
	entry(evict("alpha", 1), assign("beta", 1, 4))
	ordered(false)
	if got, want := s.Group("web").Service.Moves, (cluster.MoveCounts{Switchovers: 1, Failbacks: 1, Failovers: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A node that is back tells until when it served: what stood on record as "at most" is put right, in the sum and in
// history, for whoever was given that history before too.
func TestOutageIsAmended(t *testing.T) {
	s := begin(t)
	apply(t, s, "", serves("alpha", 1, 1, 0, false))
	apply(t, s, "", evict("alpha", 1), assign("beta", 1, 2))
	open := serves("beta", 2, 2, 976*time.Millisecond, false)
	open.Served.Least, open.Served.Known, open.Served.Before = 0, cluster.AtMost, 1
	open.Served.Phases = cluster.Phases{Detected: 900 * time.Millisecond, Started: 76 * time.Millisecond}
	apply(t, s, "", open)
	given := s.Journal[len(s.Journal)-1]
	if want := "web serves on beta, epoch 2, after unplanned outage of at most 976 ms: detected 900 ms, decided 0 ms, waited 0 ms, started 76 ms"; given.Did[0] != want {
		t.Errorf("got %q, want %q", given.Did[0], want)
	}
	amend := cluster.Part{Amend: &cluster.Amend{Group: "web", Node: "alpha", Epoch: 2, Count: 2, Down: 7 * time.Millisecond, Least: 7 * time.Millisecond}}
	apply(t, s, "", amend)
	apply(t, s, "nothing of that outage is open", amend)
	if x := s.Group("web").Service; x.Unplanned != 7*time.Millisecond || x.Planned != 0 || x.Open != nil {
		t.Errorf("got %+v", x)
	}
	line := s.Journal[slices.IndexFunc(s.Journal, func(l cluster.Line) bool { return l.Index == given.Index })]
	if want := "web serves on beta, epoch 2, after unplanned outage of 7 ms: detected 0 ms, decided 0 ms, waited 0 ms, started 7 ms"; line.Did[0] != want || line.Served[0].Down != 7*time.Millisecond {
		t.Errorf("got %q, want %q", line.Did[0], want)
	}
	if given.Served[0].Down != 976*time.Millisecond {
		t.Error("a line that was given away has changed")
	}
}

// Pauses before other tries stand apart from the starting.
func TestPausesAreNamed(t *testing.T) {
	s := cluster.Served{Group: "web", Node: "beta", Epoch: 2, Down: 5 * time.Second, Least: 5 * time.Second}
	const begin = "web serves on beta, epoch 2, after unplanned outage of "
	for _, c := range []struct {
		phases cluster.Phases
		known  cluster.Known
		want   string
	}{
		{cluster.Phases{Detected: 900 * time.Millisecond, Started: 100 * time.Millisecond, Paused: 4 * time.Second}, "",
			"5000 ms: detected 900 ms, decided 0 ms, waited 0 ms, started 100 ms, paused 4000 ms before another try"},
		{cluster.Phases{Started: time.Second, Paused: 4 * time.Second}, "", "5000 ms: paused 4000 ms before another try, started 1000 ms"},
		{cluster.Phases{Started: time.Second, Paused: 4 * time.Second}, cluster.AtLeast, "at least 5000 ms: paused 4000 ms before another try"},
	} {
		s.Phases, s.Known = c.phases, c.known
		if got := s.String(); got != begin+c.want {
			t.Errorf("%q, want %q", got, begin+c.want)
		}
	}
	if p := (cluster.Phases{Detected: time.Second, Paused: time.Second, Started: time.Second}).Shorten(1500 * time.Millisecond); p.Detected != 0 || p.Paused != 500*time.Millisecond || p.Started != time.Second {
		t.Errorf("shortened: %+v", p)
	}
}
