package link

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"baton/internal/core/cluster"
)

const (
	// twinsFor is for how long two agents must be heard in turns: what a former run has left on its way is over by then.
	twinsFor = 5 * time.Second
	// voiceLasts is how long ago an agent may have been heard to count as one that speaks. The longest time between two
	// heartbeats is less than half of it.
	voiceLasts = 11 * time.Second
	voicesKept = 4 // of a node; those heard longest ago go first
)

// voice is one agent that speaks as a node: a run of it, and where its packets come from.
type voice struct {
	run         cluster.RunID
	from        netip.AddrPort
	first, last time.Time
}

// Twins are two agents that speak as one node at the same time, and prove the cluster's key: a copy of a machine, or of
// its data directory and key, that was started beside it.
type Twins struct {
	Node cluster.NodeID
	From [2]netip.AddrPort // where their packets come from, the one that began earlier first
}

// hears notes who has sent an authentic packet. Links.receiving is held.
func (l *Links) hears(node cluster.NodeID, run cluster.RunID, from netip.AddrPort, now time.Time) {
	all := l.voices[node]
	i := slices.IndexFunc(all, func(v voice) bool { return v.run == run })
	if i < 0 {
		if len(all) == voicesKept {
			oldest := 0
			for k := range all {
				if all[k].last.Before(all[oldest].last) {
					oldest = k
				}
			}
			all = slices.Delete(all, oldest, oldest+1)
		}
		all = append(all, voice{run: run, first: now})
		l.voices[node] = all
		i = len(all) - 1
	}
	all[i].from, all[i].last = from, now
}

// Twins tells which nodes have two agents that speak in turns, in the order of their names.
func (l *Links) Twins(now time.Time) (twins []Twins) {
	l.receiving.Lock()
	defer l.receiving.Unlock()
	for node, all := range l.voices {
		if a, b, ok := inTurns(all, now); ok {
			twins = append(twins, Twins{node, [2]netip.AddrPort{a.from, b.from}})
		}
	}
	slices.SortFunc(twins, func(a, b Twins) int { return cmp.Compare(a.Node, b.Node) })
	return twins
}

// inTurns finds two voices of a node that both speak, and have for a while.
func inTurns(all []voice, now time.Time) (a, b *voice, ok bool) {
	for i := range all {
		for k := range all {
			a, b := &all[i], &all[k]
			early := a.last
			if b.last.Before(early) {
				early = b.last
			}
			if a.first.Before(b.first) && now.Sub(early) < voiceLasts && early.Sub(b.first) >= twinsFor {
				return a, b, true
			}
		}
	}
	return nil, nil, false
}
