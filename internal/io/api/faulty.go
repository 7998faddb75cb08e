package api

import (
	"context"
	"slices"
	"sync"
	"time"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

const (
	faultsAnswer = time.Second     // how long a node that has faults may take to tell of them
	faultsKept   = 2 * time.Second // for how long its answer is good: who watches looks many times a second
)

// faultyNodes keeps what nodes have told of their faults.
type faultyNodes struct {
	mu   sync.Mutex
	told map[string]faultsTold
}

type faultsTold struct {
	at    time.Time
	did   bool            // it answered
	nodes []*batonv1.Node // those on which it has faults to tell
}

// askFaulty puts in what other nodes tell of faults that only they see: of their addresses, ports and gate, and of ways
// from them to others. Only those are asked that say that they have any, and a node that asks gets no hearsay.
func (h *handlers) askFaulty(ctx context.Context, s *batonv1.StatusResponse) {
	others, ok := h.backend.(interface {
		Peer(ctx context.Context, node cluster.NodeID) (*Client, error)
	})
	if !ok || peerOf(ctx).role == node {
		return
	}
	var all sync.WaitGroup
	told := make([]faultsTold, len(s.Nodes))
	for i, n := range s.Nodes {
		if n.Faulty && n.Name != s.Node {
			all.Go(func() { told[i] = h.faulty.of(ctx, n.Name, others.Peer) })
		}
	}
	all.Wait()
	for i, n := range s.Nodes {
		n.Faulty = n.Faulty && !(told[i].did && len(told[i].nodes) == 0) // it is over meanwhile
		for _, seen := range told[i].nodes {
			for _, into := range s.Nodes {
				if into.Name != seen.Name {
					continue
				}
				for _, f := range seen.Faults {
					into.Faults = append(into.Faults, &batonv1.LinkFault{Link: f.Link, Text: f.Text, Hint: f.Hint, By: n.Name})
				}
			}
		}
	}
}

// of returns what a node tells.
func (f *faultyNodes) of(ctx context.Context, id string, peer func(context.Context, cluster.NodeID) (*Client, error)) faultsTold {
	f.mu.Lock()
	last, known := f.told[id]
	f.mu.Unlock()
	if known && time.Since(last.at) < faultsKept {
		return last
	}
	ctx, cancel := context.WithTimeout(ctx, faultsAnswer)
	defer cancel()
	now := faultsTold{}
	if agent, err := peer(ctx, cluster.NodeID(id)); err == nil {
		defer agent.Close()
		if s, err := agent.Status(ctx, &batonv1.StatusRequest{}); err == nil {
			now.did = true
			for _, n := range s.Nodes {
				n.Faults = slices.DeleteFunc(n.Faults, func(f *batonv1.LinkFault) bool { return f.By != "" }) // hearsay
				if len(n.Faults) > 0 {
					now.nodes = append(now.nodes, n)
				}
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.told == nil {
		f.told = make(map[string]faultsTold)
	}
	now.at = time.Now()
	f.told[id] = now
	return now
}
