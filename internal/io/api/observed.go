package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/types/known/timestamppb"

	batonv1 "baton/api/v1"
	"baton/api/v1/batonv1connect"
	"baton/internal/core/cluster"
)

// Observed is a Backend that tells more of itself: metrics, output of its resources, a report.
type Observed interface {
	Metrics() *Metrics
	// Output sends what resources of this node have printed, and with q.Follow what they print until ctx
	// ends. Send is called from one goroutine; what it returns ends the call.
	Output(ctx context.Context, q OutputQuery, send func([]OutputLine) error) error
	// Report gathers what a bug report needs of this node, without secrets.
	Report(ctx context.Context) ([]ReportFile, error)
	// Peer returns a client of another node's agent, to be closed after use.
	Peer(ctx context.Context, node cluster.NodeID) (*Client, error)
}

// OutputQuery says which output to send.
type OutputQuery struct {
	Group     cluster.GroupID
	Resources []cluster.ResourceID
	Follow    bool
	Lines     int       // how many of the newest to begin with; negative: all that are kept
	Since     time.Time // only what was printed since; zero: from whenever
}

// OutputLine is one line of a resource's output.
type OutputLine struct {
	Resource cluster.ResourceID
	Time     time.Time // zero: not known
	Text     string    // valid UTF-8
}

// ReportFile is one file of a report.
type ReportFile struct {
	Name    string
	About   string
	Content []byte
}

const (
	maxFollowers = 16
	// followAgain is how often one who follows a group's output looks where the group is.
	followAgain = 500 * time.Millisecond
)

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
	options = append(options, connect.WithInterceptors(m.counted()))
	mux.Handle(batonv1connect.NewObserveHandler(&observer{&handlers{backend: b}, o, make(chan struct{}, maxFollowers)}, options...))
	return options
}

func (m *Metrics) scraped() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: healthTimeout})
}

// observer implements the schema's service Observe.
type observer struct {
	*handlers
	source    Observed
	followers chan struct{} // one token for each Logs under way
}

// Report implements the schema.
func (o *observer) Report(ctx context.Context, _ *batonv1.ReportRequest) (*batonv1.ReportResponse, error) {
	files, err := o.source.Report(ctx)
	if err != nil {
		return nil, failed("gather the report", err)
	}
	r := new(batonv1.ReportResponse)
	for _, f := range files {
		r.Files = append(r.Files, &batonv1.ReportFile{Name: f.Name, About: f.About, Content: f.Content})
	}
	return r, nil
}

// Logs implements the schema.
func (o *observer) Logs(ctx context.Context, r *batonv1.LogsRequest, out *connect.ServerStream[batonv1.LogsResponse]) error {
	select {
	case o.followers <- struct{}{}:
		defer func() { <-o.followers }()
	default:
		return failure(connect.CodeResourceExhausted, "end another one first", "%d logs are being read, and no more are allowed", maxFollowers)
	}
	w, err := o.whose(ctx, r)
	if err != nil {
		return err
	}
	for {
		err := o.logsOf(ctx, w, r, out)
		if err != nil || !r.Follow || r.Node != "" || ctx.Err() != nil {
			return err
		}
		if w, err = o.moved(ctx, r); err != nil {
			return err
		}
		// What comes on the next node is new there; its past was another placement's.
		r.Since, r.Lines = timestamppb.New(time.Now().Add(-followAgain)), ^uint32(0)
	}
}

// place is where a group's output is.
type place struct {
	self, node cluster.NodeID
	resources  []cluster.ResourceID
}

// whose finds out where a group's output is, and of which resources.
func (o *observer) whose(ctx context.Context, r *batonv1.LogsRequest) (w place, err error) {
	s, g, err := o.group(ctx, r.Group)
	if err != nil {
		return w, err
	}
	w.self, w.node = cluster.NodeID(s.Node), cluster.NodeID(r.Node)
	if w.node == "" {
		w.node = cluster.NodeID(g.Owner)
	}
	if w.node == "" {
		w.node = cluster.NodeID(g.Last)
	}
	var names, on []string
	for _, n := range g.Nodes {
		on = append(on, n.Node)
	}
	if !slices.Contains(on, string(w.node)) {
		if r.Node == "" {
			return w, failure(connect.CodeFailedPrecondition, "baton explain "+r.Group, "%s has never been anywhere", r.Group)
		}
		return w, failure(connect.CodeNotFound, "it runs on "+strings.Join(on, ", "), "%s does not run on %q", r.Group, r.Node)
	}
	if w.node != w.self {
		return w, nil // that node knows its resources
	}
	for _, x := range g.Resources {
		names = append(names, x.Name)
		if r.Resource == "" || r.Resource == x.Name {
			w.resources = append(w.resources, cluster.ResourceID(x.Name))
		}
	}
	if len(w.resources) == 0 {
		return w, failure(connect.CodeNotFound, "its resources are: "+strings.Join(names, ", "), "%s has no resource %q", r.Group, r.Resource)
	}
	return w, nil
}

// moved waits until a group is on a node that it has not been followed on, and says where.
func (o *observer) moved(ctx context.Context, r *batonv1.LogsRequest) (place, error) {
	select {
	case <-ctx.Done():
	case <-time.After(followAgain / 5):
	}
	return o.whose(ctx, r)
}

// logsOf sends the output from one place; who follows, until the group goes elsewhere.
func (o *observer) logsOf(ctx context.Context, w place, r *batonv1.LogsRequest, out *connect.ServerStream[batonv1.LogsResponse]) error {
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.Follow && r.Node == "" {
		done := make(chan struct{})
		defer func() { cancel(); <-done }()
		go func() {
			defer close(done)
			o.watchOwner(reading, w.node, r)
			cancel()
		}()
	}
	err := o.send(reading, w, r, out)
	if reading.Err() != nil {
		return nil // it was told to end
	}
	if err != nil && r.Follow && r.Node == "" && Explain(err).Unreached {
		<-reading.Done() // the node is gone: go on where the group will be
		return nil
	}
	return err
}

// watchOwner returns when the group is on another node than the one named, or ctx ends.
func (o *observer) watchOwner(ctx context.Context, node cluster.NodeID, r *batonv1.LogsRequest) {
	tick := time.NewTicker(followAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, g, err := o.group(ctx, r.Group); err == nil && g.Owner != "" && g.Owner != string(node) {
			return
		}
	}
}

func (o *observer) send(ctx context.Context, w place, r *batonv1.LogsRequest, out *connect.ServerStream[batonv1.LogsResponse]) error {
	if w.node != w.self {
		return o.relay(ctx, w.node, r, out)
	}
	q := OutputQuery{Group: cluster.GroupID(r.Group), Resources: w.resources, Follow: r.Follow, Lines: int(r.Lines)}
	if r.Lines == 0 && !r.Follow || r.Lines == ^uint32(0) {
		q.Lines = -1
	}
	if r.Since.IsValid() {
		q.Since = r.Since.AsTime()
	}
	err := o.source.Output(ctx, q, func(lines []OutputLine) error {
		m := new(batonv1.LogsResponse)
		for _, l := range lines {
			x := &batonv1.LogLine{Node: string(w.self), Resource: string(l.Resource), Text: l.Text}
			if !l.Time.IsZero() {
				x.Time = timestamppb.New(l.Time)
			}
			m.Lines = append(m.Lines, x)
		}
		return out.Send(m)
	})
	if err != nil && ctx.Err() == nil {
		return failed(fmt.Sprintf("read the output of %s", r.Group), err)
	}
	return nil
}

// relay asks another node's agent, and passes on what it sends.
func (o *observer) relay(ctx context.Context, node cluster.NodeID, r *batonv1.LogsRequest, out *connect.ServerStream[batonv1.LogsResponse]) error {
	peer, err := o.source.Peer(ctx, node)
	if err != nil {
		return failure(connect.CodeUnimplemented, "type baton logs "+r.Group+" there", "%s is on %s: %w", r.Group, node, err)
	}
	defer peer.Close()
	explained := func(err error) error {
		if t := Explain(err); t.Unreached {
			return failure(connect.CodeUnavailable, "baton status", "%s is on %s, whose agent can't be reached: %s", r.Group, node, t.Text)
		}
		return err
	}
	stream, err := peer.Observe.Logs(ctx, &batonv1.LogsRequest{Group: r.Group, Resource: r.Resource, Node: string(node), Follow: r.Follow, Lines: r.Lines, Since: r.Since})
	if err != nil {
		return explained(err)
	}
	defer stream.Close()
	for stream.Receive() {
		if err := out.Send(stream.Msg()); err != nil {
			return err
		}
	}
	if err := stream.Err(); err != nil && !errors.Is(err, context.Canceled) {
		return explained(err)
	}
	return nil
}

// WriteText writes all metrics as a scrape would get them.
func (m *Metrics) WriteText(w io.Writer) error {
	families, err := m.registry.Gather()
	if err != nil {
		return fmt.Errorf("gather the metrics: %w", err)
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return fmt.Errorf("write the metrics: %w", err)
		}
	}
	return nil
}
