package cluster

import "time"

// Facts is the read-only picture that the planner decides on: what the log says and what was observed.
type Facts struct {
	Now    Now
	Self   NodeID
	Spec   *Spec
	Voters int
	Age    time.Duration // since this agent started: at first, nodes may still be booting
	Nodes  []NodeFacts   // in the order of Spec.Nodes
	Groups []GroupFacts  // in the order of Spec.Groups
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
	LeaseDown   time.Duration // for how long it says that its lease does not run; 0: it runs
	LeaseRuns   bool          // by its last heartbeat
	Sick        bool
	Well        time.Duration // for how long it has been fresh, admitted and serving its lease
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

	Released []Epoch  // tenures whose release was heard and is not in the log yet
	Behind   []NodeID // former owners that have not applied the newest Assign for D
	Reports  []Report // in the order of Spec.Nodes
	Serves   *Served  // what is to be put on record once the owner says that it serves; nil: nothing
}

// Report is how a group is on a node, by its last heartbeat.
type Report struct {
	Known   bool
	Epoch   Epoch
	Serving bool
	Failed  bool
	Hot     bool
	Cut     bool // the interface of its addresses has no carrier there
	Reason  string
}
