package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must come. It is generous: the machine may be busy.
const patience = time.Minute

const orphanVariable = "BATON_LAB_TEST_ORPHAN"

func TestMain(m *testing.M) {
	MaybeInit()
	if dir := os.Getenv(orphanVariable); dir != "" {
		orphan(dir)
	}
	os.Exit(m.Run())
}

// newLab makes a lab that is closed with the test.
func newLab(t *testing.T, networks ...string) *Lab {
	t.Helper()
	l, err := New(t.Name(), Options{Networks: networks})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// addHost adds a host with the address 10.66.N.LAST on the lab's Nth network.
func addHost(t *testing.T, l *Lab, name string, last int) *Host {
	t.Helper()
	addresses := map[string][]netip.Prefix{}
	for i, network := range l.order {
		addresses[network] = []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.66.%d.%d/24", i, last)),
			netip.MustParsePrefix(fmt.Sprintf("fd66:%d::%d/64", i, last)),
		}
	}
	h, err := l.AddHost(HostConfig{Name: name, Addresses: addresses})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// run runs a shell line in the host and returns its trimmed output.
func run(t *testing.T, h *Host, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := h.Command(ctx, "sh", "-c", line)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, what, got, wanted string) {
	t.Helper()
	if got != wanted {
		t.Errorf("%s: got %q, want %q", what, got, wanted)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func startEcho(t *testing.T, h *Host, env ...string) *Process {
	t.Helper()
	program, err := EchoProgram(7000, env...)
	must(t, err)
	p, err := h.Start(program)
	must(t, err)
	return p
}

func startProbe(t *testing.T, h *Host, config ProbeConfig) *Probe {
	t.Helper()
	p, err := h.Probe(config)
	must(t, err)
	must(t, p.Await(patience, func(r Record) bool { return len(r.Replies) > 20 }))
	return p
}

// A boot gives a machine of its own: name, links, processes, cgroups and mounts; only its disk and its
// MAC address are the same after a power loss.
func TestBoot(t *testing.T) {
	l := newLab(t, "lan", "cross")
	h := addHost(t, l, "alpha", 11)
	want(t, "hostname", run(t, h, "hostname"), "alpha")
	want(t, "boot id", run(t, h, "cat /proc/sys/kernel/random/boot_id"), h.BootID())
	want(t, "links", run(t, h, "ls /sys/class/net | tr '\n' ' '"), "cross lan lo")
	want(t, "loopback", run(t, h, "cat /sys/class/net/lo/carrier"), "1")
	want(t, "cgroup", run(t, h, "grep ^0: /proc/self/cgroup"), "0::/")
	want(t, "cgroup2 mounts", run(t, h, "grep -- ' - cgroup2 ' /proc/self/mountinfo | cut -d' ' -f4,5"), "/ "+l.mount)
	want(t, "own cgroup", run(t, h, "mkdir "+l.mount+"/job && echo $$ > "+l.mount+"/job/cgroup.procs && grep ^0: /proc/self/cgroup"), "0::/job")
	if _, err := os.Stat(filepath.Join(h.CgroupDir(), "job")); err != nil {
		t.Errorf("the host's cgroup is not below its directory on the machine: %v", err)
	}
	want(t, "/run", run(t, h, "ls /run"), "lock")
	// Only its own place is looked at: tests beside this one may have mounted others elsewhere on the machine.
	want(t, "BPF file systems", run(t, h, "grep -c -- ' /sys/fs/bpf .* - bpf ' /proc/self/mountinfo"), "1")
	mac, id := run(t, h, "cat /sys/class/net/lan/address"), h.BootID()
	run(t, h, "echo kept > /var/lib/baton/file; echo key > /etc/baton/key; echo gone > /run/file")
	machine, _ := os.Hostname()
	if machine == "alpha" {
		t.Error("the machine's own hostname was changed")
	}
	if _, err := os.Stat("/var/lib/baton/file"); err == nil {
		t.Error("the host's disk shows on the machine")
	}

	must(t, h.PowerOff())
	if _, err := h.Command(t.Context(), "true"); err == nil {
		t.Error("a command ran on a host without power")
	}
	if text, err := os.ReadFile(h.Disk("/var/lib/baton/file")); string(text) != "kept\n" {
		t.Errorf("disk of a host that is off: %q, %v", text, err)
	}
	must(t, h.Boot())
	want(t, "disk after the boot", run(t, h, "cat /var/lib/baton/file /etc/baton/key | tr '\n' ' '"), "kept key")
	want(t, "/run after the boot", run(t, h, "ls /run"), "lock")
	want(t, "MAC after the boot", run(t, h, "cat /sys/class/net/lan/address"), mac)
	want(t, "boot id after the boot", run(t, h, "cat /proc/sys/kernel/random/boot_id"), h.BootID())
	if h.BootID() == id {
		t.Error("the boot id is the same after a boot")
	}
}

// A boot that fails half-way leaves the host off, and says why; then it may be tried again.
func TestFailedBoot(t *testing.T) {
	l := newLab(t, "lan")
	twice := netip.MustParsePrefix("10.66.0.11/24")
	h, err := l.AddHost(HostConfig{Name: "alpha", Addresses: map[string][]netip.Prefix{"lan": {twice, twice}}})
	if err == nil || !strings.Contains(err.Error(), "10.66.0.11/24") {
		t.Fatalf("an address given twice: %v", err)
	}
	if h.On() {
		t.Error("the host is on")
	}
	if _, err := os.Stat(h.CgroupDir()); err == nil {
		t.Error("its cgroup is still there")
	}
	h.config.Addresses["lan"] = []netip.Prefix{twice}
	must(t, h.Boot())
	want(t, "hostname", run(t, h, "hostname"), "alpha")
	for name, config := range map[string]HostConfig{
		"same name":       {Name: "alpha"},
		"bad name":        {Name: "al/pha"},
		"no such network": {Name: "beta", Addresses: map[string][]netip.Prefix{"wan": nil}},
		"relative disk":   {Name: "beta", Disk: []string{"srv"}},
	} {
		if _, err := l.AddHost(config); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
}

// A host of a long name has its cable, and its links have the names that are asked for, as long as they may be.
func TestNames(t *testing.T) {
	l := newLab(t, "lan", "cross")
	const long = "enp0s31f6-of-the-second-card"
	h, err := l.AddHost(HostConfig{Name: "a-very-long-name-of-a-host", Addresses: map[string][]netip.Prefix{
		"lan":   {netip.MustParsePrefix("10.66.0.1/24")},
		"cross": {netip.MustParsePrefix("10.66.1.1/24")},
	}, Interfaces: map[string]string{"lan": "eth0.100", "cross": long}})
	must(t, err)
	addHost(t, l, "b", 2)
	for _, name := range []string{"eth0.100", long} {
		if out := run(t, h, "ip -o link show "+name); !strings.Contains(out, name) {
			t.Errorf("it has no link %s: %s", name, out)
		}
	}
	run(t, h, "ping -c1 -W2 10.66.0.2")
	must(t, l.CutCarrier(h.Name(), "lan"))
	if out := run(t, h, "ip -o link show eth0.100"); !strings.Contains(out, "NO-CARRIER") {
		t.Errorf("its cable is not cut: %s", out)
	}
}

// wire sends datagrams from one host to another, to see what passes.
type wire struct {
	t     *testing.T
	to    map[string]*net.UDPConn // by host and network
	l     *Lab
	round int // of count; datagrams bear it
}

func newWire(t *testing.T, l *Lab, port int, hosts ...*Host) *wire {
	w := &wire{t: t, to: map[string]*net.UDPConn{}, l: l}
	for _, h := range hosts {
		for _, network := range l.order {
			address := net.JoinHostPort(h.config.Addresses[network][0].Addr().String(), strconv.Itoa(port))
			c, err := h.ListenPacket(t.Context(), "udp", address)
			must(t, err)
			t.Cleanup(func() { c.Close() })
			must(t, c.(*net.UDPConn).SetReadBuffer(1<<20)) // nothing is to be lost for want of room
			w.to[h.Name()+"-"+network] = c.(*net.UDPConn)
		}
	}
	return w
}

// count sends n datagrams and returns how many arrive.
func (w *wire) count(from, to, network string, n int) int {
	w.t.Helper()
	target := w.to[to+"-"+network]
	address := target.LocalAddr().(*net.UDPAddr).AddrPort()
	buffer := make([]byte, 64)
	w.round++
	hello := fmt.Sprint("hello ", w.round)
	for range n {
		// Without carrier there may be no route; that is one way of not arriving.
		w.to[from+"-"+network].WriteToUDPAddrPort([]byte(hello), address)
	}
	arrived := 0
	quiet := 60 * time.Millisecond
	if n > 1 {
		quiet *= 5
	}
	for arrived < n {
		target.SetReadDeadline(time.Now().Add(quiet))
		size, _, err := target.ReadFromUDPAddrPort(buffer)
		if err != nil {
			break
		}
		if string(buffer[:size]) == hello { // and not what is left of before
			arrived++
		}
	}
	return arrived
}

// passes checks which ways between hosts are open. A way is "alpha>beta lan".
func (w *wire) passes(what string, ways map[string]bool) {
	w.t.Helper()
	for way, wanted := range ways {
		path, network, _ := strings.Cut(way, " ")
		from, to, _ := strings.Cut(path, ">")
		// What is to pass may need ARP first, or a link that is just coming up.
		var got bool
		for range 30 {
			if got = w.count(from, to, network, 1) == 1; got || !wanted {
				break
			}
		}
		if got != wanted {
			w.t.Errorf("%s: %s passes: %v, want %v", what, way, got, wanted)
		}
	}
}

// Each fault does what it says, on the network it names and in the direction it names, and heals.
func TestFaults(t *testing.T) {
	l := newLab(t, "lan", "cross")
	a, b, c := addHost(t, l, "alpha", 11), addHost(t, l, "beta", 12), addHost(t, l, "gamma", 13)
	w := newWire(t, l, 9000, a, b, c)
	all := map[string]bool{
		"alpha>beta lan": true, "beta>alpha lan": true, "alpha>beta cross": true, "beta>alpha cross": true,
		"alpha>gamma lan": true, "gamma>alpha lan": true, "beta>gamma lan": true, "gamma>beta lan": true,
	}
	but := func(closed ...string) map[string]bool {
		ways := map[string]bool{}
		for way := range all {
			ways[way] = true
		}
		for _, way := range closed {
			if !ways[way] {
				t.Fatalf("no way %q", way)
			}
			ways[way] = false
		}
		return ways
	}
	carrier := func(what, wanted string) {
		t.Helper()
		want(t, what+": carrier", run(t, a, "cat /sys/class/net/lan/carrier"), wanted)
	}
	lan := []string{"alpha>beta lan", "beta>alpha lan", "alpha>gamma lan", "gamma>alpha lan"}
	w.passes("at first", all)

	must(t, l.CutCarrier("alpha", "lan"))
	w.passes("no carrier", but(lan...))
	carrier("no carrier", "0")
	must(t, l.Heal("alpha", "lan"))
	carrier("healed", "1")
	w.passes("carrier healed", all)

	must(t, l.CutSilent("alpha", "lan"))
	w.passes("silent", but(lan...))
	carrier("silent", "1")
	must(t, l.Heal("alpha", "lan"))
	w.passes("silence healed", all)

	must(t, l.CutSilent("alpha", ""))
	w.passes("silent on all networks", but(append(lan, "alpha>beta cross", "beta>alpha cross")...))
	must(t, l.Heal("alpha", "cross"))
	w.passes("one of two healed", but(lan...))
	must(t, l.HealAll())

	must(t, l.CutOneWay("alpha", "lan", Out))
	w.passes("sends nothing", but("alpha>beta lan", "alpha>gamma lan"))
	must(t, l.HealAll())
	must(t, l.CutOneWay("alpha", "lan", In))
	w.passes("hears nothing", but("beta>alpha lan", "gamma>alpha lan"))
	must(t, l.HealAll())

	must(t, l.CutBetween("alpha", "beta", "lan"))
	w.passes("cut between two", but("alpha>beta lan", "beta>alpha lan"))
	must(t, l.Heal("beta", ""))
	must(t, l.CutFromTo("alpha", "beta", "lan"))
	w.passes("cut from one to the other", but("alpha>beta lan"))
	must(t, l.HealAll())
	w.passes("all healed", all)

	if l.CutSilent("delta", "lan") == nil || l.CutSilent("alpha", "wan") == nil || l.CutBetween("alpha", "delta", "lan") == nil {
		t.Error("a cut of an unknown host or network is no error")
	}
}

// A cable that is out stays out over a reboot.
func TestCutOutlivesBoot(t *testing.T) {
	l := newLab(t, "lan")
	a := addHost(t, l, "alpha", 11)
	must(t, l.CutCarrier("alpha", "lan"))
	must(t, a.PowerOff())
	must(t, a.Boot())
	want(t, "carrier", run(t, a, "cat /sys/class/net/lan/carrier"), "0")
	must(t, l.HealAll())
	want(t, "carrier healed", run(t, a, "cat /sys/class/net/lan/carrier"), "1")
}

func TestLoss(t *testing.T) {
	l := newLab(t, "lan")
	a, b := addHost(t, l, "alpha", 11), addHost(t, l, "beta", 12)
	heartbeats, others := newWire(t, l, 7400, a, b), newWire(t, l, 9000, a, b)
	open := map[string]bool{"alpha>beta lan": true, "beta>alpha lan": true}
	heartbeats.passes("at first", open)
	others.passes("at first", open)

	const sent = 200
	if n := heartbeats.count("alpha", "beta", "lan", sent); n != sent {
		t.Fatalf("without loss %d of %d arrive", n, sent)
	}
	must(t, l.Loss(30))
	if n := others.count("alpha", "beta", "lan", sent); n < sent*50/100 || n > sent*90/100 {
		t.Errorf("at 30 %% loss %d of %d arrive", n, sent)
	}
	must(t, l.LossUDP(7400, 50))
	if n := heartbeats.count("alpha", "beta", "lan", sent); n < sent*30/100 || n > sent*70/100 {
		t.Errorf("at 50 %% loss of heartbeats %d of %d arrive", n, sent)
	}
	if n := others.count("alpha", "beta", "lan", sent); n != sent {
		t.Errorf("at 50 %% loss of heartbeats %d of %d others arrive", n, sent)
	}
	must(t, l.CutFromTo("alpha", "beta", "lan"))
	must(t, l.Loss(0))
	heartbeats.passes("no loss, still cut", map[string]bool{"alpha>beta lan": false, "beta>alpha lan": true})
	must(t, l.HealAll())
	if n := heartbeats.count("alpha", "beta", "lan", sent); n != sent {
		t.Errorf("healed, %d of %d arrive", n, sent)
	}
}

// Power loss: every process is gone, also those that hide from a session or ignore signals, and the
// peer of a connection is not told.
func TestPowerOff(t *testing.T) {
	l := newLab(t, "lan", "cross")
	a, c := addHost(t, l, "alpha", 11), addHost(t, l, "client", 100)
	server := startEcho(t, a)
	stubborn, err := a.Start(Program{Args: []string{"sh", "-c", "trap '' TERM HUP INT; setsid sleep 1000 & sleep 1000 & wait"}})
	must(t, err)
	probe := startProbe(t, c, ProbeConfig{Target: netip.MustParseAddrPort("10.66.0.11:7000")})
	peer, err := c.DialContext(t.Context(), "tcp", "10.66.1.11:7000")
	must(t, err)
	defer peer.Close()
	var pids []string
	eventually(t, "three processes of the shell run", func() bool {
		text, err := os.ReadFile(filepath.Join(a.CgroupDir(), "cgroup.procs"))
		must(t, err)
		pids = strings.Fields(string(text))
		return len(pids) >= 5 // and PID 1 and the server
	})

	must(t, a.PowerOff())
	off := Now()
	for _, pid := range pids {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("process %s outlives the power loss", pid)
		}
	}
	for _, p := range []*Process{server, stubborn} {
		if p.Wait() == nil {
			t.Error("a killed process ended with status 0")
		}
	}
	peer.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the peer of a connection to a host without power reads: %v, want silence", err)
	}
	record := probe.Stop()
	if last := record.Replies[len(record.Replies)-1]; last.Received > off {
		t.Errorf("an answer came %v after the power loss", last.Received-off)
	}
	if !record.Outage().Open {
		t.Error("an outage that never ended does not show as open")
	}
}

func TestSupervise(t *testing.T) {
	l := newLab(t, "lan")
	a, c := addHost(t, l, "alpha", 11), addHost(t, l, "client", 100)
	program, err := EchoProgram(7000)
	must(t, err)
	s, err := a.Supervise(program)
	must(t, err)
	probe := startProbe(t, c, ProbeConfig{Target: netip.MustParseAddrPort("10.66.0.11:7000")})
	answers := func(what string) {
		t.Helper()
		now := Now()
		if err := probe.Await(patience, func(r Record) bool { return r.AnsweredSince(now, "alpha") }); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}

	first := s.Process().PID()
	must(t, s.Process().Kill())
	answers("after the crash")
	if s.Process().PID() == first || s.Starts() != 2 {
		t.Errorf("after a crash: process %d again, %d starts", first, s.Starts())
	}

	silent := func(what string, from time.Duration) {
		t.Helper()
		time.Sleep(100 * time.Millisecond)
		if probe.Record().AnsweredSince(from, "") {
			t.Errorf("%s answers", what)
		}
	}
	must(t, s.Process().Freeze())
	silent("a frozen process", Now()+20*time.Millisecond)
	must(t, s.Process().Thaw())
	answers("thawed")
	must(t, a.Freeze())
	silent("a frozen host", Now())
	must(t, a.Thaw())
	answers("the host thawed")

	must(t, s.Process().Freeze())
	must(t, s.Stop(t.Context()))
	silent("a stopped service", Now())
	if s.Starts() != 2 {
		t.Errorf("%d starts, want 2: a service that was stopped has been started", s.Starts())
	}
	probe.Stop()
}

// A clean reboot tells the services, and OnBoot runs at every boot.
func TestReboot(t *testing.T) {
	l := newLab(t)
	script := `trap 'echo stopped >> /var/lib/baton/log; exit 0' TERM
		echo started >> /var/lib/baton/log; while :; do sleep 0.02; done`
	a, err := l.AddHost(HostConfig{Name: "alpha", OnBoot: func(h *Host) error {
		_, err := h.Supervise(Program{Args: []string{"sh", "-c", script}})
		return err
	}})
	must(t, err)
	logged := func(wanted string) {
		t.Helper()
		eventually(t, "log is "+wanted, func() bool {
			text, _ := os.ReadFile(a.Disk("/var/lib/baton/log"))
			return strings.Join(strings.Fields(string(text)), " ") == wanted
		})
	}
	logged("started")
	must(t, a.Reboot(t.Context()))
	logged("started stopped started")
	must(t, a.PowerOff())
	must(t, a.Boot())
	logged("started stopped started started")
}

// A cut of 100 ms is measured as about that, over both kinds of probe, and a host answers from the
// address that was asked.
func TestProbe(t *testing.T) {
	l := newLab(t, "lan")
	a, c := addHost(t, l, "alpha", 11), addHost(t, l, "client", 100)
	state := filepath.Join(a.Disk("/var/lib/baton"), "state")
	must(t, os.WriteFile(state, []byte(`{"version": 1, "epoch": 7}`), 0o644))
	startEcho(t, a, "BATON_NODE=node-a", "BATON_STATE_FILE=/var/lib/baton/state")
	run(t, a, "ip address add 10.66.0.50/24 dev lan && ip address add fd66:0::50/64 dev lan nodad")
	vip := startProbe(t, c, ProbeConfig{Target: netip.MustParseAddrPort("10.66.0.50:7000")})
	six := startProbe(t, c, ProbeConfig{Target: netip.MustParseAddrPort("[fd66:0::50]:7000")})
	tcp := startProbe(t, c, ProbeConfig{Target: netip.MustParseAddrPort("10.66.0.50:7000"), TCP: true, Interval: 5 * time.Millisecond})

	begin := Now()
	must(t, l.CutSilent("alpha", "lan"))
	cut := Now()
	time.Sleep(100 * time.Millisecond)
	healing := Now()
	must(t, l.Heal("alpha", "lan"))
	healed := Now()
	for name, p := range map[string]*Probe{"udp": vip, "udp6": six, "tcp": tcp} {
		must(t, p.Await(patience, func(r Record) bool { return r.AnsweredSince(healed, "node-a") }))
		r := p.Stop()
		outage := r.Outage()
		// An answer may have been under way when the cut came, and is noted when it was read.
		const slack = 30 * time.Millisecond
		if outage.Length() < healing-cut-slack || outage.To < healing || outage.From > cut+slack || outage.From < begin-time.Second {
			t.Errorf("%s: outage of %v from %v to %v for a cut from %v to %v", name, outage.Length(), outage.From, outage.To, cut, healing)
		}
		if outage.Length() > healed-begin+time.Second {
			t.Errorf("%s: outage of %v for a cut of %v", name, outage.Length(), healed-begin)
		}
		tenures := r.Tenures()
		if len(tenures) != 1 || tenures[0].Node != "node-a" || tenures[0].Epoch != 7 || r.Overlap() != 0 || r.Strays != 0 {
			t.Errorf("%s: %v, %d strays", name, r, r.Strays)
		}
		if r.Requests <= uint64(len(r.Replies)) {
			t.Errorf("%s: %d requests, %d replies, although some were cut off", name, r.Requests, len(r.Replies))
		}
		t.Logf("%s: %v", name, r)
	}
}

// Two hosts with one address: the probe sees both, and for how long.
func TestDualActive(t *testing.T) {
	l := newLab(t, "lan")
	a, b, c := addHost(t, l, "alpha", 11), addHost(t, l, "beta", 12), addHost(t, l, "client", 100)
	startEcho(t, a, "BATON_EPOCH=1")
	startEcho(t, b, "BATON_EPOCH=2")
	for _, h := range []*Host{a, b} {
		run(t, h, "ip address add 10.66.0.50/32 dev lan")
	}
	must(t, l.CutSilent("beta", "lan"))
	probe := startProbe(t, c, ProbeConfig{Target: netip.MustParseAddrPort("10.66.0.50:7000")})
	must(t, l.HealAll())
	mac := map[*Host]string{a: run(t, a, "cat /sys/class/net/lan/address"), b: run(t, b, "cat /sys/class/net/lan/address")}
	for _, h := range []*Host{b, a, b} {
		now := Now()
		run(t, c, "ip neighbour replace 10.66.0.50 lladdr "+mac[h]+" dev lan")
		must(t, probe.Await(patience, func(r Record) bool { return r.AnsweredSince(now, h.Name()) }))
	}
	r := probe.Stop()
	if tenures := r.Tenures(); len(tenures) != 2 || tenures[0].Node != "alpha" || tenures[1].Node != "beta" {
		t.Errorf("%v: want alpha, then beta", r)
	}
	if r.Overlap() <= 0 {
		t.Errorf("%v: no overlap seen", r)
	}
}

func TestRecord(t *testing.T) {
	ms := time.Millisecond
	reply := func(seq uint64, node string, epoch uint64) Reply {
		sent := time.Duration(seq) * ms
		return Reply{Seq: seq, Node: node, Epoch: epoch, Sent: sent, Received: sent + ms/2}
	}
	for name, c := range map[string]struct {
		replies         []Reply
		outage, overlap time.Duration
		open            bool
	}{
		"none":              {nil, 100 * ms, 0, true},
		"handed over":       {[]Reply{reply(1, "a", 1), reply(2, "a", 1), reply(40, "b", 2), reply(99, "b", 2)}, 59 * ms, 0, false},
		"never came back":   {[]Reply{reply(1, "a", 1), reply(20, "a", 1)}, 100*ms - 20*ms - ms/2, 0, true},
		"both":              {[]Reply{reply(50, "a", 1), reply(60, "b", 2), reply(75, "a", 1), reply(90, "b", 2)}, 15 * ms, 15 * ms, false},
		"back and forth":    {[]Reply{reply(50, "a", 1), reply(60, "b", 2), reply(75, "a", 3), reply(90, "a", 3)}, 15 * ms, 0, false},
		"the old one later": {[]Reply{reply(50, "b", 2), reply(60, "b", 2), reply(75, "a", 1), reply(90, "a", 1)}, 15 * ms, 40 * ms, false},
	} {
		r := Record{Ended: 100 * ms, Replies: c.replies}
		if o := r.Outage(); o.Length() != c.outage || o.Open != c.open || r.Overlap() != c.overlap {
			t.Errorf("%s: outage %v, open %v, overlap %v; want %v, %v, %v", name, o.Length(), o.Open, r.Overlap(), c.outage, c.open, c.overlap)
		}
	}
}

// Two labs with the same name, hosts and addresses, of one program, are two worlds.
func TestParallelLabs(t *testing.T) {
	for i := range 2 {
		t.Run("same", func(t *testing.T) {
			t.Parallel()
			l, err := New("same", Options{})
			must(t, err)
			t.Cleanup(func() { must(t, l.Close()) })
			a, c := addHost(t, l, "alpha", 11), addHost(t, l, "client", 100)
			startEcho(t, a, fmt.Sprintf("BATON_NODE=lab%d", i))
			probe := startProbe(t, c, ProbeConfig{Target: netip.MustParseAddrPort("10.66.0.11:7000")})
			for _, reply := range probe.Stop().Replies {
				if reply.Node != fmt.Sprintf("lab%d", i) {
					t.Fatalf("lab %d is answered by %s", i, reply.Node)
				}
			}
		})
	}
}

// remains lists what is left on the machine of a lab: by name, and by its network namespaces.
func remains(t *testing.T, id, base string, namespaces []string) []string {
	t.Helper()
	var found []string
	mount, err := cgroupMount()
	must(t, err)
	for _, path := range []string{filepath.Join(mount, id), filepath.Join(base, id)} {
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), id) {
		found = append(found, "a mount")
	}
	// A namespace lives by a process, a thread, or a descriptor.
	for _, pattern := range []string{"/proc/[0-9]*/ns/net", "/proc/self/task/*/ns/net", "/proc/[0-9]*/fd/*"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			target, _ := os.Readlink(path)
			for _, ns := range namespaces {
				if target == ns || target == "/proc/"+ns {
					found = append(found, path)
				}
			}
		}
	}
	return found
}

func inode(t *testing.T, fd int) string {
	var s unix.Stat_t
	must(t, unix.Fstat(fd, &s))
	return fmt.Sprintf("net:[%d]", s.Ino)
}

func TestCloseLeavesNothing(t *testing.T) {
	links := func() []string { // names alone: their states are the machine's affair
		names, err := filepath.Glob("/sys/class/net/*")
		must(t, err)
		return names
	}
	before := links()
	l := newLab(t, "lan", "cross")
	a, b := addHost(t, l, "alpha", 11), addHost(t, l, "beta", 12)
	startEcho(t, a)
	run(t, b, "mkdir -p "+l.mount+"/deep/er")
	must(t, b.Freeze())
	must(t, l.CutCarrier("alpha", "lan"))
	namespaces := []string{inode(t, int(l.switchNS))}
	for _, h := range []*Host{a, b} {
		namespaces = append(namespaces, inode(t, int(h.booted().spaces[0].file.Fd())))
	}
	if len(remains(t, l.id, defaultDir, namespaces)) < 5 {
		t.Fatal("the check for remains does not see a living lab")
	}
	if now := links(); slices.ContainsFunc(now, func(name string) bool { return !slices.Contains(before, name) }) {
		t.Errorf("a lab shows in the machine's links: %v, before %v", now, before)
	}

	must(t, l.Close())
	eventually(t, "no thread is left in a namespace", func() bool { return len(remains(t, l.id, defaultDir, namespaces)) == 0 })
	must(t, l.Close())
	if _, err := l.AddHost(HostConfig{Name: "late"}); err == nil {
		t.Error("a closed lab takes a host")
	}
	if err := l.CutSilent("alpha", "lan"); err == nil {
		t.Error("a closed lab takes a fault")
	}
}

// orphan makes a lab with a busy and a frozen host and waits to be killed.
func orphan(dir string) {
	l, err := New("orphan", Options{Dir: dir})
	if err == nil {
		_, err = l.AddHost(HostConfig{Name: "busy", Disk: []string{"/srv"}, OnBoot: func(h *Host) error {
			_, err := h.Start(Program{Args: []string{"sleep", "1000"}})
			return err
		}})
	}
	if err == nil {
		_, err = l.AddHost(HostConfig{Name: "big", Systemd: true})
	}
	var frozen *Host
	if err == nil {
		frozen, err = l.AddHost(HostConfig{Name: "frozen"})
	}
	if err == nil {
		err = frozen.Freeze()
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(l.id)
	select {}
}

// A killed program's hosts end by themselves; what can't is swept up, and what lives is spared.
func TestSweep(t *testing.T) {
	base := t.TempDir()
	alive, err := New("alive", Options{Dir: base})
	must(t, err)
	defer alive.Close()
	spared := addHost(t, alive, "alpha", 11)

	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), orphanVariable+"="+base)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	id := strings.TrimSpace(line)
	if err != nil || !strings.HasPrefix(id, idPrefix) {
		t.Fatalf("the program says %q, %v", line, err)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	for _, host := range []string{"busy", "big"} {
		events := filepath.Join(alive.mount, id, host, "cgroup.events")
		eventually(t, host+" ends without its program", func() bool {
			text, err := os.ReadFile(events)
			must(t, err)
			return strings.Contains(string(text), "populated 0")
		})
	}

	must(t, Sweep(base))
	if left := remains(t, id, base, nil); len(left) != 0 {
		t.Errorf("left after a sweep: %v", left)
	}
	want(t, "host of a living lab", run(t, spared, "echo lives"), "lives")
}

// One at a time has the directory, also while it is removed and made again.
func TestLockDir(t *testing.T) {
	var in atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				unlock, err := lockDir(defaultDir)
				if err != nil {
					t.Error(err)
					return
				}
				if n := in.Add(1); n != 1 {
					t.Errorf("%d have the lock", n)
				}
				in.Add(-1)
				unlock()
			}
		})
	}
	all.Wait()
}

// A thread of higher priority that hogs a core for 30 ms is seen as a stall of about that. A hypervisor that takes the
// core away meanwhile can shorten what the thread had of it, so one of three must show.
func TestStallSampler(t *testing.T) {
	for range 3 {
		hog, seen, later := sampleHog(t)
		if later != 0 {
			t.Errorf("stalls of %v in the future", later)
		}
		if seen >= 15*time.Millisecond {
			return
		}
		t.Logf("a hog of %v shows as stalls of %v", hog, seen)
	}
	t.Error("no hog of 30 ms shows as a stall")
}

// sampleHog hogs a core, and returns for how long, what the sampler saw of it, and what it saw of the future.
func sampleHog(t *testing.T) (hog, seen, later time.Duration) {
	t.Helper()
	s, err := SampleStalls()
	must(t, err)
	time.Sleep(200 * time.Millisecond)
	var from, to time.Duration
	err = onOwnThread(func() error {
		var one unix.CPUSet
		one.Set(runtime.NumCPU() - 1)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return err
		}
		if !beRealTime(stallsPriority + 5) {
			return errors.New("no real-time priority")
		}
		from = Now()
		for to = from; to < from+30*time.Millisecond; to = Now() {
		}
		return nil
	})
	must(t, err)
	time.Sleep(100 * time.Millisecond)
	must(t, s.Stop())
	return to - from, s.Sum(from, to+10*time.Millisecond), s.Sum(to+time.Hour, to+2*time.Hour)
}

// Processes that are not ours to start again end with exit codes, signals and output as elsewhere.
func TestProcess(t *testing.T) {
	l := newLab(t)
	a := addHost(t, l, "alpha", 11)
	p, err := a.Start(Program{Args: []string{"sh", "-c", "echo $WORD; echo bad >&2; exit 3"}, Env: []string{"WORD=good"}, Output: "word"})
	must(t, err)
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("exit 3 is seen as %v", err)
	}
	text, err := os.ReadFile(a.LogPath("word"))
	want(t, "log", string(text), "good\nbad\n")
	must(t, err)
	p, err = a.Start(Program{Args: []string{"sleep", "1000"}})
	must(t, err)
	must(t, p.Signal(syscall.SIGTERM))
	p.Wait()
	must(t, p.Signal(syscall.SIGTERM))

	if _, err := a.Start(Program{Args: []string{"no-such-program"}}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a missing program: %v", err)
	}
	if _, err := a.Command(t.Context(), "sh", "-c", "echo why >&2; false"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("a failing command: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Command(ctx, "sleep", "1000"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that takes too long: %v", err)
	}
	// An orphan is taken over, and waited for, by the host's PID 1.
	orphan := run(t, a, "sleep 0.05 > /dev/null 2>&1 & echo $!")
	eventually(t, "the orphan is gone", func() bool {
		return run(t, a, "test -e /proc/"+orphan+" && echo there || echo gone") == "gone"
	})
}
