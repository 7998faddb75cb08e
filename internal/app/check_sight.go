package app

import (
	"fmt"
	"slices"
	"strings"

	"baton/internal/core/cluster"
)

// checkSight tells of groups that would not be moved from this node if it lost the network of their clients, since
// nothing shows that.
func checkSight(u *checkup, spec *cluster.Spec, self *cluster.NodeSpec) {
	var blind []string // in the file's order, each with why
	seen := make(map[string]int)
	for i := range spec.Groups {
		g := &spec.Groups[i]
		if why := unseen(spec, g, self.ID); why != "" {
			if seen[why] == 0 {
				blind = append(blind, why)
			}
			seen[why]++
		}
	}
	for _, why := range blind {
		u.add("reach", warning, "reach: the address of the gateway, or reach: none if that is as it should be",
			"should this node lose the network of its clients while it lives, %s would stay: %s", counted(seen[why], "group"), why)
	}
}

// unseen says why nothing shows whether a group's clients reach a node; empty: something does, nothing is to, or the
// group has no other node to go to.
func unseen(spec *cluster.Spec, g *cluster.GroupSpec, self cluster.NodeID) string {
	fronts := slices.ContainsFunc(g.Resources, func(r cluster.ResourceSpec) bool { return len(r.Subnets) > 0 })
	if g.Reach.None || len(g.Reach.Targets) > 0 || len(g.Nodes) < 2 || g.Prefers(self) < 0 || !fronts {
		return ""
	}
	var few []string
	for k, l := range spec.Links {
		if !spec.ClientLink(g, k, self) {
			continue
		}
		voters := 0
		for _, n := range spec.Nodes {
			if l.UDP.Addresses[n.ID].IsValid() {
				voters++
			}
		}
		if voters >= cluster.VotersMin {
			return ""
		}
		few = append(few, l.Name)
	}
	if len(few) > 0 {
		return fmt.Sprintf("link %s joins fewer than three nodes, and of two nobody can tell which one is cut off", strings.Join(few, ", "))
	}
	return "no link of this node is in the subnet of the group's address"
}
