package cluster

import (
	"encoding/json"
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
}

// Unban ends a Ban.
type Unban struct {
	Group GroupID `json:"group"`
	Node  NodeID  `json:"node"`
}

// Encode returns the entry's stored form.
func (e *Entry) Encode() []byte {
	b, err := json.Marshal(e)
	Assert(err == nil, "an entry must be encodable: %v", err)
	return b
}

// DecodeEntry reads an entry's stored form.
func DecodeEntry(b []byte) (*Entry, error) {
	e := new(Entry)
	if err := json.Unmarshal(b, e); err != nil {
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
	}
	return "nothing"
}

// Founding is the record that a cluster begins with: the first node by name writes exactly one.
type Founding struct {
	ID    string         `json:"id"` // the cluster's identity, derived from its first node's incarnation
	Nodes []FoundingNode `json:"nodes"`
	File  []byte         `json:"file"`
	Wall  WallTime       `json:"wall"`
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
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("founding record of %d bytes: %w", len(b), err)
	}
	return f, nil
}
