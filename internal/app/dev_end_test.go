package app

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	upLimit  = time.Minute      // for a demo to be there, on a busy machine
	endLimit = 15 * time.Second // for it to end
	lostTime = 15 * time.Second // for the sweeper of one that could not end in order
)

// demo is `baton dev` on a terminal, seen from outside.
type demo struct {
	t      *testing.T
	cmd    *exec.Cmd
	tty    pty
	before unix.Termios
	input  *os.File // standard input, where that is no terminal
	binary string   // this demo's alone, which tells its processes from others
	homes  []string // where its directories are
	exited chan struct{}
	shown  chan struct{} // closed when the terminal shows nothing more

	mu  sync.Mutex
	out bytes.Buffer
}

// demoGround is where a demo runs, and as whom.
type demoGround struct {
	name string
	args []string
	as   func(*testing.T) *syscall.Credential // nil: as the test
}

func demoGrounds() []demoGround {
	return []demoGround{
		{name: "lab"},
		{name: "loopback as root", args: []string{"--loopback"}},
		{name: "loopback as nobody", as: asNobody},
	}
}

// startDemo starts a demo on a terminal of its own; piped: its standard input is a pipe.
func startDemo(t *testing.T, binary string, g demoGround, piped bool, args ...string) *demo {
	t.Helper()
	d := &demo{t: t, tty: openPTY(t), exited: make(chan struct{}), shown: make(chan struct{})}
	d.before = d.tty.modes(t)
	var as *syscall.Credential
	if g.as != nil {
		as = g.as(t)
	}
	for _, parent := range []string{os.TempDir(), "/dev/shm"} {
		d.homes = append(d.homes, homeOf(t, parent, as))
	}
	d.binary = filepath.Join(filepath.Dir(binary), filepath.Base(d.homes[0]))
	if err := os.Link(binary, d.binary); err != nil {
		t.Fatal(err)
	}
	d.cmd = exec.Command(d.binary, slices.Concat([]string{"dev"}, g.args, args)...)
	d.cmd.Dir = "/"
	d.cmd.Env = append(os.Environ(), "TMPDIR="+d.homes[0], "XDG_RUNTIME_DIR="+d.homes[1])
	d.cmd.Stdin, d.cmd.Stdout, d.cmd.Stderr = d.tty.program, d.tty.program, d.tty.program
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1, Credential: as}
	if piped {
		in, input, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		d.cmd.Stdin, d.input = in, input
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go d.show()
	go func() {
		defer close(d.exited)
		d.cmd.Wait()
	}()
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		<-d.exited
	})
	return d
}

// homeOf makes a directory for a user below parent.
func homeOf(t *testing.T, parent string, as *syscall.Credential) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "baton-end-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if as != nil {
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// show reads what the terminal shows.
func (d *demo) show() {
	defer close(d.shown)
	buffer := make([]byte, 4096)
	for {
		n, err := d.tty.person.Read(buffer)
		d.mu.Lock()
		d.out.Write(buffer[:n])
		d.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (d *demo) output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.String()
}

// await waits until a condition holds, and fails if the demo ends before.
func (d *demo) await(what string, holds func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(upLimit); !holds(); time.Sleep(5 * time.Millisecond) {
		select {
		case <-d.exited:
			d.t.Fatalf("it ended before this: %s\n%s", what, d.output())
		default:
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("not after %v: %s\n%s", upLimit, what, d.output())
		}
	}
}

// begins waits until the demo says its first word; plays until it takes keys, or lines.
func (d *demo) begins() { d.await("it begins", func() bool { return d.output() != "" }) }

func (d *demo) plays() {
	d.await("it plays", func() bool {
		if d.input != nil {
			return strings.Contains(d.output(), "GROUP")
		}
		return d.tty.modes(d.t) == silent(d.before)
	})
}

func (d *demo) types(keys string) {
	if _, err := io.WriteString(d.tty.person, keys); err != nil {
		d.t.Error(err)
	}
}

func (d *demo) signal(s syscall.Signal) {
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Error(err)
	}
}

// traces are what a demo makes on the machine beside files. Network namespaces are held open, since the kernel gives the
// number of one that is gone to the next, which is another demo's.
type traces struct {
	cgroups map[string]bool
	spaces  map[string]*os.File
}

// processes are those of the demo that run.
func (d *demo) processes() []string {
	all, _ := filepath.Glob("/proc/[0-9]*")
	return slices.DeleteFunc(all, func(p string) bool {
		exe, _ := os.Readlink(p + "/exe")
		return strings.TrimSuffix(exe, " (deleted)") != d.binary
	})
}

// traces finds the cgroups and network namespaces that the demo's processes are in or hold.
func (d *demo) traces() traces {
	x := traces{make(map[string]bool), make(map[string]*os.File)}
	mount := cgroupRoot(d.t)
	own, _ := os.Readlink("/proc/self/ns/net")
	for _, p := range d.processes() {
		text, _ := os.ReadFile(p + "/cgroup")
		for line := range strings.Lines(string(text)) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok && strings.Contains(path, "baton") {
				x.cgroups[filepath.Join(mount, path)] = true
			}
		}
		for s, link := range netSpaces(p) {
			if x.spaces[s] != nil || s == own {
				continue
			}
			if f, err := os.Open(link); err == nil {
				x.spaces[s] = f
				d.t.Cleanup(func() { f.Close() })
			}
		}
	}
	return x
}

// netSpaces are the network namespaces that a process is in, or has open, each with a way to it.
func netSpaces(process string) map[string]string {
	links, _ := filepath.Glob(process + "/fd/*")
	out := make(map[string]string)
	for _, l := range append(links, process+"/ns/net") {
		if to, _ := os.Readlink(l); strings.HasPrefix(to, "net:[") {
			out[to] = l
		}
	}
	return out
}

// cgroupRoot is where cgroup v2 is mounted.
func cgroupRoot(t *testing.T) string {
	out, err := exec.Command("findmnt", "-n", "-t", "cgroup2", "-o", "TARGET").Output()
	if err != nil {
		t.Fatalf("findmnt: %v", err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}

// remains lists what is left of a demo.
func (d *demo) remains(x traces) []string {
	left := d.processes()
	for _, dir := range append(slices.Clone(d.homes), labDirs) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if dir != labDirs || strings.HasPrefix(e.Name(), d.labName()) {
				left = append(left, filepath.Join(dir, e.Name()))
			}
		}
	}
	for c := range maps.Keys(x.cgroups) {
		if _, err := os.Stat(c); err == nil {
			left = append(left, c)
		}
	}
	links, _ := filepath.Glob(devSockets + "*")
	for _, l := range links {
		if to, _ := os.Readlink(l); strings.Contains(to, d.labName()) {
			left = append(left, l)
		}
	}
	for _, p := range append(d.homes, d.labName()) {
		if mounts, _ := os.ReadFile("/proc/self/mountinfo"); bytes.Contains(mounts, []byte(p)) {
			left = append(left, "a mount of "+p)
		}
	}
	all, _ := filepath.Glob("/proc/[0-9]*")
	self, _ := os.Readlink("/proc/self/exe")
	for _, p := range all {
		if exe, _ := os.Readlink(p + "/exe"); exe == self {
			continue // this process holds them, and so does each that it is about to start
		}
		for s := range netSpaces(p) {
			if x.spaces[s] != nil {
				left = append(left, p+" in "+s)
			}
		}
	}
	return left
}

// labDirs is where labs have their directories.
const labDirs = "/var/tmp/baton-lab"

// labName is how the names of this demo's labs begin.
func (d *demo) labName() string { return fmt.Sprintf("baton-lab-%d-", d.cmd.Process.Pid) }

// ended checks that the demo has ended as it should, and that nothing is left after so long.
func (d *demo) ended(x traces, status int, after time.Duration) {
	d.t.Helper()
	began := time.Now()
	within(d.t, endLimit, "the end", func() { <-d.exited })
	took := time.Since(began)
	if got := d.cmd.ProcessState.ExitCode(); got != status {
		d.t.Errorf("exit status %d, not %d", got, status)
	}
	left := d.remains(x)
	for deadline := time.Now().Add(after); len(left) > 0 && time.Now().Before(deadline); left = d.remains(x) {
		time.Sleep(10 * time.Millisecond)
	}
	d.t.Logf("ended after %v, all was gone after %v", took.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	if len(left) > 0 {
		d.t.Errorf("left: %s", strings.Join(left, ", "))
	}
}

// restored checks the terminal, and that nobody has it any more.
func (d *demo) restored() {
	d.t.Helper()
	if d.tty.modes(d.t) != d.before {
		d.t.Errorf("the terminal is not as it was")
	}
	d.tty.program.Close()
	within(d.t, lostTime, "the last word", func() { <-d.shown })
}

// Whatever ends the demo, nothing is left of it, and the terminal is as it was.
func TestDevEnds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the lab takes root")
	}
	binary := buildBaton(t)
	for _, c := range []struct {
		name   string
		piped  bool // standard input is
		early  bool // before anything serves
		end    func(*demo)
		status int
		lost   bool // it can't end in order
	}{
		{name: "q", end: func(d *demo) { d.types("q") }},
		{name: "Ctrl-C", end: func(d *demo) { d.types("\x03") }},
		{name: "Ctrl-C at once", early: true, end: func(d *demo) { d.types("\x03") }},
		{name: "Ctrl-C again and again", end: func(d *demo) { d.types("\x03w\x03q\x03") }},
		{name: "SIGTERM", end: func(d *demo) { d.signal(syscall.SIGTERM) }},
		{name: "the terminal is closed", end: func(d *demo) { d.tty.person.Close() }},
		{name: "standard input is closed", piped: true, end: func(d *demo) { d.input.Close() }},
		{name: "crash", end: func(d *demo) { d.signal(syscall.SIGQUIT) }, status: 2, lost: true}, // as a panic ends it
		{name: "SIGKILL", end: func(d *demo) { d.signal(syscall.SIGKILL) }, status: -1, lost: true},
		{name: "SIGKILL at once", early: true, end: func(d *demo) { d.signal(syscall.SIGKILL) }, status: -1, lost: true},
	} {
		for _, g := range demoGrounds() {
			t.Run(c.name+" in "+g.name, func(t *testing.T) {
				t.Parallel()
				d := startDemo(t, binary, g, c.piped)
				if c.early {
					d.begins()
				} else {
					d.plays()
				}
				x := d.traces()
				if !c.early && len(d.remains(x)) < 5 {
					t.Errorf("the check for remains does not see a living demo: %v", d.remains(x))
				}
				c.end(d)
				after := time.Duration(0)
				if c.lost {
					after = lostTime
				}
				d.ended(x, c.status, after)
				if d.tty.person.SetDeadline(time.Time{}) == nil { // it is open
					d.restored()
				}
				if out := d.output(); !c.lost && (strings.Contains(out, "goroutine") || strings.Contains(out, "error:")) {
					t.Errorf("it says:\n%s", out)
				}
			})
		}
	}
}

// A start that fails half-way removes what was made until then.
func TestDevFailsToBegin(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the lab takes root")
	}
	binary := buildBaton(t)
	file := filepath.Join(filepath.Dir(binary), "long.yaml")
	text := "cluster: long\nnodes: { a: { address: 10.0.0.1 }, b: { address: 10.0.0.2 }, c: { address: 10.0.0.3 }, d: { address: 10.0.0.4 }, e: { address: 10.0.0.5 } }\n"
	text += "groups:\n  web: { nodes: [a], resources: [{ vip: 10.0.0.6/29 }] }\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, g := range demoGrounds() {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			args, status, want := []string{"--takeover", "1ns"}, exitUsage, "takeover"
			if g.name == "lab" {
				args, status, want = []string{file}, exitUsage, "no address left for a client"
			}
			d := startDemo(t, binary, g, false, args...)
			d.ended(traces{}, status, 0)
			d.restored()
			wantMatches(t, d.output(), want)
		})
	}
}

// What a demo left that was killed together with its sweeper, the next one removes; it spares a demo that lives.
func TestDevSweepsOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root runs both")
	}
	home := t.TempDir()
	t.Setenv("TMPDIR", home)
	dead, lock, err := claimDir(home)
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
	alive, lock, err := claimDir(home)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	for _, dir := range []string{dead, alive} {
		if err := os.MkdirAll(filepath.Join(cgroupRoot(t), "baton", demoCluster(dir), "web", "service"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { removeDemoCgroup(alive) })
	own := filepath.Join(home, devDirs+"notes")
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := sweepDemos(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{dead: false, alive: true, own: true,
		filepath.Join(cgroupRoot(t), "baton", demoCluster(dead)): false, filepath.Join(cgroupRoot(t), "baton", demoCluster(alive)): true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s is there: %v", path, err == nil)
		}
	}
}
