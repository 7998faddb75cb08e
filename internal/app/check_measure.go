package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/io/nowait"
)

// measured is what this host was seen to do.
type measured struct {
	stall time.Duration // the latest wake-up
	sync  time.Duration // median
}

// measure looks for stalls and times syncs; one after the other, since a sync's interrupt is a stall.
func measure(u *checkup, long time.Duration, data string) measured {
	var m measured
	stall, realtime, err := worstStall(long)
	switch {
	case err != nil:
		u.add("stalls", warning, "", "not measured: %v", err)
	case realtime:
		u.add("realtime", pass, "", "the agent may have realtime priority")
	default:
		u.add("realtime", warning, "LimitRTPRIO=50 in the unit, or root", "no realtime priority is allowed: a busy machine delays the agent, and with it a takeover")
	}
	if err == nil {
		m.stall = stall
		u.add("stalls", pass, "", "worst wake-up %v late in %v (a longer look sees more: --measure 1m)", stall.Round(10*time.Microsecond), long)
	}
	at := existing(data)
	syncs, err := syncTimes(at)
	if err != nil {
		u.add("disk", bad, syncHint(err), "time a sync in %s: %v", at, err)
		return m
	}
	m.sync = syncs[len(syncs)/2]
	worst := syncs[len(syncs)-1]
	v, hint := pass, ""
	if worst > slowSync {
		v, hint = warning, "leases do not wait for the disk, but elections and commits do: a disk of its own helps"
	}
	u.add("disk", v, hint, "a sync in %s takes %v, at worst %v of %d", at, m.sync.Round(10*time.Microsecond), worst.Round(10*time.Microsecond), len(syncs))
	return m
}

// syncHint says what to do where a sync could not be timed.
func syncHint(err error) string {
	switch {
	case noRoom(err):
		return "make room there"
	case errors.Is(err, fs.ErrPermission):
		return "run as root, or name the data directory with --data"
	}
	return "look at that disk, or name the data directory with --data"
}

const (
	stallStep    = time.Millisecond
	stallMost    = 10 * time.Minute
	slowSync     = 100 * time.Millisecond
	syncSamples  = 15
	sampleBytes  = 4096
	takeoverStep = time.Millisecond
)

// worstStall returns how late the latest wake-up came of one thread per processor that sleeps for a
// millisecond again and again, and whether they had realtime priority.
func worstStall(long time.Duration) (worst time.Duration, realtime bool, err error) {
	if long <= 0 || long > stallMost {
		return 0, false, fmt.Errorf("looking for stalls for %v, outside 0 to %v", long, stallMost)
	}
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return 0, false, fmt.Errorf("read the processors allowed: %w", err)
	}
	var mu sync.Mutex
	var threads sync.WaitGroup
	realtime = true
	for cpu, left := 0, allowed.Count(); left > 0; cpu++ {
		if !allowed.IsSet(cpu) {
			continue
		}
		left--
		threads.Go(func() {
			runtime.LockOSThread() // never unlocked: a thread with another priority ends with its goroutine
			var one unix.CPUSet
			one.Set(cpu)
			pinned := unix.SchedSetaffinity(0, &one) == nil
			high := setScheduler(unix.SCHED_FIFO, realtimePriority) == nil
			late := sleepless(long)
			mu.Lock()
			defer mu.Unlock()
			if pinned {
				worst = max(worst, late)
			}
			realtime = realtime && high
		})
	}
	threads.Wait()
	return worst, realtime, nil
}

// sleepless sleeps in short steps and returns by how much the latest wake-up was late.
func sleepless(long time.Duration) (worst time.Duration) {
	end := nowait.Clock(unix.CLOCK_MONOTONIC) + int64(long)
	for {
		due := nowait.Clock(unix.CLOCK_MONOTONIC) + int64(stallStep)
		if due > end {
			return worst
		}
		ts := unix.NsecToTimespec(due)
		for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil) == unix.EINTR {
			// Absolute: the rest is slept.
		}
		worst = max(worst, time.Duration(nowait.Clock(unix.CLOCK_MONOTONIC)-due))
	}
}

// existing returns the directory, or the nearest above it that is there: it will lie on the same disk.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// syncTimes writes and syncs a file of its own a few times and returns how long each took, ascending.
func syncTimes(dir string) (times []time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".baton-check-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, sampleBytes)
	for range syncSamples {
		begin := time.Now()
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return nil, err
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	return times, nil
}

// checkBudget compares what the file asks for with what was measured.
func checkBudget(u *checkup, spec *cluster.Spec, m measured) {
	stall, sync := max(m.stall, config.DefaultStall), max(m.sync, config.DefaultSync)
	least, found := leastTakeover(stall, sync, config.DefaultRTT)
	if found {
		u.Least = least.String()
	}
	t, bounds, err := config.Derive(spec.Timing.Takeover, stall, sync, config.DefaultRTT)
	if err != nil {
		u.add("takeover", bad, "ask for a longer takeover, or find what stalls this machine", "%v", err)
		return
	}
	u.add("takeover", pass, "", "%v can be kept with stalls of %v and syncs of %v: lease %v, heartbeat %v", t.Takeover,
		stall.Round(10*time.Microsecond), sync.Round(10*time.Microsecond), t.L, t.H)
	if linksThatJoin(spec) < 2 {
		bounds = bounds.OneLink()
	}
	for _, b := range bounds {
		u.Bounds = append(u.Bounds, bound{b.Fault, b.Worst.Round(time.Millisecond / 10).String(), b.Why})
	}
}

// linksThatJoin is how many links join nodes.
func linksThatJoin(spec *cluster.Spec) (n int) {
	for _, l := range spec.Links {
		if l.UDP != nil && len(l.UDP.Addresses) > 1 {
			n++
		}
	}
	return n
}

// leastTakeover returns the shortest takeover, in whole milliseconds, that could be asked for.
func leastTakeover(stall, sync, rtt time.Duration) (time.Duration, bool) {
	steps := int((config.MaxTakeover - config.MinTakeover) / takeoverStep)
	at := func(i int) time.Duration { return config.MinTakeover + time.Duration(i)*takeoverStep }
	low, high := 0, steps
	for low < high {
		mid := (low + high) / 2
		if _, _, err := config.Derive(at(mid), stall, sync, rtt); err == nil {
			high = mid
		} else {
			low = mid + 1
		}
	}
	_, _, err := config.Derive(at(low), stall, sync, rtt)
	return at(low), err == nil
}
