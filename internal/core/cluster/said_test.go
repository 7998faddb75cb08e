package cluster

import "testing"

// TestMoveOfNobody: a move of a group that nobody serves names no former owner.
func TestMoveOfNobody(t *testing.T) {
	for want, m := range map[string]Move{"move wiki to alpha": {Group: "wiki", To: "alpha"}, "move wiki from beta to alpha": {Group: "wiki", From: "beta", To: "alpha"}} {
		p := Part{Move: &m}
		if got := p.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
