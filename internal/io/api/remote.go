package api

import (
	"context"
	"crypto/rand"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/io/identity"
)

// AccessBackend is what a Server asks about who may use it, who joins, and the cluster's key.
type AccessBackend interface {
	// Self names this node.
	Self() cluster.NodeID
	// Identity proves in TLS who this node is; nil: it never calls Take.
	Identity() *identity.Identity
	// Tokens returns the tokens by the log of this node. It never waits; nobody changes what it returns.
	Tokens() []cluster.Token
	// Invited returns for which node an invitation is, by its secret; or why it is not good. It never waits.
	Invited(secret []byte) (cluster.NodeID, error)
	// Propose has a part put into the log, and returns what became of it, as Backend.Move does.
	Propose(ctx context.Context, part cluster.Part, by string) (MoveReply, error)
	// Doors tells how this cluster is reached from afar.
	Doors(ctx context.Context) (Doors, error)
	// Invite makes an invitation. An error that is a *Refusal tells why not.
	Invite(ctx context.Context, node cluster.NodeID, d time.Duration, by string) (Invitation, error)
	// Welcome returns what an invitation is for. With use, the invitation is used up.
	Welcome(ctx context.Context, secret []byte, use bool) (Welcome, error)
	// Keys returns the text of this node's key file.
	Keys() []byte
	// StepKey takes one step of a change of the key here: "accept", "seal" or "drop".
	StepKey(step string, key []byte) error
	// RotateKey gives the cluster a new key, as far as it can.
	RotateKey(ctx context.Context, without []cluster.NodeID, by string) (Rotation, error)
}

// Refusal is an error that tells its reason in one sentence, and what to do.
type Refusal struct {
	Text  string
	Hint  string
	Usage bool // the request itself is wrong
}

func (r *Refusal) Error() string { return r.Text }

// Doors tell how a cluster is reached from afar.
type Doors struct {
	Cluster   string
	Authority string   // fingerprint
	PEM       string   // its certificate
	Addresses []string // of all nodes, this one first
}

// Invitation is what the host that joins needs.
type Invitation struct {
	Address string
	Token   string
	Until   time.Time
}

// Welcome is what a host that joins gets.
type Welcome struct {
	Cluster string
	ID      string // of the cluster; empty while it forms
	Node    cluster.NodeID
	KeyFile string
	File    []byte
	Key     []byte
}

// Rotation is what became of a change of the key.
type Rotation struct {
	MoveReply
	Did       []string // step by step
	Key       string   // name of the new one
	Authority string   // its fingerprint
}

// Limits of tokens and invitations.
const (
	maxName       = 63
	inviteFor     = 15 * time.Minute
	inviteLongest = 24 * time.Hour
	rotateTimeout = time.Minute
)

var tokenName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// accessHandlers implements the services Access, Join and Keys.
type accessHandlers struct{ backend Backend }

// refused says of an error of the backend what it means for the asker.
func refused(what string, err error) error {
	var r *Refusal
	if errors.As(err, &r) {
		return failure(connect.CodeFailedPrecondition, r.Hint, "%s", r.Text)
	}
	return failed(what, err)
}

func (h *accessHandlers) ListTokens(context.Context, *batonv1.ListTokensRequest) (*batonv1.ListTokensResponse, error) {
	r := &batonv1.ListTokensResponse{}
	for _, t := range h.backend.Tokens() {
		r.Tokens = append(r.Tokens, &batonv1.Token{Name: t.Name, Role: t.Role, By: t.By, Until: stamp(t.Until), Expired: Expired(&t, time.Now())})
	}
	slices.SortFunc(r.Tokens, func(a, b *batonv1.Token) int { return strings.Compare(a.Name, b.Name) })
	return r, nil
}

func (h *accessHandlers) AddToken(ctx context.Context, r *batonv1.AddTokenRequest) (*batonv1.AddTokenResponse, error) {
	switch {
	case len(r.Name) > maxName || !tokenName.MatchString(r.Name):
		return nil, failure(connect.CodeInvalidArgument, "name it for who uses it: baton token add ci --role view", "a token's name has 1 to %d lower-case letters, digits, dots and dashes, not %q", maxName, r.Name)
	case roleOf(r.Role) == nobody:
		return nil, failure(connect.CodeInvalidArgument, "--role view, operate or admin", "there is no role %q", r.Role)
	case r.For != nil && r.For.AsDuration() <= 0:
		return nil, failure(connect.CodeInvalidArgument, "--for 720h", "a token for %v would never be valid", r.For.AsDuration())
	}
	if slices.ContainsFunc(h.backend.Tokens(), func(t cluster.Token) bool { return t.Name == r.Name }) {
		return nil, failure(connect.CodeAlreadyExists, "choose another name, or baton token revoke "+r.Name, "there is a token %s already", r.Name)
	}
	doors, err := h.backend.Doors(ctx)
	if err != nil {
		return nil, failed("add a token", err)
	}
	secret, err := identity.NewSecret(rand.Reader)
	if err != nil {
		return nil, failed("add a token", err)
	}
	by := By(ctx)
	t := &cluster.Token{Name: r.Name, Role: r.Role, Hash: identity.Hash(secret), By: by}
	if r.For != nil {
		t.Until = cluster.WallTime(time.Now().Add(r.For.AsDuration()).UnixNano())
	}
	m, err := h.backend.Propose(ctx, cluster.Part{Token: t}, by)
	switch {
	case err != nil:
		return nil, failed("add a token", err)
	case !m.Done:
		return &batonv1.AddTokenResponse{Text: m.Text, Hint: m.Hint}, nil
	}
	return &batonv1.AddTokenResponse{Done: true, Text: "token " + r.Name + " is made, with the role " + r.Role, Token: identity.FormatToken(secret),
		Authority: doors.Authority, Addresses: doors.Addresses, Cluster: doors.Cluster, AuthorityPem: doors.PEM}, nil
}

func (h *accessHandlers) RevokeToken(ctx context.Context, r *batonv1.RevokeTokenRequest) (*batonv1.RevokeTokenResponse, error) {
	if !slices.ContainsFunc(h.backend.Tokens(), func(t cluster.Token) bool { return t.Name == r.Name }) {
		return nil, failure(connect.CodeNotFound, "baton token list", "there is no token %q", r.Name)
	}
	m, err := h.backend.Propose(ctx, cluster.Part{Untoken: &cluster.Untoken{Name: r.Name}}, By(ctx))
	switch {
	case err != nil:
		return nil, failed("revoke a token", err)
	case !m.Done:
		return &batonv1.RevokeTokenResponse{Text: m.Text, Hint: m.Hint}, nil
	}
	return &batonv1.RevokeTokenResponse{Done: true, Text: "token " + r.Name + " is revoked"}, nil
}

func (h *accessHandlers) Invite(ctx context.Context, r *batonv1.InviteRequest) (*batonv1.InviteResponse, error) {
	d := inviteFor
	if r.For != nil {
		d = r.For.AsDuration()
	}
	if d <= 0 || d > inviteLongest {
		return nil, failure(connect.CodeInvalidArgument, "--for 15m", "an invitation is for at most %v, not %v", inviteLongest, d)
	}
	i, err := h.backend.Invite(ctx, cluster.NodeID(r.Node), d, By(ctx))
	if err != nil {
		return nil, refused("invite "+r.Node, err)
	}
	return &batonv1.InviteResponse{Address: i.Address, Token: i.Token, Until: timestamppb.New(i.Until)}, nil
}

// welcome returns what the asker's invitation is for, if it is for the node that it says it is.
func (h *accessHandlers) welcome(ctx context.Context, name string, use bool) (Welcome, error) {
	p := peerOf(ctx)
	if cluster.NodeID(name) != p.invited {
		return Welcome{}, failure(connect.CodeFailedPrecondition, "run it on "+string(p.invited)+"; or with --node "+string(p.invited)+" if that is what the cluster file calls this host; or baton invite "+name,
			"the invitation is for %s, and this host is %s", p.invited, name)
	}
	w, err := h.backend.Welcome(ctx, p.secret, use)
	if err != nil {
		return Welcome{}, refused("join", err)
	}
	return w, nil
}

func (h *accessHandlers) Look(ctx context.Context, r *batonv1.LookRequest) (*batonv1.LookResponse, error) {
	w, err := h.welcome(ctx, r.Node, false)
	if err != nil {
		return nil, err
	}
	return &batonv1.LookResponse{Cluster: w.Cluster, Id: w.ID, Node: string(w.Node), KeyFile: w.KeyFile, Time: timestamppb.Now(),
		FileHash: identity.Hash(w.File), KeyHash: identity.Hash(w.Key)}, nil
}

func (h *accessHandlers) Fetch(ctx context.Context, r *batonv1.FetchRequest) (*batonv1.FetchResponse, error) {
	w, err := h.welcome(ctx, r.Node, true)
	if err != nil {
		return nil, err
	}
	return &batonv1.FetchResponse{File: w.File, Key: w.Key}, nil
}

func (h *accessHandlers) GetKeys(context.Context, *batonv1.GetKeysRequest) (*batonv1.GetKeysResponse, error) {
	return &batonv1.GetKeysResponse{Keys: h.backend.Keys()}, nil
}

func (h *accessHandlers) StepKey(_ context.Context, r *batonv1.StepKeyRequest) (*batonv1.StepKeyResponse, error) {
	if err := h.backend.StepKey(r.Step, r.Key); err != nil {
		return nil, failure(connect.CodeFailedPrecondition, "", "%s the new key: %w", r.Step, err)
	}
	return &batonv1.StepKeyResponse{}, nil
}

func (h *accessHandlers) RotateKey(ctx context.Context, r *batonv1.RotateKeyRequest) (*batonv1.RotateKeyResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, rotateTimeout)
	defer cancel()
	without := make([]cluster.NodeID, len(r.Without))
	for i, n := range r.Without {
		without[i] = cluster.NodeID(n)
	}
	x, err := h.backend.RotateKey(ctx, without, By(ctx))
	if err != nil {
		return nil, refused("change the key", err)
	}
	return &batonv1.RotateKeyResponse{Done: x.Done, Text: x.Text, Hint: x.Hint, Did: x.Did, Key: x.Key, Authority: x.Authority}, nil
}
