package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	batonv1 "baton/api/v1"
	"baton/api/v1/batonv1connect"
	"baton/internal/core/cluster"
)

// childVariable makes this test program a client: it asks for the status on the socket named there.
const childVariable = "BATON_API_TEST_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(childVariable); socket != "" {
		os.Exit(askAsChild(socket))
	}
	os.Exit(m.Run())
}

func askAsChild(socket string) int {
	c := Dial(socket)
	s, err := c.Status(context.Background(), &batonv1.StatusRequest{})
	if err == nil {
		fmt.Println("answered by", s.Node)
		return 0
	}
	t := Explain(err)
	fmt.Printf("unreached %v, code %v, text %q, hint %q\n", t.Unreached, t.Code, t.Text, t.Hint)
	// A plain path is refused as well.
	client := &http.Client{Transport: c.transport, Timeout: 10 * time.Second}
	if r, err := client.Get("http://baton/healthz"); err == nil {
		fmt.Println("healthz", r.StatusCode)
	}
	return 0
}

// fake is a cluster that does as it is told.
type fake struct {
	fakeConfig
	fakeAccess
	mu     sync.Mutex
	view   cluster.Overview
	lines  []cluster.Line
	asked  []MoveRequest
	acted  []ActRequest
	answer func(context.Context, MoveRequest) (MoveReply, error)
	roll   Roll
	err    error

	foreseen func(string) (*batonv1.ForeseeResponse, error)
}

func (f *fake) Foresee(_ context.Context, whatIf string) (*batonv1.ForeseeResponse, error) {
	return f.foreseen(whatIf)
}

func (f *fake) Overview(context.Context) (*cluster.Overview, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.view
	o.Groups = slices.Clone(o.Groups)
	return &o, f.err
}

func (f *fake) Move(ctx context.Context, r MoveRequest) (MoveReply, error) {
	f.mu.Lock()
	f.asked = append(f.asked, r)
	answer := f.answer
	f.mu.Unlock()
	return answer(ctx, r)
}

func (f *fake) Act(ctx context.Context, r ActRequest) (MoveReply, error) {
	f.mu.Lock()
	f.acted = append(f.acted, r)
	answer := f.answer
	f.mu.Unlock()
	return answer(ctx, MoveRequest{})
}

func (f *fake) Form(ctx context.Context, _ []cluster.NodeID, _ string) (MoveReply, error) {
	return f.answer(ctx, MoveRequest{})
}

func (f *fake) Roll(context.Context) (*Roll, error) { return &f.roll, f.err }

func (f *fake) History(context.Context) ([]cluster.Line, error) { return f.lines, f.err }
func (f *fake) Version() string                                 { return "9.9" }

func (f *fake) change(change func(*cluster.Overview)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.view)
}

func newFake() *fake {
	return &fake{
		view: cluster.Overview{Cluster: "ledger", Node: "alpha", Quorum: true, Coordinator: "beta",
			Groups: []cluster.GroupView{{ID: "billing", Owner: "beta", Epoch: 2, Serving: true}, {ID: "orders", Owner: "alpha", Epoch: 7, Serving: true}, {ID: "reports", Owner: "alpha", Epoch: 1}}},
		lines: []cluster.Line{
			{Index: 4, Wall: 1, Did: []string{"assign orders to alpha as epoch 7"}, Groups: []cluster.GroupID{"orders"}},
			{Index: 5, Wall: 2, Did: []string{"assign billing to beta as epoch 2"}, Groups: []cluster.GroupID{"billing"}},
			{Index: 8, Wall: 3, Dropped: []string{"assign orders to beta as epoch 7: it is at epoch 7 already"}},
		},
		answer: func(_ context.Context, r MoveRequest) (MoveReply, error) {
			return MoveReply{Done: true, Text: "orders serves on beta, epoch 8", To: "beta"}, nil
		},
	}
}

func serve(t *testing.T, b Backend) (socket string, c *Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "baton-api-") // short, as a socket's path must be; open to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "run", "agent.sock")
	s, err := Listen(socket, b)
	if err != nil {
		t.Fatal(err)
	}
	c = Dial(socket)
	t.Cleanup(func() {
		c.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(socket); err == nil {
			t.Error("the socket is still there after Close")
		}
	})
	return socket, c
}

// fill sets everything in a value to something that is not its zero.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8: // an enumeration
		v.SetUint(1)
	case reflect.Uint64:
		v.SetUint(7)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(2 * time.Second))
	default:
		panic(v.Kind())
	}
}

// unset names the fields that nothing was put into.
func unset(m protoreflect.Message, at string) (out []string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		name := at + "." + string(f.Name())
		v := m.Get(f)
		switch {
		case !m.Has(f):
			out = append(out, name)
		case f.IsList() && f.Message() != nil:
			out = append(out, unset(v.List().Get(0).Message(), name)...)
		case !f.IsList() && f.Message() != nil && f.Message().ParentFile().Package() == "baton.v1":
			out = append(out, unset(v.Message(), name)...)
		}
	}
	return out
}

// Everything that the overview and a line know reaches the schema: a field that is added to the schema and
// not filled shows here.
func TestNothingIsLeftOut(t *testing.T) {
	var o cluster.Overview
	fill(reflect.ValueOf(&o).Elem())
	s := statusOf(&o, time.Now(), "1")
	s.Nodes[0].Faults[0].By = "x" // which askFaulty fills in
	if left := unset(s.ProtoReflect(), "status"); left != nil {
		t.Errorf("not filled: %v", left)
	}
	var l cluster.Line
	fill(reflect.ValueOf(&l).Elem())
	if left := unset(lineOf(&l).ProtoReflect(), "line"); left != nil {
		t.Errorf("not filled: %v", left)
	}
}

func TestCurl(t *testing.T) {
	_, c := serve(t, newFake())
	client := &http.Client{Transport: c.transport}
	r, err := client.Get("http://baton/baton.v1.Baton/Status?encoding=json&message=%7B%7D")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var s struct {
		Cluster string
		Groups  []struct{ Name, Owner, Epoch string }
	}
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil || r.StatusCode != 200 {
		t.Fatalf("%s: %v", r.Status, err)
	}
	if s.Cluster != "ledger" || len(s.Groups) != 3 || s.Groups[1].Epoch != "7" {
		t.Errorf("got %+v", s)
	}
	if r, err := client.Get("http://baton/baton.v1.Baton/Switch?encoding=json&message=%7B%7D"); err != nil || r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET of what changes something: %v, %v; it must not be allowed", r.Status, err)
	}
}

func TestGRPC(t *testing.T) {
	socket, _ := serve(t, newFake())
	transport := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	transport.Protocols.SetUnencryptedHTTP2(true)
	c := batonv1connect.NewBatonClient(&http.Client{Transport: transport}, "http://baton", connect.WithGRPC())
	v, err := c.Version(t.Context(), &batonv1.VersionRequest{})
	if err != nil || v.Version != "9.9" {
		t.Errorf("got %v, %v", v, err)
	}
}

func TestPlainPaths(t *testing.T) {
	f := newFake()
	_, c := serve(t, f)
	client := &http.Client{Transport: c.transport}
	get := func(path string) (int, string) {
		r, err := client.Get("http://baton" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(b)
	}
	expect := func(path string, code int, text string) {
		t.Helper()
		if got, body := get(path); got != code || !strings.Contains(body, text) {
			t.Errorf("%s: %d %s; want %d with %q", path, got, body, code, text)
		}
	}
	expect("/healthz", 200, "the agent runs")
	expect("/readyz", 200, "majority")
	expect("/v1/groups/orders/primary", 200, `"epoch":7`)
	expect("/v1/groups/reports/primary", 503, "does not yet")
	expect("/v1/groups/billing/primary", 503, "beta owns it")
	expect("/v1/groups/nothing/primary", 404, "no such group")
	f.change(func(o *cluster.Overview) { o.Quorum = false })
	expect("/readyz", 503, "no majority")
	expect("/v1/groups/orders/primary", 200, "this node serves")
	f.change(func(o *cluster.Overview) { o.Forming, o.Groups = "beta is not heard", nil })
	expect("/readyz", 503, "beta is not heard")
	expect("/v1/groups/orders/primary", 503, "forms")
	expect("/healthz", 200, "runs")
	f.mu.Lock()
	f.err = errors.New("stopping")
	f.mu.Unlock()
	expect("/healthz", 503, "stopping")
}

func TestWatch(t *testing.T) {
	f := newFake()
	_, c := serve(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	begin := time.Now() // before the first is sent
	w, err := c.Watch(ctx, &batonv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	next := func() uint64 {
		t.Helper()
		if !w.Receive() {
			t.Fatal(w.Err())
		}
		return w.Msg().Groups[1].Epoch
	}
	if e := next(); e != 7 {
		t.Fatalf("at once: epoch %d", e)
	}
	// Only ages differ: nothing is sent before the second is over.
	f.change(func(o *cluster.Overview) { o.Applied++ })
	if e := next(); e != 7 || time.Since(begin) < maxInterval/2 {
		t.Errorf("after %v came epoch %d; what has not changed is sent each second", time.Since(begin), e)
	}
	f.change(func(o *cluster.Overview) { o.Groups[1].Epoch = 8 })
	for e := next(); e != 8; e = next() {
		t.Logf("still epoch %d", e)
	}
}

func TestWatchersAreBounded(t *testing.T) {
	_, c := serve(t, newFake())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range maxWatchers {
		w, err := c.Watch(ctx, &batonv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if !w.Receive() {
			t.Fatal(w.Err())
		}
	}
	w, err := c.Watch(ctx, &batonv1.WatchRequest{})
	if err == nil {
		w.Receive()
		err = w.Err()
	}
	if code := connect.CodeOf(err); code != connect.CodeResourceExhausted {
		t.Errorf("one more watch than allowed: %v", err)
	}
}

func TestMove(t *testing.T) {
	f := newFake()
	_, c := serve(t, f)
	r, err := c.Switch(t.Context(), &batonv1.SwitchRequest{Group: "orders", To: "beta"})
	if err != nil || !r.Done || r.Text != "orders serves on beta, epoch 8" || r.To != "beta" {
		t.Fatalf("got %v, %v", r, err)
	}
	do := MoveRequest{Group: "orders", To: "beta", By: "root (uid 0) on alpha"}
	ask := do
	ask.DryRun = true
	if want := []MoveRequest{ask, do}; !slices.Equal(f.asked, want) {
		t.Errorf("the backend was asked %+v, want %+v", f.asked, want)
	}
	// Without a node named, the one that the dry run found is asked for.
	if r, err = c.Switch(t.Context(), &batonv1.SwitchRequest{Group: "orders"}); err != nil || r.To != "beta" || f.asked[2].To != "" || f.asked[3] != do {
		t.Errorf("got %v, %v, asked %+v", r, err, f.asked[2:])
	}
	if b, err := c.Failback(t.Context(), &batonv1.FailbackRequest{Group: "orders"}); err != nil || b.To != "beta" || !f.asked[5].Failback || f.asked[5].To != "" {
		t.Errorf("failback: %v, %v, asked %+v", b, err, f.asked[4:])
	}
	if _, err = c.Switch(t.Context(), &batonv1.SwitchRequest{}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("no group: %v", err)
	}
}

func TestMoveWithoutWaiting(t *testing.T) {
	f := newFake()
	_, c := serve(t, f)
	f.answer = func(ctx context.Context, r MoveRequest) (MoveReply, error) {
		if r.DryRun {
			return MoveReply{Done: true, To: "beta"}, nil
		}
		<-ctx.Done() // it takes long
		return MoveReply{}, ctx.Err()
	}
	r, err := c.Switch(t.Context(), &batonv1.SwitchRequest{Group: "orders", NoWait: true})
	if err != nil || r.Done || !r.UnderWay || r.To != "beta" || r.Text != "the move of orders to beta is under way" {
		t.Errorf("got %v, %v", r, err)
	}
	dry, err := c.Switch(t.Context(), &batonv1.SwitchRequest{Group: "orders", DryRun: true})
	if err != nil || !dry.Done || dry.Text != "orders would move to beta" {
		t.Errorf("got %v, %v", dry, err)
	}
	f.answer = func(context.Context, MoveRequest) (MoveReply, error) {
		return MoveReply{Text: "no other node can take orders now", Hint: "baton explain orders"}, nil
	}
	before := len(f.asked)
	r, err = c.Switch(t.Context(), &batonv1.SwitchRequest{Group: "orders", NoWait: true})
	if err != nil || r.Done || r.UnderWay || r.Hint != "baton explain orders" {
		t.Errorf("got %v, %v", r, err)
	}
	if len(f.asked) != before+1 {
		t.Errorf("a move that would be refused was asked for: %+v", f.asked[before:])
	}
}

func TestExplainAndHistory(t *testing.T) {
	_, c := serve(t, newFake())
	r, err := c.Explain(t.Context(), &batonv1.ExplainRequest{Subject: "orders"})
	if err != nil || r.Group.GetName() != "orders" || r.Status.GetNode() != "alpha" || len(r.History) != 2 || r.History[1].Index != 8 {
		t.Errorf("got %v, %v; want the group and its two lines, the dropped one too", r, err)
	}
	for _, subject := range []string{"5", "#5"} {
		if r, err = c.Explain(t.Context(), &batonv1.ExplainRequest{Subject: subject}); err != nil || r.Line.GetIndex() != 5 || r.Group != nil {
			t.Errorf("%s: got %v, %v", subject, r, err)
		}
	}
	h, err := c.History(t.Context(), &batonv1.HistoryRequest{Limit: 2})
	if err != nil || len(h.Lines) != 2 || h.Lines[0].Index != 5 || h.Lines[1].Index != 8 {
		t.Errorf("the newest two, oldest first: got %v, %v", h, err)
	}
	for subject, want := range map[string]Trouble{
		"6":     {Code: connect.CodeNotFound, Text: "the history has no entry 6: it reaches from 4 to 8, and not every number has one", Hint: "baton history lists the entries"},
		"order": {Code: connect.CodeNotFound, Text: `there is no group "order"`, Hint: "did you mean orders? the groups are: billing, orders, reports"},
		"":      {Code: connect.CodeInvalidArgument, Text: "nothing is named to explain", Hint: "baton explain GROUP, or a number that baton history shows"},
	} {
		_, err := c.Explain(t.Context(), &batonv1.ExplainRequest{Subject: subject})
		if err == nil {
			t.Errorf("%q is explained", subject)
		} else if got := Explain(err); got != want {
			t.Errorf("%q: got %+v, want %+v", subject, got, want)
		}
	}
}

func TestErrorsOfTheBackend(t *testing.T) {
	f := newFake()
	f.err = errors.New("the agent is stopping")
	_, c := serve(t, f)
	_, err := c.Status(t.Context(), &batonv1.StatusRequest{})
	if got := Explain(err); got.Unreached || got.Code != connect.CodeUnavailable || got.Text != "look at the cluster: the agent is stopping" || got.Hint == "" {
		t.Errorf("got %+v", got)
	}
}

func TestUnreached(t *testing.T) {
	c := Dial(filepath.Join(t.TempDir(), "none.sock"))
	_, err := c.Status(t.Context(), &batonv1.StatusRequest{})
	if got := Explain(err); !got.Unreached || got.Text != "no agent listens there" {
		t.Errorf("got %+v from %v", got, err)
	}
	// A socket without a listener is what an agent leaves that was killed.
	_, err = Dial(dead(t)).Status(t.Context(), &batonv1.StatusRequest{})
	if got := Explain(err); !got.Unreached || got.Text != "no agent listens there" {
		t.Errorf("got %+v from %v", got, err)
	}
}

// dead makes a socket on which nobody listens any more.
func dead(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	return path
}

func TestSocket(t *testing.T) {
	path := dead(t)
	s, err := Listen(path, newFake())
	if err != nil {
		t.Fatalf("the socket of a dead agent is not replaced: %v", err)
	}
	defer s.Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
	if second, err := Listen(path, newFake()); err == nil {
		second.Close()
		t.Error("a second agent took the socket of one that lives")
	} else if want := fmt.Sprintf("process %d of root (uid 0) listens there already", os.Getpid()); !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want %q in it", err, want)
	}
	if _, err := Dial(path).Version(t.Context(), &batonv1.VersionRequest{}); err != nil {
		t.Errorf("the first agent does not answer any more: %v", err)
	}
	file := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Listen(file, newFake()); err == nil {
		s.Close()
		t.Error("a file was replaced by a socket")
	} else if _, err := os.Stat(file); err != nil {
		t.Errorf("the file is gone: %v", err)
	}
}

// as runs this program as a client with another user's rights.
func as(t *testing.T, socket string, cred *syscall.Credential) string {
	t.Helper()
	// Others can't read the directory in which the test program lies.
	exe := filepath.Join(filepath.Dir(socket), "client")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Dir = "/"
	cmd.Env = []string{childVariable + "=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("client: %v\n%s", err, out)
	}
	return string(out)
}

func TestOthersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	socket, _ := serve(t, newFake())
	if got := as(t, socket, nobody); !strings.Contains(got, `unreached false, code permission_denied, text "this user may not connect to the agent"`) {
		t.Errorf("by the socket's mode: %s", got)
	}
	// Whoever loosens the mode does not open the API.
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	got := as(t, socket, nobody)
	for _, want := range []string{"code permission_denied", "may not use this agent: root and members of group baton may", "usermod -aG baton USER", "healthz 403"} {
		if !strings.Contains(got, want) {
			t.Errorf("by the kernel's word: %s; want %q in it", got, want)
		}
	}
	if got := as(t, socket, &syscall.Credential{}); got != "answered by alpha\n" {
		t.Errorf("root: %s", got)
	}
}

func TestPeerGroups(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	os.Chmod(filepath.Dir(path), 0o755)
	os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755)
	os.Chmod(path, 0o666)
	groups := make([]uint32, 100) // more than the first attempt has room for
	for i := range groups {
		groups[i] = uint32(70000 + i)
	}
	peers := make(chan peer, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			peers <- peer{err: err}
			return
		}
		peers <- askPeer(c)
		l.Close() // before the peer tries again
		c.Close()
	}()
	as(t, path, &syscall.Credential{Uid: 65534, Gid: 65533, Groups: groups})
	p := <-peers
	if p.err != nil || p.uid != 65534 || p.groups[0] != 65533 || !slices.Contains(p.groups, 70099) {
		t.Fatalf("got %+v", p)
	}
	of := func(gid uint32, exists bool) func() (uint32, bool) {
		return func() (uint32, bool) { return gid, exists }
	}
	if why := p.refusal(of(70042, true)); why != "" {
		t.Errorf("a member of the group is refused: %s", why)
	}
	if p.refusal(of(70100, true)) == "" || p.refusal(of(70042, false)) == "" {
		t.Error("somebody else is let in")
	}
	if (peer{err: errors.New("no answer")}).refusal(of(70042, true)) == "" {
		t.Error("an unknown peer is let in")
	}
}
