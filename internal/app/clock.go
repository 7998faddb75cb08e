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
	suspended int64 // CLOCK_BOOTTIME minus CLOCK_MONOTONIC; it never shrinks
	last      int64
	boot      int64 // CLOCK_BOOTTIME of the last reading, between two of the others
	raw       int64 // and the own clock then
}

// bracket is the most that two readings of a clock may be apart for the one between them to count.
const bracket = 100 * time.Microsecond

// brackets bounds the attempts to read the clocks undisturbed; the narrowest counts.
const brackets = 4

// now reads the clocks.
func (c *clock) now() cluster.Now {
	narrowest := int64(1<<63 - 1)
	for range brackets {
		before := nowait.Clock(unix.CLOCK_MONOTONIC)
		raw := nowait.Clock(unix.CLOCK_MONOTONIC_RAW)
		boot := nowait.Clock(unix.CLOCK_BOOTTIME)
		after := nowait.Clock(unix.CLOCK_MONOTONIC)
		if width := after - before; width < narrowest {
			narrowest = width
			c.suspended = max(c.suspended, boot-after)
			c.boot, c.raw = boot, raw+c.suspended
		}
		if narrowest < int64(bracket) {
			break
		}
	}
	c.last = max(c.last, c.raw)
	return cluster.Now{Mono: cluster.Instant(c.last), Wall: cluster.WallTime(time.Now().UnixNano())}
}

// boottime translates an instant of the own clock to CLOCK_BOOTTIME, the only one that the kernel's gate
// can compare with, by the last reading of both. It is an absolute instant: a pause of this process
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
