package gate

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// An interface goes: nothing of it is kept, neither pins nor what is known of it, so that nobody looks for it any more,
// and one that gets its index later is a new one.
func TestInterfaceGoes(t *testing.T) {
	for _, prefer := range []string{PreferEBPF, PreferClsact} {
		t.Run(prefer, func(t *testing.T) {
			w := newWorld(t)
			g := w.open(t, Options{Prefer: prefer}).(*clsact)
			must(t, g.Guard([]Group{addresses}))
			w.cable(t, "va2", "vb2")
			index := w.index(t, "va2")
			await := func(what string, so func() bool) {
				t.Helper()
				for end := time.Now().Add(long); !so(); time.Sleep(5 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("not within %v: %s", long, what)
					}
				}
			}
			await("it is guarded", func() bool { return g.guards(index) })
			run(t, "ip -n "+w.node+" link del va2")
			await("nothing of it is kept", func() bool {
				g.work.Lock()
				defer g.work.Unlock()
				h := g.hooks
				if h.known[index] || h.later[index] || h.bare[index] || h.amiss[index] || h.missing[index] != nil {
					return false
				}
				if h.pins == nil {
					return true
				}
				if h.pins.links[hook{index, false}] != nil || h.pins.links[hook{index, true}] != nil {
					return false
				}
				entries, _ := os.ReadDir(h.pins.dir) // where there are no pins it is not there
				return !slices.ContainsFunc(entries, func(e os.DirEntry) bool {
					return strings.HasPrefix(e.Name(), h.pins.prefix+strconv.Itoa(index)+"_")
				})
			})
		})
	}
}

// Groups go and others come by one change: the kernel's addresses lead to the former slots until it is done, and if it
// fails they go on doing so. No new group gets one of those.
func TestNewGroupsGetOtherSlots(t *testing.T) {
	w := newWorld(t)
	in(t, w.node, func() {
		x, err := newTables("baton_slots")
		must(t, err)
		defer x.Close()
		allot := func(names ...cluster.GroupID) {
			t.Helper()
			r := &rules{groups: map[cluster.GroupID]bool{}}
			for _, name := range names {
				r.groups[name] = true
			}
			before := map[uint32]cluster.GroupID{}
			for name, s := range x.slots {
				before[s.number] = name
			}
			must(t, x.allot(r))
			if len(x.slots) != len(names) {
				t.Errorf("%v have %d slots", names, len(x.slots))
			}
			for name, s := range x.slots {
				if was, used := before[s.number]; s.number == spare || used && was != name {
					t.Errorf("%s has slot %d, which %s had", name, s.number, was)
				}
			}
		}
		allot("a", "b", "c")
		allot("b", "d", "e")
		allot("f")
		allot("a", "b", "c", "f")
	})
}
