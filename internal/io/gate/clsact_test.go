package gate

import (
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// foreign adds a filter of someone else's, which matches nothing.
func (w *world) foreign(t *testing.T, dev, hook, priority string) {
	t.Helper()
	out, err := exec.Command("tc", "-n", w.node, "filter", "add", "dev", dev, hook, "pref", priority, "protocol", "ip",
		"bpf", "bytecode", "1,6 0 0 0,").CombinedOutput()
	if err != nil {
		t.Fatalf("add a filter to %s %s: %v\n%s", dev, hook, err, out)
	}
}

// What others have on the interfaces stays, and their qdisc too.
func TestForeignFilterStays(t *testing.T) {
	w := newWorld(t)
	w.serve(t, w.node, "udp", "10.77.0.50:7000")
	run(t, "tc -n "+w.node+" qdisc add dev va clsact")
	w.foreign(t, "va", "ingress", "10")
	before := run(t, "tc -n "+w.node+" filter show dev va ingress")
	g := w.open(t, Options{Prefer: PreferEBPF})
	must(t, g.Guard([]Group{addresses}))
	w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
	must(t, g.Remove())
	if after := run(t, "tc -n "+w.node+" filter show dev va ingress"); after != before {
		t.Errorf("filters before:\n%s\nafter:\n%s", before, after)
	}
	run(t, "tc -n "+w.node+" filter del dev va ingress pref 10")

	// Empty now, but not ours.
	g = w.open(t, Options{Prefer: PreferEBPF})
	must(t, g.Guard([]Group{addresses}))
	must(t, g.Remove())
	if q := run(t, "tc -n "+w.node+" qdisc show dev va"); !strings.Contains(q, "clsact") {
		t.Errorf("the qdisc of someone else is gone: %s", q)
	}
	if q := run(t, "tc -n "+w.node+" qdisc show dev lo"); strings.Contains(q, "clsact") {
		t.Errorf("our qdisc is left: %s", q)
	}

	// A filter that comes later onto a qdisc of ours keeps it.
	g = w.open(t, Options{Prefer: PreferEBPF})
	must(t, g.Guard([]Group{addresses}))
	w.foreign(t, "lo", "egress", "10")
	must(t, g.Remove())
	if n := w.filters(t, "lo"); n == 0 {
		t.Error("a filter of someone else is gone")
	}
}

func TestPriorityTaken(t *testing.T) {
	w := newWorld(t)
	run(t, "tc -n "+w.node+" qdisc add dev va clsact")
	w.foreign(t, "va", "egress", "1")
	g := w.open(t, Options{Prefer: PreferEBPF})
	err := g.Guard([]Group{addresses})
	if err == nil || !strings.Contains(err.Error(), "va egress: priority 1 is taken") || !strings.Contains(err.Error(), "(bpf ") {
		t.Errorf("guard: %v, want an error that names va, egress, the priority and the filter", err)
	}
	run(t, "tc -n "+w.node+" qdisc del dev va clsact")
	run(t, "tc -n "+w.node+" qdisc add dev va ingress")
	if err := g.Guard([]Group{addresses}); err == nil || !strings.Contains(err.Error(), `"ingress"`) {
		t.Errorf("guard: %v, want an error that names the ingress qdisc", err)
	}
	run(t, "tc -n "+w.node+" qdisc del dev va ingress")
	must(t, g.Guard([]Group{addresses}))
}

func TestSweepPutsBack(t *testing.T) {
	w := newWorld(t)
	w.serve(t, w.node, "udp", "10.77.0.50:7000")
	g := w.open(t, Options{Prefer: PreferEBPF})
	must(t, g.Guard([]Group{addresses}))
	run(t, "tc -n "+w.node+" qdisc del dev va clsact")
	w.wantPass(t, w.client, "udp", "10.77.0.50:7000", 64)
	must(t, g.Sweep())
	w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
}

func TestFlushedRuleset(t *testing.T) {
	w := newWorld(t)
	w.serve(t, w.node, "udp", "10.77.0.50:7000")
	g := w.open(t, Options{Prefer: PreferNFTables})
	must(t, g.Guard([]Group{addresses}))
	flush := "nsenter --net=/run/netns/" + w.node + " nft flush ruleset"
	for _, restore := range []func() error{
		g.Sweep,
		func() error { must(t, g.Set("orders", 1, hence(time.Hour))); return g.Set("orders", 1, 0) },
	} {
		run(t, flush)
		w.wantPass(t, w.client, "udp", "10.77.0.50:7000", 64)
		must(t, restore())
		w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
	}
}

// A successor with another layout takes over deadlines, epochs and the note of whose the qdiscs are,
// without a moment of open or closed gate; before its Guard it works on the predecessor's tables.
func TestOtherLayout(t *testing.T) {
	w := newWorld(t)
	w.serve(t, w.node, "udp", "10.77.0.50:7000")
	w.serve(t, w.node, "udp", "10.77.0.1:8000")
	both := []Group{addresses, ports}
	open := func(l layout) (g *clsact) {
		var err error
		in(t, w.node, func() {
			opts := named(Options{})
			opts.Log = slog.New(slog.DiscardHandler)
			g, err = openLayout(opts, l)
		})
		must(t, err)
		return g
	}
	old := open(layout{version: 0, slots: 16, stride: 256})
	must(t, old.Guard(both))
	must(t, old.Set("orders", 7, hence(time.Hour)))
	left, err := old.Left()
	must(t, err)
	must(t, old.Close())

	steps := w.pulse(t, "10.77.0.50:7000")
	g := open(current)
	if got, err := g.Left(); err != nil || fmt.Sprint(got) != fmt.Sprint(left) {
		t.Errorf("left by another layout: %v, %v; want %v", got, err, left)
	}
	must(t, g.Set("cache", 1, hence(time.Hour)))
	w.wantPass(t, w.client, "udp", "10.77.0.1:8000", 64)
	must(t, g.Set("cache", 1, 0))
	w.wantCut(t, w.client, "udp", "10.77.0.1:8000", 64)
	must(t, g.Guard(both))
	w.wantCut(t, w.client, "udp", "10.77.0.1:8000", 64)
	if sent, lost := steps(); lost > 0 || sent == 0 {
		t.Errorf("%d of %d packets were lost by the change of layout", lost, sent)
	}
	if g.old != nil || g.state.version != current.version {
		t.Errorf("layout %d is still in use", g.state.version)
	}
	if got, _ := g.Left(); len(got) != 2 || got[1] != left[1] {
		t.Errorf("left: %v, want orders as in %v", got, left)
	}
	must(t, g.Set("orders", 7, 0))
	w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
	must(t, g.Remove())
	w.wantNothing(t)
}
