package node

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// This file is a person's word for founding the cluster though nodes can't be reached: `baton form --without`.
//
// There must be one founding record all the same, and the node that can't be reached may be writing another
// one just now. So the first of the rest by name, to whom it is said, notes durably without whom it founds,
// and asks the others to agree. Who agrees notes that durably, too, and takes no record from then on but that
// of the first of the rest, or what that one hands on. All of the rest must have agreed, and they are a majority of the file's nodes: a
// record of anybody else has a minority. (Whoever founds writes or takes one record at the most, so those who
// agreed take from it what it took.) Told two things, nodes agree to the earlier founder once the later one has. For whom it was founded without, the record holds an incarnation that
// nobody has, so a majority of all the file's nodes goes on being needed; such a node is let in when it comes,
// like one whose disk was lost.

// formWork is a command to found the cluster that waits for its answer.
type formWork struct {
	id       uint64
	deadline cluster.Instant
}

// listed tells whether a node stands in a list of those to do without.
func listed(without string, id cluster.NodeID) bool {
	return without != "" && slices.Contains(strings.Split(without, ","), string(id))
}

// without says whom a cluster is founded without, to stand after the word.
func without(list string) string {
	if list == "" {
		return ""
	}
	return " without " + strings.ReplaceAll(list, ",", ", ")
}

// nobodys is the incarnation that a record holds for a node without which the cluster is founded.
func nobodys(id string, node cluster.NodeID) cluster.Incarnation {
	sum := sha256.Sum256([]byte(id + " without " + string(node)))
	return cluster.Incarnation(binary.LittleEndian.Uint64(sum[:]) | 1)
}

// founder returns the node that founds the cluster without others: the first of the rest by name.
func (n *Node) founder(without string) int {
	for i := range n.spec.Nodes {
		if !listed(without, n.spec.Nodes[i].ID) {
			return i
		}
	}
	return 0
}

// formWithout takes a person's word to found the cluster without some nodes.
func (n *Node) formWithout(c *Command) *Reply {
	if n.founding == nil || n.founding.pending {
		return refuse("baton status", "%s belongs to a cluster already", n.id())
	}
	if id, ok := n.member(); ok {
		return refuse("baton status --wait", "%s belongs to a cluster already: %s is let in there", id, n.id())
	}
	var names []string
	for _, id := range c.Without {
		i := n.index(id)
		switch {
		case i < 0:
			return noNode(n.spec, id)
		case i == n.self:
			return refuse("say it on another node", "the cluster can't be founded without the node that founds it")
		case n.peers[i].askedAt != 0 && n.now.Mono.Sub(n.peers[i].askedAt) <= 5*n.askEvery():
			return refuse("baton status", "%s is heard: there is no need to do without it", id)
		case !slices.Contains(names, string(id)):
			names = append(names, string(id))
		}
	}
	slices.Sort(names)
	list, all := strings.Join(names, ","), len(n.spec.Nodes)
	switch {
	case len(names) == 0:
		return refuse("baton form --without NODE", "no node is named to do without")
	case all-len(names) < cluster.Quorum(all):
		return refuse("start the agents of more nodes", "%d of %d nodes are no majority: others could found the cluster anew", all-len(names), all)
	}
	if first := n.founder(list); first != n.self {
		id := n.spec.Nodes[first].ID
		return refuse("on "+string(id)+": baton form --without "+strings.Join(names, " --without "), "the cluster would be founded by %s, the first of the rest: say it there", id)
	}
	if had := n.founder(n.notes.Without); n.notes.Without != "" && had != n.self {
		return refuse("stop the agent, move its data directory away (nothing is in it yet), and start it again",
			"%s has agreed that its cluster be founded%s by %s", n.id(), without(n.notes.Without), n.spec.Nodes[had].ID)
	}
	n.noteWithout(list)
	n.forms = append(n.forms, formWork{c.ID, n.now.Mono.Add(moveTimeout)})
	return nil
}

func (n *Node) noteWithout(list string) {
	n.notes.Without = list
	n.writeNotes()
}

// agree takes a node's word that it founds the cluster without others, if this node is none of them and has
// not agreed to another founder.
func (n *Node) agree(i int, a *wire.Ask) {
	if n.founding == nil || n.founding.pending || !a.Empty || a.Without == "" || a.Without == n.notes.Without || a.File != n.file {
		return
	}
	known := 0
	for k := range n.spec.Nodes {
		if !listed(a.Without, n.spec.Nodes[k].ID) {
			known++
		}
	}
	if known < cluster.Quorum(len(n.spec.Nodes)) || listed(a.Without, n.name) || n.founder(a.Without) != i || n.self == i {
		return
	}
	if had := n.founder(n.notes.Without); n.notes.Without != "" && had != i && !(i < had && n.yields(had)) {
		return
	}
	n.noteWithout(a.Without)
	n.event("forming.without", n.peers[i].id, "%s founds the cluster%s: this node has agreed to that", n.peers[i].id, without(a.Without))
}

// yields tells whether a node that was to found the cluster has agreed to an earlier one. Nobody ever agrees to
// a later one, so it stays true.
func (n *Node) yields(i int) bool {
	return i == n.self || (n.peers[i].asked.Without != "" && n.founder(n.peers[i].asked.Without) < i)
}

// disagrees says why a node that is heard does not found the cluster with this one.
func (n *Node) disagrees(p *peer) string {
	if p.asked.Without == "" {
		return fmt.Sprintf("%s has not agreed yet that the cluster be founded%s", p.id, without(n.durable.Without))
	}
	by := n.spec.Nodes[n.founder(p.asked.Without)].ID
	if listed(p.asked.Without, n.name) {
		return fmt.Sprintf("%s founds it%s, as it was told: this node is let in then", by, without(p.asked.Without))
	}
	return fmt.Sprintf("%s has agreed that it be founded%s by %s", p.id, without(p.asked.Without), by)
}

// tendForms answers commands whose time is over. The wish stands.
func (n *Node) tendForms() {
	n.forms = slices.DeleteFunc(n.forms, func(w formWork) bool {
		if n.now.Mono < w.deadline {
			return false
		}
		r := refuse("baton status tells what it waits for; it goes on by itself", "the cluster is not founded after %v: %s", moveTimeout, n.Waits())
		r.ID = w.id
		n.out.Replies = append(n.out.Replies, *r)
		return true
	})
}

// formed answers the commands that asked for the cluster's founding.
func (n *Node) formed(rec *cluster.Founding) {
	for _, w := range n.forms {
		n.out.Replies = append(n.out.Replies, Reply{ID: w.id, Done: true, Text: fmt.Sprintf("the cluster %s is founded%s", rec.ID, without(rec.Without))})
	}
	n.forms = nil
}

// awaited tells whether a node is one without which the cluster was founded, and which has not been let in yet.
func (n *Node) awaited(p *peer) bool {
	return n.state != nil && listed(n.state.Founding.Without, p.id) && p.inc == nobodys(n.state.Founding.ID, p.id)
}

// otherwise tells of a node that has founded the cluster by itself while it could not be reached.
func (n *Node) otherwise(p *peer) {
	if n.awaited(p) {
		n.once("otherwise "+string(p.id), "founding.other", p.id, "%s, without which the cluster was founded, founded it as well, in vain: "+
			"stop its agent, move its data directory away, and start it again to have it let in", p.id)
	}
}
