package sim

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/core/wire"
)

// TestFaultsAsText: a fault of every kind is read as it was written.
func TestFaultsAsText(t *testing.T) {
	p, err := Generate(1, "members")
	if err != nil {
		t.Fatal(err)
	}
	g := &generator{f: profiles["members"], plan: p, rand: rand.New(rand.NewPCG(1, 9)), l: time.Second}
	for k := range kindCount {
		for range 50 {
			f := g.fault(k, 3*time.Second)
			if k == Form {
				f.Words = "alpha"
			}
			text := f.String()
			words := strings.Fields(text)
			at, err := time.ParseDuration(words[1])
			if err != nil {
				t.Fatal(err)
			}
			read, err := parseFault(at, words[2:], linkNames)
			if err != nil || read.String() != text {
				t.Errorf("%q is read as %q (%v)", text, read.String(), err)
			}
		}
	}
}

// TestFaultsShow: what the newer faults are for comes about.
func TestFaultsShow(t *testing.T) {
	for script, want := range map[string][]string{
		"paused-clock":   {"pauseclock", "gate of web opens (epoch 2", "fault ends"},
		"suspended":      {"gate of web opens (epoch 2", "fault ends", "the machine was suspended"},
		"flushed-gate":   {"flushgate", "puts its gate back", "isolate", "gate of web opens (epoch 2"},
		"failing-disks":  {"the log can't be written", "has not answered for"},
		"failing-gate":   {"failgate", "gate of web opens (epoch 2"},
		"failing-record": {"failrecord beta", "failgate beta"},
		"unreadable":     {"halts: ", "gate of web opens (epoch 2", "fault ends", "agent starts, run 2"},
		"ungated":        {"ungate beta", "gamma   gate of web opens (epoch 2", "puts its gate back", "beta    gate of mail opens (epoch 2"},
		"lacking":        {"the host lacks", "gate of web opens (epoch 2", "fault ends", "gate of web opens (epoch 3"},
		"address-taken":  {"its address was taken away", "resource web/ip is running"},
	} {
		t.Run(script, func(t *testing.T) { shows(t, script, want) })
	}
	for script, count := range map[string]func(*Counts) int{
		"paused-clock": func(c *Counts) int { return c.Relics },
		"large-only":   func(c *Counts) int { return c.Pieces },
		"arp":          func(c *Counts) int { return c.Asked - c.Unanswered },
	} {
		r, err := RunPlan(readScript(t, "testdata/"+script+".script"), Options{})
		if err != nil || r.Violation != nil || count(&r.Counts) == 0 {
			t.Errorf("%s: %v, %v; what it is for did not happen", script, err, r.Violation)
		}
	}
}

// TestPausedClock: what a pause excuses is the gate as it stood, for the rest of its lease, and nothing else.
func TestPausedClock(t *testing.T) {
	p := readScript(t, "testdata/paused-clock.script")
	w, err := newWorld(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := w.machines[0]
	m.powerOn()
	w.now = int64(time.Second)
	before := m.clock.read(w.now)
	m.stop(PauseClock)
	w.now += int64(time.Minute)
	if m.clock.read(w.now) != before || !m.blocked() {
		t.Errorf("the clock of a paused guest reads %d, before it read %d", m.clock.read(w.now), before)
	}
	m.clockOn()
	if m.clock.read(w.now) != before {
		t.Errorf("the clock jumps by %v when the guest goes on", m.clock.read(w.now).Sub(before))
	}
	l := w.check.length
	if !m.relic.of(gate{1, before.Add(l)}) || m.relic.of(gate{1, before.Add(l + 1)}) {
		t.Errorf("a pause at %d excuses gates until %d, with leases of %v", before, m.relic.end, l)
	}
}

// TestGateWritesAgain: a failed gate write is not answered, nor is any after it, before it is done; then the newest of
// each group is done.
func TestGateWritesAgain(t *testing.T) {
	p := readScript(t, "testdata/failing-gate.script")
	w, err := newWorld(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := w.machines[0]
	m.powerOn()
	answers := func() (n []uint64) {
		for _, e := range w.queue.heap {
			if e.kind == evGated {
				n = append(n, e.n)
			}
		}
		return n
	}
	f := &w.running[0]
	f.node, f.on = 0, true
	m.writeGate(cluster.Gate{N: 1, Group: "web", Epoch: 1, End: 5})
	f.on = false
	m.writeGate(cluster.Gate{N: 2, Group: "web", Epoch: 2})
	if len(answers()) > 0 || m.gates[0].epoch != 0 {
		t.Fatalf("answered %v, gate %v: the first write has failed", answers(), m.gates[0])
	}
	m.agent = node.New(node.Config{Self: m.id, Spec: m.file, Read: m.read})
	m.writeGatesAgain()
	if n := answers(); len(n) != 1 || n[0] != 2 || m.gates[0].epoch != 2 {
		t.Errorf("answered %v, gate %v; want 2, and the gate of epoch 2", n, m.gates[0])
	}
}

// TestNarrow: a path that drops large packets lets the largest of the protocol through, and none of more bytes; another
// way is not concerned.
func TestNarrow(t *testing.T) {
	p := readScript(t, "testdata/large-only.script")
	p.Links = 2
	w, err := newWorld(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	full := wire.PieceOf(math.MaxUint64, make([]byte, 3*wire.PieceSize), 2)
	passes := func(from, to int) int {
		w.queue.heap = nil
		w.send(w.machines[from], w.machines[to].id, full)
		return len(w.queue.heap)
	}
	w.net.narrow = true
	w.net.links[0].mtu = 1000
	if n := passes(0, 1); n != 1 {
		t.Errorf("%d packets pass, want 1: one of two links is narrow", n)
	}
	w.net.least[0][1] = wire.MaxPacket + wire.MaxHeaders
	if n := passes(0, 1); n != 1 {
		t.Errorf("%d packets pass, want 1: a path of %d bytes carries the largest packet", n, w.net.least[0][1])
	}
	w.net.least[0][1] = 1000
	if n := passes(0, 1) + 10*passes(1, 0) + 100*passes(0, 2); n != 110 {
		t.Errorf("packets pass as %d, want 110: from alpha to beta alone the path is narrow on every link", n)
	}
}

// TestBloat: a queue delays, keeps the order, and loses what finds it full.
func TestBloat(t *testing.T) {
	p := readScript(t, "testdata/large-only.script")
	w, err := newWorld(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.net.links[0].bloat = 64 * time.Millisecond
	for range 100 {
		w.send(w.machines[0], w.machines[1].id, &wire.Ack{})
	}
	n, last := 0, int64(0)
	for _, e := range w.queue.heap {
		if e.kind == evPacket {
			n, last = n+1, max(last, e.at)
		}
	}
	if n != bloatPackets || last < int64(64*time.Millisecond) {
		t.Errorf("%d packets pass, the last after %v; want %d, after 64ms", n, time.Duration(last), bloatPackets)
	}
}

// TestLossy: a takeover stands loss on the only link.
func TestLossy(t *testing.T) {
	for profile, may := range map[string]int{"lossy1": 0, "lossy5": 3} {
		_, failed, err := Range(1, 300, profile, Options{}, 300)
		if err != nil {
			t.Fatal(err)
		}
		late := 0
		for _, f := range failed {
			if late++; f.Violation.Rule != "invariant 4" || late > may {
				t.Errorf("%s: seed %d, the %d. of those that fail (%d may be late): %v", profile, f.Seed, late, may, f.Violation)
			}
		}
	}
}
