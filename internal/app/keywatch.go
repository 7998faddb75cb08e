package app

import (
	"context"
	"time"

	"baton/internal/core/cluster"
)

const (
	keyWatchEvery = 5 * time.Second
	keyTellEvery  = time.Minute // at most so often, for each node
)

// traffic counts what came in one node's name, over all links.
type traffic struct{ received, forged uint64 }

// watchKeys tells of nodes from which comes only what this node's key does not open: one of the two missed a
// change of the key. It may also be a stranger who speaks in the name of a node that is off.
func (a *agent) watchKeys(ctx context.Context) {
	tick := time.NewTicker(keyWatchEvery)
	defer tick.Stop()
	last, told := make(map[cluster.NodeID]traffic), make(map[cluster.NodeID]time.Time)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := make(map[cluster.NodeID]traffic)
		for _, link := range a.links.Stats() {
			for id, p := range link.Peers {
				t := now[id]
				now[id] = traffic{t.received + p.Received, t.forged + p.Forged}
			}
		}
		for id, t := range now {
			before, known := last[id]
			if !known || t.received != before.received || t.forged == before.forged || time.Since(told[id]) < keyTellEvery {
				continue
			}
			told[id] = time.Now()
			a.log.Warn("what comes from a node does not open with this node's key", "from", id, "packets", t.forged-before.forged,
				"hint", "if the key was changed while this node was away: baton invite "+string(a.self)+" on another node, then baton join here")
		}
		last = now
	}
}
