package app

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/addr"
)

// interfaces is what is known of this host's network interfaces. They are known by their index, which is what the
// kernel calls one: names change, and one interface may have several.
type interfaces struct {
	mu    sync.Mutex
	links map[int]addr.LinkState // by index
	found map[string]int         // which index a name of the file led to last
}

func newInterfaces() interfaces {
	return interfaces{links: make(map[int]addr.LinkState), found: make(map[string]int)}
}

// take notes what has become of an interface, and tells whether it has another hardware address than before.
func (i *interfaces) take(s addr.LinkState) (moved bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if s.Gone {
		delete(i.links, s.Index)
		return false
	}
	before, known := i.links[s.Index]
	i.links[s.Index] = s
	return known && before.MAC != s.MAC
}

// named returns the index that a name of the file leads to; 0: none has led anywhere yet. The name may be an
// alternative one. One that the interface has lost leads to it still, as long as no other has it: what runs there
// goes on. It is called with mu held.
func (i *interfaces) named(name string) (index int) {
	index = i.found[name]
	for _, s := range i.links { // at most one has the name
		if s.Named(name) {
			index = s.Index
		}
	}
	if index != 0 {
		i.found[name] = index
	}
	return index
}

// down tells whether an interface that was told of is down, or has no carrier. It is called with mu held.
func (i *interfaces) down(index int) bool {
	s, here := i.links[index]
	return here && !(s.Up && s.Carrier)
}

// cutOff tells whether the interface that a front's addresses are reached by is known to be gone, to be down, or to
// have no carrier. It is called with mu held.
func (i *interfaces) cutOff(r *cluster.ResourceSpec) bool {
	if !r.Front {
		return false
	}
	if name, ok := r.Fields["interface"].(string); ok && name != "" {
		index := i.named(name)
		_, here := i.links[index]
		return index != 0 && !here || i.down(index)
	}
	for _, ip := range r.Addresses {
		address := netip.PrefixFrom(ip, ip.BitLen())
		if p, ok := r.Fields["address"].(netip.Prefix); ok && p.Addr() == ip {
			address = p
		}
		if index, err := addr.InterfaceFor(address); err == nil {
			return i.down(index)
		}
	}
	return false
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

// watchLinks tells the core of interfaces that lose or regain their carrier, and of new hardware addresses: to all
// neighbours that is as if they had just come.
func (a *agent) watchLinks(ctx context.Context) {
	err := addr.WatchLinks(ctx, func(s addr.LinkState) {
		if a.interfaces.take(s) {
			a.inbox.put(&node.Returned{})
		}
		a.lookAround()
		a.lacks.look()
	})
	if err != nil {
		a.log.Error("interfaces are no longer watched", "cause", err)
	}
}

// watchNeighbours tells the core of neighbours that return.
func (a *agent) watchNeighbours(ctx context.Context) {
	if err := addr.WatchNeighbours(ctx, func() { a.inbox.put(&node.Returned{}) }); err != nil {
		a.log.Error("neighbours are no longer watched", "cause", err)
	}
}

// lookAround works out which groups' uplinks and which links are gone, and tells the core.
func (a *agent) lookAround() {
	spec := a.shared.Load()
	a.interfaces.mu.Lock()
	defer a.interfaces.mu.Unlock()
	o := &node.Observed{LinkDown: make([]bool, len(spec.Links))}
	for _, g := range spec.Groups {
		for _, r := range a.resources(&g) {
			if a.interfaces.cutOff(&r) && !slices.Contains(o.Cut, g.ID) {
				o.Cut = append(o.Cut, g.ID)
			}
		}
	}
	for i, l := range spec.Links {
		if l.UDP == nil {
			continue
		}
		if index, err := addr.InterfaceWith(l.UDP.Addresses[a.self]); err == nil {
			o.LinkDown[i] = a.interfaces.down(index)
		}
	}
	a.inbox.put(surroundings{o, spec})
}

// relink makes packets that were received under one list of links bear the indexes of another. One that came
// over a link which is gone tells nothing any more.
func relink(inputs []node.Input, before, after []cluster.LinkSpec) {
	for i, in := range inputs {
		p, ok := in.(*node.Packet)
		if !ok || p.Link >= len(before) { // put in by none of these
			continue
		}
		name := before[p.Link].Name
		p.Link = slices.IndexFunc(after, func(l cluster.LinkSpec) bool { return l.Name == name })
		if p.Link < 0 {
			inputs[i] = &node.Tick{}
		}
	}
}
