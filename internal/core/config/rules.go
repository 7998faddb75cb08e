package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"baton/internal/core/cluster"
)

// probeFields are the fields of a kind that hold its probes.
var probeFields = []string{"ready", "healthy"}

// hostFields are the fields of a probe that name a host.
var hostFields = []string{"http", "tcp"}

// rulesBetween checks what concerns more than one part of the file.
func (r *reader) rulesBetween() {
	taken := r.nodeAddresses()
	served, lines := make(map[netip.Addr]string), make(map[netip.Addr]int)
	for i := range r.placed {
		p := &r.placed[i]
		r.reachable(p)
		owner := fmt.Sprintf("%s of group %s", p.resource.ID, p.group)
		for _, a := range p.resource.Addresses {
			r.goodAddress(p.position, owner, a)
			if other, found := taken[a]; found {
				r.fail(p.position, "give the group an address of its own", "%s: %s is the address of %s", owner, a, other)
			} else if other, found := served[a]; found {
				r.fail(p.position, fmt.Sprintf("give each its own; %s stands in line %d", other, lines[a]), "%s: %s belongs to %s already", owner, a, other)
			} else {
				served[a], lines[a] = owner, p.line
			}
		}
		r.ports(p, owner, r.placed[:i])
	}
	for i := range r.placed {
		r.probes(&r.placed[i], served, taken)
	}
	r.reached(taken, served)
}

// reachable refuses what the gate can't cut off: without a fence or a watchdog two nodes might act at once.
func (r *reader) reachable(p *placed) {
	if p.resource.Effects == cluster.EffectsBeyond {
		r.fail(p.position, "use a kind that the gate can cut off",
			"group %s: the effects of %s go beyond the gate, so the group needs a fence or a watchdog, and these are %s", p.group, p.resource.ID, notInThisVersion)
	}
}

// nodeAddresses are the nodes' own addresses, on all links, and whose they are.
func (r *reader) nodeAddresses() map[netip.Addr]string {
	out := make(map[netip.Addr]string)
	for _, l := range r.spec.Links {
		for _, n := range r.spec.Nodes {
			if l.UDP != nil && l.UDP.Addresses[n.ID].IsValid() {
				out[l.UDP.Addresses[n.ID]] = fmt.Sprintf("node %s on link %s", n.ID, l.Name)
			}
		}
	}
	for _, n := range r.spec.Nodes {
		if n.Address.IsValid() {
			out[n.Address] = fmt.Sprintf("node %s", n.ID)
		}
	}
	return out
}

// ports checks a resource's guarded ports: a gate that is closed for one group must not cut off another
// group on the same node, nor the agent itself.
func (r *reader) ports(p *placed, owner string, before []placed) {
	for _, port := range p.resource.Ports {
		name := fmt.Sprintf("%s/%d", port.Protocol, port.Number)
		for _, l := range r.spec.Links {
			if l.UDP != nil && port.Protocol == "udp" && l.UDP.Port == port.Number {
				r.fail(p.position, "", "%s: %s carries the heartbeats of link %s", owner, name, l.Name)
			}
		}
		if port.Protocol == "tcp" && port.Number == DefaultPort {
			r.fail(p.position, "", "%s: %s is the agent's own", owner, name)
		}
		for _, other := range before {
			sameNode := slices.ContainsFunc(other.nodes, func(id cluster.NodeID) bool { return slices.Contains(p.nodes, id) })
			if other.group != p.group && sameNode && slices.Contains(other.resource.Ports, port) {
				r.fail(p.position, "give the groups different ports, or no node in common",
					"%s: %s is guarded for %s of group %s too, and closing one would close the other", owner, name, other.resource.ID, other.group)
			}
		}
	}
}

// probes checks that a resource's probes ask this node, and not whoever serves.
func (r *reader) probes(p *placed, served, taken map[netip.Addr]string) {
	for _, e := range p.given.entries {
		if !slices.Contains(probeFields, e.key) || e.value.kind != isMap {
			continue
		}
		for _, test := range e.value.entries {
			what := fmt.Sprintf("%s.%s of %s of group %s", e.key, test.key, p.resource.ID, p.group)
			for _, item := range one(test.value) {
				if item.kind == isText {
					r.probe(item, what, slices.Contains(hostFields, test.key), served, taken)
				}
			}
		}
	}
}

func (r *reader) probe(n *node, what string, namesHost bool, served, taken map[netip.Addr]string) {
	const hint = "probe this node: localhost"
	if namesHost {
		host := probedHost(n.text)
		if _, err := netip.ParseAddr(host); err != nil && host != "" && host != "localhost" {
			r.fail(n.position, hint, "%s asks the host %q: a probe asks this node, and no name server", what, clip(host))
			return
		}
	}
	for _, word := range strings.Fields(n.text) {
		a, err := netip.ParseAddr(probedHost(strings.Trim(word, `"'`)))
		if err != nil {
			continue
		}
		if owner, found := served[a.Unmap()]; found {
			r.fail(n.position, hint, "%s asks %s, the address of %s: whoever serves would answer", what, a, owner)
		} else if owner, found := taken[a.Unmap()]; found && !a.IsLoopback() {
			r.fail(n.position, hint, "%s asks %s, the address of %s, from every node", what, a, owner)
		}
	}
}

// probedHost returns the host of a URL, of HOST:PORT or of an address alone; empty if it is none of these.
func probedHost(text string) string {
	if _, err := netip.ParseAddr(text); err == nil {
		return text
	}
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil {
			return ""
		}
		return u.Hostname()
	}
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(text[:i], "["), "]")
}
