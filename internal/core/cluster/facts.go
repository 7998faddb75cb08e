package cluster

import (
	"slices"
	"time"
)

// Facts is the read-only picture that the planner decides on: what the log says and what was observed.
type Facts struct {
	Now    Now
	Self   NodeID
	Lead   NodeID // who coordinates; empty: nobody is known to
	Spec   *Spec
	Voters int
	Set    SetFacts
	Draft  *DraftFacts
	Age    time.Duration // since this agent started: at first, nodes may still be booting
	Nodes  []NodeFacts   // in the order of Spec.Nodes
	Groups []GroupFacts  // in the order of Spec.Groups

	Instructions *Instructions // people's, by the log
}

// NodeFacts is what is known of a node.
type NodeFacts struct {
	ID   NodeID
	Role Role

	// From the log.
	Number   Number
	Admitted bool
	Over     bool // the number is over by the log (or was never given)

	// Observed here.
	Fresh       bool        // heard within D
	Heard       bool        // heard in this run at all
	Incarnation Incarnation // of the last heartbeat
	Boot        BootID
	NewBoot     bool          // admitted, but heard under a boot that the log does not know
	SaidOver    bool          // a quorum has said that nothing is left of the number
	SilentTo    []NodeID      // voters that have not heard it for D
	Lost        bool          // one of them had heard it before: it is no node that is yet to come
	LeaseDown   time.Duration // for how long it says that its lease does not run; 0: it runs
	LeaseRuns   bool          // by its last heartbeat
	Sick        bool
	Deaf        bool // by its last heartbeat it does not hear the coordinator
	Isolated    bool // by its last heartbeat it hears no majority of the voters: no lease of its would run
	Bound       bool // it is in touch with no majority of the voters without Self, whose disk does not answer
	Late        bool // no heartbeat of it has come for three intervals: no node to hand something over to

	// Of the set of voters.
	Rests   uint64        // the log index of the set that its present number was said to rest on
	Members []MemberFacts // its incarnations that have a copy of the log, oldest first
	Asks    Incarnation   // an incarnation with an empty disk that asks to be let in; 0: none
	Former  bool          // a former incarnation that still votes is heard in its place
	Leaves  bool          // the draft under way does not name it
	Drained bool          // its groups are being moved off it, on purpose
	Carried Revision      // that it has carried out, which is to be put on record; 0: nothing is
}

// MemberFacts is one incarnation of a node that has a copy of the log.
type MemberFacts struct {
	Incarnation Incarnation
	Votes       bool
	Heard       bool // it is the one that is heard now
	Silent      bool // it is the newest, and has not been heard for the detection time
	Copied      bool // it has the log as far as the coordinator has committed, or nearly so
	Knows       bool // it has applied the newest voter change
}

// SetFacts is the set of voters in force.
type SetFacts struct {
	Index   uint64 // of the change that made it
	Fresh   int    // how many of them are heard
	Settled bool   // every lease rests on it: the next change may be proposed
	Waits   string // for what, if not
}

// DraftFacts is a draft of the configuration under way.
type DraftFacts struct {
	Base  Revision
	ID    string // of the command that made it
	Spec  *Spec  // nil: this node can't read it
	Err   string // why not
	Waits string // what of it is still in use; empty: it can be adopted
	By    string
	// Awaited is the node that must get its vote before a voter that leaves loses its own; empty: none.
	Awaited NodeID
}

// Group returns the facts of a group, or nil.
func (s *Facts) Group(id GroupID) *GroupFacts {
	for i := range s.Groups {
		if s.Groups[i].ID == id {
			return &s.Groups[i]
		}
	}
	return nil
}

// Node returns the facts of a node, or nil.
func (s *Facts) Node(id NodeID) *NodeFacts {
	for i := range s.Nodes {
		if s.Nodes[i].ID == id {
			return &s.Nodes[i]
		}
	}
	return nil
}

// GroupFacts is what is known of a group.
type GroupFacts struct {
	ID    GroupID
	Owner NodeID // empty: nobody
	Last  NodeID // owner of the newest epoch, also after it was ended
	Epoch Epoch
	Move  *Move
	Bans  []Ban
	// Returns is how many returns to the preferred node in a row did not last.
	Returns int

	Released []Epoch   // tenures whose release was heard and is not in the log yet
	Behind   []NodeID  // former owners that have not applied the newest Assign for D
	Reports  []Report  // in the order of Spec.Nodes
	Shared   *Shared   // by the log: what every node says of the same probe; nil: nothing
	Serves   *Served   // what is to be put on record now that the owner says that it serves; nil: nothing
	Amends   *Amend    // what puts an outage on record right; nil: nothing
	Networks []Network // from which its clients come
}

// Network is a network from which a group's clients come, as far as a link or a target shows it.
type Network struct {
	Name string        // in the words of the file
	On   []NetworkView // in the order of Spec.Nodes
}

// Answers reports whether some node is in it.
func (w *Network) Answers() bool {
	return slices.ContainsFunc(w.On, func(v NetworkView) bool { return v.State >= NetBack })
}

// Has reports whether some node is in it for good.
func (w *Network) Has() bool {
	return slices.ContainsFunc(w.On, func(v NetworkView) bool { return v.State == NetHas })
}

// NetworkView is how a node is in a network.
type NetworkView struct {
	State NetState
	Why   string // of NetLost, what was seen: "it" is the node
}

// NetState says whether a node is in a network.
type NetState uint8

const (
	// NetUnknown: nothing can be said.
	NetUnknown NetState = iota
	// NetLost: it is not.
	NetLost
	// NetBack: it is, but had lost it a short while ago.
	NetBack
	// NetHas: it is.
	NetHas
)

// Report is how a group is on a node, by its last heartbeat.
type Report struct {
	Known   bool
	Awaited bool // not known yet, but the node was given it less than D ago
	Epoch   Epoch
	Serving bool
	Failed  bool
	Hot     bool
	Cut     bool // the interface of its addresses has no carrier there
	Lacks   bool // that host lacks what the group needs to run; Reason says what
	Reason  string
	// Probe is what a probe says against it, as one number that is equal where probe and answer are; 0: nothing. If it
	// has not failed, only the probe's last try has.
	Probe uint64
	Brief bool          // it failed before it had been well for a while
	Well  time.Duration // for how long the node has been fit to serve it, without a change
}
