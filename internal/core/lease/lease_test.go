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
		h := NewHolder(Flaws{})
		h.SetVoters(incarnations(voters))
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
			if moved := h.Acked(cluster.Incarnation(v+1), uint64(seq), now); moved != (want > end) {
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
	h := NewHolder(Flaws{})
	h.SetVoters(incarnations(1))
	for seq := uint64(1); seq <= ringSize+1; seq++ {
		h.Sent(seq, cluster.Instant(seq), 10)
	}
	if h.Acked(1, 1, 0) || h.Acked(1, ringSize+2, 0) {
		t.Error("a heartbeat that was overwritten, or never sent, renewed the lease")
	}
	if !h.Acked(1, 2, 0) {
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
		timing := cluster.Timing{RhoPPM: cluster.RhoPPM}
		l := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Minute)).Draw(t, "l"))
		promised := timing.Promised(l)
		// The owner's clock runs slow by rho: its L lasts l*(1+rho) on the voter's clock.
		if slow := l + l/200; promised < slow {
			t.Fatalf("a promise of %v under L = %v is shorter than %v", promised, l, slow)
		}
		v := NewVoter(timing, 5, Flaws{})
		v.Promise("beta", 100, l)
		v.Promise("beta", 50, l/2) // a late, shorter one takes nothing back
		if got := v.Left("beta"); got != cluster.Instant(100).Add(promised) {
			t.Fatalf("the promise ends at %d", got)
		}
		if v.Left("alpha") != 5 {
			t.Fatalf("without a promise the grace counts, not %d", v.Left("alpha"))
		}
	})
}

// incarnations returns the first n incarnations, 1 to n.
func incarnations(n int) []cluster.Incarnation {
	out := make([]cluster.Incarnation, n)
	for i := range out {
		out[i] = cluster.Incarnation(i + 1)
	}
	return out
}

func TestSaidNeedsAMajorityOfDifferentVoters(t *testing.T) {
	s, sets := NewSaid(Flaws{}), [][]cluster.Incarnation{incarnations(5)}
	for range 3 {
		s.Add("a", 4, 1)
	}
	s.Add("a", 4, 2)
	if s.Over("a", 4, sets) {
		t.Error("two voters of five are no majority, however often they say it")
	}
	s.Add("a", 4, 9)
	if s.Over("a", 4, sets) {
		t.Error("the word of one that is not in the set counts")
	}
	if !s.Over("a", 4, append(sets, []cluster.Incarnation{1, 9, 8})) {
		t.Error("a majority of any of the sets will do")
	}
	if !s.Add("a", 4, 3) || s.Add("a", 4, 3) {
		t.Error("a word is news once")
	}
	if !s.Over("a", 4, sets) || !s.Over("a", 3, sets) || s.Over("a", 5, sets) || s.Over("b", 4, sets) {
		t.Error("it holds for that number and those before, of that node alone")
	}
}

// A lease rests on a set once no end that was counted in another still stands.
func TestRestsOnlyOnceItIsCountedInTheSet(t *testing.T) {
	h := NewHolder(Flaws{})
	h.SetVoters(incarnations(3))
	h.Sent(1, 100, 50)
	h.Acked(1, 1, 101)
	h.Acked(2, 1, 101)
	if h.End() != 150 || !h.Rested(101) {
		t.Fatalf("two of three: the lease ends at %d", h.End())
	}
	h.SetVoters([]cluster.Incarnation{1, 7, 8})
	if h.End() != 150 || h.Rested(149) || !h.Rested(150) {
		t.Error("with other voters the end stays, and rests on them only when it has run out")
	}
	h.Acked(7, 1, 102)
	if !h.Rested(102) || h.End() != 150 {
		t.Error("a majority of the new set backs it now")
	}
}
