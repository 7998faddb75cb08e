package state

import (
	"fmt"
	"slices"
	"strings"

	"baton/internal/core/cluster"
)

// limits of what a state keeps of people's commands
const (
	askedMax = 128 // commands whose answers are kept
	tasksMax = 32
)

// Asked is the answer to a command that the log has taken.
type Asked struct {
	ID      string `json:"id"`
	Index   uint64 `json:"index"`
	Dropped string `json:"dropped,omitempty"` // why it did not take effect; empty: it did
}

// Answer returns the answer to a command, or nil if it is not known to be in the log.
func (s *State) Answer(id string) *Asked {
	for i := range s.Asked {
		if s.Asked[i].ID == id {
			return &s.Asked[i]
		}
	}
	return nil
}

// answer keeps what became of a command.
func (s *State) answer(index uint64, id string, dropped []string) {
	s.Asked = append(s.Asked, Asked{ID: id, Index: index, Dropped: strings.Join(dropped, "; ")})
	if len(s.Asked) > askedMax {
		s.Asked = slices.Delete(s.Asked, 0, len(s.Asked)-askedMax)
	}
}

// instruct applies a person's instruction; known is false for a part that is none.
func (s *State) instruct(index uint64, id string, p cluster.Part) (dropped string, known bool) {
	switch {
	case p.Pause != nil:
		return s.pause(p.Pause), true
	case p.Resume != nil:
		return s.resume(p.Resume), true
	case p.Pin != nil:
		return s.pin(p.Pin), true
	case p.Unpin != nil:
		return s.unpin(p.Unpin), true
	case p.Drain != nil:
		return s.drain(p.Drain), true
	case p.Undrain != nil:
		return s.undrain(p.Undrain), true
	case p.Stop != nil:
		return s.stop(index, id, p.Stop), true
	case p.Start != nil:
		return s.start(index, id, p.Start), true
	case p.Restart != nil:
		return s.restart(index, p.Restart), true
	case p.Clear != nil:
		return s.clear(p.Clear), true
	case p.Performed != nil:
		return s.performed(p.Performed), true
	}
	return "", false
}

// noteInstruction keeps which group or node an instruction is about.
func noteInstruction(p cluster.Part, group func(cluster.GroupID), node func(cluster.NodeID)) {
	switch {
	case p.Pause != nil && p.Pause.Group != "":
		group(p.Pause.Group)
	case p.Resume != nil && p.Resume.Group != "":
		group(p.Resume.Group)
	case p.Pin != nil:
		group(p.Pin.Group)
		node(p.Pin.Node)
	case p.Unpin != nil:
		group(p.Unpin.Group)
	case p.Drain != nil:
		node(p.Drain.Node)
	case p.Undrain != nil:
		node(p.Undrain.Node)
	case p.Stop != nil:
		group(p.Stop.Group)
	case p.Start != nil:
		group(p.Start.Group)
	case p.Restart != nil:
		group(p.Restart.Group)
	case p.Clear != nil:
		group(p.Clear.Group)
	case p.Performed != nil:
		group(p.Performed.Group)
	}
}

// forbids tells which instruction forbids that a group be placed on a node, if one does. The planner asks
// them too, but one may have come into the log ahead of what it has just proposed.
func (s *State) forbids(g cluster.GroupID, to cluster.NodeID) string {
	if cluster.Planted && s.flaws.Heedless {
		return ""
	}
	return s.Instructions.Forbids(g, to)
}

func (s *State) pause(p *cluster.Pause) string {
	if p.Group != "" && s.Group(p.Group) == nil {
		return "no such group"
	}
	x := &s.Instructions
	x.Paused = append(slices.DeleteFunc(x.Paused, func(o cluster.Pause) bool { return o.Group == p.Group }), *p)
	for i := range s.Groups {
		if g := &s.Groups[i]; p.Group == "" || g.ID == p.Group {
			g.giveUpMove("it was paused")
		}
	}
	return ""
}

func (s *State) resume(r *cluster.Resume) string {
	x := &s.Instructions
	i := slices.IndexFunc(x.Paused, func(o cluster.Pause) bool { return o.Group == r.Group })
	if i < 0 {
		return "it is not paused"
	}
	if r.Only != 0 && x.Paused[i].Until != r.Only {
		return "it was paused anew"
	}
	x.Paused = slices.Delete(x.Paused, i, i+1)
	return ""
}

func (s *State) pin(p *cluster.Pin) string {
	g := s.Group(p.Group)
	if g == nil || s.Node(p.Node) == nil {
		return "no such group or node"
	}
	x := &s.Instructions
	x.Pinned = append(slices.DeleteFunc(x.Pinned, func(o cluster.Pin) bool { return o.Group == p.Group }), *p)
	if g.Move != nil && g.Move.To != p.Node {
		g.giveUpMove("it was pinned to " + string(p.Node))
	}
	return ""
}

func (s *State) unpin(u *cluster.Unpin) string {
	x := &s.Instructions
	i := slices.IndexFunc(x.Pinned, func(o cluster.Pin) bool { return o.Group == u.Group })
	if i < 0 {
		return "it is not pinned"
	}
	if u.Only != 0 && x.Pinned[i].Until != u.Only {
		return "it was pinned anew"
	}
	x.Pinned = slices.Delete(x.Pinned, i, i+1)
	return ""
}

func (s *State) drain(d *cluster.Drain) string {
	if s.Node(d.Node) == nil {
		return "no such node"
	}
	x := &s.Instructions
	x.Drained = append(slices.DeleteFunc(x.Drained, func(o cluster.Drain) bool { return o.Node == d.Node }), *d)
	return ""
}

func (s *State) undrain(u *cluster.Undrain) string {
	x := &s.Instructions
	i := slices.IndexFunc(x.Drained, func(o cluster.Drain) bool { return o.Node == u.Node })
	if i < 0 {
		return "it is not drained"
	}
	if u.Only != 0 && x.Drained[i].Until != u.Only {
		return "it was drained anew"
	}
	x.Drained = slices.Delete(x.Drained, i, i+1)
	return ""
}

// stop takes a whole group from its owner at once: who applies this closes its gate and gives the tenure up.
func (s *State) stop(index uint64, id string, p *cluster.Stop) string {
	g := s.Group(p.Group)
	if g == nil {
		return "no such group"
	}
	x := &s.Instructions
	x.Stopped = append(slices.DeleteFunc(x.Stopped, func(o cluster.Stop) bool { return o.Group == p.Group && o.Resource == p.Resource }), *p)
	if p.Resource == "" {
		g.giveUpMove("it was stopped")
		g.disown("it was stopped")
		x.Tasks = slices.DeleteFunc(x.Tasks, func(t cluster.Task) bool { return t.Group == p.Group })
		return ""
	}
	s.task(cluster.Task{ID: id, Index: index, Verb: cluster.TaskStop, Group: p.Group, Resource: p.Resource})
	return ""
}

// start ends a stop. To start what is not stopped changes nothing.
func (s *State) start(index uint64, id string, p *cluster.Start) string {
	x := &s.Instructions
	i := slices.IndexFunc(x.Stopped, func(o cluster.Stop) bool { return o.Group == p.Group && o.Resource == p.Resource })
	if i < 0 {
		return "it is not stopped"
	}
	if p.Only != 0 && x.Stopped[i].Until != p.Only {
		return "it was stopped anew"
	}
	x.Stopped = slices.Delete(x.Stopped, i, i+1)
	if p.Resource != "" && id != "" {
		s.task(cluster.Task{ID: id, Index: index, Verb: cluster.TaskStart, Group: p.Group, Resource: p.Resource})
	}
	return ""
}

func (s *State) restart(index uint64, r *cluster.Restart) string {
	g := s.Group(r.Group)
	x := &s.Instructions
	switch {
	case g == nil:
		return "no such group"
	case g.Owner == "":
		return "nobody has the group"
	case g.Epoch != r.Epoch:
		return fmt.Sprintf("it was decided on epoch %d, the group is at %d", r.Epoch, g.Epoch)
	case x.Stop(r.Group, r.Resource) != nil:
		return "it was stopped " + x.Stop(r.Group, r.Resource).Note.String()
	}
	s.task(cluster.Task{ID: r.ID, Index: index, Verb: cluster.TaskRestart, Group: r.Group, Resource: r.Resource, Epoch: r.Epoch})
	return ""
}

// task adds a task, in place of those that it supersedes and of those whose time is over.
func (s *State) task(t cluster.Task) {
	x := &s.Instructions
	x.Tasks = slices.DeleteFunc(x.Tasks, func(o cluster.Task) bool {
		g := s.Group(o.Group)
		return g == nil || (o.Epoch != 0 && o.Epoch != g.Epoch) ||
			(o.Group == t.Group && o.Resource == t.Resource && o.Verb != cluster.TaskRestart && t.Verb != cluster.TaskRestart)
	})
	x.Tasks = append(x.Tasks, t)
	if len(x.Tasks) > tasksMax {
		x.Tasks = slices.Delete(x.Tasks, 0, 1)
	}
}

func (s *State) performed(p *cluster.Performed) string {
	x := &s.Instructions
	i := slices.IndexFunc(x.Tasks, func(t cluster.Task) bool { return t.ID == p.ID })
	if i < 0 {
		return "that task is not under way"
	}
	x.Tasks = slices.Delete(x.Tasks, i, i+1)
	s.answer(s.Applied, p.ID+doneSuffix, dropped(p.Reason))
	return ""
}

// doneSuffix marks the answer that tells how a task has ended, beside the one that it was taken.
const doneSuffix = "/done"

// Outcome returns how a task has ended, or nil while it has not.
func (s *State) Outcome(id string) *Asked { return s.Answer(id + doneSuffix) }

func dropped(reason string) []string {
	if reason == "" {
		return nil
	}
	return []string{reason}
}

// clear forgets the bans of a group, or those that one of its resources has brought about. What each node
// counts of local restarts, it forgets when it applies the same entry.
func (s *State) clear(c *cluster.Clear) string {
	g := s.Group(c.Group)
	if g == nil {
		return "no such group"
	}
	g.Bans = slices.DeleteFunc(g.Bans, func(b cluster.Ban) bool { return c.Resource == "" || b.Resource == c.Resource })
	g.Return.Failed = 0
	return ""
}

// giveUpMove ends a move that has not placed the group yet.
func (g *Group) giveUpMove(reason string) {
	if g.Move != nil && g.Move.Assigned == 0 {
		g.endMove(false, reason)
	}
}
