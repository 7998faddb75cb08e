package state

import (
	"slices"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// A failback is under way when its source is lost: who takes the group over has it by a failover, wherever that is.
func TestFailbackThatWasOvertaken(t *testing.T) {
	for _, to := range []cluster.NodeID{"alpha", "beta"} {
		s := begin(t)
		apply(t, s, "", evict("alpha", 1), assign("beta", 1, 2))
		apply(t, s, "", cluster.Part{Ended: &cluster.Ended{Node: "alpha", Number: 1}}, cluster.Part{Admit: &cluster.Admit{Node: "alpha", Incarnation: 11, Boot: 21, Number: 2}})
		before := s.Group("web").Service.Moves
		apply(t, s, "", cluster.Part{Move: &cluster.Move{ID: "m", Group: "web", From: "beta", To: "alpha", Epoch: 2, Failback: true}})
		want := before
		if to == "alpha" {
			want.Failovers++
			apply(t, s, "", evict("beta", 1), assign("alpha", 2, 3))
		} else { // its lease had only ended for a moment: it goes on where it was
			apply(t, s, "", released(2), assign("beta", 1, 3))
		}
		if g := s.Group("web"); g.Service.Moves != want || g.Service.Asked == 3 {
			t.Errorf("to %s: counted %+v, not %+v; ordered: %v", to, g.Service.Moves, want, g.Service.Asked == 3)
		}
	}
}

// An outage is open while the placement after it lasts: once another is on record, nobody will tell when it began to.
func TestOutageIsOpenForOnePlacement(t *testing.T) {
	s := begin(t)
	apply(t, s, "", serves("alpha", 1, 1, 0, false))
	apply(t, s, "", evict("alpha", 1), assign("beta", 1, 2))
	open := serves("beta", 2, 2, time.Second, false)
	open.Served.Least, open.Served.Known, open.Served.Before = 0, cluster.AtMost, 1
	apply(t, s, "", open)
	apply(t, s, "", serves("beta", 2, 3, time.Millisecond, false)) // a gap in the same placement
	if x := s.Group("web").Service.Open; x == nil || x.Count != 2 {
		t.Errorf("the placement lasts, and open is %+v", x)
	}
	apply(t, s, "", released(2), assign("beta", 1, 3))
	apply(t, s, "", serves("beta", 3, 4, time.Millisecond, false))
	if x := s.Group("web").Service.Open; x != nil {
		t.Errorf("another placement is on record, and open is %+v", x)
	}
	apply(t, s, "nothing of that outage is open", cluster.Part{Amend: &cluster.Amend{Group: "web", Node: "alpha", Epoch: 2, Count: 2, Down: time.Millisecond}})
	if sum := s.Group("web").Service.Unplanned; sum != time.Second+2*time.Millisecond {
		t.Errorf("they add up to %v", sum)
	}
}

// A data directory was lost without a reboot, then the machine booted anew, then nothing but the lease was lost: packets
// of each former life are late ones, and those of the present one are not.
func TestFormerLives(t *testing.T) {
	s := begin(t)
	lives := []Past{{11, 21}, {13, 21}, {13, 22}, {13, 22}}
	for k := range lives {
		number := cluster.Number(k + 1)
		if k > 0 {
			apply(t, s, "", evict("alpha", number-1), cluster.Part{Ended: &cluster.Ended{Node: "alpha", Number: number - 1}},
				cluster.Part{Admit: &cluster.Admit{Node: "alpha", Incarnation: lives[k].Incarnation, Boot: lives[k].Boot, Number: number}})
		}
	}
	if past := s.Node("alpha").Past; !slices.Equal(past, lives[:2]) {
		t.Errorf("former lives are %v", past)
	}
}
