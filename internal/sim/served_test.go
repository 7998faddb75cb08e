package sim

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

var tracedOutage = regexp.MustCompile(`apply .* (un)?planned outage of (\d+) ms`)

// TestOutagesOnRecord: what the log tells of an outage is what an observer who sees everything measured, but
// for what the coordinator can't know: a node's death is noticed by its last heartbeat, up to h before.
func TestOutagesOnRecord(t *testing.T) {
	exact, told := 0, 0
	for seed := uint64(1); seed <= 60; seed++ {
		p, err := Generate(seed, "takeover")
		if err != nil {
			t.Fatal(err)
		}
		var trace strings.Builder
		r, err := RunPlan(p, Options{Trace: &trace})
		if err != nil || r.Violation != nil {
			t.Fatalf("seed %d: %v, %v", seed, err, r.Violation)
		}
		worst := time.Duration(r.Counts.Worst) * p.Takeover / 1000
		var most time.Duration
		for line := range strings.Lines(trace.String()) {
			if m := tracedOutage.FindStringSubmatch(line); m != nil {
				d, err := time.ParseDuration(m[2] + "ms")
				if err != nil {
					t.Fatal(err)
				}
				most = max(most, d)
			}
		}
		slip := p.Takeover/8 + 5*time.Millisecond // h, a sample of L/200, what comes with the next heartbeat
		if most < worst-slip {
			t.Errorf("seed %d: an outage of %v is on record as %v", seed, worst, most)
		}
		if most > 0 {
			told++
		}
		if p.Faults[0].Kind == Power {
			exact++
			if most > worst+slip {
				t.Errorf("seed %d: an outage of %v after a power loss is on record as %v", seed, worst, most)
			}
		}
	}
	if exact < 5 || told < 20 {
		t.Errorf("%d power losses and %d outages on record: too few to tell", exact, told)
	}
}
