// Package decide is the planner: from a read-only snapshot of what is known it makes the entries to
// propose now, and for each group a decision with its evidence and the alternatives it rejected. It
// keeps nothing between passes: what is under way is in the log.
package decide

import "baton/internal/core/cluster"

// Verdict says what a decision comes to.
type Verdict string

const (
	Stay   Verdict = "stay"   // decided not to move
	Move   Verdict = "move"   // a group is assigned
	Wait   Verdict = "wait"   // something must come first
	Evict  Verdict = "evict"  // a node's lease is taken away
	Admit  Verdict = "admit"  // a node gets a lease again
	Record Verdict = "record" // a fact is put into the log
)

// Decision explains one verdict of the planner.
type Decision struct {
	Rule     string          `json:"rule"` // id of the rule that decided; never reused
	Verdict  Verdict         `json:"verdict"`
	Group    cluster.GroupID `json:"group,omitempty"`
	Node     cluster.NodeID  `json:"node,omitempty"`
	Why      string          `json:"why"`
	Evidence []string        `json:"evidence,omitempty"`
	Rejected []Alternative   `json:"rejected,omitempty"`
}

// Alternative is a node that was not chosen, and why not.
type Alternative struct {
	Node cluster.NodeID `json:"node"`
	Why  string         `json:"why"`
}
