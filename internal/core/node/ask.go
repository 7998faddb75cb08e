package node

import (
	"fmt"
	"strings"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/decide"
	"baton/internal/core/state"
	"baton/internal/core/wire"
)

// askWork is a part that was asked for here: proposed until the log has it, then watched until it is
// carried out.
type askWork struct {
	id       uint64
	key      string // the entry's id: however often it is proposed, it takes effect once
	part     cluster.Part
	by, why  string
	noWait   bool
	at       cluster.Instant // the next try, or look
	deadline cluster.Instant
	taken    bool            // it was applied
	stuck    cluster.Instant // since when the rest of a drain has had no other place; 0: it has one
}

// instruct completes the part of an ask from what is known, or answers it at once. Parts that are no
// instructions are proposed as they are.
func instruct(f *cluster.Facts, w *askWork) *Reply {
	switch p := &w.part; {
	case p.Draft != nil:
		c := *p.Draft
		c.ID = w.key
		p.Draft = &c
	case p.Pause != nil:
		c := *p.Pause
		c.By = w.by
		p.Pause = &c
		return known(f, c.Group, "", true)
	case p.Resume != nil:
		return instructResume(f, p.Resume)
	case p.Pin != nil:
		c := *p.Pin
		c.By = w.by
		p.Pin = &c
		return instructPin(f, p.Pin)
	case p.Unpin != nil:
		if r := known(f, p.Unpin.Group, "", false); r != nil || f.Instructions.Pin(p.Unpin.Group) != nil {
			return r
		}
		return nothing("%s is not pinned", p.Unpin.Group)
	case p.Drain != nil:
		c := *p.Drain
		c.By = w.by
		p.Drain = &c
		return instructDrain(f, c.Node)
	case p.Undrain != nil:
		if r := knownNode(f, p.Undrain.Node); r != nil || f.Instructions.Drain(p.Undrain.Node) != nil {
			return r
		}
		return nothing("%s is not drained", p.Undrain.Node)
	case p.Stop != nil:
		c := *p.Stop
		c.By = w.by
		p.Stop = &c
		return known(f, c.Group, c.Resource, false)
	case p.Start != nil:
		return instructStart(f, p.Start)
	case p.Restart != nil:
		c := *p.Restart
		c.ID = w.key
		p.Restart = &c
		return instructRestart(f, p.Restart)
	case p.Clear != nil:
		return known(f, p.Clear.Group, p.Clear.Resource, false)
	}
	return nil
}

// known refuses what names a group or a resource that does not exist.
func known(f *cluster.Facts, g cluster.GroupID, r cluster.ResourceID, all bool) *Reply {
	spec := f.Spec.Group(g)
	switch {
	case g == "" && all:
		return nil
	case spec == nil:
		return noGroup(f.Spec, g)
	case r != "" && spec.Resource(r) == nil:
		names := make([]string, len(spec.Resources))
		for i := range spec.Resources {
			names[i] = string(spec.Resources[i].ID)
		}
		return refuse("its resources are: "+strings.Join(names, ", "), "%s has no resource %q", g, r)
	}
	return nil
}

func knownNode(f *cluster.Facts, id cluster.NodeID) *Reply {
	if f.Spec.Node(id) == nil {
		return noNode(f.Spec, id)
	}
	return nil
}

func instructResume(f *cluster.Facts, p *cluster.Resume) *Reply {
	if r := known(f, p.Group, "", true); r != nil {
		return r
	}
	x := f.Instructions.Pause(p.Group)
	switch {
	case x == nil && p.Group == "":
		return nothing("not everything is paused")
	case x == nil:
		return nothing("%s is not paused", p.Group)
	case x.Group != p.Group:
		return refusePaused(p.Group, x)
	}
	return nil
}

func instructPin(f *cluster.Facts, p *cluster.Pin) *Reply {
	if r := known(f, p.Group, "", false); r != nil {
		return r
	}
	g := f.Group(p.Group)
	if f.Spec.Group(p.Group).Prefers(p.Node) < 0 {
		return refuse(nodesOf(f, p.Group, p.Node), "%s is not among the nodes of %s", p.Node, p.Group)
	}
	if g.Owner == "" || g.Owner == p.Node {
		return nil
	}
	// It will have to move there.
	if x := f.Instructions.Pause(p.Group); x != nil {
		return refusePaused(p.Group, x)
	}
	if x := f.Instructions.Drain(p.Node); x != nil {
		return refuse("baton undrain "+string(p.Node), "%s is drained %v", p.Node, x.Note.String())
	}
	asIf := *f
	pinned := *f.Instructions
	pinned.Pinned = []cluster.Pin{*p}
	asIf.Instructions = &pinned
	if why := decide.Refusal(&asIf, g, p.Node); why != "" {
		return refuse("baton status shows the nodes", "%s can't take %s: it %s", p.Node, p.Group, why)
	}
	return nil
}

func instructDrain(f *cluster.Facts, id cluster.NodeID) *Reply {
	if r := knownNode(f, id); r != nil {
		return r
	}
	if f.Spec.Node(id).Role == cluster.Witness {
		return refuse("baton status shows the nodes", "%s is a witness: nothing runs there that could be moved", id)
	}
	return nil
}

func instructStart(f *cluster.Facts, p *cluster.Start) *Reply {
	if r := known(f, p.Group, p.Resource, false); r != nil {
		return r
	}
	if f.Instructions.Stop(p.Group, p.Resource) == nil {
		return nothing("%s is not stopped", named(p.Group, p.Resource))
	}
	if s := f.Instructions.Stop(p.Group, ""); s != nil && p.Resource != "" {
		return refuse("baton start "+string(p.Group), "all of %s was stopped %v", p.Group, s.Note.String())
	}
	if x := f.Instructions.Pause(p.Group); x != nil && p.Resource == "" {
		return refusePaused(p.Group, x) // nobody would place it
	}
	return nil
}

func instructRestart(f *cluster.Facts, p *cluster.Restart) *Reply {
	if r := known(f, p.Group, p.Resource, false); r != nil {
		return r
	}
	g := f.Group(p.Group)
	for _, r := range []cluster.ResourceID{"", p.Resource} {
		if s := f.Instructions.Stop(p.Group, r); s != nil {
			return refuse("baton start "+named(p.Group, r), "%s was stopped %v", named(p.Group, r), s.Note.String())
		}
	}
	switch {
	case g.Owner == "":
		return refuse("baton explain "+string(g.ID), "nobody serves %s", g.ID)
	case g.Move != nil:
		return refuse("wait until it has ended: baton status --wait", "a move of %s to %s is under way", g.ID, g.Move.To)
	case !f.Node(g.Owner).Fresh:
		return refuse("baton explain "+string(g.ID), "%s, which has %s, is not heard", g.Owner, g.ID)
	}
	p.Epoch = g.Epoch
	return nil
}

// named writes a group, or a resource of it, as commands take it.
func named(g cluster.GroupID, r cluster.ResourceID) string {
	if r == "" {
		return string(g)
	}
	return string(g) + "/" + string(r)
}

// tendAsks pursues what was asked for here, and tells how tasks carried out here have ended.
func (n *Node) tendAsks() {
	if n.state == nil {
		return
	}
	under := n.asks[:0]
	for _, w := range n.asks {
		if !n.tendAsk(&w) {
			under = append(under, w)
		}
	}
	n.asks = under
	var entries []cluster.Entry
	for i := range n.asks {
		w := &n.asks[i]
		if n.now.Mono < w.at {
			continue
		}
		w.at = n.now.Mono.Add(max(n.tryEvery(), w.carriage()))
		if !w.taken {
			why := w.why
			if why == "" {
				why = "asked for"
			}
			entries = append(entries, cluster.Entry{Wall: n.now.Wall, By: w.by, Why: why, ID: w.key, Parts: []cluster.Part{w.part}})
		}
	}
	if len(entries) > 0 {
		n.propose(entries)
	}
	n.tellTasks()
}

// carriage is how long a large text is given to get into the log before it is proposed again: at 1 MB/s.
func (w *askWork) carriage() time.Duration {
	if w.part.Draft == nil {
		return 0
	}
	return time.Duration(len(w.part.Draft.Text)) * time.Microsecond
}

// tendAsk looks how far a command is; it reports whether that has been answered.
func (n *Node) tendAsk(w *askWork) bool {
	r, ended := Reply{}, false
	if n.flawed(ReplyEarly) && !w.taken && n.now.Mono < w.at {
		n.out.Replies = append(n.out.Replies, Reply{ID: w.id, Done: true})
		return true
	}
	if !w.taken {
		a := n.state.Answer(w.key)
		switch {
		case a != nil && a.Dropped != "":
			r, ended = *refuse("baton history shows what came first", "it was not done: %s", a.Dropped), true
		case a != nil:
			w.taken, w.deadline = true, n.now.Mono.Add(actTimeout)
		case n.now.Mono >= w.deadline:
			r, ended = *refuse("baton status tells whether there is a majority; it may still come", "%v: not in the log after %v", w.part, moveTimeout), true
		}
	}
	if w.taken {
		if r, ended = n.carriedOut(w); w.noWait && !ended {
			r, ended = Reply{UnderWay: true, Text: w.part.String() + ": under way"}, true
		}
		if !ended && n.now.Mono >= w.deadline {
			r, ended = *refuse("baton status", "%v: still under way after %v", w.part, actTimeout), true
		}
	}
	if ended {
		r.ID = w.id
		n.out.Replies = append(n.out.Replies, r)
	}
	return ended
}

// carriedOut tells whether what is in the log has been carried out.
func (n *Node) carriedOut(w *askWork) (Reply, bool) {
	switch p := &w.part; {
	case p.Draft != nil:
		return n.draftEnded(w)
	case p.Stop != nil:
		return n.stopEnded(w.key, p.Stop)
	case p.Start != nil && p.Start.Resource == "":
		return n.serves(p.Start.Group, "")
	case p.Start != nil:
		return n.taskEnded(w.key, p.Start.Group, named(p.Start.Group, p.Start.Resource)+" runs again", 0)
	case p.Restart != nil:
		return n.taskEnded(w.key, p.Restart.Group, named(p.Restart.Group, p.Restart.Resource)+" was restarted", p.Restart.Epoch)
	case p.Drain != nil:
		return n.drainEnded(w)
	case p.Pin != nil && n.state.Group(p.Pin.Group) != nil && n.state.Group(p.Pin.Group).Owner != "":
		r, ended := n.serves(p.Pin.Group, p.Pin.Node)
		if r.Done {
			r.Text = n.done(p)
		}
		return r, ended
	}
	return Reply{Done: true, Text: n.done(&w.part)}, true
}

// done says that a part took effect.
func (n *Node) done(p *cluster.Part) string {
	span := func(x *cluster.Note) string {
		if x.Until == 0 {
			return "until that is taken back"
		}
		return fmt.Sprintf("for %v", max(time.Duration(x.Until-n.now.Wall), 0).Round(time.Second))
	}
	switch {
	case p.Pause != nil && p.Pause.Group == "":
		return "everything is paused " + span(&p.Pause.Note)
	case p.Pause != nil:
		return fmt.Sprintf("%s is paused %s", p.Pause.Group, span(&p.Pause.Note))
	case p.Resume != nil && p.Resume.Group == "":
		if len(n.state.Instructions.Paused) == 0 {
			return "nothing is paused any more"
		}
		return "nothing is paused any more but what was paused by name"
	case p.Resume != nil:
		return string(p.Resume.Group) + " is paused no longer"
	case p.Pin != nil:
		return fmt.Sprintf("%s is pinned to %s %s", p.Pin.Group, p.Pin.Node, span(&p.Pin.Note))
	case p.Unpin != nil:
		return string(p.Unpin.Group) + " is pinned no longer"
	case p.Undrain != nil:
		return string(p.Undrain.Node) + " may be given groups again"
	case p.Clear != nil:
		return "nothing is held against " + named(p.Clear.Group, p.Clear.Resource) + " any more"
	}
	return p.String()
}

// serves tells whether a group serves, on a certain node unless that is empty.
func (n *Node) serves(id cluster.GroupID, on cluster.NodeID) (Reply, bool) {
	i, st := n.groupAt(id)
	switch {
	case st == nil:
		return gone(id), true
	case n.state.Instructions.Stop(id, "") != nil:
		return *refuse("baton history", "%s was stopped meanwhile", id), true
	case st.Owner == "" || (on != "" && st.Owner != on):
		return Reply{}, false
	}
	r, ok := n.groupReport(n.index(st.Owner), i)
	if !ok || r.Epoch != st.Epoch || r.Phase != wire.PhaseServing {
		return Reply{}, false
	}
	return Reply{Done: true, Text: fmt.Sprintf("%s serves on %s, epoch %d", id, st.Owner, st.Epoch)}, true
}

func gone(id cluster.GroupID) Reply {
	return *refuse("baton history", "%s is no longer in the configuration", id)
}

// stopEnded tells whether nothing of what was stopped runs any more, as far as nodes are heard.
func (n *Node) stopEnded(key string, p *cluster.Stop) (Reply, bool) {
	i, st := n.groupAt(p.Group)
	switch {
	case st == nil:
		return gone(p.Group), true
	case n.state.Instructions.Stop(p.Group, p.Resource) == nil:
		return *refuse("baton history", "%s was started again meanwhile", named(p.Group, p.Resource)), true
	case p.Resource != "" && st.Owner == "":
		return Reply{Done: true, Text: named(p.Group, p.Resource) + " is to stay stopped; nobody serves " + string(p.Group)}, true
	case p.Resource != "":
		return n.taskEnded(key, p.Group, named(p.Group, p.Resource)+" is stopped", 0)
	case len(st.Tenures) > 0:
		return Reply{}, false
	}
	for _, id := range n.groups[i].spec.Nodes {
		k := n.index(id)
		r, ok := n.groupReport(k, i)
		if k != n.self && !n.peers[k].det.Fresh(n.now.Mono) {
			continue // its lease is over: st.Tenures is empty
		}
		if (!ok || r.Phase != wire.PhaseStopped) && !n.flawed(StopToldEarly) {
			return Reply{}, false
		}
	}
	return Reply{Done: true, Text: string(p.Group) + " is stopped"}, true
}

// taskEnded tells how a task has ended. epoch, unless 0, is the one that it was bound to.
func (n *Node) taskEnded(key string, id cluster.GroupID, text string, epoch cluster.Epoch) (Reply, bool) {
	_, st := n.groupAt(id)
	if st == nil {
		return gone(id), true
	}
	switch a := n.state.Outcome(key); {
	case a != nil && a.Dropped != "":
		return *refuse("baton explain "+string(id), "%s", a.Dropped), true
	case a != nil:
		return Reply{Done: true, Text: text}, true
	case epoch != 0 && epoch != st.Epoch, epoch != 0 && st.Owner == "":
		return *refuse("baton explain "+string(id), "%s did not come back on its node, or was moved meanwhile", id), true
	case n.state.Instructions.Task(key) == nil:
		return *refuse("baton history", "another command came in between"), true
	}
	return Reply{}, false
}

// drainEnded tells whether nothing is left on a drained node but what has no other place.
func (n *Node) drainEnded(w *askWork) (Reply, bool) {
	id := w.part.Drain.Node
	if n.state.Instructions.Drain(id) == nil {
		return *refuse("baton history", "%s is no longer drained", id), true
	}
	f := n.facts()
	var left []*cluster.GroupFacts
	stuck := true
	for i := range f.Groups {
		g := &f.Groups[i]
		for _, t := range n.state.Groups[i].Tenures {
			if t.Node == id && (t.Epoch != g.Epoch || g.Owner != id) {
				stuck = false // it hands over
			}
		}
		if g.Owner == id {
			left = append(left, g)
			stuck = stuck && decide.Stuck(f, g)
		} else if g.Move != nil && g.Move.From == id {
			stuck = false // until the target serves
		}
	}
	switch {
	case len(left) == 0 && stuck:
		return Reply{Done: true, Text: string(id) + " is drained: nothing is left on it"}, true
	case len(left) == 0 || !stuck:
		w.stuck = 0
		return Reply{}, false
	case w.stuck == 0:
		w.stuck = n.now.Mono
	}
	if n.now.Mono.Sub(w.stuck) < n.lastingFor() {
		return Reply{}, false
	}
	return *staysDrained(f, id, left), true
}

// groupAt returns a group's place and its state; nil if it does not exist any more.
func (n *Node) groupAt(id cluster.GroupID) (int, *state.Group) {
	for i := range n.state.Groups {
		if n.state.Groups[i].ID == id {
			return i, &n.state.Groups[i]
		}
	}
	return -1, nil
}
