package node

import (
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// This file watches when groups cease to serve and serve again, so that the log can tell of outages. Every
// node watches, since each may come to coordinate; what is seen is evidence for people, and nothing but the
// record depends on it.

// watch is what this node has seen of one group's service.
type watch struct {
	seen  bool           // serving, and nothing was missed since
	node  cluster.NodeID // that was last seen serving
	run   cluster.RunID  // of its agent then
	epoch cluster.Epoch  // under which it served

	down     cluster.Instant // since when nobody serves; 0: somebody does, or it is not known
	silent   bool            // its end was not told, the node has fallen silent
	began    cluster.WallTime
	noticed  cluster.Instant // when the outage was noticed
	assigned cluster.Instant // when a newer placement was applied here; 0: none yet
	over     cluster.Instant // when every earlier placement was over; 0: not yet

	owed *cluster.Served // an outage that has ended and is not on record
}

// watchService brings what is known of a group's service into line with what was heard.
func (n *Node) watchService(i int) {
	w, st := &n.groups[i].watch, &n.state.Groups[i]
	k, epoch := n.server(i)
	switch {
	case k >= 0:
		if w.down == 0 && w.seen && (w.node != n.peers[k].id || w.epoch != epoch) {
			n.watchEnd(w) // it serves elsewhere already, and its end was missed
		}
		if w.down != 0 && !n.wentOn(w, k, epoch) {
			n.owe(w, i, k, epoch)
		}
		owed := w.owed
		*w = watch{seen: true, node: n.peers[k].id, run: n.peers[k].run, epoch: epoch, owed: owed}
	case w.down == 0 && w.seen:
		n.watchEnd(w)
	}
	if w.down == 0 {
		return
	}
	if w.assigned == 0 && st.Epoch > w.epoch && st.Owner != "" {
		w.assigned = n.now.Mono
	}
	if w.assigned != 0 && w.over == 0 && n.formerOver(i) {
		w.over = n.now.Mono
	}
}

// server returns the node that says that it serves the group, under the highest epoch; -1: none.
func (n *Node) server(i int) (node int, epoch cluster.Epoch) {
	node = -1
	for k := range n.peers {
		if k != n.self && n.peers[k].silentTold {
			continue
		}
		if r, ok := n.groupReport(k, i); ok && r.Phase == wire.PhaseServing && r.Epoch >= epoch {
			node, epoch = k, r.Epoch
		}
	}
	return node, epoch
}

// watchEnd notes that nobody serves any more. It was so since the node's last word where that node has
// fallen silent or booted anew, else since now.
func (n *Node) watchEnd(w *watch) {
	w.down, w.noticed = n.now.Mono, n.now.Mono
	if k := n.index(w.node); k >= 0 && k != n.self { // else it has left the cluster, or this is the node
		switch p := &n.peers[k]; {
		case p.run != w.run:
			w.down = p.formerAt
		case p.silentTold:
			w.down, w.silent = p.hbAt, true
		}
	}
	if w.down == 0 {
		w.down = n.now.Mono
	}
	w.began = n.now.Wall - cluster.WallTime(n.now.Mono.Sub(w.down))
}

// wentOn tells whether a service has only not been heard for a while: an owner whose lease ends never
// serves under the same epoch again.
func (n *Node) wentOn(w *watch, k int, epoch cluster.Epoch) bool {
	return w.silent && w.node == n.peers[k].id && w.run == n.peers[k].run && w.epoch == epoch
}

// formerOver tells whether every placement before the group's newest is over, as far as heard here.
func (n *Node) formerOver(i int) bool {
	st := &n.state.Groups[i]
	for _, t := range st.Tenures {
		if t.Epoch < st.Epoch && t.Node != st.Owner && !n.over(i, t) {
			return false
		}
	}
	return true
}

// owe notes an outage that has ended. One that is not on record yet is added to.
func (n *Node) owe(w *watch, i, k int, epoch cluster.Epoch) {
	noticed := max(w.noticed, w.down)
	assigned := noticed
	if w.assigned != 0 {
		assigned = max(w.assigned, noticed)
	}
	over := assigned
	if w.over != 0 {
		over = max(w.over, assigned)
	}
	st := &n.state.Groups[i]
	s := &cluster.Served{Group: st.ID, Node: n.peers[k].id, Epoch: epoch, Wall: n.now.Wall, Down: n.now.Mono.Sub(w.down), Planned: st.Service.Expected(w.began),
		Phases: cluster.Phases{Detected: noticed.Sub(w.down), Decided: assigned.Sub(noticed), Waited: over.Sub(assigned), Started: n.now.Mono.Sub(over)}}
	if w.owed != nil {
		s.Down += w.owed.Down
		s.Planned = s.Planned && w.owed.Planned
		s.Phases = cluster.Phases{} // of more than one outage
	}
	w.owed = s
}

// recorded notes that a Served was applied. A node that has not seen that end of the outage knows no more
// what is missing from the record, until it sees the group serve again.
func (n *Node) recorded(s *cluster.Served) {
	l := n.local(s.Group)
	if l == nil {
		return
	}
	if l.watch.owed != nil {
		l.watch.owed = nil
		return
	}
	if l.watch.down != 0 {
		l.watch = watch{}
	}
}

// restored forgets what was owed: the snapshot that was taken over tells of it, or of more.
func (n *Node) restored() {
	for i := range n.groups {
		if w := &n.groups[i].watch; w.down != 0 {
			*w = watch{}
		} else {
			w.owed = nil
		}
	}
}

// toRecord returns what is to be put on record of a group once its owner says that it serves, or nil.
func (n *Node) toRecord(i int) *cluster.Served {
	w, st := &n.groups[i].watch, &n.state.Groups[i]
	if !w.seen || w.down != 0 || w.epoch != st.Epoch {
		return nil
	}
	s := &cluster.Served{Group: st.ID, Node: w.node, Epoch: st.Epoch, Wall: n.now.Wall}
	switch {
	case w.owed != nil && st.Service.Epoch == st.Epoch && !n.wellFor(i, w.node, min(w.owed.Down, time.Minute)):
		return nil // in place: what comes and goes is one outage, not one for each attempt
	case w.owed != nil:
		*s = *w.owed
	case st.Service.Epoch >= st.Epoch:
		return nil
	case st.Service.Count > 0 && n.lived != 0:
		// Nobody who could tell has seen it end: the whole site was down, or this node began in the middle.
		s.Down, s.Rough = max(0, time.Duration(n.now.Wall-n.lived)), true
	}
	s.Count = st.Service.Count + 1
	return s
}

// wellFor tells whether a node has been fit to serve a group for some time.
func (n *Node) wellFor(i int, node cluster.NodeID, d time.Duration) bool {
	since := n.groups[i].fit[node]
	return since != 0 && n.now.Mono.Sub(since) >= d
}

// serviceView tells how a group has served so far.
func (n *Node) serviceView(i int) cluster.ServiceView {
	w, st := &n.groups[i].watch, &n.state.Groups[i]
	v := cluster.ServiceView{First: st.Service.First, Since: st.Service.Since, Planned: st.Service.Planned, Unplanned: st.Service.Unplanned, Moves: st.Service.Moves}
	switch k, _ := n.server(i); {
	case k >= 0:
	case w.down != 0:
		v.Down = n.now.Mono.Sub(w.down)
	case v.First != 0:
		v.Down = n.now.Mono.Sub(n.start)
	}
	return v
}

// roundTrip measures an answer on the link that it came over.
func (n *Node) roundTrip(i, link int, a *wire.Ack) {
	p := &n.peers[i]
	if a.Run != n.run || link < 0 || link >= len(p.trips) {
		return
	}
	at, ok := n.holder.SentAt(a.Seq)
	if !ok {
		return
	}
	took := n.now.Mono.Sub(at)
	if t := &p.trips[link]; *t == 0 {
		*t = took
	} else {
		*t = (7**t + took) / 8
	}
}
