package app

import (
	"cmp"
	"net/netip"
	"slices"

	"baton/internal/core/cluster"
	"baton/internal/io/gate"
	"baton/internal/io/resource"
)

// shut is the gate of what may be up here though the file gives it to no group here, or to another than it is up for.
// Nobody opens it. No group has the name.
const shut cluster.GroupID = "(shut)"

// toGuard lists this node's groups, and under shut what may be up and is none of theirs: what is retiring, and what a
// former description brought up. Others may serve it by now, and the lease and the gate of the group that had it say
// nothing of that. If a group of this node's has it by now, its gate decides from when the former one is down.
func (a *agent) toGuard() []gate.Group {
	own := make(map[any]cluster.GroupID) // of each address and port
	for _, g := range a.spec.Groups {
		for _, r := range a.resources(&g) {
			for _, x := range r.Addresses {
				own[x] = g.ID
			}
			for _, x := range r.Ports {
				own[x] = g.ID
			}
		}
	}
	strays := a.strays(own)
	var groups []gate.Group
	for _, g := range a.spec.Groups {
		if g.Prefers(a.self) < 0 {
			continue
		}
		var all resource.Guards
		for _, r := range g.Resources {
			all = all.And(resource.GuardsOf(r))
		}
		all = all.Without(strays)
		groups = append(groups, gate.Group{ID: g.ID, Addresses: all.Addresses, Ports: all.Ports})
	}
	if !strays.Empty() {
		groups = append(groups, gate.Group{ID: shut, Addresses: strays.Addresses, Ports: strays.Ports})
	}
	return groups
}

// strays collects what may be up here for a group that has it not, in an order of its own. It notes whether something
// of that belongs to what the file names: nobody tells when that has gone down.
func (a *agent) strays(own map[any]cluster.GroupID) (all resource.Guards) {
	add := func(g cluster.GroupID, up resource.Guards) {
		var has resource.Guards // what the group has still
		for _, x := range up.Addresses {
			if by, ok := own[x]; ok && by == g {
				has.Addresses = append(has.Addresses, x)
			}
		}
		for _, x := range up.Ports {
			if by, ok := own[x]; ok && by == g {
				has.Ports = append(has.Ports, x)
			}
		}
		all = all.And(up.Without(has))
	}
	a.former = false
	for _, s := range a.slots {
		if up := s.former(); !up.Empty() {
			a.former = true
			add(s.group, up)
		}
	}
	for _, s := range a.retiring {
		add(s.group, resource.GuardsOf(s.spec()).And(s.former()))
	}
	for _, up := range a.stuck {
		add("", up)
	}
	slices.SortFunc(all.Addresses, netip.Addr.Compare)
	slices.SortFunc(all.Ports, func(x, y cluster.Port) int {
		return cmp.Or(cmp.Compare(x.Protocol, y.Protocol), cmp.Compare(x.Number, y.Number))
	})
	return all
}
