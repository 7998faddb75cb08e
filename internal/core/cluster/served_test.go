package cluster

import (
	"testing"
	"time"
)

// What is told of an outage's length is never more than is known of it, and neither are its phases.
func TestServedTellsNoMoreThanIsKnown(t *testing.T) {
	for want, s := range map[string]Served{
		"web serves on beta, epoch 2, after unplanned outage of unknown length, counted as 1m": {
			Known: AtLeast, Least: 300 * time.Microsecond, Phases: Phases{Paused: 9988 * time.Millisecond}},
		"web serves on beta, epoch 2, after unplanned outage of at least 900 ms, counted as 1m: paused 900 ms before another try": {
			Known: AtLeast, Least: 900 * time.Millisecond, Phases: Phases{Paused: 9988 * time.Millisecond}},
		"web serves on beta, epoch 2, after unplanned outage of at least 2000 ms, counted as 1m: paused 1000 ms before another try": {
			Known: AtLeast, Least: 2 * time.Second, Phases: Phases{Paused: time.Second}},
		"web serves on beta, epoch 2, after unplanned outage of at least 400 ms, counted as 1m (app: was killed by SIGKILL)": {
			Known: AtLeast, Least: 400 * time.Millisecond, Cause: "app: was killed by SIGKILL"},
	} {
		s.Group, s.Node, s.Epoch, s.Down = "web", "beta", 2, time.Minute
		if got := s.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
