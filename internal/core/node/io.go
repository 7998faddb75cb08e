package node

import (
	"net/netip"

	"baton/internal/core/cluster"
	"baton/internal/core/decide"
	"baton/internal/core/wire"
)

// Input is one thing that happened: *Boot, *Packet, *Observed, *Lacking, *Reach, *Returned, *Fitted, *Suspended, *Tick, *Command, *Stored, *Recorded,
// *Gated or *cluster.Done (wrapped in *Done).
type Input interface{ isInput() }

// Boot is the first input, once: what the disk held, and what runs here already.
type Boot struct {
	Boot cluster.BootID
	Run  cluster.RunID // of this life of the agent
	Disk cluster.DiskImage
	// Record is what a former run of the same boot left on tmpfs; nil: none, so this node begins as
	// after a reboot, and the caller has closed every gate and proved stopped what acts beyond them.
	Record *cluster.Record
	Gates  []cluster.GateState // what stands in the kernel
	Found  []cluster.Done      // what a probe of each resource found; N is 0
	// Lived is when a former run last wrote to the disk; 0: not known. It serves the record of outages only.
	Lived cluster.WallTime
}

// Packet is one authenticated, decoded message. The caller hands packets over in the order of their
// arrival, and all that have arrived before it hands over a Tick.
type Packet struct {
	From cluster.NodeID
	Run  cluster.RunID // of the sender
	Link int           // index in Spec.Links
	Msg  wire.Message
}

// Observed tells of this node's own surroundings. The last value counts.
type Observed struct {
	// LinkDown says, per link, whether its interface is gone or has no carrier; nil: this input tells
	// nothing of the interfaces.
	LinkDown []bool
	// Cut names, if LinkDown is given, the groups whose addresses' interface has no carrier.
	Cut []cluster.GroupID
	// SyncNanos is how long the last sync of the log took; it enters the elections' pace. 0: unchanged.
	SyncNanos int64
}

// Lacking tells what this host lacks at the moment for groups to run here, all of it: what the former one
// told and this one does not is there again.
type Lacking struct {
	Lacks []cluster.Lack
	// Came says that something has come that programs may have missed, such as an address: what is down is tried at once.
	Came bool
}

// Reach tells what this node has found out about Spec.Targets, and about what Output.Ask names; of what it names
// nowhere, it can say nothing yet.
type Reach struct {
	Reached []netip.Addr // they answer
	Doubted []netip.Addr // they did not answer just now, or not yet
	Missed  []netip.Addr // they have not answered for long
}

// Returned tells that a neighbour of this node is there again. What was announced meanwhile, it has not heard.
type Returned struct{}

// Fitted tells that links, gate and resources are in line with a revision of the configuration: nothing here answers
// any more, but from behind a shut gate, for an address that it took away.
type Fitted struct{ Revision cluster.Revision }

// Suspended tells that this machine was suspended and goes on: it comes before all that has arrived since.
type Suspended struct{}

// Tick tells only that time has passed.
type Tick struct{}

// Command is a request of a person. It is answered by a Reply with the same ID, now or later.
type Command struct {
	ID    uint64 // unique on this node within this run
	Op    Op
	Group cluster.GroupID
	To    cluster.NodeID // of OpSwitch; empty: the best candidate
	By    string         // who asked, for the journal
	// Part is what OpPropose asks to have applied, as it is.
	Part cluster.Part
	Why  string // for the journal; empty: "asked for"
	// NoWait asks for the answer of OpPropose as soon as the Part was applied, or dropped.
	NoWait bool
	// Without names the nodes that OpForm does without.
	Without []cluster.NodeID
}

// Op is what a command asks for.
type Op uint8

const (
	// OpSwitch moves a group on purpose.
	OpSwitch Op = iota + 1
	// OpFailback moves a group to its preferred node.
	OpFailback
	// OpPropose puts Part into the log. The answer comes once it was applied, or was dropped as no longer
	// fitting; for a Draft once it was adopted or given up, for a Restart, Stop, Start or Drain once it is
	// carried out.
	OpPropose
	// OpForm founds the cluster without nodes that can't be reached. The answer comes once it is founded.
	OpForm
)

// Faulty tells whether this agent can tell people of a fault of its links, of a way to another node or of its gate. The
// others are told that it can; what it is they ask its agent.
type Faulty struct{ On bool }

// Stored answers every Persist up to N.
type Stored struct{ N uint64 }

// Recorded answers every Record up to N.
type Recorded struct{ N uint64 }

// Gated answers every Gate up to N.
type Gated struct{ N uint64 }

// Done wraps the answer of a resource's worker.
type Done struct{ cluster.Done }

func (*Boot) isInput()      {}
func (*Packet) isInput()    {}
func (*Observed) isInput()  {}
func (*Lacking) isInput()   {}
func (*Reach) isInput()     {}
func (*Faulty) isInput()    {}
func (*Returned) isInput()  {}
func (*Fitted) isInput()    {}
func (*Suspended) isInput() {}
func (*Tick) isInput()      {}
func (*Command) isInput()   {}
func (*Stored) isInput()    {}
func (*Recorded) isInput()  {}
func (*Gated) isInput()     {}
func (*Done) isInput()      {}

// Output is what the caller must now do. Its slices are valid until the next Step.
//
// The fields are independent: the caller may act on them in any order and may lose any of Sends. Where
// one effect must follow another, Step holds it back until the input that reports the first has come.
type Output struct {
	Gates    []cluster.Gate // write at once, ahead of everything else; answer Gated
	Record   *Record        // write to tmpfs; answer Recorded. A newer one supersedes
	Sends    []Send         // datagrams: a full socket drops them
	Persists []cluster.Persist
	Wants    []cluster.Want
	Events   []cluster.Event
	Decided  []decide.Decision // decisions that are new or have changed
	Replies  []Reply
	Applied  []cluster.LogEntry // entries applied in this Step, for observers
	// Spec is the configuration that counts from now on, if it has changed; nil: it has not. The caller
	// brings links, gate and resources into line with it before it carries out the rest.
	Spec *cluster.Spec
	// Revision is the number of Spec; once what it asks for is in place, the answer is Fitted.
	Revision cluster.Revision
	// Ask says whom to ask whether they answer, beside Spec.Targets: nodes whose heartbeats do not come on a link by which
	// clients come, by their addresses there; nil: as before. What comes of it is told by Reach.
	Ask *Ask
	// Left says that this node was made to leave the cluster: everything is stopped, nothing more will come.
	Left bool
	// SetBack says that the data directory was set back to a former state of itself. Nothing more will come. The
	// caller stops everything, and begins anew with an empty data directory.
	SetBack bool
	// Halted says why this node can't go on, in a sentence: what the cluster's log holds it can't read. Nothing more
	// will come. The caller stops everything, keeps the data directory, and ends.
	Halted string
	WakeAt cluster.Instant // call Step again no later
}

// Ask names addresses of other nodes.
type Ask struct{ Addresses []netip.Addr }

// Record is a numbered run record.
type Record struct {
	N uint64
	cluster.Record
}

// Send asks that a message go to a node over every link.
type Send struct {
	To  cluster.NodeID
	Msg wire.Message
}

// Reply answers a Command.
type Reply struct {
	ID   uint64
	Done bool   // false: refused or failed
	Text string // one sentence
	Hint string
	// UnderWay: it stands in the log, and nobody waits for its end (Command.NoWait).
	UnderWay bool
}
