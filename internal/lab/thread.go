package lab

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Now reads the clock of all times in this package: CLOCK_MONOTONIC of the machine, which its hosts share.
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("CLOCK_MONOTONIC can't be read: " + err.Error()) // every Linux has it
	}
	return time.Duration(t.Nano())
}

// onOwnThread runs f on a thread that ends with it, so that f may change what belongs to threads, such
// as namespaces. Go starts new threads and other goroutines elsewhere.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread can't end, and stands for the whole process in /proc: keep it busy
			// and take another.
			err := onOwnThread(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f() // the goroutine ends locked, so the thread ends too
	}()
	return <-done
}

// beRealTime gives the calling thread a real-time priority; without the permission it changes nothing.
func beRealTime(priority uint32) bool {
	return unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: priority}, 0) == nil
}

// sleepUntil sleeps until Now is at least t. It does not tell Go's scheduler that it blocks, which
// would add that scheduler's delays to the kernel's: for programs with processors to spare only.
func sleepUntil(t time.Duration) {
	ts := unix.NsecToTimespec(int64(t))
	for Now() < t {
		clockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts)
	}
}
