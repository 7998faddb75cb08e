package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

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
	if len(links) > wire.LinkTCP {
		return fmt.Errorf("change links: %d links, the limit is %d", len(links), wire.LinkTCP)
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
	l.large.listenOn(next)
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
	dropped := l.large.reach(peers)
	l.sending.Unlock()
	l.receiving.Unlock()
	for _, u := range gone {
		l.retire(u)
	}
	for id, messages := range dropped {
		l.large.giveUp(id, messages)
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

// route is one link's way to a peer.
type route struct {
	from netip.Addr
	to   netip.AddrPort
}

// largePeer is what waits for one node, and the ways there.
type largePeer struct {
	*peerCounters
	id   cluster.NodeID
	ctx  context.Context // ends when the node is no peer any more
	end  context.CancelFunc
	wake chan struct{} // one token: there is something to look at

	mu     sync.Mutex
	routes []route // the one that worked last is first
	queue  []queued
	bytes  int
}

// look makes the sender look at queue and routes.
func (p *largePeer) look() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// ways returns the routes, the one to be tried first in front.
func (p *largePeer) ways() []route {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.routes)
}

// worked puts a route first.
func (p *largePeer) worked(r route) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.routes, r); i > 0 {
		copy(p.routes[1:i+1], p.routes[:i])
		p.routes[0] = r
	}
}

// reroute makes these the routes. Those that stay keep their order.
func (p *largePeer) reroute(routes []route) {
	p.mu.Lock()
	kept := slices.DeleteFunc(p.routes, func(r route) bool { return !slices.Contains(routes, r) })
	for _, r := range routes {
		if !slices.Contains(kept, r) {
			kept = append(kept, r)
		}
	}
	p.routes = kept
	p.mu.Unlock()
	p.look()
}

// reach makes these the peers, by the routes that the links give. It returns what waited for those that are
// none any more. Links.sending is held.
func (g *Large) reach(peers []cluster.NodeID) map[cluster.NodeID][]queued {
	g.know(peers)
	dropped := make(map[cluster.NodeID][]queued)
	nodes := make(map[netip.Addr]bool)
	for id, p := range g.peers {
		if !slices.Contains(peers, id) {
			p.end()
			dropped[id] = p.take()
			delete(g.peers, id)
		}
	}
	for _, id := range peers {
		p := g.peers[id]
		known := p != nil
		if !known {
			p = &largePeer{peerCounters: g.peer(id), id: id, wake: make(chan struct{}, 1)}
			p.ctx, p.end = context.WithCancel(g.links.ctx)
			g.peers[id] = p
		}
		var routes []route
		for _, u := range g.links.udp {
			if u != nil && u.peers[id] != nil {
				routes = append(routes, route{u.address.Addr(), u.peers[id].address})
				nodes[u.peers[id].address.Addr()] = true
			}
		}
		p.reroute(routes)
		if !known {
			g.links.wg.Go(func() { g.send(p) })
		}
	}
	g.guard.know(nodes)
	return dropped
}

// listenOn listens on this node's addresses of the links, and no longer on others. Links.changing is held.
func (g *Large) listenOn(links []*udpLink) {
	wanted := make(map[netip.AddrPort]bool)
	if more := g.links.config.Address; more != nil && more().IsValid() {
		wanted[more()] = true
	}
	for _, u := range links {
		if u != nil {
			wanted[u.address] = true
		}
	}
	for address, end := range g.doors {
		if !wanted[address] {
			end()
			delete(g.doors, address)
		}
	}
	for address := range wanted {
		if g.doors[address] != nil {
			continue
		}
		ctx, end := context.WithCancel(g.links.ctx)
		g.doors[address] = end
		ln := g.listen(address)
		g.links.wg.Go(func() { g.serve(ctx, address, ln) })
	}
}

// dial connects over the first link that leads to the peer.
func (g *Large) dial(p *largePeer) (net.Conn, route, error) {
	var errs []error
	for _, r := range p.ways() {
		conn, err := g.dialRoute(p, r)
		if err == nil {
			p.worked(r)
			return conn, r, nil
		}
		errs = append(errs, err)
	}
	return nil, route{}, errors.Join(errs...)
}
