package app

import "testing"

func TestCounted(t *testing.T) {
	for n, want := range []string{"0 links", "1 link", "2 links"} {
		if got := counted(n, "link"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
