package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"baton/internal/core/cluster"
)

const reachNone = "none"

// reachDoc documents the key reach, of the file and of a group.
const reachDoc = "What shows that a node is in the network from which clients come: none, or addresses there that every node asks by ARP or ND and by ICMP, such as the gateway's. " +
	"A group moves from a node that has lost what another has. "

func reachShape() map[string]any {
	address := patternShape(addressPattern)
	return anyShape(wordShape(reachNone), address, listShape(address))
}

// targetAt is a target with its place in the file.
type targetAt struct {
	position
	what   string
	target netip.Addr
}

// reach reads the key reach of the file or of a group.
func (r *reader) reach(n *node, what string) (out cluster.ReachSpec) {
	what = "reach of " + what
	if n.kind == isText && n.text == reachNone {
		return cluster.ReachSpec{None: true}
	}
	items := one(n)
	if n.kind == isList && len(items) == 0 {
		r.fail(n.position, "write reach: none if nothing is to be judged", "%s names no address", what)
	}
	for _, item := range items {
		a, ok := r.address(item, "a target of "+what)
		switch {
		case !ok:
		case slices.Contains(out.Targets, a):
			r.fail(item.position, "", "%s names %s twice", what, a)
		default:
			out.Targets = append(out.Targets, a)
			r.targets = append(r.targets, targetAt{item.position, what, a})
		}
	}
	slices.SortFunc(out.Targets, netip.Addr.Compare)
	return out
}

// reached checks the targets of all groups, and gathers them.
func (r *reader) reached(taken, served map[netip.Addr]string) {
	for _, t := range r.targets {
		if owner, found := taken[t.target]; found {
			r.fail(t.position, "name an address that is nobody's of the cluster, such as the gateway's", "%s: %s is the address of %s, which always reaches it", t.what, t.target, owner)
		} else if owner, found := served[t.target]; found {
			r.fail(t.position, "name an address that stays where it is, such as the gateway's", "%s: %s is the address of %s, which moves", t.what, t.target, owner)
		}
	}
	var all []netip.Addr
	for i := range r.spec.Groups {
		all = append(all, r.spec.Groups[i].Reach.Targets...)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	if all = slices.Compact(all); len(all) > cluster.MaxTargets {
		last := slices.MaxFunc(r.targets, func(a, b targetAt) int { return cmp.Compare(a.line, b.line) })
		r.fail(last.position, "name those that many groups have in common, such as gateways", "reach names %d addresses: a cluster has at most %d", len(all), cluster.MaxTargets)
		return
	}
	r.spec.Targets = all
}

// reachText writes what is to be reached in the words of the file.
func reachText(s cluster.ReachSpec) string {
	if s.None {
		return reachNone
	}
	if len(s.Targets) == 0 {
		return "by its links"
	}
	out := make([]string, len(s.Targets))
	for i, a := range s.Targets {
		out[i] = fmt.Sprint(a)
	}
	return strings.Join(out, ", ")
}
