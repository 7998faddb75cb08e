package node

import (
	"net/netip"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// TestPartlyServed: of two addresses one fails, on every node, and the other is served: it is said which is not.
func TestPartlyServed(t *testing.T) {
	r := settled(t, file("one", func(s *cluster.Spec) {
		g := &s.Groups[0]
		g.Resources = append(g.Resources, cluster.ResourceSpec{ID: "six", Effects: cluster.EffectsAddress, Front: true, Addresses: []netip.Addr{netip.MustParseAddr("fd00::1")}})
	}))
	view := func(h cluster.NodeID) cluster.GroupView {
		return r.at(h).n.Overview(cluster.Now{Mono: r.now}).Groups[0]
	}
	for _, h := range r.hosts {
		h.fails["six"] = "no interface has an address in the subnet"
	}
	r.at("alpha").step(&Done{cluster.Done{Group: "web", Resource: "six", Status: cluster.StatusFailed, Reason: "it is gone", Surroundings: true}})
	r.until("all say which is not served", 5*time.Second, func() bool {
		for _, h := range []cluster.NodeID{"alpha", "beta", "gamma"} {
			if g := view(h); g.Serving || g.Degraded != "six is not served, other addresses are" {
				return false
			}
		}
		return true
	})
	for _, h := range r.hosts {
		delete(h.fails, "six")
	}
	r.until("all is served", time.Minute, func() bool { g := view("gamma"); return g.Serving && g.Degraded == "" })

	for _, h := range r.hosts { // what fails behind all addresses leaves none that is served
		h.fails["proc"] = "it ended"
	}
	owner := r.at(view("gamma").Owner)
	owner.step(&Done{cluster.Done{Group: "web", Resource: "proc", Status: cluster.StatusFailed, Reason: "it ended"}})
	r.run(2 * time.Second)
	if g := view("gamma"); g.Serving || g.Degraded != "" {
		t.Errorf("%+v", g)
	}
}
