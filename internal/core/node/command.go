package node

import (
	"fmt"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/decide"
)

// moveWork is a move that was asked for here and is under way.
type moveWork struct {
	id       uint64
	move     cluster.Move
	by       string
	at       cluster.Instant // the next try, or look
	deadline cluster.Instant
}

// commandsMax is how many commands may be under way on one node.
const commandsMax = 128

// How long a command is pursued before its asker is told that it is still under way.
const (
	moveTimeout = time.Minute     // of a move, and of any command until it is in the log
	actTimeout  = 5 * time.Minute // of what the nodes then have to carry out
)

// tryEvery is how often a command is proposed again until it is in the log.
func (n *Node) tryEvery() time.Duration { return max(n.timing.H, n.timing.L/5) }

// command takes a person's request: it is refused with the reason, or proposed until the log has it.
func (n *Node) command(c *Command) {
	r := n.accept(c)
	if r != nil {
		r.ID = c.ID
		n.out.Replies = append(n.out.Replies, *r)
	}
}

// accept begins to pursue a command, or returns the answer to it.
func (n *Node) accept(c *Command) *Reply {
	if c.Op == OpForm {
		return n.formWithout(c)
	}
	if n.state == nil {
		return refuse("see baton status", "the cluster is still forming: %s", n.Waits())
	}
	key := fmt.Sprintf("%s-%x-%d", n.id(), uint64(n.run), c.ID)
	if under := len(n.moves) + len(n.asks); under >= commandsMax {
		return refuse("try again later", "%d commands are under way here, and no more are taken", under)
	}
	f := n.facts()
	if c.Op == OpPropose {
		w := askWork{id: c.ID, key: key, part: c.Part, by: c.By, why: c.Why, noWait: c.NoWait, at: n.now.Mono,
			deadline: n.now.Mono.Add(moveTimeout)}
		if r := instruct(f, &w); r != nil {
			return r
		}
		n.asks = append(n.asks, w)
		return nil
	}
	g := f.Group(c.Group)
	if g == nil {
		return noGroup(n.spec, c.Group)
	}
	move, r := Intend(f, g, c)
	if r != nil {
		return r
	}
	move.ID = key
	n.moves = append(n.moves, moveWork{id: c.ID, move: *move, by: c.By, at: n.now.Mono, deadline: n.now.Mono.Add(moveTimeout)})
	return nil
}

func refuse(hint, format string, args ...any) *Reply {
	return &Reply{Text: fmt.Sprintf(format, args...), Hint: hint}
}

// nothing answers a command that asks for what is so already.
func nothing(format string, args ...any) *Reply {
	return &Reply{Done: true, Text: fmt.Sprintf(format, args...) + ": nothing to do"}
}

// Intend works out the Move that a command asks for; or the answer, where none is needed or can be had.
func Intend(f *cluster.Facts, g *cluster.GroupFacts, c *Command) (*cluster.Move, *Reply) {
	to := c.To
	if c.Op == OpFailback {
		to = f.Spec.Group(g.ID).Nodes[0]
	}
	if to != "" && g.Owner == to {
		return nil, nothing("%s is on %s already", g.ID, to)
	}
	if r := contradicts(f, g, to); r != nil {
		return nil, r
	}
	if to == "" {
		if to = decide.Best(f, g); to == "" {
			return nil, refuse("baton explain "+string(g.ID), "no other node can take %s now", g.ID)
		}
	}
	if g.Move != nil {
		return nil, refuse("wait until it has ended: baton status --wait", "a move of %s to %s is under way", g.ID, g.Move.To)
	}
	if why := decide.Refusal(f, g, to); why != "" {
		hint := "baton status shows the nodes"
		switch {
		case f.Spec.Group(g.ID).Prefers(to) < 0:
			hint = nodesOf(f, g.ID, to)
		case decide.Banned(f, g, to):
			hint = "baton clear " + string(g.ID)
		}
		return nil, refuse(hint, "%s can't take %s: it %s", to, g.ID, why)
	}
	return &cluster.Move{Group: g.ID, From: g.Owner, To: to, Epoch: g.Epoch, Failback: c.Op == OpFailback}, nil
}

// contradicts tells which instruction a move contradicts, and which command lifts that; nil: none.
func contradicts(f *cluster.Facts, g *cluster.GroupFacts, to cluster.NodeID) *Reply {
	x := f.Instructions
	if s := x.Stop(g.ID, ""); s != nil {
		return refuse("baton start "+string(g.ID), "%s was stopped %v", g.ID, s.Note.String())
	}
	if p := x.Pause(g.ID); p != nil {
		return refusePaused(g.ID, p)
	}
	if p := x.Pin(g.ID); p != nil && (to != "" && p.Node != to || to == "" && p.Node == g.Owner) {
		return refuse("baton unpin "+string(g.ID), "%s is pinned to %s %v", g.ID, p.Node, p.Note.String())
	}
	if d := x.Drain(to); d != nil {
		return refuse("baton undrain "+string(to), "%s is drained %v", to, d.Note.String())
	}
	return nil
}

func refusePaused(g cluster.GroupID, p *cluster.Pause) *Reply {
	if p.Group == "" {
		return refuse("baton resume", "everything is paused, and so is %s, %v", g, p.Note.String())
	}
	return refuse("baton resume "+string(g), "%s is paused %v", g, p.Note.String())
}

// tendMoves pursues the moves that were asked for here.
func (n *Node) tendMoves() {
	n.moves = slices.DeleteFunc(n.moves, func(m moveWork) bool {
		r, done := n.moveEnded(&m)
		if done {
			n.out.Replies = append(n.out.Replies, r)
		}
		return done
	})
	for i := range n.moves {
		m := &n.moves[i]
		if n.now.Mono < m.at {
			continue
		}
		m.at = n.now.Mono.Add(n.tryEvery())
		if st := n.state.Group(m.move.Group); st.Move == nil {
			mv := m.move
			n.propose([]cluster.Entry{{Wall: n.now.Wall, By: m.by, Why: "asked for", Parts: []cluster.Part{{Move: &mv}}}})
		}
	}
}

// moveEnded tells how a move has ended, if it has.
func (n *Node) moveEnded(m *moveWork) (Reply, bool) {
	st := n.state.Group(m.move.Group)
	r := Reply{ID: m.id}
	switch {
	case st == nil:
		r.Text, r.Hint = fmt.Sprintf("%s is no longer in the configuration", m.move.Group), "baton history"
	case st.Ended != nil && st.Ended.ID == m.move.ID && st.Ended.Done:
		r.Done, r.Text = true, fmt.Sprintf("%s serves on %s, epoch %d", st.ID, m.move.To, st.Epoch)
	case st.Ended != nil && st.Ended.ID == m.move.ID:
		r.Text, r.Hint = fmt.Sprintf("the move of %s to %s failed: %s", st.ID, m.move.To, st.Ended.Reason), "baton explain "+string(st.ID)
	case st.Move != nil && st.Move.ID == m.move.ID && n.now.Mono < m.deadline:
		return r, false
	case st.Epoch != m.move.Epoch || (st.Move != nil && st.Move.ID != m.move.ID):
		r.Text, r.Hint = fmt.Sprintf("%s was moved otherwise meanwhile", st.ID), "baton history"
	case n.now.Mono >= m.deadline:
		r.Text, r.Hint = fmt.Sprintf("the move of %s to %s has not ended after %v", st.ID, m.move.To, moveTimeout), "baton explain "+string(st.ID)
	default:
		return r, false
	}
	return r, true
}

// nextCommand returns when a command of this node is to be looked at again.
func (n *Node) nextCommand() cluster.Instant {
	at := cluster.Never
	for i := range n.moves {
		at = min(at, n.moves[i].at)
	}
	for i := range n.asks {
		at = min(at, n.asks[i].at)
	}
	for i := range n.tasks {
		if n.tasks[i].ended {
			at = min(at, n.tasks[i].at)
		}
	}
	return at
}
