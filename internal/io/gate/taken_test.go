package gate

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// detachAll detaches every link of a gate, as `bpftool link detach` does.
func detachAll(t *testing.T, dir string) {
	t.Helper()
	all, err := filepath.Glob(dir + "/*_*")
	must(t, err)
	for _, path := range all {
		l, err := link.LoadPinnedLink(path, nil)
		must(t, err)
		must(t, l.(interface{ Detach() error }).Detach())
		l.Close()
	}
}

// takings are ways in which others take a gate off, by mechanism. They get the node's namespace and pins.
var takings = map[string]map[string]func(t *testing.T, w *world, dir string){
	PreferEBPF: {
		"detach": func(t *testing.T, _ *world, dir string) { detachAll(t, dir) },
		"unpin": func(t *testing.T, _ *world, dir string) {
			all, _ := filepath.Glob(dir + "/*_*")
			for _, path := range all {
				must(t, os.Remove(path))
			}
		},
		"umount": func(t *testing.T, _ *world, dir string) { must(t, unix.Unmount(dir, unix.MNT_DETACH)) },
	},
	PreferClsact: {
		"qdisc":   func(t *testing.T, w *world, _ string) { run(t, "tc -n "+w.node+" qdisc del dev va clsact") },
		"filters": func(t *testing.T, w *world, _ string) { run(t, "tc -n "+w.node+" filter del dev va ingress") },
		"ingress": func(t *testing.T, w *world, _ string) {
			if _, err := try("tc -n " + w.node + " qdisc del dev va clsact"); err != nil { // it was not quicker the last time
				run(t, "tc -n "+w.node+" qdisc del dev va ingress")
			}
			try("tc -n " + w.node + " qdisc add dev va ingress") // unless the gate was quicker
		},
	},
	PreferNFTables: {
		"flush": func(t *testing.T, w *world, _ string) { w.nft(t, "flush ruleset") },
		"table": func(t *testing.T, w *world, _ string) { w.nft(t, "delete table arp "+tableName(named(Options{}))) },
		"chain": func(t *testing.T, w *world, _ string) {
			w.nft(t, "flush chain inet "+tableName(named(Options{}))+" arrive")
		},
		"element": func(t *testing.T, w *world, _ string) {
			w.nft(t, "flush map inet "+tableName(named(Options{}))+" addr4")
		},
	},
}

func (w *world) nft(t *testing.T, command string) string {
	t.Helper()
	return run(t, "nsenter --net=/run/netns/"+w.node+" nft "+command)
}

// Whatever others take off is put back at once, without a call, and told. What was shut is shut again within
// milliseconds; what was open serves on.
func TestTakenOff(t *testing.T) {
	for prefer, ways := range takings {
		for name, take := range ways {
			t.Run(prefer+" "+name, func(t *testing.T) {
				w := newWorld(t)
				w.address(t, w.node, "va", "10.77.0.60/24")
				dir := pinsOf("/run/netns/" + w.node)
				var mu sync.Mutex
				var told []string
				g := w.open(t, Options{Prefer: prefer, Off: func(why string) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, why)
				}})
				shut := Group{ID: "shut", Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.60")}}
				must(t, g.Guard([]Group{addresses, shut}))
				must(t, g.Set("orders", 3, hence(time.Hour)))
				must(t, g.Set("shut", 1, hence(time.Hour))) // so that the client has its hardware address
				closed, open := w.flow(t, "10.77.0.60:7000"), w.flow(t, "10.77.0.50:7000")
				stop := make(chan struct{})
				closed.run(stop)
				open.run(stop)
				for end := time.Now().Add(long); closed.came.Load() == 0; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatal("nothing comes through an open gate: nothing is shown")
					}
				}
				closeGroup(t, g, "shut", 1)
				time.Sleep(20 * time.Millisecond)
				for range 3 {
					before := closed.came.Load()
					mu.Lock()
					told = nil
					mu.Unlock()
					began := time.Now()
					take(t, w, dir)
					for { // until it is told, and nothing comes any more
						mu.Lock()
						done := len(told) > 1 && told[len(told)-1] == ""
						mu.Unlock()
						if g, ok := g.(*clsact); ok && prefer == PreferEBPF { // it may be told of the first before the last is off
							g.work.Lock()
							done = done && len(g.hooks.pins.missing()) == 0
							g.work.Unlock()
						}
						if done {
							break
						}
						if time.Since(began) > long {
							t.Fatalf("nobody was told within %v: %q", long, told)
						}
						time.Sleep(time.Millisecond)
					}
					took := time.Since(began)
					leaked := closed.came.Load() - before
					t.Logf("put back after %v, %d packets came through", took, leaked)
					time.Sleep(20 * time.Millisecond) // what was under way
					if closed.passes(50 * time.Millisecond) {
						t.Error("packets came through a gate that was put back")
					}
				}
				close(stop)
				closed.settled()
				sent, came := open.settled()
				t.Logf("open: %d of %d came", came, sent)
				least := 0.9
				if prefer == PreferNFTables { // written anew, it is shut until its deadlines are written, too: some milliseconds
					least = 0.5
				}
				if sent == 0 || float64(came) < least*float64(sent) {
					t.Errorf("%d of %d packets came through the open gate", came, sent)
				}
				must(t, g.Close())
				if prefer == PreferEBPF { // it is pinned again
					all, _ := filepath.Glob(dir + "/*_*")
					if len(all) < 4 {
						t.Errorf("pins: %v", all)
					}
				}
			})
		}
	}
}

// The gate of a node that was killed outlives it, whatever the mechanism; a predecessor's at clsact goes over to tcx
// without one packet through what is shut.
func TestShutWithoutProcess(t *testing.T) {
	for _, c := range [][2]string{{PreferEBPF, PreferEBPF}, {PreferClsact, PreferEBPF}, {PreferClsact, PreferClsact}, {PreferEBPF, PreferClsact}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			f := w.flow(t, "10.77.0.50:7000")
			old := w.child(t, c[0], 0)
			stop := make(chan struct{})
			f.run(stop)
			time.Sleep(20 * time.Millisecond)
			old.kill()
			time.Sleep(20 * time.Millisecond)
			g := w.open(t, Options{Prefer: c[1]})
			must(t, g.Guard([]Group{addresses}))
			w.moved(t, g.(*clsact))
			time.Sleep(20 * time.Millisecond)
			must(t, g.Close())
			time.Sleep(20 * time.Millisecond)
			close(stop)
			if sent, came := f.settled(); sent == 0 || came > 0 {
				t.Errorf("%d of %d packets came through a gate that was shut all along", came, sent)
			}
		})
	}
}

// Tables that somebody else owns can't be put back, and that is told. Once they can be, they are, and that is told as
// well, though the kernel told nothing of it.
func TestPutBackLater(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var told []string
	g := w.open(t, Options{Prefer: PreferNFTables, Off: func(why string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, why)
	}}).(*tables)
	last := func() string {
		mu.Lock()
		defer mu.Unlock()
		if len(told) == 0 {
			return "nothing"
		}
		return told[len(told)-1]
	}
	must(t, g.Guard([]Group{addresses}))
	must(t, g.Set("orders", 3, hence(time.Hour)))

	owner := exec.Command("nsenter", "--net=/run/netns/"+w.node, "nft", "-i")
	in, err := owner.StdinPipe()
	must(t, err)
	must(t, owner.Start())
	ended := sync.OnceFunc(func() { in.Close(); _ = owner.Wait() })
	t.Cleanup(ended)
	_, err = fmt.Fprintf(in, "delete table inet %[1]s; add table inet %[1]s { flags owner; }\n", g.name)
	must(t, err)
	for end := time.Now().Add(long); !strings.Contains(last(), "can't be put back"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the last that was told is %q, and not that the tables can't be put back", last())
		}
	}
	if err := g.Sweep(); err == nil {
		t.Error("a sweep of what can't be put back reports no error")
	}
	g.monitor.close()
	g.monitor = nil
	ended()
	must(t, g.Sweep())
	if last() != "" {
		t.Errorf("the last that was told is %q, and the tables are put back", last())
	}
}
