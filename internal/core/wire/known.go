package wire

import "baton/internal/core/cluster"

// Know makes these the nodes whose packets are taken. Of those that were known before, what was seen stays
// seen; self is never one of them. It fails, and changes nothing, if a name is no node's name.
func (o *Opener) Know(nodes []cluster.NodeID) error {
	senders := make(map[cluster.NodeID]*sender)
	for _, id := range nodes {
		if err := checkNode(id); err != nil {
			return err
		}
		if id == o.self {
			continue
		}
		if senders[id] = o.senders[id]; senders[id] == nil {
			senders[id] = &sender{id: id}
		}
	}
	o.senders = senders
	return nil
}
