package api

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"baton/internal/core/cluster"
)

// Metrics is what an agent tells Prometheus. What happens in the loop is counted without a lock; all else is
// read from the agent's vitals when a monitor asks.
type Metrics struct {
	registry *prometheus.Registry
	gauge    *gauge
	version  string

	syncs    prometheus.Histogram
	lag      prometheus.Histogram
	requests *prometheus.CounterVec

	stalls, gateWrites, gateErrors atomic.Uint64
}

// MetricInfo describes one metric, for the documentation.
type MetricInfo struct {
	Name   string
	Type   string // "counter", "gauge" or "histogram"
	Labels []string
	Help   string
}

// metric is one metric: what it is called, and how it is read. Names and units are by Prometheus' conventions
// (prometheus.io/docs/practices/naming): base units, _total on counters.
type metric struct {
	MetricInfo
	read func(m *Metrics, v *Vitals, emit func(value float64, labels ...string))
}

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// ofGroups reads one value of each group.
func ofGroups(value func(o *cluster.Overview, g *cluster.GroupView) float64) func(*Metrics, *Vitals, func(float64, ...string)) {
	return func(_ *Metrics, v *Vitals, emit func(float64, ...string)) {
		for i := range v.Overview.Groups {
			g := &v.Overview.Groups[i]
			emit(value(v.Overview, g), string(g.ID))
		}
	}
}

// ofPeers reads one value of each other node.
func ofPeers(value func(n *cluster.NodeView) (float64, bool)) func(*Metrics, *Vitals, func(float64, ...string)) {
	return func(_ *Metrics, v *Vitals, emit func(float64, ...string)) {
		for i := range v.Overview.Nodes {
			n := &v.Overview.Nodes[i]
			if x, ok := value(n); ok && n.ID != v.Overview.Node {
				emit(x, string(n.ID))
			}
		}
	}
}

// ofLinks reads one value of each link to each node.
func ofLinks(value func(l *cluster.LinkView) (float64, bool)) func(*Metrics, *Vitals, func(float64, ...string)) {
	return func(_ *Metrics, v *Vitals, emit func(float64, ...string)) {
		for i := range v.Overview.Nodes {
			n := &v.Overview.Nodes[i]
			for k := range n.Links {
				if x, ok := value(&n.Links[k]); ok && k < len(v.Overview.Links) {
					emit(x, v.Overview.Links[k], string(n.ID))
				}
			}
		}
	}
}

// ofPackets reads counters of each link and peer.
func ofPackets(each func(p *PeerVitals, emit func(value uint64, more ...string))) func(*Metrics, *Vitals, func(float64, ...string)) {
	return func(_ *Metrics, v *Vitals, emit func(float64, ...string)) {
		for _, l := range v.Links {
			for i := range l.Peers {
				p := &l.Peers[i]
				each(p, func(value uint64, more ...string) {
					emit(float64(value), append([]string{l.Link, string(p.Node)}, more...)...)
				})
			}
		}
	}
}

// one reads a single value.
func one(value func(m *Metrics, v *Vitals) float64) func(*Metrics, *Vitals, func(float64, ...string)) {
	return func(m *Metrics, v *Vitals, emit func(float64, ...string)) { emit(value(m, v)) }
}

func self(v *Vitals) *cluster.NodeView {
	for i := range v.Overview.Nodes {
		if v.Overview.Nodes[i].ID == v.Overview.Node {
			return &v.Overview.Nodes[i]
		}
	}
	return &cluster.NodeView{}
}

const (
	counter   = "counter"
	plainKind = "gauge"
	histogram = "histogram"
)

var (
	groupLabel = []string{"group"}
	peerLabel  = []string{"peer"}
	linkLabels = []string{"link", "peer"}
)

// readMetrics are the metrics that are read from the vitals.
var readMetrics = []metric{
	{MetricInfo{"baton_build_info", plainKind, []string{"version", "goversion"}, "Always 1; the labels tell what runs."},
		func(m *Metrics, _ *Vitals, emit func(float64, ...string)) { emit(1, m.version, runtime.Version()) }},
	{MetricInfo{"baton_node_info", plainKind, []string{"cluster", "node", "role"}, "Always 1; the labels tell which node this is."},
		func(_ *Metrics, v *Vitals, emit func(float64, ...string)) {
			emit(1, v.Overview.Cluster, string(v.Overview.Node), self(v).Role.String())
		}},

	{MetricInfo{"baton_group_serving", plainKind, groupLabel, "1 if this node serves the group; their sum over all nodes is 1, or 0 in an outage."},
		ofGroups(func(o *cluster.Overview, g *cluster.GroupView) float64 { return yes(g.Serving && g.Owner == o.Node) })},
	{MetricInfo{"baton_group_served", plainKind, groupLabel, "1 if some node serves the group, as seen from this one."},
		ofGroups(func(_ *cluster.Overview, g *cluster.GroupView) float64 { return yes(g.Serving) })},
	{MetricInfo{"baton_group_takeover_ready", plainKind, groupLabel, "1 if another node could take the group over now, one of manual failover on a command; 0: the next fault is an outage."},
		ofGroups(func(_ *cluster.Overview, g *cluster.GroupView) float64 { return yes(g.Next != "") })},
	{MetricInfo{"baton_group_epoch", plainKind, groupLabel, "Number of the group's newest placement; it only grows."},
		ofGroups(func(_ *cluster.Overview, g *cluster.GroupView) float64 { return float64(g.Epoch) })},
	{MetricInfo{"baton_group_moves_total", counter, []string{"group", "reason"}, "How often the group came to another node, by reason: switchover, failback or failover."},
		func(_ *Metrics, v *Vitals, emit func(float64, ...string)) {
			for i := range v.Overview.Groups {
				g := &v.Overview.Groups[i]
				emit(float64(g.Service.Moves.Switchovers), string(g.ID), "switchover")
				emit(float64(g.Service.Moves.Failbacks), string(g.ID), "failback")
				emit(float64(g.Service.Moves.Failovers), string(g.ID), "failover")
			}
		}},
	{MetricInfo{"baton_group_downtime_seconds_total", counter, []string{"group", "cause"}, "Outages of the group that have ended, by cause: planned (somebody asked for it) or unplanned."},
		func(_ *Metrics, v *Vitals, emit func(float64, ...string)) {
			for i := range v.Overview.Groups {
				g := &v.Overview.Groups[i]
				emit(g.Service.Planned.Seconds(), string(g.ID), "planned")
				emit(g.Service.Unplanned.Seconds(), string(g.ID), "unplanned")
			}
		}},
	{MetricInfo{"baton_group_outage_seconds", plainKind, groupLabel, "Length so far of the outage under way, as seen from this node; 0: the group is served."},
		ofGroups(func(_ *cluster.Overview, g *cluster.GroupView) float64 { return g.Service.Down.Seconds() })},
	{MetricInfo{"baton_group_availability_ratio", plainKind, groupLabel, "1 less the share of the time, since the group first served, in which nobody did."},
		ofGroups(func(_ *cluster.Overview, g *cluster.GroupView) float64 { return availability(&g.Service, time.Now()) })},

	{MetricInfo{"baton_lease_remaining_seconds", plainKind, nil, "For how long this node's lease still runs; 0: it holds none that runs."},
		one(func(_ *Metrics, v *Vitals) float64 { return self(v).LeaseLeft.Seconds() })},
	{MetricInfo{"baton_lease_seconds", plainKind, nil, "Length of a lease of this node."},
		one(func(_ *Metrics, v *Vitals) float64 { return v.Overview.Timing.L.Seconds() })},
	{MetricInfo{"baton_detection_seconds", plainKind, nil, "Silence after which a node is suspected."},
		one(func(_ *Metrics, v *Vitals) float64 { return v.Overview.Timing.D.Seconds() })},
	{MetricInfo{"baton_takeover_seconds", plainKind, nil, "The time asked for, within which a group serves again after a single fault."},
		one(func(_ *Metrics, v *Vitals) float64 { return v.Overview.Timing.Takeover.Seconds() })},
	{MetricInfo{"baton_coordinator", plainKind, nil, "1 if this node coordinates."},
		one(func(_ *Metrics, v *Vitals) float64 {
			return yes(v.Overview.Coordinator == v.Overview.Node && v.Overview.Node != "")
		})},
	{MetricInfo{"baton_quorum", plainKind, nil, "1 if this node hears a majority of the voters, itself included."},
		one(func(_ *Metrics, v *Vitals) float64 { return yes(v.Overview.Quorum) })},
	{MetricInfo{"baton_founded", plainKind, nil, "1 if the cluster is formed, as far as this node knows."},
		one(func(_ *Metrics, v *Vitals) float64 { return yes(v.Overview.ID != "") })},
	{MetricInfo{"baton_term", plainKind, nil, "Raft's term; it grows with each election."},
		one(func(_ *Metrics, v *Vitals) float64 { return float64(v.Overview.Term) })},
	{MetricInfo{"baton_log_index", plainKind, nil, "Index of the last entry of the log that took effect here."},
		one(func(_ *Metrics, v *Vitals) float64 { return float64(v.Overview.Applied) })},
	{MetricInfo{"baton_disk_answers", plainKind, nil, "0 if the disk has not answered for a lease's length."},
		one(func(_ *Metrics, v *Vitals) float64 { return yes(!self(v).Sick) })},

	{MetricInfo{"baton_peer_heard", plainKind, peerLabel, "1 if the node was heard within the detection time."},
		ofPeers(func(n *cluster.NodeView) (float64, bool) { return yes(n.Fresh), true })},
	{MetricInfo{"baton_peer_heard_age_seconds", plainKind, peerLabel, "Time since the node was heard on any link; absent: never in this run."},
		ofPeers(func(n *cluster.NodeView) (float64, bool) { return n.Ago.Seconds(), n.Heard })},

	{MetricInfo{"baton_link_up", plainKind, []string{"link"}, "1 if the link can be used from this node; link tcp is where callers of the API come in."},
		func(_ *Metrics, v *Vitals, emit func(float64, ...string)) {
			for _, l := range v.Links {
				emit(yes(l.Up), l.Link)
			}
		}},
	{MetricInfo{"baton_link_heard_age_seconds", plainKind, linkLabels, "Time since the node was heard on the link; absent: never in this run."},
		ofLinks(func(l *cluster.LinkView) (float64, bool) { return l.Ago.Seconds(), l.Heard })},
	{MetricInfo{"baton_link_round_trip_seconds", plainKind, linkLabels, "Time from a heartbeat to its answer over the link, smoothed; absent: not measured yet."},
		ofLinks(func(l *cluster.LinkView) (float64, bool) { return l.RoundTrip.Seconds(), l.RoundTrip > 0 })},
	{MetricInfo{"baton_link_packets_sent_total", counter, linkLabels, "Packets sent to the node over the link. What it lost on the way is this less what that node has received."},
		ofPackets(func(p *PeerVitals, emit func(uint64, ...string)) { emit(p.Sent) })},
	{MetricInfo{"baton_link_packets_received_total", counter, linkLabels, "Packets received from the node over the link, and understood."},
		ofPackets(func(p *PeerVitals, emit func(uint64, ...string)) { emit(p.Received) })},
	{MetricInfo{"baton_link_packets_dropped_total", counter, []string{"link", "peer", "reason"},
		"Packets dropped here: full (no room to send), failed (could not be sent), forged, replayed, or malformed (authentic, and yet not understood)."},
		ofPackets(func(p *PeerVitals, emit func(uint64, ...string)) {
			emit(p.Dropped, "full")
			emit(p.Failed, "failed")
			emit(p.Forged, "forged")
			emit(p.Replayed, "replayed")
			emit(p.Malformed, "malformed")
		})},
	{MetricInfo{"baton_link_full_packets", plainKind, linkLabels, "1 if full packets arrive at the peer as small ones do; 0: they are lost on the way."},
		ofPackets(func(p *PeerVitals, emit func(uint64, ...string)) {
			if p.Narrow {
				emit(0)
			} else {
				emit(1)
			}
		})},
	{MetricInfo{"baton_link_packets_strange_total", counter, []string{"link"}, "Packets that came from no node of this cluster."},
		func(_ *Metrics, v *Vitals, emit func(float64, ...string)) {
			for _, l := range v.Links {
				emit(float64(l.Strange), l.Link)
			}
		}},

	{MetricInfo{"baton_loop_stalls_total", counter, nil, "How often this node stood still for so long that the time is deducted from the silence of others."},
		one(func(m *Metrics, _ *Vitals) float64 { return float64(m.stalls.Load()) })},
	{MetricInfo{"baton_gate_writes_total", counter, nil, "Deadlines written to the gate in the kernel."},
		one(func(m *Metrics, _ *Vitals) float64 { return float64(m.gateWrites.Load()) })},
	{MetricInfo{"baton_gate_write_errors_total", counter, nil, "Deadlines that could not be written to the gate."},
		one(func(m *Metrics, _ *Vitals) float64 { return float64(m.gateErrors.Load()) })},
	{MetricInfo{"baton_inbox_packets_dropped_total", counter, nil, "Packets that waited for the agent's loop and were displaced by newer ones."},
		one(func(_ *Metrics, v *Vitals) float64 { return float64(v.InboxDropped) })},
	{MetricInfo{"baton_log_lines_dropped_total", counter, nil, "Lines of the agent's log that were not taken quickly enough."},
		one(func(_ *Metrics, v *Vitals) float64 { return float64(v.LogDropped) })},
}

// kept are the metrics that are kept as things happen.
var (
	syncInfo    = MetricInfo{"baton_disk_sync_seconds", histogram, nil, "How long syncs of the log took."}
	lagInfo     = MetricInfo{"baton_loop_lag_seconds", histogram, nil, "By how much the agent's loop woke later than it had asked to be."}
	requestInfo = MetricInfo{"baton_api_requests_total", counter, []string{"method", "code"}, "Calls of the API by method and outcome (ok, or the error's code)."}
	upInfo      = MetricInfo{"baton_agent_up", plainKind, nil, "1 if the agent's loop answers; if not, nearly all other metrics are absent."}
)

// MetricList lists every metric of baton's own.
func MetricList() []MetricInfo {
	list := []MetricInfo{upInfo}
	for _, m := range readMetrics {
		list = append(list, m.MetricInfo)
	}
	return append(list, syncInfo, lagInfo, requestInfo)
}

// NewMetrics returns the metrics of an agent. The source is asked at most each 50 ms, and blocks only while
// the agent's loop does not answer.
func NewMetrics(version string, source func() (*Vitals, error)) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), gauge: &gauge{source: source}, version: version,
		syncs:    prometheus.NewHistogram(prometheus.HistogramOpts{Name: syncInfo.Name, Help: syncInfo.Help, Buckets: prometheus.ExponentialBuckets(0.0001, 2, 14)}),
		lag:      prometheus.NewHistogram(prometheus.HistogramOpts{Name: lagInfo.Name, Help: lagInfo.Help, Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: requestInfo.Name, Help: requestInfo.Help}, requestInfo.Labels),
	}
	m.registry.MustRegister(m, m.syncs, m.lag, m.requests, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Synced counts a sync of the log.
func (m *Metrics) Synced(took time.Duration) { m.syncs.Observe(took.Seconds()) }

// Woke counts that the loop woke later than asked.
func (m *Metrics) Woke(late time.Duration) { m.lag.Observe(late.Seconds()) }

// Stalled counts a stall of this node.
func (m *Metrics) Stalled() { m.stalls.Add(1) }

// GateWritten counts a write to the gate.
func (m *Metrics) GateWritten(err error) {
	if err != nil {
		m.gateErrors.Add(1)
		return
	}
	m.gateWrites.Add(1)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- upInfo.desc()
	for i := range readMetrics {
		ch <- readMetrics[i].desc()
	}
}

func (i *MetricInfo) desc() *prometheus.Desc {
	return prometheus.NewDesc(i.Name, i.Help, i.Labels, nil)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), maxInterval)
	defer cancel()
	v, err := m.gauge.read(ctx)
	ch <- prometheus.MustNewConstMetric(upInfo.desc(), prometheus.GaugeValue, yes(err == nil))
	if err != nil {
		return
	}
	for i := range readMetrics {
		x := &readMetrics[i]
		desc, kind := x.desc(), prometheus.GaugeValue
		if x.Type == counter {
			kind = prometheus.CounterValue
		}
		x.read(m, v, func(value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(desc, kind, value, labels...)
		})
	}
}

// counted counts every call of the schema's services.
func (m *Metrics) counted() connect.Interceptor { return &callCounter{m.requests} }

type callCounter struct{ calls *prometheus.CounterVec }

func (c *callCounter) count(procedure string, err error) {
	method := strings.TrimPrefix(procedure, "/baton.v1.")
	code := "ok"
	if err != nil {
		code = connect.CodeOf(err).String()
	}
	c.calls.WithLabelValues(method, code).Inc()
}

func (c *callCounter) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		a, err := next(ctx, r)
		c.count(r.Spec().Procedure, err)
		return a, err
	}
}

func (c *callCounter) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (c *callCounter) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, s connect.StreamingHandlerConn) error {
		err := next(ctx, s)
		c.count(s.Spec().Procedure, err)
		return err
	}
}
