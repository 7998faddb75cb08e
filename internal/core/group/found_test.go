package group

import (
	"testing"

	"baton/internal/core/cluster"
)

// What runs when the agent starts, and is not known to be ready, is waited for, not stopped and started anew; what comes
// after it waits too.
func TestFoundWhileStarting(t *testing.T) {
	b := newBench(cluster.Cold)
	b.g.Found(cluster.Done{Resource: "db", Status: cluster.StatusUnknown}, 3)
	s := Situation{Role: Owner, Epoch: 3, MayStart: true, MayServe: true}
	if o := b.expect(t, s, "db running@3"); o.Ready || o.Failed != "" {
		t.Errorf("%+v", o)
	}
	b.done(t, "db", cluster.StatusRunning)
	b.expect(t, s, "app running@3")
}
