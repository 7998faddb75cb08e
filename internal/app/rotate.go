package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/core/wire"
	"baton/internal/io/api"
)

// How long a change of the key waits.
const (
	keyAskTimeout = 5 * time.Second // for one node's answer
	// keySettle is how long the old key is still accepted after the last node has stopped using it: what was
	// sealed before has arrived by then.
	keySettle = time.Second
)

// keySteps are the steps of a change, each of which every node takes before the next.
var keySteps = []struct{ step, did string }{
	{"accept", "every node accepts the new key"},
	{"seal", "every node uses the new key"},
	{"drop", "every node has dropped the old key"},
}

// StepKey implements api.AccessBackend.
func (b *backend) StepKey(step string, line []byte) error {
	if !slices.ContainsFunc(keySteps, func(s struct{ step, did string }) bool { return s.step == step }) {
		return fmt.Errorf("there is no step %q", step)
	}
	key, err := wire.ParseKey(string(line))
	if err != nil {
		return err
	}
	if err := b.a.access.keys.step(step, key); err != nil {
		return err
	}
	b.a.log.Info("the cluster's key is being changed", "step", step, "key", wire.KeyID(key))
	return nil
}

// useKeys takes keys into use everywhere. Connections prove by new certificates first: a node that sees one
// may use its key already.
func (a *agent) useKeys(keys [][]byte) error {
	return errors.Join(a.access.identity.Rekey(keys), a.links.Rekey(keys))
}

// keyNode is one node in a change of the key.
type keyNode struct {
	id   cluster.NodeID
	keys wire.Keys
	err  error
}

// RotateKey implements api.AccessBackend. It goes on where a change stands already.
func (b *backend) RotateKey(ctx context.Context, without []cluster.NodeID, by string) (api.Rotation, error) {
	x := b.a.access
	if !x.rotating.TryLock() {
		return api.Rotation{}, &api.Refusal{Text: "the key is being changed by this node already", Hint: "wait until that has ended"}
	}
	defer x.rotating.Unlock()
	spec, _, err := b.present(ctx)
	if err != nil {
		return api.Rotation{}, err
	}
	for _, id := range without {
		if spec.Node(id) == nil || id == b.a.self {
			return api.Rotation{}, &api.Refusal{Text: "node " + string(id) + " can't be left behind: it is not in the cluster file, or is the one that is asked", Hint: "baton status lists the nodes"}
		}
	}
	nodes := b.everyNode(ctx, spec, func(ctx context.Context, agent *api.Client, n *keyNode) error {
		if agent == nil {
			n.keys = x.keys.present()
			return nil
		}
		r, err := agent.Keys.GetKeys(ctx, &batonv1.GetKeysRequest{})
		if err == nil {
			n.keys, err = wire.ParseKeys(string(r.Keys))
		}
		return err
	}, nil)
	var skipped []cluster.NodeID
	nodes = slices.DeleteFunc(nodes, func(n keyNode) bool {
		skip := n.err != nil && slices.Contains(without, n.id)
		if skip {
			skipped = append(skipped, n.id)
		}
		return skip
	})
	if r := unreached(nodes, "nothing was changed now"); r != nil {
		return api.Rotation{}, r
	}
	key, begun, err := nextKey(nodes)
	if err != nil {
		return api.Rotation{}, err
	}
	return b.takeSteps(ctx, spec, nodes, skipped, key, begun, by)
}

// takeSteps takes every step on every node, and stops where one fails.
func (b *backend) takeSteps(ctx context.Context, spec *cluster.Spec, nodes []keyNode, skipped []cluster.NodeID, key []byte, begun bool, by string) (api.Rotation, error) {
	r := api.Rotation{Key: wire.KeyID(key)}
	if begun {
		r.Did = append(r.Did, "a change to key "+r.Key+" was under way: it goes on")
	}
	var ids []cluster.NodeID
	for _, n := range nodes {
		ids = append(ids, n.id)
	}
	line := []byte(wire.FormatKey(key))
	for i, s := range keySteps {
		if s.step == "drop" {
			select {
			case <-time.After(keySettle):
			case <-ctx.Done():
				return r, ctx.Err()
			}
		}
		nodes = b.everyNode(ctx, spec, func(ctx context.Context, agent *api.Client, n *keyNode) error {
			if agent == nil {
				return b.StepKey(s.step, line)
			}
			_, err := agent.Keys.StepKey(ctx, &batonv1.StepKeyRequest{Step: s.step, Key: line})
			return err
		}, ids)
		if why := unreached(nodes, fmt.Sprintf("the change stopped at step %d of %d, and all nodes still understand each other", i+1, len(keySteps))); why != nil {
			r.Text, r.Hint = why.Text, why.Hint
			b.deed("the change to key "+r.Key+" stopped: "+why.Text, by)
			return r, nil
		}
		r.Did = append(r.Did, s.did)
	}
	r.Done, r.Authority = true, b.a.access.identity.Fingerprint().String()
	r.Text = "the cluster's key is " + r.Key + " now"
	if len(skipped) > 0 {
		names := make([]string, len(skipped))
		for i, id := range skipped {
			names[i] = string(id)
		}
		r.Hint = "on each of the nodes left behind (" + strings.Join(names, ", ") + ") the way back is an invitation: baton invite NODE here, then baton join there"
	}
	b.deed("the cluster's key was changed to "+r.Key, by)
	return r, nil
}

// everyNode does the same on every node at once: here (agent is nil), and through the agents of others. Ids
// limit it to those; nil: all.
func (b *backend) everyNode(ctx context.Context, spec *cluster.Spec, do func(context.Context, *api.Client, *keyNode) error, ids []cluster.NodeID) []keyNode {
	var nodes []keyNode
	for _, n := range spec.Nodes {
		if ids == nil || slices.Contains(ids, n.ID) {
			nodes = append(nodes, keyNode{id: n.ID})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, keyAskTimeout)
	defer cancel()
	var all sync.WaitGroup
	for i := range nodes {
		n := &nodes[i]
		all.Go(func() {
			if n.id == b.a.self {
				n.err = do(ctx, nil, n)
				return
			}
			agent := b.a.access.peers.client(n.id)
			defer agent.Close()
			n.err = do(ctx, agent, n)
		})
	}
	all.Wait()
	return nodes
}

// unreached tells which nodes did not do what they were asked; nil: all did.
func unreached(nodes []keyNode, so string) *api.Refusal {
	var why []string
	for _, n := range nodes {
		if n.err != nil {
			why = append(why, string(n.id)+": "+api.Explain(n.err).Text)
		}
	}
	if len(why) == 0 {
		return nil
	}
	return &api.Refusal{Text: "every node is needed: " + strings.Join(why, "; ") + ": " + so,
		Hint: "bring it back and repeat the command; or leave it behind: --without NODE"}
}

// nextKey returns the key that a change under way leads to, or a new one if none is.
func nextKey(nodes []keyNode) (key []byte, begun bool, err error) {
	for _, n := range nodes {
		if n.keys.Second == nil {
			continue
		}
		to := n.keys.First
		if n.keys.Next {
			to = n.keys.Second
		}
		if key != nil && !bytes.Equal(key, to) {
			return nil, false, &api.Refusal{Text: "two changes of the key are under way at once, to " + wire.KeyID(key) + " and " + wire.KeyID(to),
				Hint: "put the same key file on every node and restart the agents one by one"}
		}
		key = to
	}
	if key != nil {
		return key, true, nil
	}
	key, err = wire.NewKey(rand.Reader)
	return key, false, err
}
