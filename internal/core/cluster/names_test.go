package cluster

import (
	"strings"
	"testing"
)

func TestChoice(t *testing.T) {
	known := []GroupID{"orders", "web"}
	many := make([]GroupID, 500)
	for i := range many {
		many[i] = GroupID("g" + strings.Repeat("x", i%40))
	}
	for _, c := range []struct {
		written string
		known   []GroupID
		want    string
	}{
		{"mail", known, "the groups are: orders, web"},
		{"ordres", known, "did you mean orders? the groups are: orders, web"},
		{"Web", known, "did you mean web? the groups are: orders, web"},
		{strings.Repeat("w", 100_000), known, "the groups are: orders, web"},
		{"mail", nil, "there are no groups yet"},
	} {
		if got := Choice("groups", c.written, c.known); got != c.want {
			t.Errorf("%.20q: %q, want %q", c.written, got, c.want)
		}
	}
	if got := Choice("groups", "mail", many); !strings.HasSuffix(got, ", and 480 more, which baton status lists") || len(got) > 1000 {
		t.Errorf("of 500 groups: %q", got)
	}
}
