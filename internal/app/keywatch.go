package app

import (
	"context"
	"time"

	"baton/internal/core/cluster"
)

const (
	keyWatchEvery = 2 * time.Second
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
		foreign := make(map[cluster.NodeID]bool)
		for id, t := range now {
			before, known := last[id]
			if !known || t.received != before.received || t.forged == before.forged {
				continue
			}
			foreign[id] = true
			if time.Since(told[id]) >= keyTellEvery {
				told[id] = time.Now()
				a.log.Warn("what comes from a node does not open with this node's key", "from", id, "packets", t.forged-before.forged,
					"hint", "if the key was changed while this node was away: baton invite "+string(a.self)+" on another node, then baton join here")
			}
		}
		last = now
		a.access.foreign.Store(&foreign)
	}
}

// tellForeign says in an overview which nodes are not understood.
func (x *access) tellForeign(o *cluster.Overview) {
	foreign := x.foreign.Load()
	if foreign == nil {
		return
	}
	for i := range o.Nodes {
		if n := &o.Nodes[i]; (*foreign)[n.ID] {
			n.Trouble = "what comes in its name does not open with this node's key: one of the two has another key, or somebody else speaks"
		}
	}
}
