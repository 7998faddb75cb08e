package gate

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// world is two network namespaces joined by a cable: "node" (va: 10.77.0.1, fd77::1, and the group's
// addresses 10.77.0.50, fd77::50) and "client" (vb: 10.77.0.2, fd77::2).
type world struct {
	node, client string
}

var worlds atomic.Int64

func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	prefix := fmt.Sprintf("gate%d-%d", os.Getpid(), worlds.Add(1))
	w := &world{prefix + "n", prefix + "c"}
	for _, ns := range []string{w.node, w.client} {
		run(t, "ip netns add "+ns)
		dir := pinsOf("/run/netns/" + ns)
		clear := func() {
			unix.Unmount(dir, unix.MNT_DETACH)
			os.Remove(dir)
		}
		clear() // what a killed test left there: the kernel gives numbers of namespaces again
		t.Cleanup(clear)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
		run(t, "ip -n "+ns+" link set lo up")
	}
	w.cable(t, "va", "vb")
	for _, a := range []string{"10.77.0.1/24", "10.77.0.50/24", "fd77::1/64", "fd77::50/64"} {
		w.address(t, w.node, "va", a)
	}
	w.address(t, w.client, "vb", "10.77.0.2/24")
	w.address(t, w.client, "vb", "fd77::2/64")
	return w
}

func (w *world) cable(t testing.TB, a, b string) {
	t.Helper()
	run(t, fmt.Sprintf("ip -n %s link add %s type veth peer name %s netns %s", w.node, a, b, w.client))
	run(t, fmt.Sprintf("ip -n %s link set %s up", w.node, a))
	run(t, fmt.Sprintf("ip -n %s link set %s up", w.client, b))
}

func (w *world) address(t testing.TB, ns, dev, address string) {
	t.Helper()
	flags := ""
	if strings.Contains(address, ":") {
		flags = " nodad"
	}
	run(t, fmt.Sprintf("ip -n %s addr add %s dev %s%s", ns, address, dev, flags))
}

func run(t testing.TB, command string) string {
	t.Helper()
	out, err := try(command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

func try(command string) (string, error) {
	f := strings.Fields(command)
	out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
	return string(out), err
}

// in runs f on a thread of its own in a network namespace; the thread ends with it.
func in(t testing.TB, ns string, f func()) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Add(1)
	var failed error
	go func() {
		defer wg.Done()
		if failed = enter(ns); failed == nil {
			f()
		}
	}()
	wg.Wait()
	if failed != nil {
		t.Fatalf("enter namespace %s: %v", ns, failed)
	}
}

// enter moves the calling goroutine into a network namespace for good.
func enter(ns string) error {
	runtime.LockOSThread()
	fd, err := unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, unix.CLONE_NEWNET)
}

// open opens a gate in the node's namespace and closes it with the test.
func (w *world) open(t testing.TB, opts Options) Gate {
	t.Helper()
	var g Gate
	var err error
	in(t, w.node, func() { g, err = Open(named(opts)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// pinsOf returns where gates in a network namespace have their pins.
func pinsOf(ns string) string {
	var s unix.Stat_t
	if unix.Stat(ns, &s) != nil {
		return ""
	}
	return fmt.Sprintf("%s/gate-test-%d", os.TempDir(), s.Ino)
}

func named(opts Options) Options {
	if opts.Cluster == "" {
		opts.Cluster = "ledger"
	}
	if opts.Node == "" {
		opts.Node = "alpha"
	}
	if opts.Dir == "" {
		opts.Dir = pinsOf("/proc/thread-self/ns/net")
	}
	return opts
}

// serve starts an echo server and ends it with the test.
func (w *world) serve(t *testing.T, ns, network, address string) {
	t.Helper()
	var err error
	in(t, ns, func() {
		if network == "udp" {
			var c net.PacketConn
			if c, err = net.ListenPacket("udp", address); err == nil {
				t.Cleanup(func() { c.Close() })
				go func() {
					b := make([]byte, 65536)
					for {
						n, from, err := c.ReadFrom(b)
						if err != nil {
							if strings.Contains(err.Error(), "closed") {
								return
							}
							continue
						}
						c.WriteTo(b[:n], from)
					}
				}()
			}
			return
		}
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() { defer c.Close(); io.Copy(c, c) }()
				}
			}()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// reaches tells whether an echo of size bytes comes back within patience.
func (w *world) reaches(t *testing.T, ns, network, address string, size int, patience time.Duration) bool {
	t.Helper()
	ok := false
	in(t, ns, func() {
		d := net.Dialer{Timeout: min(patience, 2*again)}
		end := time.Now().Add(patience)
		for !ok && time.Now().Before(end) {
			c, err := d.Dial(network, address)
			if err != nil {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			ok = echo(c, size, min(patience/2, again))
			c.Close()
		}
	})
	return ok
}

func echo(c net.Conn, size int, patience time.Duration) bool {
	c.SetDeadline(time.Now().Add(patience))
	sent := bytes.Repeat([]byte("gate"), size/4)
	if _, err := c.Write(sent); err != nil {
		return false
	}
	got := make([]byte, len(sent))
	_, err := io.ReadFull(reader{c}, got)
	return err == nil && bytes.Equal(got, sent)
}

// reader reads a whole datagram at a time, whatever the caller asks for.
type reader struct{ c net.Conn }

func (r reader) Read(b []byte) (int, error) { return r.c.Read(b) }

const (
	long  = 20 * time.Second        // patience with what must come
	short = 120 * time.Millisecond  // and with what must not
	again = 1500 * time.Millisecond // after that, what may have been lost is sent once more
)

// wantPass and wantCut judge the traffic from a namespace.
func (w *world) wantPass(t *testing.T, ns, network, address string, size int) {
	t.Helper()
	if !w.reaches(t, ns, network, address, size, long) {
		t.Errorf("%s %s, %d bytes: no echo, want one", network, address, size)
	}
}

func (w *world) wantCut(t *testing.T, ns, network, address string, size int) {
	t.Helper()
	if w.reaches(t, ns, network, address, size, short) {
		t.Errorf("%s %s, %d bytes: an echo came, want none", network, address, size)
	}
}

// child is this test binary run again in the node's namespace, to be killed.
type child struct {
	cmd      *exec.Cmd
	deadline int64
}

func (w *world) child(t testing.TB, prefer string, life time.Duration) *child {
	t.Helper()
	cmd := exec.Command("nsenter", "--net=/run/netns/"+w.node, os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "GATE_CHILD="+prefer, "GATE_LIFE="+life.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd}
	t.Cleanup(c.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("child said nothing: %v", err)
	}
	if _, err := fmt.Sscan(line, &c.deadline); err != nil {
		t.Fatalf("child said %q: %v", line, err)
	}
	return c
}

// kill sends SIGKILL: nsenter has become the test binary, so the process is the child itself.
func (c *child) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

func TestMain(m *testing.M) {
	outlives = func() error { return nil } // no test's pins need to outlive this machine's PID 1's view
	switch prefer := os.Getenv("GATE_CHILD"); prefer {
	case "":
	case "describe":
		describeMain()
		return
	case "successor":
		successorMain()
		return
	default:
		childMain(prefer)
		return
	}
	os.Exit(m.Run())
}

func childMain(prefer string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
	}
	life, err := time.ParseDuration(os.Getenv("GATE_LIFE"))
	fail(err)
	g, err := Open(named(Options{Prefer: prefer}))
	fail(err)
	fail(g.Guard([]Group{addresses}))
	deadline := boottime() + int64(life)
	fail(g.Set(addresses.ID, 7, deadline))
	fmt.Println(deadline)
	select {}
}

// describeMain opens a gate as the user that GATE_UID names and says what came of it.
func describeMain() {
	if uid, err := strconv.Atoi(os.Getenv("GATE_UID")); err == nil {
		if err := syscall.Setuid(uid); err != nil {
			fmt.Println(err)
			return
		}
	}
	g, err := Open(named(Options{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(g.Describe(), g.Guard([]Group{addresses}), g.Remove())
}

// successorMain takes over as a new process does, and says how many nanoseconds each step took.
func successorMain() {
	var took [3]time.Duration
	begin := time.Now()
	g, err := Open(named(Options{Prefer: os.Getenv("GATE_PREFER")}))
	took[0] = time.Since(begin)
	if err == nil {
		begin = time.Now()
		_, err = g.Left()
		took[1] = time.Since(begin)
	}
	if err == nil {
		begin = time.Now()
		err = g.Guard([]Group{addresses})
		took[2] = time.Since(begin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "successor:", err)
		os.Exit(1)
	}
	fmt.Println(took[0].Nanoseconds(), took[1].Nanoseconds(), took[2].Nanoseconds())
}
