package state

import (
	"strings"
	"testing"

	"baton/internal/core/cluster"
)

func draft(id string) cluster.Part {
	return cluster.Part{Draft: &cluster.Draft{Base: 1, Text: []byte("two"), ID: id}}
}

func adopt(id string) cluster.Part { return cluster.Part{Adopt: &cluster.Adopt{Base: 1, Draft: id}} }

func drop(id string) cluster.Part {
	return cluster.Part{Drop: &cluster.Drop{Base: 1, Draft: id, Reason: "it can't be adopted"}}
}

// A draft is given up, and another made on the same revision. A late Adopt or Drop of the first one must not hit the
// second: nobody has decided on it yet.
func TestDecisionOnAnotherDraftIsDropped(t *testing.T) {
	s := begin(t)
	apply(t, s, "", draft("first"))
	apply(t, s, "is under way", draft("second"))
	apply(t, s, "no such draft", adopt("second"))
	apply(t, s, "no such draft", drop("second"))
	apply(t, s, "", drop("first"))
	apply(t, s, "", draft("second"))
	apply(t, s, "no such draft", adopt("first"))
	apply(t, s, "no such draft", drop("first"))
	if s.Draft == nil || s.Draft.ID != "second" || s.Revision() != 1 {
		t.Fatalf("the second draft was hit: %+v, revision %d", s.Draft, s.Revision())
	}
	apply(t, s, "", adopt("second"))
	apply(t, s, "no such draft", adopt("second"))
	if s.Draft != nil || s.Revision() != 2 || s.DraftEnd.ID != "second" {
		t.Errorf("the second draft was not adopted: revision %d, %+v", s.Revision(), s.DraftEnd)
	}
}

// Entries from before drafts were named mean whichever is under way.
func TestDecisionThatNamesNoDraft(t *testing.T) {
	s := begin(t)
	apply(t, s, "", draft("first"))
	apply(t, s, "", drop(""))
	apply(t, s, "", draft("second"))
	apply(t, s, "", adopt(""))
	if s.Revision() != 2 {
		t.Errorf("revision %d", s.Revision())
	}
}

// A stored form with a field that this version does not know means something that it does not know: it is refused,
// wherever the field stands.
func TestUnknownFieldIsRefused(t *testing.T) {
	s := string(begin(t).Encode())
	for _, c := range []struct{ old, new string }{
		{`{"founding":`, `{"of_tomorrow":1,"founding":`},
		{`"admitted":true`, `"admitted":true,"of_tomorrow":1`},
		{`"instructions":{}`, `"instructions":{"of_tomorrow":1}`},
	} {
		odd := strings.Replace(s, c.old, c.new, 1)
		if odd == s {
			t.Fatalf("%s is not in %s", c.old, s)
		}
		if _, err := Decode([]byte(odd), read, Flaws{}); err == nil || !strings.Contains(err.Error(), "of_tomorrow") {
			t.Errorf("%s was read: %v", c.new, err)
		}
	}
	for _, odd := range []string{`{"parts":[],"of_tomorrow":1}`, `{"parts":[{"of_tomorrow":{}}]}`, `{"parts":[]} {}`} {
		if _, err := cluster.DecodeEntry([]byte(odd)); err == nil {
			t.Errorf("%s was read", odd)
		}
	}
	if _, err := cluster.DecodeFounding([]byte(`{"id":"test","of_tomorrow":1}`)); err == nil {
		t.Error("a founding record was read")
	}
}
