package app

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/core/node"
	"baton/internal/core/wire"
	"baton/internal/io/api"
	"baton/internal/io/identity"
)

// access is what the agent has for who comes from afar.
type access struct {
	identity    *identity.Identity
	keys        *keyring
	peers       *peers
	invitations invitations
	rotating    sync.Mutex
	tokens      atomic.Pointer[[]cluster.Token]
	server      atomic.Pointer[api.Server]
	foreign     atomic.Pointer[map[cluster.NodeID]bool] // nodes from which nothing comes but what no key opens
}

// newAccess makes this node's identity. Who uses the keys is told by keys.use, once there is somebody; spec
// returns the configuration that counts.
func newAccess(self cluster.NodeID, file string, keys wire.Keys, spec func() *cluster.Spec) (*access, error) {
	id, err := identity.New(self, keys.All())
	if err != nil {
		return nil, err
	}
	return &access{identity: id, keys: &keyring{file: file, keys: keys}, peers: &peers{id, spec}}, nil
}

// take answers who came over TCP.
func (x *access) take(conn *tls.Conn) {
	if s := x.server.Load(); s != nil {
		s.Take(conn)
		return
	}
	conn.Close() // the agent is only starting
}

// noteTokens keeps the tokens for who asks outside of the loop. It is called in the loop.
func (x *access) noteTokens(now []cluster.Token) {
	last := x.tokens.Load()
	if last != nil && len(*last) == len(now) && (len(now) == 0 || &(*last)[0] == &now[0]) {
		return
	}
	x.tokens.Store(&now)
}

// Self implements api.AccessBackend.
func (b *backend) Self() cluster.NodeID { return b.a.self }

// Identity implements api.AccessBackend.
func (b *backend) Identity() *identity.Identity { return b.a.access.identity }

// Tokens implements api.AccessBackend.
func (b *backend) Tokens() []cluster.Token {
	if t := b.a.access.tokens.Load(); t != nil {
		return *t
	}
	return nil
}

// Invited implements api.AccessBackend.
func (b *backend) Invited(secret []byte) (cluster.NodeID, error) {
	return b.a.access.invitations.find(secret, false)
}

// Propose implements api.AccessBackend.
func (b *backend) Propose(ctx context.Context, part cluster.Part, by string) (api.MoveReply, error) {
	c := &node.Command{Op: node.OpPropose, Part: part, By: by}
	var answer chan node.Reply
	if err := b.ask(func(*node.Node) { answer = b.a.command(c) }); err != nil {
		return api.MoveReply{}, err
	}
	select {
	case x := <-answer:
		return api.MoveReply{Done: x.Done, Text: x.Text, Hint: x.Hint}, nil
	case <-ctx.Done():
		return api.MoveReply{}, ctx.Err()
	case <-b.a.ended:
		return api.MoveReply{}, errEnded
	}
}

// present returns the configuration that counts, and the cluster's identity if it is founded.
func (b *backend) present(ctx context.Context) (spec *cluster.Spec, id string, err error) {
	p, err := b.a.look(ctx)
	if err != nil {
		return nil, "", err
	}
	return p.spec, p.overview.ID, nil
}

// deed puts into the journal what was done beside the log. A cluster that forms has none.
func (b *backend) deed(text, by string) {
	b.a.log.Info(text, "by", by)
	ctx, cancel := context.WithTimeout(context.Background(), deedTimeout)
	defer cancel()
	if m, err := b.Propose(ctx, cluster.Part{Deed: &cluster.Deed{Text: text}}, by); err != nil || !m.Done {
		b.a.log.Info("this is not in the history", "what", text, "reason", m.Text, "cause", err)
	}
}

// deedTimeout is how long somebody waits for the journal to have what was done already.
const deedTimeout = 2 * time.Second

// Doors implements api.AccessBackend.
func (b *backend) Doors(ctx context.Context) (api.Doors, error) {
	spec, _, err := b.present(ctx)
	if err != nil {
		return api.Doors{}, err
	}
	d := api.Doors{Cluster: spec.Cluster, Authority: b.a.access.identity.Fingerprint().String(), PEM: b.a.access.identity.PEM()}
	for _, n := range spec.Nodes {
		if a := apiAddress(spec, n.ID); a.IsValid() {
			text := shortAddress(a)
			if n.ID == b.a.self {
				d.Addresses = slices.Insert(d.Addresses, 0, text)
			} else {
				d.Addresses = append(d.Addresses, text)
			}
		}
	}
	return d, nil
}

// shortAddress leaves the port away where it is the usual one.
func shortAddress(a netip.AddrPort) string {
	if a.Port() == config.DefaultPort {
		return a.Addr().String()
	}
	return a.String()
}

// longAddress adds the usual port to an address or name without one.
func longAddress(a string) string {
	if _, _, err := net.SplitHostPort(a); err == nil {
		return a
	}
	return net.JoinHostPort(strings.Trim(a, "[]"), strconv.Itoa(config.DefaultPort))
}

// Invite implements api.AccessBackend.
func (b *backend) Invite(ctx context.Context, name cluster.NodeID, d time.Duration, by string) (api.Invitation, error) {
	spec, _, err := b.present(ctx)
	switch {
	case err != nil:
		return api.Invitation{}, err
	case spec.Node(name) == nil:
		return api.Invitation{}, &api.Refusal{Text: "node " + string(name) + " is not in the cluster file", Hint: "add it there with baton edit, then invite it"}
	case name == b.a.self:
		return api.Invitation{}, &api.Refusal{Text: "this node is " + string(name) + " itself", Hint: "name the node that is to join"}
	}
	secret, until, err := b.a.access.invitations.make(name, d)
	if err != nil {
		return api.Invitation{}, err
	}
	b.deed("invited "+string(name)+" for "+d.String(), by)
	i := identity.Invitation{Pin: b.a.access.identity.Fingerprint(), Secret: secret}
	return api.Invitation{Address: shortAddress(apiAddress(spec, b.a.self)), Token: i.Format(), Until: until}, nil
}

// Welcome implements api.AccessBackend.
func (b *backend) Welcome(ctx context.Context, secret []byte, use bool) (api.Welcome, error) {
	spec, id, err := b.present(ctx)
	if err != nil {
		return api.Welcome{}, err
	}
	own, err := readKept("the cluster's configuration", spec.Text) // this node's key may be elsewhere
	if err != nil {
		return api.Welcome{}, err
	}
	name, err := b.a.access.invitations.find(secret, use)
	if err != nil {
		return api.Welcome{}, err
	}
	if use {
		b.deed(string(name)+" fetched the cluster's file and key by invitation", "node "+string(b.a.self))
	}
	return api.Welcome{Cluster: spec.Cluster, ID: id, Node: name, KeyFile: own.KeyFile, File: spec.Text, Key: b.Keys()}, nil
}

// Keys implements api.AccessBackend.
func (b *backend) Keys() []byte { return []byte(b.a.access.keys.present().Format()) }
