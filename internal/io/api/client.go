package api

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"sync"
	"syscall"

	"connectrpc.com/connect"

	batonv1 "baton/api/v1"
	"baton/api/v1/batonv1connect"
	"baton/internal/io/identity"
)

// Client asks an agent, over its socket or from afar. Its errors are for Explain.
type Client struct {
	batonv1connect.BatonClient
	Observe   batonv1connect.ObserveClient
	Act       batonv1connect.ActClient
	Access    batonv1connect.AccessClient
	Members   batonv1connect.MembersClient
	Join      batonv1connect.JoinClient
	Keys      batonv1connect.KeysClient
	Config    batonv1connect.ConfigClient
	Plan      batonv1connect.PlanClient
	transport *http.Transport
	notes     *notes
	vital     *vital
}

// AnswerLimit is the longest answer, or part of a stream, that a Client takes, in bytes.
const AnswerLimit = 16 << 20

// newClient returns a client of the agent that a transport leads to. The host stands in no address.
func newClient(t *http.Transport, scheme, token string) *Client {
	v := &vital{next: bearer{t, token}, base: scheme + "://baton", after: silentAfter}
	n := &notes{next: v}
	h, base := &http.Client{Transport: n}, scheme+"://baton"
	limit := connect.WithReadMaxBytes(AnswerLimit)
	return &Client{
		transport:   t,
		notes:       n,
		vital:       v,
		BatonClient: batonv1connect.NewBatonClient(h, base, limit),
		Observe:     batonv1connect.NewObserveClient(h, base, limit),
		Act:         batonv1connect.NewActClient(h, base, limit),
		Access:      batonv1connect.NewAccessClient(h, base, limit),
		Members:     batonv1connect.NewMembersClient(h, base, limit),
		Join:        batonv1connect.NewJoinClient(h, base, limit),
		Keys:        batonv1connect.NewKeysClient(h, base, limit),
		Config:      batonv1connect.NewConfigClient(h, base, limit),
		Plan:        batonv1connect.NewPlanClient(h, base, limit),
	}
}

// bearer adds a token to each request.
type bearer struct {
	next  http.RoundTripper
	token string
}

// RoundTrip implements http.RoundTripper.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(r)
}

// Note returns what the agent noted beside its last answer, and what to do about it; empty: nothing.
func (c *Client) Note() (text, hint string) {
	c.notes.mu.Lock()
	defer c.notes.mu.Unlock()
	return c.notes.text, c.notes.hint
}

// notes keeps the note of the last answer.
type notes struct {
	next http.RoundTripper
	mu   sync.Mutex
	text string
	hint string
}

// RoundTrip implements http.RoundTripper.
func (n *notes) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := n.next.RoundTrip(r)
	if err == nil {
		n.mu.Lock()
		n.text, n.hint = answer.Header.Get(NoteHeader), answer.Header.Get(NoteHintHeader)
		n.mu.Unlock()
	}
	return answer, err
}

// Dial returns a client of the agent that listens on socket. It connects with the first request.
func Dial(socket string) *Client {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		return d.DialContext(ctx, "unix", socket)
	}, MaxResponseHeaderBytes: maxRequest}
	return newClient(t, "http", "")
}

// DialTLS returns a client of the agent that answers at the first of the addresses that can be reached. The
// configuration says whom to believe; the token may be empty. It connects with the first request.
func DialTLS(addresses []string, config *tls.Config, token string) *Client {
	t := &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dialFirst(ctx, addresses) },
		TLSClientConfig: config, TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: true,
		IdleConnTimeout: idleTimeout / 2, MaxResponseHeaderBytes: maxRequest,
	}
	return newClient(t, "https", token)
}

// Failing returns a client of nobody: every request fails with the error.
func Failing(err error) *Client {
	return newClient(&http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, err }}, "http", "")
}

// dialFirst connects to the first address that answers.
func dialFirst(ctx context.Context, addresses []string) (net.Conn, error) {
	var last error = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("no address is known")}
	for _, a := range addresses {
		d := net.Dialer{Timeout: dialTimeout}
		conn, err := d.DialContext(ctx, "tcp", a)
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, last
}

// Close lets go of connections that are not in use.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Trouble is what became of a request that failed.
type Trouble struct {
	Unreached bool         // no agent listens there
	Silent    bool         // one does, and answers nothing
	Code      connect.Code // else, by the agent
	Text      string       // one sentence
	Hint      string       // may be empty
}

// Explain tells what an error of a Client means.
func Explain(err error) Trouble {
	t := Trouble{Code: connect.CodeOf(err), Text: err.Error()}
	var inner *connect.Error
	if errors.As(err, &inner) {
		t.Text = inner.Message()
		for _, d := range inner.Details() {
			if v, bad := d.Value(); bad == nil {
				if hint, ok := v.(*batonv1.Hint); ok {
					t.Hint = hint.Hint
				}
			}
		}
	}
	var dial *net.OpError
	var clock *identity.ClockError
	var silence *SilentError
	switch {
	case errors.As(err, &silence):
		t.Silent, t.Text = true, silence.Error()
		t.Hint = "its process is stopped, or its host starved: ps -o stat,pid,args -C baton shows T for stopped; systemctl restart baton moves nothing"
	case errors.As(err, &dial) && errors.Is(err, fs.ErrPermission):
		t.Code, t.Text = connect.CodePermissionDenied, "this user may not connect to the agent"
		t.Hint = "use sudo, or have root add you: usermod -aG " + GroupName + " USER"
	case errors.As(err, &dial) && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
		t.Unreached, t.Text = true, "no agent listens there"
	case errors.As(err, &dial) && dial.Op == "dial":
		t.Unreached, t.Text = true, dial.Err.Error()
	case errors.As(err, &clock):
		t.Text, t.Hint = clock.Error(), "set the clock that is wrong; chronyc tracking tells about this host's"
	case errors.Is(err, identity.ErrStranger):
		var met *identity.StrangerError
		t.Text = identity.ErrStranger.Error()
		if errors.As(err, &met) {
			t.Text = met.Error()
		}
		t.Hint = "if the cluster's key was changed: add the context anew, with the fingerprint that baton token add prints on a node"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), t.Code == connect.CodeUnavailable && inner != nil && !connect.IsWireError(inner):
		t.Unreached, t.Text = true, "the agent ended the connection"
	}
	return t
}
