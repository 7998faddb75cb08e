package node

import (
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// This file keeps this node's own account of how clients are served by each group here, by its own clock: it alone
// knows what its gates did. Others put it on record (served.go).

// ownAccount is that account of the newest placement under which clients were served here.
type ownAccount struct {
	cluster.Account
	open  bool // To is not known yet: something may still answer
	vague bool // they may be served again before that is noticed
}

// stood is a write of the kernel's gate that is not answered yet.
type stood struct {
	n   uint64
	end cluster.Instant
}

// gateSlip is by how much earlier than asked the kernel's gate may end: its deadline is on another clock.
const gateSlip = time.Millisecond

// stoodMax bounds the writes whose answers are awaited; the oldest go first.
const stoodMax = 64

// noteGate keeps until when a gate is to be open, until the kernel has taken that.
func (n *Node) noteGate(l *local, g cluster.Gate) {
	if l.open != 0 && l.stands > n.now.Mono {
		n.wakeWhenRunOut(l)
	}
	if len(l.writes) == stoodMax {
		l.writes = slices.Delete(l.writes, 0, 1)
	}
	l.writes = append(l.writes, stood{g.N, g.End})
}

// wakeWhenRunOut has the group looked at when its gate has run out, if no answer of the kernel's comes before.
func (n *Node) wakeWhenRunOut(l *local) {
	l.outcome.WakeAt = min(l.outcome.WakeAt, l.stands)
	n.groupsAt = min(n.groupsAt, l.stands)
}

// gatesTaken takes note of what the kernel has taken. A gate that had run out before it was renewed was shut meanwhile.
func (n *Node) gatesTaken(upTo uint64) {
	for i := range n.groups {
		l := &n.groups[i]
		for len(l.writes) > 0 && l.writes[0].n <= upTo {
			if l.service.Up && l.stands <= n.now.Mono && l.writes[0].end > n.now.Mono {
				n.serviceRanOut(l)
			}
			l.stands = l.writes[0].end
			l.writes = l.writes[1:]
			if l.short {
				n.due(i)
			}
		}
	}
}

// ranOut tells whether the kernel's gate of a group may have run out, whatever the lease here does.
func (n *Node) ranOut(l *local) bool { return len(l.writes) > 0 && n.now.Mono >= l.stands }

// tendService brings the account of a group into line with how it is here now.
func (n *Node) tendService(i int, mine bool, held bool) {
	l := &n.groups[i]
	s := &l.service
	up := l.phase == wire.PhaseServing && !held && !n.isCut(l.spec.ID) && !n.ranOut(l)
	switch {
	case up && s.Epoch == l.open && s.Up:
	case up && !l.group.Busy():
		n.serviceBegins(i)
	case !up && s.Up:
		n.serviceEnds(i, mine)
	}
	if s.open && (l.group == nil || !l.group.Answers() || l.open == 0 && n.gateOK >= l.closeN) {
		s.open, s.To = false, n.now.Mono
	}
	if s.Up && len(l.writes) > 0 {
		n.wakeWhenRunOut(l)
	}
	l.short = l.phase == wire.PhaseServing && !s.Up
}

func (n *Node) isCut(id cluster.GroupID) bool { return slices.Contains(n.cut, id) }

// serviceBegins notes that clients are served from now on.
func (n *Node) serviceBegins(i int) {
	l := &n.groups[i]
	s := &l.service
	if s.Epoch != l.open {
		if s.Epoch != 0 {
			n.hear(i, n.id(), n.boot, s.Epoch).take(s.Account)
		}
		*s = ownAccount{Account: cluster.Account{Group: l.spec.ID, Epoch: l.open, Up: true, First: max(l.openAt, l.group.Started()), Began: n.now.Mono}}
		n.keepAccount(l)
		return
	}
	gaps := &s.OtherGaps
	if s.Ordered {
		gaps = &s.OrderedGaps
	}
	gaps.Most += n.now.Mono.Sub(s.From)
	if !s.open && !s.vague {
		gaps.Least += max(0, l.group.Started().Sub(s.To))
	}
	gaps.Late = gaps.Late || s.Late
	s.Up, s.From, s.To, s.Ordered, s.Late, s.open, s.vague = true, 0, 0, false, false, false, false
	n.keepAccount(l)
}

// keepAccount puts the account into the run record: a later run goes on with it.
func (n *Node) keepAccount(l *local) {
	rec := n.rec.Groups[l.spec.ID]
	rec.Account = l.service.Account
	n.rec.Groups[l.spec.ID] = rec
	n.recDue = true
}

// serviceEnds notes that clients are served no longer, since when, and whether somebody ordered that.
func (n *Node) serviceEnds(i int, mine bool) {
	l, st := &n.groups[i], &n.state.Groups[i]
	s := &l.service
	switch stopped := n.state.Instructions.Stop(st.ID, "") != nil; {
	case n.sleptAt == n.now.Mono:
		s.Up, s.From, s.open, s.vague = false, n.last, true, true // while it slept, and until its gate is known to be shut
	case !n.leaseRuns() || n.ranOut(l):
		n.serviceRanOut(l)
	case l.open == 0 && !mine: // the log has given it to another, or to nobody
		s.Up, s.From, s.open = false, n.now.Mono, true
		s.Ordered = stopped || st.Service.Asked == st.Epoch && st.Epoch > s.Epoch
	default:
		s.Up, s.From, s.open = false, n.now.Mono, true
		s.Ordered = l.group.Ordered()
		s.Late = !s.Ordered && l.open != 0
	}
	switch {
	case n.isCut(st.ID):
		s.open, s.To, s.vague = false, n.now.Mono, true
	case s.open:
		s.To = max(n.now.Mono, n.gateEnd(l))
	}
	n.keepAccount(l)
}

// serviceRanOut notes that clients are served no longer since the kernel's gate ran out. Where this agent stood still
// when it did, nobody knows whether its whole machine stood still before.
func (n *Node) serviceRanOut(l *local) {
	s := &l.service
	end := n.gateEnd(l)
	s.Up, s.Ordered, s.open, s.vague = false, false, false, true
	s.From, s.To = min(l.stands.Add(-gateSlip), n.now.Mono), min(end, n.now.Mono)
	s.Late = n.now.Mono.Sub(n.last) > max(n.timing.Stall, n.timing.L/4)
}

// gateEnd is the latest instant until which the kernel's gate may be open, as far as it was asked for.
func (n *Node) gateEnd(l *local) cluster.Instant {
	end := l.stands
	for _, w := range l.writes {
		end = max(end, w.end)
	}
	return end
}

// resumeService goes on with a former run's account. Clients were served while no agent ran if all of the group is up,
// until the kernel's gate ran out.
func (n *Node) resumeService(l *local, a cluster.Account, gates []cluster.GateState) {
	l.service = ownAccount{Account: a, vague: true}
	s := &l.service
	if !a.Up {
		return
	}
	for _, g := range gates {
		if g.Group == a.Group && g.Epoch == a.Epoch {
			l.stands = g.End
		}
	}
	end := min(l.stands, n.now.Mono)
	switch up := l.group != nil && l.group.Answers(); {
	case l.stands == 0:
		s.Up, s.From, s.To, s.Late = false, n.now.Mono, n.now.Mono, true // shut, nobody knows since when
	case !up:
		s.Up, s.From, s.To, s.Late = false, end, end, true
	case l.stands <= n.now.Mono:
		s.Up, s.From, s.To, s.Late = false, end.Add(-gateSlip), end, true // nobody watched what is around it meanwhile
	}
}

// unsettled tells whether the record of a group's outages lacks, or may come to lack, what is known here.
func (n *Node) unsettled(i int) bool {
	s, x := &n.groups[i].service, &n.state.Groups[i].Service
	switch {
	case s.Epoch == 0:
		return false
	case s.Epoch < x.Epoch:
		return x.Open != nil && x.Open.Before == s.Epoch
	case s.Epoch > x.Epoch || !s.Up || x.Open != nil:
		return true
	}
	return s.OrderedGaps.Most != x.Ordered || s.OtherGaps.Most != x.Other
}
