package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

const (
	realtimeBelow    = time.Second            // budgets shorter than this ask for realtime priority
	realtimePriority = 40                     // above ordinary realtime work, below the kernel's own threads
	helpersNice      = -20                    // of the agent's other threads, which the loop may wait for
	slice            = 100 * time.Microsecond // the shortest that the kernel takes
	resetOnFork      = 0x40000000             // SCHED_RESET_ON_FORK of sched(7): threads and programs it starts begin as usual
	oomScore         = "-900"                 // the agent is the last to be killed for memory; its children begin anew
)

// realtime tells whether the takeover asked for is so short that the loop needs a thread of its own with
// realtime priority.
func realtime(t cluster.Timing) bool { return t.Takeover < realtimeBelow }

// raiseThread gives the calling thread, the loop's, realtime priority; the others only a better nice value.
// Were all of them realtime, two that wait for each other on one processor could do so for ever: equal
// priorities don't share it, and Go's runtime counts on being scheduled. Where it is not allowed, the agent
// says so and goes on: a stall then costs time, never safety.
func raiseThread(log *slog.Logger) {
	renice(helpersNice)
	if err := setScheduler(unix.SCHED_FIFO|resetOnFork, realtimePriority); err != nil {
		log.Warn("no realtime priority: a busy machine may delay a takeover", "cause", err)
	}
}

// pace gives the loop, which calls it, a thread of its own with realtime priority and the way to wait that fits
// it, or takes both away.
func (a *agent) pace(realtime bool) {
	if err := a.inbox.block(realtime); err != nil {
		a.log.Error("the loop goes on waiting as before", "cause", err)
	}
	if realtime == a.raised {
		return
	}
	a.raised = realtime
	if realtime {
		runtime.LockOSThread() // if it is never unlocked, the thread ends with its loop
		a.nice = niceness()
		raiseThread(a.log)
		return
	}
	if err := setScheduler(unix.SCHED_NORMAL|resetOnFork, 0); err != nil {
		a.log.Warn("the loop keeps its realtime priority", "cause", err)
		return // on a thread of its own
	}
	renice(a.nice)
	runtime.UnlockOSThread()
}

// niceness returns the process's nice value. The system call returns 20 minus it (getpriority(2), "C library/
// kernel differences").
func niceness() int {
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return 0
	}
	return 20 - raw
}

// shortSlices has every thread of this process, and those that they start, run for short slices of time: they are
// scheduled sooner when they wake, and who else wakes need not wait until they are done, which an agent that starts
// would let the service feel. Linux before 6.12 has no such wish, and ignores it. A scheduling class that somebody
// chose for the agent stays.
func shortSlices() {
	for _, id := range threads() {
		attr, err := unix.SchedGetAttr(id, 0)
		if err != nil || attr.Policy != unix.SCHED_NORMAL {
			continue
		}
		attr.Size, attr.Runtime = unix.SizeofSchedAttr, uint64(slice)
		_ = unix.SchedSetAttr(id, attr, 0)
	}
}

// renice gives every thread of this process a nice value. Where that is not allowed, nothing changes.
func renice(nice int) {
	for _, id := range threads() {
		_ = unix.Setpriority(unix.PRIO_PROCESS, id, nice)
	}
}

// threads returns the threads of this process.
func threads() (ids []int) {
	tasks, _ := filepath.Glob("/proc/self/task/*")
	for _, t := range tasks {
		if id, err := strconv.Atoi(filepath.Base(t)); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// setScheduler changes the calling thread (sched_setscheduler(2)).
func setScheduler(policy, priority int) error {
	param := struct{ priority int32 }{int32(priority)}
	if _, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, uintptr(policy), uintptr(unsafe.Pointer(&param))); errno != 0 {
		return errno
	}
	return nil
}

// lockMemory keeps pages that were touched once from being swapped or dropped. MCL_ONFAULT keeps a small
// program small: without it every mapping is filled at once.
func lockMemory(log *slog.Logger) {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Warn("memory is not locked: reclaim may delay a takeover", "cause", err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(oomScore), 0); err != nil {
		log.Info("the kernel may kill the agent when memory runs out", "cause", err)
	}
}
