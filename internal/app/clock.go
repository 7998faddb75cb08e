package app

import (
	"math"
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
	own       int64 // the own clock then, by what was read: no later than it was
	slack     int64 // the most by which it was later: it was read before, the time suspended is too short by what passed after
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
	// bracket is the most that two readings of a clock may be apart for the one between them to be undisturbed.
	bracket = 100 * time.Microsecond
	// brackets bounds the attempts to read the clocks undisturbed: where each takes long, the loop must not spend its
	// time with them.
	brackets = 4
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

// now reads the clocks. Of the attempts the narrowest counts, however wide it is: a translation that is kept is bent
// by a slew, by eight percent of the time for which it is kept.
//
// The time suspended is never found too long: it is what BOOTTIME had gained over a MONOTONIC that was read later. So
// the longest that was ever found is the nearest, and it must not be guessed longer: a lease would end sooner by that,
// which is safe, but a voter's promise would seem to have run out before it has. A suspend that a wide reading finds
// counts nevertheless, at once: a promise that was given while it went unseen would seem to run out when it is seen.
func (c *clock) now() cluster.Now {
	read := c.read
	if read == nil {
		read = readClocks
	}
	first, before := c.boot == 0, c.suspended
	narrowest := int64(math.MaxInt64)
	var own int64
	for range brackets {
		r := read()
		width := r.after - r.before
		c.suspended = max(c.suspended, r.boot-r.after)
		own = r.raw + c.suspended
		if width <= narrowest {
			narrowest = width
			c.boot, c.own, c.slack = r.boot, own, width+bent(width)
		} else {
			c.slack += bent(width) // by the time that this attempt took in vain
		}
		if width < int64(bracket) {
			break
		}
	}
	c.last = max(c.last, own)
	c.asleep = c.asleep || !first && c.suspended-before > int64(suspendLeast)
	return cluster.Now{Mono: cluster.Instant(c.last), Wall: cluster.WallTime(time.Now().UnixNano())}
}

// bent bounds by how much a slew shifts CLOCK_MONOTONIC and CLOCK_BOOTTIME against RAW in a time: by less than an eighth.
func bent(d int64) int64 { return (d + 7) / 8 }

// slept tells, once, that the machine was suspended.
func (c *clock) slept() bool {
	was := c.asleep
	c.asleep = false
	return was
}

// boottime translates an instant of the own clock to CLOCK_BOOTTIME, the only one that the kernel's gate
// can compare with, by the last reading of both that counts. It is an absolute instant: a pause of this process
// between here and the write can't move it. It is never later than the instant: a gate that closes early costs an
// answer, one that closes late lets two nodes serve.
func (c *clock) boottime(i cluster.Instant) int64 {
	if i == 0 {
		return 0
	}
	return c.boot + int64(i) - c.own - c.slack
}

// instant translates the other way, and is never later either: a former run's lease is gone on with until then, and
// its gate written anew by that.
func (c *clock) instant(boottime int64) cluster.Instant {
	if boottime == 0 {
		return 0
	}
	return cluster.Instant(boottime - c.boot + c.own)
}
