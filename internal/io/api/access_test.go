package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/io/identity"
)

// fakeAccess keeps tokens and invitations.
type fakeAccess struct {
	id      *identity.Identity
	access  sync.Mutex
	tokens  []cluster.Token
	by      []string
	invited []byte // the secret of the invitation for beta
	used    bool
	steps   []string
}

func (f *fakeAccess) Self() cluster.NodeID         { return "alpha" }
func (f *fakeAccess) Identity() *identity.Identity { return f.id }
func (f *fakeAccess) Tokens() []cluster.Token {
	f.access.Lock()
	defer f.access.Unlock()
	return slices.Clone(f.tokens)
}
func (f *fakeAccess) Invited(secret []byte) (cluster.NodeID, error) {
	if !bytes.Equal(secret, f.invited) {
		return "", errors.New("the invitation is not known")
	}
	return "beta", nil
}
func (f *fakeAccess) Propose(_ context.Context, p cluster.Part, by string) (MoveReply, error) {
	f.access.Lock()
	defer f.access.Unlock()
	f.by = append(f.by, by)
	if p.Token != nil {
		f.tokens = append(f.tokens, *p.Token)
	}
	if p.Untoken != nil {
		f.tokens = slices.DeleteFunc(f.tokens, func(t cluster.Token) bool { return t.Name == p.Untoken.Name })
	}
	return MoveReply{Done: true}, nil
}
func (f *fakeAccess) Doors(context.Context) (Doors, error) {
	return Doors{Cluster: "ledger", Authority: "sha256:00", Addresses: []string{"10.0.0.11"}}, nil
}
func (f *fakeAccess) Invite(_ context.Context, n cluster.NodeID, d time.Duration, _ string) (Invitation, error) {
	if n != "beta" {
		return Invitation{}, &Refusal{Text: "no such node", Hint: "add it"}
	}
	return Invitation{Address: "10.0.0.11", Token: d.String(), Until: time.Now().Add(d)}, nil
}
func (f *fakeAccess) Welcome(_ context.Context, _ []byte, use bool) (Welcome, error) {
	f.used = f.used || use
	return Welcome{Cluster: "ledger", Node: "beta", File: []byte("file"), Key: []byte("key")}, nil
}
func (f *fakeAccess) Keys() []byte { return []byte("keys") }
func (f *fakeAccess) StepKey(step string, _ []byte) error {
	f.steps = append(f.steps, step)
	return nil
}
func (f *fakeAccess) RotateKey(context.Context, []cluster.NodeID, string) (Rotation, error) {
	return Rotation{MoveReply: MoveReply{Done: true}, Key: "12345678"}, nil
}

var testKey = bytes.Repeat([]byte{7}, 32)

// serveTLS answers as an agent does, on a port of its own.
func serveTLS(t *testing.T, f *fake) (address string) {
	t.Helper()
	var err error
	if f.id, err = identity.New("alpha", [][]byte{testKey}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "baton-api-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := Listen(filepath.Join(dir, "s"), f)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", f.id.Server())
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepting.Go(func() {
				if t := c.(*tls.Conn); t.Handshake() == nil {
					s.Take(t)
				} else {
					c.Close()
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		accepting.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func (f *fake) token(name, role string, until time.Duration) string {
	secret := bytes.Repeat([]byte{byte(len(f.tokens) + 1)}, identity.SecretSize)
	t := cluster.Token{Name: name, Role: role, Hash: identity.Hash(secret), By: "root"}
	if until != 0 {
		t.Until = cluster.WallTime(time.Now().Add(until).UnixNano())
	}
	f.access.Lock()
	defer f.access.Unlock()
	f.tokens = append(f.tokens, t)
	return identity.FormatToken(secret)
}

func (f *fake) dial(t *testing.T, address, token string) *Client {
	t.Helper()
	c := DialTLS([]string{address}, identity.Pinned([]identity.Fingerprint{f.id.Fingerprint()}), token)
	t.Cleanup(c.Close)
	return c
}

// procedures are all that the schema has.
func procedures(visit func(path string, m protoreflect.MethodDescriptor)) {
	protoregistry.GlobalFiles.RangeFilesByPackage("baton.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for k := range s.Methods().Len() {
				m := s.Methods().Get(k)
				visit(fmt.Sprintf("/%s/%s", s.FullName(), m.Name()), m)
			}
		}
		return true
	})
}

// Every procedure of the schema has a rule, no rule is for something else, and what has effects takes more
// than to be let in.
func TestEveryProcedureHasARule(t *testing.T) {
	seen := make(map[string]bool)
	procedures(func(path string, m protoreflect.MethodDescriptor) {
		seen[path] = true
		level := m.Options().(*descriptorpb.MethodOptions).GetIdempotencyLevel()
		switch r := rules[path]; {
		case r == nobody:
			t.Errorf("no rule says who may call %s: add it to rules in access.go", path)
		case r == view && level != descriptorpb.MethodOptions_NO_SIDE_EFFECTS:
			t.Errorf("%s has effects, and every token may call it", path)
		}
	})
	if len(seen) < 10 {
		t.Fatalf("only %d procedures were found", len(seen))
	}
	for path := range rules {
		if !seen[path] {
			t.Errorf("the rule for %s is for nothing", path)
		}
	}
}

// Every procedure is called by everybody: who may not is refused before anything is done, and the others get
// to the handler.
func TestWhoMayCallWhat(t *testing.T) {
	f := newFake()
	address := serveTLS(t, f)
	f.invited = bytes.Repeat([]byte{200}, identity.SecretSize)
	tokens := map[role]string{
		nobody: "", view: f.token("looker", "view", 0), operate: f.token("mover", "operate", time.Hour), admin: f.token("boss", "admin", 0),
		guest: identity.Invitation{Pin: f.id.Fingerprint(), Secret: f.invited}.Format(),
	}
	other, err := identity.New("beta", [][]byte{testKey})
	if err != nil {
		t.Fatal(err)
	}
	client := func(r role) *http.Client {
		config := identity.Pinned([]identity.Fingerprint{f.id.Fingerprint()})
		if r == node {
			config = other.Client("alpha", identity.APIProtocols...)
		}
		return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}, Timeout: 10 * time.Second}
	}
	for _, r := range []role{nobody, view, operate, admin, node, guest} {
		h := client(r)
		call := func(path string) (status int, body string) {
			q, err := http.NewRequest("POST", "https://"+address+path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			q.Header.Set("Content-Type", "application/json")
			if tokens[r] != "" {
				q.Header.Set("Authorization", "Bearer "+tokens[r])
			}
			a, err := h.Do(q)
			if err != nil {
				t.Fatalf("%v calls %s: %v", r, path, err)
			}
			defer a.Body.Close()
			text, _ := io.ReadAll(io.LimitReader(a.Body, 1<<16))
			return a.StatusCode, string(text)
		}
		procedures(func(path string, m protoreflect.MethodDescriptor) {
			if m.IsStreamingServer() {
				return
			}
			status, body := call(path)
			refused := status == http.StatusUnauthorized || status == http.StatusForbidden
			if may := r.may(rules[path]); refused == may {
				t.Errorf("%v calls %s: %d %s", r, path, status, body)
			}
			if r == nobody && (status != http.StatusUnauthorized || strings.Contains(body, "alpha") || strings.Contains(body, "ledger")) {
				t.Errorf("a stranger is told: %d %s", status, body)
			}
		})
		want := http.StatusUnauthorized
		switch r {
		case view, operate, admin, node:
			want = http.StatusMethodNotAllowed // of POST
		case guest:
			want = http.StatusForbidden
		}
		if status, body := call("/healthz"); status != want {
			t.Errorf("%v asks for /healthz: %d %s", r, status, body)
		}
		h.CloseIdleConnections()
	}
}

func TestCredentials(t *testing.T) {
	f := newFake()
	address := serveTLS(t, f)
	good := f.token("ci", "view", 0)
	late := f.token("old", "view", -time.Minute)
	gone := f.token("gone", "admin", 0)
	f.access.Lock()
	f.tokens = f.tokens[:2]
	f.access.Unlock()
	if _, err := f.dial(t, address, good).Status(t.Context(), &batonv1.StatusRequest{}); err != nil {
		t.Error(err)
	}
	for token, says := range map[string]string{
		"":                     "a token is needed here",
		late:                   "the token old has expired, at ",
		gone:                   "it was revoked, or is another cluster's",
		good[:30]:              "cut short or changed",
		good + "x":             "cut short or changed",
		"hunter2":              "cut short or changed",
		good[:len(good)-1]:     "cut short or changed",
		strings.ToLower(good):  "cut short or changed",
		"Basic Zm9vOmJhcg==":   "cut short or changed",
		strings.Repeat("x", 9): "cut short or changed",
	} {
		_, err := f.dial(t, address, token).Status(t.Context(), &batonv1.StatusRequest{})
		x := Explain(err)
		if x.Code != connect.CodeUnauthenticated || !strings.Contains(x.Text, says) || x.Hint == "" || strings.Contains(x.Text, "\n") {
			t.Errorf("token %q: %+v", token, x)
		}
	}
	_, err := f.dial(t, address, good).Switch(t.Context(), &batonv1.SwitchRequest{Group: "orders"})
	if x := Explain(err); x.Code != connect.CodePermissionDenied || x.Text != "token ci has the role view, and this needs operate" {
		t.Errorf("a viewer moves: %+v", x)
	}
	mover := f.token("mover", "operate", 0)
	if _, err := f.dial(t, address, mover).Switch(t.Context(), &batonv1.SwitchRequest{Group: "orders"}); err != nil {
		t.Fatal(err)
	}
	if by := f.asked[len(f.asked)-1].By; by != "token mover" {
		t.Errorf("the journal has %q", by)
	}
	pin := identity.Fingerprint{1}
	_, err = DialTLS([]string{address}, identity.Pinned([]identity.Fingerprint{pin}), good).Status(t.Context(), &batonv1.StatusRequest{})
	if x := Explain(err); !strings.Contains(x.Text, f.id.Fingerprint().String()) || x.Unreached {
		t.Errorf("pinned to another cluster: %+v", x)
	}
}

// Who loses a right while the answer still flows is cut off.
func TestRevokedWhileWatching(t *testing.T) {
	f := newFake()
	address := serveTLS(t, f)
	stream, err := f.dial(t, address, f.token("ci", "view", 0)).Watch(t.Context(), &batonv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	f.access.Lock()
	f.tokens = nil
	f.access.Unlock()
	deadline := time.Now().Add(20 * time.Second)
	for stream.Receive() {
		if time.Now().After(deadline) {
			t.Fatal("a token that was revoked still watches")
		}
	}
}

// A node whose key was dropped is none, also over a connection that it had before.
func TestNodeLosesItsKey(t *testing.T) {
	f := newFake()
	address := serveTLS(t, f)
	beta, err := identity.New("beta", [][]byte{testKey})
	if err != nil {
		t.Fatal(err)
	}
	c := DialTLS([]string{address}, beta.Client("alpha", identity.APIProtocols...), "")
	defer c.Close()
	if r, err := c.Keys.GetKeys(t.Context(), &batonv1.GetKeysRequest{}); err != nil || string(r.Keys) != "keys" {
		t.Fatal(r, err)
	}
	if err := f.id.Rekey([][]byte{bytes.Repeat([]byte{9}, 32)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Keys.GetKeys(t.Context(), &batonv1.GetKeysRequest{}); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("with a key that was dropped: %v", err)
	}
}

func TestTokensAreMadeAndRevoked(t *testing.T) {
	f := newFake()
	_, c := serve(t, f)
	r, err := c.Access.AddToken(t.Context(), &batonv1.AddTokenRequest{Name: "ci", Role: "view", For: durationpb.New(time.Hour)})
	if err != nil || !r.Done || r.Authority == "" || len(r.Addresses) != 1 {
		t.Fatal(r, err)
	}
	secret, err := identity.ParseToken(r.Token)
	if err != nil {
		t.Fatal(err)
	}
	if k := f.tokens[0]; bytes.Contains(k.Hash, secret) || !bytes.Equal(k.Hash, identity.Hash(secret)) || !strings.HasSuffix(k.By, " on alpha") || f.by[0] != k.By {
		t.Errorf("kept: %+v, by %v", k, f.by)
	}
	l, err := c.Access.ListTokens(t.Context(), &batonv1.ListTokensRequest{})
	if err != nil || len(l.Tokens) != 1 || l.Tokens[0].Name != "ci" || l.Tokens[0].Until == nil || l.Tokens[0].Expired {
		t.Errorf("%v, %v", l, err)
	}
	if _, err := c.Access.AddToken(t.Context(), &batonv1.AddTokenRequest{Name: "ci", Role: "admin"}); connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("the same name: %v", err)
	}
	for _, bad := range []*batonv1.AddTokenRequest{
		{Name: "", Role: "view"}, {Name: "A b", Role: "view"}, {Name: strings.Repeat("x", 64), Role: "view"}, {Name: "x", Role: "node"},
		{Name: "x", Role: "root"}, {Name: "x", Role: "view", For: durationpb.New(-1)}, {Name: "-x", Role: "view"},
	} {
		if _, err := c.Access.AddToken(t.Context(), bad); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := c.Access.RevokeToken(t.Context(), &batonv1.RevokeTokenRequest{Name: "no"}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Error(err)
	}
	if r, err := c.Access.RevokeToken(t.Context(), &batonv1.RevokeTokenRequest{Name: "ci"}); err != nil || !r.Done || len(f.Tokens()) != 0 {
		t.Error(r, err)
	}
}

func TestInvitation(t *testing.T) {
	f := newFake()
	address := serveTLS(t, f)
	f.invited = bytes.Repeat([]byte{200}, identity.SecretSize)
	c := f.dial(t, address, identity.Invitation{Pin: f.id.Fingerprint(), Secret: f.invited}.Format())
	_, err := c.Join.Fetch(t.Context(), &batonv1.FetchRequest{Node: "gamma"})
	if x := Explain(err); !strings.Contains(x.Text, "the invitation is for beta, and this host is gamma") || x.Hint == "" || f.used {
		t.Errorf("another host: %+v", x)
	}
	l, err := c.Join.Look(t.Context(), &batonv1.LookRequest{Node: "beta"})
	if err != nil || l.Cluster != "ledger" || !bytes.Equal(l.FileHash, identity.Hash([]byte("file"))) || f.used {
		t.Errorf("a look: %v, %v, used %v", l, err, f.used)
	}
	if r, err := c.Join.Fetch(t.Context(), &batonv1.FetchRequest{Node: "beta"}); err != nil || string(r.Key) != "key" || !f.used {
		t.Errorf("%v, %v, used %v", r, err, f.used)
	}
	wrong := f.dial(t, address, identity.Invitation{Pin: f.id.Fingerprint(), Secret: bytes.Repeat([]byte{1}, identity.SecretSize)}.Format())
	_, err = wrong.Join.Look(t.Context(), &batonv1.LookRequest{Node: "beta"})
	if x := Explain(err); x.Code != connect.CodeUnauthenticated || !strings.Contains(x.Text, "not known") || x.Hint == "" {
		t.Errorf("another secret: %+v", x)
	}
}

// Callers who say nothing, or never end a request, are left; a request that is too large is refused.
func TestSlowAndLarge(t *testing.T) {
	f := newFake()
	address := serveTLS(t, f)
	config := identity.Pinned([]identity.Fingerprint{f.id.Fingerprint()})
	config.NextProtos = []string{"http/1.1"}
	for name, say := range map[string]string{
		"a request that never ends": "GET /healthz HTTP/1.1\r\nHost: x\r\nX: ",
		"a large header":            "GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 4*maxHeader) + "\r\n\r\n",
		"no HTTP":                   "\x00\x01\x02\r\n\r\n",
		"no credential":             "POST /baton.v1.Baton/Switch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n{",
	} {
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(3 * answerTimeout))
		_, _ = io.WriteString(conn, say)
		answer, err := io.ReadAll(conn)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%s: still open, answered %q", name, answer)
		}
		if strings.Contains(string(answer), " 200 ") {
			t.Errorf("%s: %q", name, answer)
		}
		conn.Close()
	}
	token := f.token("ci", "operate", 0)
	_, err := f.dial(t, address, token).Switch(t.Context(), &batonv1.SwitchRequest{Group: strings.Repeat("x", 2*maxRequest)})
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("a large request: %v", err)
	}
}

// Who belongs to the cluster is told to nodes only, which prove by a certificate who they are.
func TestListMembers(t *testing.T) {
	f := newFake()
	f.roll = Roll{ID: "ledger-1f2e", Applied: 1 << 40, Revision: 7, Nodes: []cluster.NodeID{"alpha", "beta"},
		Members: []Member{{"alpha", 1<<63 + 5}, {"beta", 6}}}
	address := serveTLS(t, f)
	ask := func(as cluster.NodeID, key []byte, of cluster.NodeID) (*Roll, error) {
		id, err := identity.New(as, [][]byte{key})
		if err != nil {
			t.Fatal(err)
		}
		c := DialTLS([]string{address}, id.Client(of, identity.APIProtocols...), "")
		defer c.Close()
		r, err := c.Members.ListMembers(t.Context(), &batonv1.ListMembersRequest{})
		if err != nil {
			return nil, err
		}
		return RollFrom(r), nil
	}
	if r, err := ask("delta", testKey, "alpha"); err != nil || !reflect.DeepEqual(*r, f.roll) {
		t.Errorf("a node is told %+v, %v", r, err)
	}
	if r, err := ask("delta", testKey, "beta"); err == nil {
		t.Errorf("alpha answers in the name of beta: %+v", r)
	}
	if r, err := ask("delta", bytes.Repeat([]byte{8}, 32), "alpha"); !errors.Is(err, identity.ErrStranger) {
		t.Errorf("a cluster with another key: %+v, %v", r, err)
	}
	_, err := f.dial(t, address, f.token("root", "admin", 0)).Members.ListMembers(t.Context(), &batonv1.ListMembersRequest{})
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("an administrator's token: %v", err)
	}
}
