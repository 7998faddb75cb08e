package gate

import (
	"testing"
	"time"
)

// An interface that appears is guarded, also after the groups have changed or an agent has been restarted: when all that
// there was is guarded already.
func TestInterfaceAfterSecondGuard(t *testing.T) {
	for name, again := range map[string]func(w *world, g Gate) Gate{
		"guard": func(w *world, g Gate) Gate { return g },
		"restart": func(w *world, g Gate) Gate {
			must(t, g.Close())
			return w.open(t, Options{Prefer: PreferEBPF})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			g := w.open(t, Options{Prefer: PreferEBPF})
			must(t, g.Guard([]Group{addresses}))
			g = again(w, g)
			must(t, g.Guard([]Group{addresses}))
			w.second(t)
			index := w.index(t, "va2")
			for end := time.Now().Add(long); !g.(*clsact).guards(index); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("it is not guarded")
				}
			}
			w.wantCut(t, w.client, "udp", "10.77.0.50:7000", 64)
		})
	}
}

// second lays a second cable, over which the client reaches the group's address.
func (w *world) second(t *testing.T) {
	t.Helper()
	w.cable(t, "va2", "vb2")
	w.address(t, w.node, "va2", "10.80.0.1/24")
	w.address(t, w.client, "vb2", "10.80.0.2/24")
	run(t, "ip -n "+w.client+" route replace 10.77.0.50/32 via 10.80.0.1")
	w.serve(t, w.node, "udp", "10.77.0.50:7000")
}
