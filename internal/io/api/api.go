// Package api answers people and programs: the Connect handlers of the schema and a few plain paths for
// load balancers, on a unix socket whose peers the kernel names, and over TLS for who has a token or a
// node's certificate.
package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"baton/api/v1/batonv1connect"
	"baton/internal/core/cluster"
	"baton/internal/io/identity"
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
	ConfigBackend
	ActBackend
	AccessBackend
	PlanBackend
	MembersBackend
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
	// UnderWay: it stands in the log, and nobody waits for its end.
	UnderWay bool
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

	// of callers over TLS
	maxHeader   = 16 << 10 // bytes
	maxStreams  = 16       // requests at once on one connection
	maxWaiting  = 64       // connections that the server has not taken yet
	idleTimeout = 30 * time.Second
)

// Server answers the API on a unix socket, and on connections that it is handed.
type Server struct {
	local  *http.Server
	remote *http.Server
	id     *identity.Identity
	feed   *feed
	cancel context.CancelFunc // ends the requests under way: a Watch would go on for ever

	serving sync.WaitGroup
	mu      sync.Mutex // guards what follows
	socket  *socket
	failed  []error // what ended a Serve before Close
}

// mux returns what answers the API, whoever asks.
func mux(b Backend) http.Handler {
	mux := http.NewServeMux()
	options := observed(mux, b)
	mux.Handle(batonv1connect.NewBatonHandler(&handlers{backend: b, watchers: make(chan struct{}, maxWatchers)}, options...))
	mux.Handle(batonv1connect.NewActHandler(&actHandlers{b}, options...))
	mux.Handle(batonv1connect.NewMembersHandler(&membersHandlers{b}, options...))
	access := &accessHandlers{b}
	mux.Handle(batonv1connect.NewAccessHandler(access, options...))
	mux.Handle(batonv1connect.NewJoinHandler(access, options...))
	mux.Handle(batonv1connect.NewKeysHandler(access, options...))
	mux.Handle(batonv1connect.NewPlanHandler(&planHandlers{&handlers{backend: b}, make(chan struct{}, 1)}, options...))
	mux.Handle(batonv1connect.NewConfigHandler(&configHandlers{b}, append(options, connect.WithReadMaxBytes(maxText))...))
	(&plain{b}).register(mux)
	return noting(b, strict(mux))
}

// Listen opens the socket at path, for root and group baton (if the system has it), and answers there
// until Close. The socket of an agent that is gone is replaced; where one answers, the error names it.
// The socket's directory is made if it is not there.
func Listen(path string, b Backend) (*Server, error) {
	l, err := listen(path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	base := func(net.Listener) context.Context { return ctx }
	all := mux(b)
	s := &Server{cancel: cancel, socket: l, id: b.Identity(), feed: newFeed(), local: &http.Server{
		Handler: local(b.Self(), all), ConnContext: connected, ReadHeaderTimeout: answerTimeout, MaxHeaderBytes: maxRequest,
		BaseContext: base, Protocols: new(http.Protocols),
	}}
	s.local.Protocols.SetHTTP1(true)
	s.local.Protocols.SetUnencryptedHTTP2(true) // gRPC
	s.remote = &http.Server{
		Handler: remote(b, all), ConnContext: s.called, ReadHeaderTimeout: answerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: base, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams}, ErrorLog: log.New(io.Discard, "", 0),
	}
	s.serve(s.local, l)
	s.serve(s.remote, s.feed)
	return s, nil
}

func (s *Server) serve(server *http.Server, l net.Listener) {
	s.serving.Go(func() {
		// A listener whose socket was replaced is closed without the server's doing.
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.failed = append(s.failed, fmt.Errorf("serve the API: %w", err))
		}
	})
}

// Keep listens anew where the socket was deleted or replaced; requests under way go on. It is not called after Close.
func (s *Server) Keep() (anew bool, err error) {
	s.mu.Lock()
	former := s.socket
	s.mu.Unlock()
	if former.there() {
		return false, nil
	}
	l, err := listen(former.path)
	if err != nil {
		return false, err
	}
	former.SetUnlinkOnClose(false) // the name is another's
	former.Close()
	s.mu.Lock()
	s.socket = l
	s.mu.Unlock()
	s.serve(s.local, l)
	return true, nil
}

// called keeps who is at the other end of a connection that was handed over.
func (s *Server) called(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok && s.id != nil {
		return context.WithValue(ctx, callerKey{}, s.id.Caller(t.ConnectionState()))
	}
	return ctx
}

// Take answers a connection whose handshake under the identity's configuration is over, and closes it. It
// does not wait.
func (s *Server) Take(conn *tls.Conn) { s.feed.put(conn) }

// Close ends the requests under way, and returns when the socket is gone. It may be called once.
func (s *Server) Close() error {
	s.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	for _, server := range []*http.Server{s.local, s.remote} {
		if server.Shutdown(ctx) != nil {
			server.Close() // whoever is still not done is cut off
		}
	}
	s.serving.Wait()
	return errors.Join(s.failed...)
}

// feed is a listener whose connections come from elsewhere.
type feed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newFeed() *feed { return &feed{conns: make(chan net.Conn, maxWaiting), done: make(chan struct{})} }

func (f *feed) put(c net.Conn) {
	select {
	case <-f.done:
		c.Close()
	default:
		select {
		case f.conns <- c:
		default:
			c.Close() // more come than are taken
		}
	}
}

// Accept implements net.Listener.
func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (f *feed) Close() error {
	f.once.Do(func() {
		close(f.done)
		for len(f.conns) > 0 {
			(<-f.conns).Close()
		}
	})
	return nil
}

// Addr implements net.Listener.
func (f *feed) Addr() net.Addr { return &net.TCPAddr{} }
