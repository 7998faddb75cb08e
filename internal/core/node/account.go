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
	vague bool            // they may be served again before that is noticed
	again cluster.Instant // when they last were served again; 0: never under this epoch and agent
}

// unseen is a time in which clients may be served by what is not known to serve: a gate that may be open, in front of
// what may be up. So much may be the end of a service, or the beginning of one that ends before anybody notices.
type unseen struct {
	on    bool
	epoch cluster.Epoch   // whose gate it is
	first cluster.Instant // when such a time first began under that epoch; 0: never
	since cluster.Instant // when this one began
	end   cluster.Instant // of the gate, as far as it was asked for
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
	n.tendUnseen(l)
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
				n.due(i) // they may be served again
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

// shutting tells whether the kernel was told to shut a group's gate, and has not answered that yet.
func (n *Node) shutting(l *local) bool {
	return slices.ContainsFunc(l.writes, func(w stood) bool { return w.end <= n.now.Mono })
}

// tendService brings the account of a group into line with how it is here now.
func (n *Node) tendService(i int, mine bool, held bool) {
	l := &n.groups[i]
	s := &l.service
	up := l.phase == wire.PhaseServing && !held && !n.hidden(l) && !n.ranOut(l) && !n.shutting(l) && !l.group.Stopping()
	switch {
	case up && s.Epoch == l.open && s.Up:
	case up && !l.group.Busy():
		n.serviceBegins(i)
	case !up && s.Up:
		n.serviceEnds(i, mine)
	}
	n.tendUnseen(l)
	n.endService(i)
	if s.Up && len(l.writes) > 0 {
		n.wakeWhenRunOut(l)
	}
	l.short = l.phase == wire.PhaseServing && !s.Up
}

// tendUnseen notes since when clients may be served unseen, and until when they may have been.
func (n *Node) tendUnseen(l *local) {
	u, s := &l.unseen, &l.service
	end := n.gateEnd(l)
	mayAnswer := !s.Up && l.group != nil && l.group.MayAnswer() && !n.hidden(l)
	may := mayAnswer && end > n.now.Mono
	epoch := u.epoch
	if l.open != 0 {
		epoch = l.open
	}
	if stood := end <= n.now.Mono && end > s.To; stood && mayAnswer && !u.on && !s.Over && s.Epoch == epoch {
		s.To = end // it was renewed once more, and has run out before anybody looked
	}
	if u.on && (!may || u.epoch != epoch) {
		u.on = false
		if !s.Up && s.Epoch == u.epoch {
			s.To = max(s.To, min(n.now.Mono, max(u.end, end)))
		}
	}
	if u.epoch != epoch {
		*u = unseen{epoch: epoch}
	}
	switch {
	case !may:
		return
	case !u.on:
		u.on, u.since, u.end = true, n.now.Mono, end
		if u.first == 0 {
			u.first = u.since
		}
	}
	u.end = max(u.end, end)
}

// endService notes that clients will never be served again under the account's epoch: its gate is shut for good.
func (n *Node) endService(i int) {
	l, st := &n.groups[i], &n.state.Groups[i]
	s := &l.service
	if s.Epoch == 0 || s.Up || l.unseen.on || s.Over || l.open == s.Epoch || n.gateOK < l.closeN {
		return
	}
	given := st.Epoch == s.Epoch && (st.Owner != n.id() || slices.Contains(n.rec.Groups[st.ID].Released, s.Epoch))
	if st.Epoch > s.Epoch || given {
		s.Over = true
		n.keepAccount(l)
	}
}

func (n *Node) isCut(id cluster.GroupID) bool { return slices.Contains(n.cut, id) }

// hidden tells whether clients don't reach a group here, whatever its gate lets through.
func (n *Node) hidden(l *local) bool {
	return n.isCut(l.spec.ID) || l.away.since != 0 && (l.away.epoch == 0 || n.isTakenAway(l))
}

// serviceBegins notes that clients are served from now on.
func (n *Node) serviceBegins(i int) {
	l := &n.groups[i]
	s, u := &l.service, &l.unseen
	if s.Epoch != l.open {
		if s.Epoch != 0 {
			if s.Up {
				s.Up, s.From, s.To = false, n.now.Mono, n.now.Mono
			}
			s.Over = true
			n.hear(i, n.id(), n.boot, s.Epoch).take(s.Account)
		}
		*s = ownAccount{Account: cluster.Account{Group: l.spec.ID, Epoch: l.open, Up: true, First: u.first, Began: n.now.Mono}}
		u.on = false
		n.keepAccount(l)
		return
	}
	gaps := &s.OtherGaps
	if s.Ordered {
		gaps = &s.OrderedGaps
	}
	gaps.Most += n.now.Mono.Sub(s.From)
	switch {
	case s.vague:
	case u.on:
		gaps.Least += max(0, u.since.Sub(s.To))
	case l.away.seen > s.To:
		gaps.Least += l.away.seen.Sub(s.To)
	}
	gaps.Late = gaps.Late || s.Late
	s.Up, s.From, s.To, s.Ordered, s.Late, s.vague, s.again, u.on = true, 0, 0, false, false, false, n.now.Mono, false
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
	served := max(s.Began, s.again) // they were then
	defer func() {
		if !s.Ordered {
			s.Cause = shorten(n.cause(l), cluster.CauseMax)
		}
	}()
	switch stopped := n.state.Instructions.Stop(st.ID, "") != nil; {
	case n.sleptAt == n.now.Mono:
		s.Up, s.From, s.To = false, n.last, n.now.Mono // while it slept
	case !n.leaseRuns() || n.ranOut(l):
		n.serviceRanOut(l)
	case l.open == 0 && !mine: // the log has given it to another, or to nobody
		s.Up, s.From, s.To = false, n.now.Mono, n.now.Mono
		s.Ordered = stopped || st.Service.Asked == st.Epoch && st.Epoch > s.Epoch
	default:
		s.Up, s.From, s.To = false, n.now.Mono, n.now.Mono
		s.Ordered = l.group.Ordered()
		s.Late = !s.Ordered && l.open != 0
		if at := l.group.IllSince(); at != 0 && s.Late { // it takes several tries
			s.From = min(s.From, max(served, at))
		}
	}
	if l.away.since != 0 { // which nobody ordered
		s.From, s.To = min(s.From, max(served, l.away.since)), min(s.To, max(served, l.away.by))
		s.Ordered, s.Late = false, l.away.late
	}
	s.vague = n.isCut(st.ID)
	n.keepAccount(l)
}

// cause tells what has just taken a group's service away, where nobody ordered it; empty: it is not known.
func (n *Node) cause(l *local) string {
	switch {
	case n.sleptAt == n.now.Mono:
		return "its machine stood still"
	case !n.leaseRuns() || n.ranOut(l):
		return ranOut
	case l.away.why != "" && l.away.since != 0:
		return "its node " + l.away.why
	case l.outcome.Failed != "":
		return l.outcome.Failed
	case l.outcome.Again != "":
		return l.outcome.Again
	case n.isCut(l.spec.ID):
		return "its uplink was gone"
	}
	return ""
}

// ranOut is the cause where a gate ran out.
const ranOut = "its lease was not renewed in time"

// serviceRanOut notes that clients are served no longer since the kernel's gate ran out. Where this agent stood still
// when it did, nobody knows whether its whole machine stood still before. Where it ran, it was cut off from a majority,
// and nobody knows since when from its clients: at the earliest since it was last heard, up to L before.
func (n *Node) serviceRanOut(l *local) {
	s := &l.service
	end := n.gateEnd(l)
	s.Up, s.Ordered, s.Cause = false, false, ranOut
	s.From, s.To = min(l.stands.Add(-gateSlip), n.now.Mono), min(end, n.now.Mono)
	s.Late = n.now.Mono.Sub(n.last) > max(n.timing.Stall, n.timing.L/4)
	if !s.Late && !n.leaseRuns() {
		s.From = min(s.From, max(s.Began, l.stands.Add(-n.timing.L)))
	}
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
	l.service = ownAccount{Account: a}
	s := &l.service
	if a.Over {
		return
	}
	stood := cluster.Instant(0) // until when the gate was open for it; 0: it is shut, nobody knows since when
	for _, g := range gates {
		if g.Group == a.Group && g.Epoch == a.Epoch {
			stood = g.End
		}
	}
	end := min(stood, n.now.Mono)
	switch up := l.group != nil && l.group.Answers(); {
	case !a.Up && stood == 0:
		s.To = n.now.Mono
	case !a.Up:
		s.To = max(s.To, end)
	case stood == 0:
		s.Up, s.From, s.To, s.Late, s.Cause = false, n.now.Mono, n.now.Mono, true, "its gate was gone when the agent started again"
	case !up:
		s.Up, s.From, s.To, s.Late, s.Cause = false, end, end, true, "it was not up when the agent started again"
	case stood <= n.now.Mono:
		s.Up, s.From, s.To, s.Late, s.Cause = false, end.Add(-gateSlip), end, !n.flawed(UnwatchedVouched), ranOut // nobody watched what is around it meanwhile
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
