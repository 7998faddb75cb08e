package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// Limits of a Health listener: anybody may connect.
const (
	maxHealthConns   = 64
	maxHealthHeaders = 8 << 10 // bytes
	healthTimeout    = 5 * time.Second
	healthIdle       = time.Minute
	healthRetry      = time.Second
	maxScrapes       = 2 // at a time
)

// Health answers monitors and load balancers on a TCP port, without any authentication: it only tells how
// things are, and costs the agent's loop no more however often it is asked.
type Health struct {
	metrics *Metrics
	log     *slog.Logger

	mu   sync.Mutex // held while the address changes
	at   netip.AddrPort
	stop func()
}

// NewHealth returns a listener that listens nowhere yet.
func NewHealth(m *Metrics, log *slog.Logger) *Health { return &Health{metrics: m, log: log} }

// Listen makes it answer at an address, and nowhere else; the zero value is nowhere. A port that is in use is
// no error: it is tried again each second. Of calls at once the one counts that asks last.
func (h *Health) Listen(where func() netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := where()
	if at == h.at {
		return
	}
	if h.stop != nil {
		h.stop()
	}
	h.at, h.stop = at, nil
	if !at.IsValid() {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { h.serve(ctx, at) })
	h.stop = func() {
		cancel()
		serving.Wait()
	}
}

// Close ends it.
func (h *Health) Close() { h.Listen(func() netip.AddrPort { return netip.AddrPort{} }) }

// serve answers until the context ends.
func (h *Health) serve(ctx context.Context, at netip.AddrPort) {
	told := ""
	for ctx.Err() == nil {
		// An address that comes only later must not keep it from listening there (ip(7), IP_FREEBIND).
		c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) })
		}}
		l, err := c.Listen(ctx, "tcp", at.String())
		if err == nil {
			h.log.Info("monitors are answered", "address", at.String())
			err = h.answer(ctx, netutil.LimitListener(l, maxHealthConns))
		}
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != told {
			told = text
			h.log.Error("monitors can't be answered: it is tried again each second", "address", at.String(), "cause", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(healthRetry):
		}
	}
}

func (h *Health) answer(ctx context.Context, l net.Listener) error {
	s := &http.Server{Handler: h.metrics.Handler(), ReadTimeout: healthTimeout, WriteTimeout: 2 * healthTimeout, IdleTimeout: healthIdle,
		MaxHeaderBytes: maxHealthHeaders, ConnState: (&callers{idle: map[net.Conn]time.Time{}}).changed, ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug)}
	undo := context.AfterFunc(ctx, func() { s.Close() })
	defer undo()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		s.Close()
		return err
	}
	return nil
}

// callers are the connections of a Health listener. Where one more would fill it, the one that has been idle longest is
// closed: monitors that keep theirs must not keep out who asks.
type callers struct {
	mu   sync.Mutex
	all  int
	idle map[net.Conn]time.Time // since when
}

// changed is told of each connection's state (http.Server.ConnState).
func (c *callers) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.idle, conn)
	switch state {
	case http.StateNew:
		if c.all++; c.all < maxHealthConns {
			return
		}
		var oldest net.Conn
		for other, since := range c.idle {
			if oldest == nil || since.Before(c.idle[oldest]) {
				oldest = other
			}
		}
		if oldest != nil {
			delete(c.idle, oldest)
			oldest.Close()
		}
	case http.StateIdle:
		c.idle[conn] = time.Now()
	case http.StateHijacked, http.StateClosed:
		c.all--
	}
}

// Handler answers what a Health listener does: GET of /metrics, /healthz, /readyz and
// /v1/groups/GROUP/primary.
func (m *Metrics) Handler() http.Handler {
	mux := http.NewServeMux()
	(&plain{m}).register(mux)
	mux.Handle("GET /metrics", m.scraped())
	return mux
}

// Overview returns how the cluster looks from here, at most 50 ms old.
func (m *Metrics) Overview(ctx context.Context) (*cluster.Overview, error) {
	v, err := m.gauge.read(ctx)
	if err != nil {
		return nil, err
	}
	return v.Overview, nil
}
