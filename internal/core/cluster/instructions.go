package cluster

import (
	"fmt"
	"time"
)

// Instructions are the standing words of people, and what is still to be carried out of others, by the log.
type Instructions struct {
	Paused  []Pause `json:"paused,omitempty"`
	Pinned  []Pin   `json:"pinned,omitempty"`
	Drained []Drain `json:"drained,omitempty"`
	Stopped []Stop  `json:"stopped,omitempty"`
	Tasks   []Task  `json:"tasks,omitempty"` // oldest first
}

// Task is something that the node which has a group is to do there, once. A Performed ends it.
type Task struct {
	ID       string     `json:"id"`    // of the command
	Index    uint64     `json:"index"` // of its entry
	Verb     TaskVerb   `json:"verb"`
	Group    GroupID    `json:"group"`
	Resource ResourceID `json:"resource,omitempty"` // empty: all of them
	Epoch    Epoch      `json:"epoch,omitempty"`    // under which alone it is to be done; 0: under any
}

// TaskVerb is what a Task asks for.
type TaskVerb string

const (
	// TaskRestart stops and starts, in place.
	TaskRestart TaskVerb = "restart"
	// TaskStop and TaskStart wait until one resource is stopped, or runs; the Stop itself stands beside it.
	TaskStop  TaskVerb = "stop"
	TaskStart TaskVerb = "start"
)

// Performed puts on record that the node that has a group has carried a Task out, or that it can't.
type Performed struct {
	ID       string     `json:"id"` // of the task
	Verb     TaskVerb   `json:"verb"`
	Group    GroupID    `json:"group"`
	Resource ResourceID `json:"resource,omitempty"`
	Reason   string     `json:"reason,omitempty"` // why not; empty: it is done
}

// Pause returns what pauses a group: its own pause, else the pause of everything; nil: nothing does.
func (x *Instructions) Pause(g GroupID) *Pause {
	var all *Pause
	for i := range x.Paused {
		switch p := &x.Paused[i]; p.Group {
		case g:
			return p
		case "":
			all = p
		}
	}
	return all
}

// Pin returns a group's pin, or nil.
func (x *Instructions) Pin(g GroupID) *Pin {
	for i := range x.Pinned {
		if x.Pinned[i].Group == g {
			return &x.Pinned[i]
		}
	}
	return nil
}

// Drain returns a node's drain, or nil.
func (x *Instructions) Drain(n NodeID) *Drain {
	for i := range x.Drained {
		if x.Drained[i].Node == n {
			return &x.Drained[i]
		}
	}
	return nil
}

// Stop returns what keeps a group (r empty), or one resource of it, stopped; nil: nothing does. That the
// whole group is stopped says nothing of its resources here.
func (x *Instructions) Stop(g GroupID, r ResourceID) *Stop {
	for i := range x.Stopped {
		if x.Stopped[i].Group == g && x.Stopped[i].Resource == r {
			return &x.Stopped[i]
		}
	}
	return nil
}

// Forbids tells which instruction forbids that a group be placed on a node, or moved at all; empty: none.
func (x *Instructions) Forbids(g GroupID, to NodeID) string {
	if s := x.Stop(g, ""); s != nil {
		return "it was stopped " + s.Note.String()
	}
	if p := x.Pause(g); p != nil {
		return "it was paused " + p.Note.String()
	}
	if p := x.Pin(g); p != nil && p.Node != to {
		return fmt.Sprintf("it was pinned to %s %v", p.Node, p.Note.String())
	}
	return ""
}

// Task returns a task by the id of its command, or nil.
func (x *Instructions) Task(id string) *Task {
	for i := range x.Tasks {
		if x.Tasks[i].ID == id {
			return &x.Tasks[i]
		}
	}
	return nil
}

// Over tells whether the instruction's end has come.
func (n *Note) Over(now WallTime) bool { return n.Until != 0 && n.Until <= now }

// String tells who said so, for how long, and why: "by root until 2026-03-01 12:00 UTC (new kernel)".
func (n *Note) String() string {
	s := "by " + n.By
	if n.Until != 0 {
		s += " until " + time.Unix(0, int64(n.Until)).UTC().Format("2006-01-02 15:04:05 UTC")
	}
	if n.Reason != "" {
		s += fmt.Sprintf(" (%s)", n.Reason)
	}
	return s
}
