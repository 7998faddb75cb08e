// Package api answers people and programs: the Connect handlers of the schema and a few plain paths for
// load balancers, on a unix socket whose peers the kernel names.
package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"baton/api/v1/batonv1connect"
	"baton/internal/core/cluster"
)

// Backend is what a Server asks. Its methods may be called from many goroutines at once.
type Backend interface {
	// Overview returns how the cluster looks from here. It needs no quorum.
	Overview(ctx context.Context) (*cluster.Overview, error)
	// Move carries a request out and returns its outcome, be it done, refused or failed. An error means
	// that the outcome is not known: when ctx ends, the error is ctx's and the move itself goes on.
	Move(ctx context.Context, r MoveRequest) (MoveReply, error)
	// History returns the journal as far as this node has it, oldest first.
	History(ctx context.Context) ([]cluster.Line, error)
	// Version names the agent's version.
	Version() string
}

// MoveRequest asks for a switchover, or a failback.
type MoveRequest struct {
	Group    cluster.GroupID
	To       cluster.NodeID // of a switchover; empty: the best candidate
	Failback bool           // to the preferred node
	By       string         // who asked, for the journal
	DryRun   bool           // only say what would happen
}

// MoveReply is the outcome of a MoveRequest.
type MoveReply struct {
	Done bool   // false: refused or failed. Of a dry run: it would be done
	Text string // one sentence
	Hint string
	To   cluster.NodeID
}

// Limits of a Server.
const (
	maxWatchers   = 32
	maxRequest    = 64 << 10 // bytes
	minInterval   = 100 * time.Millisecond
	maxInterval   = time.Second
	answerTimeout = 5 * time.Second        // of everything that only reads
	begunAfter    = 300 * time.Millisecond // a move not refused by then is under way
	endTimeout    = 2 * time.Second
	explainLines  = 10
)

// Server answers the API on a unix socket.
type Server struct {
	http   *http.Server
	cancel context.CancelFunc // ends the requests under way: a Watch would go on for ever
	ended  chan error         // what Serve returned, once
}

// handler returns what answers the API, each request by the rights of its connection's peer.
func handler(b Backend) http.Handler {
	mux := http.NewServeMux()
	options := observed(mux, b)
	mux.Handle(batonv1connect.NewBatonHandler(&handlers{backend: b, watchers: make(chan struct{}, maxWatchers)}, options...))
	(&plain{b}).register(mux)
	return allowed(mux)
}

// Listen opens the socket at path, for root and group baton (if the system has it), and answers there
// until Close. The socket of an agent that is gone is replaced; where one answers, the error names it.
// The socket's directory is made if it is not there.
func Listen(path string, b Backend) (*Server, error) {
	l, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{cancel: cancel, ended: make(chan error, 1), http: &http.Server{
		Handler: handler(b), ConnContext: withPeer, ReadHeaderTimeout: answerTimeout, MaxHeaderBytes: maxRequest,
		BaseContext: func(net.Listener) context.Context { return ctx }, Protocols: new(http.Protocols),
	}}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true) // gRPC
	go func() { s.ended <- s.http.Serve(l) }()
	return s, nil
}

// Close ends the requests under way, and returns when the socket is gone. It may be called once.
func (s *Server) Close() error {
	s.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close() // whoever is still not done is cut off
	}
	if err := <-s.ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the API: %w", err)
	}
	return nil
}
