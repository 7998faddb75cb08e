package api

import (
	"net/http"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Observed is a Backend whose calls are counted, and which tells more of itself.
type Observed interface {
	Metrics() *Metrics
}

// observed adds to a mux what an Observed backend answers besides, and returns what its other handlers are to
// be made with.
func observed(mux *http.ServeMux, b Backend) []connect.HandlerOption {
	options := []connect.HandlerOption{connect.WithReadMaxBytes(maxRequest)}
	o, ok := b.(Observed)
	if !ok {
		return options
	}
	m := o.Metrics()
	mux.Handle("GET /metrics", m.scraped())
	return append(options, connect.WithInterceptors(m.counted()))
}

func (m *Metrics) scraped() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: healthTimeout})
}
