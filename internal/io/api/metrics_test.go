package api

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

func someVitals() *Vitals {
	first := cluster.WallTime(time.Now().Add(-1000 * time.Second).UnixNano())
	return &Vitals{
		Overview: &cluster.Overview{Cluster: "ledger", ID: "1", Node: "alpha", Quorum: true, Coordinator: "alpha", Term: 3, Applied: 812, Links: []string{"lan"},
			Timing: cluster.Timing{Takeover: 3 * time.Second, L: 2 * time.Second, D: 1800 * time.Millisecond},
			Nodes: []cluster.NodeView{{ID: "alpha", Heard: true, Fresh: true, LeaseRuns: true, LeaseLeft: 1500 * time.Millisecond},
				{ID: "beta", Heard: true, Fresh: true, Ago: 250 * time.Millisecond, Links: []cluster.LinkView{{Heard: true, Ago: 250 * time.Millisecond, RoundTrip: time.Millisecond}}},
				{ID: "gamma", Role: cluster.Witness, Links: []cluster.LinkView{{}}}},
			Groups: []cluster.GroupView{
				{ID: "orders", Owner: "alpha", Epoch: 7, Serving: true, Next: "beta", Service: cluster.ServiceView{First: first, Planned: 500 * time.Millisecond,
					Unplanned: 1500 * time.Millisecond, Moves: cluster.MoveCounts{Failovers: 2, Switchovers: 1}}},
				{ID: "reports", Owner: "beta", Epoch: 1, Service: cluster.ServiceView{First: first, Down: 10 * time.Second}}}},
		Links: []LinkVitals{{Link: "lan", Up: true, Strange: 5, Peers: []PeerVitals{{Node: "beta", Sent: 100, Received: 90, Forged: 1}, {Node: "gamma", Sent: 100, Failed: 3}}}},
	}
}

// TestMetricNames: every metric follows Prometheus' conventions, is listed for the documentation, and is what
// the list says.
func TestMetricNames(t *testing.T) {
	m := NewMetrics("9.9", func() (*Vitals, error) { return someVitals(), nil })
	m.requests.WithLabelValues("Baton/Status", "ok").Inc()
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "baton_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "baton_") {
			continue
		}
		found[f.GetName()] = true
		i := slices.IndexFunc(MetricList(), func(i MetricInfo) bool { return i.Name == f.GetName() })
		if i < 0 {
			t.Errorf("%s is told and not listed", f.GetName())
			continue
		}
		info := MetricList()[i]
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		want := slices.Clone(info.Labels)
		slices.Sort(want)
		if kind := strings.ToLower(f.GetType().String()); kind != info.Type || f.GetHelp() != info.Help || !slices.Equal(labels, want) {
			t.Errorf("%s is a %s with %q, its list says %+v", f.GetName(), kind, labels, info)
		}
	}
	for _, i := range MetricList() {
		if !found[i.Name] {
			t.Errorf("%s is listed and not told", i.Name)
		}
	}
}

func TestMetricValues(t *testing.T) {
	m := NewMetrics("9.9", func() (*Vitals, error) { return someVitals(), nil })
	m.Synced(3 * time.Millisecond)
	m.Woke(20 * time.Microsecond)
	m.Stalled()
	m.GateWritten(nil)
	m.GateWritten(errors.New("no"))
	text := scrape(t, m.Handler())
	for _, want := range []string{
		`baton_agent_up 1`,
		`baton_node_info{cluster="ledger",node="alpha",role="member"} 1`,
		`baton_group_serving{group="orders"} 1`, `baton_group_serving{group="reports"} 0`, `baton_group_served{group="reports"} 0`,
		`baton_group_takeover_ready{group="orders"} 1`, `baton_group_epoch{group="orders"} 7`,
		`baton_group_moves_total{group="orders",reason="failover"} 2`,
		`baton_group_downtime_seconds_total{cause="planned",group="orders"} 0.5`, `baton_group_downtime_seconds_total{cause="unplanned",group="orders"} 1.5`,
		`baton_group_outage_seconds{group="reports"} 10`, `baton_group_availability_ratio{group="orders"} 0.998`, `baton_group_availability_ratio{group="reports"} 0.99`,
		`baton_lease_remaining_seconds 1.5`, `baton_detection_seconds 1.8`, `baton_coordinator 1`, `baton_quorum 1`, `baton_term 3`, `baton_log_index 812`,
		`baton_peer_heard{peer="beta"} 1`, `baton_peer_heard{peer="gamma"} 0`, `baton_peer_heard_age_seconds{peer="beta"} 0.25`,
		`baton_link_round_trip_seconds{link="lan",peer="beta"} 0.001`,
		`baton_link_packets_sent_total{link="lan",peer="beta"} 100`, `baton_link_packets_dropped_total{link="lan",peer="beta",reason="forged"} 1`,
		`baton_link_packets_strange_total{link="lan"} 5`,
		`baton_disk_sync_seconds_count 1`, `baton_disk_sync_seconds_bucket{le="0.0032"} 1`, `baton_loop_lag_seconds_count 1`, `baton_loop_stalls_total 1`,
		`baton_gate_writes_total 1`, `baton_gate_write_errors_total 1`,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("%s is not told", want)
		}
	}
	for _, never := range []string{`peer="alpha"`, `baton_link_heard_age_seconds{link="lan",peer="gamma"}`} {
		if strings.Contains(text, never) {
			t.Errorf("%s is told", never)
		}
	}
}

func scrape(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return "\n" + w.Body.String()
}

// TestLoopThatHangs: monitors are answered in time, and told so; the loop is asked once, however often they ask.
func TestLoopThatHangs(t *testing.T) {
	var asked atomic.Int64
	free := make(chan struct{})
	m := NewMetrics("9.9", func() (*Vitals, error) {
		asked.Add(1)
		<-free
		return someVitals(), nil
	})
	h := m.Handler()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
			if w.Code != http.StatusServiceUnavailable {
				t.Errorf("healthz of an agent whose loop hangs: %d", w.Code)
			}
		})
	}
	all.Wait()
	if text := scrape(t, h); !strings.Contains(text, "\nbaton_agent_up 0") || strings.Contains(text, "baton_quorum") || !strings.Contains(text, "go_goroutines") {
		t.Errorf("an agent whose loop hangs tells:\n%s", text)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the loop was asked %d times", n)
	}
	close(free)
	for range 1000 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
	}
	if n := asked.Load(); n > 100 {
		t.Errorf("the loop was asked %d times for 1000 requests", n)
	}
}

func get(t *testing.T, method, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := (&http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer a.Body.Close()
	text, _ := io.ReadAll(a.Body)
	return a.StatusCode, string(text)
}

// TestHealthListener: it answers reads, at the address that it was told and nowhere else, and never the API.
func TestHealthListener(t *testing.T) {
	v := someVitals()
	m := NewMetrics("9.9", func() (*Vitals, error) { c := *v; o := *v.Overview; c.Overview = &o; return &c, nil })
	h := NewHealth(m, slog.New(slog.DiscardHandler))
	defer h.Close()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(taken.Addr().String())
	h.Listen(func() netip.AddrPort { return at }) // in use at first
	time.Sleep(50 * time.Millisecond)
	taken.Close()
	base := fmt.Sprintf("http://%s", at)
	until(t, func() bool { code, _ := get(t, "GET", base+"/healthz"); return code == 200 })
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/v1/groups/orders/primary": 200,
		"/v1/groups/reports/primary": 503, "/v1/groups/none/primary": 404, "/": 404, "/debug/pprof/": 404, "/baton.v1.Baton/Status?encoding=json&message=%7B%7D": 404} {
		if code, text := get(t, "GET", base+path); code != want {
			t.Errorf("GET %s: %d, want %d: %s", path, code, want, text)
		}
	}
	for i := range 2 * maxHealthConns { // each keeps its connection
		kept := &http.Client{Transport: &http.Transport{}, Timeout: 20 * time.Second}
		answer, err := kept.Get(base + "/healthz")
		if err != nil {
			t.Fatalf("connection %d, while others are idle: %v", i, err)
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		defer kept.CloseIdleConnections()
	}
	for _, path := range []string{"/healthz", "/metrics", "/v1/groups/orders/primary"} {
		if code, _ := get(t, "POST", base+path); code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, code)
		}
	}
	v.Overview.Nodes[0].Sick = true
	until(t, func() bool {
		code, text := get(t, "GET", base+"/readyz")
		return code == 503 && strings.Contains(text, "disk")
	})
	if code, _ := get(t, "GET", base+"/healthz"); code != 200 {
		t.Error("a sick disk is no reason to call the agent dead")
	}
	h.Listen(func() netip.AddrPort { return netip.AddrPort{} })
	if code, _ := get(t, "GET", base+"/healthz"); code != 0 {
		t.Errorf("it still answers: %d", code)
	}
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not so within 30 s")
		}
	}
}

// counting is a teller whose calls are counted.
type counting struct {
	*teller
	m *Metrics
}

func (c counting) Metrics() *Metrics { return c.m }

// TestCallsAreCounted: by method and outcome; what is no method of ours makes no series.
func TestCallsAreCounted(t *testing.T) {
	m := NewMetrics("9.9", func() (*Vitals, error) { return someVitals(), nil })
	socket, c := serve(t, counting{newTeller("alpha"), m})
	for range 3 {
		if _, err := c.Status(t.Context(), &batonv1.StatusRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Explain(t.Context(), &batonv1.ExplainRequest{Subject: "nonsense"}); err == nil {
		t.Fatal("nonsense is explained")
	}
	unix := &http.Client{Transport: c.transport}
	for _, path := range []string{"/baton.v1.Baton/Nonsense", "/x/y"} {
		r, err := unix.Post("http://baton"+path, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(socket, err)
		}
		r.Body.Close()
	}
	r, err := unix.Get("http://baton/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	var got []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "baton_api_requests_total") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{`baton_api_requests_total{code="not_found",method="Baton/Explain"} 1`, `baton_api_requests_total{code="ok",method="Baton/Status"} 3`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
