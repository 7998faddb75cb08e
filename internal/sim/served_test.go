package sim

import "testing"

// TestOutagesOnRecord: the rule "outages" judges what it should: plans with and without people put outages on record,
// and nodes that come back amend them.
func TestOutagesOnRecord(t *testing.T) {
	for profile, want := range map[string]struct{ recorded, amended int }{"mix": {60, 1}, "people": {60, 1}, "takeover": {50, 0}} {
		total, failed, err := Range(1, 40, profile, Options{}, 1)
		if err != nil || failed != nil {
			t.Fatalf("%s: %v, %v", profile, err, failed)
		}
		if c := total; c.Recorded < want.recorded || c.Amended < want.amended {
			t.Errorf("%s: %d on record, %d amended: too few to tell", profile, c.Recorded, c.Amended)
		}
	}
}
