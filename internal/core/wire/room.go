package wire

import "baton/internal/core/cluster"

// A heartbeat is one datagram: its sender puts in as much of its groups as the rest leaves room for.

// countsGrow is what the two counts of lists, and the bits of those who know all, may take beyond a byte each.
const countsGrow = 4

// Room returns how many bytes of group reports and releases a heartbeat still has room for. It appends the encoded
// message to scratch, whose room may be used again; a heartbeat that can't be encoded has none.
func Room(scratch []byte, m *Heartbeat) (room int, used []byte) {
	used, err := Append(scratch[:0], m)
	if err != nil {
		return 0, used
	}
	return MaxDatagram - len(used) - countsGrow, used
}

// Size returns how many bytes a report takes in a heartbeat.
func (g *GroupReport) Size() int {
	reason := min(len(g.Reason), MaxReason)
	size := 8 + varintSize(uint64(g.Epoch)) + 2 + varintSize(uint64(reason)) + reason
	if g.Probe != 0 {
		size += 8
	}
	return size
}

// Size returns how many bytes a release takes in a heartbeat.
func (t *Tenure) Size() int { return 8 + varintSize(uint64(t.Epoch)) }

func varintSize(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// accountRoom is more than what anything takes in an account.
const accountRoom = 128 + cluster.CauseMax

// Size returns how many bytes an account takes in a heartbeat.
func (a *Account) Size() int {
	e := encoder{b: make([]byte, 0, accountRoom)}
	e.account(a)
	return len(e.b)
}
