package sim

import (
	"math"

	"baton/internal/core/cluster"
)

// far is a true instant beyond every run.
const far = int64(math.MaxInt64)

// clock is a node's own clock: true time bent by a constant rate since the last change, from an
// arbitrary start, so that whoever uses another node's reading goes wrong at once.
type clock struct {
	since int64 // true instant of the last change of rate
	base  int64 // reading at that instant
	ppm   int64 // millionths that it runs fast (or, negative, slow)
}

// read returns the clock's reading at a true instant.
func (c *clock) read(t int64) cluster.Instant {
	d := t - c.since
	return cluster.Instant(c.base + d + d*c.ppm/1_000_000)
}

// when returns the first true instant at which the clock reads x or more, if its rate stays.
func (c *clock) when(x cluster.Instant) int64 {
	d := int64(x) - c.base
	if x == cluster.Never || d > 1_000_000_000_000 {
		return far
	}
	if d <= 0 {
		return c.since
	}
	t := c.since + d
	for range 4 { // each round leaves a few thousandths of the error
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
