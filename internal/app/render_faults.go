package app

import (
	"cmp"
	"fmt"

	batonv1 "baton/api/v1"
)

// linksOf names what is not as it should be with a node's links. A link that this node itself can't use tells nothing
// of the others.
func (v statusView) linksOf(n *batonv1.Node) []string {
	var out []string
	for _, f := range n.Faults {
		switch from := v.tells(f); {
		case f.Link == twinFault || f.Link == writeFault: // told already
			continue
		case from == n.Name:
		case from == v.StatusResponse.Node:
			out = append(out, fmt.Sprintf("full packets to %s are lost on %s", n.Name, f.Link))
			continue
		default:
			out = append(out, fmt.Sprintf("full packets from %s to %s are lost on %s", from, n.Name, f.Link))
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
	if v.keepsFaults(n) {
		out = append(out, n.Name+" has a fault of its links or its gate")
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

// tells returns the node that tells of a fault.
func (v statusView) tells(f *batonv1.LinkFault) string { return cmp.Or(f.By, v.StatusResponse.Node) }

// keepsFaults tells whether a node has faults of which it could not be asked.
func (v statusView) keepsFaults(n *batonv1.Node) bool {
	if !n.Faulty || n.Name == v.StatusResponse.Node {
		return false
	}
	for _, other := range v.Nodes {
		for _, f := range other.Faults {
			if f.By == n.Name {
				return false
			}
		}
	}
	return true
}

// ownFault tells whether the node that looks can't use a link.
func (v statusView) ownFault(link string) bool {
	for _, n := range v.Nodes {
		for _, f := range n.Faults {
			if n.Name == v.StatusResponse.Node && v.tells(f) == n.Name && f.Link == link {
				return true
			}
		}
	}
	return false
}

// faultOf is one sentence about what a node can't use, or, of another one than that which looks, about the way there.
func (v statusView) faultOf(n *batonv1.Node, f *batonv1.LinkFault) string {
	if f.Link == twinFault {
		return fmt.Sprintf("%s: %s, says %s", n.Name, f.Text, v.tells(f))
	}
	if n.Name != v.tells(f) {
		return fmt.Sprintf("%s on link %s: %s", n.Name, f.Link, f.Text)
	}
	switch f.Link {
	case "":
		return n.Name + " can't take connections: " + f.Text
	case gateFault:
		return n.Name + "'s gate: " + f.Text
	case writeFault:
		return n.Name + ": " + f.Text
	}
	return fmt.Sprintf("%s can't use link %s: %s", n.Name, f.Link, f.Text)
}
