package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Entry is one command of the replicated log: a decision and the parts that follow from it. Parts are
// applied in order, each checked alone against the state that it finds; one that no longer fits what
// it was decided on is dropped, with a reason. A stored entry keeps its meaning for good.
type Entry struct {
	Wall     WallTime `json:"wall"`           // when the proposer decided
	By       string   `json:"by"`             // a node's name, or the person who asked
	Rule     string   `json:"rule,omitempty"` // id of the planner's rule
	Why      string   `json:"why,omitempty"`
	Evidence []string `json:"evidence,omitempty"`
	Rejected []string `json:"rejected,omitempty"`
	Parts    []Part   `json:"parts"`
	// ID of the command that the entry carries, if it does: proposed again until it is known to be in the
	// log, it takes effect once.
	ID string `json:"id,omitempty"`
}

// Part is one change of the state: exactly one field is set.
type Part struct {
	Evict    *Evict    `json:"evict,omitempty"`
	Admit    *Admit    `json:"admit,omitempty"`
	Ended    *Ended    `json:"ended,omitempty"`
	Assign   *Assign   `json:"assign,omitempty"`
	Released *Released `json:"released,omitempty"`
	Move     *Move     `json:"move,omitempty"`
	MoveEnd  *MoveEnd  `json:"move_end,omitempty"`
	Ban      *Ban      `json:"ban,omitempty"`
	Unban    *Unban    `json:"unban,omitempty"`
	Shared   *Shared   `json:"shared,omitempty"`
	Served   *Served   `json:"served,omitempty"`
	Amend    *Amend    `json:"amend,omitempty"`

	Draft *Draft `json:"draft,omitempty"`
	Adopt *Adopt `json:"adopt,omitempty"`
	Drop  *Drop  `json:"drop,omitempty"`

	Carried *Carried `json:"carried,omitempty"`
	Voter   *Voter   `json:"voter,omitempty"`

	Pause   *Pause   `json:"pause,omitempty"`
	Resume  *Resume  `json:"resume,omitempty"`
	Pin     *Pin     `json:"pin,omitempty"`
	Unpin   *Unpin   `json:"unpin,omitempty"`
	Drain   *Drain   `json:"drain,omitempty"`
	Undrain *Undrain `json:"undrain,omitempty"`
	Stop    *Stop    `json:"stop,omitempty"`
	Start   *Start   `json:"start,omitempty"`
	Restart *Restart `json:"restart,omitempty"`
	Clear   *Clear   `json:"clear,omitempty"`

	Performed *Performed `json:"performed,omitempty"`

	Token   *Token   `json:"token,omitempty"`
	Untoken *Untoken `json:"untoken,omitempty"`
	Deed    *Deed    `json:"deed,omitempty"`
}

// Evict takes a node's lease away and ends its ownership of every group.
type Evict struct {
	Node   NodeID `json:"node"`
	Number Number `json:"number"`
}

// Admit gives a node a lease under the next number, for one incarnation and boot.
type Admit struct {
	Node        NodeID      `json:"node"`
	Incarnation Incarnation `json:"incarnation"`
	Boot        BootID      `json:"boot"`
	Number      Number      `json:"number"`
}

// Ended puts on record that a quorum has said that nothing is left of a lease.
type Ended struct {
	Node   NodeID `json:"node"`
	Number Number `json:"number"`
}

// Assign places a group. It was decided on Epoch-1 and on the target's Number.
type Assign struct {
	Group  GroupID `json:"group"`
	To     NodeID  `json:"to"`
	Number Number  `json:"number"`
	Epoch  Epoch   `json:"epoch"`
}

// Released puts on record that a tenure was given up.
type Released struct {
	Group GroupID `json:"group"`
	Epoch Epoch   `json:"epoch"`
}

// Move states the intent of a switchover; the owner stays until an Assign. It was decided on Epoch.
type Move struct {
	ID       string  `json:"id"` // of the command
	Group    GroupID `json:"group"`
	From     NodeID  `json:"from"`
	To       NodeID  `json:"to"`
	Epoch    Epoch   `json:"epoch"`
	Failback bool    `json:"failback,omitempty"`
	Assigned Epoch   `json:"assigned,omitempty"` // set when the Assign is applied
}

// MoveEnd ends a Move: it is done, or given up.
type MoveEnd struct {
	Group  GroupID `json:"group"`
	ID     string  `json:"id"`
	Done   bool    `json:"done"`
	Reason string  `json:"reason,omitempty"`
}

// Ban keeps a group off a node on which it failed.
type Ban struct {
	Group  GroupID  `json:"group"`
	Node   NodeID   `json:"node"`
	Until  WallTime `json:"until"`
	Reason string   `json:"reason"`
	// Resource that failed, if that is known.
	Resource ResourceID `json:"resource,omitempty"`
	// Surroundings says that what is around it was to blame: the ban ends once the node says that this is mended.
	Surroundings bool `json:"surroundings,omitempty"`
	// Probe is what its probe said, as one number; 0: it was none that failed.
	Probe uint64 `json:"probe,omitempty"`
	// Tries is how often in a row it failed there without having been well for a while: it is tried there again later
	// each time.
	Tries int `json:"tries,omitempty"`
}

// Shared puts on record that every node that could have a group says the same of the same probe, or (Over) that it
// is well again, which ends the bans that this had brought about. It was decided on Epoch.
type Shared struct {
	Group  GroupID  `json:"group"`
	Epoch  Epoch    `json:"epoch"`
	Probe  uint64   `json:"probe"`
	Reason string   `json:"reason,omitempty"`
	Wall   WallTime `json:"wall"` // since when
	Over   bool     `json:"over,omitempty"`
}

// Unban ends a Ban.
type Unban struct {
	Group GroupID `json:"group"`
	Node  NodeID  `json:"node"`
}

// Draft states the intent that a text become the cluster's configuration. It was decided on revision Base;
// the present one stays until an Adopt, which comes once nothing that the text removes is in use any more.
type Draft struct {
	Base    Revision `json:"base"`
	Text    []byte   `json:"text"`
	Comment string   `json:"comment,omitempty"`
	ID      string   `json:"id"` // of the command
}

// Carried puts on record that a node has carried a revision out: what was taken from its groups there is free.
type Carried struct {
	Node     NodeID   `json:"node"`
	Revision Revision `json:"revision"`
}

// Adopt makes the draft made on Base the configuration, as revision Base+1.
type Adopt struct {
	Base  Revision `json:"base"`
	Draft string   `json:"draft,omitempty"` // the draft's ID: on one base several may follow each other; empty: whichever
}

// Drop gives the draft made on Base up.
type Drop struct {
	Base   Revision `json:"base"`
	Draft  string   `json:"draft,omitempty"` // as in Adopt
	Reason string   `json:"reason"`
}

// VoterOp is what a voter change does.
type VoterOp string

const (
	// VoterLearn lets a newcomer copy the log without a vote.
	VoterLearn VoterOp = "learn"
	// VoterAdd gives a node that copies the log a vote.
	VoterAdd VoterOp = "add"
	// VoterDemote takes a node's vote; it goes on copying the log, so that it learns of that.
	VoterDemote VoterOp = "demote"
	// VoterRemove takes an incarnation out of the set, or a newcomer off the copying.
	VoterRemove VoterOp = "remove"
)

// Voter changes the set of voters by one. It was decided on the set of log index Base.
type Voter struct {
	Op          VoterOp     `json:"op"`
	Node        NodeID      `json:"node"`
	Incarnation Incarnation `json:"incarnation"`
	Base        uint64      `json:"base"`
}

// Note is what a standing instruction of a person carries.
type Note struct {
	By     string   `json:"by"`
	Reason string   `json:"reason,omitempty"`
	Until  WallTime `json:"until"` // 0: until it is taken back
}

// Pause stops the planner from acting on a group; with Group empty, on any.
type Pause struct {
	Group GroupID `json:"group,omitempty"`
	Note
}

// Resume ends a Pause.
type Resume struct {
	Group GroupID  `json:"group,omitempty"`
	Only  WallTime `json:"only,omitempty"` // if that is its end; 0: whatever its end is
}

// Pin keeps a group on a node: it runs there or nowhere.
type Pin struct {
	Group GroupID `json:"group"`
	Node  NodeID  `json:"node"`
	Note
}

// Unpin ends a Pin.
type Unpin struct {
	Group GroupID  `json:"group"`
	Only  WallTime `json:"only,omitempty"` // if that is its end; 0: whatever its end is
}

// Drain moves every group off a node and keeps them off.
type Drain struct {
	Node NodeID `json:"node"`
	Note
}

// Undrain ends a Drain.
type Undrain struct {
	Node NodeID   `json:"node"`
	Only WallTime `json:"only,omitempty"` // if that is its end; 0: whatever its end is
}

// Stop keeps a group, or one resource of it, stopped until a Start.
type Stop struct {
	Group    GroupID    `json:"group"`
	Resource ResourceID `json:"resource,omitempty"`
	Note
}

// Start ends a Stop.
type Start struct {
	Group    GroupID    `json:"group"`
	Resource ResourceID `json:"resource,omitempty"`
	Only     WallTime   `json:"only,omitempty"` // if that is its end; 0: whatever its end is
}

// Restart stops and starts a group, or one resource of it, on its node. It was decided on Epoch.
type Restart struct {
	Group    GroupID    `json:"group"`
	Resource ResourceID `json:"resource,omitempty"`
	Epoch    Epoch      `json:"epoch"`
	ID       string     `json:"id"` // of the command
}

// Clear forgets failures and bans of a group, or of one resource of it.
type Clear struct {
	Group    GroupID    `json:"group"`
	Resource ResourceID `json:"resource,omitempty"`
}

// Token lets whoever has its secret use the API from afar. Only a hash of the secret is kept.
type Token struct {
	Name  string   `json:"name"`
	Role  string   `json:"role"` // "view", "operate" or "admin"
	Hash  []byte   `json:"hash"` // SHA-256 of the secret, which is random and long
	By    string   `json:"by"`
	Until WallTime `json:"until"` // 0: until it is revoked
}

// Untoken revokes a Token.
type Untoken struct {
	Name string `json:"name"`
}

// Deed puts on record what somebody did that is not in the state: an invitation, a new key.
type Deed struct {
	Text string `json:"text"`
}

// Encode returns the entry's stored form.
func (e *Entry) Encode() []byte {
	b, err := json.Marshal(e)
	Assert(err == nil, "an entry must be encodable: %v", err)
	return b
}

// ReadStored reads a stored form into a value. A field that this version does not know is an error: to pass it over
// would be to apply something else than the nodes that know it.
func ReadStored(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return errors.New("something follows its end")
	}
	return nil
}

// DecodeEntry reads an entry's stored form.
func DecodeEntry(b []byte) (*Entry, error) {
	e := new(Entry)
	if err := ReadStored(b, e); err != nil {
		return nil, fmt.Errorf("log entry of %d bytes: %w", len(b), err)
	}
	return e, nil
}

func (p Part) String() string {
	switch {
	case p.Evict != nil:
		return fmt.Sprintf("evict %s#%d", p.Evict.Node, p.Evict.Number)
	case p.Admit != nil:
		return fmt.Sprintf("admit %s#%d", p.Admit.Node, p.Admit.Number)
	case p.Ended != nil:
		return fmt.Sprintf("ended %s#%d", p.Ended.Node, p.Ended.Number)
	case p.Assign != nil:
		return fmt.Sprintf("assign %s to %s as epoch %d", p.Assign.Group, p.Assign.To, p.Assign.Epoch)
	case p.Released != nil:
		return fmt.Sprintf("released %s epoch %d", p.Released.Group, p.Released.Epoch)
	case p.Move != nil && p.Move.From == "":
		return fmt.Sprintf("move %s to %s", p.Move.Group, p.Move.To)
	case p.Move != nil:
		return fmt.Sprintf("move %s from %s to %s", p.Move.Group, p.Move.From, p.Move.To)
	case p.MoveEnd != nil && p.MoveEnd.Done:
		return fmt.Sprintf("move of %s done", p.MoveEnd.Group)
	case p.MoveEnd != nil:
		return fmt.Sprintf("move of %s given up: %s", p.MoveEnd.Group, p.MoveEnd.Reason)
	case p.Ban != nil:
		return fmt.Sprintf("ban %s from %s", p.Ban.Group, p.Ban.Node)
	case p.Unban != nil:
		return fmt.Sprintf("unban %s from %s", p.Unban.Group, p.Unban.Node)
	case p.Shared != nil && p.Shared.Over:
		return fmt.Sprintf("%s is well again where every node said the same of the same probe", p.Shared.Group)
	case p.Shared != nil:
		return fmt.Sprintf("every node that could have %s says the same of the same probe: %s", p.Shared.Group, p.Shared.Reason)
	case p.Served != nil:
		return p.Served.String()
	case p.Amend != nil:
		return p.Amend.String()
	}
	if s := p.asConfiguration(); s != "" {
		return s
	}
	if s := p.asInstruction(); s != "" {
		return s
	}
	return "nothing"
}

// asConfiguration renders what changes the configuration, its nodes and its tokens.
func (p Part) asConfiguration() string {
	switch {
	case p.Draft != nil:
		return fmt.Sprintf("draft of revision %d", p.Draft.Base+1)
	case p.Adopt != nil:
		return fmt.Sprintf("revision %d", p.Adopt.Base+1)
	case p.Carried != nil:
		return fmt.Sprintf("revision %d is carried out on %s", p.Carried.Revision, p.Carried.Node)
	case p.Drop != nil:
		return fmt.Sprintf("draft of revision %d given up: %s", p.Drop.Base+1, p.Drop.Reason)
	case p.Voter != nil && p.Voter.Op == VoterLearn:
		return fmt.Sprintf("%s copies the log (incarnation %x)", p.Voter.Node, uint64(p.Voter.Incarnation))
	case p.Voter != nil && p.Voter.Op == VoterAdd:
		return fmt.Sprintf("%s votes (incarnation %x)", p.Voter.Node, uint64(p.Voter.Incarnation))
	case p.Voter != nil && p.Voter.Op == VoterDemote:
		return fmt.Sprintf("%s votes no longer (incarnation %x)", p.Voter.Node, uint64(p.Voter.Incarnation))
	case p.Voter != nil:
		return fmt.Sprintf("%s is out (incarnation %x)", p.Voter.Node, uint64(p.Voter.Incarnation))
	case p.Token != nil:
		return fmt.Sprintf("token %s, role %s", p.Token.Name, p.Token.Role)
	case p.Untoken != nil:
		return fmt.Sprintf("token %s revoked", p.Untoken.Name)
	case p.Deed != nil:
		return p.Deed.Text
	}
	return ""
}

// asInstruction renders a person's standing instruction.
func (p Part) asInstruction() string {
	all := func(g GroupID) string {
		if g == "" {
			return "everything"
		}
		return string(g)
	}
	part := func(g GroupID, r ResourceID) string {
		if r == "" {
			return string(g)
		}
		return string(g) + "/" + string(r)
	}
	switch {
	case p.Pause != nil:
		return "pause " + all(p.Pause.Group)
	case p.Resume != nil:
		return "resume " + all(p.Resume.Group)
	case p.Pin != nil:
		return fmt.Sprintf("pin %s to %s", p.Pin.Group, p.Pin.Node)
	case p.Unpin != nil:
		return fmt.Sprintf("unpin %s", p.Unpin.Group)
	case p.Drain != nil:
		return fmt.Sprintf("drain %s", p.Drain.Node)
	case p.Undrain != nil:
		return fmt.Sprintf("undrain %s", p.Undrain.Node)
	case p.Stop != nil:
		return "stop " + part(p.Stop.Group, p.Stop.Resource)
	case p.Start != nil:
		return "start " + part(p.Start.Group, p.Start.Resource)
	case p.Restart != nil:
		return "restart " + part(p.Restart.Group, p.Restart.Resource)
	case p.Clear != nil:
		return "clear " + part(p.Clear.Group, p.Clear.Resource)
	case p.Performed != nil && p.Performed.Reason != "":
		return fmt.Sprintf("%s of %s given up: %s", p.Performed.Verb, part(p.Performed.Group, p.Performed.Resource), p.Performed.Reason)
	case p.Performed != nil:
		return fmt.Sprintf("%s of %s done", p.Performed.Verb, part(p.Performed.Group, p.Performed.Resource))
	}
	return ""
}

// Founding is the record that a cluster begins with: the first node by name writes exactly one.
type Founding struct {
	ID    string         `json:"id"` // the cluster's identity, derived from its first node's incarnation
	Nodes []FoundingNode `json:"nodes"`
	File  []byte         `json:"file"`
	Wall  WallTime       `json:"wall"`
	// Without names nodes that could not be reached, as Notes.Without does: their incarnations are nobody's.
	Without string `json:"without,omitempty"`
}

// FoundingNode names a voter by its incarnation.
type FoundingNode struct {
	Node        NodeID      `json:"node"`
	Incarnation Incarnation `json:"incarnation"`
}

// Encode returns the record's stored form.
func (f *Founding) Encode() []byte {
	b, err := json.Marshal(f)
	Assert(err == nil, "a founding record must be encodable: %v", err)
	return b
}

// DecodeFounding reads a founding record's stored form.
func DecodeFounding(b []byte) (*Founding, error) {
	f := new(Founding)
	if err := ReadStored(b, f); err != nil {
		return nil, fmt.Errorf("founding record of %d bytes: %w", len(b), err)
	}
	return f, nil
}
