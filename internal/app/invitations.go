package app

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"slices"
	"sync"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/io/api"
	"baton/internal/io/identity"
)

const (
	invitationsMax = 64             // kept at once, used and late ones included
	invitationKept = 24 * time.Hour // after it was used or has ended, so that an error can say which
)

// invitations are those of this run of the agent. They are nowhere else, so that a restart voids them.
type invitations struct {
	mu  sync.Mutex
	all []invitation
}

type invitation struct {
	hash  []byte
	node  cluster.NodeID
	until time.Time
	used  time.Time // zero: it was not
}

// make makes an invitation. An earlier one for the same node ends with it.
func (i *invitations) make(node cluster.NodeID, d time.Duration) (secret []byte, until time.Time, err error) {
	if secret, err = identity.NewSecret(rand.Reader); err != nil {
		return nil, until, err
	}
	now := time.Now()
	until = now.Add(d)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.all = slices.DeleteFunc(i.all, func(x invitation) bool { return now.Sub(x.until) > invitationKept })
	for k := range i.all {
		if x := &i.all[k]; x.node == node && x.until.After(now) {
			x.until = now
		}
	}
	if len(i.all) >= invitationsMax {
		i.all = i.all[1:]
	}
	i.all = append(i.all, invitation{hash: identity.Hash(secret), node: node, until: until})
	return secret, until, nil
}

// find returns for which node an invitation is, or why it is not good. With use, it is used up.
func (i *invitations) find(secret []byte, use bool) (cluster.NodeID, error) {
	hash, now := identity.Hash(secret), time.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	var found *invitation
	for k := range i.all {
		if subtle.ConstantTimeCompare(i.all[k].hash, hash) == 1 {
			found = &i.all[k]
		}
	}
	switch {
	case found == nil:
		return "", &api.Refusal{Text: "the invitation is not known to this agent: an agent knows only those that it gave since it was started"}
	case !found.used.IsZero():
		return "", &api.Refusal{Text: fmt.Sprintf("the invitation was used already, %s ago", now.Sub(found.used).Round(time.Second))}
	case !found.until.After(now):
		return "", &api.Refusal{Text: fmt.Sprintf("the invitation has ended, %s ago", now.Sub(found.until).Round(time.Second))}
	}
	if use {
		found.used = now
	}
	return found.node, nil
}
