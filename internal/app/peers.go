package app

import (
	"net/netip"
	"slices"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/io/api"
	"baton/internal/io/identity"
)

// peers reach the agents of other nodes.
type peers struct {
	identity *identity.Identity
	spec     func() *cluster.Spec // that counts now
}

// client returns a client of another node's agent, which knows this node by its certificate. It connects
// with the first request, over the first address that answers. Close it after use: a change of the key makes
// connections worthless.
func (p *peers) client(node cluster.NodeID) *api.Client {
	var addresses []string
	for _, a := range apiAddresses(p.spec(), node) {
		addresses = append(addresses, a.String())
	}
	return api.DialTLS(addresses, p.identity.Client(node, identity.APIProtocols...), "")
}

// apiAddress is the main address at which a node's API answers.
func apiAddress(spec *cluster.Spec, node cluster.NodeID) netip.AddrPort {
	n := spec.Node(node)
	if n == nil || !n.Address.IsValid() {
		return netip.AddrPort{}
	}
	for _, l := range spec.Links {
		if l.UDP != nil && l.UDP.Addresses[node].Unmap() == n.Address.Unmap() {
			return netip.AddrPortFrom(n.Address.Unmap(), l.UDP.Port)
		}
	}
	return netip.AddrPortFrom(n.Address.Unmap(), config.DefaultPort)
}

// apiAddresses are all addresses at which a node's API answers: the main one, then those of its links.
func apiAddresses(spec *cluster.Spec, node cluster.NodeID) []netip.AddrPort {
	var all []netip.AddrPort
	if a := apiAddress(spec, node); a.IsValid() {
		all = append(all, a)
	}
	for _, l := range spec.Links {
		if l.UDP == nil || !l.UDP.Addresses[node].IsValid() {
			continue
		}
		if a := netip.AddrPortFrom(l.UDP.Addresses[node].Unmap(), l.UDP.Port); !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}
