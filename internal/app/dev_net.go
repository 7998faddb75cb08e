package app

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
)

// labNet is one network of the lab: what a link of the file, or the addresses of groups, are on. Every host that is on
// it has one interface there, named as the file names it.
type labNet struct {
	name     string
	prefixes []netip.Prefix // masked, of either family
	nodes    []cluster.NodeID
	faces    map[cluster.NodeID]string // interfaces by the file; absent: it names none
}

func (n *labNet) has(a netip.Addr) bool {
	return slices.ContainsFunc(n.prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// add puts addresses' network and nodes on it.
func (n *labNet) add(p netip.Prefix, nodes ...cluster.NodeID) {
	if p = p.Masked(); !n.has(p.Addr()) || !slices.ContainsFunc(n.prefixes, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) }) {
		n.prefixes = append(n.prefixes, p)
	}
	for _, id := range nodes {
		if !slices.Contains(n.nodes, id) {
			n.nodes = append(n.nodes, id)
		}
	}
}

// labNetworks works out which networks the file's addresses and interfaces need, and refuses a file that fits into no
// lab. All nodes of a link must be in one, since there is no router.
func labNetworks(s *cluster.Spec) ([]labNet, error) {
	if dir := filepath.Dir(s.KeyFile); dir != filepath.Dir(config.DefaultKeyFile) {
		return nil, fail(exitUsage, "leave key_file out: baton dev makes a key of its own", "key_file is %s, and the hosts of baton dev have no %s", s.KeyFile, dir)
	}
	m := &netMaker{spec: s}
	for i := range s.Links {
		if err := m.link(&s.Links[i]); err != nil {
			return nil, err
		}
	}
	for _, n := range s.Nodes {
		if i := m.at(n.Address); i < 0 || !slices.Contains(m.nets[i].nodes, n.ID) {
			if i < 0 {
				i = m.make("own")
			}
			m.nets[i].add(networkOf(s, n.Address), n.ID)
		}
	}
	for i := range s.Groups {
		if err := m.group(&s.Groups[i]); err != nil {
			return nil, err
		}
	}
	return m.nets, nil
}

// netMaker gathers the networks of a file.
type netMaker struct {
	spec *cluster.Spec
	nets []labNet
}

// addressesOf are the addresses that the file gives a node: its own, and those of links.
func addressesOf(s *cluster.Spec, id cluster.NodeID) []netip.Addr {
	all := []netip.Addr{s.Node(id).Address}
	for _, l := range s.Links {
		if l.UDP != nil && l.UDP.Addresses[id].IsValid() && !slices.Contains(all, l.UDP.Addresses[id]) {
			all = append(all, l.UDP.Addresses[id])
		}
	}
	return all
}

func (m *netMaker) at(a netip.Addr) int {
	return slices.IndexFunc(m.nets, func(n labNet) bool { return n.has(a) })
}

// facing finds the network on which a node has an interface of that name.
func (m *netMaker) facing(id cluster.NodeID, face string) int {
	return slices.IndexFunc(m.nets, func(n labNet) bool { return n.faces[id] == face })
}

func (m *netMaker) make(name string) int {
	m.nets = append(m.nets, labNet{name: shortName(name, len(m.nets)), faces: make(map[cluster.NodeID]string)})
	return len(m.nets) - 1
}

// link puts a link's addresses on a network.
func (m *netMaker) link(l *cluster.LinkSpec) error {
	if l.UDP == nil {
		return nil
	}
	var net netip.Prefix
	var on []cluster.NodeID
	for _, n := range m.spec.Nodes {
		a := l.UDP.Addresses[n.ID]
		switch {
		case !a.IsValid():
			continue
		case !net.IsValid():
			net = networkOf(m.spec, a)
		case !net.Contains(a):
			return fail(exitUsage, "give the nodes addresses of one network on each link, such as 10.77.0.11 to 10.77.0.13",
				"link %s: %s of node %s is not in %s with the others, and baton dev has no routers", l.Name, a, n.ID, net)
		}
		on = append(on, n.ID)
	}
	if !net.IsValid() {
		return nil
	}
	i := m.at(net.Addr())
	if i < 0 {
		i = m.make(l.Name)
	}
	m.nets[i].add(net, on...)
	return nil
}

// group puts a group's addresses on the network of their subnet or of the interface that the file names; where neither is
// known yet, on one of their own, which the group's nodes are on.
func (m *netMaker) group(g *cluster.GroupSpec) error {
	last := -1 // where another address of the group is
	for k, r := range g.Resources {
		p, ok := r.Fields["address"].(netip.Prefix)
		if !ok {
			continue
		}
		faces := make(map[cluster.NodeID]string)
		i := m.at(p.Addr())
		for _, id := range g.Nodes {
			face, _ := g.On(id).Resources[k].Fields["interface"].(string)
			if face == "" {
				continue
			}
			faces[id] = face
			j := m.facing(id, face)
			switch {
			case j < 0 || j == i:
			case i < 0:
				i = j
			default:
				i = m.merge(i, j)
			}
		}
		if i < 0 && len(faces) == 0 {
			switch {
			case p.IsSingleIP():
				return fail(exitUsage, fmt.Sprintf("write its subnet, as in %s/24, or vip: { address: %s, interface: NAME }", p.Addr(), p),
					"group %s: %s of %s is in no subnet of a link, and no interface is named", g.ID, p.Addr(), r.ID)
			case last >= 0 && !slices.ContainsFunc(m.nets[last].prefixes, func(q netip.Prefix) bool { return q.Addr().Is4() == p.Addr().Is4() }):
				i = last // both families of one network
			}
		}
		if i < 0 {
			i = m.make("net")
		}
		m.nets[i].add(p, g.Nodes...)
		for id, face := range faces {
			if other := m.nets[i].faces[id]; other != "" && other != face {
				return fail(exitUsage, "name one interface for the addresses of one network", "group %s: node %s has %s and %s in the network of %s, and a host of baton dev has one interface in each",
					g.ID, id, other, face, p)
			}
			m.nets[i].faces[id] = face
		}
		last = i
	}
	return nil
}

// merge makes one network of two that the file says are one: a node has one interface on both.
func (m *netMaker) merge(i, j int) int {
	i, j = min(i, j), max(i, j)
	for _, p := range m.nets[j].prefixes {
		m.nets[i].add(p, m.nets[j].nodes...)
	}
	for id, face := range m.nets[j].faces {
		if m.nets[i].faces[id] == "" {
			m.nets[i].faces[id] = face
		}
	}
	m.nets = slices.Delete(m.nets, j, j+1)
	return i
}

// shortName makes a name that fits into a link's with a host's name before it.
func shortName(name string, i int) string {
	if len(name) <= 5 && !strings.Contains(name, "-") && name != "net" && name != "lo" {
		return name
	}
	return fmt.Sprintf("net%d", i)
}

// networkOf returns the network of a node's address: that of a virtual address beside it, else the usual one.
func networkOf(s *cluster.Spec, a netip.Addr) netip.Prefix {
	for _, g := range s.Groups {
		for _, r := range g.Resources {
			if p, ok := r.Fields["address"].(netip.Prefix); ok && p.Masked().Contains(a) {
				return p.Masked()
			}
		}
	}
	bits := 24
	if a.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(a, bits).Masked()
}

func netOf(nets []labNet, a netip.Addr) *labNet {
	for i := range nets {
		if nets[i].has(a) {
			return &nets[i]
		}
	}
	return nil
}

// freeAddress takes the first address of a network from first on that nobody has; false: there is none. The last one of
// an IPv4 network is its broadcast address.
func freeAddress(p netip.Prefix, first int, taken map[netip.Addr]bool) (netip.Addr, bool) {
	a := p.Masked().Addr()
	for range first {
		if next := a.Next(); p.Contains(next) {
			a = next
		}
	}
	start := a
	for {
		if p.Contains(a) && !taken[a] && a != p.Masked().Addr() && (a.Is6() || p.Contains(a.Next())) {
			taken[a] = true
			return a, true
		}
		if a = a.Next(); !p.Contains(a) {
			a = p.Masked().Addr()
		}
		if a == start {
			return a, false
		}
	}
}
