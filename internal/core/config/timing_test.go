package config

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

// TestDeriveKnown holds Derive to the figures of the contract (protocol.md, "Timing").
func TestDeriveKnown(t *testing.T) {
	for _, c := range []struct{ takeover, l, h time.Duration }{
		{100 * ms, 80 * ms, 8 * ms},
		{3 * time.Second, 2960 * ms, 296 * ms},
	} {
		got, bounds, err := Derive(c.takeover, DefaultStall, DefaultSync, DefaultRTT)
		if err != nil || got.L != c.l || got.H != c.h || got.D != 9*c.h {
			t.Errorf("%v: got %+v, %v, want L=%v h=%v", c.takeover, got, err, c.l, c.h)
		}
		for _, b := range bounds {
			t.Logf("%v %s: %v", c.takeover, b.Fault, b.Worst)
		}
	}
	got, _, _ := Derive(100*ms, DefaultStall, DefaultSync, DefaultRTT)
	if budget(got) != 80*ms+400*time.Microsecond+15*ms+3*ms {
		t.Errorf("the budget at 100 ms is %v", budget(got))
	}
	if got.Step != 6400*time.Microsecond {
		t.Errorf("the step at 100 ms is %v", got.Step)
	}
}

// within is every takeover, with stalls, syncs and round trips from none to absurd.
func within(t *rapid.T) (takeover, stall, sync, rtt time.Duration) {
	d := func(name string, most time.Duration) time.Duration {
		return time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, name))
	}
	scale := rapid.SampledFrom([]time.Duration{ms, 20 * ms, 300 * ms, 5 * time.Second}).Draw(t, "scale")
	return MinTakeover + d("takeover", MaxTakeover-MinTakeover), d("stall", 3*scale), d("sync", scale), d("rtt", scale)
}

// oneLonger says whether a heartbeat interval one step longer would fit as well, from the rule's words
// alone and without Derive's helpers.
func oneLonger(takeover, h, stall, sync, rtt time.Duration) bool {
	if h < 5*ms {
		h += ms / 10
	} else {
		h += ms
	}
	l := 10 * h
	step := max(l*8/100, 4*rtt+2*sync)
	elect := l/2 + step + h + 2*rtt + 2*sync + rtt + 2*sync
	need := l + l*5/1000 + stall + 3*ms + max(0, elect-l*9/10) + max(0, rtt+2*sync-l/10)
	return need <= takeover && stall+h+rtt <= 9*h
}

func TestDeriveHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		takeover, stall, sync, rtt := within(t)
		got, bounds, err := Derive(takeover, stall, sync, rtt)
		if err != nil {
			if !strings.Contains(err.Error(), "does not fit") {
				t.Fatalf("the refusal names no part: %v", err)
			}
			return
		}
		if got.L != 10*got.H || got.D != 9*got.H || got.H <= 0 || got.Step <= 0 {
			t.Fatalf("wrong proportions: %+v", got)
		}
		if got.H%ms != 0 && (got.H > 5*ms || got.H%(ms/10) != 0) {
			t.Fatalf("h is %v, neither whole nor a tenth", got.H)
		}
		if oneLonger(takeover, got.H, stall, sync, rtt) {
			t.Fatalf("h is %v, and one step longer fits too", got.H)
		}
		for _, b := range bounds {
			if b.Worst <= 0 || b.Worst > takeover || b.Why == "" {
				t.Fatalf("bound %+v does not keep takeover %v", b, takeover)
			}
		}
	})
}

// TestDeriveMonotonic: more time for a takeover never gives a shorter lease, nor does it become refused.
func TestDeriveMonotonic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		takeover, stall, sync, rtt := within(t)
		more := min(MaxTakeover, takeover+time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "more")))
		a, _, errA := Derive(takeover, stall, sync, rtt)
		b, _, errB := Derive(more, stall, sync, rtt)
		if errA == nil && (errB != nil || b.H < a.H) {
			t.Fatalf("%v gives h %v, %v gives h %v (%v)", takeover, a.H, more, b.H, errB)
		}
	})
}

// TestDeriveRefusal: what a refusal names as the least takeover is reachable, and a millisecond less is not.
func TestDeriveRefusal(t *testing.T) {
	_, _, err := Derive(100*ms, 200*ms, ms, ms)
	t.Log(err)
	if err == nil || !strings.Contains(err.Error(), "lease that outlasts a stall") {
		t.Fatalf("got %v", err)
	}
	rapid.Check(t, func(t *rapid.T) {
		takeover, stall, sync, rtt := within(t)
		_, _, err := Derive(takeover, stall, sync, rtt)
		if err == nil {
			return
		}
		_, text, found := strings.Cut(err.Error(), "the least takeover here is ")
		if !found {
			if _, _, err := Derive(MaxTakeover, stall, sync, rtt); err == nil {
				t.Fatalf("refused for good, but %v works", MaxTakeover)
			}
			return
		}
		least, perr := time.ParseDuration(text)
		if perr != nil {
			t.Fatal(perr)
		}
		if _, _, err := Derive(least, stall, sync, rtt); err != nil {
			t.Fatalf("the least is said to be %v, but: %v", least, err)
		}
		if _, _, err := Derive(least-ms, stall, sync, rtt); err == nil {
			t.Fatalf("the least is said to be %v, but %v works", least, least-ms)
		}
	})
}

func TestDeriveRange(t *testing.T) {
	for _, d := range []time.Duration{0, -time.Second, 99 * ms, 61 * time.Second} {
		if _, _, err := Derive(d, DefaultStall, DefaultSync, DefaultRTT); err == nil || !strings.Contains(err.Error(), "outside 100ms to 1m0s") {
			t.Errorf("%v: got %v", d, err)
		}
	}
	if _, _, err := Derive(time.Second, -1, ms, ms); err == nil {
		t.Error("a negative stall was taken")
	}
}
