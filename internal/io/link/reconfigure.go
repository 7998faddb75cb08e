package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// ErrClosed is returned for a change of links that are closed.
var ErrClosed = errors.New("the links are closed")

// Reconfigure makes these the links, as in Config. A link whose name and own address stay keeps its socket, and
// loses no packet; its index may change, and what is handed over from now on bears the new one. What goes is
// closed afterwards. It must not be called from Handler or Changed. On an error nothing has changed.
func (l *Links) Reconfigure(links []cluster.LinkSpec) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	if l.ctx.Err() != nil {
		return ErrClosed
	}
	if len(links) > wire.LinksMax {
		return fmt.Errorf("change links: %d links, the limit is %d", len(links), wire.LinksMax)
	}
	next, fresh := l.plan(links)
	if err := l.swap(links, next); err != nil {
		for _, u := range fresh {
			l.retire(u)
		}
		return fmt.Errorf("change links: %w", err)
	}
	for _, u := range fresh {
		l.receiving.Lock()
		if u.socket.Load() == nil { // its address may have been that of a link that has gone by now
			u.bind(l)
		}
		l.receiving.Unlock()
		l.wg.Go(func() { u.keep(l) })
	}
	l.doors.listenOn(next)
	return nil
}

// plan returns the links by their new index, and those among them that are new. What is new is opened already,
// if it can be, so that it misses nothing of what follows.
func (l *Links) plan(links []cluster.LinkSpec) (next, fresh []*udpLink) {
	next = make([]*udpLink, len(links))
	for i, spec := range links {
		if spec.UDP == nil || !spec.UDP.Addresses[l.self].IsValid() {
			continue
		}
		address := netip.AddrPortFrom(spec.UDP.Addresses[l.self].Unmap(), spec.UDP.Port)
		at := slices.IndexFunc(l.udp, func(u *udpLink) bool { return u != nil && u.name == spec.Name && u.address == address })
		if at >= 0 {
			next[i] = l.udp[at]
			continue
		}
		u := newUDPLink(l, spec.Name, address)
		next[i], fresh = u, append(fresh, u)
		if taken := slices.ContainsFunc(l.udp, func(o *udpLink) bool { return o != nil && o.address == address }); !taken {
			l.receiving.Lock()
			u.bind(l)
			l.receiving.Unlock()
		}
	}
	return next, fresh
}

// swap goes over to the new links, between two packets, and closes those that go.
func (l *Links) swap(links []cluster.LinkSpec, next []*udpLink) error {
	var peers []cluster.NodeID
	for i, u := range next {
		if u == nil {
			continue
		}
		for id := range links[i].UDP.Addresses {
			if id != l.self {
				peers = append(peers, id)
			}
		}
	}
	slices.Sort(peers)
	peers = slices.Compact(peers)
	l.receiving.Lock()
	l.sending.Lock()
	l.opening.Lock()
	err := l.opener.Know(peers)
	l.opening.Unlock()
	if err != nil {
		l.sending.Unlock()
		l.receiving.Unlock()
		return err
	}
	gone := slices.DeleteFunc(slices.Clone(l.udp), func(u *udpLink) bool { return u == nil || slices.Contains(next, u) })
	for i, u := range next {
		if u != nil {
			u.index = i
			u.meet(l.self, links[i].UDP)
		}
	}
	l.udp = next
	l.doors.reach(next)
	l.sending.Unlock()
	l.receiving.Unlock()
	for _, u := range gone {
		l.retire(u)
	}
	return nil
}

// retire closes a link that is not used any more.
func (l *Links) retire(u *udpLink) {
	l.receiving.Lock()
	defer l.receiving.Unlock()
	u.end()
	u.close(l)
}

// reach makes the addresses of these links' peers those of nodes. Links.sending is held.
func (g *doors) reach(links []*udpLink) {
	nodes := make(map[netip.Addr]bool)
	for _, u := range links {
		if u == nil {
			continue
		}
		for _, p := range u.peers {
			nodes[p.address.Addr()] = true
		}
	}
	g.guard.know(nodes)
}

// listenOn listens on this node's addresses of the links, and no longer on others. Links.changing is held.
func (g *doors) listenOn(links []*udpLink) {
	wanted := make(map[netip.AddrPort]bool)
	if more := g.links.config.Address; more != nil && more().IsValid() {
		wanted[more()] = true
	}
	for _, u := range links {
		if u != nil {
			wanted[u.address] = true
		}
	}
	for address, end := range g.open {
		if !wanted[address] {
			end()
			delete(g.open, address)
		}
	}
	for address := range wanted {
		if g.open[address] != nil {
			continue
		}
		ctx, end := context.WithCancel(g.links.ctx)
		g.open[address] = end
		ln := g.listen(address)
		g.links.wg.Go(func() { g.serve(ctx, address, ln) })
	}
}
