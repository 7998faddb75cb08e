package state

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"baton/internal/core/cluster"
)

func spec() *cluster.Spec {
	return &cluster.Spec{
		Nodes:  []cluster.NodeSpec{{ID: "alpha"}, {ID: "beta"}, {ID: "gamma", Role: cluster.Witness}},
		Groups: []cluster.GroupSpec{{ID: "web", Nodes: []cluster.NodeID{"alpha", "beta"}}},
	}
}

// read reads the one file that these tests know.
func read([]byte) (*cluster.Spec, error) { return spec(), nil }

// begin returns a state in which web is on alpha, epoch 1, both members admitted under number 1.
func begin(t *testing.T) *State {
	t.Helper()
	s, err := New(&cluster.Founding{ID: "test"}, read, 1, Flaws{})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, "",
		cluster.Part{Admit: &cluster.Admit{Node: "alpha", Incarnation: 11, Boot: 21, Number: 1}},
		cluster.Part{Admit: &cluster.Admit{Node: "beta", Incarnation: 12, Boot: 22, Number: 1}},
		cluster.Part{Assign: &cluster.Assign{Group: "web", To: "alpha", Number: 1, Epoch: 1}})
	return s
}

// apply applies one entry; want is what the drop reasons must contain, "" for none dropped.
func apply(t *testing.T, s *State, want string, parts ...cluster.Part) {
	t.Helper()
	line := s.Apply(s.Applied+1, &cluster.Entry{By: "test", Parts: parts})
	got := strings.Join(line.Dropped, "; ")
	if (want == "") != (got == "") || !strings.Contains(got, want) {
		t.Errorf("dropped %q, want %q", got, want)
	}
}

func evict(n cluster.NodeID, k cluster.Number) cluster.Part {
	return cluster.Part{Evict: &cluster.Evict{Node: n, Number: k}}
}

func assign(to cluster.NodeID, k cluster.Number, e cluster.Epoch) cluster.Part {
	return cluster.Part{Assign: &cluster.Assign{Group: "web", To: to, Number: k, Epoch: e}}
}

func released(e cluster.Epoch) cluster.Part {
	return cluster.Part{Released: &cluster.Released{Group: "web", Epoch: e}}
}

func TestEvictEndsEveryOwnership(t *testing.T) {
	s := begin(t)
	apply(t, s, "", evict("alpha", 1))
	if g := s.Group("web"); g.Owner != "" || g.Last != "alpha" || len(g.Tenures) != 1 {
		t.Errorf("after the eviction: %+v", g)
	}
	apply(t, s, "does not hold that number", evict("alpha", 1))
	apply(t, s, "is not over", cluster.Part{Admit: &cluster.Admit{Node: "alpha", Incarnation: 11, Boot: 21, Number: 2}})
	apply(t, s, "", cluster.Part{Ended: &cluster.Ended{Node: "alpha", Number: 1}})
	if len(s.Group("web").Tenures) != 0 {
		t.Error("the tenure under a number that is over still stands")
	}
	apply(t, s, "the next number is 2", cluster.Part{Admit: &cluster.Admit{Node: "alpha", Incarnation: 11, Boot: 99, Number: 3}})
	apply(t, s, "", cluster.Part{Admit: &cluster.Admit{Node: "alpha", Incarnation: 11, Boot: 99, Number: 2}})
	if g := s.Group("web"); g.Owner != "" {
		t.Error("admitted again, it owns the group without a new Assign")
	}
	if past := s.Node("alpha").Past; !reflect.DeepEqual(past, []Past{{11, 21}}) {
		t.Errorf("the former boot is not remembered: %v", past)
	}
}

func TestEachPartIsCheckedAlone(t *testing.T) {
	s := begin(t)
	line := s.Apply(s.Applied+1, &cluster.Entry{Parts: []cluster.Part{evict("alpha", 1), assign("beta", 9, 2)}})
	if len(line.Did) != 1 || len(line.Dropped) != 1 {
		t.Errorf("did %v, dropped %v", line.Did, line.Dropped)
	}
}

func TestWhatNoLongerFitsIsDropped(t *testing.T) {
	s := begin(t)
	apply(t, s, "decided on epoch 0", assign("beta", 1, 1))
	apply(t, s, "decided on epoch 2", assign("beta", 1, 3))
	apply(t, s, "holds number 1, not 2", assign("beta", 2, 2))
	apply(t, s, "holds no lease", assign("gamma", 0, 2))
	apply(t, s, "was not evicted", cluster.Part{Ended: &cluster.Ended{Node: "alpha", Number: 1}})
	apply(t, s, "over already", released(7))
	apply(t, s, "no such group", cluster.Part{Released: &cluster.Released{Group: "mail", Epoch: 1}})
	apply(t, s, "does not know it", cluster.Part{})
	if g := s.Group("web"); g.Owner != "alpha" || g.Epoch != 1 {
		t.Errorf("something was done: %+v", g)
	}
}

func TestReleaseOfTheNewestEpochEndsTheOwnership(t *testing.T) {
	s := begin(t)
	apply(t, s, "", assign("beta", 1, 2), released(1))
	if g := s.Group("web"); g.Owner != "beta" || len(g.Tenures) != 1 {
		t.Errorf("the release of an older epoch: %+v", g)
	}
	apply(t, s, "", released(2))
	if g := s.Group("web"); g.Owner != "" || g.Last != "beta" || len(g.Tenures) != 0 {
		t.Errorf("the release of the newest: %+v", g)
	}
}

func TestMoves(t *testing.T) {
	move := func(id string, e cluster.Epoch) cluster.Part {
		return cluster.Part{Move: &cluster.Move{ID: id, Group: "web", From: "alpha", To: "beta", Epoch: e}}
	}
	s := begin(t)
	apply(t, s, "placed otherwise", move("a", 7))
	apply(t, s, "", move("a", 1))
	apply(t, s, "is under way", move("b", 1))
	apply(t, s, "", assign("beta", 1, 2))
	if m := s.Group("web").Move; m == nil || m.Assigned != 2 {
		t.Fatalf("the move after its Assign: %+v", m)
	}
	apply(t, s, "not under way", cluster.Part{MoveEnd: &cluster.MoveEnd{Group: "web", ID: "b", Done: true}})
	apply(t, s, "", cluster.Part{MoveEnd: &cluster.MoveEnd{Group: "web", ID: "a", Done: true}})
	apply(t, s, "ended already", cluster.Part{Move: &cluster.Move{ID: "a", Group: "web", From: "beta", To: "alpha", Epoch: 2}})
	apply(t, s, "", cluster.Part{Move: &cluster.Move{ID: "c", Group: "web", From: "beta", To: "alpha", Epoch: 2}})
	apply(t, s, "", evict("beta", 1), assign("alpha", 1, 3))
	if m := s.Group("web").Move; m == nil || m.ID != "c" || m.Assigned != 3 {
		t.Errorf("a rescue that goes to the move's target is the move's Assign: %+v", m)
	}
}

// A move whose target dies before it served has ended: else nobody could move the group again.
func TestMoveEndsWithItsTarget(t *testing.T) {
	for _, end := range []cluster.Part{evict("beta", 1), released(2)} {
		s := begin(t)
		apply(t, s, "", cluster.Part{Move: &cluster.Move{ID: "a", Group: "web", From: "alpha", To: "beta", Epoch: 1}}, assign("beta", 1, 2), end)
		if g := s.Group("web"); g.Owner != "" || g.Move != nil || g.Ended == nil || g.Ended.Done {
			t.Errorf("after %v: %+v, %+v", end, g, g.Ended)
		}
	}
}

// Of three voters none loses its vote before every node that stays has one; whoever waits is told for whom.
func TestLastVotersStay(t *testing.T) {
	named := spec()
	named.Nodes = append(named.Nodes, cluster.NodeSpec{ID: "delta"})
	s, err := New(&cluster.Founding{ID: "test", Nodes: []cluster.FoundingNode{{Node: "alpha", Incarnation: 11}, {Node: "beta", Incarnation: 12}, {Node: "gamma", Incarnation: 13}}}, read, 1, Flaws{})
	if err != nil {
		t.Fatal(err)
	}
	without := func(id cluster.NodeID) *cluster.Spec {
		next := spec()
		next.Nodes = nil
		for _, n := range named.Nodes {
			if n.ID != id {
				next.Nodes = append(next.Nodes, n)
			}
		}
		return next
	}
	if got := s.Awaited(without("beta")); got != "" {
		t.Errorf("before delta is named, beta waits for %q", got)
	}
	s.fit(named)
	for _, c := range []struct {
		leaves  cluster.NodeID
		awaited cluster.NodeID
		waits   string
	}{
		{"beta", "delta", "beta keeps its vote until delta has one: 3 voters must remain"},
		{"delta", "", ""}, // which has no vote
	} {
		next := without(c.leaves)
		if got := s.Awaited(next); got != c.awaited {
			t.Errorf("without %s: waits for %q, not %q", c.leaves, got, c.awaited)
		}
		if got := s.DraftWaits(next); got != c.waits {
			t.Errorf("without %s: %q, not %q", c.leaves, got, c.waits)
		}
	}
}

func TestSnapshotHoldsEverything(t *testing.T) {
	s := begin(t)
	apply(t, s, "", evict("alpha", 1), assign("beta", 1, 2),
		cluster.Part{Ban: &cluster.Ban{Group: "web", Node: "alpha", Until: 5, Reason: "it failed"}})
	got, err := Decode(s.Encode(), read, Flaws{})
	if err != nil || !bytes.Equal(got.Encode(), s.Encode()) || !reflect.DeepEqual(got.Spec(), s.Spec()) {
		t.Errorf("%v\n got %s\nwant %s", err, got.Encode(), s.Encode())
	}
	if _, err := Decode([]byte("{"), read, Flaws{}); err == nil {
		t.Error("half a snapshot was read")
	}
	apply(t, s, "", cluster.Part{Unban: &cluster.Unban{Group: "web", Node: "alpha"}})
	apply(t, s, "no such ban", cluster.Part{Unban: &cluster.Unban{Group: "web", Node: "alpha"}})
}

func TestJournalIsBounded(t *testing.T) {
	s := begin(t)
	for range 2 * journalMax {
		apply(t, s, "over already", released(99))
	}
	if len(s.Journal) != journalMax {
		t.Errorf("%d lines", len(s.Journal))
	}
}
