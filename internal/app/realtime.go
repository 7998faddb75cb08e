package app

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	realtimeBelow    = time.Second // budgets shorter than this ask for realtime priority
	realtimePriority = 40          // above ordinary realtime work, below the kernel's own threads
	schedOther       = 0           // SCHED_OTHER of sched(7)
	realtimeMark     = "BATON_REALTIME"
	oomScore         = "-900" // the agent is the last to be killed for memory; its children begin anew
)

// becomeRealtime gives every thread of the agent realtime priority: threads inherit it from the one that
// starts them, so it is set before the Go runtime starts any, by executing this program again. Where it
// is not allowed, the agent says so and goes on: a stall then costs time, never safety.
func becomeRealtime(takeover time.Duration, log *slog.Logger) {
	if takeover >= realtimeBelow || os.Getenv(realtimeMark) != "" {
		return
	}
	exe, err := os.Executable()
	if err != nil {
		log.Warn("no realtime priority", "cause", err)
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := setScheduler(unix.SCHED_FIFO, realtimePriority); err != nil {
		log.Warn("no realtime priority: a busy machine may delay a takeover", "cause", err)
		return
	}
	err = syscall.Exec(exe, os.Args, append(os.Environ(), realtimeMark+"=1"))
	log.Warn("no realtime priority", "cause", fmt.Errorf("execute %s again: %w", exe, err))
	_ = setScheduler(schedOther, 0)
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
		log.Warn("the kernel may kill the agent when memory runs out", "cause", err)
	}
}
