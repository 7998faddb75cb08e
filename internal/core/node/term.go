package node

import (
	"fmt"
	"time"

	"baton/internal/core/cluster"
)

// rise is why the term last rose, as far as this node has seen, for people: each node may have seen it otherwise.
type rise struct {
	term uint64
	lead cluster.NodeID   // who led before; empty: nobody is known to have
	wall cluster.WallTime // when this node learned of it; 0: it has known no other
	why  string
}

// tendTerm notices that the term has risen, and who leads.
func (n *Node) tendTerm() {
	if n.raft == nil || n.state == nil || n.state.IsBlank() {
		return
	}
	x, term := &n.rise, n.raft.term()
	if x.term != 0 && term > x.term {
		x.wall, x.why = n.now.Wall, n.whyTermRose()
	}
	x.term = term
	if lead := n.lead(); lead >= 0 {
		x.lead = n.peers[lead].id
	}
}

// whyTermRose tells why there was an election.
func (n *Node) whyTermRose() string {
	lead, e := n.rise.lead, &n.election
	silent := n.now.Mono.Sub(e.heard)
	switch {
	case lead == "":
		return "none was known before"
	case lead == n.id() && n.pulse.sick:
		return fmt.Sprintf("%s, which had led, handed over: its %s does not answer", lead, n.unwell())
	case lead == n.id():
		return fmt.Sprintf("%s, which had led, handed over, or was not heard by another", lead)
	case silent >= e.patience(n):
		return fmt.Sprintf("%s, which had led, had not said so for %v", lead, silent.Round(time.Millisecond))
	}
	return fmt.Sprintf("%s, which had led, handed over, or was not heard by another; it is heard here", lead)
}
