package state

import (
	"net/netip"
	"slices"

	"baton/internal/core/cluster"
)

// Freed says that a revision took an address from a group. The node that then had the group may go on answering
// for the address until it has carried that revision out: until it says so, or its lease number is over, no group
// that has been given the address since is served.
type Freed struct {
	Address  netip.Addr       `json:"address"`
	Node     cluster.NodeID   `json:"node"`
	Number   cluster.Number   `json:"number"`
	Revision cluster.Revision `json:"revision"` // that the node must have carried out
}

// FreedFor returns who may still answer for one of a group's addresses.
func (s *State) FreedFor(g *cluster.GroupSpec) []Freed {
	if len(s.Freed) == 0 {
		return nil
	}
	var out []Freed
	for _, f := range s.Freed {
		if slices.Contains(g.Addresses(), f.Address) {
			out = append(out, f)
		}
	}
	return out
}

// free notes which addresses groups lose from the configuration that counts to the next.
func (s *State) free(revision cluster.Revision, next *cluster.Spec) {
	for i := range s.spec.Groups {
		g := &s.spec.Groups[i]
		var kept []netip.Addr
		if after := next.Group(g.ID); after != nil {
			kept = after.Addresses()
		}
		for _, a := range g.Addresses() {
			if slices.Contains(kept, a) {
				continue
			}
			for _, t := range s.Groups[i].Tenures {
				f := Freed{a, t.Node, t.Number, revision}
				s.Freed = slices.DeleteFunc(s.Freed, func(x Freed) bool { return x.Address == f.Address && x.Node == f.Node && x.Number <= f.Number })
				s.Freed = append(s.Freed, f)
			}
		}
	}
}

// carried takes a node's word that it has carried a revision out.
func (s *State) carried(c *cluster.Carried) string {
	before := len(s.Freed)
	s.Freed = slices.DeleteFunc(s.Freed, func(f Freed) bool { return f.Node == c.Node && f.Revision <= c.Revision })
	if len(s.Freed) == before {
		return "nothing waits for that"
	}
	return ""
}
