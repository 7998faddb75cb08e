package app

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/trial"
)

// buildBaton builds what users run, where another user may run it too.
func buildBaton(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "baton-dev-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "baton")
	if err := trial.BuildAs(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// runDev runs `baton dev` and returns what it printed.
func runDev(t *testing.T, in string, as *syscall.Credential, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func wantMatches(t *testing.T, out string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(p).MatchString(out) {
			t.Errorf("%q matches nothing in:\n%s", p, out)
		}
	}
}

func TestDevAuto(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the lab takes root")
	}
	out, err := runDev(t, "", nil, buildBaton(t), "dev", "--auto", "--only", "power,switch")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wantMatches(t, out, `power cut +\d+ +(alpha → beta|beta → alpha) +0 +1 +recovered`, `switchover +\d+ +(alpha → beta|beta → alpha) +0 +1 +recovered`,
		`baton +evict (alpha|beta)#\d+; assign web to (alpha|beta)`, `client +gap of .*, then (alpha|beta) answers, epoch`)
	if strings.Contains(out, "agent frozen") {
		t.Errorf("more was played than --only names:\n%s", out)
	}
	if _, err := os.Lstat(devSockets); err == nil {
		if _, err := filepath.EvalSymlinks(devSockets); err != nil {
			t.Errorf("%s was left: %v", devSockets, err)
		}
	}
}

// asNobody returns the credentials of a user without any right.
func asNobody(t *testing.T) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("nobody")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("only root can run a program as nobody")
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func TestDevWithoutRoot(t *testing.T) {
	binary := buildBaton(t)
	out, err := runDev(t, "", asNobody(t), binary, "dev", "--auto", "--takeover", "2s", "--only", "power,switch,cable")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wantMatches(t, out, `no gate: nothing cuts a frozen agent off`, `127\.0\.\d+\.11`, `LAN cable pulled.* takes root`,
		`power cut +\d+ +(alpha → beta|beta → alpha) +0 +1 +recovered`, `switchover +\d+ +(alpha → beta|beta → alpha) +0 +1 +recovered`)
	left, err := exec.Command("ps", "-eo", "args").Output()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(left, []byte(binary)) {
		t.Errorf("something of it still runs:\n%s", left)
	}
}

// Demos that run at once have networks of their own, and none has one where something else listens.
func TestLoopbackClaim(t *testing.T) {
	claim := func() (loopbackNet, io.Closer) {
		n, c, err := claimLoopback()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return n, c
	}
	first, held := claim()
	if second, _ := claim(); second == first {
		t.Errorf("two demos have network %d", first)
	}
	other, err := net.Listen("tcp4", first.service("beta"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	held.Close()
	if third, _ := claim(); third == first {
		t.Errorf("a demo has network %d, where something else listens", first)
	}
}

func TestDevReadsLines(t *testing.T) {
	out, err := runDev(t, "nonsense\nswitch\nstatus\nq\n", asNobody(t), buildBaton(t), "dev")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wantMatches(t, out, `status --watch --socket`, `q quit`, `you +switch over`, `GROUP +OWNER`, `hot standby`)
}

func TestDevRefuses(t *testing.T) {
	far := filepath.Join(t.TempDir(), "far.yaml")
	text := "cluster: far\nnodes: { alpha: { address: 10.0.0.11 }, beta: { address: 10.0.0.12 }, gamma: { address: 10.9.9.13, role: witness } }\n"
	text += "groups:\n  web: { nodes: [alpha, beta], resources: [{ vip: 10.0.0.50/24 }] }\n"
	if err := os.WriteFile(far, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"dev", "--auto", "--only", "flood"}, `no fault "flood"`},
		{[]string{"dev", "--loopback", far}, "take root"},
		{[]string{"dev", far}, "baton dev has no routers"},
	} {
		if os.Geteuid() != 0 && len(c.args) == 2 {
			continue // without root a file is refused before it is read
		}
		var out, errOut bytes.Buffer
		if code := runCommand(context.Background(), c.args, strings.NewReader(""), &out, &errOut); code != exitUsage || !strings.Contains(errOut.String(), c.want) {
			t.Errorf("%v: exit %d, %q is missing in %q", c.args, code, c.want, errOut.String())
		}
	}
}

func TestNoGateElsewhere(t *testing.T) {
	for text, allowed := range map[string]bool{
		"nodes: { a: { address: 127.0.0.11 }, b: { address: 127.0.0.12 }, c: { address: 127.0.0.13 } }":                                                                       true,
		"nodes: { a: { address: 127.0.0.11 }, b: { address: 127.0.0.12 }, c: { address: 10.0.0.13 } }":                                                                        false,
		"nodes: { a: { address: 127.0.0.11 }, b: { address: 127.0.0.12 }, c: { address: 127.0.0.13 } }\ngroups: { g: { nodes: [a, b], resources: [{ vip: 10.0.0.50/24 }] } }": false,
	} {
		p, err := newDevPlan("file", []byte("cluster: x\n"+text+"\n"+func() string {
			if strings.Contains(text, "groups:") {
				return ""
			}
			return "groups: { g: { nodes: [a, b], resources: [{ process: { name: p, command: sleep 1, user: root } }] } }\n"
		}()))
		if err != nil {
			t.Fatal(err)
		}
		if err := allowNoGate(p.spec); (err == nil) != allowed {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestDeedOf(t *testing.T) {
	for line, want := range map[string]byte{"p": 'p', "P\n": 'p', " power ": 'p', "switch": 'w', "q": 'q', "quit": 'q', "": 0, "pp": 0, "\x1b": 0, "kill service": 0} {
		var got byte
		if d := deedOf(line); d != nil {
			got = d.key
		}
		if got != want {
			t.Errorf("%q is key %q, not %q", line, got, want)
		}
	}
	seen := make(map[byte]bool)
	for _, d := range deeds() {
		if seen[d.key] {
			t.Errorf("two deeds have the key %c", d.key)
		}
		seen[d.key] = true
	}
}

// The sender asks each millisecond; times are milliseconds.
func sightAnswer(seq uint64, node string, epoch uint64, at int) answer {
	d := time.Duration(at) * time.Millisecond
	return answer{seq: seq, node: node, epoch: epoch, sent: d, at: d}
}

func TestSightings(t *testing.T) {
	var s sightings
	if x, worth := s.add(sightAnswer(1, "alpha", 1, 1)); !worth || !x.moved {
		t.Errorf("the first answer is not told: %+v", x)
	}
	if _, worth := s.add(sightAnswer(2, "alpha", 1, 2)); worth {
		t.Error("an answer like the last is told")
	}
	s.mark()
	s.add(sightAnswer(3, "alpha", 1, 3))
	x, worth := s.add(sightAnswer(903, "beta", 2, 903))
	if !worth || !x.moved || x.gap != 900*time.Millisecond || s.longest != x.gap || s.changes != 1 {
		t.Errorf("a failover is seen as %+v, longest %v, %d changes", x, s.longest, s.changes)
	}
	if s.both() != 0 {
		t.Errorf("two answered for %v, but they did not", s.both())
	}
	// The older owner comes back, and answers requests that were sent after the newer had begun.
	if x, worth := s.add(sightAnswer(950, "alpha", 1, 950)); worth && x.moved {
		t.Errorf("an older epoch's answer counts as a move: %+v", x)
	}
	if got := s.both(); got != 47*time.Millisecond {
		t.Errorf("two answered for %v, not 47ms", got)
	}
	// The client itself stood still: that is no gap of the service.
	s.mark()
	s.stalled = 90 * time.Millisecond
	if x, worth := s.add(sightAnswer(951, "beta", 2, 1050)); worth || s.longest != 0 {
		t.Errorf("the client's own stall counts as a gap: %+v, longest %v", x, s.longest)
	}
	// The service was slow: the requests were kept, and answered.
	slow := sightAnswer(952, "beta", 2, 1200)
	if x, worth := s.add(slow); !worth || x.late != 150*time.Millisecond || s.longest != 0 {
		t.Errorf("a late answer is seen as %+v, longest %v", x, s.longest)
	}
	// Requests were lost: a gap, though the same node goes on.
	if x, worth := s.add(sightAnswer(1000, "beta", 2, 1300)); !worth || x.gap != 100*time.Millisecond || s.longest != x.gap {
		t.Errorf("an outage of one node is seen as %+v, longest %v", x, s.longest)
	}
}

// Both nodes were asked at 10 to 12 ms. The newer owner's first request lay in its socket until it served, at 13 ms,
// and the older had answered the later ones by then: that is no overlap. What it answers of 14 ms is.
func TestSightingsOfQueuedRequests(t *testing.T) {
	var s sightings
	s.add(sightAnswer(10, "beta", 2, 10))
	first := sightAnswer(11, "alpha", 3, 13)
	first.sent = 11 * time.Millisecond
	s.add(first)
	for at, want := range map[int]time.Duration{12: 0, 14: time.Millisecond} {
		s := s
		s.placed = slices.Clone(s.placed)
		s.add(sightAnswer(uint64(at), "beta", 2, at))
		if got := s.both(); got != want {
			t.Errorf("beta answered a request of %d ms: two answered for %v, not %v", at, got, want)
		}
	}
}

// A machine that stands still is told, and what goes wrong meanwhile is not called baton's fault; but two that answer at
// once are.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		r                 played
		stalled, gateless bool
		want              string
		colour            colour
	}{
		{played{}, false, false, "recovered", green},
		{played{stall: 80 * time.Millisecond}, true, false, "recovered; the machine stood still for 80ms", green},
		{played{trouble: "the group moved"}, false, false, "the group moved", red},
		{played{trouble: "the group moved", stall: 300 * time.Millisecond}, true, false, "not judged: the group moved; the machine stood still for 300ms", yellow},
		{played{both: time.Millisecond, stall: 300 * time.Millisecond}, true, false, "TWO ANSWERED AT ONCE; the machine stood still for 300ms", red},
		{played{both: time.Millisecond}, false, true, "two answered: no gate here", yellow},
		{played{trick: trick{quiet: true}}, false, false, "nobody noticed", green},
		{played{trick: trick{quiet: true}, outage: gapShown}, false, false, "served on", green},
	} {
		if got := c.r.verdict(c.stalled, c.gateless); got.text != c.want || got.colour != c.colour {
			t.Errorf("%+v: %+v", c.r, got)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		line    string
		columns int
		want    string
	}{
		{"alpha → beta", 20, "alpha → beta"},
		{"alpha → beta", 7, "alpha →"},
		{"\x1b[31malpha\x1b[0m beta", 3, "\x1b[31malp\x1b[0m"},
	} {
		if got := cut(c.line, c.columns); got != c.want {
			t.Errorf("%q cut to %d columns is %q, not %q", c.line, c.columns, got, c.want)
		}
	}
}

// TestEarlyDeeds: to quit needs no cluster that serves; what is typed before it does is done afterwards, in order.
func TestEarlyDeeds(t *testing.T) {
	for _, c := range []struct {
		typed  string
		early  string
		leaves bool
	}{
		{"q", "", true},
		{"nonsense quit", "", true},
		{"power q", "power,q", false},
	} {
		p := &person{asked: make(chan string)}
		for _, line := range strings.Fields(c.typed) {
			p.hear(line, true)
		}
		if got := strings.Join(p.early, ","); got != c.early || p.leaves != c.leaves {
			t.Errorf("%s: early %q, leaves %v", c.typed, got, p.leaves)
		}
	}
	p := &person{asked: make(chan string)}
	if p.hear("", false); p.asked != nil || p.leaves || strings.Join(p.early, ",") != "quit" {
		t.Errorf("the end of the input: %+v", p)
	}
}
