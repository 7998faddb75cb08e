package lease

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"baton/internal/core/cluster"
)

// The lease's end is the q-th largest, over the voters, of the latest "sent + L" that each has acked:
// checked against a version that keeps everything and sorts.
func TestHolderAgainstADumbOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		voters := rapid.IntRange(1, 7).Draw(t, "voters")
		h := NewHolder(voters, Flaws{})
		type beat struct {
			at cluster.Instant
			l  time.Duration
		}
		var beats []beat
		best := make([]cluster.Instant, voters)
		now, end := cluster.Instant(0), cluster.Instant(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "passes")))
			if len(beats) == 0 || rapid.Bool().Draw(t, "send") {
				b := beat{now, time.Duration(rapid.IntRange(1, 50).Draw(t, "l"))}
				beats = append(beats, b)
				h.Sent(uint64(len(beats)), b.at, b.l)
				continue
			}
			v, seq := rapid.IntRange(0, voters-1).Draw(t, "voter"), rapid.IntRange(1, len(beats)).Draw(t, "seq")
			b := beats[seq-1]
			best[v] = max(best[v], b.at.Add(b.l))
			sorted := slices.Clone(best)
			slices.Sort(sorted)
			slices.Reverse(sorted)
			want := max(end, sorted[cluster.Quorum(voters)-1])
			if moved := h.Acked(v, uint64(seq), now); moved != (want > end) {
				t.Fatalf("Acked reports %v, the end went from %d to %d", moved, end, want)
			}
			end = want
			if h.End() != end || h.Runs(now) != (now < end) {
				t.Fatalf("end %d, runs %v; want %d", h.End(), h.Runs(now), end)
			}
		}
	})
}

func TestAckOfAForgottenHeartbeatRenewsNothing(t *testing.T) {
	h := NewHolder(1, Flaws{})
	for seq := uint64(1); seq <= ringSize+1; seq++ {
		h.Sent(seq, cluster.Instant(seq), 10)
	}
	if h.Acked(0, 1, 0) || h.Acked(0, ringSize+2, 0) {
		t.Error("a heartbeat that was overwritten, or never sent, renewed the lease")
	}
	if !h.Acked(0, 2, 0) {
		t.Error("the oldest that is remembered did not")
	}
	h.Reset()
	if h.End() != 0 {
		t.Error("another number began with the former one's lease")
	}
}

// A voter's promise outlives the lease that rests on it, on any two clocks within rho of each other.
func TestPromiseOutlivesTheLease(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		timing := cluster.Timing{RhoPPM: 5000}
		l := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Minute)).Draw(t, "l"))
		promised := timing.Promised(l)
		// The owner's clock runs slow by rho: its L lasts l*(1+rho) on the voter's clock.
		if slow := l + l/200; promised < slow-1 {
			t.Fatalf("a promise of %v under L = %v is shorter than %v", promised, l, slow)
		}
		v := NewVoter(2, timing, 5, Flaws{})
		v.Promise(1, 100, l)
		v.Promise(1, 50, l/2) // a late, shorter one takes nothing back
		if got := v.Left(1); got != cluster.Instant(100).Add(promised) {
			t.Fatalf("the promise ends at %d", got)
		}
		if v.Left(0) != 5 {
			t.Fatalf("without a promise the grace counts, not %d", v.Left(0))
		}
	})
}

func TestSaidNeedsAMajorityOfDifferentVoters(t *testing.T) {
	s := NewSaid(5, Flaws{})
	for range 3 {
		s.Add(0, 4, 1)
	}
	s.Add(0, 4, 2)
	if s.Over(0, 4) {
		t.Error("two voters of five are no majority, however often they say it")
	}
	if !s.Add(0, 4, 3) || s.Add(0, 4, 3) {
		t.Error("a word is news once")
	}
	if !s.Over(0, 4) || !s.Over(0, 3) || s.Over(0, 5) || s.Over(1, 4) {
		t.Error("it holds for that number and those before, of that node alone")
	}
}
