package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/api"
	"baton/internal/io/identity"
)

// A node that is removed while it is off or cut off is told nothing: those that remain send nothing to whom their
// configuration does not name. Where it names the node again, they hear one that they do not know. So a node that
// knows no coordinator asks them.

const (
	rollEvery = 5 * time.Second // a node asks so often that had no coordinator the last time either
	rollLimit = 3 * time.Second // for the answers
)

// standing is how this node stands to the cluster, by a newer log than its own.
type standing uint8

const (
	// asItWas: nothing is proven.
	asItWas standing = iota
	// wasRemoved: it belongs to the cluster no longer.
	wasRemoved
	// wasReplaced: the cluster names it, and not this life of it: it is let in with an empty data directory only.
	wasReplaced
)

// judge tells how a node stands by what another one's log says. Only a later entry of the log that it has itself, and
// by which it belonged to the cluster, proves anything: an incarnation that was removed never comes back.
func judge(self cluster.NodeID, incarnation cluster.Incarnation, own, told *api.Roll) standing {
	belongs := func(r *api.Roll) bool {
		return slices.Contains(r.Members, api.Member{Node: self, Incarnation: incarnation})
	}
	switch {
	case own.ID == "" || told.ID != own.ID || told.Applied <= own.Applied || !belongs(own) || belongs(told):
		return asItWas
	case slices.Contains(told.Nodes, self):
		return wasReplaced
	case told.Revision <= own.Revision:
		return asItWas
	}
	return wasRemoved
}

// watchStanding asks the other nodes, for as long as this one knows no coordinator, whether it belongs to the cluster
// still, and has the agent end if it does not.
func (a *agent) watchStanding(ctx context.Context) {
	tick := time.NewTicker(rollEvery)
	defer tick.Stop()
	alone := true // until the agent was started
	strangers := make(map[cluster.NodeID]bool)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		own, led := a.ownRoll(ctx)
		if own == nil || led || !alone {
			a.replaced.Store(nil)
			alone = own != nil && !led
			continue
		}
		told, by := a.newestRoll(ctx, strangers)
		switch judge(a.self, a.inc, own, told) {
		case wasRemoved:
			why := fail(exitLeft, wayBack(string(a.self), a.opt.DataDir), "%s was removed from the cluster while it was not heard: revision %d does not name it, as %s says", a.self, told.Revision, by)
			a.inbox.do(func() { a.removed(why) })
			return
		case wasReplaced:
			why := fmt.Sprintf("its data directory is of a former life, which was removed from the cluster, as %s says: it takes no part", by)
			if a.replaced.Swap(&why) == nil {
				a.log.Warn(string(a.self)+": "+why, "hint", "stop the agent, move "+a.opt.DataDir+" away, and start it again: it is let in anew")
			}
		default:
			a.replaced.Store(nil)
		}
	}
}

// tellReplaced says in an overview that this node takes no part.
func (a *agent) tellReplaced(o *cluster.Overview) {
	why := a.replaced.Load()
	for i := range o.Nodes {
		if n := &o.Nodes[i]; why != nil && n.ID == a.self && n.Trouble == "" {
			n.Trouble = *why
		}
	}
}

// ownRoll returns who belongs to the cluster by this node's own log, and whether a coordinator is known. nil: the
// agent ends, or belongs to no cluster.
func (a *agent) ownRoll(ctx context.Context) (own *api.Roll, led bool) {
	type answer struct {
		roll *api.Roll
		led  bool
	}
	answers := make(chan answer, 1)
	a.inbox.do(func() { answers <- answer{rollOf(a.node), a.node.Coordinator() != ""} })
	select {
	case x := <-answers:
		if x.roll.ID != "" {
			return x.roll, x.led
		}
	case <-a.ended:
	case <-ctx.Done():
	}
	return nil, false
}

// rollOf returns who belongs to the cluster by a node's log. It is called in the loop.
func rollOf(n *node.Node) *api.Roll {
	s := n.State()
	if s == nil || s.IsBlank() {
		return &api.Roll{}
	}
	r := &api.Roll{ID: s.Founding.ID, Applied: s.Applied, Revision: s.Revision()}
	for _, n := range s.Nodes {
		r.Nodes = append(r.Nodes, n.ID)
	}
	for _, m := range s.Members {
		r.Members = append(r.Members, api.Member{Node: m.Node, Incarnation: m.Incarnation})
	}
	return r
}

// Roll implements api.MembersBackend.
func (b *backend) Roll(ctx context.Context) (*api.Roll, error) {
	p, err := b.a.look(ctx)
	if err != nil {
		return nil, err
	}
	return p.roll, nil
}

// newestRoll asks every other node that this one knows, at all addresses at once, and returns the answer of the newest
// log; an empty one if nobody answers. Who answers with another key is told of once.
func (a *agent) newestRoll(ctx context.Context, strangers map[cluster.NodeID]bool) (newest *api.Roll, by cluster.NodeID) {
	ctx, cancel := context.WithTimeout(ctx, rollLimit)
	defer cancel()
	newest = new(api.Roll)
	var mu sync.Mutex
	var asking sync.WaitGroup
	spec := a.shared.Load()
	for _, n := range spec.Nodes {
		if n.ID == a.self {
			continue
		}
		for _, address := range apiAddresses(spec, n.ID) {
			asking.Go(func() {
				told, err := a.rollAt(ctx, n.ID, address.String())
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && told.Applied > newest.Applied:
					newest, by = told, n.ID
				case errors.Is(err, identity.ErrStranger) && !strangers[n.ID]:
					strangers[n.ID] = true
					a.log.Warn("who answers at a node's address has another key than this node", "from", n.ID, "address", address,
						"hint", "if the key was changed while this node was away: baton invite "+string(a.self)+" on another node, then baton join here")
				}
			})
		}
	}
	asking.Wait()
	return newest, by
}

// rollAt asks one node at one address who belongs to the cluster. It is answered only by that very node, which
// proves that it has the cluster's key.
func (a *agent) rollAt(ctx context.Context, node cluster.NodeID, address string) (*api.Roll, error) {
	agent := api.DialTLS([]string{address}, a.access.identity.Client(node, identity.APIProtocols...), "")
	defer agent.Close()
	r, err := agent.Members.ListMembers(ctx, &batonv1.ListMembersRequest{})
	if err != nil {
		return nil, err
	}
	return api.RollFrom(r), nil
}

// removed begins the end of a node that was removed while it was not heard. It is called in the loop.
func (a *agent) removed(why error) {
	if a.leftAt != 0 {
		return
	}
	a.log.Info(why.Error(), "event", "left")
	a.left(a.clock.now().Mono, why)
}
