package cluster

import "time"

// This file holds what the core asks of the outside (outputs) and what the outside tells it (facts in
// inputs), in words that the io packages share.

// Gate asks for one group's gate in the kernel: traffic may pass until End.
type Gate struct {
	N     uint64
	Group GroupID
	Epoch Epoch
	End   Instant // on the node's own clock; 0 closes the gate at once
	// Left is used by one planted bug only (a deadline relative to the write): the core never sets it.
	Left time.Duration
}

// Record is the run record: what an agent must still know after it was killed, until the next boot.
type Record struct {
	Incarnation Incarnation
	Boot        BootID
	Run         RunID  // of the run that wrote it
	Number      Number // the newest lease number under this boot
	First       Number // the first one under this boot
	Rests       uint64 // log index of the voter set that the lease rests on
	View        View
	// Revision is the newest of the configuration that was carried out here: a run whose log has not come so far again
	// changes and serves nothing.
	Revision Revision
	Groups   map[GroupID]GroupRecord
}

// GroupRecord is the run record's part on one group.
type GroupRecord struct {
	Activated Epoch   // the highest epoch ever activated here in this boot
	Released  []Epoch // epochs given up for good, ascending; those no longer in question are dropped
	// Instructed is the log index of the newest Stop, Start or Restart that was acted on here: until the log
	// is read that far again, nothing is started, and no Restart up to there is carried out again.
	Instructed uint64
	// Account is how clients were served here under the newest epoch that was served: a later run goes on with it.
	Account Account
}

// Persist asks for a durable write. Writes are carried out in order of N and answered by Stored{N}.
type Persist struct {
	N        uint64
	Founding []byte     // the founding record, stored once; nil: unchanged
	Hard     *HardState // nil: unchanged
	// Snapshot replaces everything up to its Index. What follows it in the log stays if the log holds the
	// entry (Index, Term), else it is another history and goes (Raft paper, section 7).
	Snapshot *Snapshot
	Entries  []LogEntry // replace the log from the first one's index on
	Notes    *Notes     // nil: unchanged
	// Sync is false where the write may be lost in a crash (a commit index alone).
	Sync bool
}

// HardState is Raft's durable state beside the log.
type HardState struct {
	Term, Vote, Commit uint64
}

// LogEntry is one entry of the replicated log.
type LogEntry struct {
	Index, Term uint64
	Type        int32 // Raft's entry type
	Data        []byte
}

// Snapshot is the replicated state as of one index.
type Snapshot struct {
	Index, Term uint64
	Data        []byte
}

// Notes are small durable facts of one node that stand outside the log.
type Notes struct {
	LongestPromise time.Duration // the longest L under which this node has promised anything
	// Without names the nodes without which this node has agreed that its cluster be founded, in order, with
	// commas between; empty: it has not. Who has agreed takes no record but of the first node of the rest.
	Without string
}

// DiskImage is what a data directory held when the agent started.
type DiskImage struct {
	Incarnation Incarnation // of this data directory, never zero
	Founding    []byte      // nil: empty directory
	Hard        HardState
	Snapshot    *Snapshot
	Entries     []LogEntry
	Notes       Notes
}

// Target is a resource's wanted role on this node.
type Target uint8

const (
	// TargetStopped: not running.
	TargetStopped Target = iota
	// TargetStandby: as the resource's depth says, not serving.
	TargetStandby
	// TargetRunning: running, for the epoch given.
	TargetRunning
)

var targetNames = [...]string{"stopped", "standby", "running"}

func (t Target) String() string { return targetNames[t] }

// Want asks that a resource reach a target. A newer Want for the same resource supersedes it: the
// running operation is cancelled, its end awaited, then the newest pursued. The answer is Done{N}.
type Want struct {
	N        uint64
	Group    GroupID
	Resource ResourceID
	Target   Target
	Epoch    Epoch
	Deadline time.Duration // how long it may take; then it has failed (start) or is unknown (stop)
	// Restart asks that a resource which is up be stopped first: it was found ill.
	Restart bool
	// Announce asks a front that is up already to make itself known again (links have healed).
	Announce bool
}

// Status is what is known of a resource on this node.
type Status uint8

const (
	// StatusUnknown: not known; it must be probed.
	StatusUnknown Status = iota
	StatusStopped
	// StatusStandby: up to its depth, ready to be promoted or opened.
	StatusStandby
	StatusRunning
	StatusFailed
)

var statusNames = [...]string{"unknown", "stopped", "standby", "running", "failed"}

func (s Status) String() string { return statusNames[s] }

// Done answers a Want, or (with N zero) tells that a resource changed by itself.
type Done struct {
	N        uint64
	Group    GroupID
	Resource ResourceID
	Status   Status
	Reason   string // of a failure: what was seen, and the limit
	// Surroundings says that what failed is not the resource but what is around it: its interface or its carrier
	// is gone, an address was taken away, a user, a file or room on a disk is missing.
	Surroundings bool
	// Probe is what a probe of it asked and how it was answered, in words that are the same on every node where both
	// are; empty: no probe failed. With StatusFailed it is ill, or never became ready, for that, and what can be asked
	// is still up; with any other status only the last try has failed, which does not count yet.
	Probe string
}

// Lack is something that this host lacks for a resource to run here.
type Lack struct {
	Group    GroupID
	Resource ResourceID // empty: for any of the group's, and for the group even where all of it is up
	Why      string
}

// GateState is a gate that a former run left in the kernel.
type GateState struct {
	Group GroupID
	Epoch Epoch
	End   Instant
}

// Event is something for people: logged, shown, never acted on.
type Event struct {
	Code  string // stable, e.g. "lease.lost"
	Group GroupID
	Epoch Epoch // of the group; 0: it is about none
	Node  NodeID
	Text  string
}
