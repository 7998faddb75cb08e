package group

import (
	"testing"

	"baton/internal/core/cluster"
)

// A change that takes effect on what runs restarts nothing; another restarts that resource alone, in its place.
func TestRefit(t *testing.T) {
	b, s := serving(t)
	changed := func(field string, value any) *cluster.GroupSpec {
		g := spec(cluster.Cold)
		g.Resources[1].Live = []string{"probe"}
		g.Resources[1].Fields = map[string]any{field: value}
		return g
	}
	b.g.Refit(changed("probe", 2))
	b.expect(t, s, "")
	b.g.Refit(changed("command", "x"))
	b.expect(t, s, "db running@3 anew")
	b.done(t, "db", cluster.StatusRunning)
	if o := b.expect(t, s, ""); !o.Ready || !o.Fronts {
		t.Errorf("after the restart: %+v", o)
	}
	// What is gone from the file is not asked for any more; what is new starts.
	g := changed("command", "x")
	g.Resources[2].ID = "log"
	b.g.Refit(g)
	b.expect(t, s, "log running@3")
}
