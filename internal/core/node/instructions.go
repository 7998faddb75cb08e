package node

import (
	"slices"

	"baton/internal/core/cluster"
	"baton/internal/core/group"
)

// taskWork is a task that this node carries out.
type taskWork struct {
	id     string
	record uint64 // number of the Record after which a restart may begin
	begun  bool
	ended  bool            // it is to be told
	reason string          // why it could not be done
	at     cluster.Instant // when it is told next
}

// instructed takes note of an entry's instructions that concern what runs here.
func (n *Node) instructed(index uint64, e *cluster.Entry) {
	for _, p := range e.Parts {
		var g cluster.GroupID
		switch {
		case p.Clear != nil:
			if l := n.local(p.Clear.Group); l != nil && l.group != nil {
				l.group.Clear(p.Clear.Resource)
			}
			continue
		case p.Stop != nil:
			g = p.Stop.Group
		case p.Start != nil:
			g = p.Start.Group
		case p.Restart != nil:
			g = p.Restart.Group
		default:
			continue
		}
		rec := n.rec.Groups[g]
		if l := n.local(g); l == nil || l.group == nil || index <= rec.Instructed {
			continue // nothing of it is here, or a former run has acted on it
		}
		rec.Instructed = index
		n.rec.Groups[g] = rec
		n.recDue = true
		if p.Restart != nil && n.state.Instructions.Task(p.Restart.ID) != nil {
			n.tasks = append(n.tasks, taskWork{id: p.Restart.ID, record: n.recN + 1})
		}
	}
}

// heed adds to a group's situation what people have said of it. An owner that has yet to read again what it
// had acted on changes nothing: it would start what was stopped.
func (n *Node) heed(l *local, mine bool, s *group.Situation) {
	x, id := &n.state.Instructions, l.spec.ID
	if n.state.Applied < n.rec.Groups[id].Instructed && mine && !n.flawed(StoppedForgotten) {
		s.Keep, s.MayServe = true, false
		return
	}
	s.Stopped = x.Stop(id, "") != nil
	for i := range x.Stopped {
		if x.Stopped[i].Group == id && x.Stopped[i].Resource != "" {
			s.Held = append(s.Held, x.Stopped[i].Resource)
		}
	}
	for i := range x.Tasks {
		t := &x.Tasks[i]
		w := n.task(t.ID)
		if t.Group == id && mine && s.MayStart && w != nil && !w.begun && !w.ended && n.recOK >= w.record && t.Epoch == s.Epoch {
			w.begun = true
			l.group.Restart(t.Resource)
		}
	}
}

func (n *Node) task(id string) *taskWork {
	for i := range n.tasks {
		if n.tasks[i].id == id {
			return &n.tasks[i]
		}
	}
	return nil
}

// tendTasks notices which tasks of a group owned here have ended.
func (n *Node) tendTasks(l *local, mine bool, epoch cluster.Epoch) {
	x := &n.state.Instructions
	if !mine || len(x.Tasks) == 0 || n.state.Applied < n.rec.Groups[l.spec.ID].Instructed {
		return
	}
	for i := range x.Tasks {
		t := &x.Tasks[i]
		if t.Group != l.spec.ID {
			continue
		}
		w := n.task(t.ID)
		ended, reason := false, ""
		switch {
		case t.Verb == cluster.TaskStop:
			ended = l.group.Stopped(t.Resource)
		case t.Verb == cluster.TaskStart:
			ended = l.group.Runs(t.Resource, epoch)
		case t.Epoch != epoch:
		case w == nil:
			ended, reason = true, "the agent of "+string(n.id())+" restarted meanwhile: it may not have been carried out"
		case w.begun:
			ended = l.group.Runs(t.Resource, epoch)
		}
		if !ended {
			continue
		}
		if w == nil {
			n.tasks = append(n.tasks, taskWork{id: t.ID})
			w = &n.tasks[len(n.tasks)-1]
		}
		if !w.ended {
			w.ended, w.reason, w.at = true, reason, n.now.Mono
		}
	}
}

// tellTasks puts the end of each task into the log.
func (n *Node) tellTasks() {
	n.tasks = slices.DeleteFunc(n.tasks, func(w taskWork) bool { return n.state.Instructions.Task(w.id) == nil })
	var entries []cluster.Entry
	for i := range n.tasks {
		w := &n.tasks[i]
		if !w.ended || n.now.Mono < w.at {
			continue
		}
		w.at = n.now.Mono.Add(n.tryEvery())
		t := n.state.Instructions.Task(w.id)
		entries = append(entries, cluster.Entry{Wall: n.now.Wall, By: string(n.id()), Why: string(t.Verb) + " was asked for", ID: w.id + "/performed",
			Parts: []cluster.Part{{Performed: &cluster.Performed{ID: t.ID, Verb: t.Verb, Group: t.Group, Resource: t.Resource, Reason: w.reason}}}})
	}
	if len(entries) > 0 {
		n.propose(entries)
	}
}

// instructionViews lists people's standing instructions.
func (n *Node) instructionViews() []cluster.InstructionView {
	var out []cluster.InstructionView
	x := &n.state.Instructions
	for i := range x.Paused {
		out = append(out, cluster.InstructionView{Verb: "pause", Group: x.Paused[i].Group, Note: x.Paused[i].Note})
	}
	for i := range x.Pinned {
		out = append(out, cluster.InstructionView{Verb: "pin", Group: x.Pinned[i].Group, Node: x.Pinned[i].Node, Note: x.Pinned[i].Note})
	}
	for i := range x.Drained {
		out = append(out, cluster.InstructionView{Verb: "drain", Node: x.Drained[i].Node, Note: x.Drained[i].Note})
	}
	for i := range x.Stopped {
		s := &x.Stopped[i]
		out = append(out, cluster.InstructionView{Verb: "stop", Group: s.Group, Resource: s.Resource, Note: s.Note})
	}
	return out
}
