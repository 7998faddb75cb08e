package resource

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

func requireCgroup(t *testing.T) {
	if cgroupMount() == "" {
		t.Skip("cgroup v2 is not mounted here")
	}
}

func TestStartsAndStops(t *testing.T) {
	b := newBench(t, spec("sleep 1000", nil))
	b.probes(cluster.StatusStopped)
	b.start(3)
	b.probes(cluster.StatusRunning)
	pid := b.pid()
	b.start(3)
	if b.pid() != pid {
		t.Errorf("a second start replaced process %d by %d", pid, b.pid())
	}
	b.stop()
	if alive(pid) {
		t.Error("alive after stop")
	}
	b.probes(cluster.StatusStopped)
	b.stop()
	b.silent()
	if _, err := os.Stat(b.p.group.dir); b.p.group.dir != "" && err == nil {
		t.Errorf("cgroup %s is left behind", b.p.group.dir)
	}
}

// A start returns when the program says that it is ready, not before.
func TestWaitsUntilReady(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 4 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	b := newBench(t, spec("sleep 1000", map[string]any{
		"ready": map[string]any{"http": server.URL, "interval": 5 * time.Millisecond, "timeout": patience}}))
	b.start(1)
	if n := asked.Load(); n != 4 {
		t.Errorf("asked %d times; ready at the 4th", n)
	}
	if !b.p.state.Ready {
		t.Error("readiness is not noted for a later agent")
	}
}

func TestReadyByCommand(t *testing.T) {
	b := newBench(t, spec(`sleep 0.1; touch "${BATON_STATE_FILE%/*}"/up; sleep 1000`, map[string]any{
		"ready": map[string]any{"command": []string{"sh", "-c", `test -e "${BATON_STATE_FILE%/*}"/up`}, "interval": 10 * time.Millisecond}}))
	b.start(1)
	if _, err := os.Stat(filepath.Join(b.env.RunDir, "up")); err != nil {
		t.Error("start returned before the command said yes")
	}
}

func TestNotReadyInTime(t *testing.T) {
	address := refusing(t)
	b := newBench(t, spec("sleep 1000", map[string]any{
		"start_timeout": askedOnce,
		"ready":         map[string]any{"tcp": address, "interval": 10 * time.Millisecond}}))
	err := b.p.Start(t.Context(), 1)
	if err == nil || !strings.Contains(err.Error(), "not ready (limit 1s): connect to "+address+": ") ||
		!strings.Contains(err.Error(), "refused") {
		t.Errorf("start: %v", err)
	}
	b.probes(cluster.StatusUnknown)
}

// askedOnce is a start_timeout in which a program is asked at least once whether it is ready, on a busy machine too.
const askedOnce = time.Second

// refusing returns an address of this test's alone that refuses connections.
func refusing(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil { // and nobody listens
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
}

// A program that ends while its start waits ends the wait, and is told once: by the error.
func TestEndsBeforeReady(t *testing.T) {
	b := newBench(t, spec("echo no such database; exit 3", map[string]any{
		"ready": map[string]any{"command": []string{"false"}, "interval": time.Hour}}))
	err := b.p.Start(t.Context(), 1)
	if err == nil || !strings.HasPrefix(err.Error(), "exited with status 3 after ") ||
		!strings.HasSuffix(err.Error(), ", last output: no such database") {
		t.Errorf("start: %v", err)
	}
	b.probes(cluster.StatusStopped)
	b.silent()
}

func TestProgramMissing(t *testing.T) {
	s := spec("", map[string]any{"command": []string{"no-such-program"}})
	b := newBench(t, s)
	err := b.p.Start(t.Context(), 1)
	if err == nil || !strings.Contains(err.Error(), "start no-such-program as root: no program no-such-program in /usr/local/sbin") {
		t.Errorf("start: %v", err)
	}
	b.p.command = []string{"/no/such/program"}
	if err := b.p.Start(t.Context(), 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("start: %v", err)
	}
	b.probes(cluster.StatusStopped)
}

func TestKilledWhenStopIsIgnored(t *testing.T) {
	b := newBench(t, spec(`trap "" TERM; echo > "${BATON_STATE_FILE%/*}"/up; while :; do sleep 0.01; done`,
		map[string]any{"stop_timeout": 100 * time.Millisecond}))
	b.start(1)
	until(t, "the trap is set", func() bool { _, err := os.Stat(filepath.Join(b.env.RunDir, "up")); return err == nil })
	pid, begun := b.pid(), time.Now()
	b.stop()
	if time.Since(begun) < 100*time.Millisecond {
		t.Error("killed before stop_timeout")
	}
	if alive(pid) {
		t.Error("alive after stop")
	}
	b.silent()
}

// A short deadline makes the stop less gentle, not fail.
func TestStopKeepsDeadline(t *testing.T) {
	b := newBench(t, spec(`trap "" TERM; echo x > "${BATON_STATE_FILE%/*}"/up; while :; do sleep 0.01; done`,
		map[string]any{"stop_timeout": time.Hour}))
	b.start(1)
	b.file("up")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if err := b.p.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

const doubleFork = `setsid sh -c 'trap "" TERM HUP; sh -c "echo \$\$ > \"${BATON_STATE_FILE%/*}\"/child; exec sleep 1000" & exit' ; `

// What left session, process group and parent is still in the cgroup.
func TestKillsWhatForkedTwice(t *testing.T) {
	requireCgroup(t)
	b := newBench(t, spec(doubleFork+"exec sleep 1000", nil))
	b.start(1)
	child, err := strconv.Atoi(b.file("child"))
	if err != nil || !alive(child) {
		t.Fatalf("child %d: %v", child, err)
	}
	b.stop()
	if alive(child) {
		t.Error("the child of a child is alive after stop")
	}
}

// When the main program dies, what it started does not live on without it.
func TestDeathTakesTheRestAlong(t *testing.T) {
	requireCgroup(t)
	b := newBench(t, spec(doubleFork+"exec sleep 1000", nil))
	b.start(1)
	child, _ := strconv.Atoi(b.file("child"))
	unix.Kill(b.pid(), unix.SIGKILL)
	if c := b.next(); c.status != cluster.StatusFailed {
		t.Errorf("told %v", c)
	}
	until(t, "the child of a child is dead", func() bool { return !alive(child) })
}

// Processes that only the cgroup tells of are found and can be stopped.
func TestLeftoversAreFound(t *testing.T) {
	requireCgroup(t)
	b := newBench(t, spec("exec sleep 1000", nil))
	group, err := b.p.group.open()
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	stray := exec.Command("sleep", "1000")
	stray.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	b.probes(cluster.StatusFailed)
	b.start(1)
	if err := stray.Wait(); err == nil {
		t.Error("the stray process ended well; it should have been killed before the start")
	}
	b.probes(cluster.StatusRunning)
}

// A cgroup that was killed and could not be removed still takes a program in.
func TestStartsInCgroupThatWasKilled(t *testing.T) {
	requireCgroup(t)
	b := newBench(t, spec("exec sleep 1000", nil))
	group, err := b.p.group.open()
	if err != nil {
		t.Fatal(err)
	}
	group.Close()
	if err := b.p.group.kill(); err != nil {
		t.Fatal(err)
	}
	b.start(1)
	procs, err := os.ReadFile(filepath.Join(b.p.group.dir, "cgroup.procs"))
	if strings.TrimSpace(string(procs)) != strconv.Itoa(b.pid()) {
		t.Errorf("cgroup holds %q, %v; want process %d", procs, err, b.pid())
	}
}

// Without cgroup v2 the process group is what is stopped.
func TestWithoutCgroup(t *testing.T) {
	b := newBench(t, spec(`sh -c 'trap "" TERM; echo $$ > "${BATON_STATE_FILE%/*}"/child; while :; do sleep 0.01; done' & exec sleep 1000`, nil))
	b.p.group.dir = ""
	b.start(1)
	child, _ := strconv.Atoi(b.file("child"))
	b.stop()
	if alive(child) {
		t.Error("a member of the process group is alive after stop")
	}
	b.probes(cluster.StatusStopped)
}

func TestDeathIsTold(t *testing.T) {
	b := newBench(t, spec(`echo one; echo "two  "; read x < "${BATON_STATE_FILE%/*}"/gate; exit 3`, nil))
	gate := filepath.Join(b.env.RunDir, "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(1)
	if err := os.WriteFile(gate, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	c := b.next()
	if c.status != cluster.StatusFailed || !strings.HasPrefix(c.reason, "exited with status 3 after ") ||
		!strings.HasSuffix(c.reason, ", last output: two") {
		t.Errorf("told %v", c)
	}
	b.probes(cluster.StatusStopped)
	b.start(2)
	unix.Kill(b.pid(), unix.SIGSEGV)
	if c := b.next(); c.status != cluster.StatusFailed || !strings.HasPrefix(c.reason, "was killed by SIGSEGV after ") {
		t.Errorf("told %v", c)
	}
}

// Death is told within about a millisecond on a machine that has nothing else to do. The test logs what it
// saw and judges only that nobody looked in intervals.
func TestDeathIsToldAtOnce(t *testing.T) {
	b := newBench(t, spec("exec sleep 1000", nil))
	best := time.Hour
	for epoch := range cluster.Epoch(10) {
		b.start(epoch + 1)
		begun := time.Now()
		unix.Kill(b.pid(), unix.SIGKILL)
		b.next()
		best = min(best, time.Since(begun))
	}
	t.Logf("best of 10 from kill to notice: %s", best)
	if best > 50*time.Millisecond {
		t.Errorf("best of 10 from kill to notice: %s", best)
	}
}

// The agent is killed; the program and its output go on; the next agent adopts it, sees its end, and
// would not take another process for it.
func TestOutlivesTheAgent(t *testing.T) {
	b := newBench(t, spec(ticking, nil))
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), "RESOURCE_TEST_AGENT="+b.env.RunDir, "RESOURCE_TEST_CLUSTER="+testCluster())
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	agent.Process.Kill()
	agent.Wait()
	if err != nil || line != "started: <nil>\n" {
		t.Fatalf("agent said %q, %v", line, err)
	}
	b.env.Group, b.p.env.Group = "g", "g"
	b.open(b.env)
	b.probes(cluster.StatusRunning)
	pid := b.pid()
	if b.p.state.Epoch != 7 || !alive(pid) {
		t.Errorf("adopted %+v", b.p.state)
	}
	size := func() int64 {
		info, err := os.Stat(Output(b.env))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	was := size()
	until(t, "the output grows", func() bool { return size() > was+100 })
	b.start(8)
	if b.pid() != pid {
		t.Error("a start replaced the adopted process")
	}
	if err := b.p.Start(t.Context(), 7); !errors.Is(err, ErrStaleEpoch) {
		t.Errorf("start of a former epoch: %v", err)
	}
	unix.Kill(pid, unix.SIGKILL)
	if c := b.next(); c.status != cluster.StatusFailed || !strings.Contains(c.reason, "last output: tick ") {
		t.Errorf("told %v", c)
	}
	b.probes(cluster.StatusStopped)
}

// An agent killed before it has noted what it starts leaves nothing that no state file tells of.
func TestHeldProgramDiesWithTheAgent(t *testing.T) {
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), "RESOURCE_TEST_HOLD=1")
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, wrong := strconv.Atoi(strings.TrimSpace(line))
	running := err == nil && wrong == nil && alive(pid)
	agent.Process.Kill()
	agent.Wait()
	if !running {
		t.Fatalf("agent said %q, %v", line, err)
	}
	until(t, "the held program is dead", func() bool { return !alive(pid) })
}

// An adopted program is stopped like any other, though it is no child.
func TestStopsWhatItAdopted(t *testing.T) {
	b := newBench(t, spec(ticking, nil))
	b.start(5)
	pid := b.pid()
	b.p.Close()
	b.open(b.env)
	b.probes(cluster.StatusRunning)
	b.stop()
	if alive(pid) {
		t.Error("alive after stop")
	}
	b.silent()
}

// The agent went away in the middle of a stop: the next one does not take the program for a sound one.
func TestAdoptsWhatIsStopping(t *testing.T) {
	b := newBench(t, spec(`trap 'echo x > "${BATON_STATE_FILE%/*}"/told' TERM; echo x > "${BATON_STATE_FILE%/*}"/up; while :; do sleep 0.01; done`,
		map[string]any{"stop_timeout": 2 * time.Second}))
	b.start(5)
	b.file("up")
	pid := b.pid()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(b.env.RunDir, "told")); err == nil {
				return
			}
		}
	}()
	if err := b.p.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("stop: %v", err)
	}
	b.p.Close()
	b.open(b.env)
	b.probes(cluster.StatusFailed)
	b.start(5)
	if b.pid() == pid || alive(pid) {
		t.Errorf("process %d, which was told to stop, still runs", pid)
	}
	b.silent()
}

// The pid in the state file belongs to another process by now: it is neither adopted nor harmed.
func TestRecycledPidIsNobody(t *testing.T) {
	b := newBench(t, spec("exec sleep 1000", nil))
	b.start(4)
	other := exec.Command("sleep", "1000")
	other.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	b.stop()
	s, err := readStat(other.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.p.note(func(st *state) { st.PID, st.Start = other.Process.Pid, s.start-1 }); err != nil {
		t.Fatal(err)
	}
	b.p.Close()
	b.open(b.env)
	b.probes(cluster.StatusStopped)
	b.stop()
	if !alive(other.Process.Pid) {
		t.Error("a process that only has the pid of ours was killed")
	}
}

func TestRunsAsItsUser(t *testing.T) {
	b := newBench(t, spec(`exec 2>/dev/stderr; id; cat "$BATON_STATE_FILE"; env | sort; exec sleep 1000`,
		map[string]any{"user": "nobody", "environment": map[string]string{"COLOUR": "red"}}))
	t.Setenv("AGENT_SECRET", "x")
	b.start(9)
	until(t, "the output is complete", func() bool {
		text, _ := os.ReadFile(Output(b.env))
		return strings.Contains(string(text), "\nUSER=")
	})
	text, _ := os.ReadFile(Output(b.env))
	for _, want := range []string{"(nobody) gid=", "\nserving 9\n", "\nBATON_EPOCH=9\n", "\nBATON_RESOURCE=r\n", "\nCOLOUR=red\n",
		"\nUSER=nobody\n", "\nLANG=C.UTF-8\n", "\nBATON_GROUP=TestRunsAsItsUser\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("output lacks %q", want)
		}
	}
	for _, not := range []string{"AGENT_SECRET", "(root)"} {
		if strings.Contains(string(text), not) {
			t.Errorf("output has %q", not)
		}
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
}

func TestAccounts(t *testing.T) {
	if a, err := lookupAccount("12345:678"); err != nil || a.uid != 12345 || a.gid != 678 || a.groups != nil {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := lookupAccount("0"); err != nil || a.uid != 0 || a.name != "root" {
		t.Errorf("%+v, %v", a, err)
	}
	for _, wrong := range []string{"no-such-user", "54321", "root:x", "-1:0"} {
		if a, err := lookupAccount(wrong); err == nil {
			t.Errorf("%s: %+v, no error", wrong, a)
		}
	}
}

func TestIllAndWellAgain(t *testing.T) {
	var ill atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if ill.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer server.Close()
	b := newBench(t, spec("exec sleep 1000", map[string]any{
		"healthy": map[string]any{"http": server.URL, "interval": 5 * time.Millisecond, "failures": int64(3), "timeout": patience}}))
	b.start(1)
	ill.Store(true)
	probe := "GET " + server.URL + ": 500 Internal Server Error"
	if c := b.next(); c != (change{cluster.StatusRunning, "", false, probe}) {
		t.Errorf("told %v after the first try", c)
	}
	c := b.next()
	want := probe + ", 3 times in a row (limit 3)"
	if c != (change{cluster.StatusFailed, want, false, probe}) {
		t.Errorf("told %v, want %q", c, want)
	}
	b.probes(cluster.StatusFailed)
	if err := b.p.Start(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "ill") {
		t.Errorf("start of what is ill: %v", err)
	}
	ill.Store(false)
	if c := b.next(); c.status != cluster.StatusRunning || !strings.HasPrefix(c.reason, "well again") {
		t.Errorf("told %v", c)
	}
	ill.Store(true)
	b.next()
	b.next()
	b.stop()
	b.silent()
}

// The watch over health ends before the program does: a stop is no illness, and no command is left.
func TestHealthCommandEndsWithStop(t *testing.T) {
	b := newBench(t, spec("exec sleep 1000", map[string]any{"healthy": map[string]any{
		"command":  []string{"sh", "-c", `echo x > "${BATON_STATE_FILE%/*}"/asked; exec sleep 1000`},
		"interval": time.Millisecond, "timeout": time.Minute}}))
	b.start(1)
	b.file("asked")
	b.stop()
	b.silent()
	if some, err := b.p.group.populated(); some || err != nil {
		t.Errorf("cgroup populated: %v, %v", some, err)
	}
}

func TestHungHealthCommand(t *testing.T) {
	b := newBench(t, spec("exec sleep 1000", map[string]any{"healthy": map[string]any{
		"command": []string{"sleep", "1000"}, "interval": time.Millisecond, "timeout": 20 * time.Millisecond, "failures": int64(2)}}))
	b.start(1)
	b.next()
	if c := b.next(); c.reason != "sleep 1000: no answer within 20ms, 2 times in a row (limit 2)" {
		t.Errorf("told %v", c)
	}
}

// Taking over from a hot standby starts nothing.
func TestHotStandby(t *testing.T) {
	s := spec("exec sleep 1000", nil)
	s.Depth = cluster.Hot
	b := newBench(t, s)
	standby := func(epoch cluster.Epoch) {
		t.Helper()
		if err := b.p.Standby(t.Context(), epoch); err != nil {
			t.Fatalf("standby: %v", err)
		}
	}
	standby(2)
	b.probes(cluster.StatusStandby)
	pid := b.pid()
	if role := b.file("role"); role != "standby" {
		t.Errorf("role %q", role)
	}
	begun := time.Now()
	b.start(3)
	t.Logf("promotion took %s", time.Since(begun))
	b.probes(cluster.StatusRunning)
	if role := b.file("role"); role != "serving 3" || b.pid() != pid {
		t.Errorf("role %q, process %d, was %d", role, b.pid(), pid)
	}
	standby(4)
	b.probes(cluster.StatusStandby)
	if role := b.file("role"); role != "standby" || b.pid() != pid {
		t.Errorf("role %q, process %d, was %d", role, b.pid(), pid)
	}
	if err := b.p.Start(t.Context(), 3); !errors.Is(err, ErrStaleEpoch) {
		t.Errorf("start of a former epoch: %v", err)
	}
}

func TestColdStandbyIsStopped(t *testing.T) {
	b := newBench(t, spec("exec sleep 1000", nil))
	b.start(2)
	if err := b.p.Standby(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	b.probes(cluster.StatusStopped)
	b.p.Close()
	b.open(b.env)
	if err := b.p.Start(t.Context(), 4); !errors.Is(err, ErrStaleEpoch) {
		t.Errorf("start of a former epoch after a restart of the agent: %v", err)
	}
	b.start(5)
}

// What runs under another command than the present one is replaced by the next start.
func TestNewCommandReplacesTheOld(t *testing.T) {
	b := newBench(t, spec("exec sleep 1000", nil))
	b.start(1)
	pid := b.pid()
	b.p.Close()
	env := b.env
	env.Spec = spec("exec sleep 2000", nil)
	b.open(env)
	b.probes(cluster.StatusUnknown)
	b.start(1)
	if b.pid() == pid || alive(pid) {
		t.Errorf("process %d still runs with the former command", pid)
	}
	b.silent()
}

// A realtime agent with raised limits starts programs that have neither, and stays realtime itself.
func TestProgramIsNotRealtime(t *testing.T) {
	b := newBench(t, spec(`cat /proc/$$/oom_score_adj; grep -E "locked|realtime|open files" /proc/$$/limits; echo end; exec sleep 1000`, nil))
	limits := unix.Prlimit(0, unix.RLIMIT_RTPRIO, &unix.Rlimit{Cur: 50, Max: 50}, nil) == nil
	if limits {
		lift := func(which int, to uint64) {
			var was unix.Rlimit
			if err := unix.Prlimit(0, which, &unix.Rlimit{Cur: to, Max: to}, &was); err != nil {
				t.Fatalf("set limit %d: %v", which, err)
			}
			t.Cleanup(func() { unix.Prlimit(0, which, &was, nil) })
		}
		t.Cleanup(func() { unix.Prlimit(0, unix.RLIMIT_RTPRIO, &unix.Rlimit{}, nil) })
		lift(unix.RLIMIT_MEMLOCK, unix.RLIM_INFINITY)
		lift(unix.RLIMIT_RTTIME, 200_000)
	} else {
		t.Log("limits are not tested: no CAP_SYS_RESOURCE")
	}
	score, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("300"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.WriteFile("/proc/self/oom_score_adj", score, 0) })
	underFIFO(t, func() { b.start(1) })
	now, err := unix.SchedGetAttr(b.pid(), 0)
	if err != nil || now.Policy != unix.SCHED_NORMAL || now.Nice != 0 {
		t.Errorf("the program is under %+v, %v; want SCHED_OTHER, nice 0", now, err)
	}
	until(t, "the output is complete", func() bool { return lastLine(Output(b.env), 0) == "end" })
	text, _ := os.ReadFile(Output(b.env))
	fields := strings.Fields(string(text))
	got := strings.Join(fields, " ")
	if fields[0] != "0" {
		t.Errorf("the program has oom_score_adj %s", fields[0])
	}
	if limits && (!strings.Contains(got, "Max locked memory 8388608 8388608") ||
		!strings.Contains(got, "Max realtime priority 0 0") || !strings.Contains(got, "Max realtime timeout unlimited unlimited")) {
		t.Errorf("the program has limits %s", got)
	}
}

// The agent's short slices of time are its own.
func TestProgramHasUsualSlice(t *testing.T) {
	const short = 100_000 // ns
	b := newBench(t, spec("sleep 60", nil))
	scheduled(t, unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Runtime: short}, func() { b.start(1) })
	if now, err := unix.SchedGetAttr(b.pid(), 0); err != nil || now.Policy != unix.SCHED_NORMAL || now.Runtime == short {
		t.Errorf("the program is under %+v, %v; want the usual slice", now, err)
	}
}

func TestOutputIsCut(t *testing.T) {
	b := newBench(t, spec("", nil))
	path := Output(b.env)
	const limit, kept = 1 << 20, 1 << 18
	long := strings.Repeat("0123456789abcde\n", (limit+kept)/16) + "the end\n"
	if err := os.WriteFile(path, []byte(long), 0o600); err != nil {
		t.Fatal(err)
	}
	if done, err := cut(path, int64(len(long)), kept); err != nil || done {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Size() != int64(len(long)) {
		t.Error("cut at its limit")
	}
	appender, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer appender.Close()
	if done, err := cut(path, limit, kept); err != nil || !done {
		t.Fatal(err)
	}
	fmt.Fprintln(appender, "goes on")
	if text, _ := os.ReadFile(path); string(text) != "goes on\n" {
		t.Errorf("file has %d bytes", len(text))
	}
	if old, _ := os.ReadFile(path + ".1"); len(old) != kept || lastLine(path+".1", 0) != "the end" {
		t.Errorf("old file has %d bytes", len(old))
	}
}

// Where journald listens, output goes there, under the resource's name.
func TestOutputGoesToJournald(t *testing.T) {
	b := newBench(t, spec("echo hello; exec sleep 1000", nil))
	b.p.journal = filepath.Join(b.env.RunDir, "journal")
	listener, err := net.Listen("unix", b.p.journal)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	b.start(1)
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	for _, want := range []string{"baton-TestOutputGoesToJournald-r", "", "6", "1", "0", "0", "0", "hello"} {
		if line, err := lines.ReadString('\n'); err != nil || line != want+"\n" {
			t.Fatalf("journal got %q, %v; want %q", line, err, want)
		}
	}
	if _, err := os.Stat(Output(b.env)); err == nil {
		t.Error("there is an output file too")
	}
}

func TestWrongFields(t *testing.T) {
	for _, c := range []struct {
		fields map[string]any
		want   string
	}{
		{map[string]any{"user": ""}, "user is empty"},
		{map[string]any{"command": []string{}}, "command is empty"},
		{map[string]any{"command": "sleep"}, "command is a string, not a []string"},
		{map[string]any{"stop_signal": "SIGNOT"}, `stop_signal: "SIGNOT" is no signal`},
		{map[string]any{"ready": map[string]any{"tcp": "x:1", "http": "http://x"}}, "ready.tcp has both http and tcp"},
		{map[string]any{"ready": map[string]any{}}, "ready says nothing to ask"},
		{map[string]any{"healthy": map[string]any{"tcp": "x:1", "failures": int64(0)}}, "healthy.failures is 0"},
		{map[string]any{"healthy": map[string]any{"http": "ftp://x"}}, "lacks http:// or https://"},
	} {
		_, err := Process{}.New(Env{RunDir: t.TempDir(), Spec: spec("", c.fields)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.fields, err, c.want)
		}
	}
}

// Where tracing is forbidden, programs start all the same, without being held.
func TestStartsWithoutTracing(t *testing.T) {
	b := newBench(t, spec("exec sleep 1000", map[string]any{"user": "nobody"}))
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the filter ends with the thread
		filter := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the system call's number
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_PTRACE, Jf: 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		}
		prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
		if err == nil {
			err = b.p.Start(context.Background(), 1)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.probes(cluster.StatusRunning)
	pid := b.pid()
	if b.p.group.dir != "" {
		if procs, _ := os.ReadFile(filepath.Join(b.p.group.dir, "cgroup.procs")); strings.TrimSpace(string(procs)) != strconv.Itoa(pid) {
			t.Errorf("cgroup holds %q, want process %d", procs, pid)
		}
	}
	b.stop()
	if alive(pid) {
		t.Error("alive after stop")
	}
}

// The description and the code that reads the fields agree: its defaults are accepted, and kept.
func TestSpecAgreesWithFields(t *testing.T) {
	kind := Process{}.Spec()
	defaults := func(specs []cluster.FieldSpec) map[string]any {
		fields := map[string]any{}
		for _, f := range specs {
			if f.Default != nil {
				fields[f.Name] = f.Default
			}
		}
		return fields
	}
	fields := defaults(kind.Fields)
	fields["command"], fields["user"] = []string{"true"}, "root"
	fields["ports"] = []cluster.Port{{Protocol: "tcp", Number: 80}}
	for _, f := range kind.Fields {
		if f.Type == cluster.FieldMap {
			sub := defaults(f.Fields)
			sub["tcp"] = "localhost:80"
			fields[f.Name] = sub
		}
	}
	res, err := Process{}.New(Env{RunDir: t.TempDir(), Spec: cluster.ResourceSpec{Fields: fields}})
	if err != nil {
		t.Fatal(err)
	}
	p := res.(*process)
	defer p.Close()
	if p.stopSignal != unix.SIGTERM || p.stopTimeout != kind.StopTimeout || p.startTimeout != kind.StartTimeout ||
		p.healthy.interval != 2*time.Second || p.healthy.failures != 3 || p.ready.timeout != time.Second {
		t.Errorf("%+v, ready %+v, healthy %+v", p, p.ready, p.healthy)
	}
	if _, ports, err := kind.Guards(fields); err != nil || len(ports) != 1 || ports[0].Number != 80 {
		t.Errorf("guards %v, %v", ports, err)
	}
}

// What is not the program's fault is told apart: a user, a program, a directory that is missing, a full disk.
func TestFailsForItsSurroundings(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	script := filepath.Join(t.TempDir(), "script")
	if err := errors.Join(os.WriteFile(plain, nil, 0o644), os.WriteFile(script, []byte("#!/no/interpreter\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		fields map[string]any
		want   bool
	}{
		{"user", map[string]any{"user": "nobody-at-all"}, true},
		{"program", map[string]any{"command": []string{"no-such-program"}}, true},
		{"interpreter", map[string]any{"command": []string{script}}, true},
		{"not executable", map[string]any{"command": []string{plain}}, true},
		{"directory", map[string]any{"directory": "/no/such/directory"}, true},
		{"ready command", map[string]any{"ready": map[string]any{"command": []string{"no-such-check"}}, "start_timeout": askedOnce}, true},
		{"its own end", map[string]any{"command": []string{"sh", "-c", "exit 3"}, "ready": map[string]any{"command": []string{"false"}}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := spec("exec sleep 1000", c.fields)
			d := newDesk(t, Process{}, Env{Spec: s, Cluster: testCluster(), Node: "n"})
			d.Want(want(1, cluster.TargetRunning))
			if done := d.answer(); done.Status != cluster.StatusFailed || done.Surroundings != c.want {
				t.Errorf("%+v", done)
			}
			d.Want(want(2, cluster.TargetStopped))
			d.answer()
			if lack := Lacks(Process{}, s); (lack != nil) != c.want {
				t.Errorf("it lacks %v", lack)
			}
		})
	}
	s := &scripted{t: t, start: func(context.Context) error { return fmt.Errorf("write: %w", unix.ENOSPC) }}
	d := newDesk(t, s, Env{})
	d.Want(want(1, cluster.TargetRunning))
	if done := d.answer(); !done.Surroundings {
		t.Errorf("a full disk: %+v", done)
	}
	s.env.Changed(cluster.StatusFailed, "its address was taken away", true)
	if done := d.answer(); !done.Surroundings {
		t.Errorf("by itself: %+v", done)
	}
}

// An output file that somebody deleted below a program goes on growing without a name, and is cut nevertheless.
func TestDeletedOutputIsCut(t *testing.T) {
	b := newBench(t, spec(`while :; do echo "a line of a program that prints"; done`, nil))
	b.start(1)
	path := Output(b.env)
	until(t, "it prints", func() bool { info, err := os.Stat(path); return err == nil && info.Size() > 0 })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	const limit = 4096
	size := func() int64 {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/fd/1", b.pid()))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	until(t, "it grows", func() bool { return size() > 2*limit })
	unix.Kill(b.pid(), unix.SIGSTOP)
	until(t, "it stands still", func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.pid()))
		return err == nil && strings.Contains(string(status), "State:\tT")
	})
	before := size()
	if err := cutDeleted(path, b.pid(), limit); err != nil || size() != 0 {
		t.Errorf("it had %d bytes, and has %d, %v", before, size(), err)
	}
	unix.Kill(b.pid(), unix.SIGCONT)
}

// What a check's command prints is read, and only the end of it kept.
func TestCheckThatPrintsWithoutEnd(t *testing.T) {
	b := newBench(t, spec("sleep 1000", map[string]any{
		"ready": map[string]any{"command": []string{"sh", "-c", `yes begin | head -c 100000000; printf '%5000s\nthe end\n' x; exit 3`}, "interval": 10 * time.Millisecond, "timeout": 20 * time.Second}}))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := b.p.runCheck(ctx, b.p.ready.command)
	if err == nil || !strings.Contains(err.Error(), "status 3") || !strings.HasSuffix(err.Error(), ": the end") {
		t.Errorf("%v", err)
	}
	to, end, err := newTailPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer end.close()
	for range 100 {
		if _, err := to.Write(make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
	}
	to.Close()
	if n := len(end.text()); n != CheckOutput {
		t.Errorf("%d bytes are kept, not %d", n, CheckOutput)
	}
	// A command that leaves something running, which holds its output open.
	start := time.Now()
	err = b.p.runCheck(ctx, []string{"sh", "-c", "setsid sleep 30 & echo so far; exit 1"})
	if err == nil || !strings.HasSuffix(err.Error(), ": so far") || time.Since(start) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

// With room for its notes made in advance, a program starts, changes its role, stops and starts on a full file system;
// after they were deleted, too, once Keep has made them anew.
func TestStartsOnAFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatalf("mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	env := Env{Cluster: testCluster(), Node: "n", Group: "full", RunDir: filepath.Join(dir, "g", "r"), OutputDir: t.TempDir(),
		Spec: spec("sleep 1000", nil), Changed: func(cluster.Status, string, bool) {}}
	if err := remember("process", env, Guards{}); err != nil {
		t.Fatal(err)
	}
	res, err := Process{}.New(env)
	if err != nil {
		t.Fatal(err)
	}
	p := res.(*process)
	t.Cleanup(func() { p.Stop(context.Background()); p.Close() })
	ballast := filepath.Join(dir, "ballast")
	fill := func() {
		t.Helper()
		if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	epoch := cluster.Epoch(0)
	cycle := func() {
		t.Helper()
		for range 3 {
			epoch++
			if err := errors.Join(p.Start(t.Context(), epoch), p.Standby(t.Context(), epoch), p.Stop(t.Context()), p.Start(t.Context(), epoch)); err != nil {
				t.Fatal(err)
			}
			if text, _ := os.ReadFile(p.roleFile()); string(text) != fmt.Sprintf("serving %d\n", epoch) {
				t.Errorf("its role is %q", text)
			}
		}
	}
	fill()
	cycle()
	os.Remove(ballast)
	if err := os.RemoveAll(env.RunDir); err != nil {
		t.Fatal(err)
	}
	if err := p.Keep(); err != nil {
		t.Fatal(err)
	}
	fill()
	pid := p.state.PID
	again, err := Process{}.New(env) // as another agent would
	if err != nil {
		t.Fatal(err)
	}
	if status, err := again.Probe(t.Context()); status != cluster.StatusRunning || again.(*process).state.PID != pid {
		t.Errorf("what runs is found %v, %v by another agent", status, err)
	}
	again.Close()
	cycle()
}
