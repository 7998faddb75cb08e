package gate

import (
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
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
	for _, prefer := range []string{PreferEBPF, PreferClsact} {
		t.Run(prefer, func(t *testing.T) {
			w := newWorld(t)
			w.serve(t, w.node, "udp", "10.77.0.50:7000")
			run(t, "tc -n "+w.node+" qdisc add dev va clsact")
			w.foreign(t, "va", "ingress", "10")
			before := run(t, "tc -n "+w.node+" filter show dev va ingress")
			g := w.open(t, Options{Prefer: prefer})
			must(t, g.Guard([]Group{addresses}))
			w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
			must(t, g.Remove())
			if after := run(t, "tc -n "+w.node+" filter show dev va ingress"); after != before {
				t.Errorf("filters before:\n%s\nafter:\n%s", before, after)
			}
			run(t, "tc -n "+w.node+" filter del dev va ingress pref 10")

			// Empty now, but not ours.
			g = w.open(t, Options{Prefer: prefer})
			must(t, g.Guard([]Group{addresses}))
			must(t, g.Remove())
			if q := run(t, "tc -n "+w.node+" qdisc show dev va"); !strings.Contains(q, "clsact") {
				t.Errorf("the qdisc of someone else is gone: %s", q)
			}
			if q := run(t, "tc -n "+w.node+" qdisc show dev lo"); strings.Contains(q, "clsact") {
				t.Errorf("our qdisc is left: %s", q)
			}
			if prefer == PreferEBPF {
				return
			}
			// A filter that comes later onto a qdisc of ours keeps it.
			g = w.open(t, Options{Prefer: prefer})
			must(t, g.Guard([]Group{addresses}))
			w.foreign(t, "lo", "egress", "10")
			must(t, g.Remove())
			if n := w.filters(t, "lo"); n == 0 {
				t.Error("a filter of someone else is gone")
			}
		})
	}
}

// leaves tells whether a datagram that the node sends from a group's address reaches the client.
func (w *world) leaves(t *testing.T, from string) bool {
	t.Helper()
	var err error
	var to *net.UDPConn
	in(t, w.client, func() {
		to, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP("10.77.0.2")})
	})
	must(t, err)
	defer to.Close()
	in(t, w.node, func() {
		var c *net.UDPConn
		if c, err = net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, to.LocalAddr().(*net.UDPAddr)); err == nil {
			defer c.Close()
			for range 3 {
				_, _ = c.Write([]byte("news")) // refused by a gate that is shut
			}
		}
	})
	must(t, err)
	to.SetReadDeadline(time.Now().Add(short))
	_, _, err = to.ReadFrom(make([]byte, 64))
	return err == nil
}

// Another program has an ingress qdisc where clsact would be, or a filter where ours must be. The gate shares the
// interface, guards all of it, and takes nothing away. Where tcx is, both may come at any time.
func TestForeignIngressQdisc(t *testing.T) {
	for _, prefer := range []string{PreferEBPF, PreferClsact} {
		for name, foreign := range map[string]func(t *testing.T, w *world){
			"qdisc": func(t *testing.T, w *world) { run(t, "tc -n "+w.node+" qdisc add dev va ingress") },
			"filter": func(t *testing.T, w *world) {
				run(t, "tc -n "+w.node+" qdisc add dev va clsact")
				w.foreign(t, "va", "egress", "1")
			},
		} {
			t.Run(prefer+" "+name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.serve(t, w.node, "udp", "10.77.0.50:7000")
				foreign(t, w)
				before := run(t, "tc -n "+w.node+" qdisc show dev va")
				g := w.open(t, Options{Prefer: prefer})
				must(t, g.Guard([]Group{addresses}))
				want := map[string]string{PreferEBPF: "ebpf tcx", PreferClsact: "ebpf clsact and nftables"}[prefer]
				if got := g.Describe(); got != want {
					t.Errorf("the gate is %q, want %q", got, want)
				}
				for epoch := range cluster.Epoch(3) {
					closeGroup(t, g, "orders", epoch+1)
					w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
					if w.leaves(t, "10.77.0.50") {
						t.Error("a datagram left through a gate that is shut")
					}
					must(t, g.Set("orders", epoch+1, hence(time.Hour)))
					w.wantPass(t, w.client, "udp", "10.77.0.50:7000", 64)
					must(t, g.Guard([]Group{addresses, ports}[:1+epoch%2]))
				}
				if after := run(t, "tc -n "+w.node+" qdisc show dev va"); after != before {
					t.Errorf("qdiscs before:\n%s\nafter:\n%s", before, after)
				}
				must(t, g.Close())
				g = w.open(t, Options{Prefer: prefer}) // a successor goes on with both
				closeGroup(t, g, "orders", 9)
				w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
				must(t, g.Guard([]Group{addresses}))
				must(t, g.Set("orders", 9, hence(time.Hour)))
				w.wantPass(t, w.client, "udp", "10.77.0.50:7000", 64)
				kind := "clsact"
				if strings.Contains(before, "ingress") {
					kind = "ingress"
				}
				run(t, "tc -n "+w.node+" qdisc del dev va "+kind)
				closeGroup(t, g, "orders", 9)
				must(t, g.Sweep())
				w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
				if got := g.Describe(); strings.Contains(got, "nftables") {
					t.Errorf("once others are gone, the gate is %q", got)
				}
				must(t, g.Remove())
				w.wantNothing(t)
			})
		}
	}
}

// Other software adds its ingress qdisc while the gate is up: with tcx nothing of the gate's is in its way.
func TestIngressQdiscComes(t *testing.T) {
	w := newWorld(t)
	w.serve(t, w.node, "udp", "10.77.0.50:7000")
	g := w.open(t, Options{Prefer: PreferEBPF})
	if must(t, g.Guard([]Group{addresses})); g.Describe() != "ebpf tcx" {
		t.Skip(g.(*clsact).Why())
	}
	run(t, "tc -n "+w.node+" qdisc add dev va ingress")
	out, err := exec.Command("tc", "-n", w.node, "filter", "add", "dev", "va", "ingress", "pref", "1", "protocol", "all", "matchall", "action", "pass").CombinedOutput()
	if err != nil {
		t.Logf("no such filter here: %s", out)
	}
	w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
	run(t, "tc -n "+w.node+" qdisc del dev va ingress")
	w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
	must(t, g.Set("orders", 1, hence(time.Hour)))
	w.wantPass(t, w.client, "udp", "10.77.0.50:7000", 64)
}

// A successor with another layout takes over deadlines, epochs and the note of whose the qdiscs are,
// without a moment of open or closed gate; before its Guard it works on the predecessor's tables.
func TestOtherLayout(t *testing.T) {
	for _, prefer := range []string{PreferEBPF, PreferClsact} {
		t.Run(prefer, func(t *testing.T) { testOtherLayout(t, prefer) })
	}
}

func testOtherLayout(t *testing.T, prefer string) {
	w := newWorld(t)
	w.serve(t, w.node, "udp", "10.77.0.50:7000")
	w.serve(t, w.node, "udp", "10.77.0.1:8000")
	both := []Group{addresses, ports}
	open := func(l layout) (g *clsact) {
		var err error
		in(t, w.node, func() {
			opts := named(Options{Prefer: prefer})
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
	closeGroup(t, g, "cache", 1)
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
	closeGroup(t, g, "orders", 7)
	w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
	must(t, g.Remove())
	w.wantNothing(t)
}

// attachedIDs are the ids of the programs on every interface, by name and hook.
func (w *world) attachedIDs(t *testing.T, g *clsact) map[string]int {
	t.Helper()
	links, err := g.hooks.links()
	must(t, err)
	ids := map[string]int{}
	for _, link := range links {
		for _, at := range parents {
			ours, _, err := g.hooks.filters(link, at.parent)
			must(t, err)
			for _, f := range ours {
				ids[link.Attrs().Name+" "+at.name] = f.Id
			}
		}
	}
	return ids
}

// A successor leaves alone what its own binary attached, and replaces a program of another one, whose
// tables it keeps.
func TestOtherProgram(t *testing.T) {
	w := newWorld(t)
	w.tun(t)
	w.serve(t, w.node, "udp", "10.77.0.50:7000")
	first := w.open(t, Options{Prefer: PreferClsact}).(*clsact)
	must(t, first.Guard([]Group{addresses}))
	must(t, first.Set("orders", 7, hence(time.Hour)))
	ids := w.attachedIDs(t, first)
	if len(ids) < 6 {
		t.Fatalf("attached: %v, want two each on lo, va and tun1", ids)
	}
	must(t, first.Close())

	steps := w.pulse(t, "10.77.0.50:7000")
	second := w.open(t, Options{Prefer: PreferClsact}).(*clsact)
	must(t, second.Guard([]Group{addresses}))
	if got := w.attachedIDs(t, second); fmt.Sprint(got) != fmt.Sprint(ids) {
		t.Errorf("attached by a successor: %v; want its predecessor's %v", got, ids)
	}
	for _, k := range kinds { // programs that do the same in another way
		code := append(asm.Instructions{asm.Mov.Imm(asm.R0, 0)}, assemble(current, second.maps, k.egress, k.ethernet)...)
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "baton_gate", Type: ebpf.SchedCLS, Instructions: code, License: "n/a"})
		must(t, err)
		info, err := prog.Info()
		must(t, err)
		id, _ := info.ID()
		second.hooks.progs[k].Close()
		second.hooks.progs[k] = &loaded{prog, id}
	}
	must(t, second.Sweep())
	others := w.attachedIDs(t, second)
	must(t, second.Close())

	third := w.open(t, Options{Prefer: PreferClsact}).(*clsact)
	must(t, third.Set("orders", 8, hence(time.Hour)))
	must(t, third.Guard([]Group{addresses}))
	for at, id := range w.attachedIDs(t, third) {
		if id == ids[at] || id == others[at] {
			t.Errorf("%s: program %d is another binary's", at, id)
		}
	}
	if sent, lost := steps(); lost > 0 || sent == 0 {
		t.Errorf("%d of %d packets were lost by the change of programs", lost, sent)
	}
	closeGroup(t, third, "orders", 8)
	w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
}

// An error that says "not there" counts as the interface's end only if the interface is gone: a kernel
// without clsact says it too, and then nothing would be guarded.
func TestVanished(t *testing.T) {
	w := newWorld(t)
	g := w.open(t, Options{Prefer: PreferEBPF}).(*clsact)
	links, err := g.hooks.links()
	must(t, err)
	var va netlink.Link
	for _, link := range links {
		if link.Attrs().Name == "va" {
			va = link
		}
	}
	for _, gone := range []bool{false, true} {
		if gone {
			run(t, "ip -n "+w.node+" link del va")
		}
		for _, err := range []error{unix.ENOENT, unix.ENODEV} {
			if got := g.hooks.vanished(va, err); got != gone {
				t.Errorf("link gone %v, %v: vanished %v", gone, err, got)
			}
		}
	}
	if err := g.hooks.attach(g.state, va); err != nil {
		t.Errorf("attach to an interface that is gone: %v", err)
	}
}

// An address that goes from a group to another is closed between, whoever gets the first one's slot.
func TestSlotChangesHands(t *testing.T) {
	m, s, err := fresh(current)
	if err != nil {
		t.Skipf("no eBPF here: %v", err)
	}
	defer m.close()
	defer s.unmap()
	s.take(0, State{"orders", 7, hence(time.Hour)})
	must(t, m.addrs.Put(vip4.As16(), uint32(0)))
	must(t, prune(m.addrs, func([]byte) bool { return true }, map[uint32]bool{0: true}))
	var got uint32
	must(t, m.addrs.Lookup(vip4.As16(), &got))
	if got < current.slots {
		t.Errorf("the address leads to slot %d, which another group may have", got)
	}
}
