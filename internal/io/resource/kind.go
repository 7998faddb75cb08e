// Package resource starts, stops and watches what groups are made of. A kind is one file: it
// describes itself as data (cluster.KindSpec) and implements the small interface Resource.
package resource

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// Kind makes resources of one kind.
type Kind interface {
	// Spec describes the kind as data.
	Spec() cluster.KindSpec
	// New makes a handle on a resource. It starts nothing and changes nothing; what already runs is
	// adopted when Probe finds it.
	New(Env) (Resource, error)
	// Leftover makes a handle on what runs by env.RunDir though no file describes it any more: of env.Spec
	// only ID, Kind and StopTimeout are given. It is only probed and stopped.
	Leftover(Env) (Resource, error)
}

// Env is what a resource is given to live in.
type Env struct {
	Cluster string
	Node    cluster.NodeID
	Group   cluster.GroupID
	Spec    cluster.ResourceSpec
	RunDir  string // on tmpfs: outlives the agent, not the boot; made by the caller, private to this resource
	// OutputDir is where its output goes where there is no journald: on a file system that nothing that decides shares.
	// Empty: RunDir.
	OutputDir   string
	OutputLimit int64 // bytes above which the output is cut; 0: OutputLimit
	Log         *slog.Logger
	// Changed tells that the resource changed by itself (died, became ill, recovered). It never blocks.
	// It is not called for a change that Start, Standby or Stop made. Surroundings says of a failure that it comes
	// from what is around the resource (Lacking).
	Changed func(status cluster.Status, reason string, surroundings bool)
	// Doubts is Changed for what a probe says against the resource (cluster.Done): status is StatusFailed where that
	// counts, and how it is where only the last try has failed. It ends with the next call of Changed.
	Doubts func(status cluster.Status, reason, probe string)
}

// Resource is one resource on this node. All methods but Changed's caller run one at a time, each ends
// soon after its context does, and each is idempotent.
//
// What runs may have been started by another description than the present one: the file has changed since,
// or another agent started it. So what a stop needs stands in the run directory, Stop stops what was started,
// and Start and Standby stop it first if it is not what they would have started.
type Resource interface {
	// Start brings the resource to running for the given epoch and returns when it is ready.
	// From standby it promotes. It returns ErrStaleEpoch if a higher epoch was seen here before.
	Start(ctx context.Context, epoch cluster.Epoch) error
	// Standby brings it to the depth of its specification: up but not serving (Hot), or stopped (Cold).
	Standby(ctx context.Context, epoch cluster.Epoch) error
	// Stop stops it. An error means that it is not known to be stopped.
	Stop(ctx context.Context) error
	// Probe tells what is the case now, without changing anything, and waits for nobody: an agent that begins is not
	// heard before it has probed all. What was started by another description and can't go on under the present one is
	// StatusUnknown, and so is what is not known to be ready: whoever wants it running must say so again.
	Probe(ctx context.Context) (cluster.Status, error)
	// Close lets go of the resource without stopping it: the agent ends, the resource runs on.
	Close()
}

// Announcer is a front that can make itself known to its neighbours again.
type Announcer interface {
	Announce(ctx context.Context) error
}

// Keeper is a resource that notes in its run directory what a later run of the agent must know.
type Keeper interface {
	// Keep makes anew what was deleted of that, and room for what Start and Standby will note, so that they need none
	// where others fill the file system, and cuts output that Outputs can't find. It changes nothing else. It is not called while another method runs.
	Keep() error
}

// Lacking wraps an error that comes not from the resource but from what is around it: its interface is gone, an
// address was taken away, a user or a file is missing. It ends when the host has that again.
type Lacking struct{ Cause error }

func (l Lacking) Error() string { return l.Cause.Error() }
func (l Lacking) Unwrap() error { return l.Cause }

// lacking wraps an error, if it is one.
func lacking(err error) error {
	if err == nil {
		return nil
	}
	return Lacking{err}
}

// exhausted are errors of a host that has no more of something: room, processes, memory, open files.
var exhausted = []error{unix.ENOSPC, unix.EDQUOT, unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE}

// fromSurroundings tells whether an error comes from what is around a resource. That of a host that has no more of
// something always does.
func fromSurroundings(err error) bool {
	_, ok := errors.AsType[Lacking](err)
	return ok || Exhausted(err)
}

// Exhausted tells whether an error says that the host has no more of something: room, processes, memory, open files.
// Nothing tells when there is some again.
func Exhausted(err error) bool {
	return slices.ContainsFunc(exhausted, func(e error) bool { return errors.Is(err, e) })
}

// ErrStaleEpoch means that a newer placement of the group is known: the caller must give up the role.
var ErrStaleEpoch = errStale{}

type errStale struct{}

func (errStale) Error() string { return "a newer epoch of this group has been seen here" }
