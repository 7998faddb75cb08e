package sim

import (
	"maps"
	"strings"

	"baton/internal/core/cluster"
)

// instruction is the part that a person's command asks for on this machine, whose wall clock sets its end.
func (m *machine) instruction(f *active, node cluster.NodeID) cluster.Part {
	name, res, _ := strings.Cut(f.Group, "/")
	group, resource := cluster.GroupID(name), cluster.ResourceID(res)
	if name == "all" {
		group = ""
	}
	note := cluster.Note{Reason: "simulated"}
	if f.For > 0 {
		note.Until = m.wallTime() + cluster.WallTime(f.For)
	}
	switch f.Kind {
	case Pause:
		return cluster.Part{Pause: &cluster.Pause{Group: group, Note: note}}
	case Resume:
		return cluster.Part{Resume: &cluster.Resume{Group: group}}
	case Pin:
		return cluster.Part{Pin: &cluster.Pin{Group: group, Node: node, Note: note}}
	case Unpin:
		return cluster.Part{Unpin: &cluster.Unpin{Group: group}}
	case Drain:
		return cluster.Part{Drain: &cluster.Drain{Node: node, Note: note}}
	case Undrain:
		return cluster.Part{Undrain: &cluster.Undrain{Node: node}}
	case Stop:
		return cluster.Part{Stop: &cluster.Stop{Group: group, Resource: resource, Note: note}}
	case Start:
		return cluster.Part{Start: &cluster.Start{Group: group, Resource: resource}}
	case Restart:
		return cluster.Part{Restart: &cluster.Restart{Group: group, Resource: resource}}
	default:
		return cluster.Part{Clear: &cluster.Clear{Group: group, Resource: resource}}
	}
}

// instructed is what the checker knows of people's instructions: the log's, read by its own rules.
type instructed struct {
	seen    map[string]bool                  // commands that have taken effect, or not
	paused  map[cluster.GroupID]cluster.Note // under "": everything
	pinned  map[cluster.GroupID]cluster.Pin  //
	drained map[cluster.NodeID]cluster.Note  //
	stopped map[resourceOf]cluster.Note      // with no resource: the whole group
	asked   map[placement]bool               // an Assign to where the group was pinned then, or went by a pin just before
	allowed map[placement]bool               // whether an Assign in the log was allowed when it came
}

type resourceOf struct {
	group    cluster.GroupID
	resource cluster.ResourceID
}

type placement struct {
	group cluster.GroupID
	node  cluster.NodeID
	epoch cluster.Epoch
}

func (x *instructed) init() {
	x.seen, x.paused, x.pinned = map[string]bool{}, map[cluster.GroupID]cluster.Note{}, map[cluster.GroupID]cluster.Pin{}
	x.drained, x.stopped, x.allowed = map[cluster.NodeID]cluster.Note{}, map[resourceOf]cluster.Note{}, map[placement]bool{}
	x.asked = map[placement]bool{}
}

// read takes an entry that was applied for the first time anywhere. It reports whether that was people's.
func (x *instructed) read(e *cluster.Entry) bool {
	if e.ID != "" {
		if x.seen[e.ID] {
			return false
		}
		x.seen[e.ID] = true
	}
	n := len(x.paused) + len(x.pinned) + len(x.drained) + len(x.stopped)
	over := func(n cluster.Note, only cluster.WallTime) bool { return only == 0 || only == n.Until }
	for _, p := range e.Parts {
		switch {
		case p.Pause != nil:
			x.paused[p.Pause.Group] = p.Pause.Note
		case p.Resume != nil && over(x.paused[p.Resume.Group], p.Resume.Only):
			delete(x.paused, p.Resume.Group)
		case p.Pin != nil:
			x.pinned[p.Pin.Group] = *p.Pin
		case p.Unpin != nil && over(x.pinned[p.Unpin.Group].Note, p.Unpin.Only):
			delete(x.pinned, p.Unpin.Group)
		case p.Drain != nil:
			x.drained[p.Drain.Node] = p.Drain.Note
		case p.Undrain != nil && over(x.drained[p.Undrain.Node], p.Undrain.Only):
			delete(x.drained, p.Undrain.Node)
		case p.Stop != nil:
			x.stopped[resourceOf{p.Stop.Group, p.Stop.Resource}] = p.Stop.Note
		case p.Start != nil:
			if r := (resourceOf{p.Start.Group, p.Start.Resource}); over(x.stopped[r], p.Start.Only) {
				delete(x.stopped, r)
			}
		case p.Assign != nil:
			at := placement{p.Assign.Group, p.Assign.To, p.Assign.Epoch}
			before := placement{p.Assign.Group, p.Assign.To, p.Assign.Epoch - 1} // which may never have opened
			x.asked[at] = x.asked[at] || x.asked[before] || x.pinned[p.Assign.Group].Node == p.Assign.To
			x.allowed[at] = x.allowed[at] || x.forbids(p.Assign.Group, p.Assign.To) == ""
		}
	}
	return e.ID != "" || n != len(x.paused)+len(x.pinned)+len(x.drained)+len(x.stopped)
}

// forbids tells which instruction forbids that a group be placed on a node.
func (x *instructed) forbids(g cluster.GroupID, on cluster.NodeID) string {
	if _, ok := x.stopped[resourceOf{g, ""}]; ok {
		return "it was stopped"
	}
	for _, id := range []cluster.GroupID{"", g} {
		if _, ok := x.paused[id]; ok {
			return "it was paused"
		}
	}
	if p, ok := x.pinned[g]; ok && p.Node != on {
		return "it was pinned to " + string(p.Node)
	}
	return ""
}

// held tells whether a person has stopped one resource of a group.
func (x *instructed) held(g cluster.GroupID, r cluster.ResourceID) bool {
	_, ok := x.stopped[resourceOf{g, r}]
	return ok
}

// place checks that the placement under which a gate opens was not forbidden when it was made.
func (w *world) place(m *machine, g cluster.GroupID, e cluster.Epoch) {
	x := &w.check.said
	if allowed, known := x.allowed[placement{g, m.id, e}]; known && !allowed {
		w.fail("instructions", "%s serves %s under epoch %d, which an instruction forbade", m.id, g, e)
	}
}

// restarting tells whether the node that serves a group is stopping something of it: somebody restarts it, and
// where stops hang that takes as long as they may.
func (w *world) restarting(group int) bool {
	for _, m := range w.machines {
		for i := range m.resources {
			if r := &m.resources[i]; r.group == group && m.serves(group) && r.busy && r.doing.Target == cluster.TargetStopped {
				return true
			}
		}
	}
	return false
}

// adopted forgets what was said of groups and nodes that a revision no longer names.
func (s *instructed) adopted(spec *cluster.Spec) {
	maps.DeleteFunc(s.paused, func(g cluster.GroupID, _ cluster.Note) bool { return g != "" && spec.Group(g) == nil })
	maps.DeleteFunc(s.pinned, func(g cluster.GroupID, p cluster.Pin) bool { return spec.Group(g) == nil || spec.Node(p.Node) == nil })
	maps.DeleteFunc(s.drained, func(n cluster.NodeID, _ cluster.Note) bool { return spec.Node(n) == nil })
	maps.DeleteFunc(s.stopped, func(r resourceOf, _ cluster.Note) bool { return spec.Group(r.group) == nil })
}
