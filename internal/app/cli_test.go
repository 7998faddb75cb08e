package app

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
	"baton/internal/io/api"
)

var update = flag.Bool("golden", false, "write the golden files anew; review what changed")

// stage is a cluster that looks as it is told and does what it is told.
type stage struct {
	noConfig
	fakeAccess
	mu    sync.Mutex
	view  cluster.Overview
	lines []cluster.Line
	asked []api.MoveRequest
	acted []api.ActRequest
	reply api.MoveReply
}

func (s *stage) Overview(context.Context) (*cluster.Overview, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.view
	return &o, nil
}

func (s *stage) Move(_ context.Context, r api.MoveRequest) (api.MoveReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r)
	if r.DryRun && s.reply.Done {
		return api.MoveReply{Done: true, To: s.reply.To}, nil
	}
	return s.reply, nil
}

func (s *stage) Act(_ context.Context, r api.ActRequest) (api.MoveReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acted = append(s.acted, r)
	return s.reply, nil
}

func (s *stage) Form(context.Context, []cluster.NodeID, string) (api.MoveReply, error) {
	return s.reply, nil
}

func (s *stage) Roll(context.Context) (*api.Roll, error) { return &api.Roll{}, nil }

func (s *stage) History(context.Context) ([]cluster.Line, error) { return s.lines, nil }
func (s *stage) Version() string                                 { return "9.9" }

const ms = time.Millisecond

// day is a wall time on one day.
func day(clock string) cluster.WallTime {
	t, err := time.Parse("2006-01-02 15:04:05", "2026-03-01 "+clock)
	if err != nil {
		panic(err)
	}
	return cluster.WallTime(t.UnixNano())
}

// healthy is a cluster in which all is well, as alpha sees it.
func healthy() *stage {
	heard := func(a, b time.Duration) []cluster.LinkView {
		return []cluster.LinkView{{Heard: true, Ago: a}, {Heard: true, Ago: b}}
	}
	return &stage{
		view: cluster.Overview{
			Cluster: "ledger", ID: "1f2e3d4c", Node: "alpha", Quorum: true, Coordinator: "beta", Term: 3, Applied: 812,
			Revision: 4, Voters: 3, VotersHeard: 3,
			Timing: cluster.Timing{Takeover: 3 * time.Second, L: 2400 * ms, H: 240 * ms, D: 2160 * ms, Stall: 15 * ms, Sync: ms, RTT: ms, Step: 192 * ms, RhoPPM: 5000},
			Links:  []string{"lan", "cross"},
			Nodes: []cluster.NodeView{
				{ID: "alpha", Role: cluster.Member, Heard: true, Fresh: true, Number: 3, Membership: cluster.Votes, Admitted: true, LeaseRuns: true, LeaseLeft: 2130 * ms},
				{ID: "beta", Role: cluster.Member, Heard: true, Fresh: true, Ago: 12 * ms, Membership: cluster.Votes, Links: heard(12*ms, 14*ms), Number: 2, Admitted: true, LeaseRuns: true},
				{ID: "gamma", Role: cluster.Witness, Heard: true, Fresh: true, Ago: 9 * ms, Membership: cluster.Votes, Links: []cluster.LinkView{{Heard: true, Ago: 9 * ms}, {Absent: true}}},
			},
			Groups: []cluster.GroupView{
				{ID: "orders", Owner: "alpha", Last: "alpha", Epoch: 7, Serving: true, Policy: "automatic", Failback: "never", Next: "beta",
					Nodes: []cluster.GroupNodeView{
						{Node: "alpha", Phase: "serving", Epoch: 7}, {Node: "beta", Phase: "standby", Hot: true, Epoch: 6}},
					Decision: "its owner holds its lease and reports no failure", Rule: "G90", Evidence: []string{"alpha serves epoch 7"},
					Own: []cluster.ResourceView{
						{ID: "web", Kind: "process", Status: cluster.StatusRunning, Depth: cluster.Hot}, {ID: "vip", Kind: "vip", Status: cluster.StatusRunning}}},
			},
		},
		lines: []cluster.Line{
			{Index: 3, Wall: day("06:00:01"), By: "beta", Rule: "N05", Why: "it is heard, and its former lease is over", Did: []string{"admit alpha#3"}, Nodes: []cluster.NodeID{"alpha"}},
			{Index: 640, Wall: day("06:10:43"), By: "beta", Rule: "N02", Why: "a majority of the voters has not heard it for the detection time",
				Evidence: []string{"not heard for 2.16s by beta, gamma (2 of 3 voters, 2 needed)", "lease number 2"}, Rejected: []string{"delta: was never heard"},
				Did: []string{"evict alpha#2", "assign orders to beta as epoch 6"}, Groups: []cluster.GroupID{"orders"}, Nodes: []cluster.NodeID{"alpha", "beta"}},
			{Index: 700, Wall: day("07:00:00"), By: "anna (pid 4711)", Why: "asked for", Did: []string{"move orders from beta to alpha"}, Groups: []cluster.GroupID{"orders"}},
			{Index: 702, Wall: day("07:00:00"), By: "beta", Rule: "G12", Why: "a switchover was asked for, and the target is ready",
				Did: []string{"assign orders to alpha as epoch 7"}, Dropped: []string{"ban orders from beta: there is one already"}, Groups: []cluster.GroupID{"orders"}, Nodes: []cluster.NodeID{"alpha"}},
		},
		reply: api.MoveReply{Done: true, Text: "orders serves on beta, epoch 8", To: "beta"},
	}
}

func forming() *stage {
	return &stage{view: cluster.Overview{Cluster: "ledger", Node: "alpha", Forming: "gamma is not heard", Quorum: true, Links: []string{"lan"},
		Timing: cluster.Timing{Takeover: 3 * time.Second, L: 2400 * ms, D: 2160 * ms},
		Nodes: []cluster.NodeView{
			{ID: "alpha", Heard: true, Fresh: true},
			{ID: "beta", Heard: true, Fresh: true, Ago: 5 * ms, Links: []cluster.LinkView{{Heard: true, Ago: 5 * ms}}},
			{ID: "gamma", Role: cluster.Witness, Links: []cluster.LinkView{{}}, Trouble: "what comes in its name does not open with this node's key: one of the two has another key, or somebody else speaks"}}},
		reply: api.MoveReply{Text: "the cluster is still forming: gamma is not heard", Hint: "see baton status"}}
}

// alone hears nobody any more; its lease has run out.
func alone() *stage {
	s := healthy()
	v := &s.view
	v.Quorum, v.Coordinator, v.VotersHeard = false, "", 1
	v.Nodes[0].LeaseRuns, v.Nodes[0].LeaseLeft = false, 0
	for i := range v.Nodes[1:] {
		n := &v.Nodes[i+1]
		n.Fresh, n.LeaseRuns, n.Ago = false, false, 75*time.Second
		n.Links = []cluster.LinkView{{Heard: true, Ago: 75 * time.Second}, {}}
	}
	g := &v.Groups[0]
	g.Serving, g.Next, g.Nodes = false, "", []cluster.GroupNodeView{
		{Node: "alpha", Phase: "standby", Epoch: 7, Can: "says that its lease does not run"}, {Node: "beta", Phase: "unknown", Can: "has not been heard for 2.16s"}}
	return s
}

// unheard hears the others, who do not hear it.
func unheard() *stage {
	s := healthy()
	v := &s.view
	v.Coordinator = ""
	v.Nodes[0].LeaseRuns, v.Nodes[0].LeaseLeft = false, 0
	v.Nodes[1].Deaf, v.Nodes[1].Leads, v.Nodes[2].Deaf = true, true, true
	g := &v.Groups[0]
	g.Owner, g.Last, g.Epoch, g.Next = "beta", "beta", 8, ""
	g.Nodes = []cluster.GroupNodeView{{Node: "alpha", Phase: "standby", Epoch: 7, Can: "says that its lease does not run"}, {Node: "beta", Phase: "serving", Epoch: 8}}
	return s
}

// broken: the service could be started nowhere.
func broken() *stage {
	s := healthy()
	v := &s.view
	v.Nodes[1].Sick = true
	v.Nodes[2].Links[1] = cluster.LinkView{Heard: true, Ago: 41 * time.Second}
	v.Groups = append(v.Groups, cluster.GroupView{ID: "reports", Last: "alpha", Epoch: 2, Policy: "manual", Failback: "automatic after 10m0s",
		Nodes: []cluster.GroupNodeView{{Node: "alpha", Phase: "standby", Can: "is drained by anna (pid 13)"}, {Node: "beta", Phase: "stopped"}},
		Next:  "beta", NextOnCommand: true,
		Decision: "its failover is manual: it waits until somebody moves it, with baton switch", Rule: "G21"},
		cluster.GroupView{ID: "wiki", Owner: "alpha", Last: "alpha", Epoch: 2, Serving: true, Policy: "manual", Failback: "never",
			Nodes: []cluster.GroupNodeView{{Node: "alpha", Phase: "serving", Epoch: 2}, {Node: "beta", Phase: "standby"}},
			Next:  "beta", NextOnCommand: true, NextBanned: true,
			Decision: "its owner holds its lease and reports no failure", Rule: "G90"})
	g := &v.Groups[0]
	g.Serving, g.Next = false, ""
	g.Nodes[0] = cluster.GroupNodeView{Node: "alpha", Phase: "failed", Epoch: 7, Reason: "web: exited with 1 after 20ms"}
	g.Nodes[1] = cluster.GroupNodeView{Node: "beta", Phase: "stopped", Epoch: 6, Can: "is banned after a failure: web: exited with 1 after 30ms"}
	g.Bans = []cluster.Ban{{Group: "orders", Node: "beta", Until: day("07:30:00"), Reason: "web: exited with 1 after 30ms"}}
	g.Decision, g.Rule, g.Evidence = "it failed on its node, and no other can take it: it is restarted there", "G31", nil
	g.Rejected = []string{"beta: is banned after a failure: web: exited with 1 after 30ms"}
	g.Own[0].Status, g.Own[0].Reason = cluster.StatusFailed, "exited with 1 after 20ms"
	s.reply = api.MoveReply{Text: "beta can't take orders: it is banned after a failure: web: exited with 1 after 30ms", Hint: "baton status shows the nodes"}
	return s
}

// instructed: people have said much; alpha failed lately, so that orders would go back there only in need.
func instructed() *stage {
	s := healthy()
	v := &s.view
	note := func(by, reason string, until cluster.WallTime) cluster.Note {
		return cluster.Note{By: by, Reason: reason, Until: until}
	}
	v.Instructions = []cluster.InstructionView{
		{Verb: "pause", Group: "billing", Note: note("root (pid 12)", "new switches", day("07:30:00"))},
		{Verb: "pin", Group: "billing", Node: "alpha", Note: note("anna (pid 13)", "", 0)},
		{Verb: "drain", Node: "beta", Note: note("root (pid 14)", "new kernel", day("08:30:00"))},
		{Verb: "stop", Group: "reports", Note: note("root (pid 15)", "", 0)},
		{Verb: "stop", Group: "orders", Resource: "web", Note: note("root (pid 16)", "", day("09:00:00"))},
	}
	v.Groups[0].NextBanned = true
	v.Groups[0].Bans = []cluster.Ban{{Group: "orders", Node: "beta", Until: day("07:30:00"), Reason: "web: exited with 1 after 30ms", Resource: "web"}}
	v.Groups[0].Own[0].Status = cluster.StatusStopped
	v.Groups = append(v.Groups,
		cluster.GroupView{ID: "billing", Owner: "alpha", Last: "alpha", Epoch: 3, Serving: true, Policy: "automatic", Failback: "never",
			Nodes:    []cluster.GroupNodeView{{Node: "alpha", Phase: "serving", Epoch: 3}, {Node: "beta", Phase: "standby", Hot: true, Can: "is not where it is pinned: to alpha, by anna (pid 13)"}},
			Decision: "it is paused: it is watched, and nothing is decided on it", Rule: "G06"},
		cluster.GroupView{ID: "reports", Last: "alpha", Epoch: 2, Policy: "automatic", Failback: "never",
			Nodes:    []cluster.GroupNodeView{{Node: "alpha", Phase: "stopped"}, {Node: "beta", Phase: "stopped"}},
			Decision: "somebody has stopped it, and it stays so until it is started or its time is up", Rule: "G05"})
	s.reply = api.MoveReply{Done: true, Text: "it is done"}
	return s
}

// moving: a switchover is under way, and the coordinator has just been lost.
func moving() *stage {
	s := healthy()
	v := &s.view
	v.Coordinator = ""
	v.Groups[0].Move = &cluster.Move{ID: "m1", Group: "orders", From: "alpha", To: "beta", Epoch: 7}
	v.Groups[0].Nodes[1].Phase = "preparing"
	v.Groups[0].Decision, v.Groups[0].Rule = "a switchover was asked for, and the target is ready", "G12"
	s.reply = api.MoveReply{Text: "a move of orders to beta is under way", Hint: "wait until it has ended: baton status --wait"}
	return s
}

// serveStage answers with s on a real socket.
func serveStage(t *testing.T, b api.Backend) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "baton-cli-")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "agent.sock")
	server, err := api.Listen(socket, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return socket
}

// baton runs a command in this process.
func baton(t *testing.T, socket string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	t.Setenv("BATON_SOCKET", socket)
	code = runCommand(ctx, args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

var (
	clockTimes = regexp.MustCompile(`(sees it at )\d\d:\d\d:\d\d`)
	jsonTimes  = regexp.MustCompile(`(?m)^(  (?:  )?"time": )"[^"]*"(,\n\s*"version")`)
)

// golden compares with testdata/NAME.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; -golden writes it anew.\n--- got\n%s--- want\n%s", path, got, want)
	}
}

func TestCommands(t *testing.T) {
	for _, c := range []struct {
		name     string
		stage    *stage
		commands []string
	}{
		{"healthy", healthy(), []string{"status", "status --wait", "explain orders", "explain 640", "explain 5", "explain nothing", "history", "history --group orders -n 2",
			"history --group nothing", "switch orders --to beta", "switch orders --dry-run", "failback orders"}},
		{"forming", forming(), []string{"status", "status --wait --timeout 300ms", "history", "explain orders", "switch orders"}},
		{"no_quorum", alone(), []string{"status", "explain orders", "status --wait --timeout 300ms"}},
		{"failed", broken(), []string{"status", "explain orders", "explain wiki", "switch orders --to beta", "status --wait --timeout 300ms"}},
		{"unheard", unheard(), []string{"status"}},
		{"moving", moving(), []string{"status", "switch orders", "explain orders"}},
		{"json", healthy(), []string{"status --json", "switch orders --json", "history -n 1 --json", "explain 3 --json", "explain nothing --json"}},
		{"json_refused", forming(), []string{"switch orders --json"}},
		{"instructed", instructed(), []string{"status", "explain orders", "status --json", "status --wait --timeout 300ms", "pause", "pause orders --for 2h --reason switches",
			"resume", "pin orders alpha", "unpin orders", "drain beta --for 1h", "undrain beta", "stop orders/web", "start orders", "restart orders/web --no-wait", "clear orders",
			"clear orders --json"}},
		{"refused", broken(), []string{"start orders", "drain alpha --json", "pin orders beta"}},
		{"usage", healthy(), []string{"stop orders/", "stop /web", "drain beta --for 0s", "pause --for -1m", "pin orders", "drain", "switch", "status --watch --wait", "nonsense", "status --timeout soon", "explain", "agent --config /does/not/exist", "check /does/not/exist"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket := serveStage(t, c.stage)
			var all strings.Builder
			for _, line := range c.commands {
				code, out, errOut := baton(t, socket, strings.Fields(line)...)
				fmt.Fprintf(&all, "$ baton %s\n%s%s[%d]\n\n", line, out, errOut, code)
			}
			got := clockTimes.ReplaceAllString(all.String(), "${1}TIME")
			got = jsonTimes.ReplaceAllString(got, `$1"TIME"$2`)
			golden(t, c.name+".golden", got)
		})
	}
}

func TestUnreached(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	for _, line := range []string{"status", "status --watch", "status --watch --json", "status --wait --timeout 100ms", "switch orders", "failback orders", "explain orders", "history"} {
		code, out, errOut := baton(t, socket, strings.Fields(line)...)
		want := fmt.Sprintf("error: no agent reached at %s: no agent listens there\nhint: systemctl start baton, or name another socket with --socket or BATON_SOCKET\n", socket)
		if code != exitUnreached || out != "" || errOut != want {
			t.Errorf("%s: exit %d\n%s%s", line, code, out, errOut)
		}
	}
}

// An agent that starts while `status --wait` waits is found, and so is a group that serves at last.
func TestWaitForTheCluster(t *testing.T) {
	s := moving()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	type ended struct {
		code     int
		out, err string
	}
	result := make(chan ended, 1)
	t.Setenv("BATON_SOCKET", socket)
	go func() {
		var o, e bytes.Buffer
		code := runCommand(t.Context(), []string{"status", "--wait", "--timeout", "20s"}, nil, &o, &e)
		result <- ended{code, o.String(), e.String()}
	}()
	time.Sleep(2 * pollEvery)
	server, err := api.Listen(socket, s)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	time.Sleep(2 * pollEvery)
	select {
	case r := <-result:
		t.Fatalf("it ended while a move was under way: %+v", r)
	default:
	}
	calm := healthy()
	s.mu.Lock()
	s.view = calm.view
	s.mu.Unlock()
	if r := <-result; r.code != exitDone || !strings.Contains(r.out, "healthy") {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
	}
}

// A watch shows each change, and the end of what it watches is no failure of the watcher.
func TestWatchCommand(t *testing.T) {
	s := healthy()
	socket := serveStage(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out lockedBuffer
	code := make(chan int, 1)
	go func() {
		code <- runCommand(ctx, []string{"status", "--watch", "--json", "--socket", socket}, nil, &out, &out)
	}()
	until(t, func() bool { return strings.Contains(out.String(), `"epoch":"7"`) })
	s.mu.Lock()
	s.view.Groups = healthy().view.Groups
	s.view.Groups[0].Epoch = 8
	s.mu.Unlock()
	until(t, func() bool { return strings.Contains(out.String(), `"epoch":"8"`) })
	cancel()
	if c := <-code; c != exitDone {
		t.Errorf("exit %d\n%s", c, out.String())
	}
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * ms) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}

// Progress is told while a move is waited for.
func TestProgress(t *testing.T) {
	s := &slowMove{stage: healthy(), begun: make(chan struct{}), end: make(chan struct{})}
	socket := serveStage(t, s)
	var out bytes.Buffer
	var told lockedBuffer
	k := &console{ctx: t.Context(), out: &out, err: &told, socket: socket, progress: true}
	ended := make(chan error, 1)
	go func() { ended <- (&switchCmd{Group: "orders", To: "beta"}).Run(k) }()
	<-s.begun
	for epoch := cluster.Epoch(8); !strings.Contains(told.String(), "beta: alpha stopping"); epoch++ {
		// The watch may have begun after a change: it is told of the next.
		s.mu.Lock()
		g := healthy().view.Groups
		g[0].Owner, g[0].Epoch, g[0].Nodes[0].Phase = "beta", epoch, "stopping"
		s.view.Groups = g
		s.mu.Unlock()
		time.Sleep(200 * ms)
		if epoch > 100 {
			t.Fatal("no progress is told")
		}
	}
	close(s.end)
	if err := <-ended; err != nil || out.String() != "orders serves on beta, epoch 8\n" {
		t.Errorf("got %v, %q", err, out.String())
	}
}

type slowMove struct {
	*stage
	begun, end chan struct{}
}

func (s *slowMove) Move(ctx context.Context, r api.MoveRequest) (api.MoveReply, error) {
	if r.DryRun {
		return s.stage.Move(ctx, r)
	}
	close(s.begun)
	<-s.end
	return s.stage.Move(ctx, r)
}

func TestWhoAsked(t *testing.T) {
	s := healthy()
	socket := serveStage(t, s)
	if code, _, errOut := baton(t, socket, "switch", "orders", "--to", "beta", "--no-wait"); code != exitDone {
		t.Fatalf("exit %d: %s", code, errOut)
	}
	if n := len(s.asked); n != 2 || !s.asked[0].DryRun || s.asked[1].DryRun || s.asked[1].To != "beta" {
		t.Errorf("without waiting: first whether, then do; asked were %+v", s.asked)
	}
	if by := s.asked[0].By; !strings.HasSuffix(by, fmt.Sprintf(" (uid %d) on alpha", os.Getuid())) {
		t.Errorf("it was asked by %q", by)
	}
}

func TestKeygen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if code, _, errOut := baton(t, "none", "keygen", file); code != exitDone {
		t.Fatalf("exit %d: %s", code, errOut)
	}
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.ParseKey(string(first)); err != nil {
		t.Error(err)
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v", info.Mode())
	}
	code, _, errOut := baton(t, "none", "keygen", file)
	if second, _ := os.ReadFile(file); code != exitFailed || !bytes.Equal(first, second) || !strings.Contains(errOut, "hint: ") {
		t.Errorf("a second key: exit %d, %s", code, errOut)
	}
	code, out, _ := baton(t, "none", "keygen")
	if _, err := wire.ParseKey(out); code != exitDone || err != nil || out == string(first) {
		t.Errorf("to standard output: exit %d, %v", code, err)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"switch", "--help"}} {
		if code, out, _ := baton(t, "none", args...); code != exitDone || !strings.Contains(out, "Usage: baton") {
			t.Errorf("%v: exit %d\n%s", args, code, out)
		}
	}
	code, out, _ := baton(t, serveStage(t, healthy()), "version", "--json")
	var v struct{ Version, AgentVersion string }
	if err := json.Unmarshal([]byte(out), &v); code != exitDone || err != nil || v.Version != Version() || v.AgentVersion != "9.9" {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
	// The simulator has arguments of its own.
	stopped, stop := context.WithCancel(t.Context())
	stop()
	var told bytes.Buffer
	if code := runCommand(stopped, []string{"simulate", "--seeds", "1..1000"}, strings.NewReader(""), &told, &told); code != exitFailed ||
		!strings.Contains(told.String(), "stopped after 0 of 1000 seeds") {
		t.Errorf("simulate, stopped: exit %d, %s", code, told.String())
	}
	if code, _, errOut := baton(t, "none", "simulate", "--seeds", "x"); code != exitUsage || !strings.Contains(errOut, "seed") {
		t.Errorf("simulate: exit %d, %s", code, errOut)
	}
}
