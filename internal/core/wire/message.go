// Package wire holds what nodes say to each other and its byte formats: messages, and the envelope
// that every datagram travels in. Decoding never trusts a length and never panics; it is fuzzed.
package wire

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"baton/internal/core/cluster"
)

// Message is what one node says to another: *Heartbeat, *Ack, *Raft, *Ask, *Founding, *Piece, *Got or *Probe.
type Message interface{ isMessage() }

// Heartbeat renews the sender's lease, shows that it lives, and carries what it knows.
// (protocol.md, "Quorum leases", 1 and 5.)
type Heartbeat struct {
	Incarnation cluster.Incarnation
	Boot        cluster.BootID
	Number      cluster.Number // the sender's lease number; 0: it holds none
	Seq         uint64         // counts the sender's heartbeats to this receiver's cluster within one run, from 1
	L           time.Duration  // the lease length that the sender asks a promise for
	Rests       uint64         // log index of the voter set that its lease rests on
	View        cluster.View
	Sent        cluster.Instant // the sender's own clock, for diagnosis; no promise may count from it
	Lead        uint64          // Raft term in which the sender leads; 0: it does not
	Applied     uint64          // log index that it has applied
	LeaseRuns   bool            // its own lease runs
	Sick        bool            // its disk does not answer, or it says so itself
	Faulty      bool            // it can tell people of a fault of its links, of a way to another or of its gate
	Heard       []Heard
	Said        []Lease          // evicted numbers of which nothing is left here
	Revision    cluster.Revision // the newest of the configuration that the sender has carried out
	Sight       Sight

	// Of groups, as many in turns as fit (protocol.md, "Quorum leases", 7).
	Released []Tenure
	Groups   []GroupReport
	// Whole names, by their places in Heard, those who have acked all that the sender has to tell of groups, or find here
	// what they have not: bit i is Heard[i].
	Whole    uint64
	Accounts []Account // of how clients were served, as far as they are not on record; in turns
}

// Account is how a group's clients were served by one placement on the sender.
type Account struct {
	Key             GroupKey
	cluster.Account // Group is empty on the wire
}

// Sight is how the sender sees the networks by which clients come. Its places are those of one revision of the
// configuration: under another they mean nothing. It is small and goes with every heartbeat.
type Sight struct {
	Revision cluster.Revision // by which its places count; 0: it tells nothing
	Links    []LinkSight      // in the order of Spec.Links
	Reached  uint64           // bit i: Spec.Targets[i] answers
	Missed   uint64           // bit i: it has not answered for long
}

// LinkSight is how the sender hears others on one link. A node in neither was heard, but not just now.
type LinkSight struct {
	Heard uint64 // bit i: Spec.Nodes[i] was heard there just now
	Lost  uint64 // bit i: it has been silent there for D
}

// Equal tells whether two sights say the same.
func (s *Sight) Equal(o *Sight) bool {
	return s.Revision == o.Revision && s.Reached == o.Reached && s.Missed == o.Missed && slices.Equal(s.Links, o.Links)
}

// Heard tells how long ago the sender heard another node, on any link.
type Heard struct {
	Node        cluster.NodeID
	Incarnation cluster.Incarnation // of which the sender knows; 0: of none
	Run         cluster.RunID       // the run it last heard; 0: never heard
	Ago         time.Duration
	Durable     uint64 // up to this log index, that incarnation is known to have durable what is committed
}

// Lease names one lease of a node.
type Lease struct {
	Node   cluster.NodeID
	Number cluster.Number
}

// GroupKey names a group on the wire, in few bytes: the first 64 bits of the SHA-256 of its name. Among 500 names
// two are equal once in 10^14 clusters.
type GroupKey uint64

// KeyOf returns the key of a group. No two groups of a cluster file have the same.
func KeyOf(id cluster.GroupID) GroupKey { return GroupKey(id.Key()) }

// Tenure names one placement of a group.
type Tenure struct {
	Group GroupKey
	Epoch cluster.Epoch
}

// Phase is how far a group is on a node.
type Phase uint8

const (
	PhaseStopped   Phase = iota
	PhaseStandby         // every resource stands by as deep as configured
	PhasePreparing       // assigned here; not yet open
	PhaseServing         // open
	PhaseStopping        // closed; resources still stop
	PhaseFailed          // a resource failed here; Reason says which
)

var phaseNames = [...]string{"stopped", "standby", "preparing", "serving", "stopping", "failed"}

func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return "invalid"
}

// GroupReport tells how a group is on the sender.
type GroupReport struct {
	Group GroupKey
	Epoch cluster.Epoch // of the newest assignment that the sender has applied
	Phase Phase
	Cut   bool   // the interface of its addresses has no carrier here
	Hot   bool   // every resource but the fronts is up here: a takeover needs no start
	Lacks bool   // this host lacks something that it needs to run; Reason says what
	Brief bool   // it failed before it had been well for a while
	Probe uint64 // what a probe says against it, as one number; 0: nothing. If it has not failed, only the last try has
	Short bool   // it is open, and clients don't get what they should: a person has stopped a resource, or the kernel's gate has run out
	// Partly: a front has failed, and its clients are served by others of them all the same.
	Partly bool
	Reason string // of a failure, or what else is to be told; at most 200 bytes
}

// Ack answers a heartbeat. Number is the lease that the sender promises not to take away for L(1+rho);
// 0 promises nothing. It names the run that it answers, so that it can renew no other.
type Ack struct {
	Incarnation cluster.Incarnation // of the voter that acks
	Run         cluster.RunID       // of the heartbeat's sender
	Number      cluster.Number
	Seq         uint64
	// Newest is the newest lease number of the heartbeat's sender in the voter's log: one that is higher than its
	// own tells it that its own is over.
	Newest cluster.Number
	// At is the voter's own clock when it sent this: with it the receiver bounds how the two clocks relate. No promise
	// may count from it.
	At cluster.Instant
}

// Raft carries one message of Raft.
type Raft struct {
	Msg *raftpb.Message
}

// Ask is how nodes without a founding record find each other, and its answer.
type Ask struct {
	Incarnation cluster.Incarnation
	File        [32]byte // SHA-256 of the cluster file
	Empty       bool     // no founding record here, and no copy of the log
	Text        []byte   // the present cluster file, for one who asks with another; nil: not sent
	Without     string   // see cluster.Notes
}

// Founding carries the founding record.
type Founding struct {
	Record []byte
}

func (*Heartbeat) isMessage() {}
func (*Ack) isMessage()       {}
func (*Raft) isMessage()      {}
func (*Ask) isMessage()       {}
func (*Founding) isMessage()  {}
