package resource

import (
	"net/netip"
	"slices"

	"baton/internal/core/cluster"
)

// Guards are what the gate guards for a resource.
type Guards struct {
	Addresses []netip.Addr
	Ports     []cluster.Port
}

// GuardsOf returns what a description has the gate guard.
func GuardsOf(s cluster.ResourceSpec) Guards { return Guards{s.Addresses, s.Ports} }

// Empty tells whether there is nothing to guard.
func (g Guards) Empty() bool { return len(g.Addresses) == 0 && len(g.Ports) == 0 }

// And returns what one or the other has.
func (g Guards) And(other Guards) Guards {
	return Guards{append(slices.Clip(g.Addresses), notIn(other.Addresses, g.Addresses)...),
		append(slices.Clip(g.Ports), notIn(other.Ports, g.Ports)...)}
}

// Without returns what the other has not.
func (g Guards) Without(other Guards) Guards {
	return Guards{notIn(g.Addresses, other.Addresses), notIn(g.Ports, other.Ports)}
}

// notIn returns what is not among others.
func notIn[T comparable](list, others []T) (out []T) {
	for _, x := range list {
		if !slices.Contains(others, x) {
			out = append(out, x)
		}
	}
	return out
}
