package gate

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// closeGroup closes a group, and fails if that can't be done within reason: what changes interfaces anywhere on the machine can
// make one try fail.
func closeGroup(t *testing.T, g Gate, group cluster.GroupID, epoch cluster.Epoch) {
	t.Helper()
	for end := time.Now().Add(long); ; time.Sleep(time.Millisecond) {
		err := g.Set(group, epoch, 0)
		if err == nil {
			return
		}
		if !errors.Is(err, ErrOff) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// A close is not said to be done while somebody is at work on putting the gate back, whoever that is.
func TestCloseWhilePutBack(t *testing.T) {
	for _, prefer := range []string{PreferClsact, PreferEBPF} {
		t.Run(prefer, func(t *testing.T) {
			w := newWorld(t)
			g := w.open(t, Options{Prefer: prefer}).(*clsact)
			must(t, g.Guard([]Group{addresses}))
			closeGroup(t, g, "orders", 1)
			g.work.Lock() // who heard of it, or sweeps, has come no further yet
			if prefer == PreferEBPF {
				detachAll(t, pinsOf("/run/netns/"+w.node))
			} else {
				run(t, "tc -n "+w.node+" qdisc del dev va clsact")
			}
			time.Sleep(2 * lookHolds)
			err := g.Set("orders", 1, 0)
			g.work.Unlock()
			if !errors.Is(err, ErrOff) {
				t.Errorf("close of a gate that is off: %v, want %v", err, ErrOff)
			}
			closeGroup(t, g, "orders", 1)
		})
	}
}

// While somebody attaches to an interface that has appeared, a close of what is attached is done at once.
func TestCloseWhileAttaching(t *testing.T) {
	w := newWorld(t)
	g := w.open(t, Options{Prefer: PreferEBPF}).(*clsact)
	must(t, g.Guard([]Group{addresses}))
	g.work.Lock()
	defer g.work.Unlock()
	closeGroup(t, g, "orders", 1)
}

// slow is a link of which the kernel says nothing before it may.
type slow struct {
	link.Link
	may chan struct{}
}

func (s slow) Info() (*link.Info, error) {
	<-s.may
	return s.Link.Info()
}

// The kernel's lock of interfaces is held by others for long: neither Look nor a close waits for it, and a close is done
// once the kernel has answered.
func TestKernelLetsLooksWait(t *testing.T) {
	w := newWorld(t)
	g := w.open(t, Options{Prefer: PreferEBPF}).(*clsact)
	groups := manyGroups(500, 0, 0)
	must(t, g.Guard(groups))
	closeGroup(t, g, groups[0].ID, 1)
	may := make(chan struct{})
	g.work.Lock()
	for _, l := range g.hooks.pins.links {
		l.use.Lock()
		l.Link = slow{l.Link, may}
		l.use.Unlock()
	}
	g.work.Unlock()
	time.Sleep(2 * lookHolds)
	least := time.Hour
	for range 5 { // the machine may stand still in some
		began := time.Now()
		for i := range groups {
			g.Look()
			must(t, g.Set(groups[i].ID, 1, hence(time.Hour)))
			if err := g.Set(groups[i].ID, 1, 0); !errors.Is(err, ErrOff) {
				t.Errorf("close without an answer: %v, want %v", err, ErrOff)
			}
		}
		least = min(least, time.Since(began))
	}
	if least > short {
		t.Errorf("%d closes took %v", len(groups), least)
	}
	close(may)
	closeGroup(t, g, groups[0].ID, 1)
}

// Many closes in a row share their looks at the kernel.
func TestManyCloses(t *testing.T) {
	for _, prefer := range []string{PreferEBPF, PreferClsact} {
		t.Run(prefer, func(t *testing.T) {
			w := newWorld(t)
			for i := range 15 {
				w.cable(t, fmt.Sprintf("x%d", i), fmt.Sprintf("y%d", i))
			}
			g := w.open(t, Options{Prefer: prefer})
			groups := manyGroups(500, 0, 0)
			must(t, g.Guard(groups))
			closeGroup(t, g, groups[0].ID, 1)
			least := time.Hour
			for range 5 {
				began := time.Now()
				for i := range groups {
					closeGroup(t, g, groups[i].ID, 1)
				}
				least = min(least, time.Since(began))
			}
			t.Logf("%d closes: %v", len(groups), least)
			if least > 100*time.Millisecond {
				t.Errorf("%d closes took %v", len(groups), least)
			}
		})
	}
}

// A link that can't be pinned works on, and is pinned once that can be done; meanwhile the owner knows.
func TestPinCanNotBeMade(t *testing.T) {
	w := newWorld(t)
	dir := pinsOf("/run/netns/" + w.node)
	g := w.open(t, Options{Prefer: PreferEBPF})
	must(t, g.Guard([]Group{addresses}))
	must(t, unix.Unmount(dir, unix.MNT_DETACH))
	_ = os.Remove(dir) // unless the gate was quicker
	for end := time.Now().Add(3 * time.Second); os.WriteFile(dir, nil, 0o600) != nil; {
		if time.Now().After(end) {
			t.Skip("the gate is always quicker")
		}
		unix.Unmount(dir, unix.MNT_DETACH)
		os.Remove(dir)
	}
	defer os.Remove(dir)
	w.second(t)
	for end := time.Now().Add(long); ; time.Sleep(time.Millisecond) {
		c := g.(*clsact)
		c.work.Lock()
		has := c.hooks.pins.has(w.index(t, "va2"))
		c.work.Unlock()
		if has {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the interface that appeared has no links")
		}
	}
	if g.Sweep() == nil {
		t.Error("links without pins are whole")
	}
	closeGroup(t, g, "orders", 1)
	w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
	must(t, os.Remove(dir))
	must(t, g.Sweep())
	must(t, g.Close())
	w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
}
