package node

import (
	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// This file notices that the data directory has gone back to a former state of itself: a snapshot of the disk or
// of the whole guest was taken up again, or a backup was put in place. Such a node has forgotten promises, acks and
// votes on which others rely, so it is as one that has lost its disk (protocol.md, "Forming, joining, and a
// disk that was lost"). It can only be noticed as long as another node lives that has heard it since.

// toldSetBack tells whether a heartbeat names of this very data directory what it does not hold: a later run,
// or an entry beyond the log's end that was committed.
func (n *Node) toldSetBack(hb *wire.Heartbeat) bool {
	if n.flawed(SetBackUnseen) {
		return false
	}
	for i := range hb.Heard {
		if h := &hb.Heard[i]; h.Node == n.name && h.Incarnation == n.inc {
			return h.Run > n.run || h.Durable > n.logEnd()
		}
	}
	return false
}

// logEnd is the index of the last entry that is durable here.
func (n *Node) logEnd() uint64 {
	if n.raft == nil {
		return 0
	}
	return n.raft.durable
}

// goneBack ends what this node takes part in: it shuts its gates, and hears and says nothing from now on.
func (n *Node) goneBack(who cluster.NodeID) {
	n.setBack = true
	n.shutAll()
	n.event("set-back", n.name, "the data directory of %s was set back to a former state: %s has heard more of it than it holds. It begins anew, like one that was lost", n.name, who)
}

// countMatched notes what peers have acknowledged to this node, which leads, as far as it is committed: no such
// entry is ever taken out of their logs again.
func (n *Node) countMatched() {
	for i := range n.peers {
		if p := &n.peers[i]; p.matched > p.durable {
			p.durable = max(p.durable, min(p.matched, n.raft.applied))
		}
	}
}
