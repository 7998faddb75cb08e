package cluster

import "time"

// Overview is how the cluster looks from one node, for people: it is never decided on.
type Overview struct {
	Cluster     string
	ID          string // of the founding record; empty while the cluster forms
	Node        NodeID // from where it looks so
	Forming     string // what forming waits for; empty once the cluster is founded
	Quorum      bool   // a majority of the voters is heard
	Coordinator NodeID // empty: none is known
	Term        uint64
	TermSince   WallTime // when this node learned of it; 0: it has known no other since its agent started
	TermWhy     string   // why there was an election, as far as this node has seen; empty with that
	Applied     uint64   // log index
	Timing      Timing
	Links       []string
	Nodes       []NodeView
	Groups      []GroupView
	Drift       *Drift   // of this node's own file; the agent fills it in
	Unanswered  []string // targets of reach that answer no node, as far as is known
	Left        string   // why this node belongs to the cluster no longer; empty: it belongs to it. The agent fills it in

	Instructions []InstructionView // people's standing ones

	Joining     bool       // this node's data directory is empty, and a cluster is to let it in: Forming tells for what it waits
	Revision    Revision   // of the configuration that counts; 0: none does yet
	Draft       *DraftText // what is to follow it; nil: nothing
	Voters      int        // by the log; 0: none are known
	VotersHeard int        // of them
}

// InstructionView is a standing instruction of a person.
type InstructionView struct {
	Verb     string // "pause", "pin", "drain" or "stop"
	Group    GroupID
	Resource ResourceID
	Node     NodeID
	Note
}

// NodeView is how a node looks.
type NodeView struct {
	ID         NodeID
	Role       Role
	Heard      bool          // ever, in this run
	Fresh      bool          // within the detection time
	Ago        time.Duration // since it was heard on any link
	Links      []LinkView    // in the order of Overview.Links; empty for the node that looks
	Number     Number        // its newest lease number by the log
	Admitted   bool
	LeaseRuns  bool          // by its own last word
	LeaseLeft  time.Duration // of the node that looks
	Sick       bool
	Membership Membership  // empty: not known
	Trouble    string      // why it is not understood, or (of the node that looks) takes no part
	Progress   string      // how far a copy of the state is that it takes; empty: none is on its way from or to the node that looks
	Faults     []LinkFault // of the node that looks: of its own addresses and ports; of others: of the way there
	Faulty     bool        // of others: its agent can tell of such faults
	Deaf       bool        // of others that are heard: it says that it does not hear the node that looks
	Leads      bool        // of others that are heard: it says that it coordinates
}

// LinkFault is why a node can't use one of its own addresses and ports, or the way to another, or what was done to its
// gate, for people.
type LinkFault struct {
	Link string // by name; empty: it is about the port on which connections are taken, whatever the link; "(gate)": the gate; "(twin)": two machines run as the node; "(disk)": its log or run record
	Text string
	Hint string
}

// Membership is a node's part in the cluster.
type Membership string

const (
	// Votes: it is a voter.
	Votes Membership = "votes"
	// Copies: it copies the log, without a vote.
	Copies Membership = "copies"
	// Outside: the file names it, and it was not let in yet.
	Outside Membership = "outside"
	// Leaves: the draft of the file under way does not name it any more.
	Leaves Membership = "leaves"
)

// LinkView is how a peer is heard on one link.
type LinkView struct {
	Absent    bool // the link does not join this node and the one that looks
	Heard     bool
	Ago       time.Duration
	RoundTrip time.Duration // smoothed, of heartbeats that were answered over it; 0: none yet
}

// GroupView is how a group looks.
type GroupView struct {
	ID      GroupID
	Owner   NodeID
	Last    NodeID
	Epoch   Epoch
	Serving bool // its clients get what they should, by the owner's word
	// Degraded is why its clients don't get what they should though its owner has it open: "www stopped"; empty: they do,
	// or the owner has not.
	Degraded string
	Policy   string
	Failback string
	Move     *Move
	Bans     []Ban
	Nodes    []GroupNodeView // in the group's order of preference
	Next     NodeID          // who would take over now, or could where NextOnCommand; empty: nobody could
	// NextBanned: it failed there before, or clients don't reach it there, and it would go there only because its node is
	// lost and no better is left.
	NextBanned bool
	// NextOnCommand: its failover is manual, and it goes there only if a person moves it.
	NextOnCommand bool
	// Decision is why it is where it is and why it has not moved, by this node's own look.
	Decision string
	Rule     string
	Evidence []string
	Rejected []string
	Own      []ResourceView // on the node that looks
	Service  ServiceView
}

// GroupNodeView is how a group is on one node.
type GroupNodeView struct {
	Node   NodeID
	Phase  string
	Hot    bool
	Epoch  Epoch
	Reason string
	Can    string // empty: it could take the group now; else why not
	InNeed string // why it would only if no better node were left; empty: it would all the same
}

// ResourceView is a resource on the node that looks.
type ResourceView struct {
	ID     ResourceID
	Kind   string
	Status Status
	Depth  Depth
	Reason string
}

// Line is one line of the cluster's history.
type Line struct {
	Index    uint64    `json:"index"`
	Wall     WallTime  `json:"wall"`
	By       string    `json:"by"`
	Rule     string    `json:"rule,omitempty"`
	Why      string    `json:"why,omitempty"`
	Evidence []string  `json:"evidence,omitempty"`
	Rejected []string  `json:"rejected,omitempty"`
	Did      []string  `json:"did"`
	Dropped  []string  `json:"dropped,omitempty"`
	Groups   []GroupID `json:"groups,omitempty"`
	Nodes    []NodeID  `json:"nodes,omitempty"`
	Served   []Served  `json:"served,omitempty"` // services that began, with their phases
}
