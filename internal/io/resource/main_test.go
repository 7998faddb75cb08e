package resource

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// patience is how long a test waits for what must come. It is generous: the machine may be busy.
const patience = 20 * time.Second

// TestMain runs the tests in mount and network namespaces of their own: what others mount, and the ports that they free,
// would be noticed. It also plays an agent that starts a program and is then killed, when a test runs us for that.
func TestMain(m *testing.M) {
	if dir := os.Getenv("RESOURCE_TEST_AGENT"); dir != "" {
		playAgent(dir)
		return
	}
	if os.Getenv("RESOURCE_TEST_HOLD") != "" {
		playHold()
		return
	}
	const mark = "RESOURCE_TEST_NAMESPACES"
	if os.Geteuid() == 0 && os.Getenv(mark) == "" {
		cmd := exec.Command(os.Args[0], os.Args[1:]...)
		cmd.Env = append(os.Environ(), mark+"=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "tests in their own namespaces:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(mark) != "" {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "set lo up:", err)
			os.Exit(1)
		}
	}
	code := m.Run()
	if mount := cgroupMount(); mount != "" {
		cgroup{filepath.Join(mount, "baton", testCluster())}.kill()
		cgroup{filepath.Join(mount, "baton", testCluster())}.remove()
		os.Remove(filepath.Join(mount, "baton")) // stays if others are in it
	}
	os.Exit(code)
}

func testCluster() string {
	if name := os.Getenv("RESOURCE_TEST_CLUSTER"); name != "" {
		return name
	}
	return "test-" + strconv.Itoa(os.Getpid())
}

// playAgent starts a program in the directory and lives until it is killed.
func playAgent(dir string) {
	env := Env{Cluster: testCluster(), Node: "n", Group: "g", RunDir: dir,
		Changed: func(cluster.Status, string, bool) {}, Log: slog.New(slog.DiscardHandler)}
	env.Spec = spec(ticking, nil)
	res, err := Process{}.New(env)
	if err == nil {
		err = res.Start(context.Background(), 7)
	}
	fmt.Println("started:", err)
	select {}
}

// playHold starts a program and holds it before it runs, until we are killed.
func playHold() {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		_, _, err = launch{argv: []string{"/bin/sleep", "1000"}, in: null, out: null, held: func(pid int) error {
			fmt.Println(pid)
			select {}
		}}.start()
	}
	fmt.Println("not held:", err)
}

const ticking = `i=0; while :; do i=$((i+1)); echo "tick $i"; sleep 0.05; done`

// spec is that of a shell script that runs as root.
func spec(script string, fields map[string]any) cluster.ResourceSpec {
	all := map[string]any{"command": []string{"sh", "-c", script}, "user": "root"}
	for k, v := range fields {
		all[k] = v
	}
	return cluster.ResourceSpec{ID: "r", Kind: "process", Fields: all, Depth: cluster.Cold,
		StartTimeout: startTimeout, StopTimeout: stopTimeout}
}

// bench is one resource under test with what it told of itself.
type bench struct {
	t   *testing.T
	env Env
	p   *process

	mu      sync.Mutex
	changes []change
	told    chan struct{}
}

// newBench makes a directory that every user may pass through, and a resource; both go at the end.
func newBench(t *testing.T, s cluster.ResourceSpec) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "resource-test-") // on tmpfs, like the real one
	if err != nil {
		dir, err = os.MkdirTemp("", "resource-test-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bench{t: t}
	group := strings.NewReplacer("/", "_", " ", "_").Replace(t.Name())
	b.env = Env{Cluster: testCluster(), Node: "n", Group: cluster.GroupID(group), Spec: s, RunDir: dir}
	b.open(b.env)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := b.p.Stop(ctx); err != nil {
			t.Errorf("stop at the end: %v", err)
		}
		b.p.Close()
	})
	return b
}

// open makes a handle, as an agent does when it begins.
func (b *bench) open(env Env) {
	b.t.Helper()
	b.told = make(chan struct{}, 100)
	env.Changed = func(s cluster.Status, why string, around bool) {
		b.mu.Lock()
		b.changes = append(b.changes, change{s, why, around, ""})
		b.mu.Unlock()
		b.told <- struct{}{}
	}
	env.Doubts = func(s cluster.Status, why, probe string) {
		b.mu.Lock()
		b.changes = append(b.changes, change{s, why, false, probe})
		b.mu.Unlock()
		b.told <- struct{}{}
	}
	res, err := Process{}.New(env)
	if err != nil {
		b.t.Fatal(err)
	}
	b.p = res.(*process)
}

// next waits for what the resource tells next.
func (b *bench) next() change {
	b.t.Helper()
	select {
	case <-b.told:
	case <-time.After(patience):
		b.t.Fatal("no change told")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.changes[0]
	b.changes = b.changes[1:]
	return c
}

// silent fails the test if the resource told anything.
func (b *bench) silent() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.changes) > 0 {
		b.t.Errorf("told %v, nothing expected", b.changes)
	}
}

func (b *bench) start(epoch cluster.Epoch) {
	b.t.Helper()
	if err := b.p.Start(b.t.Context(), epoch); err != nil {
		b.t.Fatalf("start: %v", err)
	}
}

func (b *bench) stop() {
	b.t.Helper()
	if err := b.p.Stop(b.t.Context()); err != nil {
		b.t.Fatalf("stop: %v", err)
	}
}

func (b *bench) probes(want cluster.Status) {
	b.t.Helper()
	if got, err := b.p.Probe(b.t.Context()); err != nil || got != want {
		b.t.Fatalf("probe: %v, %v; want %v", got, err, want)
	}
}

func (b *bench) pid() int {
	b.t.Helper()
	if b.p.state.PID == 0 {
		b.t.Fatal("no process is known")
	}
	return b.p.state.PID
}

// file returns what a file in the run directory holds, once it holds something.
func (b *bench) file(name string) string {
	b.t.Helper()
	var text []byte
	until(b.t, name+" is written", func() bool {
		text, _ = os.ReadFile(filepath.Join(b.env.RunDir, name))
		return len(text) > 0
	})
	return strings.TrimSpace(string(text))
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// alive tells whether a process runs; a zombie does not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && !strings.Contains(string(text), "State:\tZ")
}

// underFIFO calls f on a thread under SCHED_FIFO, which ends with it.
func underFIFO(t *testing.T, f func()) {
	t.Helper()
	scheduled(t, unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 10}, f)
}

// scheduled calls f on a thread that is scheduled so, which ends with it.
func scheduled(t *testing.T, how unix.SchedAttr, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.SchedSetAttr(0, &how, 0); err != nil {
			t.Errorf("schedule a thread as %+v: %v", how, err)
			return
		}
		before, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Error(err)
			return
		}
		f()
		if now, err := unix.SchedGetAttr(0, 0); err != nil || *now != *before {
			t.Errorf("after the start the thread is under %+v, %v; want %+v as before", now, err, before)
		}
	}()
	<-done
}
