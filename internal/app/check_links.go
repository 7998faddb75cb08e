package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/io/api"
)

// checkLinks looks for this node's address of each link, and whether its ports are free.
func checkLinks(u *checkup, spec *cluster.Spec, self *cluster.NodeSpec, socket string) {
	here, err := hostAddresses()
	if err != nil {
		u.add("links", warning, "", "ask for this host's addresses: %v", err)
		return
	}
	runs := agentRuns(socket, self.ID)
	for _, l := range spec.Links {
		if l.UDP == nil {
			continue
		}
		name, address := "link "+l.Name, l.UDP.Addresses[self.ID]
		if !address.IsValid() {
			u.add(name, pass, "", "%s has no address on it", self.ID)
			continue
		}
		if !slices.Contains(here, address.Unmap()) {
			u.add(name, bad, "ip address add, or correct the file", "%s is not an address of this host", address)
			continue
		}
		at := netip.AddrPortFrom(address, l.UDP.Port)
		var taken []string
		for _, network := range []string{"udp", "tcp"} {
			if err := free(network, at); errors.Is(err, syscall.EADDRINUSE) {
				taken = append(taken, network)
			} else if err != nil {
				u.add(name, bad, "", "%s %s: %v", network, at, err)
			}
		}
		switch {
		case len(taken) == 0:
			u.add(name, pass, "", "%s is here, its ports are free", at)
		case runs:
			u.add(name, pass, "", "%s is here, its ports are held by the agent that runs", at)
		default:
			u.add(name, bad, fmt.Sprintf("ss -lnp 'sport = :%d' names it", l.UDP.Port), "%s: %s is held by another program", at, strings.Join(taken, " and "))
		}
	}
}

// hostAddresses returns every address of this host, in its network namespace.
func hostAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out, nil
}

// free binds an address for a moment.
func free(network string, at netip.AddrPort) error {
	if network == "udp" {
		c, err := net.ListenPacket(network, at.String())
		if err == nil {
			c.Close()
		}
		return err
	}
	l, err := net.Listen(network, at.String())
	if err == nil {
		l.Close()
	}
	return err
}

// agentRuns tells whether the agent of this node answers.
func agentRuns(socket string, self cluster.NodeID) bool {
	ctx, cancel := context.WithTimeout(context.Background(), agentAnswers)
	defer cancel()
	agent := api.Dial(socket)
	defer agent.Close()
	s, err := agent.Status(ctx, &batonv1.StatusRequest{})
	return err == nil && s.Node == string(self)
}

// checkResources looks for what the groups of this node name: users, programs, interfaces.
func checkResources(u *checkup, spec *cluster.Spec, self *cluster.NodeSpec) {
	for _, g := range spec.Groups {
		if g.Prefers(self.ID) < 0 {
			continue
		}
		for _, r := range g.On(self.ID).Resources {
			if hint, err := checkResource(r); err != nil {
				u.add("group "+string(g.ID), bad, hint, "resource %s: %v", r.ID, err)
			}
		}
	}
}

// firewall returns what must be let in here (self nil: on any node), as rules of nft(8).
func firewall(spec *cluster.Spec, self *cluster.NodeSpec) []string {
	rules := []string{}
	for _, l := range spec.Links {
		if l.UDP == nil {
			continue
		}
		var four, six []string
		for _, n := range spec.Nodes {
			a := l.UDP.Addresses[n.ID].Unmap()
			switch {
			case self != nil && n.ID == self.ID || !a.IsValid():
			case a.Is4():
				four = append(four, a.String())
			default:
				six = append(six, a.String())
			}
		}
		for family, from := range map[string][]string{"ip": four, "ip6": six} {
			if len(from) > 0 {
				rules = append(rules, fmt.Sprintf("%s saddr { %s } meta l4proto { udp, tcp } th dport %d accept", family, strings.Join(from, ", "), l.UDP.Port))
			}
		}
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}
