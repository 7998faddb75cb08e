package sim

import "testing"

// TestLookingChangesNothing: a run during which people look at random nodes at random instants is the run without.
func TestLookingChangesNothing(t *testing.T) {
	for _, profile := range []string{"short", "takeover", "people", "members", "moves", "elections"} {
		t.Run(profile, func(t *testing.T) {
			t.Parallel()
			differ := 0
			for seed := uint64(1); seed <= 8; seed++ {
				plain, err := Run(seed, profile, Options{})
				if err != nil {
					t.Fatal(err)
				}
				looked, err := Run(seed, profile, Options{Looks: true})
				if err != nil {
					t.Fatal(err)
				}
				if looked.Counts.Looks < 20 {
					t.Errorf("seed %d: only %d looks", seed, looked.Counts.Looks)
				}
				if plain.Hash != looked.Hash || plain.Violation == nil != (looked.Violation == nil) {
					differ++
					t.Logf("seed %d: hash %x, with %d looks %x (%v)", seed, plain.Hash, looked.Counts.Looks, looked.Hash, looked.Violation)
				}
			}
			if differ > 0 {
				t.Errorf("%d of 8 runs differ by being looked at", differ)
			}
		})
	}
}
