package node

import (
	"fmt"
	"slices"

	"baton/internal/core/cluster"
	"baton/internal/core/decide"
	"baton/internal/core/group"
	"baton/internal/core/state"
	"baton/internal/core/wire"
)

// tendNumber brings the lease number in use into line with the log: a number serves only after this node
// has itself applied its Admit and noted it in the run record, and never under another boot.
func (n *Node) tendNumber() {
	if n.state == nil {
		return
	}
	s := &n.state.Nodes[n.self]
	target := cluster.Number(0)
	switch {
	case s.Number < n.rec.Number:
		return // the log is being read again: the run record knows more
	case n.flawed(EvictedServes) && n.number != 0:
		return
	case s.Admitted && s.Incarnation == n.inc && (s.Boot == n.boot || n.flawed(AnyBoot)) && s.AdmitIndex > n.raft.usable:
		target = s.Number
	}
	if n.flawed(AnyBoot) && s.Admitted && s.Incarnation == n.inc {
		target = s.Number
	}
	if n.flawed(EarlyNumber) && n.raft.early > target {
		target = n.raft.early
		n.rec.Number, n.rec.First = target, max(n.rec.First, 1)
	}
	if target < n.passed {
		target = 0
	}
	if target == n.number {
		return
	}
	if target != 0 && n.rec.Number != target {
		n.rec.Number, n.rec.Rests = target, n.state.Set().Index
		if n.rec.First == 0 {
			n.rec.First = target
		}
		n.recDue = true
		if !n.flawed(NumberUnrecorded) {
			return
		}
	}
	if target != 0 && (n.recDue || n.recOK < n.recN) && !n.flawed(EarlyNumber) && !n.flawed(NumberUnrecorded) {
		return // until Recorded
	}
	n.number, n.rests = target, 0
	n.holder.Reset()
	n.groupsDue = true
	n.urgent()
	if target == 0 {
		n.event("lease.taken", n.id(), "%s has lost its lease: it was evicted", n.id())
	}
}

// tendSaying works out of which evicted numbers nothing is left here. That is said only of an Evict that
// is applied, and so known to be committed and durable here.
func (n *Node) tendSaying() {
	if n.state == nil {
		return
	}
	var lines []wire.Lease
	for i := range n.state.Nodes {
		s := &n.state.Nodes[i]
		if !s.Admitted && !s.Over(s.Number) && n.voter.Left(s.ID) <= n.now.Mono {
			lines = append(lines, wire.Lease{Node: s.ID, Number: s.Number})
		}
	}
	if n.flawed(SayAtAppend) || n.flawed(SayUndurable) {
		lines = append(lines, n.saidEarly()...)
	}
	if slices.Equal(lines, n.lines) {
		return
	}
	n.lines = lines
	for _, l := range lines {
		n.said.Add(l.Node, l.Number, n.inc)
	}
	n.urgent()
	n.groupsDue, n.planDue = true, true
}

// saidEarly is what two planted bugs say too soon.
func (n *Node) saidEarly() []wire.Lease {
	var lines []wire.Lease
	commit := n.raft.rn.BasicStatus().GetCommit()
	for _, a := range n.raft.evicts {
		if n.voter.Left(a.Node) <= n.now.Mono && (n.flawed(SayAtAppend) || a.index <= commit) {
			lines = append(lines, wire.Lease{Node: a.Node, Number: a.Number})
		}
	}
	return lines
}

// nextSaying returns when the next promise to an evicted node runs out.
func (n *Node) nextSaying() cluster.Instant {
	at := cluster.Never
	if n.state == nil {
		return at
	}
	for i := range n.state.Nodes {
		s := &n.state.Nodes[i]
		if left := n.voter.Left(s.ID); !s.Admitted && !s.Over(s.Number) && left > n.now.Mono {
			at = min(at, left)
		}
	}
	if n.flawed(SayAtAppend) || n.flawed(SayUndurable) {
		for _, a := range n.raft.evicts {
			if left := n.voter.Left(a.Node); left > n.now.Mono {
				at = min(at, left)
			}
		}
	}
	return at
}

// tendGroups brings every group of this node into line with its assignment, the lease and the tenures
// before it.
func (n *Node) tendGroups() {
	if n.state == nil {
		return
	}
	runs := n.leaseRuns()
	if !n.groupsDue && !n.someDue && n.now.Mono < n.groupsAt && runs == n.leaseShown {
		return
	}
	all := n.groupsDue || runs != n.leaseShown || n.now.Mono >= n.allAt || n.now.Mono.Sub(n.allDone) >= n.timing.L
	if n.leaseShown && !runs && n.number != 0 {
		n.event("lease.lost", n.id(), "%s has lost its lease: no majority of the voters renewed it in time", n.id())
		n.urgent()
	}
	if runs != n.leaseShown {
		n.planDue = true
	}
	n.groupsDue, n.someDue, n.leaseShown = false, false, runs
	if all {
		n.allDone, n.allAt = n.now.Mono, cluster.Never
		if n.now.Mono < n.resumed {
			n.allAt = n.resumed
		}
	}
	n.groupsAt = n.allAt
	n.places.due = n.places.due[:0]
	for i := range n.groups {
		l := &n.groups[i]
		if !all && !l.due && n.now.Mono < l.outcome.WakeAt {
			n.groupsAt = min(n.groupsAt, l.outcome.WakeAt)
			continue
		}
		l.due = false
		n.places.due = append(n.places.due, i)
		if l.group != nil {
			n.tendGroup(i)
			n.release(i)
		}
	}
	n.picture = nil
	n.report(n.places.due)
	for _, i := range n.places.due {
		n.watchService(i)
		n.tendFitness(i)
	}
}

// due says that something has changed that one group alone depends on. What all depend on sets groupsDue.
func (n *Node) due(place int) { n.groups[place].due, n.someDue = true, true }

func (n *Node) tendGroup(i int) {
	l, st := &n.groups[i], &n.state.Groups[i]
	rec := n.rec.Groups[st.ID]
	replaying := st.Epoch < rec.Activated && l.open == rec.Activated
	mine := st.Owner == n.id() && n.number != 0 && st.Epoch >= rec.Activated &&
		!slices.Contains(rec.Released, st.Epoch) && l.lost != st.Epoch
	if l.open != 0 && ((!n.leaseRuns() && n.now.Mono >= n.resumed) || (n.pulse.sick && n.leavesSick(i))) {
		// Given up: it may be assigned again, under the next epoch. A node whose disk does not answer would
		// never see that it is to hand over, so it does so unasked.
		l.lost = l.open
		mine = mine && st.Epoch != l.lost
	}
	if l.open != 0 && ((!mine && !replaying) || l.lost == l.open) {
		n.shut(l)
	}
	outdated := n.outdated()
	if outdated && l.open != 0 {
		n.shut(l)
	}
	mine = mine && !outdated
	s := group.Situation{Epoch: st.Epoch, Keep: replaying && l.open != 0 || outdated}
	if replaying && l.open != 0 {
		s.Role, s.Epoch = group.Owner, l.open
	}
	if mine {
		s.Role = group.Owner
		if rec.Activated < st.Epoch {
			n.activate(l, st.Epoch)
		}
		s.MayStart = n.recOK >= l.activated || n.flawed(ServeUnrecorded)
		s.Alone = n.tenuresOver(i)
		s.MayServe = s.MayStart && n.leaseRuns() && s.Alone && n.addressTaken(l.spec) == ""
		s.HotElsewhere = n.hotElsewhere(i)
	}
	s.Shared = n.shared(i)
	n.heed(l, mine, &s)
	l.outcome = l.group.Step(n.now.Mono, s)
	n.out.Wants = append(n.out.Wants, l.outcome.Wants...)
	n.groupsAt = min(n.groupsAt, l.outcome.WakeAt)
	if mine && s.MayServe && l.outcome.Ready && l.open != st.Epoch {
		l.open = st.Epoch
		n.gate(l, l.open, n.holder.End())
		l.openN = n.gateN
		n.groupEvent("serving", st.ID, "%s serves %s, epoch %d", n.id(), st.ID, st.Epoch)
	}
	l.phase, l.reason = n.phase(l, mine, st.Epoch)
	n.tendService(i, mine, len(s.Held) > 0)
	n.tendTasks(l, mine, st.Epoch)
}

// shut closes a group's gate.
func (n *Node) shut(l *local) {
	n.gate(l, l.open, 0)
	l.closeN = n.gateN
	n.groupEvent("closed", l.spec.ID, "%s no longer serves %s, epoch %d", n.id(), l.spec.ID, l.open)
	l.open = 0
}

// activate puts an epoch into the run record, which is written before anything starts or serves for it.
func (n *Node) activate(l *local, e cluster.Epoch) {
	rec := n.rec.Groups[l.spec.ID]
	rec.Activated = e
	rec.Released = slices.DeleteFunc(slices.Clone(rec.Released), func(r cluster.Epoch) bool { return r < e && !n.inQuestion(l.spec.ID, r) })
	n.rec.Groups[l.spec.ID] = rec
	n.recDue = true
	l.activated = n.recN + 1
}

// inQuestion tells whether a tenure still stands in the log as not over.
func (n *Node) inQuestion(id cluster.GroupID, e cluster.Epoch) bool {
	return slices.ContainsFunc(n.state.Group(id).Tenures, func(t state.Tenure) bool { return t.Epoch == e })
}

// tenuresOver tells whether every earlier tenure of the group that was not this node's own is over: not
// just that of the epoch before, whose owner may never have activated.
func (n *Node) tenuresOver(i int) bool {
	st := &n.state.Groups[i]
	if n.flawed(NoWait) {
		return true
	}
	for _, t := range st.Tenures {
		if t.Epoch >= st.Epoch || t.Node == n.id() || (n.flawed(OnlyLastTenure) && t.Epoch != st.Epoch-1) {
			continue
		}
		if !n.over(i, t) {
			return false
		}
	}
	return true
}

// addressTaken tells which node may still answer for one of these addresses, or "": a revision took it from a group
// that the node had, and it has neither carried that out, by its present run's word, nor lost its lease.
func (n *Node) addressTaken(g *cluster.GroupSpec) string {
	for _, f := range n.state.FreedFor(g) {
		if f.Node == n.id() && n.fitted >= f.Revision || n.saidOver(f.Node, f.Number) {
			continue
		}
		if k := n.index(f.Node); k >= 0 && (n.peers[k].hb == nil || n.peers[k].hb.Revision < f.Revision) {
			return fmt.Sprintf("waits until %s has given up %s", f.Node, f.Address)
		}
	}
	return ""
}

// over tells whether a tenure is over: a quorum has said so of its number, or its owner has released it.
func (n *Node) over(i int, t state.Tenure) bool {
	if n.saidOver(t.Node, t.Number) || slices.Contains(n.groups[i].heard, heardRelease{t.Epoch, t.Node}) {
		return true
	}
	x := n.index(t.Node)
	if n.flawed(BootProves) && x >= 0 && n.peers[x].hb != nil && n.peers[x].hb.Boot != n.state.Nodes[x].Boot {
		return true
	}
	return false
}

// leavesSick tells whether a group is to be given up here, where its node is sick: the planner would move it, on the
// picture that this node has, and the others can carry that out.
func (n *Node) leavesSick(i int) bool {
	if n.state.Groups[i].Owner != n.id() {
		return false // as far as the log is read again
	}
	f := n.view()
	to := decide.Leaves(f, &f.Groups[i])
	return to != "" && n.othersDecide(n.index(to))
}

// othersDecide tells whether the others can place on one of them what this node gives up: one of the voters is well,
// makes a majority with those well ones with which it is in touch, this node left out, and is in touch with that one.
func (n *Node) othersDecide(to int) bool {
	for k := range n.peers {
		if !n.decides(k) || k != to && !n.inTouch(k, to) {
			continue
		}
		together := 1
		for v := range n.peers {
			if v != k && n.decides(v) && n.inTouch(k, v) {
				together++
			}
		}
		if together >= cluster.Quorum(n.voters) {
			return true
		}
	}
	return false
}

// decides tells whether another node is a voter that is heard and well.
func (n *Node) decides(k int) bool {
	p := &n.peers[k]
	return k != n.self && p.votes && p.hb != nil && !p.hb.Sick && p.det.Fresh(n.now.Mono)
}

// inTouch tells whether two nodes hear each other, each by its own word.
func (n *Node) inTouch(i, k int) bool { return n.hearsOf(i, k) && n.hearsOf(k, i) }

// hotElsewhere tells whether another node would take over without a start what has failed here.
func (n *Node) hotElsewhere(i int) bool {
	if !n.groups[i].group.Ails() {
		return false
	}
	f := n.failedHere(i)
	return decide.Relief(f, &f.Groups[i])
}

// release notes which tenures of this node are given up for good: each under a number of this boot that
// is not the group's newest, served or not, and the newest if its lease has ended or the log took it away.
// The gate must be known closed, and what neither gate nor cgroup cuts must be stopped.
func (n *Node) release(i int) {
	l, st := &n.groups[i], &n.state.Groups[i]
	rec := n.rec.Groups[st.ID]
	if n.rec.First == 0 {
		return
	}
	for _, t := range st.Tenures {
		if t.Node != n.id() || t.Number < n.rec.First || slices.Contains(rec.Released, t.Epoch) {
			continue
		}
		if t.Epoch == st.Epoch && st.Owner == n.id() && l.lost != t.Epoch {
			continue // it is the present one
		}
		if n.flawed(ReleaseServedOnly) && t.Epoch != rec.Activated {
			continue
		}
		closed := l.open != t.Epoch && n.gateOK >= l.closeN
		if (!closed && !n.flawed(ReleaseEarly)) || !l.outcome.Closed {
			continue
		}
		rec.Released = append(slices.Clone(rec.Released), t.Epoch)
		slices.Sort(rec.Released)
		n.rec.Groups[st.ID] = rec
		n.recDue = true
	}
}

// report tells the others how groups are here, and each release that the run record holds until the log has it.
func (n *Node) report(places []int) {
	recorded := !n.recDue && n.recOK >= n.recN || n.flawed(ReleaseUnrecorded)
	news, urgent := false, false
	for _, i := range places {
		released := n.telling.items[i].released
		if recorded {
			released = n.toRelease(i)
		}
		r, reports := wire.GroupReport{}, n.groups[i].group != nil
		if reports {
			r = n.reportOn(i)
		}
		urgent = urgent || !slices.Equal(released, n.telling.items[i].released)
		news = n.tell(i, r, reports, released) || news
	}
	switch {
	case urgent:
		n.planDue = true
		n.urgent()
	case news:
		n.planDue = true
		n.tellSoon()
	}
}

// toRelease returns the tenures of a group that are released here and stand in the log as not over.
func (n *Node) toRelease(i int) (released []cluster.Epoch) {
	st := &n.state.Groups[i]
	for _, e := range n.rec.Groups[st.ID].Released {
		if slices.ContainsFunc(st.Tenures, func(t state.Tenure) bool { return t.Epoch == e && t.Node == n.id() }) {
			released = append(released, e)
		}
	}
	return released
}

// tendRecord writes the run record if it has changed, and once more what stands there if nothing was written for a
// while: one that can't be written must be known before a takeover needs it.
func (n *Node) tendRecord() {
	if !n.recDue && n.now.Mono < n.recordTry() {
		return
	}
	n.recDue = false
	if n.recOK == n.recN {
		n.recAt = n.now.Mono
	}
	n.recN++
	r := n.rec
	r.Groups = make(map[cluster.GroupID]cluster.GroupRecord, len(n.rec.Groups))
	for i := range n.spec.Groups { // in the file's order: the map is copied, not walked
		id := n.spec.Groups[i].ID
		if g, ok := n.rec.Groups[id]; ok {
			r.Groups[id] = cluster.GroupRecord{Activated: g.Activated, Released: slices.Clone(g.Released), Instructed: g.Instructed, Account: g.Account}
		}
	}
	n.out.Record = &Record{N: n.recN, Record: r}
}

// recordTry is when an idle node tries its run record.
func (n *Node) recordTry() cluster.Instant {
	if n.recN == 0 || n.recOK < n.recN {
		return cluster.Never
	}
	return n.recAt.Add(n.diskEvery())
}

// phase sums up how a group is here.
func (n *Node) phase(l *local, mine bool, e cluster.Epoch) (wire.Phase, string) {
	o := &l.outcome
	switch {
	case o.Failed != "":
		return wire.PhaseFailed, withTries(o.Failed, o.Tries)
	case n.leaseRuns() && (mine && l.open == e && n.gateOK >= l.openN && o.Fronts && o.Ready || !mine && l.open != 0): // no client gets through before
		return wire.PhaseServing, shorten(o.Note, wire.MaxReason)
	case mine && o.Again != "":
		return wire.PhasePreparing, withTries(o.Again, o.Tries)
	case mine:
		return wire.PhasePreparing, shorten(n.addressTaken(l.spec), wire.MaxReason)
	case !o.AtDepth:
		return wire.PhaseStopping, ""
	case o.Hot:
		return wire.PhaseStandby, ""
	}
	return wire.PhaseStopped, ""
}

// withTries tells of a failure, and what is left of the restarts where there is room for both: what to do about a failure
// stands at its end.
func withTries(failed, tries string) string {
	if tries != "" {
		tries = " (" + tries + ")"
	}
	if len(failed)+len(tries) > wire.MaxReason {
		return shorten(failed, wire.MaxReason)
	}
	return failed + tries
}

// shorten cuts a text to so many bytes at most, between characters.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	if limit < len("…") {
		return ""
	}
	cut := limit - len("…")
	for cut > 0 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return s[:cut] + "…"
}

// reportOn tells how a group is here.
func (n *Node) reportOn(i int) wire.GroupReport {
	l := &n.groups[i]
	r := wire.GroupReport{Epoch: n.state.Groups[i].Epoch, Phase: l.phase,
		Cut: n.isCut(l.spec.ID), Short: l.short, Partly: l.phase == wire.PhaseFailed && l.outcome.Partly && l.open != 0 && n.leaseRuns(), Hot: l.outcome.Hot, Lacks: l.phase == wire.PhaseFailed && l.outcome.Lacks, Reason: l.reason,
		Probe: l.outcome.Probe.Says, Brief: l.outcome.Probe.Brief}
	if why := n.lack(l); why != "" {
		r.Lacks = true
		if r.Reason == "" {
			r.Reason = shorten("lacks: "+why, wire.MaxReason)
		}
	}
	return r
}
