package app

import (
	"fmt"

	batonv1 "baton/api/v1"
)

// linksOf names what is not as it should be with a node's links. A link that this node itself can't use tells nothing
// of the others.
func (v statusView) linksOf(n *batonv1.Node) []string {
	var out []string
	for _, f := range n.Faults {
		if n.Name != v.StatusResponse.Node {
			out = append(out, fmt.Sprintf("full packets to %s are lost on %s", n.Name, f.Link))
			continue
		}
		switch f.Link {
		case "":
			out = append(out, n.Name+" can't take connections")
			continue
		case gateFault:
			out = append(out, n.Name+"'s gate was taken off")
			continue
		}
		out = append(out, fmt.Sprintf("%s can't use link %s", n.Name, f.Link))
	}
	for i, l := range n.Links {
		switch {
		case l.Absent, v.ownFault(l.Link):
		case !l.Heard:
			out = append(out, fmt.Sprintf("%s was never heard on %s", n.Name, l.Link))
		case v.link(n, i).colour == red:
			out = append(out, fmt.Sprintf("%s is silent on %s", n.Name, l.Link))
		}
	}
	return out
}

// ownFault tells whether the node that looks can't use a link.
func (v statusView) ownFault(link string) bool {
	for _, n := range v.Nodes {
		for _, f := range n.Faults {
			if n.Name == v.StatusResponse.Node && f.Link == link {
				return true
			}
		}
	}
	return false
}

// faultOf is one sentence about what a node can't use, or, of another one than that which looks, about the way there.
func (v statusView) faultOf(n *batonv1.Node, f *batonv1.LinkFault) string {
	if n.Name != v.StatusResponse.Node {
		return fmt.Sprintf("%s on link %s: %s", n.Name, f.Link, f.Text)
	}
	switch f.Link {
	case "":
		return n.Name + " can't take connections: " + f.Text
	case gateFault:
		return n.Name + "'s gate: " + f.Text
	}
	return fmt.Sprintf("%s can't use link %s: %s", n.Name, f.Link, f.Text)
}
