package sim

import (
	"hash/maphash"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/core/state"
)

// This file compares the replicated state of the nodes: whoever has applied the same entries holds the same state,
// with a line of history for each, and with the same revisions of the configuration.

// stateEvery is how many log indexes lie between two at which states are compared, besides snapshots and the end.
const stateEvery = 8

// agreed is what the first node to come there had.
type agreed struct {
	states    map[place]digest // by log index, the history left out: it is looked at line by line
	snapshots map[place]digest
	revisions map[cluster.Revision]string // their texts
	drafts    map[cluster.Revision]*cluster.Draft
	adopts    map[cluster.Revision]bool
	commands  map[string]bool // by id
	repeats   map[uint64]bool // log indexes of commands that came again: they take no effect, and leave no line
}

// place is a log index of a cluster: for a while there may be two, one of which a person has founded without a node.
type place struct {
	cluster string
	index   uint64
}

type digest struct {
	sum uint64
	by  int
}

// seed of the digests, which are compared within one process only.
var digestSeed = maphash.MakeSeed()

func (a *agreed) init() {
	a.states, a.snapshots = map[place]digest{}, map[place]digest{}
	a.revisions, a.drafts, a.adopts = map[cluster.Revision]string{}, map[cluster.Revision]*cluster.Draft{}, map[cluster.Revision]bool{}
	a.commands, a.repeats = map[string]bool{}, map[uint64]bool{}
}

// states looks at the state of a machine whose agent has applied something.
func (w *world) states(m *machine, out *node.Output) {
	a := &w.check.agreed
	for i := range out.Persists {
		if s := out.Persists[i].Snapshot; s != nil {
			w.agree(a.snapshots, m, s.Index, s.Data, "snapshot")
		}
	}
	n := len(out.Applied)
	if n == 0 || m.agent == nil {
		return
	}
	s := m.agent.State()
	if s == nil || s.IsBlank() {
		return
	}
	if (out.Applied[n-1].Index+w.plan.Seed)%stateEvery == 0 {
		w.compareStates(a.states, m, s, out.Applied[n-1].Index)
	}
	w.journal(m, s, out.Applied)
	w.lineage(m, s)
}

// compareStates compares a state with that of whoever came to the index first.
func (w *world) compareStates(by map[place]digest, m *machine, s *state.State, index uint64) {
	c := *s
	c.Journal = nil
	w.agree(by, m, index, c.Encode(), "state")
}

func (w *world) agree(by map[place]digest, m *machine, index uint64, data []byte, what string) {
	d := digest{maphash.Bytes(digestSeed, data), m.idx}
	at := place{index: index}
	if m.agent != nil && m.agent.State() != nil {
		at.cluster = m.agent.State().Founding.ID
	}
	first, ok := by[at]
	if !ok {
		by[at] = d
		return
	}
	if first.sum != d.sum && m.inc != w.machines[first.by].inc {
		w.fail("state", "the %s of %s at log index %d differs from that of %s", what, m.id, index, w.machines[first.by].id)
	} else if first.sum != d.sum {
		w.fail("state", "the %s of %s at log index %d differs from what it was in a former run", what, m.id, index)
	}
}

// compareAll compares at the end of a run, by the last entry that the state itself holds: a snapshot may be under
// way to the disk.
func (w *world) compareAll() {
	ends := map[place]digest{}
	for _, m := range w.machines {
		if m.agent != nil && m.agent.State() != nil && !m.agent.State().IsBlank() {
			w.compareStates(ends, m, m.agent.State(), m.agent.State().Applied)
		}
	}
}

// journal checks that each entry which was applied just now has left its line, in order.
func (w *world) journal(m *machine, s *state.State, entries []cluster.LogEntry) {
	w.notInVain(m, s)
	lines := s.Journal
	for i := len(entries) - 1; i >= 0; i-- {
		e := &entries[i]
		if len(e.Data) == 0 || w.check.agreed.repeats[e.Index] {
			continue
		}
		if len(lines) == 0 && len(s.Journal) < len(entries) && len(entries) > 128 {
			return // more at once than history keeps
		}
		if len(lines) == 0 || lines[len(lines)-1].Index != e.Index {
			w.fail("history", "entry %d (%s) leaves no line in the history of %s", e.Index, describe(e), m.id)
			return
		}
		lines = lines[:len(lines)-1]
	}
}

// vainMost is how many entries of the planner in a row may come too late to take effect. More of them are a planner
// that proposes the same again and again.
const vainMost = 20

// notInVain checks that the planner's newest entries do not all take no effect.
func (w *world) notInVain(m *machine, s *state.State) {
	n := len(s.Journal)
	if n < vainMost {
		return
	}
	for _, l := range s.Journal[n-vainMost:] {
		if l.Rule == "" || len(l.Did) > 0 || len(l.Dropped) == 0 {
			return
		}
	}
	w.fail("in vain", "the last %d entries took no effect on %s: %s (%s)", vainMost, m.id, s.Journal[n-1].Dropped[0], s.Journal[n-1].Rule)
}

// lineage checks the revisions that a node knows: each follows on the one before, and is the same everywhere.
func (w *world) lineage(m *machine, s *state.State) {
	if len(s.Revisions) == 0 {
		return
	}
	last := &s.Revisions[len(s.Revisions)-1]
	if m.revision == last.Revision {
		return
	}
	m.revision = last.Revision
	for i := range s.Revisions {
		r := &s.Revisions[i]
		if i > 0 && r.Revision != s.Revisions[i-1].Revision+1 {
			w.fail("revisions", "%s has revision %d after %d", m.id, r.Revision, s.Revisions[i-1].Revision)
		}
		a := &w.check.agreed
		text, ok := a.revisions[r.Revision]
		if !ok {
			a.revisions[r.Revision] = string(r.Text)
			if d := a.drafts[r.Revision-1]; r.Revision > 1 && (d == nil || string(d.Text) != string(r.Text) || !a.adopts[r.Revision-1]) {
				w.fail("revisions", "revision %d on %s is not the draft that was under way, or was not adopted", r.Revision, m.id)
			}
		} else if text != string(r.Text) {
			w.fail("revisions", "%s has another revision %d than others have", m.id, r.Revision)
		}
	}
}

// entry follows commands and drafts through the log.
func (a *agreed) entry(index uint64, e *cluster.Entry) {
	if e.ID != "" {
		if a.commands[e.ID] {
			a.repeats[index] = true
			return
		}
		a.commands[e.ID] = true
	}
	for _, p := range e.Parts {
		switch {
		case p.Draft != nil && a.drafts[p.Draft.Base] == nil:
			a.drafts[p.Draft.Base] = p.Draft
		case p.Drop != nil:
			delete(a.drafts, p.Drop.Base)
		case p.Adopt != nil:
			a.adopts[p.Adopt.Base] = true
		}
	}
}

// begin takes over the revisions that there were before the run.
func (a *agreed) begin(s *state.State) {
	for i := range s.Revisions {
		a.revisions[s.Revisions[i].Revision] = string(s.Revisions[i].Text)
	}
	if d := s.Draft; d != nil {
		a.drafts[d.Base] = &d.Draft
	}
}
