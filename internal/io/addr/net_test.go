package addr

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"baton/internal/core/cluster"
	"baton/internal/io/resource"
)

// soon bounds what should happen at once; it is long because the machine may be busy.
const soon = 20 * time.Second

var netNumber int

// segment is a bridge with hosts on it: eth0 (10.77.0.N/24, fd77::N/64), and eth0.100 (10.78.0.N/24,
// fd78::N/64), N from 1 on in the order of the hosts.
type segment struct {
	t      testing.TB
	prefix string
	hosts  map[string]netns.NsHandle
}

func newSegment(t testing.TB, hosts ...string) *segment {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	netNumber++
	s := &segment{t: t, prefix: fmt.Sprintf("addr%d-%d-", os.Getpid(), netNumber), hosts: map[string]netns.NsHandle{}}
	s.addHost("sw")
	s.ip("sw", "link add br0 type bridge")
	s.ip("sw", "link set br0 up")
	for n, h := range hosts {
		s.addHost(h)
		s.ip("sw", "link add name %s type veth peer name eth0 netns %s", h, s.prefix+h)
		s.ip("sw", "link set dev %s master br0 up", h)
		s.ip(h, "link set eth0 up")
		s.ip(h, "address add 10.77.0.%d/24 dev eth0", n+1)
		s.ip(h, "address add fd77::%d/64 dev eth0 nodad", n+1)
		s.addVLAN(h)
		s.ip(h, "link set eth0.100 up")
		s.ip(h, "address add 10.78.0.%d/24 dev eth0.100", n+1)
		s.ip(h, "address add fd78::%d/64 dev eth0.100 nodad", n+1)
	}
	return s
}

// addVLAN adds eth0.100 to the host. Where the kernel has no 802.1Q a VXLAN stands in for the VLAN: also a
// segment of its own on top of eth0.
func (s *segment) addVLAN(host string) {
	s.t.Helper()
	err := exec.Command("ip", "-n", s.prefix+host, "link", "add", "link", "eth0", "name", "eth0.100", "type", "vlan", "id", "100").Run()
	if err == nil {
		return
	}
	s.t.Log("no 802.1Q in this kernel, a VXLAN stands in for the VLAN")
	s.ip(host, "link add name eth0.100 type vxlan id 100 group ff05::100 dev eth0 dstport 4789")
}

func (s *segment) addHost(name string) {
	s.t.Helper()
	full := s.prefix + name
	run(s.t, "ip", "netns", "add", full)
	s.t.Cleanup(func() { exec.Command("ip", "netns", "del", full).Run() })
	h, err := netns.GetFromName(full)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { h.Close() })
	s.hosts[name] = h
	s.ip(name, "link set lo up")
}

// ip runs an ip command on a host and returns what it printed.
func (s *segment) ip(host, format string, args ...any) string {
	s.t.Helper()
	return run(s.t, "ip", append([]string{"-n", s.prefix + host}, strings.Fields(fmt.Sprintf(format, args...))...)...)
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// on runs f in the host's network namespace and waits for it.
func (s *segment) on(host string, f func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := netns.Set(s.hosts[host]); err != nil {
			s.t.Error(err)
			return
		}
		f()
	})
	wg.Wait()
}

// settled waits until the kernel has given a host's interfaces their own IPv6 addresses and has looked for duplicates of
// them: it does so some seconds after they have come up, and tells of it only then.
func (s *segment) settled(host string) {
	s.t.Helper()
	eventually(s.t, "what has a link-local address that is none's else", "eth0 eth0.100", func() string {
		var done []string
		for line := range strings.Lines(s.ip(host, "-6 -o address show scope link -tentative")) {
			done = append(done, strings.Fields(line)[1])
		}
		slices.Sort(done)
		return strings.Join(slices.Compact(done), " ")
	})
}

func (s *segment) mac(host, iface string) string {
	s.t.Helper()
	return strings.TrimSpace(s.read(host, "/sys/class/net/"+iface+"/address"))
}

// read reads a file of the host's /sys or /proc.
func (s *segment) read(host, file string) string {
	s.t.Helper()
	return run(s.t, "ip", "netns", "exec", s.prefix+host, "cat", file)
}

// neighbour returns the hardware address that the host has in its cache, or "".
func (s *segment) neighbour(host, iface string, a netip.Addr) string {
	s.t.Helper()
	words := strings.Fields(s.ip(host, "neigh show %s dev %s", a, iface))
	for n, w := range words {
		if w == "lladdr" {
			return words[n+1]
		}
	}
	return ""
}

// has says whether the address is on any interface of the host.
func (s *segment) has(host string, a netip.Addr) bool {
	s.t.Helper()
	return strings.Contains(s.ip(host, "-o address show"), " "+a.String()+"/")
}

// serve answers TCP connections on the host with its name.
func (s *segment) serve(host string) {
	s.on(host, func() {
		l, err := net.Listen("tcp", ":9")
		if err != nil {
			s.t.Error(err)
			return
		}
		s.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, host)
				c.Close()
			}
		}()
	})
}

// ask connects from the host to the address and returns who answered. It tries once.
func (s *segment) ask(host string, a netip.Addr) (answer string) {
	s.t.Helper()
	s.on(host, func() {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, 9).String(), soon)
		if err != nil {
			answer = err.Error()
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(soon))
		b, err := io.ReadAll(c)
		if answer = string(b); err != nil {
			answer = err.Error()
		}
	})
	return answer
}

// runDir makes a directory on tmpfs, as an agent has it. No other agent's are beside it, where a resource looks for who
// else has its address.
func runDir(t testing.TB) string {
	t.Helper()
	root, err := os.MkdirTemp("/dev/shm", "addr")
	if err != nil {
		root = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	dir := filepath.Join(root, "resources", "group", "vip")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// change is what a resource reported by itself.
type change struct {
	status cluster.Status
	reason string
	around bool
}

// node is a vip on a host, driven as the agent would.
type node struct {
	*vip
	s       *segment
	host    string
	changes chan change
}

// vip makes a handle; dir is that of a predecessor, or "".
func (s *segment) vip(host string, p netip.Prefix, iface, dir string) *node {
	s.t.Helper()
	if dir == "" {
		dir = runDir(s.t)
	}
	n := &node{s: s, host: host, changes: make(chan change, 16)}
	fields := map[string]any{"address": p}
	if iface != "" {
		fields["interface"] = iface
	}
	s.on(host, func() {
		r, err := VIP{}.New(resource.Env{
			Spec: cluster.ResourceSpec{ID: "vip", Kind: "vip", Fields: fields}, RunDir: dir,
			Changed: func(st cluster.Status, why string, around bool) { n.changes <- change{st, why, around} },
		})
		if err != nil {
			s.t.Error(err)
			return
		}
		n.vip = r.(*vip)
	})
	if n.vip == nil {
		s.t.FailNow()
	}
	s.t.Cleanup(n.vip.Close)
	return n
}

func (n *node) start(epoch cluster.Epoch) (err error) {
	n.s.on(n.host, func() { err = n.vip.Start(context.Background(), epoch) })
	return err
}

func (n *node) mustStart(epoch cluster.Epoch) {
	n.s.t.Helper()
	if err := n.start(epoch); err != nil {
		n.s.t.Fatalf("start on %s: %v", n.host, err)
	}
}

func (n *node) mustStop() {
	n.s.t.Helper()
	if err := n.vip.Stop(context.Background()); err != nil {
		n.s.t.Fatalf("stop on %s: %v", n.host, err)
	}
}

func (n *node) mustBe(want cluster.Status) {
	n.s.t.Helper()
	got, err := n.vip.Probe(context.Background())
	if err != nil || got != want {
		n.s.t.Fatalf("probe on %s: %v, %v, want %v", n.host, got, err, want)
	}
}

// waitChange returns the next change that the resource reports.
func (n *node) waitChange() change {
	n.s.t.Helper()
	select {
	case c := <-n.changes:
		return c
	case <-time.After(soon):
		n.s.t.Fatalf("%s reported nothing within %v", n.host, soon)
		return change{}
	}
}

// eventually waits until f returns what is wanted.
func eventually(t testing.TB, what, want string, f func() string) {
	t.Helper()
	end := time.Now().Add(soon)
	for {
		got := f()
		if got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %q for %v, want %q", what, got, soon, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestMain lets the test binary stand in for an agent that dies without stopping anything: with
// ADDR_TEST_DIE set it starts that address, with ADDR_TEST_DIR as its directory, and kills itself.
func TestMain(m *testing.M) {
	p := os.Getenv("ADDR_TEST_DIE")
	if p == "" {
		os.Exit(m.Run())
	}
	epoch, _ := strconv.ParseUint(os.Getenv("ADDR_TEST_EPOCH"), 10, 64)
	r, err := VIP{}.New(resource.Env{
		Spec:   cluster.ResourceSpec{Fields: map[string]any{"address": netip.MustParsePrefix(p)}},
		RunDir: os.Getenv("ADDR_TEST_DIR"),
	})
	if err == nil {
		err = r.Start(context.Background(), cluster.Epoch(epoch))
	}
	fmt.Println("started:", err)
	self, _ := os.FindProcess(os.Getpid())
	self.Kill()
	select {}
}
