package app

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/io/reach"
)

// Asking during a check: two rounds are enough, and more than a few seconds it must not take.
const (
	checkRound   = 300 * time.Millisecond
	checkTargets = 5 * time.Second
)

// checkReach asks what the node's groups are to reach.
func checkReach(u *checkup, spec *cluster.Spec, self *cluster.NodeSpec) {
	q := reach.Questions{Round: checkRound}
	for i := range spec.Groups {
		g := &spec.Groups[i]
		q.Avoid = append(q.Avoid, g.Addresses()...)
		if g.Prefers(self.ID) < 0 {
			continue
		}
		resources := g.On(self.ID).Resources
		for _, t := range g.Reach.Targets {
			if !slices.ContainsFunc(q.Targets, func(x reach.Target) bool { return x.Addr == t }) {
				q.Targets = append(q.Targets, reach.Target{Addr: t, Interface: namedWay(t, resources), Soon: true})
			}
		}
	}
	if len(q.Targets) == 0 {
		return
	}
	if os.Getuid() != 0 {
		u.add("reach", warning, "run it as root", "not asked whether what groups are to reach answers: that takes raw sockets")
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTargets)
	defer cancel()
	var missed []netip.Addr
	reach.Watch(ctx, func() reach.Questions { return q }, nil, func(_, doubted, no []netip.Addr) {
		if missed = no; len(doubted) == 0 {
			cancel()
		}
	}, slog.New(slog.DiscardHandler))
	for _, t := range missed {
		u.add("reach", warning, "correct the address; one that no node reaches moves nothing", "%s answers neither ARP nor ND nor ICMP", t)
	}
	if len(missed) == 0 {
		u.add("reach", pass, "", "all that groups are to reach answers: %d in all", len(q.Targets))
	}
}

// namedWay returns the interface that the file names for an address in the target's subnet; 0: it names none, or there
// is none of that name.
func namedWay(t netip.Addr, resources []cluster.ResourceSpec) int {
	for _, r := range resources {
		name, _ := r.Fields["interface"].(string)
		if name != "" && slices.ContainsFunc(r.Subnets, func(p netip.Prefix) bool { return p.Contains(t) }) {
			if i, err := net.InterfaceByName(name); err == nil {
				return i.Index
			}
		}
	}
	return 0
}
