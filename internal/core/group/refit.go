package group

import "baton/internal/core/cluster"

// Refit makes the group run by another specification. A resource whose description has changed is restarted
// where it runs, unless all that has changed takes effect on what runs; one that is gone is no longer asked
// for anything: who acts stops it with what it was started by.
func (g *Group) Refit(spec *cluster.GroupSpec) {
	old := g.res
	g.spec = spec
	g.res = make([]resource, 0, len(spec.Resources))
	for i := range spec.Resources {
		s := &spec.Resources[i]
		r := resource{spec: s, status: cluster.StatusStopped, ordered: true}
		for k := range old {
			if old[k].spec.ID != s.ID {
				continue
			}
			r = old[k]
			r.spec = s
			if len(old[k].spec.Restarts(s)) > 0 {
				r.stale = r.status != cluster.StatusStopped || r.pending != 0
				r.pending, r.backoff, r.retryAt, r.ordered = 0, 0, 0, true
			}
		}
		g.res = append(g.res, r)
	}
}
