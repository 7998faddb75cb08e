// Package cluster holds the words that every part of baton shares: names, numbers that only grow,
// instants, the specification of a cluster, and the values that cross the border between the pure
// core (which decides) and the io packages (which act). It has no behaviour of its own.
package cluster

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// NodeID is a node's name in the cluster file.
type NodeID string

// GroupID is a group's name in the cluster file.
type GroupID string

// Key is what nodes call a group between each other: the first 64 bits of the SHA-256 of its name. A cluster file in
// which two groups have the same is refused.
func (id GroupID) Key() uint64 {
	sum := sha256.Sum256([]byte(id))
	return binary.LittleEndian.Uint64(sum[:])
}

// ResourceID is a resource's name, unique within its group.
type ResourceID string

// Incarnation identifies a node's data directory: random, made with it, never zero. It is also the
// node's identity in Raft, so that a disk that was lost can never vote as its former self.
type Incarnation uint64

// BootID identifies one boot of a node's kernel; never zero.
type BootID uint64

// RunID identifies one life of the agent process; never zero. Later runs on one data directory have higher
// ids, so that late packets of a former run can be told from those of a new one: the upper half counts the
// runs, the lower is random (an ack must never fit a former run, also where a disk was set back).
type RunID uint64

// NewRun makes the id of the n-th run on a data directory; random need not be strong.
func NewRun(n uint64, random uint32) RunID { return RunID(n<<32 | uint64(random)) }

// Number is a lease number. A node is admitted under 1, 2, 3 …; zero means "holds none".
type Number uint64

// Epoch counts the placements of a group: the fencing token. It only grows; zero means "never placed".
type Epoch uint64

// Revision counts the versions of the cluster file.
type Revision uint64

// View numbers the views of a two-node cluster. With three voters or more it is always 1.
type View uint64

// Instant is a reading of one node's own clock in nanoseconds (protocol.md, "Clocks"): monotonic,
// never bent by a time daemon, running on through suspend. Readings of two nodes are never compared.
type Instant int64

// WallTime is nanoseconds since 1970 UTC. It serves calendars and ends of maintenance, never a lease.
type WallTime int64

// Never is an instant that does not come.
const Never = Instant(1<<63 - 1)

// Add returns the instant d later. Never stays Never.
func (i Instant) Add(d time.Duration) Instant {
	if i == Never {
		return Never
	}
	return i + Instant(d)
}

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Now is what a node reads from its clocks at one moment.
type Now struct {
	Mono Instant
	Wall WallTime
}

// Role says what a node is for.
type Role uint8

const (
	// Member runs groups and votes.
	Member Role = iota
	// Spare runs groups only when no preferred node can; it votes.
	Spare
	// Witness votes and runs nothing.
	Witness
)

var roleNames = [...]string{"member", "spare", "witness"}

func (r Role) String() string { return roleNames[r] }

// Assert panics when a rule that must always hold does not. The agent answers such a panic by starting
// nothing new, letting its lease run out, and restarting; it never guesses on.
func Assert(ok bool, format string, args ...any) {
	if !ok {
		panic(BrokenInvariant(fmt.Sprintf(format, args...)))
	}
}

// BrokenInvariant is the value that Assert panics with.
type BrokenInvariant string

func (b BrokenInvariant) Error() string { return "broken invariant: " + string(b) }
