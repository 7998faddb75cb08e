package config

import (
	"fmt"
	"slices"
	"time"

	"baton/internal/core/cluster"
)

const (
	// handover is the time from the end of the last promise to the first answer: "nothing left" said and
	// heard, gate opened, address announced.
	handover = 3 * time.Millisecond
	// fineBelow is the heartbeat interval below which it is chosen in tenths of a millisecond.
	fineBelow = 5 * time.Millisecond
)

// Bound is how long a group may at worst be away after one kind of fault, its own start-up excluded.
type Bound struct {
	Fault string // a stable word
	Worst time.Duration
	Why   string // one sentence
}

// Bounds are the bounds of one Timing, one for each kind of fault.
type Bounds []Bound

// Derive chooses every timer for a takeover time (protocol.md, "Timing"): the longest lease for which,
// at the worst, the loss of an owner and of the coordinator with it still fits. Stall is the longest
// stall of a machine that must fit, sync how long a sync of the log takes, rtt the round trip of the
// slowest link. The error says which part does not fit, and the least takeover that does.
func Derive(takeover, stall, sync, rtt time.Duration) (cluster.Timing, Bounds, error) {
	switch {
	case takeover < MinTakeover || takeover > MaxTakeover:
		return cluster.Timing{}, nil, fmt.Errorf("takeover is %v, outside %v to %v", takeover, MinTakeover, MaxTakeover)
	case stall < 0 || sync < 0 || rtt < 0:
		return cluster.Timing{}, nil, fmt.Errorf("stall %v, sync %v, round trip %v: none can be negative", stall, sync, rtt)
	case stall > MaxTakeover || sync > MaxTakeover || rtt > MaxTakeover:
		return cluster.Timing{}, nil, fmt.Errorf("stall %v, sync %v, round trip %v: none may exceed %v", stall, sync, rtt, MaxTakeover)
	}
	for h := coarse(takeover / 10); h > 0; h = shorter(h) {
		t := timers(takeover, h, stall, sync, rtt)
		if !patient(t) {
			break
		}
		if budget(t) <= takeover {
			return t, bounds(t), nil
		}
	}
	return cluster.Timing{}, nil, unreachable(takeover, stall, sync, rtt)
}

// coarse rounds a heartbeat interval down to one that may be chosen.
func coarse(h time.Duration) time.Duration {
	if h < fineBelow {
		return h.Truncate(time.Millisecond / 10)
	}
	return h.Truncate(time.Millisecond)
}

// shorter returns the next shorter heartbeat interval; 0 if there is none.
func shorter(h time.Duration) time.Duration {
	if h <= fineBelow {
		return h - time.Millisecond/10
	}
	return h - time.Millisecond
}

func timers(takeover, h, stall, sync, rtt time.Duration) cluster.Timing {
	l := 10 * h
	return cluster.Timing{
		Takeover: takeover, L: l, H: h, D: 9 * h, Stall: stall, Sync: sync, RTT: rtt, RhoPPM: cluster.RhoPPM,
		Longest: l, Step: max(8*l/100, 4*rtt+2*sync),
	}
}

// patient tells whether a stall that must fit passes without the machine being taken for dead: its
// heartbeat may be h old when it begins, and a round trip late when it ends.
func patient(t cluster.Timing) bool { return t.Stall+t.H+t.RTT <= t.D }

// commit is how long an entry takes from proposal to commitment.
func commit(t cluster.Timing) time.Duration { return t.RTT + 2*t.Sync }

// election is the time from the last heartbeat of a coordinator that died to the first entry committed by
// the next, where the first candidate is dead as well: half of L, the second candidate's step, the age of
// the last heartbeat, pre-vote and vote with their syncs, and a commit.
func election(t cluster.Timing) time.Duration {
	return t.L/2 + t.Step + t.H + 2*t.RTT + 2*t.Sync + commit(t)
}

// lateElection and lateCommit are what exceeds the time that passes until the promises have run out anyway.
func lateElection(t cluster.Timing) time.Duration { return max(0, election(t)-t.D) }

func lateCommit(t cluster.Timing) time.Duration { return max(0, commit(t)-t.L/10) }

// budget is the worst case after the loss of owner and coordinator together.
func budget(t cluster.Timing) time.Duration {
	return t.Promised(t.L) + t.Stall + handover + lateElection(t) + lateCommit(t)
}

// unreachable explains why no lease fits.
func unreachable(takeover, stall, sync, rtt time.Duration) error {
	// The budget grows with the lease, so the shortest lease that is patient enough has the least.
	h := time.Millisecond / 10
	for !patient(timers(takeover, h, stall, sync, rtt)) {
		h = longer(h)
	}
	t := timers(takeover, h, stall, sync, rtt)
	terms := []struct {
		name string
		d    time.Duration
	}{
		{"a lease that outlasts a stall", t.Promised(t.L)},
		{"the stall itself", stall},
		{"an election with its syncs", lateElection(t)},
		{"a commit", lateCommit(t)},
	}
	worst := terms[0]
	for _, term := range terms[1:] {
		if term.d > worst.d {
			worst = term
		}
	}
	least := max(MinTakeover, (budget(t) + time.Millisecond - 1).Truncate(time.Millisecond))
	advice := fmt.Sprintf("the least takeover here is %v", least)
	if least > MaxTakeover {
		advice = fmt.Sprintf("not even %v is enough", MaxTakeover)
	}
	return fmt.Errorf("takeover %v can't be kept with stalls of %v, syncs of %v and round trips of %v: what does not fit is %s, %v; %s",
		takeover, stall, sync, rtt, worst.name, worst.d.Round(time.Millisecond/10), advice)
}

// longer returns the next longer heartbeat interval.
func longer(h time.Duration) time.Duration {
	if h < fineBelow {
		return h + time.Millisecond/10
	}
	return h + time.Millisecond
}

// OneLink returns the bounds of a cluster whose nodes have one link only: over which other could a node say that its uplink
// is gone?
func (b Bounds) OneLink() Bounds {
	one := slices.Clone(b)
	for i := range one {
		if one[i].Fault == "uplink" {
			one[i].Worst = b[0].Worst
			one[i].Why = "The serving node's uplink loses its carrier: there is no other link over which the node could say so, so it is as after a power loss."
		}
	}
	return one
}

// bounds computes the worst case of each fault, a power loss of the owner first. Each allows for one stall of the length that must fit.
func bounds(t cluster.Timing) Bounds {
	silence := t.Promised(t.L) + t.Stall + handover + lateCommit(t)
	// What a node says itself needs no silence: say it, commit the assignment, hear of it, release.
	told := 2*t.RTT + commit(t) + t.Stall + handover
	return Bounds{
		{"owner-power", silence,
			fmt.Sprintf("Power loss of the node that serves: its lease of %v, promised for %v, runs out at the voters before the next owner serves.", t.L, t.Promised(t.L))},
		{"owner-and-coordinator-power", budget(t),
			fmt.Sprintf("Power loss of the node that serves and of the coordinator with it: an election takes up to %v, most of it while the lease runs out.", election(t))},
		{"uplink", told,
			"The serving node's uplink loses its carrier: the node says so over another link and releases the group; with no other link left it is as after a power loss."},
		{"freeze", silence,
			"The serving node freezes: the kernel closes its gate at the end of the lease, and the next owner waits as after a power loss."},
		{"service-crash-hot", told,
			"The service dies on a node that lives, and a hot standby is ready: the node says so and releases the group; a fault that only a probe finds adds the probe's interval."},
		{"switchover", t.RTT + t.Stall + handover,
			"A planned move: one release, one datagram, one gate, one announcement; without a stall the gap is a few milliseconds."},
	}
}
