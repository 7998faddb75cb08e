package state

import (
	"fmt"
	"slices"

	"baton/internal/core/cluster"
)

// limits of what a state keeps of the configuration
const (
	revisionsMax = 16      // revisions kept for `config history` and `config rollback` …
	textsMax     = 4 << 20 // … and bytes of their texts together; the one that counts is kept whatever its size
	formerPast   = 4       // former boots kept of a node that was removed
	epochsMax    = 4096    // groups that were removed and whose epochs are known apart
	textMax      = 1 << 20 // bytes of one cluster file
)

// Reader reads a cluster file's text. It depends on the text alone.
type Reader func(text []byte) (*cluster.Spec, error)

// DraftEnd is how a draft ended.
type DraftEnd struct {
	ID       string           `json:"id"` // of the command
	Revision cluster.Revision `json:"revision"`
	Reason   string           `json:"reason,omitempty"` // of one that was given up; empty: it was adopted
}

// Revision returns the number of the configuration that counts.
func (s *State) Revision() cluster.Revision {
	if len(s.Revisions) == 0 {
		return 0
	}
	return s.Revisions[len(s.Revisions)-1].Revision
}

// Spec returns the configuration that counts.
func (s *State) Spec() *cluster.Spec { return s.spec }

// DraftSpec returns what the draft under way says, or why it can't be read; nil without a draft.
func (s *State) DraftSpec() (*cluster.Spec, error) {
	if s.Draft == nil {
		return nil, nil
	}
	if s.draftSpec == nil && s.draftErr == nil {
		s.draftSpec, s.draftErr = s.read(s.Draft.Text)
	}
	return s.draftSpec, s.draftErr
}

func (s *State) draft(e *cluster.Entry, d *cluster.Draft) string {
	switch {
	case d.Base != s.Revision():
		return fmt.Sprintf("it was made from revision %d, the cluster is at %d", d.Base, s.Revision())
	case s.Draft != nil:
		return fmt.Sprintf("a draft of revision %d is under way, by %s", s.Draft.Base+1, s.Draft.By)
	case s.DraftEnd != nil && s.DraftEnd.ID == d.ID:
		return "it has ended already"
	case len(d.Text) > textMax:
		return fmt.Sprintf("%d bytes, a cluster file has at most %d", len(d.Text), textMax)
	}
	s.Draft = &cluster.DraftText{Draft: *d, By: e.By, Wall: e.Wall}
	s.draftSpec, s.draftErr = nil, nil
	return ""
}

// drafted tells whether this is the draft under way.
func (s *State) drafted(base cluster.Revision, id string) bool {
	return s.Draft != nil && s.Draft.Base == base && (id == "" || s.Draft.ID == id)
}

// Unread tells why this version can't take the configuration that an entry adopts; nil: it can, or it adopts none.
func (s *State) Unread(c *cluster.Entry) error {
	for _, p := range c.Parts {
		if p.Adopt != nil && s.drafted(p.Adopt.Base, p.Adopt.Draft) {
			_, err := s.DraftSpec()
			return err
		}
	}
	return nil
}

func (s *State) adopt(a *cluster.Adopt) string {
	if !s.drafted(a.Base, a.Draft) {
		return "there is no such draft"
	}
	next, err := s.DraftSpec()
	cluster.Assert(err == nil, "revision %d, which other nodes have accepted, can't be read by this version: %v", a.Base+1, err)
	if waits := s.DraftWaits(next); waits != "" {
		return waits
	}
	d := s.Draft
	s.Revisions = append(s.Revisions, cluster.RevisionText{Revision: d.Base + 1, Text: d.Text, By: d.By, Wall: d.Wall, Comment: d.Comment})
	s.forgetRevisions()
	s.DraftEnd = &DraftEnd{ID: d.ID, Revision: d.Base + 1}
	s.Draft, s.draftSpec, s.draftErr = nil, nil, nil
	s.free(a.Base+1, next)
	s.fit(next)
	return ""
}

// forgetRevisions lets go of the oldest texts: a snapshot holds all that are kept, and must not grow with every change.
func (s *State) forgetRevisions() {
	keep, size := 0, 0
	for i := len(s.Revisions) - 1; i >= 0 && keep < revisionsMax; i-- {
		if size += len(s.Revisions[i].Text); size > textsMax && keep > 0 {
			break
		}
		keep++
	}
	s.Revisions = slices.Delete(s.Revisions, 0, len(s.Revisions)-keep)
}

func (s *State) drop(d *cluster.Drop) string {
	if !s.drafted(d.Base, d.Draft) {
		return "there is no such draft"
	}
	s.DraftEnd = &DraftEnd{ID: s.Draft.ID, Revision: d.Base + 1, Reason: d.Reason}
	s.Draft, s.draftSpec, s.draftErr = nil, nil, nil
	return ""
}

// DraftWaits tells what stands in the way of adopting a specification: what it removes is still in use.
// An empty answer: nothing.
func (s *State) DraftWaits(next *cluster.Spec) string {
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if next.Node(n.ID) != nil {
			continue
		}
		if n.Admitted || !n.Over(n.Number) {
			return fmt.Sprintf("%s still holds lease number %d", n.ID, n.Number)
		}
		m := s.Member(n.ID)
		if m == nil {
			continue
		}
		if id := s.Awaited(next); id != "" && s.Votes(m.Incarnation) {
			return fmt.Sprintf("%s keeps its vote until %s has one: %d voters must remain", n.ID, id, cluster.VotersMin)
		}
		return fmt.Sprintf("%s still belongs to the voters, or copies the log", n.ID)
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		spec := next.Group(g.ID)
		switch {
		case spec == nil && len(g.Tenures) > 0:
			return fmt.Sprintf("%s is not stopped yet", g.ID)
		case spec != nil:
			for _, t := range g.Tenures {
				if spec.Prefers(t.Node) < 0 {
					return fmt.Sprintf("%s is still on %s", g.ID, t.Node)
				}
			}
		}
	}
	return ""
}

// Awaited returns the node that must get its vote before a voter that a specification removes loses its own; empty:
// none. A voter that is down does no harm as the third.
func (s *State) Awaited(next *cluster.Spec) cluster.NodeID {
	if len(s.Set().Voters) > cluster.VotersMin {
		return ""
	}
	for i := range s.Nodes {
		id := s.Nodes[i].ID
		if m := s.Member(id); next.Node(id) != nil && (m == nil || !s.Votes(m.Incarnation)) {
			return id
		}
	}
	return ""
}

// fit brings the lists of nodes and groups into line with a specification. What stays keeps what is known
// of it; what is new begins with nothing.
func (s *State) fit(spec *cluster.Spec) {
	nodes := make([]Node, 0, len(spec.Nodes))
	for _, n := range spec.Nodes {
		if old := s.Node(n.ID); old != nil {
			nodes = append(nodes, *old)
			continue
		}
		nodes = append(nodes, Node{ID: n.ID})
	}
	for i := range s.Nodes {
		if old := &s.Nodes[i]; spec.Node(old.ID) == nil && old.Number > 0 {
			former := *old
			former.Past = former.Past[max(0, len(former.Past)-formerPast):]
			s.Former = append(s.Former, former)
		}
	}
	groups := make([]Group, 0, len(spec.Groups))
	for _, g := range spec.Groups {
		if old := s.Group(g.ID); old != nil {
			groups = append(groups, *old)
			continue
		}
		groups = append(groups, Group{ID: g.ID, Epoch: s.formerEpoch(g.ID)})
	}
	for i := range s.Groups {
		if old := &s.Groups[i]; spec.Group(old.ID) == nil {
			s.keepEpoch(old.ID, old.Epoch)
		}
	}
	for i := range nodes {
		if k := slices.IndexFunc(s.Former, func(n Node) bool { return n.ID == nodes[i].ID }); k >= 0 && nodes[i].Number == 0 {
			nodes[i] = s.Former[k] // lease numbers of a name only grow
			s.Former = slices.Delete(s.Former, k, k+1)
		}
	}
	s.Nodes, s.Groups, s.spec = nodes, groups, spec
	s.forgetInstructions()
}

// forgetInstructions drops what people said of nodes and groups that are no more.
func (s *State) forgetInstructions() {
	x := &s.Instructions
	gone := func(id cluster.GroupID) bool { return id != "" && s.Group(id) == nil }
	x.Paused = slices.DeleteFunc(x.Paused, func(p cluster.Pause) bool { return gone(p.Group) })
	x.Pinned = slices.DeleteFunc(x.Pinned, func(p cluster.Pin) bool { return gone(p.Group) || s.Node(p.Node) == nil })
	x.Drained = slices.DeleteFunc(x.Drained, func(d cluster.Drain) bool { return s.Node(d.Node) == nil })
	x.Stopped = slices.DeleteFunc(x.Stopped, func(p cluster.Stop) bool { return gone(p.Group) })
	x.Tasks = slices.DeleteFunc(x.Tasks, func(t cluster.Task) bool { return gone(t.Group) })
}

// GroupEpoch is the epoch that a group had when it was removed: should its name come back, its epochs go on.
type GroupEpoch struct {
	ID    cluster.GroupID `json:"id"`
	Epoch cluster.Epoch   `json:"epoch"`
}

func (s *State) formerEpoch(id cluster.GroupID) cluster.Epoch {
	for _, e := range s.Epochs {
		if e.ID == id {
			return e.Epoch
		}
	}
	return s.EpochFloor
}

func (s *State) keepEpoch(id cluster.GroupID, e cluster.Epoch) {
	s.Epochs = slices.DeleteFunc(s.Epochs, func(x GroupEpoch) bool { return x.ID == id })
	if e > 0 {
		s.Epochs = append(s.Epochs, GroupEpoch{id, e})
	}
	if len(s.Epochs) > epochsMax { // epochs only grow, so that of a name which is not known any more begins above them all
		s.EpochFloor = max(s.EpochFloor, s.Epochs[0].Epoch)
		s.Epochs = slices.Delete(s.Epochs, 0, 1)
	}
}
