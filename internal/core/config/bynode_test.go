package config

import (
	"strings"
	"testing"

	"baton/internal/core/cluster"
)

// What a field is on one node concerns no other: only there something restarts, and only that is told.
func TestChangeOnOneNode(t *testing.T) {
	parse := func(more ...string) *cluster.Spec {
		text := changeBase
		for _, m := range more {
			old, now, _ := strings.Cut(m, " ==> ")
			text = strings.ReplaceAll(text, old, now)
		}
		s, err := Parse("cluster.yaml", []byte(text), testKinds())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	byNode := "vip: 10.0.0.50/24 ==> vip: { address: 10.0.0.50/24, interface: { alpha: eth0, beta: eth0 } }"
	at := Running{Groups: []Placement{{"api", "beta", "delta"}, {"web", "alpha", "beta"}}}
	for _, c := range []struct{ change, diff, effect string }{
		{"beta: eth0 } ==> beta: ens3 }", "group web: vip: interface on beta eth0 → ens3",
			"nothing moves or restarts: the change counts from then on"},
		{"alpha: eth0, ==> alpha: ens3,", "group web: vip: interface on alpha eth0 → ens3", "vip restarts on alpha: its interface changed"},
		{"{ alpha: eth0, beta: eth0 } ==> ens3", "group web: vip: interface on alpha eth0 → ens3; group web: vip: interface on beta eth0 → ens3",
			"vip restarts on alpha: its interface changed"},
		{"{ alpha: eth0, beta: eth0 } ==> eth0", "", "nothing moves or restarts: the change counts from then on"},
	} {
		before, after := parse(byNode), parse(byNode, c.change)
		if got := strings.Join(Diff(before, after), "; "); got != c.diff {
			t.Errorf("%s: %q, want %q", c.change, got, c.diff)
		}
		var effects []string
		for _, e := range Effects(before, after, at) {
			effects = append(effects, e.Text)
		}
		if got := strings.Join(effects, "; "); got != c.effect {
			t.Errorf("%s: %q, want %q", c.change, got, c.effect)
		}
	}
	g := parse(byNode).Group("web")
	if x, y := g.On("alpha").Resource("vip").Fields["interface"], g.On("delta").Resource("vip").Fields["interface"]; x != "eth0" || y != nil {
		t.Errorf("on alpha %v, on delta %v", x, y)
	}
}
