// Package state is the replicated state: what every node knows once it has applied the same entries.
// Apply is the only way to change it, and depends on nothing but the state and the entry.
package state

import (
	"encoding/json"
	"fmt"
	"slices"

	"baton/internal/core/cluster"
)

// limits of what a state keeps
const (
	journalMax  = 1024    // entries kept for `history`: a takeover of 500 groups makes some 500 …
	journalSize = 1 << 20 // … and of their texts, bytes: one that evicts the owner of 500 groups has some 50,000
	pastMax     = 64      // former boots kept per node
)

// State is the replicated state.
type State struct {
	Founding cluster.Founding `json:"founding"`
	Applied  uint64           `json:"applied"` // log index of the last entry applied
	Nodes    []Node           `json:"nodes"`   // in the order of the specification
	Groups   []Group          `json:"groups"`  // in the order of the specification
	Journal  []cluster.Line   `json:"journal"`
	Tokens   []cluster.Token  `json:"tokens,omitempty"`

	Revisions []cluster.RevisionText `json:"revisions"` // oldest first; the last one counts
	Draft     *cluster.DraftText     `json:"draft,omitempty"`
	DraftEnd  *DraftEnd              `json:"draft_end,omitempty"` // how the last draft ended
	Sets      []VoterSet             `json:"sets"`                // oldest first; the last one is in force
	Members   []Member               `json:"members"`             // who has a copy of the log
	Former    []Node                 `json:"former,omitempty"`    // nodes that were removed: their numbers only grow
	Epochs    []GroupEpoch           `json:"epochs,omitempty"`    // of groups that were removed
	// EpochFloor is the highest epoch of the removed groups that Epochs has no room for.
	EpochFloor cluster.Epoch `json:"epoch_floor,omitempty"`
	Freed      []Freed       `json:"freed,omitempty"` // addresses that revisions took from groups

	Instructions cluster.Instructions `json:"instructions"`
	Asked        []Asked              `json:"asked,omitempty"` // answers to commands, oldest first

	flaws     Flaws
	lines     int // bytes that Journal has, about; 0: not counted yet
	read      Reader
	spec      *cluster.Spec // of the revision that counts
	draftSpec *cluster.Spec
	draftErr  error
}

// Flaws are planted bugs, for the tests of the simulator only.
type Flaws struct {
	EvictKeepsOwner bool
	ApplyStale      bool
	Heedless        bool // what people forbade is not heeded
	Swap            bool // two voters change in one entry
	JournalLost     bool // an entry of which a part is dropped leaves no line
}

// Node is a node's lease by the log.
type Node struct {
	ID          cluster.NodeID      `json:"id"`
	Incarnation cluster.Incarnation `json:"incarnation"` // that it was last admitted under
	Boot        cluster.BootID      `json:"boot"`
	Number      cluster.Number      `json:"number"` // the newest given
	Admitted    bool                `json:"admitted"`
	Ended       cluster.Number      `json:"ended"` // this number and all below are over
	AdmitIndex  uint64              `json:"admit_index"`
	EvictIndex  uint64              `json:"evict_index"` // of its newest Evict
	Past        []Past              `json:"past"`        // former Admits: their packets are late ones
}

// Past is an incarnation and boot that a node was once admitted under.
type Past struct {
	Incarnation cluster.Incarnation `json:"incarnation"`
	Boot        cluster.BootID      `json:"boot"`
}

// Over tells whether the number is over by the log.
func (n *Node) Over(number cluster.Number) bool { return number <= n.Ended }

// Group is a group's placement by the log.
type Group struct {
	ID      cluster.GroupID `json:"id"`
	Owner   cluster.NodeID  `json:"owner"` // empty: nobody
	Last    cluster.NodeID  `json:"last"`  // owner of the newest epoch, also after it was ended
	Epoch   cluster.Epoch   `json:"epoch"`
	Index   uint64          `json:"index"`   // log index of the newest Assign
	Tenures []Tenure        `json:"tenures"` // those not over by the log, the newest included
	Move    *cluster.Move   `json:"move,omitempty"`
	Bans    []cluster.Ban   `json:"bans,omitempty"`
	Ended   *MoveResult     `json:"ended,omitempty"` // how the last Move ended
	Service Service         `json:"service,omitzero"`
	Shared  *cluster.Shared `json:"shared,omitempty"` // what every node says of the same probe
	Return  Return          `json:"return,omitzero"`
}

// Tenure is one placement that is not over by the log.
type Tenure struct {
	Epoch  cluster.Epoch  `json:"epoch"`
	Node   cluster.NodeID `json:"node"`
	Number cluster.Number `json:"number"`
}

// MoveResult is how a Move ended.
type MoveResult struct {
	ID     string `json:"id"`
	Done   bool   `json:"done"`
	Reason string `json:"reason,omitempty"`
}

// New returns the state that a founding record begins with. The record's file must be readable.
func New(f *cluster.Founding, read Reader, index uint64, flaws Flaws) (*State, error) {
	spec, err := read(f.File)
	if err != nil {
		return nil, err
	}
	s := &State{Founding: *f, Applied: index, flaws: flaws, read: read}
	s.fit(spec)
	s.Revisions = []cluster.RevisionText{{Revision: 1, Text: f.File, Wall: f.Wall}}
	set := VoterSet{Index: index}
	for _, n := range f.Nodes {
		set.Voters = append(set.Voters, n.Incarnation)
		s.Members = append(s.Members, Member{n.Node, n.Incarnation})
	}
	s.Sets = []VoterSet{set}
	return s, nil
}

// Blank returns the state of a newcomer that copies the log, before its first entry: it knows a file to
// find the others by, and nothing else.
func Blank(spec *cluster.Spec, read Reader, flaws Flaws) *State {
	s := &State{flaws: flaws, read: read, Sets: []VoterSet{{}}}
	s.fit(spec)
	return s
}

// IsBlank tells whether nothing of the log is known yet.
func (s *State) IsBlank() bool { return s.Applied == 0 }

// Encode returns the state's stored form, for a snapshot.
func (s *State) Encode() []byte {
	b, err := json.Marshal(s)
	cluster.Assert(err == nil, "the state must be encodable: %v", err)
	return b
}

// Decode reads a stored state.
func Decode(b []byte, read Reader, flaws Flaws) (*State, error) {
	s := new(State)
	if err := cluster.ReadStored(b, s); err != nil {
		return nil, fmt.Errorf("snapshot of %d bytes: %w", len(b), err)
	}
	if len(s.Revisions) == 0 || len(s.Sets) == 0 {
		return nil, fmt.Errorf("snapshot of %d bytes: it has no configuration, or no voters", len(b))
	}
	s.flaws, s.read = flaws, read
	spec, err := read(s.Revisions[len(s.Revisions)-1].Text)
	if err != nil {
		return nil, fmt.Errorf("revision %d of the configuration: %w", s.Revision(), err)
	}
	s.fit(spec)
	return s, nil
}

// Node returns a node's part of the state, or nil.
func (s *State) Node(id cluster.NodeID) *Node {
	for i := range s.Nodes {
		if s.Nodes[i].ID == id {
			return &s.Nodes[i]
		}
	}
	return nil
}

// Group returns a group's part of the state, or nil.
func (s *State) Group(id cluster.GroupID) *Group {
	for i := range s.Groups {
		if s.Groups[i].ID == id {
			return &s.Groups[i]
		}
	}
	return nil
}

// Apply changes the state by one entry and returns the line that it adds to the history.
func (s *State) Apply(index uint64, e *cluster.Entry) cluster.Line {
	cluster.Assert(index > s.Applied, "entry %d is applied after %d", index, s.Applied)
	s.Applied = index
	j := cluster.Line{Index: index, Wall: e.Wall, By: e.By, Rule: e.Rule, Why: e.Why, Evidence: e.Evidence, Rejected: e.Rejected}
	if e.ID != "" && s.Answer(e.ID) != nil {
		j.Dropped = append(j.Dropped, "the same command again")
		return j
	}
	for _, p := range e.Parts {
		if dropped := s.applyPart(index, e, p); dropped != "" {
			j.Dropped = append(j.Dropped, p.String()+": "+dropped)
			continue
		}
		j.Did = append(j.Did, p.String())
		note(&j, p)
	}
	if e.ID != "" {
		s.answer(index, e.ID, j.Dropped)
	}
	if cluster.Planted && s.flaws.JournalLost && len(j.Dropped) > 0 {
		return j
	}
	s.keepLine(j)
	return j
}

// keepLine adds a line to the history, and drops the oldest that are too many, or too long with those after them.
func (s *State) keepLine(j cluster.Line) {
	if s.lines == 0 {
		for i := range s.Journal {
			s.lines += length(&s.Journal[i])
		}
	}
	s.Journal = append(s.Journal, j)
	s.lines += length(&j)
	for len(s.Journal) > journalMax || s.lines > journalSize && len(s.Journal) > 1 {
		s.lines -= length(&s.Journal[0])
		s.Journal[0] = cluster.Line{}
		s.Journal = s.Journal[1:]
	}
}

// length is about how many bytes a line has in the stored form.
func length(l *cluster.Line) int {
	const fixed, served = 160, 400
	size := fixed + len(l.By) + len(l.Rule) + len(l.Why) + served*len(l.Served)
	for _, texts := range [][]string{l.Evidence, l.Rejected, l.Did, l.Dropped} {
		for _, t := range texts {
			size += len(t) + 3
		}
	}
	for _, g := range l.Groups {
		size += len(g) + 3
	}
	return size
}

// note keeps which groups and nodes a line is about.
func note(j *cluster.Line, p cluster.Part) {
	group := func(g cluster.GroupID) {
		if !slices.Contains(j.Groups, g) {
			j.Groups = append(j.Groups, g)
		}
	}
	node := func(n cluster.NodeID) {
		if !slices.Contains(j.Nodes, n) {
			j.Nodes = append(j.Nodes, n)
		}
	}
	noteInstruction(p, group, node)
	switch {
	case p.Evict != nil:
		node(p.Evict.Node)
	case p.Admit != nil:
		node(p.Admit.Node)
	case p.Ended != nil:
		node(p.Ended.Node)
	case p.Assign != nil:
		group(p.Assign.Group)
		node(p.Assign.To)
	case p.Released != nil:
		group(p.Released.Group)
	case p.Move != nil:
		group(p.Move.Group)
	case p.MoveEnd != nil:
		group(p.MoveEnd.Group)
	case p.Ban != nil:
		group(p.Ban.Group)
	case p.Unban != nil:
		group(p.Unban.Group)
	case p.Shared != nil:
		group(p.Shared.Group)
	case p.Served != nil:
		group(p.Served.Group)
		node(p.Served.Node)
		j.Served = append(j.Served, *p.Served)
	case p.Amend != nil:
		group(p.Amend.Group)
		node(p.Amend.Node)
	case p.Voter != nil:
		node(p.Voter.Node)
	case p.Carried != nil:
		node(p.Carried.Node)
	}
}

// applyPart applies one part, or returns why it no longer fits.
func (s *State) applyPart(index uint64, e *cluster.Entry, p cluster.Part) string {
	switch {
	case p.Evict != nil:
		return s.evict(index, p.Evict)
	case p.Admit != nil:
		return s.admit(index, p.Admit)
	case p.Ended != nil:
		return s.ended(p.Ended)
	case p.Assign != nil:
		return s.assign(index, e.Wall, p.Assign)
	case p.Released != nil:
		return s.released(p.Released)
	case p.Move != nil:
		return s.move(p.Move)
	case p.MoveEnd != nil:
		return s.moveEnd(p.MoveEnd)
	case p.Ban != nil:
		return s.ban(p.Ban)
	case p.Unban != nil:
		return s.unban(p.Unban)
	case p.Shared != nil:
		return s.shared(p.Shared)
	case p.Served != nil:
		return s.served(p.Served)
	case p.Amend != nil:
		return s.amend(p.Amend)
	case p.Draft != nil:
		return s.draft(e, p.Draft)
	case p.Adopt != nil:
		return s.adopt(p.Adopt)
	case p.Drop != nil:
		return s.drop(p.Drop)
	case p.Carried != nil:
		return s.carried(p.Carried)
	case p.Voter != nil:
		return s.voter(index, p.Voter)
	case p.Token != nil:
		return s.token(p.Token)
	case p.Untoken != nil:
		return s.untoken(p.Untoken)
	case p.Deed != nil:
		return "" // the journal is all that it is for
	}
	if dropped, known := s.instruct(index, e.ID, p); known {
		return dropped
	}
	return "this version does not know it"
}

func (s *State) evict(index uint64, e *cluster.Evict) string {
	n := s.Node(e.Node)
	if n == nil || !n.Admitted || n.Number != e.Number {
		return "the node does not hold that number"
	}
	n.Admitted, n.EvictIndex = false, index
	if cluster.Planted && s.flaws.EvictKeepsOwner {
		return ""
	}
	for i := range s.Groups {
		if g := &s.Groups[i]; g.Owner == e.Node {
			g.disown("the target lost its lease")
		}
	}
	return ""
}

func (s *State) admit(index uint64, a *cluster.Admit) string {
	n := s.Node(a.Node)
	switch {
	case n == nil:
		return "no such node"
	case n.Admitted:
		return fmt.Sprintf("the node holds number %d", n.Number)
	case a.Number != n.Number+1:
		return fmt.Sprintf("the next number is %d", n.Number+1)
	case !n.Over(n.Number):
		return fmt.Sprintf("number %d is not over", n.Number)
	}
	if n.Number > 0 && (n.Boot != a.Boot || n.Incarnation != a.Incarnation) {
		n.Past = append(n.Past, Past{n.Incarnation, n.Boot})
		if len(n.Past) > pastMax {
			n.Past = slices.Delete(n.Past, 0, 1)
		}
	}
	n.Incarnation, n.Boot, n.Number, n.Admitted = a.Incarnation, a.Boot, a.Number, true
	n.AdmitIndex = index
	return ""
}

func (s *State) ended(e *cluster.Ended) string {
	n := s.Node(e.Node)
	switch {
	case n == nil || e.Number > n.Number || (e.Number == n.Number && n.Admitted):
		return "the number was not evicted"
	case n.Over(e.Number):
		return "it is over already"
	}
	n.Ended = e.Number
	for i := range s.Groups {
		g := &s.Groups[i]
		g.Tenures = slices.DeleteFunc(g.Tenures, func(t Tenure) bool { return t.Node == e.Node && t.Number <= e.Number })
	}
	s.Freed = slices.DeleteFunc(s.Freed, func(f Freed) bool { return f.Node == e.Node && f.Number <= e.Number })
	return ""
}

func (s *State) assign(index uint64, wall cluster.WallTime, a *cluster.Assign) string {
	g, n := s.Group(a.Group), s.Node(a.To)
	if g == nil || n == nil {
		return "no such group or node"
	}
	if !n.Admitted {
		return "the target holds no lease"
	}
	if why := s.forbids(a.Group, a.To); why != "" {
		return why
	}
	if a.Epoch != g.Epoch+1 && !(cluster.Planted && s.flaws.ApplyStale) {
		return fmt.Sprintf("it was decided on epoch %d, the group is at %d", a.Epoch-1, g.Epoch)
	}
	if n.Number != a.Number && !(cluster.Planted && s.flaws.ApplyStale) {
		return fmt.Sprintf("the target holds number %d, not %d", n.Number, a.Number)
	}
	g.returned(a, wall, s.spec.Group(g.ID).Failback)
	g.placed(a)
	g.Owner, g.Last, g.Epoch, g.Index = a.To, a.To, a.Epoch, index
	g.Tenures = append(g.Tenures, Tenure{a.Epoch, a.To, n.Number})
	if g.Move != nil {
		switch {
		case g.Move.Assigned == 0 && g.Move.To == a.To:
			g.Move.Assigned = a.Epoch
		default:
			g.endMove(false, "the group was placed otherwise meanwhile")
		}
	}
	return ""
}

func (s *State) released(r *cluster.Released) string {
	g := s.Group(r.Group)
	if g == nil {
		return "no such group"
	}
	i := slices.IndexFunc(g.Tenures, func(t Tenure) bool { return t.Epoch == r.Epoch })
	if i < 0 {
		return "it is over already"
	}
	g.Tenures = slices.Delete(g.Tenures, i, i+1)
	if r.Epoch == g.Epoch {
		g.disown("the target gave it up")
	}
	return ""
}

// disown leaves the group to nobody. A move whose target was the owner has failed with that.
func (g *Group) disown(reason string) {
	g.Owner = ""
	if g.Move != nil && g.Move.Assigned != 0 {
		g.endMove(false, reason)
	}
}

func (s *State) move(m *cluster.Move) string {
	g := s.Group(m.Group)
	switch {
	case g == nil:
		return "no such group"
	case g.Move != nil:
		return "a move is under way"
	case (g.Epoch != m.Epoch || g.Owner != m.From) && !(cluster.Planted && s.flaws.ApplyStale):
		return "the group was placed otherwise meanwhile"
	case g.Ended != nil && g.Ended.ID == m.ID:
		return "it has ended already"
	}
	c := *m
	g.Move = &c
	return ""
}

func (s *State) moveEnd(m *cluster.MoveEnd) string {
	g := s.Group(m.Group)
	if g == nil || g.Move == nil || g.Move.ID != m.ID {
		return "that move is not under way"
	}
	g.endMove(m.Done, m.Reason)
	return ""
}

func (g *Group) endMove(done bool, reason string) {
	g.Ended = &MoveResult{ID: g.Move.ID, Done: done, Reason: reason}
	g.Move = nil
}

func (s *State) ban(b *cluster.Ban) string {
	g := s.Group(b.Group)
	if g == nil || s.Node(b.Node) == nil {
		return "no such group or node"
	}
	g.Bans = slices.DeleteFunc(g.Bans, func(x cluster.Ban) bool { return x.Node == b.Node })
	g.Bans = append(g.Bans, *b)
	return ""
}

func (s *State) unban(u *cluster.Unban) string {
	g := s.Group(u.Group)
	if g == nil || !slices.ContainsFunc(g.Bans, func(x cluster.Ban) bool { return x.Node == u.Node }) {
		return "there is no such ban"
	}
	g.Bans = slices.DeleteFunc(g.Bans, func(x cluster.Ban) bool { return x.Node == u.Node })
	return ""
}

func (s *State) shared(x *cluster.Shared) string {
	g := s.Group(x.Group)
	switch {
	case g == nil:
		return "no such group"
	case g.Epoch != x.Epoch:
		return fmt.Sprintf("it was decided on epoch %d, the group is at %d", x.Epoch, g.Epoch)
	case x.Over && g.Shared == nil:
		return "that is not on record"
	case x.Over:
		g.Bans = slices.DeleteFunc(g.Bans, func(b cluster.Ban) bool { return b.Probe == g.Shared.Probe })
		g.Shared = nil
	default:
		g.Shared = x
	}
	return ""
}
