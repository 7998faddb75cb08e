package app

import (
	"errors"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/gate"
)

// retryPromptly is how soon a write of the gate or the run record that failed is tried again, for the first
// heartbeat interval: a release, and with it a takeover, waits for it.
const retryPromptly = 5 * time.Millisecond

// owed is what the core asked of the gate and the run record and has no answer to: writes that failed, and are
// tried again until they succeed or newer ones take their place. `Gated` answers everything up to its number,
// so nothing is answered beyond the first write that failed: a release would be said though a gate is open.
type owed struct {
	asked  uint64 // number of the newest Gate
	told   uint64 // number of the newest that was answered
	gates  map[cluster.GroupID]owedGate
	record *node.Record // the newest, if it could not be written; nil: it was
	retry  retry        // of the record

	gateComplaint, recordComplaint complaint
}

// owedGate is the newest deadline of a group, which is not in the kernel.
type owedGate struct {
	cluster.Gate
	first uint64 // number of the first that failed since the last that did not; 0: no answer waits for it
	retry
}

// retry is when one write that failed is tried again. Each has its own: what fails over and over must not put off
// what failed once.
type retry struct {
	since cluster.Instant // when it first failed; 0: it has not
	again cluster.Instant
}

// failed plans the next try: promptly at first, then each heartbeat interval.
func (r *retry) failed(now cluster.Instant, h time.Duration) {
	if r.since == 0 {
		r.since = now
	}
	wait := h
	if now.Sub(r.since) < h {
		wait = min(retryPromptly, h)
	}
	r.again = now.Add(wait)
}

// answer returns up to which number everything is done, if that is news; 0: it is not.
func (o *owed) answer() uint64 {
	up := o.asked
	for _, g := range o.gates {
		if g.first != 0 {
			up = min(up, g.first-1)
		}
	}
	if up <= o.told {
		return 0
	}
	o.told = up
	return up
}

// wake returns when something is to be tried again.
func (o *owed) wake() cluster.Instant {
	wake := cluster.Never
	for _, g := range o.gates {
		wake = min(wake, g.again)
	}
	if o.record != nil {
		wake = min(wake, o.retry.again)
	}
	return wake
}

// writeGates carries out what a step asks of the gate, and returns what can be answered now; 0: nothing.
func (a *agent) writeGates(gates []cluster.Gate) uint64 {
	for _, g := range gates {
		a.owed.asked = max(a.owed.asked, g.N)
		a.writeGate(g)
	}
	return a.owed.answer()
}

// writeGate makes this the newest deadline of its group, and stores it in the kernel. What fails is owed; for one
// without a number no answer waits.
func (a *agent) writeGate(g cluster.Gate) {
	a.gates[g.Group] = cluster.Gate{Group: g.Group, Epoch: g.Epoch, End: g.End}
	err := a.gate.Set(g.Group, g.Epoch, a.clock.boottime(g.End))
	if g.End == 0 && (errors.Is(err, gate.ErrStaleEpoch) || errors.Is(err, gate.ErrUnknownGroup) && !a.mayRun(g.Group)) {
		// A newer epoch of this node's own has the gate: the old one is shut. Or the group is gone from the file,
		// and so is all of it that was guarded.
		err = nil
	}
	a.metrics.GateWritten(err)
	o := &a.owed
	if err == nil {
		delete(o.gates, g.Group)
		if len(o.gates) == 0 {
			o.gateComplaint.worked(a.log, "the gate can be written again")
		}
		return
	}
	owes := o.gates[g.Group]
	if owes.first == 0 {
		owes.first = g.N
	}
	owes.Gate = g
	owes.failed(a.clock.now().Mono, a.spec.Timing.H)
	if o.gates == nil {
		o.gates = make(map[cluster.GroupID]owedGate)
	}
	o.gates[g.Group] = owes
	o.gateComplaint.failed(a.log, "the gate can't be written: it is tried again", "group", g.Group, "epoch", g.Epoch, "cause", err)
}

// mayRun tells whether the file has this node run a group.
func (a *agent) mayRun(id cluster.GroupID) bool {
	g := a.spec.Group(id)
	return g != nil && g.Prefers(a.self) >= 0
}

// writeRecord writes the run record, and returns what can be answered now; 0: nothing. What fails is owed.
func (a *agent) writeRecord(r *node.Record) uint64 {
	o := &a.owed
	if err := a.run.store(&r.Record); err != nil {
		o.record = r
		o.retry.failed(a.clock.now().Mono, a.spec.Timing.H)
		note(&a.faults.unwritten.record, err)
		o.recordComplaint.failed(a.log, "the run record can't be written: it is tried again, and nothing new is served meanwhile", "cause", err)
		return 0
	}
	o.record, o.retry = nil, retry{}
	note(&a.faults.unwritten.record, nil)
	o.recordComplaint.worked(a.log, "the run record can be written again")
	return r.N
}

// tryAgain writes what is owed, if it is time for that, and returns the answers that follow.
func (a *agent) tryAgain(now cluster.Instant) (answers []node.Input) {
	o := &a.owed
	for _, g := range o.gates {
		if now >= g.again {
			a.writeGate(g.Gate)
		}
	}
	if n := o.answer(); n != 0 {
		answers = append(answers, &node.Gated{N: n})
	}
	if o.record != nil && now >= o.retry.again {
		if n := a.writeRecord(o.record); n != 0 {
			answers = append(answers, &node.Recorded{N: n})
		}
	}
	return answers
}
