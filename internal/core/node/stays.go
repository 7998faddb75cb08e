package node

import (
	"fmt"
	"strings"

	"baton/internal/core/cluster"
	"baton/internal/core/decide"
)

// staysMax is of how many groups that stay on a drained node it is told why.
const staysMax = 5

// staysDrained says which groups a drain leaves where they are, why, and what to do.
func staysDrained(f *cluster.Facts, id cluster.NodeID, left []*cluster.GroupFacts) *Reply {
	var why, todo []string
	do := func(command string) {
		for _, t := range todo {
			if t == command {
				return
			}
		}
		todo = append(todo, command)
	}
	for _, g := range left[:min(len(left), staysMax)] {
		text := fmt.Sprintf("%s stays there: ", g.ID)
		switch pin, pause := f.Instructions.Pin(g.ID), f.Instructions.Pause(g.ID); {
		case pin != nil && pin.Node == id:
			text += fmt.Sprintf("it is pinned to %s %v", id, pin.Note.String())
			do("baton unpin " + string(g.ID))
		case pause != nil && pause.Group == "":
			text += fmt.Sprintf("everything is paused, %v", pause.Note.String())
			do("baton resume")
		case pause != nil:
			text += fmt.Sprintf("it is paused %v", pause.Note.String())
			do("baton resume " + string(g.ID))
		default:
			text += noOther(f, g)
			do("baton explain " + string(g.ID))
		}
		why = append(why, text)
	}
	if more := len(left) - staysMax; more > 0 {
		why = append(why, fmt.Sprintf("and %d more groups stay", more))
	}
	hint := strings.Join(todo, "; ") + "; the drain stands, and what can move later will"
	return refuse(hint, "%s is drained, but %s", id, strings.Join(why, "; "))
}

// noOther says why no other node takes a group over in a planned move.
func noOther(f *cluster.Facts, g *cluster.GroupFacts) string {
	var why []string
	for _, to := range f.Spec.Group(g.ID).Nodes {
		if r := decide.Refusal(f, g, to); to != g.Owner && r != "" {
			why = append(why, fmt.Sprintf("%s %s", to, r))
		}
	}
	if len(why) == 0 {
		return "no other node can take it"
	}
	return "no other node can take it (" + strings.Join(why, "; ") + ")"
}
