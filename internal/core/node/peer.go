package node

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"baton/internal/core/cluster"
	"baton/internal/core/detect"
	"baton/internal/core/wire"
)

// peer is what this node knows of one node (for its own place, only what others say is kept).
type peer struct {
	id      cluster.NodeID
	role    cluster.Role
	inc     cluster.Incarnation // by the log, the newest; 0: none is known
	votes   bool                // that incarnation is a voter
	rests   rested              // the set that its lease was said to rest on
	det     *detect.Peer
	hb      *wire.Heartbeat // the newest of its present run
	hbAt    cluster.Instant
	clocks  []relation // how its clock relates to this node's, by boot
	run     cluster.RunID
	seqs    []uint64 // per link: the newest heartbeat of this run
	durable uint64   // up to this index its log is known to be committed and durable
	matched uint64   // it has acknowledged this index to this node, which leads

	hearing // of groups: what it has heard of this node's, and told of its own

	leaseDown  cluster.Instant // since when it says that its lease does not run; 0: it runs
	unleased   uint64          // the newest heartbeat of its run that said so
	admitted   cluster.Instant // when its newest Admit was applied here
	silentTold bool
	deaf       bool // it has not heard this node for half a lease length

	// heartbeats to it
	sentSeq   uint64          // the newest sent
	sentAt    cluster.Instant // when
	acked     uint64          // the newest acked
	waiting   cluster.Instant // when the oldest heartbeat after the newest acked one was sent; 0: none
	urgentSeq uint64          // repeat quickly until this one is acked …
	urgentEnd cluster.Instant // … or this instant comes
	repeats   int             // sent since it became urgent

	// Raft messages to it that are repeated until answered
	append   resend
	commit   resend // that the log is committed so far, until its heartbeat says that it has applied it
	vote     resend
	snapshot cluster.Instant // when a snapshot sent to it counts as lost; 0: none is under way
	proposed []byte          // the proposal that it last forwarded here
	trips    []time.Duration // per link: the smoothed round trip; 0: none yet
	asked    wire.Ask        // what it last said while the cluster forms
	askedAt  cluster.Instant
	textAt   cluster.Instant // not before this is it sent the cluster file again

	out stream // what goes to it in pieces
	in  inflow // what comes from it so

	unknown    cluster.Incarnation // not in the log here, heard of in Raft's messages: answers go to it
	stranger   cluster.Incarnation // of the last heartbeat that was not of its newest incarnation
	strangerAt cluster.Instant
	entrusted  bool // leadership was handed over once to who hears it, since it has never said anything to this node
}

// rested is the log index of the set on which a lease was said to rest. It stays true, so it is kept.
type rested struct {
	number cluster.Number
	index  uint64
}

// resend repeats one Raft message at the quick pace until it is answered or its time is over.
type resend struct {
	msg   *raftpb.Message
	index uint64 // answered by an acknowledgement of this log index
	at    cluster.Instant
	end   cluster.Instant
	times int // it was repeated
}

func newPeer(s *cluster.NodeSpec, links int, now cluster.Instant, t cluster.Timing) peer {
	return peer{id: s.ID, role: s.Role, det: detect.NewPeer(links, now, t), seqs: make([]uint64, links+1), trips: make([]time.Duration, links)}
}

// admitRun tells whether a packet of this run is to be looked at: runs of one node are ordered, so late
// packets of former ones are known as such. It reports whether the run is a new one.
func (p *peer) admitRun(run cluster.RunID) (ok, fresh bool) {
	if run <= p.run {
		return run == p.run, false
	}
	p.run, p.hb, p.leaseDown, p.unleased = run, nil, 0, 0
	p.out.clear() // what had arrived of it is gone
	clear(p.seqs)
	return true, true
}

// become makes the peer another incarnation: runs are ordered within one data directory only, and what was
// known of the former one tells nothing of this one.
func (p *peer) become(inc cluster.Incarnation, det *detect.Peer) {
	if p.inc != 0 {
		p.det, p.silentTold = det, false
		p.acked, p.waiting, p.durable, p.matched, p.deaf = 0, 0, 0, 0, false
	}
	p.inc, p.run, p.hb, p.leaseDown, p.unleased = inc, 0, nil, 0, 0
	p.append.msg, p.commit.msg, p.vote.msg, p.proposed, p.snapshot = nil, nil, nil, nil, 0
	p.out.clear()
	p.in = inflow{} // its sets are counted anew, and its run may be a lower one
	clear(p.seqs)
}

// slot is where the newest heartbeat heard on a link is kept; what came over no link that is known
// shares the last place.
func (p *peer) slot(link int) *uint64 {
	if link < 0 || link >= len(p.seqs) {
		link = len(p.seqs) - 1
	}
	return &p.seqs[link]
}

// applied is the log index that the peer has applied, by its newest heartbeat.
func (p *peer) applied() uint64 {
	if p.hb == nil {
		return 0
	}
	return p.hb.Applied
}

// resendAt returns when a Raft message is due again.
func (p *peer) resendAt() cluster.Instant {
	at := cluster.Never
	if p.append.msg != nil {
		at = min(at, p.append.at)
	}
	if p.commit.msg != nil {
		at = min(at, p.commit.at)
	}
	if p.vote.msg != nil {
		at = min(at, p.vote.at)
	}
	if p.snapshot != 0 {
		at = min(at, p.snapshot)
	}
	if p.out.data != nil {
		at = min(at, p.out.at)
	}
	return at
}

// event tells people something.
func (n *Node) event(code string, node cluster.NodeID, format string, args ...any) {
	n.out.Events = append(n.out.Events, cluster.Event{Code: code, Node: node, Text: fmt.Sprintf(format, args...)})
}

// groupEvent tells people something about a group whose gate is open here.
func (n *Node) groupEvent(code string, g cluster.GroupID, format string, args ...any) {
	n.out.Events = append(n.out.Events, cluster.Event{Code: code, Group: g, Epoch: n.local(g).open, Node: n.id(), Text: fmt.Sprintf(format, args...)})
}

// lastingFor is the time for which urgent packets are repeated: 2 L.
func (n *Node) lastingFor() time.Duration { return 2 * n.timing.L }
