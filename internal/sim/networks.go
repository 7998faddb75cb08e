package sim

import (
	"net/netip"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
)

// This file holds the networks that clients come by: switch ports that die while their carrier stays, a target that
// nobody or not everybody reaches, and what agents find out when they ask.

// What Plan.Networks may say.
const (
	byLinks  = "links"  // the groups' addresses are in the network of the link lan
	byTarget = "target" // the groups name a target
)

// target is what groups are to reach, where they name one; it is none of the machines'.
var target = netip.AddrFrom4([4]byte{10, 9, 0, 1})

// As internal/io/reach has it.
const (
	askLeast               = 20 * time.Millisecond
	asksMissed, soonMissed = 5, 2
)

// networked makes a specification's groups say by which network their clients come.
func (p *Plan) networked(s *cluster.Spec) {
	for i := range s.Groups {
		switch g := &s.Groups[i]; p.Networks {
		case byLinks:
			g.Resources[1].Subnets = []netip.Prefix{netip.PrefixFrom(g.Resources[1].Addresses[0], 24).Masked()}
		case byTarget:
			g.Reach.Targets = []netip.Addr{target}
			s.Targets = g.Reach.Targets
		}
	}
}

// judges tells whether agents have anything to ask.
func (w *world) judges() bool {
	if len(w.spec.Targets) > 0 {
		return true
	}
	return slices.ContainsFunc(w.spec.Groups, func(g cluster.GroupSpec) bool {
		for l := range w.spec.Links {
			if slices.ContainsFunc(g.Nodes, func(id cluster.NodeID) bool { return w.spec.ClientLink(&g, l, id) }) {
				return true
			}
		}
		return false
	})
}

// offNet tells whether a fault keeps a group's clients from the machine, though its interface shows nothing.
func (m *machine) offNet(group int) bool {
	g := &m.w.spec.Groups[group]
	for i := range m.w.running {
		f := &m.w.running[i]
		if !f.on || f.node != m.idx {
			continue
		}
		switch f.Kind {
		case Unreach:
			if len(g.Reach.Targets) > 0 {
				return true
			}
		case Port, PortIn, PortOut:
			for l := range m.w.spec.Links {
				if (f.Link < 0 || f.Link == l) && m.w.spec.ClientLink(g, l, m.id) {
					return true
				}
			}
		}
	}
	return false
}

// questions is what an agent's questions have come to.
type questions struct {
	others []netip.Addr       // nodes that the core wants asked
	misses map[netip.Addr]int // rounds in a row
}

// askEvery is how long a round of questions is.
func (w *world) askEvery() int64 { return int64(max(askLeast, w.spec.Timing.Takeover/8)) }

// askAround is one round of questions.
func (m *machine) askAround() {
	if m.agent == nil {
		return
	}
	m.w.push(m.w.now+m.w.askEvery(), evAsk, m.idx, m.life, 0, 0)
	if m.blocked() || len(m.asking.others) == 0 && len(m.w.spec.Targets) == 0 {
		return
	}
	in := new(node.Reach)
	ask := func(a netip.Addr, answers bool, most int) {
		if answers {
			m.asking.misses[a] = 0
			in.Reached = append(in.Reached, a)
			return
		}
		if m.asking.misses[a]++; m.asking.misses[a] >= most {
			in.Missed = append(in.Missed, a)
		} else {
			in.Doubted = append(in.Doubted, a)
		}
	}
	for _, a := range m.asking.others {
		ask(a, m.answered(a), soonMissed)
	}
	for _, a := range m.w.spec.Targets {
		gone := slices.ContainsFunc(m.w.running, func(f active) bool { return f.on && f.Kind == NoTarget })
		ask(a, !gone && !m.faultOn(Unreach, -1), asksMissed)
	}
	m.deliver(in)
}

// answered tells whether another machine answers at its address on a link: its kernel does.
func (m *machine) answered(a netip.Addr) bool {
	for l := range m.w.spec.Links {
		for i, o := range m.w.machines {
			if u := m.w.spec.Links[l].UDP; u != nil && u.Addresses[o.id] == a {
				n := &m.w.net
				return o.powered && !o.still && !n.links[l].dead && !n.cut[l][m.idx][i] && !n.cut[l][i][m.idx]
			}
		}
	}
	return false
}
