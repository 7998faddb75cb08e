package app

import (
	"fmt"
	"slices"

	"baton/internal/core/cluster"
	"baton/internal/io/link"
)

// twinFault is the place of a fault of which links are not to blame: two machines run as the node in whose row it stands.
const twinFault = "(twin)"

const twinHint = "shut one of them down: a copy of a machine takes another name and address, with an empty data directory and baton join"

// twinText says who speaks as a node.
func twinText(x link.Twins) string {
	if a, b := x.From[0].Addr(), x.From[1].Addr(); a != b {
		return fmt.Sprintf("two machines run under this name, and are heard in turns: at %s and at %s, which began later", a, b)
	}
	return fmt.Sprintf("two machines run under this name, and are heard in turns, both at %s: one is a copy of the other", x.From[0].Addr())
}

// noteTwins tells the log of nodes as which two machines run.
func (a *agent) noteTwins(now []link.Twins) {
	before := swapped(&a.faults.twins, now)
	same := func(x link.Twins) func(link.Twins) bool { return func(y link.Twins) bool { return x.Node == y.Node } }
	for _, x := range now {
		if !slices.ContainsFunc(before, same(x)) {
			a.log.Error("two machines run as one node", "about", x.Node, "cause", twinText(x), "hint", twinHint)
		}
	}
	for _, x := range before {
		if !slices.ContainsFunc(now, same(x)) {
			a.log.Info("one machine alone runs as the node again", "about", x.Node)
		}
	}
}

// tellTwins says so in an overview.
func (a *agent) tellTwins(n *cluster.NodeView) {
	if p := a.faults.twins.Load(); p != nil {
		for _, x := range *p {
			if x.Node == n.ID {
				n.Faults = append(n.Faults, cluster.LinkFault{Link: twinFault, Text: twinText(x), Hint: twinHint})
			}
		}
	}
}
