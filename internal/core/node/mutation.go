package node

import (
	"slices"
	"time"

	"baton/internal/core/cluster"
)

// Mutation plants one bug, for the tests of the simulator: each must be caught. Many leave out a rule with the
// mark (m) (protocol.md, "How to read this page"). The zero value plants none. Binaries built without the tag
// `planted` hold no planted bug: what is set here then counts for nothing.
type Mutation uint8

const (
	// Faithful is the protocol as it is.
	Faithful               Mutation = iota
	NoGrace                         // a restarted voter answers at once that nothing is left
	LeaseQuorumOne                  // a lease rests on one voter's promise
	SaidQuorumOne                   // one voter's word ends a lease
	NoWait                          // the new owner does not wait until the former tenures are over
	NoRho                           // a promise lasts L, not L(1+rho)
	SenderStamp                     // a promise counts from the sender's time stamp
	StaleNow                        // a promise counts from a clock read before the packet came
	AckArrival                      // a lease counts from the arrival of the ack
	AckNoRun                        // an ack to a former run renews the lease
	SayAtAppend                     // "nothing left" is said when the Evict is appended
	SayUndurable                    // "nothing left" is said before the Evict is durable here
	OnlyLastTenure                  // only the tenure just before has to be over
	EvictKeepsOwner                 // Evict leaves the ownership
	EarlyNumber                     // a lease number is used before its Admit is applied
	AnyBoot                         // a lease number outlives a reboot
	ForgetActivated                 // the run record does not keep the activated epoch
	ForgetReleased                  // the run record does not keep the released epochs
	BootProves                      // a new boot is taken for proof that the former one is over
	ReleaseEarly                    // Released is said before the gate is known to be closed
	ReleaseServedOnly               // Released is not said for a tenure that was skipped
	RelativeGate                    // the gate's deadline counts from the write
	ApplyStale                      // an entry is applied though what it was decided on has changed
	TwoFoundings                    // whoever sees only empty nodes founds the cluster
	NoBackoff                       // the step between campaigns is never doubled
	RestsTimed                      // the next voter change waits for L(1+rho), not for what leases rest on
	RestsNone                       // the next voter change waits for nothing
	RestsAtApply                    // "it rests on this set" is said when the set is applied
	ForgetRests                     // the run record does not keep what the lease rests on
	EvictedIsOver                   // an evicted number is taken for over where the next voter change is decided
	SwapVoters                      // a lost disk's voter is replaced in one step
	FormerSelf                      // an empty disk answers as its former incarnation
	OwnLength                       // a promise is for the promiser's own lease length, not for the one named
	AckCurrentL                     // an acked heartbeat counts with the lease length of now
	LaterAck                        // an ack of a later, shorter heartbeat backs an earlier, longer one
	GraceState                      // the grace is for the lease length of the state, not the longest promised
	SilenceOwnD                     // a peer is silent after this node's D, not after that of the length it named
	Heedless                        // what people forbade is not heeded when a placement is applied
	SetBackUnseen                   // a node whose data directory has gone back in time goes on with it
	ServeUnrecorded                 // what serves is started before its epoch is in the run record
	ReleaseUnrecorded               // Released is said before the run record holds it
	NumberUnrecorded                // a lease number is used before the run record holds it
	VoteUndurable                   // votes and appends are acknowledged before they are durable
	BanForgotten                    // a ban is forgotten with the coordinator that gave it
	JournalLost                     // an entry of which a part no longer fits leaves no line of history
	PromiseUndurable                // a promise is given under a length that is not noted durably yet
	NumberOfFormerRun               // a former run's lease number is used though its run record is gone
	WanderingCoordinator            // leadership moves on though no place is better
	SnapshotWithoutTenures          // a snapshot holds the newest tenure of each group only
	StallRestarts                   // an own stall begins everybody's silence anew
	CommitUnrepeated                // the word that entries are committed is said once
	FitnessBlind                    // a node with a cut uplink or a sick disk counts as fit
	BanForbids                      // a ban keeps a group off a node though no other is left
	MendedIgnored                   // a ban that the surroundings caused lasts though they are mended
	UntoldRecord                    // a run record or gate that can't be written is kept from the others
	SnapshotWithoutPeople           // a snapshot holds no instructions
	ReplyEarly                      // a command is answered as done when it is proposed
	FailbackAtOnce                  // a preferred node gets its groups back without having been well for a while
	ManualMoves                     // a manual group is moved like any other
	VoteUnsynced                    // a vote is handed to the disk without a sync
	GateTooLong                     // the gate stays open for a little longer than the lease
	PromiseToAnyNumber              // a promise is given to a lease number that is over
	NeverUrgent                     // news waits for the next heartbeat
	EvictedServes                   // what is served goes on after the own Evict was applied
	FormerSet                       // words of a set from before the Evict end a lease
	BlinkTrusted                    // a network that has only just come back counts as had for good
	OneVoterJudges                  // a node has lost a link where one voter is out of touch with it
	OutagesHalved                   // outages are put on record at half their length
	UnwatchedVouched                // an account vouches for a time in which no agent watched
	StoppedForgotten                // what a person stopped is started by an agent that has yet to read that again
	PhasesOverlap                   // the time until an outage was noticed counts twice among its parts
	StopToldEarly                   // a group is told to be stopped while its programs still stop
	MutationCount
)

// misreport plants what is wrong with a report of a group on a node, as the planner sees it.
func (n *Node) misreport(g *cluster.GroupFacts, k int, r *cluster.Report) {
	if n.flawed(BanForbids) {
		for _, b := range g.Bans {
			r.Lacks = r.Lacks || b.Node == n.peers[k].id
		}
	}
	if n.flawed(MendedIgnored) {
		g.Bans = slices.Clone(g.Bans)
		for i := range g.Bans {
			g.Bans[i].Surroundings = false
		}
	}
	if n.flawed(FailbackAtOnce) && r.Well > 0 {
		r.Well = time.Hour
	}
}

// unbound is the specification with every group's failover automatic: planted bug ManualMoves.
func unbound(spec *cluster.Spec) *cluster.Spec {
	c := *spec
	c.Groups = slices.Clone(spec.Groups)
	for i := range c.Groups {
		c.Groups[i].Failover = cluster.FailoverAutomatic
	}
	return &c
}

// mutation is the bug that is planted here.
func (n *Node) mutation() Mutation {
	if !cluster.Planted {
		return Faithful
	}
	return n.flaw
}

// flawed tells whether a bug is planted here.
func (n *Node) flawed(m Mutation) bool { return cluster.Planted && n.flaw == m }
