package resource

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// watchEnd waits for the end of the process, kills what it leaves behind, and tells of it if it is news.
func (p *process) watchEnd(r *run) {
	defer r.pidfd.Close()
	if awaitExit(r.pidfd) != nil {
		return // closed: the agent lets go
	}
	left := p.leftBy(r)
	// Before it is reaped: until then its process group's number is nobody else's.
	p.killAll(r)
	well, how := false, "ended; its status is not known, since a former run of the agent started it,"
	if r.child {
		var ws unix.WaitStatus
		if _, err := unix.Wait4(r.pid, &ws, 0, nil); err == nil {
			how, well = describe(ws), ws.Exited() && ws.ExitStatus() == 0
			if left > 0 && well {
				how = wentToBackground(left)
			}
		}
	}
	exit := fmt.Sprintf("%s after %s", how, ran(r.start))
	p.mu.Lock()
	told, from := r.stopping, p.state.From
	p.mu.Unlock()
	var around error
	if !told && !well && p.portTaken() != nil {
		around = p.portStillTaken()
	}
	if around != nil {
		exit += ": " + around.Error()
	} else if hint := p.endHint(well, from); hint != "" {
		exit += ": " + hint
	}
	if line := lastLine(Output(p.env), from); line != "" {
		exit += ", last output: " + line
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r.exit, r.around = exit, around != nil
	close(r.dead)
	r.stop()
	if r.ready && !r.stopping && p.life.Err() == nil {
		p.env.Changed(cluster.StatusFailed, exit, r.around)
	}
}

// watchHealth begins to ask a process that is ready whether it is well. It is called with mu held.
func (p *process) watchHealth(r *run) {
	if p.healthy == nil || r.stopping {
		return
	}
	ctx, quiet := context.WithCancel(r.ctx)
	r.quiet = quiet
	r.watching.Add(1)
	p.tasks.Go(func() {
		defer r.watching.Done()
		defer quiet()
		p.askHealth(ctx, r)
	})
}

func (p *process) askHealth(ctx context.Context, r *run) {
	ticker := time.NewTicker(p.healthy.interval)
	defer ticker.Stop()
	failures, unasked := 0, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := p.healthy.once(ctx, p.runCheck)
		p.mu.Lock()
		if ctx.Err() != nil || r.stopping {
			p.mu.Unlock()
			return
		}
		if around := couldNotAsk(err); around || unasked {
			// What can't be asked here says nothing against what runs.
			if around != unasked && r.ill == nil {
				note := ""
				if around {
					note = fmt.Sprintf("whether it is well can't be asked here: %v", err)
				}
				p.env.Changed(p.role(), note, false)
			}
			if unasked = around; around {
				p.mu.Unlock()
				continue
			}
		}
		switch {
		case err != nil:
			failures++
			p.unwell(r, err, failures)
		case r.ill != nil:
			failures = 0
			p.env.Changed(p.role(), fmt.Sprintf("well again after: %v", r.ill), false)
			r.ill = nil
		case failures > 0:
			failures = 0
			p.env.Changed(p.role(), "", false)
		}
		p.mu.Unlock()
	}
}

// role returns how a program that is up is. It is called with mu held.
func (p *process) role() cluster.Status {
	if p.state.Serving {
		return cluster.StatusRunning
	}
	return cluster.StatusStandby
}

// unwell tells of a health check that has failed so many times in a row. It is called with mu held.
func (p *process) unwell(r *run, err error, failures int) {
	u, _ := errors.AsType[unwell](err)
	switch {
	case failures == p.healthy.failures:
		r.ill = fmt.Errorf("%w, %d times in a row (limit %d)", err, failures, p.healthy.failures)
		if fromSurroundings(err) {
			p.env.Changed(cluster.StatusFailed, r.ill.Error(), true)
			return
		}
		p.env.Doubts(cluster.StatusFailed, r.ill.Error(), u.probe())
	case failures == 1 && r.ill == nil && !fromSurroundings(err):
		p.env.Doubts(p.role(), "", u.probe())
	}
}

// awaitReady returns when the start of the process is complete. If the context ends first, the process
// stays, and a later Start or Standby goes on waiting.
func (p *process) awaitReady(ctx context.Context, r *run) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.startTimeout, fmt.Errorf("limit %s", p.startTimeout))
	defer cancel()
	last := errors.New("not asked yet")
	for {
		asking, stop := context.WithCancel(ctx)
		undo := context.AfterFunc(r.ctx, stop) // its end ends the question
		var unready error
		p.mu.Lock()
		known := r.ready
		p.mu.Unlock()
		if !known && p.ready != nil {
			unready = p.ready.once(asking, p.runCheck)
		}
		undo()
		stop()
		if settled, err := p.settleReady(r, unready == nil); settled {
			return err
		}
		if deadline, _ := ctx.Deadline(); ctx.Err() == nil && time.Now().Before(deadline) {
			last = unready // of its own, not cut short by ours
		}
		select {
		case <-r.dead:
		case <-time.After(p.ready.interval):
		case <-ctx.Done():
			if cause := context.Cause(ctx); cause != ctx.Err() {
				return fmt.Errorf("not ready (%w): %w", cause, last)
			}
			return fmt.Errorf("not ready: %w: %w", ctx.Err(), last)
		}
	}
}

// settleReady notes that the process is ready, or finds that it has ended. From the moment that it is
// noted, the end is told by watchEnd: no end is told by both or by none.
func (p *process) settleReady(r *run, ready bool) (settled bool, err error) {
	p.mu.Lock()
	if r.ended() {
		p.mu.Unlock()
		if r.around {
			return true, lacking(errors.New(r.exit))
		}
		return true, errors.New(r.exit)
	}
	first := ready && !r.ready
	if first {
		r.ready = true
		p.watchHealth(r)
	}
	p.mu.Unlock()
	if first {
		err = p.note(func(s *state) { s.Ready = true })
	}
	return ready, err
}

// Stop implements Resource. It sends the stop signal to the process group; when the main program has ended,
// or stop_timeout or most of the context's time has passed, it kills all that is left, and returns nil when
// nothing is. If it is cancelled, the program goes on stopping, and Start, Standby and Stop wait for that.
func (p *process) Stop(ctx context.Context) error {
	r, err := p.find()
	if err != nil {
		return err
	}
	if r != nil {
		if err := p.finish(ctx, r); err != nil {
			return err
		}
	}
	return p.clear(ctx)
}

// stopBy returns the signal that stops the program and the time after which it is killed: those of the
// present description, or, where the program was started by another one that can't go on, that one's. It is
// called with mu held.
func (p *process) stopBy() (syscall.Signal, time.Duration) {
	if p.state.Command != p.hash && p.state.Signal != 0 {
		return syscall.Signal(p.state.Signal), p.state.Patience
	}
	return p.stopSignal, p.stopTimeout
}

// finish ends the main program.
func (p *process) finish(ctx context.Context, r *run) error {
	p.mu.Lock()
	signal, limit := p.stopBy()
	first := r.killAt.IsZero()
	r.stopping = true
	if first {
		r.killAt = time.Now().Add(limit)
	}
	killAt := r.killAt
	p.mu.Unlock()
	r.quiet()
	r.watching.Wait() // a health command runs in the cgroup; it is killed by now
	if first {
		if err := p.note(func(s *state) { s.Stopping = true }); err != nil {
			p.log.Warn("the stop is not noted", "cause", err)
		}
		unix.Kill(-r.pid, signal)
		unix.Kill(-r.pid, unix.SIGCONT) // a stopped one would not see it
	}
	if deadline, ok := ctx.Deadline(); ok {
		last := deadline.Add(-min(killMargin, max(0, time.Until(deadline)/2)))
		if last.Before(killAt) {
			killAt = last
		}
	}
	patience := time.NewTimer(time.Until(killAt))
	defer patience.Stop()
	select {
	case <-r.dead:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("process %d has not ended yet after %s: %w", r.pid, unix.SignalName(signal), ctx.Err())
	case <-patience.C:
	}
	p.log.Warn("did not stop, is killed", "pid", r.pid, "signal", unix.SignalName(signal), "limit", limit)
	p.killAll(r)
	select {
	case <-r.dead:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("process %d has not ended after SIGKILL: %w", r.pid, ctx.Err())
	}
}

// killAll kills the process and all that it started, as far as cgroup or process group reach.
func (p *process) killAll(r *run) {
	if err := p.group.kill(); err != nil {
		p.log.Warn("the cgroup is not killed", "cgroup", p.group.dir, "cause", err)
	}
	unix.Kill(-r.pid, unix.SIGKILL)
}

// clear makes sure that nothing runs any more, once the main program has ended, and notes it.
func (p *process) clear(ctx context.Context) error {
	some, err := p.group.populated()
	if err != nil {
		return fmt.Errorf("what is left of the program: %w", err)
	}
	if some {
		if err := p.group.kill(); err != nil {
			return fmt.Errorf("kill what is left of the program: %w", err)
		}
		if err := p.group.awaitEmpty(ctx); err != nil {
			return err
		}
	}
	if some || p.state.PID != 0 {
		defer p.group.remove() // also because none starts well in one that was killed: errKilled
	}
	if p.state.PID == 0 {
		return nil
	}
	if !p.state.Cgroup {
		if err := p.awaitGroupGone(ctx); err != nil {
			return err
		}
	}
	if err := WriteNote(p.roleFile(), []byte("\n"), 0o644, true); err != nil {
		return err
	}
	return p.note(func(s *state) { *s = state{Highest: s.Highest} })
}

// awaitGroupGone kills the program's process group until nothing is left of it. The kernel gives the number
// to no new process while the group has members, so if another process bears it, they are gone.
func (p *process) awaitGroupGone(ctx context.Context) error {
	for {
		s, err := readStat(p.state.PID)
		if err == nil && s.start != p.state.Start {
			return nil
		}
		if err := unix.Kill(-p.state.PID, unix.SIGKILL); errors.Is(err, unix.ESRCH) {
			return nil
		}
		// Zombies count as members until whoever inherited them reaps them, which may be never.
		if some, err := groupAlive(p.state.PID); err != nil || !some {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process group %d still has processes: %w", p.state.PID, ctx.Err())
		case <-time.After(escapedInterval):
		}
	}
}
