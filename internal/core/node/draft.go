package node

import (
	"fmt"
)

// draftEnded tells how a draft of the configuration has ended, if it has.
func (n *Node) draftEnded(w *askWork) (Reply, bool) {
	s, d := n.state, w.part.Draft
	switch {
	case s.DraftEnd != nil && s.DraftEnd.ID == d.ID && s.DraftEnd.Reason == "":
		return Reply{Done: true, Text: fmt.Sprintf("revision %d counts", s.DraftEnd.Revision)}, true
	case s.DraftEnd != nil && s.DraftEnd.ID == d.ID:
		return *refuse("change the file, and apply it again", "revision %d was given up: %s", s.DraftEnd.Revision, s.DraftEnd.Reason), true
	case s.Draft != nil && s.Draft.ID == d.ID:
		return Reply{}, false
	}
	return *refuse("baton config history", "revision %d was superseded meanwhile: the cluster is at %d", d.Base+1, s.Revision()), true
}
