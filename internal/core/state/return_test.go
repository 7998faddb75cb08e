package state

import (
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// TestReturns: which returns count as ones that did not last.
func TestReturns(t *testing.T) {
	policy := cluster.FailbackPolicy{Automatic: true, After: 5 * time.Second}
	var g Group
	var wall cluster.WallTime
	place := func(to cluster.NodeID, after time.Duration, move *cluster.Move) {
		t.Helper()
		wall += cluster.WallTime(after)
		g.Move = move
		a := &cluster.Assign{Group: "web", To: to, Epoch: g.Epoch + 1}
		g.returned(a, wall, policy)
		g.Owner, g.Last, g.Epoch = a.To, a.To, a.Epoch
	}
	home := func() { t.Helper(); place("alpha", time.Minute, &cluster.Move{To: "alpha", Failback: true}) }
	want := func(failed int) {
		t.Helper()
		if got := g.FailedReturns("alpha"); got != failed {
			t.Errorf("%d returns did not last, want %d", got, failed)
		}
	}
	place("alpha", 0, nil)
	place("beta", time.Second, nil) // it never returned
	want(0)
	for i := range 3 {
		home()
		want(i)
		place("beta", 10*time.Second, nil)
		want(i + 1)
	}
	home()
	place("alpha", time.Second, nil) // given up and given back
	want(3)
	place("beta", 50*time.Second, nil)
	want(4)
	home()
	place("beta", time.Second, &cluster.Move{To: "beta"}) // a person
	want(4)
	home()
	place("beta", 159*time.Second, nil)
	want(5)
	home()
	place("beta", 2*160*time.Second, nil)
	want(0)
	home()
	place("beta", time.Second, nil)
	want(1)
	place("alpha", time.Second, &cluster.Move{To: "alpha"}) // a person; what comes of that is no return by itself
	place("beta", time.Second, nil)
	want(1)
	if got := g.FailedReturns("gamma"); got != 0 {
		t.Errorf("%d to another node", got)
	}
	home()
	place("beta", -time.Hour, nil) // the clock was set back
	want(0)
	for range 50 {
		home()
		place("beta", time.Second, nil)
	}
	want(returnsCounted)
	if d := policy.Wait(g.FailedReturns("alpha")); d != time.Hour {
		t.Errorf("waits for %v", d)
	}
}
