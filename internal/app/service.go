package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"baton/internal/core/node"
	"baton/internal/io/bounded"
)

// leave is what the agent does with what runs here when it ends.
type leave int

const (
	stay     leave = iota
	handOver       // everything moves to other nodes first, and what can't is stopped: a stop, a shutdown
	letRun         // everything runs on and is adopted by the agent that follows: a restart, an upgrade
)

const (
	managerAnswers = 2 * time.Second // systemd tells its jobs in milliseconds; who waits longer hands over
	notifyLimit    = time.Second     // for one message to systemd
	stopMargin     = 5 * time.Second // for what comes after the last resource's stop
	failedStart    = 2 * time.Second // the least that a start takes which fails, where somebody tries again at once
)

// pace delays the end of an agent that failed soon after its start: its unit starts it again without a delay,
// since one that has run is missed.
func pace(ctx context.Context, began time.Time) {
	select {
	case <-ctx.Done():
	case <-time.After(failedStart - time.Since(began)):
	}
}

// awaitLeave waits until the agent is told to end, finds out what that means, and tells the loop.
//
// SIGHUP is a restart. SIGTERM is one only where systemd says that it starts the agent again; where nobody
// can be asked, it is a stop: moving needlessly costs milliseconds, not moving may cost a takeover.
func (a *agent) awaitLeave(ctx context.Context) {
	hangup := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup(1) asks for
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
	}
	how := handOver
	select {
	case <-a.ended:
		return
	case <-hangup:
		how = letRun
	case <-ctx.Done():
		if restarting(a.log) {
			how = letRun
		}
	}
	a.inbox.call(func(*node.Node) { a.leave = how }, a.ended)
}

// restarting asks systemd whether the agent's own unit is to be started again. During a shutdown, and when
// systemd stops a unit because of another, the job is a stop.
func restarting(log *slog.Logger) bool {
	text, err := bounded.ReadFile("/proc/self/cgroup", bounded.Small)
	if err != nil {
		log.Warn("it is not known whether this is a restart: taken for a stop", "cause", err)
		return false
	}
	unit := unitOf(string(text))
	if unit == "" {
		return false // nobody but systemd tells
	}
	ctx, cancel := context.WithTimeout(context.Background(), managerAnswers)
	defer cancel()
	jobs, err := bounded.Output(exec.CommandContext(ctx, "systemctl", "list-jobs", "--no-legend", "--plain", unit), bounded.Answer)
	if err != nil {
		log.Warn("systemd does not say whether this is a restart: taken for a stop", "unit", unit, "cause", err)
		return false
	}
	return jobOf(string(jobs), unit) == "restart"
}

// unitOf finds the service that a process belongs to in the text of its /proc/PID/cgroup (cgroups(7)), by
// the hierarchy that systemd keeps: version 2, or the one named after it. Empty: it belongs to none.
func unitOf(text string) string {
	for line := range strings.Lines(text) {
		hierarchy, dir, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, dir, _ := strings.Cut(dir, ":")
		if (hierarchy == "0" || controllers == "name=systemd") && path.Ext(dir) == ".service" {
			return path.Base(dir)
		}
	}
	return ""
}

// jobOf finds the type of a unit's job in what `systemctl list-jobs` prints: number, unit, type, state.
func jobOf(jobs, unit string) string {
	for line := range strings.Lines(jobs) {
		if f := strings.Fields(line); len(f) >= 3 && f[1] == unit {
			return f[2]
		}
	}
	return ""
}

// supervisor is who is told how the agent is doing: systemd, by the protocol of sd_notify(3).
type supervisor struct {
	socket string
	within time.Duration // a sign of life is due this often (WatchdogSec=); 0: none is
	log    *slog.Logger

	turns  atomic.Uint64      // of the loop
	quiet  atomic.Bool        // the loop is busy on purpose, for longer than a sign of life may take
	ending chan time.Duration // the agent ends, and that may take so long
}

// findSupervisor reads what systemd has put into the environment, and removes it: it is not for programs
// that the agent starts.
func findSupervisor(log *slog.Logger) *supervisor {
	s := &supervisor{socket: os.Getenv("NOTIFY_SOCKET"), log: log, ending: make(chan time.Duration, 1)}
	micros, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err == nil && os.Getenv("WATCHDOG_PID") == strconv.Itoa(os.Getpid()) {
		s.within = time.Duration(micros) * time.Microsecond
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name) // it fails for malformed names only
	}
	return s
}

// tell sends one message. It is never called by the loop: systemd may be slow to take it.
func (s *supervisor) tell(lines ...string) {
	if s.socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.socket, Net: "unixgram"})
	if err == nil {
		defer conn.Close()
		_ = conn.SetWriteDeadline(time.Now().Add(notifyLimit)) // a socket that is open takes one
		_, err = conn.Write([]byte(strings.Join(lines, "\n")))
	}
	if err != nil {
		s.log.Warn("systemd can't be told", "what", lines[0], "cause", err)
	}
}

// accompany tells that the agent is ready, from then on that its loop turns, and at last that it ends. If
// the loop hangs, systemd kills the agent and starts it again, which adopts what runs.
func (s *supervisor) accompany(ctx context.Context) {
	if s.socket == "" {
		return
	}
	s.tell("READY=1")
	var due <-chan time.Time
	if s.within > 0 {
		tick := time.NewTicker(s.within / 3)
		defer tick.Stop()
		due = tick.C
	}
	for seen := uint64(0); ; {
		select {
		case <-ctx.Done():
			return
		case limit := <-s.ending:
			s.tell("STOPPING=1", fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", limit.Microseconds()))
		case <-due:
			if now := s.turns.Load(); now != seen || s.quiet.Load() {
				seen = now
				s.tell("WATCHDOG=1")
			}
		}
	}
}

// stopping says that the agent ends, and how long that may take from now on. It may be called once.
func (s *supervisor) stopping(limit time.Duration) {
	s.quiet.Store(true)
	s.ending <- limit
}
