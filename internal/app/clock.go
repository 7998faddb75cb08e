package app

import (
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/io/nowait"
)

// clock reads this node's own clock (protocol.md, "Clocks"): CLOCK_MONOTONIC_RAW plus the time suspended.
// No time daemon bends it, and it goes on through suspend. It belongs to one goroutine.
type clock struct {
	suspended int64 // CLOCK_BOOTTIME minus CLOCK_MONOTONIC, never more than that; it never shrinks
	last      int64
	boot      int64 // CLOCK_BOOTTIME of the last reading that counts, between two of the others; 0: none has yet
	raw       int64 // and the own clock then
	asleep    bool  // the machine was suspended, and nobody has asked since

	read func() reading // nil: the kernel's clocks
}

// reading is what the kernel's clocks said, one after the other.
type reading struct {
	before int64 // CLOCK_MONOTONIC
	raw    int64 // CLOCK_MONOTONIC_RAW
	boot   int64 // CLOCK_BOOTTIME
	after  int64 // CLOCK_MONOTONIC
}

const (
	// bracket is the most that two readings of a clock may be apart for the one between them to count.
	bracket = 100 * time.Microsecond
	// brackets bounds the attempts to read the clocks undisturbed.
	brackets = 16
	// translationKept is how long a translation goes on where no reading counts: a slew bends it by less than a
	// tenth of that.
	translationKept = time.Second
	// suspendLeast is the growth of the time suspended that is more than an error of measuring.
	suspendLeast = time.Millisecond
)

func readClocks() (r reading) {
	r.before = nowait.Clock(unix.CLOCK_MONOTONIC)
	r.raw = nowait.Clock(unix.CLOCK_MONOTONIC_RAW)
	r.boot = nowait.Clock(unix.CLOCK_BOOTTIME)
	r.after = nowait.Clock(unix.CLOCK_MONOTONIC)
	return r
}

// now reads the clocks. Where no reading is narrow enough, the former translation stays. The time suspended can only
// be found too short by a wide one, so that it counts nevertheless: a promise that was given while a suspend went
// unseen would seem to run out when it is seen.
func (c *clock) now() cluster.Now {
	read := c.read
	if read == nil {
		read = readClocks
	}
	first, before := c.boot == 0, c.suspended
	var r reading
	var width int64
	for range brackets {
		r = read()
		width = r.after - r.before
		c.suspended = max(c.suspended, r.boot-r.after)
		if width < int64(bracket) {
			break
		}
	}
	own := r.raw + c.suspended
	switch {
	case width < int64(bracket):
		c.boot, c.raw = r.boot, own
	case first || own-c.raw > int64(translationKept):
		// The own clock was read before the other, and the time suspended may be longer: by no more than the width
		// each. So what is translated comes out too early, never too late.
		c.boot, c.raw = r.boot, own+2*width
	}
	c.last = max(c.last, own)
	c.asleep = c.asleep || !first && c.suspended-before > int64(suspendLeast)
	return cluster.Now{Mono: cluster.Instant(c.last), Wall: cluster.WallTime(time.Now().UnixNano())}
}

// slept tells, once, that the machine was suspended.
func (c *clock) slept() bool {
	was := c.asleep
	c.asleep = false
	return was
}

// boottime translates an instant of the own clock to CLOCK_BOOTTIME, the only one that the kernel's gate
// can compare with, by the last reading of both that counts. It is an absolute instant: a pause of this process
// between here and the write can't move it.
func (c *clock) boottime(i cluster.Instant) int64 {
	if i == 0 {
		return 0
	}
	return c.boot + int64(i) - c.raw
}

// instant translates the other way.
func (c *clock) instant(boottime int64) cluster.Instant {
	if boottime == 0 {
		return 0
	}
	return cluster.Instant(boottime - c.boot + c.raw)
}
