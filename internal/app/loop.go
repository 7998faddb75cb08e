package app

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/addr"
	"baton/internal/io/gate"
)

const (
	persistsMax = 1024             // writes that wait for the disk; more means that it hangs, and the loop must not
	idleMax     = time.Second      // the loop looks around at least this often
	leaveLimit  = 20 * time.Second // for handing everything over at a clean stop
)

// slowWrite is how long a sync of the log may take before the log tells: it is on the takeover's path.
const slowWrite = 5 * time.Millisecond

// sweepEvery is how often the gate is put back where somebody took it off. New interfaces it sees by itself.
const sweepEvery = time.Second

// errBroken ends a run whose core found a rule broken that must always hold.
var errBroken = errors.New("a rule that must always hold was broken")

// loop drives the core: it alone touches it. One input at a time goes in, and what comes out is done
// before the next. It ends when the context does, after everything served here was handed over.
func (a *agent) loop(ctx context.Context, boot *node.Boot) (err error) {
	if realtime(a.spec.Timing) {
		runtime.LockOSThread() // and never unlocked: a thread with realtime priority ends with its loop
		raiseThread(a.log)
	}
	defer close(a.ended)
	defer func() {
		if r := recover(); r != nil {
			err = a.fail(r)
		}
	}()
	a.node = node.New(node.Config{Self: a.self, Spec: a.spec})
	a.disk.Go(a.writeDisk)
	wake := a.step(boot)
	var inputs []node.Input
	leave := (<-chan struct{})(ctx.Done())
	var leaving *departure
	for {
		var calls []func(*node.Node)
		now := a.clock.now()
		inputs, calls = a.inbox.take(min(wake.Sub(now.Mono), idleMax), inputs)
		for _, in := range inputs {
			wake = a.step(in)
		}
		for _, f := range calls {
			f(a.node)
		}
		if now = a.clock.now(); now.Mono >= wake {
			a.metrics.Woke(now.Mono.Sub(wake))
			wake = a.step(&node.Tick{})
		}
		a.refreshGates(now.Mono)
		select {
		case <-leave:
			leave = nil
			leaving = a.depart(now.Mono)
			wake = min(wake, now.Mono)
		default:
		}
		if leaving != nil && a.departed(leaving) {
			return nil
		}
	}
}

// step gives the core one input, and does what comes out. Answers that are known at once go in next.
func (a *agent) step(in node.Input) cluster.Instant {
	for {
		now := a.clock.now()
		out := a.node.Step(now, in)
		var gated, recorded uint64
		for _, g := range out.Gates {
			if a.writeGate(g) {
				gated = g.N
			}
		}
		if out.Record != nil {
			if err := a.run.store(&out.Record.Record); err != nil {
				a.log.Error("the run record can't be written: nothing new is served", "cause", err)
			} else {
				recorded = out.Record.N
			}
		}
		a.carryOut(out)
		switch {
		case gated != 0:
			in = &node.Gated{N: gated}
			if recorded != 0 {
				a.inbox.put(&node.Recorded{N: recorded})
			}
		case recorded != 0:
			in = &node.Recorded{N: recorded}
		default:
			return out.WakeAt
		}
	}
}

// carryOut does what a step asks for beside gate and run record.
func (a *agent) carryOut(out *node.Output) {
	for i := range out.Sends {
		if err := a.links.Send(out.Sends[i].To, out.Sends[i].Msg); err != nil {
			a.log.Error("a message can't be sent", "to", out.Sends[i].To, "cause", err)
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
		if x := a.workers[w.Group][w.Resource]; x != nil {
			x.Want(w)
		}
	}
	for _, r := range out.Replies {
		if c := a.replies[r.ID]; c != nil {
			c <- r // it has room for its one answer
			delete(a.replies, r.ID)
		}
	}
	a.tell(out)
}

// writeGate stores a deadline in the kernel. It reports whether the kernel has it.
func (a *agent) writeGate(g cluster.Gate) bool {
	err := a.gate.Set(g.Group, g.Epoch, a.clock.boottime(g.End))
	if errors.Is(err, gate.ErrStaleEpoch) && g.End == 0 {
		err = nil // a newer epoch of this node's own has the gate: the old one is shut
	}
	a.metrics.GateWritten(err)
	if err != nil {
		a.log.Error("the gate can't be written", "group", g.Group, "epoch", g.Epoch, "cause", err)
		delete(a.gates, g.Group)
		return false
	}
	a.gates[g.Group] = g
	return true
}

// refreshGates translates open deadlines anew each heartbeat interval: that follows a clock being slewed.
func (a *agent) refreshGates(now cluster.Instant) {
	if now < a.gatesAt {
		return
	}
	a.gatesAt = now.Add(a.spec.Timing.H)
	for i := range a.spec.Groups {
		if g, ok := a.gates[a.spec.Groups[i].ID]; ok && g.End > now {
			a.writeGate(g)
		}
	}
}

// writeDisk carries writes out in order. After a failed one the disk is not trusted any more: nothing is
// answered, so the core finds this node sick.
func (a *agent) writeDisk() {
	broken := false
	for p := range a.persists {
		if broken {
			continue
		}
		start := time.Now()
		if err := a.store.Write(p); err != nil {
			a.log.Error("the log can't be written: this node takes no part in decisions until it is restarted", "cause", err)
			broken = true
			continue
		}
		if took := time.Since(start); p.Sync {
			a.metrics.Synced(took)
			if took > slowWrite {
				a.log.Warn("a sync was slow", "took", took)
			}
			a.inbox.put(&node.Observed{SyncNanos: took.Nanoseconds()})
		}
		a.inbox.put(&node.Stored{N: p.N})
	}
}

// fail handles a broken rule: nothing new is started, the lease runs out by itself, and the supervisor
// restarts the agent. It never guesses on.
func (a *agent) fail(r any) error {
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
			if w := a.workers[g.ID][r.ID]; w != nil {
				w.Want(cluster.Want{N: ^uint64(0), Group: g.ID, Resource: r.ID, Target: cluster.TargetStopped, Deadline: r.StopTimeout})
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
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := a.gate.Sweep(); err != nil {
				a.log.Error("the gate is not whole", "cause", err)
			}
		}
	}
}

// watchLinks tells the core of interfaces that lose or regain their carrier.
func (a *agent) watchLinks(ctx context.Context) {
	states := make(map[string]bool)
	err := addr.WatchLinks(ctx, func(s addr.LinkState) {
		states[s.Name] = s.Up && s.Carrier
		a.inbox.put(a.surroundings(states))
	})
	if err != nil {
		a.log.Error("interfaces are no longer watched", "cause", err)
	}
}

// surroundings works out which groups' uplinks and which links are gone.
func (a *agent) surroundings(up map[string]bool) *node.Observed {
	o := &node.Observed{LinkDown: make([]bool, len(a.spec.Links))}
	down := func(name string) bool {
		ok, known := up[name]
		return known && !ok
	}
	for _, g := range a.spec.Groups {
		if g.Prefers(a.self) < 0 {
			continue
		}
		for _, r := range g.Resources {
			if name := a.uplink(&r); name != "" && down(name) && !slices.Contains(o.Cut, g.ID) {
				o.Cut = append(o.Cut, g.ID)
			}
		}
	}
	for i, l := range a.spec.Links {
		if l.UDP == nil {
			continue
		}
		if name, err := addr.InterfaceFor(l.UDP.Addresses[a.self]); err == nil {
			o.LinkDown[i] = down(name)
		}
	}
	return o
}

// uplink names the interface that a front's addresses are reached by; empty: unknown.
func (a *agent) uplink(r *cluster.ResourceSpec) string {
	if !r.Front {
		return ""
	}
	if name, ok := r.Fields["interface"].(string); ok && name != "" {
		return name
	}
	for _, ip := range r.Addresses {
		if name, err := addr.InterfaceFor(ip); err == nil {
			return name
		}
	}
	return ""
}
