package node

import (
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// What people are told of their commands, and what is said of a peer's log.

// A group is told to serve once its owner says so of the newest placement: what it said of the one before tells nothing.
func TestServesUnderItsEpoch(t *testing.T) {
	r := settled(t, file("one", nil))
	n := r.at("beta").n
	_, ended := n.serves("web", "")
	check(t, ended, "web serves, and is not told to")
	_, ended = n.serves("web", "beta")
	check(t, !ended, "web is told to serve on beta")
	n.state.Groups[0].Epoch++
	reply, ended := n.serves("web", "")
	check(t, !ended, "it is told %q, by the word on the placement before", reply.Text)
	told := &n.peers[n.index("alpha")].told[0]
	told.report.Epoch++
	reply, ended = n.serves("web", "alpha")
	check(t, ended && reply.Done, "it is told %q", reply.Text)
	told.report.Phase = wire.PhasePreparing
	_, ended = n.serves("web", "")
	check(t, !ended, "web is told to serve before it does")
}

// Beta, which leads, knows that gamma has entries in its log that are not committed yet: they may be cut off it again, so
// only those that are committed are named as what gamma never loses.
func TestOnlyWhatIsCommittedStays(t *testing.T) {
	r := settled(t, file("one", nil))
	n := r.at("beta").n
	p := &n.peers[n.index("gamma")]
	p.matched = n.raft.applied + 5
	n.countMatched()
	check(t, p.durable == n.raft.applied, "of gamma's log index %d counts as never lost, and %d is committed", p.durable, n.raft.applied)
}

// A group that is pinned to one node is pinned to another: the former pin is no reason against it.
func TestPinnedElsewhereAnew(t *testing.T) {
	r := settled(t, file("one", nil))
	beta := r.at("beta")
	for _, to := range []cluster.NodeID{"alpha", "beta", "alpha"} {
		r.forget()
		beta.ask(cluster.Part{Pin: &cluster.Pin{Group: "web", Node: to}})
		r.until("web is pinned to "+string(to), 2*time.Second, func() bool { return len(beta.replies) > 0 })
		check(t, beta.replies[0].Done && beta.group("web").Owner == to, "a pin to %s: %q, %q", to, beta.replies[0].Text, beta.replies[0].Hint)
	}
}

// A restart was asked for under another placement: it is not this one's, done or not.
func TestTaskOfAnotherPlacement(t *testing.T) {
	r := settled(t, file("one", nil))
	n := r.at("alpha").n
	n.state.Instructions.Tasks = []cluster.Task{{ID: "x", Index: 1, Verb: cluster.TaskRestart, Group: "web", Epoch: 7}}
	n.tendTasks(&n.groups[0], true, 1)
	check(t, len(n.tasks) == 0, "it counts as ended: %+v", n.tasks)
	n.tendTasks(&n.groups[0], true, 7)
	check(t, len(n.tasks) == 1 && n.tasks[0].ended && n.tasks[0].reason != "", "nothing is told of a restart that a former run began: %+v", n.tasks)
}
