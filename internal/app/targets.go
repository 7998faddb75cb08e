package app

import (
	"context"
	"net/netip"
	"slices"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/reach"
)

// watchTargets tells the core which of the addresses that groups of this node are to reach answer, and which of the
// nodes that it has asked for.
func (a *agent) watchTargets(ctx context.Context) {
	var missed []netip.Addr
	reach.Watch(ctx, a.toReach, a.asked, func(yes, doubt, no []netip.Addr) {
		for _, t := range no {
			if !slices.Contains(missed, t) && slices.Contains(a.shared.Load().Targets, t) {
				a.log.Warn("an address under reach does not answer", "address", t)
			}
		}
		for _, t := range yes {
			if slices.Contains(missed, t) && slices.Contains(a.shared.Load().Targets, t) {
				a.log.Info("an address under reach answers again", "address", t)
			}
		}
		missed = no
		a.inbox.put(&node.Reach{Reached: yes, Doubted: doubt, Missed: no})
	}, a.log)
}

// askAnew is called after a change of what toReach works out.
func (a *agent) askAnew() {
	select {
	case a.asked <- struct{}{}:
	default: // one token is there
	}
}

// toReach works out what to ask, by the configuration that counts.
func (a *agent) toReach() reach.Questions {
	spec := a.shared.Load()
	q := reach.Questions{Round: reach.Round(spec.Timing.Takeover)}
	if others := a.others.Load(); others != nil {
		for _, t := range others.Addresses {
			q.Targets = append(q.Targets, reach.Target{Addr: t, Soon: true})
		}
	}
	a.interfaces.mu.Lock()
	defer a.interfaces.mu.Unlock()
	for i := range spec.Groups {
		g := &spec.Groups[i]
		q.Avoid = append(q.Avoid, g.Addresses()...)
		if g.Prefers(a.self) < 0 {
			continue
		}
		for _, t := range g.Reach.Targets {
			if !slices.ContainsFunc(q.Targets, func(x reach.Target) bool { return x.Addr == t }) {
				q.Targets = append(q.Targets, reach.Target{Addr: t, Interface: a.wayTo(t, a.resources(g))})
			}
		}
	}
	return q
}

// wayTo returns the interface that the file names for an address in the target's subnet; 0: it names none. It is called
// with the interfaces' lock held.
func (a *agent) wayTo(t netip.Addr, resources []cluster.ResourceSpec) int {
	for _, r := range resources {
		name, _ := r.Fields["interface"].(string)
		if name != "" && slices.ContainsFunc(r.Subnets, func(p netip.Prefix) bool { return p.Contains(t) }) {
			return a.interfaces.named(name)
		}
	}
	return 0
}
