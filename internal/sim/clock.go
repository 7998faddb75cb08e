package sim

import (
	"math"
	"time"

	"baton/internal/core/cluster"
)

// far is a true instant beyond every run.
const far = int64(math.MaxInt64)

// horizon is beyond what any run lasts, and what a clock can be asked for without an overflow.
const horizon = int64(10 * 24 * time.Hour)

// clock is a node's own clock: true time bent by a constant rate since the last change, from an
// arbitrary start, so that whoever uses another node's reading goes wrong at once.
type clock struct {
	since int64 // true instant of the last change of rate
	base  int64 // reading at that instant
	ppm   int64 // millionths that it runs fast (or, negative, slow)
	still bool  // it stands still: the guest is paused, and knows nothing of it
}

// read returns the clock's reading at a true instant.
func (c *clock) read(t int64) cluster.Instant {
	if c.still {
		return cluster.Instant(c.base)
	}
	d := t - c.since
	return cluster.Instant(c.base + d + d*c.ppm/1_000_000)
}

// when returns the first true instant at which the clock reads x or more, if its rate stays.
func (c *clock) when(x cluster.Instant) int64 {
	d := int64(x) - c.base
	if x == cluster.Never || c.still || d > horizon {
		return far
	}
	if d <= 0 {
		return c.since
	}
	t := c.since + d
	for range 6 { // each round leaves a few thousandths of the error
		t += int64(x - c.read(t))
	}
	for c.read(t) < x {
		t++
	}
	for t > c.since && c.read(t-1) >= x {
		t--
	}
	return t
}

// bend changes the clock's rate from now on.
func (c *clock) bend(now, ppm int64) {
	c.base = int64(c.read(now))
	c.since = now
	c.ppm = ppm
}

// pause makes the clock stand still, or go on from where it stood.
func (c *clock) pause(now int64, still bool) {
	c.base = int64(c.read(now))
	c.since, c.still = now, still
}
