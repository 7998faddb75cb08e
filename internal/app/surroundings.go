package app

import (
	"context"
	"slices"
	"sync"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/addr"
)

// interfaces is what is known of this host's network interfaces.
type interfaces struct {
	mu sync.Mutex
	up map[string]bool // by name; absent: not known
}

// surroundings are what this host's interfaces mean for one configuration's links and groups. Where another
// configuration counts by the time that the loop sees them, they mean nothing.
type surroundings struct {
	*node.Observed
	of *cluster.Spec
}

// told returns the input for the core.
func (s surroundings) told(present *cluster.Spec) node.Input {
	if s.of != present {
		return &node.Tick{}
	}
	return s.Observed
}

// watchLinks tells the core of interfaces that lose or regain their carrier.
func (a *agent) watchLinks(ctx context.Context) {
	err := addr.WatchLinks(ctx, func(s addr.LinkState) {
		a.interfaces.mu.Lock()
		a.interfaces.up[s.Name] = s.Up && s.Carrier
		a.interfaces.mu.Unlock()
		a.lookAround()
		a.lacks.look()
	})
	if err != nil {
		a.log.Error("interfaces are no longer watched", "cause", err)
	}
}

// lookAround works out which groups' uplinks and which links are gone, and tells the core.
func (a *agent) lookAround() {
	spec := a.shared.Load()
	a.interfaces.mu.Lock()
	defer a.interfaces.mu.Unlock()
	o := &node.Observed{LinkDown: make([]bool, len(spec.Links))}
	down := func(name string) bool {
		ok, known := a.interfaces.up[name]
		return known && !ok
	}
	for _, g := range spec.Groups {
		if g.Prefers(a.self) < 0 {
			continue
		}
		for _, r := range g.Resources {
			if name := uplink(&r); name != "" && down(name) && !slices.Contains(o.Cut, g.ID) {
				o.Cut = append(o.Cut, g.ID)
			}
		}
	}
	for i, l := range spec.Links {
		if l.UDP == nil {
			continue
		}
		if name, err := addr.InterfaceFor(l.UDP.Addresses[a.self]); err == nil {
			o.LinkDown[i] = down(name)
		}
	}
	a.inbox.put(surroundings{o, spec})
}

// uplink names the interface that a front's addresses are reached by; empty: unknown.
func uplink(r *cluster.ResourceSpec) string {
	if !r.Front {
		return ""
	}
	if name, ok := r.Fields["interface"].(string); ok && name != "" {
		return name
	}
	for _, ip := range r.Addresses {
		if name, err := addr.InterfaceFor(ip); err == nil {
			return name
		}
	}
	return ""
}

// relink makes packets that were received under one list of links bear the indexes of another. One that came
// over a link which is gone tells nothing any more.
func relink(inputs []node.Input, before, after []cluster.LinkSpec) {
	for i, in := range inputs {
		p, ok := in.(*node.Packet)
		if !ok || p.Link >= len(before) { // those that came over TCP have no index
			continue
		}
		name := before[p.Link].Name
		p.Link = slices.IndexFunc(after, func(l cluster.LinkSpec) bool { return l.Name == name })
		if p.Link < 0 {
			inputs[i] = &node.Tick{}
		}
	}
}
