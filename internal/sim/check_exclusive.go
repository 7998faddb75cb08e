package sim

import "baton/internal/core/cluster"

// runs checks, once a resource runs for its owner, that it runs nowhere else where two at once do harm that no gate
// keeps in: effects beyond the gate. What only sends is cut by the gate of its cgroup, and two such programs may
// run while one gate is shut, which invariant 1 sees to.
func (w *world) runs(m *machine, r *resource) {
	if r.status != cluster.StatusRunning || r.spec.Effects != cluster.EffectsBeyond {
		return
	}
	for _, o := range w.machines {
		if o == m {
			continue
		}
		for k := range o.resources {
			if x := &o.resources[k]; x.group == r.group && x.spec.ID == r.spec.ID && x.status == cluster.StatusRunning {
				w.fail("exclusive", "%s runs %s/%s (epoch %d) while %s still does (epoch %d)", m.id, w.spec.Groups[r.group].ID, r.spec.ID,
					r.doing.Epoch, o.id, x.doing.Epoch)
			}
		}
	}
}
