package config

import (
	"fmt"
	"net/netip"
	"slices"

	"baton/internal/core/cluster"
)

// DefaultHealthPort is the TCP port for monitors and load balancers, where the file asks for it.
const DefaultHealthPort = 7401

var healthKeys = []key{
	{name: "port", shape: intShape(1, 65535), doc: fmt.Sprintf("TCP port. Default: %d.", DefaultHealthPort)},
	{name: "address", shape: patternShape(addressPattern),
		doc: "The address on every node, such as 127.0.0.1. Default: each node's own address."},
	{name: "addresses", shape: namedShape(namePattern, patternShape(addressPattern)),
		doc: "The address on each node, where they differ. A node that is not named does not listen."},
}

// health reads where nodes answer monitors; without the key nowhere. It comes last: it looks at links and
// groups.
func (r *reader) health(n *node) {
	if n == nil {
		return
	}
	s := r.section(n, "health", healthKeys)
	if s == nil {
		return
	}
	h := &cluster.HealthSpec{Port: DefaultHealthPort, Addresses: make(map[cluster.NodeID]netip.Addr)}
	r.spec.Health = h
	at := n.position
	if p := s["port"]; p != nil {
		port, _ := r.integer(p, "port of health", 1, 65535)
		h.Port, at = uint16(port), p.position
	}
	switch {
	case s["address"] != nil && s["addresses"] != nil:
		r.fail(s["addresses"].position, "keep one of the two", "health has both address and addresses")
	case s["address"] != nil:
		a, _ := r.address(s["address"], "address of health")
		for i := range r.spec.Nodes {
			h.Addresses[r.spec.Nodes[i].ID] = a
		}
		r.healthAddress(s["address"].position, a)
	case s["addresses"] != nil:
		r.healthAddresses(s["addresses"])
	default:
		h.Addresses = r.ownAddresses()
	}
	r.healthPort(at)
}

func (r *reader) healthAddresses(n *node) {
	if n.kind != isMap {
		r.wants(n, "addresses of health", "a map from nodes to addresses")
		return
	}
	if len(n.entries) == 0 {
		r.fail(n.position, "name a node, or remove health", "addresses of health names no node")
	}
	for _, e := range n.entries {
		if !r.knownNode(e.position, e.key, "health") {
			continue
		}
		if a, ok := r.address(e.value, fmt.Sprintf("address of %s for health", e.key)); ok {
			r.spec.Health.Addresses[cluster.NodeID(e.key)] = a
			r.healthAddress(e.value.position, a)
		}
	}
}

// healthAddress refuses the address of a group: whoever serves would answer.
func (r *reader) healthAddress(at position, a netip.Addr) {
	for i := range r.placed {
		if p := &r.placed[i]; a.IsValid() && slices.Contains(p.resource.Addresses, a) {
			r.fail(at, "use an address of the node itself", "health: %s is the address of %s of group %s, which moves", a, p.resource.ID, p.group)
		}
	}
}

// healthPort refuses a port that something else of baton's has, or that a closed gate would cut off.
func (r *reader) healthPort(at position) {
	port := r.spec.Health.Port
	for _, l := range r.spec.Links {
		if l.UDP != nil && l.UDP.Port == port {
			r.fail(at, fmt.Sprintf("write another port, such as %d", DefaultHealthPort), "health: port %d is that of link %s, which has it for TCP as well", port, l.Name)
			return
		}
	}
	if port == DefaultPort {
		r.fail(at, fmt.Sprintf("write another port, such as %d", DefaultHealthPort), "health: port %d is the agent's own", port)
	}
	for i := range r.placed {
		if p := &r.placed[i]; slices.Contains(p.resource.Ports, cluster.Port{Protocol: "tcp", Number: port}) {
			r.fail(at, "write another port", "health: port %d is guarded for %s of group %s, so it would be cut off wherever that does not serve", port, p.resource.ID, p.group)
		}
	}
}
