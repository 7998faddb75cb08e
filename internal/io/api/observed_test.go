package api

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

// teller is a node whose one resource prints what it is told to.
type teller struct {
	*fake
	peers map[cluster.NodeID]func() *Client

	mu      sync.Mutex
	lines   []OutputLine
	changed chan struct{}
	asked   []OutputQuery
}

func newTeller(self cluster.NodeID) *teller {
	t := &teller{fake: newFake(), changed: make(chan struct{}), peers: make(map[cluster.NodeID]func() *Client)}
	t.view.Node = self
	t.view.Groups = []cluster.GroupView{{ID: "orders", Owner: "beta", Serving: true, Epoch: 7,
		Nodes: []cluster.GroupNodeView{{Node: "alpha"}, {Node: "beta"}}, Own: []cluster.ResourceView{{ID: "app"}, {ID: "vip"}}},
		{ID: "new", Nodes: []cluster.GroupNodeView{{Node: "alpha"}}}}
	return t
}

func (t *teller) print(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, OutputLine{Resource: "app", Time: time.Now(), Text: text})
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *teller) Metrics() *Metrics {
	return NewMetrics("9.9", func() (*Vitals, error) { return someVitals(), nil })
}

func (t *teller) Report(context.Context) ([]ReportFile, error) {
	return []ReportFile{{"a.txt", "a file", []byte("text")}}, nil
}

func (t *teller) Peer(_ context.Context, node cluster.NodeID) (*Client, error) {
	if t.peers[node] == nil {
		return nil, errors.New("no way there")
	}
	return t.peers[node](), nil
}

func (t *teller) Output(ctx context.Context, q OutputQuery, send func([]OutputLine) error) error {
	t.mu.Lock()
	t.asked = append(t.asked, q)
	sent := 0
	t.mu.Unlock()
	for {
		t.mu.Lock()
		lines, changed := t.lines[sent:], t.changed
		sent = len(t.lines)
		t.mu.Unlock()
		if len(lines) > 0 {
			if err := send(lines); err != nil {
				return err
			}
		}
		if !q.Follow {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// read collects a stream until its end.
func read(t *testing.T, c *Client, r *batonv1.LogsRequest) (string, error) {
	t.Helper()
	s, err := c.Observe.Logs(t.Context(), r)
	if err != nil {
		return "", err
	}
	defer s.Close()
	var out []string
	for s.Receive() {
		for _, l := range s.Msg().Lines {
			out = append(out, l.Node+"/"+l.Resource+" "+l.Text)
		}
	}
	return strings.Join(out, "; "), s.Err()
}

// TestLogsFromWhereTheGroupIs: from another node's agent, and on when the group moves.
func TestLogsFromWhereTheGroupIs(t *testing.T) {
	alpha, beta := newTeller("alpha"), newTeller("beta")
	_, a := serve(t, alpha)
	socket, _ := serve(t, beta)
	alpha.peers["beta"] = func() *Client { return Dial(socket) }
	beta.print("one")
	beta.print("two")
	if got, err := read(t, a, &batonv1.LogsRequest{Group: "orders"}); got != "beta/app one; beta/app two" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	alpha.print("of alpha")
	if got, err := read(t, a, &batonv1.LogsRequest{Group: "orders", Node: "alpha", Resource: "app", Lines: 5}); got != "alpha/app of alpha" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if q := alpha.asked[0]; len(q.Resources) != 1 || q.Resources[0] != "app" || q.Lines != 5 || q.Follow {
		t.Errorf("asked for %+v", q)
	}

	follow, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := a.Observe.Logs(follow, &batonv1.LogsRequest{Group: "orders", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var got []string
	next := func(want string) {
		t.Helper()
		for !strings.HasSuffix(strings.Join(got, "; "), want) {
			if !s.Receive() {
				t.Fatalf("ended: %v; got %q, want %q", s.Err(), got, want)
			}
			for _, l := range s.Msg().Lines {
				got = append(got, l.Node+" "+l.Text)
			}
		}
	}
	next("beta two")
	beta.print("three")
	next("beta three")
	for _, x := range []*teller{alpha, beta} {
		x.change(func(o *cluster.Overview) { o.Groups[0].Owner = "alpha" })
	}
	until(t, func() bool { alpha.mu.Lock(); defer alpha.mu.Unlock(); return len(alpha.asked) == 2 })
	alpha.print("it is here")
	next("alpha it is here")
	cancel()
	if s.Receive() {
		t.Error("it goes on")
	}
}

func TestLogsRefused(t *testing.T) {
	alpha := newTeller("alpha")
	_, c := serve(t, alpha)
	for _, x := range []struct {
		r    *batonv1.LogsRequest
		code connect.Code
		text string
	}{
		{&batonv1.LogsRequest{Group: "none"}, connect.CodeNotFound, `there is no group "none"`},
		{&batonv1.LogsRequest{Group: "new"}, connect.CodeFailedPrecondition, "has never been anywhere"},
		{&batonv1.LogsRequest{Group: "orders", Node: "alpha", Resource: "none"}, connect.CodeNotFound, `orders has no resource "none"`},
		{&batonv1.LogsRequest{Group: "orders", Node: "gamma"}, connect.CodeNotFound, `orders does not run on "gamma"`},
		{&batonv1.LogsRequest{Group: "orders"}, connect.CodeUnimplemented, "orders is on beta: no way there"},
	} {
		_, err := read(t, c, x.r)
		if why := Explain(err); why.Code != x.code || !strings.Contains(why.Text, x.text) || why.Hint == "" {
			t.Errorf("%v: %+v", x.r, why)
		}
	}
	alpha.peers["beta"] = func() *Client { return Dial("/does/not/exist") }
	_, err := read(t, c, &batonv1.LogsRequest{Group: "orders"})
	if why := Explain(err); why.Code != connect.CodeUnavailable || why.Unreached || !strings.Contains(why.Text, "orders is on beta, whose agent can't be reached") {
		t.Errorf("a node that can't be reached: %+v", why)
	}
	if r, err := c.Observe.Report(t.Context(), &batonv1.ReportRequest{}); err != nil || len(r.Files) != 1 || string(r.Files[0].Content) != "text" {
		t.Errorf("report: %v, %v", r, err)
	}
}
