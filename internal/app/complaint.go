package app

import (
	"log/slog"
	"time"
)

// complainEvery is how often the log tells of something that goes on failing.
const complainEvery = 10 * time.Second

// complaint tells of what is tried again and again: the first failure, then one now and then, and that it works
// again. It belongs to one goroutine; the zero value has nothing to complain of.
type complaint struct {
	since, told time.Time // zero: it works
	times       int
}

// failed tells that it failed, unless that was told a moment ago.
func (c *complaint) failed(log *slog.Logger, text string, args ...any) {
	now := time.Now()
	c.times++
	switch {
	case c.since.IsZero():
		c.since = now
	case now.Sub(c.told) < complainEvery:
		return
	default:
		log = log.With("times", c.times, "lasted", now.Sub(c.since).Round(time.Second))
	}
	c.told = now
	log.Error(text, args...)
}

// worked tells that it works again, if it did not.
func (c *complaint) worked(log *slog.Logger, text string, args ...any) {
	if c.since.IsZero() {
		return
	}
	log.With("times", c.times, "lasted", time.Since(c.since).Round(time.Millisecond)).Info(text, args...)
	*c = complaint{}
}
