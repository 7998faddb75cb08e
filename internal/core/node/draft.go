package node

import (
	"fmt"
	"slices"

	"baton/internal/core/cluster"
)

// draftWork is a draft of the configuration that a command of this node has asked for.
type draftWork struct {
	id       uint64
	draft    cluster.Draft
	by       string
	at       cluster.Instant // the next try
	deadline cluster.Instant // until it stands in the log
}

// draftCommand begins to propose a draft.
func (n *Node) draftCommand(c *Command) {
	n.drafts = append(n.drafts, draftWork{id: c.ID, draft: *c.Part.Draft, by: c.By, at: n.now.Mono, deadline: n.now.Mono.Add(moveTimeout)})
}

// tendDrafts proposes the drafts of this node until they stand in the log, and answers when they have ended.
func (n *Node) tendDrafts() {
	if n.state == nil {
		return
	}
	n.drafts = slices.DeleteFunc(n.drafts, func(w draftWork) bool {
		r, done := n.draftEnded(&w)
		if done {
			n.out.Replies = append(n.out.Replies, r)
		}
		return done
	})
	for i := range n.drafts {
		w := &n.drafts[i]
		if n.now.Mono < w.at {
			continue
		}
		w.at = n.now.Mono.Add(max(n.timing.H, n.timing.L/5))
		if n.state.Draft == nil {
			d := w.draft
			n.propose([]cluster.Entry{{Wall: n.now.Wall, By: w.by, Why: "asked for", Parts: []cluster.Part{{Draft: &d}}}})
		}
	}
}

// draftEnded tells how a draft has ended, if it has.
func (n *Node) draftEnded(w *draftWork) (Reply, bool) {
	s, r := n.state, Reply{ID: w.id}
	switch {
	case s.DraftEnd != nil && s.DraftEnd.ID == w.draft.ID && s.DraftEnd.Reason == "":
		r.Done, r.Text = true, fmt.Sprintf("revision %d counts", s.DraftEnd.Revision)
	case s.DraftEnd != nil && s.DraftEnd.ID == w.draft.ID:
		r.Text, r.Hint = fmt.Sprintf("revision %d was given up: %s", s.DraftEnd.Revision, s.DraftEnd.Reason), "change the file, and apply it again"
	case s.Draft != nil && s.Draft.ID == w.draft.ID:
		return r, false
	case s.Revision() != w.draft.Base:
		r.Text, r.Hint = fmt.Sprintf("it was made from revision %d, and another change came first: the cluster is at %d", w.draft.Base, s.Revision()), "baton config diff"
	case n.now.Mono >= w.deadline:
		r.Text, r.Hint = fmt.Sprintf("no majority has taken the change for %v", moveTimeout), "baton status"
	default:
		return r, false
	}
	return r, true
}
