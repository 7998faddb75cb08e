package node

import (
	"slices"

	"baton/internal/core/cluster"
	"baton/internal/core/decide"
)

// This file takes what a node learns of its own surroundings: interfaces, what its host lacks, a suspend.

// lacking takes what this host lacks. What is there again ends every pause that it has caused.
func (n *Node) lacking(in *Lacking) {
	for _, l := range n.lacks {
		if g := n.local(l.Group); g != nil && g.group != nil && !slices.ContainsFunc(in.Lacks, func(x cluster.Lack) bool {
			return x.Group == l.Group && x.Resource == l.Resource
		}) {
			g.group.Mended(l.Resource)
		}
	}
	for i := range n.groups {
		if g := n.groups[i].group; in.Came && g != nil {
			g.TryNow()
		}
	}
	n.lacks = slices.Clone(in.Lacks)
	n.groupsDue = true
}

// shared tells whether every other node that could have a group says the same of the probe that has failed here.
func (n *Node) shared(i int) bool {
	if !n.groups[i].group.Probe().Ill {
		return false
	}
	f := n.failedHere(i)
	return decide.Shared(f, &f.Groups[i], n.id())
}

// failedHere returns the picture of this pass, with the group as failed here as it is: what is reported is of before.
func (n *Node) failedHere(i int) *cluster.Facts {
	f, p := n.view(), n.groups[i].group.Probe()
	g := &f.Groups[i]
	r := &g.Reports[n.self]
	r.Known, r.Epoch, r.Failed, r.Probe, r.Brief = true, g.Epoch, true, 0, p.Brief
	if p.Ill {
		r.Probe = p.Says
	}
	return f
}

// view returns the picture of this pass through the groups: it is made only where somebody asks.
func (n *Node) view() *cluster.Facts {
	if n.picture == nil {
		n.picture = n.facts()
	}
	return n.picture
}

// lack returns what this host lacks for a group to run here, or "". What is up shows that it lacks nothing.
func (n *Node) lack(l *local) string {
	for _, x := range n.lacks {
		if x.Group != l.spec.ID {
			continue
		}
		if x.Resource == "" {
			return x.Why
		}
		if s, _ := l.group.Resource(x.Resource); s != cluster.StatusRunning && s != cluster.StatusStandby {
			return string(x.Resource) + ": " + x.Why
		}
	}
	return ""
}

// suspend makes a node whose machine was suspended serve nothing before a heartbeat sent since was acked by a
// majority of the voters: how long it slept is known by a coarse clock only (protocol.md, "Taking a lease
// away", 7). What it had is given up only if no such ack comes before its lease would have ended.
func (n *Node) suspend() {
	n.sleptAt = n.now.Mono
	n.resumed = max(n.resumed, n.holder.End())
	n.holder.Suspend()
	for i := range n.groups {
		if l := &n.groups[i]; l.open != 0 {
			n.gate(l, l.open, 0)
		}
	}
	n.event("suspended", n.id(), "the machine was suspended: %s serves nothing until its lease is renewed", n.id())
	n.groupsDue = true
	n.urgent()
}
