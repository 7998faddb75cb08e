package app

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/disk"
)

const (
	persistsMax = 1024             // writes that wait for the disk; more means that it hangs, and the loop must not
	idleMax     = time.Second      // the loop looks around at least this often
	leaveLimit  = 20 * time.Second // for handing everything over at a clean stop
)

// slowWrite is how long a sync of the log may take before the log tells: it is on the takeover's path.
const slowWrite = 5 * time.Millisecond

// A write of the log that failed is tried again after writeAgain, and after twice as long each time, up to writeAgainMost:
// what is mended counts at once, and a disk that fails is not written to without end.
const (
	writeAgain     = 100 * time.Millisecond
	writeAgainMost = time.Second
)

// sweepEvery is how often the gate is put back where somebody took it off. New interfaces it sees by itself.
const sweepEvery = time.Second

// errBroken ends a run whose core found a rule broken that must always hold.
var errBroken = errors.New("a rule that must always hold was broken")

// loop drives the core: it alone touches it. One input at a time goes in, and what comes out is done
// before the next. It ends when the agent was told to leave: after everything served here was handed over,
// or at once where it runs on.
func (a *agent) loop(boot *node.Boot) (err error) {
	a.pace(realtime(a.spec.Timing))
	defer close(a.ended)
	defer func() {
		if r := recover(); r != nil {
			err = a.fail(r)
		}
	}()
	a.node = node.New(node.Config{Self: a.self, Spec: a.spec, Read: a.read})
	a.disk.Go(a.writeDisk)
	wake := a.step(boot)
	a.noteRevision()
	var inputs []node.Input
	var leaving *departure
	for {
		var calls []func(*node.Node)
		now := a.clock.now()
		inputs, calls = a.inbox.take(min(min(wake, a.owed.wake(), a.guardWake()).Sub(now.Mono), idleMax), inputs)
		for i, in := range inputs {
			before := a.spec
			wake = a.step(in)
			if a.spec != before {
				relink(inputs[i+1:], before.Links, a.spec.Links)
			}
		}
		for _, f := range calls {
			f(a.node)
		}
		if now = a.clock.now(); now.Mono >= wake {
			a.metrics.Woke(now.Mono.Sub(wake))
			wake = a.step(&node.Tick{})
		} else if a.clock.asleep {
			wake = a.step(&node.Tick{})
		}
		for _, in := range a.tryAgain(now.Mono) {
			wake = a.step(in)
		}
		if a.quit != nil {
			return a.quit
		}
		a.publishNews()
		a.refreshGates(now.Mono)
		a.guardAgain(now.Mono)
		a.manager.turns.Add(1)
		if a.hasLeft(now.Mono) {
			return a.farewell()
		}
		switch {
		case a.leave == letRun:
			a.log.Info("ending for a restart: what runs here runs on")
			return nil
		case a.leave == handOver && leaving == nil:
			leaving = a.depart(now.Mono)
			wake = min(wake, now.Mono)
		}
		if leaving != nil && a.departed(leaving) {
			return nil
		}
	}
}

// step gives the core one input, and does what comes out. Answers that are known at once go in next. A suspend goes
// first: what has arrived since must not meet a core that does not know of it.
func (a *agent) step(in node.Input) (wake cluster.Instant) {
	for in != nil {
		now := a.clock.now()
		if a.quit != nil {
			return now.Mono
		}
		if _, boot := in.(*node.Boot); !boot && a.clock.slept() {
			answer, _ := a.give(now, &node.Suspended{})
			if answer != nil {
				a.inbox.put(answer)
			}
			continue
		}
		in, wake = a.give(now, in)
	}
	return wake
}

// give has the core take one step. It returns the answer that is to go in next; nil: none is known yet.
func (a *agent) give(now cluster.Now, in node.Input) (answer node.Input, wake cluster.Instant) {
	if s, ok := in.(surroundings); ok {
		in = s.told(a.spec)
	}
	out := a.node.Step(now, in)
	a.views.stepped(out)
	if _, boot := in.(*node.Boot); boot && out.Spec == nil {
		a.fits(a.node.Revision()) // the agent was opened by it
	}
	if out.Spec != nil {
		if a.quit = a.reconfigure(out.Spec); a.quit != nil {
			return nil, now.Mono
		}
		a.fits(out.Revision)
	}
	if out.Ask != nil {
		a.others.Store(out.Ask)
		a.askAnew()
	}
	if out.Left && a.leftAt == 0 {
		a.left(now.Mono, fail(exitLeft, wayBack(string(a.self), a.opt.DataDir), "%s has left the cluster: it serves and votes no longer", a.self))
	}
	if out.SetBack && a.leftAt == 0 {
		a.setBack = true
		a.left(now.Mono, fail(exitFailed, "its unit starts the agent again, and it is let in anew; without one, start it by hand",
			"the data directory of %s was set back to a former state, as others remember: it is put aside", a.self))
	}
	if out.Halted != "" && a.leftAt == 0 {
		a.left(now.Mono, fail(exitFailed, "bring baton on "+string(a.self)+" up to the version of the others, and start it again: its data directory stays as it is",
			"%s takes no part any more: %s", a.self, out.Halted))
	}
	a.access.noteTokens(a.node.Tokens())
	gated, recorded := a.writeGates(out.Gates), uint64(0)
	if out.Record != nil {
		recorded = a.writeRecord(out.Record)
	}
	a.carryOut(out)
	switch {
	case gated != 0:
		if recorded != 0 {
			a.inbox.put(&node.Recorded{N: recorded})
		}
		return &node.Gated{N: gated}, out.WakeAt
	case recorded != 0:
		return &node.Recorded{N: recorded}, out.WakeAt
	}
	return nil, out.WakeAt
}

// carryOut does what a step asks for beside gate and run record.
func (a *agent) carryOut(out *node.Output) {
	for i := range out.Sends {
		if err := a.links.Send(out.Sends[i].To, out.Sends[i].Msg); err != nil {
			a.unsent.failed(a.log, "a message can't be sent", "to", out.Sends[i].To, "cause", err)
		}
	}
	for _, p := range out.Persists {
		p.Entries = slices.Clone(p.Entries)
		select {
		case a.persists <- p:
		default:
			panic(fmt.Sprintf("the disk owes %d writes", persistsMax))
		}
	}
	for _, w := range out.Wants {
		if s := a.slots[place{w.Group, w.Resource}]; s != nil {
			s.Want(w)
		}
	}
	if len(out.Replies) > 0 {
		a.publish() // who has an answer sees what it has brought about
	}
	for _, r := range out.Replies {
		if c := a.replies[r.ID]; c != nil {
			c <- r // it has room for its one answer
			delete(a.replies, r.ID)
		}
	}
	if len(out.Applied) > 0 || out.Spec != nil {
		a.noteRevision()
	}
	a.tell(out)
}

// refreshGates translates open deadlines anew each heartbeat interval: that follows a clock being slewed.
func (a *agent) refreshGates(now cluster.Instant) {
	if now < a.gatesAt {
		return
	}
	a.gatesAt = now.Add(a.spec.Timing.H)
	a.gate.Look()
	for i := range a.spec.Groups {
		if g, ok := a.gates[a.spec.Groups[i].ID]; ok && g.End > now {
			a.writeGate(g)
		}
	}
}

// writeDisk carries writes out in order. One that fails is tried again until it succeeds, so that a full disk, one that
// failed for a while or a directory that was deleted needs no restart. Meanwhile nothing is answered, so the core finds
// this node sick.
func (a *agent) writeDisk() {
	broken := false
	for p := range a.persists {
		if broken {
			continue
		}
		took, err := a.writeAtLast(p)
		if err != nil {
			a.log.Error("the log can't be written: this node takes no part in decisions until it is restarted", "cause", err)
			broken = true
			continue
		}
		if p.Sync {
			a.metrics.Synced(took)
			if took > slowWrite { // each one: the benchmark judges by them
				a.log.Warn("a sync was slow", "took", took)
			}
			a.inbox.put(&node.Observed{SyncNanos: took.Nanoseconds()})
		}
		a.inbox.put(&node.Stored{N: p.N})
	}
}

// writeAtLast carries a write out, however often that takes, until the loop has ended. It returns how long the write
// itself took: elections pace themselves by that.
func (a *agent) writeAtLast(p cluster.Persist) (took time.Duration, err error) {
	var c complaint
	for wait := writeAgain; ; wait = min(2*wait, writeAgainMost) {
		start := time.Now()
		err = a.store.Write(p)
		note(&a.faults.unwritten.log, err)
		switch {
		case err == nil:
			c.worked(a.log, "the log can be written again")
			return time.Since(start), nil
		case a.store.Dead():
			return 0, err
		case errors.Is(err, disk.ErrNoRoom):
			wait = writeAgain
		}
		c.failed(a.log, "the log can't be written: this node takes no part in decisions until it can; it is tried again", "cause", err)
		select {
		case <-a.ended:
			return 0, err
		case <-time.After(wait):
		}
	}
}

// storeTold takes what the store tells beside its answers.
func (a *agent) storeTold(text string, err error) {
	if err == nil {
		a.log.Info(text)
		return
	}
	a.log.Warn(text, "in", a.opt.DataDir, "cause", err)
	if r, kept := a.file.newest(); r != 0 {
		a.file.adopted(r, kept) // former revisions stood beside the log, and may be gone with it
	}
}

// fail handles a broken rule: nothing new is started, the lease runs out by itself, and the supervisor
// restarts the agent. It never guesses on.
func (a *agent) fail(r any) error {
	a.manager.quiet.Store(true)
	a.log.Error("internal error: this node gives up its lease and restarts", "cause", r, "stack", string(debug.Stack()))
	time.Sleep(a.spec.Timing.Promised(a.spec.Timing.L))
	return fmt.Errorf("%w: %v", errBroken, r)
}

// departure is a clean stop under way: everything served here is moved on purpose.
type departure struct {
	deadline time.Time
	waiting  []chan node.Reply
}

// depart asks for a switchover of every group owned here.
func (a *agent) depart(now cluster.Instant) *departure {
	d := &departure{deadline: time.Now().Add(leaveLimit)}
	limit := leaveLimit + stopMargin
	for _, g := range a.spec.Groups {
		for _, r := range g.Resources {
			limit += r.StopTimeout
		}
	}
	a.manager.stopping(limit)
	o := a.node.Overview(cluster.Now{Mono: now, Wall: cluster.WallTime(time.Now().UnixNano())})
	for i := range o.Groups {
		if o.Groups[i].Owner != a.self {
			continue
		}
		d.waiting = append(d.waiting, a.command(&node.Command{Op: node.OpSwitch, Group: o.Groups[i].ID, By: "stop of " + string(a.self)}))
	}
	return d
}

// departed tells whether the departure has ended. What could not be handed over is stopped here.
func (a *agent) departed(d *departure) bool {
	d.waiting = slices.DeleteFunc(d.waiting, func(c chan node.Reply) bool {
		select {
		case r := <-c:
			a.log.Info("stopping: "+r.Text, "done", r.Done)
			return true
		default:
			return false
		}
	})
	if len(d.waiting) > 0 && time.Now().Before(d.deadline) {
		return false
	}
	a.stopAll()
	return true
}

// stopAll closes every gate and stops every resource, in reverse order.
func (a *agent) stopAll() {
	for _, g := range a.spec.Groups {
		if open, ok := a.gates[g.ID]; ok && open.End != 0 {
			a.writeGate(cluster.Gate{Group: g.ID, Epoch: open.Epoch})
		}
		for _, r := range slices.Backward(g.Resources) {
			if s := a.slots[place{g.ID, r.ID}]; s != nil {
				s.Want(cluster.Want{N: ^uint64(0), Group: g.ID, Resource: r.ID, Target: cluster.TargetStopped, Deadline: r.StopTimeout})
				a.awaitStop(g.ID, r)
			}
		}
	}
}

// awaitStop waits for the answer to the last Want of a resource.
func (a *agent) awaitStop(g cluster.GroupID, r cluster.ResourceSpec) {
	deadline := time.Now().Add(r.StopTimeout + time.Second)
	var inputs []node.Input
	for time.Now().Before(deadline) {
		inputs, _ = a.inbox.take(time.Until(deadline), inputs)
		for _, in := range inputs {
			if d, ok := in.(*node.Done); ok && d.Group == g && d.Resource == r.ID && d.N == ^uint64(0) {
				if d.Status != cluster.StatusStopped {
					a.log.Error("not known to be stopped", "group", g, "resource", r.ID, "cause", d.Reason)
				}
				return
			}
		}
	}
	a.log.Error("did not stop in time", "group", g, "resource", r.ID, "limit", r.StopTimeout)
}

// sweepGate puts the gate's hooks back where someone else removed them.
func (a *agent) sweepGate(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var c complaint
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := a.gate.Sweep(); err != nil {
				c.failed(a.log, "the gate is not whole", "cause", err)
				continue
			}
			c.worked(a.log, "the gate is whole again")
		}
	}
}
