package node

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"baton/internal/core/cluster"
	"baton/internal/core/state"
)

// This file ends a node that can't read what its cluster's log holds: a snapshot, an entry, a configuration. To
// go on without it would leave a hole, and what the node then decided, promised or served would rest on another
// state than that of the rest.

// ended tells whether this node takes no part any more.
func (n *Node) ended() bool { return n.setBack || n.halted != "" }

// halt makes this node shut its gates, and hear and say nothing from now on.
func (n *Node) halt(format string, args ...any) {
	if n.ended() {
		return
	}
	n.halted = fmt.Sprintf(format, args...)
	n.shutAll()
	n.event("halted", n.name, "%s takes no part any more: %s", n.name, n.halted)
}

func (n *Node) shutAll() {
	for i := range n.groups {
		if l := &n.groups[i]; l.open != 0 {
			n.gate(l, l.open, 0)
			l.open = 0
		}
	}
}

// readable tells whether this node can read a snapshot, and halts it if it can't: that is found out before the
// snapshot takes the place of what is on the disk.
func (n *Node) readable(s *raftpb.Snapshot) bool {
	_, err := state.Decode(s.GetData(), n.read, n.stateFlaws())
	if err != nil {
		n.halt("the snapshot that the coordinator sends can't be read by this version: %v", err)
	}
	return err == nil
}

// adoptable tells whether this node can read the configuration that an entry adopts, and halts it if it can't.
func (n *Node) adoptable(index uint64, c *cluster.Entry) bool {
	err := n.state.Unread(c)
	if err != nil {
		n.halt("entry %d makes a configuration count that can't be read by this version: %v", index, err)
	}
	return err == nil
}
