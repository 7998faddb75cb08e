package app

import (
	"fmt"
	"io"
	"time"

	batonv1 "baton/api/v1"
)

// standing says an instruction in a sentence.
func (v statusView) standing(i *batonv1.Instruction) string {
	name := i.Group
	if i.Resource != "" {
		name += "/" + i.Resource
	}
	var what string
	switch {
	case i.Verb == "pause" && i.Group == "":
		what = "everything is paused"
	case i.Verb == "pause":
		what = name + " is paused"
	case i.Verb == "pin":
		what = fmt.Sprintf("%s is pinned to %s", name, i.Node)
	case i.Verb == "drain":
		what = i.Node + " is drained"
	case i.Verb == "stop":
		what = name + " is stopped"
	default: // of a later version
		what = fmt.Sprintf("%s %s %s", i.Verb, name, i.Node)
	}
	what += " by " + i.By
	if i.Until.IsValid() {
		what += " until " + v.clock(i.Until.AsTime())
	}
	if i.Reason != "" {
		what += ": " + i.Reason
	}
	return what
}

// clock writes a time of the day of the status, or else with its day.
func (v statusView) clock(t time.Time) string {
	t = t.Local()
	day := "2006-01-02"
	if v.Time.IsValid() && v.Time.AsTime().Local().Format(day) != t.Format(day) {
		return t.Format(day + " 15:04")
	}
	return t.Format("15:04:05")
}

// instructed lists what people have said and still stands, a line each.
func (v statusView) instructed(w io.Writer) {
	for _, i := range v.Instructions {
		fmt.Fprintln(w, v.text(yellow, "Standing: "+v.standing(i)+"."))
	}
}

// about returns the instructions that concern a group: its own, those of all, and drains of its nodes.
func (v statusView) about(g *batonv1.Group) []string {
	var out []string
	for _, i := range v.Instructions {
		onNode := false
		for _, n := range g.Nodes {
			onNode = onNode || i.Verb == "drain" && i.Node == n.Node
		}
		if i.Group == g.Name || onNode || i.Verb == "pause" && i.Group == "" {
			out = append(out, v.standing(i))
		}
	}
	return out
}

// stopped tells whether a person has stopped a whole group.
func stopped(s *batonv1.StatusResponse, group string) bool {
	return stands(s, func(i *batonv1.Instruction) bool { return i.Verb == "stop" && i.Group == group && i.Resource == "" })
}

// paused tells whether a group is paused, or all are.
func paused(s *batonv1.StatusResponse, group string) bool {
	return stands(s, func(i *batonv1.Instruction) bool { return i.Verb == "pause" && (i.Group == group || i.Group == "") })
}

// drained tells whether a node is drained.
func drained(s *batonv1.StatusResponse, node string) bool {
	return stands(s, func(i *batonv1.Instruction) bool { return i.Verb == "drain" && i.Node == node })
}

func stands(s *batonv1.StatusResponse, which func(*batonv1.Instruction) bool) bool {
	for _, i := range s.Instructions {
		if which(i) {
			return true
		}
	}
	return false
}
