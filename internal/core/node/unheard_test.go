package node

import (
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// TestUnheard: a node that hears the others and is not heard sees who does not hear it, and who coordinates without it;
// also in a run that began so. Nobody else sees anything of the kind.
func TestUnheard(t *testing.T) {
	r := serving(t, file("one", nil))
	look := func(h *host) (deaf, leads int) {
		for _, n := range h.n.Overview(cluster.Now{Mono: r.now}).Nodes {
			if n.Deaf {
				deaf++
			}
			if n.Leads {
				leads++
			}
		}
		return deaf, leads
	}
	alpha := r.at("alpha")
	if deaf, _ := look(alpha); deaf != 0 {
		t.Errorf("%d do not hear alpha from the beginning", deaf)
	}
	r.pass = func(from, _ cluster.NodeID, m wire.Message) wire.Message {
		if from == "alpha" {
			return nil
		}
		return m
	}
	sees := func() bool { deaf, leads := look(alpha); return deaf == 2 && leads == 1 }
	r.until("alpha sees it", 3*time.Second, sees)
	alpha.stop()
	r.run(100 * time.Millisecond)
	alpha.start()
	if deaf, _ := look(alpha); deaf != 0 {
		t.Errorf("%d do not hear alpha as it starts", deaf)
	}
	r.until("its next run sees it", 3*time.Second, sees)
	if deaf, _ := look(r.at("beta")); deaf != 0 {
		t.Errorf("%d do not hear beta", deaf)
	}
	r.pass = nil
	r.until("it is heard again", 3*time.Second, func() bool { deaf, _ := look(alpha); return deaf == 0 })
}
