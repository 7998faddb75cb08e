package app

import (
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// An outage has just begun when a view is taken: it goes on as well while nobody takes another one.
func TestShortOutageGoesOn(t *testing.T) {
	taken := time.Now()
	p := &view{taken: taken, overview: &cluster.Overview{Groups: []cluster.GroupView{{ID: "down", Service: cluster.ServiceView{Down: 1}}}}}
	for _, age := range []time.Duration{0, 1, time.Millisecond, time.Second} {
		if down := p.seen(taken.Add(age)).Groups[0].Service.Down; down != age+1 {
			t.Errorf("after %v it has been down for %v", age, down)
		}
	}
}
