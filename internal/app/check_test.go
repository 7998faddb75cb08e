package app

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/core/wire"
)

// quiet is a checkup that shows nothing.
func quiet() *checkup { return &checkup{tell: func(finding) {}} }

// expectFinding wants exactly one finding of a name.
func expectFinding(t *testing.T, u *checkup, name string, v verdict, text string) {
	t.Helper()
	var got []finding
	for _, f := range u.Checks {
		if f.Name == name {
			got = append(got, f)
		}
	}
	if len(got) != 1 || got[0].Verdict != v || !strings.Contains(got[0].Text, text) {
		t.Errorf("%s: got %+v, want %s with %q", name, got, v, text)
		return
	}
	if v != pass && got[0].Hint == "" {
		t.Errorf("%s: no hint says what to do about %q", name, got[0].Text)
	}
}

const checkedFile = `cluster: feed
takeover: 1s
key_file: %s
nodes:
  alpha: { address: 127.0.0.1 }
  beta:  { address: 10.0.0.12 }
  gamma: { address: 10.0.0.13, role: witness }
links:
  - { name: lan,   udp: { port: %d } }
  - { name: cross, udp: { port: 7401, addresses: { alpha: 192.0.2.1, beta: 192.0.2.2 } } }
groups:
  feed:
    resources:
      - process: { name: feed, command: [/does/not/exist], user: nobody }
      - vip: 10.0.0.60/24
`

// files writes a cluster file and its key.
func files(t *testing.T, port uint16) (file, key string) {
	t.Helper()
	dir := t.TempDir()
	file, key = filepath.Join(dir, "cluster.yaml"), filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(wire.FormatKey(make([]byte, wire.KeySize))), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, fmt.Appendf(nil, checkedFile, key, port), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, key
}

func TestVirtual(t *testing.T) {
	const cpu = "processor\t: 0\nflags\t\t: fpu vme %s tsc\n"
	for flag, want := range map[string]bool{"hypervisor": true, "": false, "hypervisor_x": false} {
		if got := virtual(fmt.Sprintf(cpu, flag)); got != want {
			t.Errorf("flag %q: virtual %v", flag, got)
		}
	}
	if virtual("") {
		t.Error("nothing says that this is a virtual machine")
	}
}

func TestCheckKey(t *testing.T) {
	_, key := files(t, 7400)
	u := quiet()
	checkKey(u, key)
	expectFinding(t, u, "key", pass, key)
	os.Chmod(key, 0o640)
	u = quiet()
	checkKey(u, key)
	expectFinding(t, u, "key", bad, "mode 0640")
	os.WriteFile(key, []byte("baton-key-v1 abc\n"), 0o600)
	u = quiet()
	checkKey(u, key)
	expectFinding(t, u, "key", bad, "cut or is two lines")
	os.Remove(key)
	u = quiet()
	checkKey(u, key)
	expectFinding(t, u, "key", bad, "no such file")
}

// nameOf is what the kernel calls a process.
func nameOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func TestCheckLinks(t *testing.T) {
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	file, _ := files(t, port)
	text, _ := os.ReadFile(file)
	spec, err := config.Parse(file, text, Kinds())
	if err != nil {
		t.Fatal(err)
	}
	alpha := spec.Node("alpha")
	u := quiet()
	checkLinks(u, spec, alpha, "none")
	expectFinding(t, u, "link lan", bad, "is held by app.test (pid "+strconv.Itoa(os.Getpid())+")")
	expectFinding(t, u, "link cross", bad, "192.0.2.1 is not an address of this host")
	// The same port in the hands of this node's agent is as it should be.
	u = quiet()
	checkLinks(u, spec, alpha, serveStage(t, healthy()))
	expectFinding(t, u, "link lan", pass, "held by the agent that runs")
	taken.Close()
	u = quiet()
	checkLinks(u, spec, alpha, "none")
	expectFinding(t, u, "link lan", pass, "its ports are free")
	// Another program has it, on all addresses, though the agent runs.
	other := exec.Command("python3", "-c", "import socket,sys; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('0.0.0.0',int(sys.argv[1]))); print('ready',flush=True); sys.stdin.read()", strconv.Itoa(int(port)))
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatalf("no program to hold the port: %v", err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	u = quiet()
	checkLinks(u, spec, alpha, serveStage(t, healthy()))
	expectFinding(t, u, "link lan", bad, fmt.Sprintf("UDP 127.0.0.1:%d is held by %s (pid %d), on all addresses, and this node's agent runs without it", port, nameOf(t, other.Process.Pid), other.Process.Pid))
	in.Close()
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
	u = quiet()
	checkLinks(u, spec, spec.Node("gamma"), "none")
	expectFinding(t, u, "link cross", pass, "gamma has no address on it")

	u = quiet()
	checkResources(u, spec, alpha)
	if len(u.Checks) != 2 {
		t.Fatalf("got %+v, want one finding for each resource", u.Checks)
	}
	vip := quiet()
	vip.Checks, u.Checks = u.Checks[1:], u.Checks[:1]
	expectFinding(t, u, "group feed", bad, "/does/not/exist")
	expectFinding(t, vip, "group feed", bad, "no interface has an address in the subnet of 10.0.0.60")

	want := []string{
		"ip saddr { 10.0.0.12, 10.0.0.13 } meta l4proto { udp, tcp } th dport " + fmt.Sprint(port) + " accept",
		"ip saddr { 192.0.2.2 } meta l4proto { udp, tcp } th dport 7401 accept",
	}
	if got := firewall(spec, alpha); !slices.Equal(got, want) {
		t.Errorf("firewall: got %q, want %q", got, want)
	}
	spec.Links[1].UDP.Addresses = map[cluster.NodeID]netip.Addr{"alpha": netip.MustParseAddr("fd00::1"), "beta": netip.MustParseAddr("fd00::2")}
	if got := firewall(spec, alpha)[1]; got != "ip6 saddr { fd00::2 } meta l4proto { udp, tcp } th dport 7401 accept" {
		t.Errorf("firewall: got %q", got)
	}
}

func TestCgroupMount(t *testing.T) {
	const text = `25 30 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw
33 25 0:28 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw
34 33 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:10 master:3 - cgroup2 cgroup2 rw,nsdelegate
`
	if got := cgroupMount(text); got != "/sys/fs/cgroup/unified" {
		t.Errorf("got %q", got)
	}
	if got := cgroupMount("25 30 0:23 / /sys rw - sysfs sysfs rw\n"); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestJudgements(t *testing.T) {
	for source, want := range map[string]verdict{"tsc": pass, "kvm-clock": warning, "hpet": warning} {
		if v, hint, text := judgeClock(source); v != want || (v == warning) != (hint != "") || !strings.Contains(text, source) {
			t.Errorf("%s: %s, %q, %q", source, v, text, hint)
		}
	}
	for text, want := range map[string]verdict{"pool x\n": warning, "pool x\nMaxSlewRate 1000\n": pass, "maxslewrate 500": pass, "maxslewrate 2000\n": warning, "# maxslewrate 10\n": warning} {
		if v, hint, found := judgeChrony(text); v != want || (v == warning) != (hint != "") {
			t.Errorf("%q: %s, %q, %q", text, v, found, hint)
		}
	}
	if status := "CapPrm:\t0\nCapEff:\t0000000000004000\n"; !hasCapability(status, unix.CAP_IPC_LOCK) || hasCapability(status, unix.CAP_SYS_NICE) {
		t.Error("bit 14 is CAP_IPC_LOCK")
	}
}

func TestMeasurements(t *testing.T) {
	if _, _, err := worstStall(0); err == nil {
		t.Error("no time, and yet a stall")
	}
	begin := time.Now()
	stall, _, err := worstStall(100 * ms)
	if err != nil || stall <= 0 || stall > time.Since(begin) {
		t.Errorf("got %v, %v", stall, err)
	}
	dir := t.TempDir()
	times, err := syncTimes(existing(filepath.Join(dir, "not", "there")))
	if err != nil || len(times) != syncSamples || times[0] <= 0 || !slices.IsSorted(times) {
		t.Errorf("got %v, %v", times, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLeastTakeover(t *testing.T) {
	for _, stall := range []time.Duration{15 * ms, 40 * ms, 700 * ms} {
		least, found := leastTakeover(stall, ms, ms)
		if _, _, err := config.Derive(least, stall, ms, ms); !found || err != nil {
			t.Errorf("stall %v: %v is no takeover: %v", stall, least, err)
		}
		if _, _, err := config.Derive(least-ms, stall, ms, ms); err == nil && least > config.MinTakeover {
			t.Errorf("stall %v: %v is not the least", stall, least)
		}
	}
	if _, found := leastTakeover(config.MaxTakeover, ms, ms); found {
		t.Error("a stall as long as the longest takeover fits")
	}
	file, _ := files(t, 7400)
	text, _ := os.ReadFile(file)
	spec, err := config.Parse(file, text, Kinds())
	if err != nil {
		t.Fatal(err)
	}
	u := quiet()
	checkBudget(u, spec, measured{stall: 600 * ms, sync: ms})
	expectFinding(t, u, "takeover", bad, "can't be kept")
	if len(u.Bounds) != 0 || u.Least == "" {
		t.Errorf("bounds %v, least %q", u.Bounds, u.Least)
	}
}

// The whole command, on this host.
func TestCheckCommand(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: most checks fail without")
	}
	file, _ := files(t, 7400)
	args := []string{"check", file, "--node", "alpha", "--data", t.TempDir(), "--measure", "50ms"}
	code, out, errOut := baton(t, "none", append(args, "--json")...)
	var u checkup
	if err := json.Unmarshal([]byte(out), &u); err != nil || errOut != "" {
		t.Fatalf("%v: %s%s", err, out, errOut)
	}
	expectFinding(t, &u, "file", pass, "cluster feed, 3 nodes, 2 links, 1 group")
	expectFinding(t, &u, "node", pass, "this host is alpha")
	expectFinding(t, &u, "gate", pass, "absolute deadline")
	expectFinding(t, &u, "cgroup", pass, "cgroup v2 at")
	expectFinding(t, &u, "link cross", bad, "192.0.2.1")
	if code != exitFailed || u.count(bad) == 0 || len(u.Firewall) != 2 || u.Takeover != "1s" {
		t.Errorf("exit %d: %s", code, out)
	}
	code, out, _ = baton(t, "none", args...)
	failures := strings.Count("\n"+out, "\nfailure  ") // what is measured may be worse this time
	for _, want := range []string{"failure  link cross  192.0.2.1 is not an address of this host\n         hint:       ", "owner-power", "A firewall must let in", fmt.Sprintf("%d failures", failures)} {
		if code != exitFailed || !strings.Contains(out, want) {
			t.Errorf("exit %d, want %q in\n%s", code, want, out)
		}
	}
	os.WriteFile(file, []byte("cluster: feed\nnode: {}\n"), 0o600)
	code, out, _ = baton(t, "none", args...)
	if code != exitUsage || !strings.Contains(out, "cluster.yaml:2:1") || !strings.Contains(out, `write "nodes"`) {
		t.Errorf("exit %d\n%s", code, out)
	}
}

// What won't be as it looks in the file is told: addresses come last wherever they stand, a program that listens on
// the group's own address can't, scripts and files of DOS don't work.
func TestCheckGroups(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"haproxy.cfg": "frontend x\n  bind 10.0.0.60:8080\n",
		"near.cfg":    "bind 10.0.0.60.1 110.0.0.60 10.0.0.601\n",
		"dos.sh":      "#!/bin/sh\nexec sleep 1\r\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ resources, want string }{
		{"[ { vip: 10.0.0.60/24 }, { process: { name: p, command: [sleep, \"1\"], user: nobody } } ]", "vip stands before p in the file"},
		{"[ { process: { name: p, command: [sleep, \"1\"], user: nobody } }, { vip: 10.0.0.60/24 } ]", ""},
		{"[ { process: { name: p, command: [haproxy, -f, $DIR/haproxy.cfg], user: nobody } }, { vip: 10.0.0.60/24 } ]", "$DIR/haproxy.cfg names 10.0.0.60"},
		{"[ { process: { name: p, command: [haproxy, --file=haproxy.cfg], user: nobody, directory: $DIR } }, { vip: 10.0.0.60/24 } ]", ""},
		{"[ { process: { name: p, command: [haproxy, --file=./haproxy.cfg], user: nobody, directory: $DIR } }, { vip: 10.0.0.60/24 } ]", "$DIR/haproxy.cfg names 10.0.0.60"},
		{"[ { process: { name: p, command: [haproxy, -f, $DIR/near.cfg], user: nobody } }, { vip: 10.0.0.60/24 } ]", ""},
		{"[ { process: { name: p, command: [x, --listen, \"10.0.0.60:80\"], user: nobody } }, { vip: 10.0.0.60/24 } ]", "its command names 10.0.0.60"},
		{"[ { process: { name: p, command: [x], environment: { LISTEN: \"[fd00::60]:80\" }, user: nobody } }, { vip: { address: \"fd00::60/64\" } } ]", "its environment names fd00::60"},
		{"[ { process: { name: p, command: [sh, $DIR/dos.sh], user: nobody } }, { vip: 10.0.0.60/24 } ]", "dos.sh has DOS line ends"},
		{"[ { process: { name: p, command: [$DIR/dos.sh], user: nobody } }, { vip: 10.0.0.60/24 } ]", "dos.sh has DOS line ends"},
	} {
		text := "cluster: feed\nnodes:\n  alpha: { address: 127.0.0.1 }\n  beta: { address: 10.0.0.12 }\n  gamma: { address: 10.0.0.13, role: witness }\n" +
			"groups:\n  feed: { resources: " + strings.ReplaceAll(c.resources, "$DIR", dir) + " }\n"
		spec, err := config.Parse("file", []byte(text), Kinds())
		if err != nil {
			t.Errorf("%s: %v", c.resources, err)
			continue
		}
		u := quiet()
		checkGroups(u, spec, spec.Node("alpha"))
		if c.want != "" {
			expectFinding(t, u, "group feed", warning, strings.ReplaceAll(c.want, "$DIR", dir))
		} else if len(u.Checks) > 0 {
			t.Errorf("%s: %+v", c.resources, u.Checks)
		}
	}
	file := filepath.Join(dir, "dos.yaml")
	if err := os.WriteFile(file, []byte("cluster: feed\r\nnodes:\r\n  alpha: { address: 127.0.0.1 }\r\n  beta: { address: 10.0.0.12 }\r\n  gamma: { address: 10.0.0.13, role: witness }\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := quiet()
	checkFile(u, file)
	expectFinding(t, u, "line ends", warning, "DOS line ends (CR LF)")
}

// TestUplinkOfOneLink: a node whose only link is gone can tell nobody, so what is said of its uplink is a power loss.
func TestUplinkOfOneLink(t *testing.T) {
	const one = "cluster: web\nnodes: { a: { address: 10.0.0.11 }, b: { address: 10.0.0.12 }, c: { address: 10.0.5.13, role: witness } }\n" +
		"links: [ { name: lan, udp: { port: 7400 } }%s ]\ngroups: { web: { resources: [ vip: 10.0.0.50/24 ] } }\n"
	for more, alone := range map[string]bool{"": true, ", { name: cross, udp: { port: 7400, addresses: { a: 10.1.0.11, b: 10.1.0.12, c: 10.1.0.13 } } }": false} {
		spec, err := config.Parse("f", fmt.Appendf(nil, one, more), Kinds())
		if err != nil {
			t.Fatal(err)
		}
		u := quiet()
		checkBudget(u, spec, measured{})
		worst := map[string]string{}
		for _, b := range u.Bounds {
			worst[b.Fault] = b.Worst
			if b.Fault == "uplink" && strings.Contains(b.Why, "there is no other link") != alone {
				t.Errorf("%q: %s", more, b.Why)
			}
		}
		if worst["uplink"] == "" || (worst["uplink"] == worst["owner-power"]) != alone {
			t.Errorf("%q: %v", more, worst)
		}
	}
}

// TestReadyByOnePort: programs of two groups that count as ready by one local port are told of, where both may run here.
func TestReadyByOnePort(t *testing.T) {
	const file = "cluster: web\nnodes: { a: { address: 10.0.0.11 }, b: { address: 10.0.0.12 }, c: { address: 10.0.5.13, role: witness } }\ngroups:\n" +
		"  one: { nodes: [a, b], resources: [ process: { command: /bin/true, user: root, %s } ] }\n  two: { nodes: [%s], resources: [ process: { command: /bin/true, user: root, %s } ] }\n"
	for _, c := range []struct {
		one, nodes, two string
		told            bool
	}{
		{"ready: { tcp: 'localhost:8080' }", "a, b", "ready: { http: 'http://127.0.0.1:8080/' }", true},
		{"ready: { http: 'http://localhost/a' }", "a", "ready: { tcp: '[::1]:80' }", true},
		{"ready: { tcp: 'localhost:8080' }", "a, b", "ready: { tcp: 'localhost:8081' }", false},
		{"ready: { tcp: 'localhost:8080' }", "b", "ready: { tcp: 'localhost:8080' }", false},
		{"ready: { tcp: '10.9.9.9:8080' }", "a, b", "ready: { tcp: '10.9.9.9:8080' }", false},
		{"healthy: { tcp: 'localhost:5432' }", "a, b", "healthy: { tcp: 'localhost:5432' }", false},
		{"ready: { command: /bin/true }", "a, b", "ready: { command: /bin/true }", false},
	} {
		spec, err := config.Parse("f", fmt.Appendf(nil, file, c.one, c.nodes, c.two), Kinds())
		if err != nil {
			t.Fatal(err)
		}
		u := quiet()
		checkGroups(u, spec, spec.Node("a"))
		told := slices.ContainsFunc(u.Checks, func(f finding) bool {
			return f.Verdict == warning && strings.Contains(f.Text, "process of group one and process of group two are ready once localhost:")
		})
		if told != c.told {
			t.Errorf("%s, and on %s %s: %+v", c.one, c.nodes, c.two, u.Checks)
		}
	}
}
