package api

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"syscall"

	"connectrpc.com/connect"

	batonv1 "baton/api/v1"
	"baton/api/v1/batonv1connect"
)

// Client asks an agent over its socket. Its errors are for Explain.
type Client struct {
	batonv1connect.BatonClient
	Observe   batonv1connect.ObserveClient
	transport *http.Transport
}

// Dial returns a client of the agent that listens on socket. It connects with the first request.
func Dial(socket string) *Client {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		return d.DialContext(ctx, "unix", socket)
	}}
	// The host stands in no address: the socket is the agent.
	h, base := &http.Client{Transport: t}, "http://baton"
	return &Client{BatonClient: batonv1connect.NewBatonClient(h, base), Observe: batonv1connect.NewObserveClient(h, base), transport: t}
}

// Close lets go of connections that are not in use.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Trouble is what became of a request that failed.
type Trouble struct {
	Unreached bool         // no agent listens there
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
	switch {
	case errors.As(err, &dial) && errors.Is(err, fs.ErrPermission):
		t.Code, t.Text = connect.CodePermissionDenied, "this user may not connect to the agent"
		t.Hint = "use sudo, or have root add you: usermod -aG " + GroupName + " USER"
	case errors.As(err, &dial) && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
		t.Unreached, t.Text = true, "no agent listens there"
	case errors.As(err, &dial) && dial.Op == "dial":
		t.Unreached, t.Text = true, dial.Err.Error()
	case t.Code == connect.CodeUnavailable && inner != nil && !connect.IsWireError(inner):
		t.Unreached, t.Text = true, "the agent ended the connection"
	}
	return t
}
