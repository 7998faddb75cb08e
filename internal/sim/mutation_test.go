//go:build planted

package sim

import (
	"strings"
	"testing"

	"baton/internal/core/node"
)

// plant is a bug that the core can be told to have, and what catches it. After a change of the core a seed may
// no longer do; find another with `go run -tags planted ./cmd/baton simulate --hunt --profile P --seeds 1..1000`.
type plant struct {
	mutation node.Mutation
	name     string
	script   string // a file of testdata, or
	profile  string // a profile of random seeds
	seed     uint64 // the first that is tried
	tries    uint64 // how many
	rule     string // that breaks
	found    string // the first random seed that caught it when it was looked for, by profile
	needs    string // faults without which it stays hidden
}

var plants = []plant{
	{node.NoGrace, "NoGrace", "grace", "", 1, 3, "invariant 1", "17 of mix (said)",
		"an eviction of a node whose lease is fresh (its disk hangs in a switchover), restarts of a majority within L"},
	{node.LeaseQuorumOne, "LeaseQuorumOne", "isolate", "", 1, 1, "invariant 1", "5 of mix, 11 of short", "a node cut off"},
	{node.SaidQuorumOne, "SaidQuorumOne", "one-word", "", 1, 3, "invariant 1", "34 of mix, 239 of short",
		"the owner cut off from one voter, then from all"},
	{node.NoWait, "NoWait", "isolate", "", 1, 3, "invariant 1", "5 of mix, 5 of short", "a node cut off"},
	{node.NoRho, "NoRho", "rates", "", 1, 3, "invariant 1", "9 of mix, 63 of short",
		"an owner with a slow clock cut off from voters with fast ones"},
	{node.SenderStamp, "SenderStamp", "isolate", "", 1, 3, "invariant", "5 of mix, 7 of short", "a node cut off or dead, clocks apart"},
	{node.StaleNow, "StaleNow", "", "short", 10, 60, "invariant 1", "9 of mix, 14 of short", "a node cut off"},
	{node.AckArrival, "AckArrival", "late-acks", "", 1, 12, "invariant 1", "319 of mix, 153 of short, 7 of acks", "late packets, a node cut off"},
	{node.AckNoRun, "AckNoRun", "former-run", "", 1, 3, "invariant 1", "none of 600 of mix; 908 of acks",
		"late packets, an agent killed, then cut off"},
	{node.SayAtAppend, "SayAtAppend", "cut-off", "", 1, 3, "invariant 1", "1 of mix (said)",
		"an Evict cut off the log (the coordinator cut off), cuts that leave the owner to one voter, then to none"},
	{node.SayUndurable, "SayUndurable", "undurable", "", 1, 300, "invariant 1", "1 of mix (said)",
		"a hung disk, an agent killed, three one-way cuts"},
	{node.OnlyLastTenure, "OnlyLastTenure", "two-tenures", "", 1, 3, "invariant 1", "453 of mix, 253 of short",
		"a switchover that the owner does not see (a hung disk), the target dead before it served"},
	{node.EvictKeepsOwner, "EvictKeepsOwner", "no-candidate", "", 1, 3, "invariant 4", "28 of mix, 38 of short",
		"an eviction while nobody else is able, by power loss and a cut"},
	{node.EarlyNumber, "EarlyNumber", "", "restarts", 1, 20, "said", "1 of restarts, mix and short", "a restart that reads the log again"},
	{node.AnyBoot, "AnyBoot", "any-boot", "", 1, 30, "invariant 1", "none of 600 of mix; 836 of short",
		"a switchover, power loss before the commit index is durable, a cut"},
	{node.ForgetActivated, "ForgetActivated", "restart", "", 1, 1, "invariant 5", "11 of still; none of 600 of mix", "an agent killed"},
	{node.ForgetReleased, "ForgetReleased", "released", "", 1, 20, "invariant 1", "467 of restarts; none of 600 of mix",
		"a switchover, an agent killed before the commit index is stored (a slow disk), a cut"},
	{node.BootProves, "BootProves", "former-boot", "", 1, 3, "invariant 1", "none of 600 of mix, 1000 of short",
		"two reboots in quick succession, packets of the first that are late, a receiver restarted and cut off"},
	{node.ReleaseEarly, "ReleaseEarly", "late-close", "", 1, 3, "invariant 1", "147 of mix, 14 of short", "late kernel writes, a switchover"},
	{node.ReleaseServedOnly, "ReleaseServedOnly", "skipped", "", 1, 3, "invariant 4", "485 of restarts; none of 600 of mix",
		"a switchover to a node whose disk hangs until the group has gone on"},
	{node.RelativeGate, "RelativeGate", "late-gate", "", 1, 3, "invariant 1", "443 of mix, 14 of short", "late kernel writes, a node cut off"},
	{node.ApplyStale, "ApplyStale", "late-command", "", 1, 30, "invariant 6", "none of 600 of mix", "late packets, two commands"},
	{node.TwoFoundings, "TwoFoundings", "", "forming", 1, 30, "invariant 3", "1 of mix, 3 of short", "none"},
	{node.Heedless, "Heedless", "heedless", "", 1, 3, "instructions", "66 of people",
		"a pause just ahead of a placement that is decided already (a slow disk of the coordinator)"},
	{node.NoBackoff, "NoBackoff", "backoff", "", 1, 3, "invariant 4", "none of 600 of mix", "syncs longer than the step between candidates"},
	{node.RestsTimed, "RestsTimed", "former-voters", "", 1, 6, "invariant 1", "none of 800 of members",
		"two voters removed by those whom the owner is cut off from, and one of them who does not learn it"},
	{node.RestsNone, "RestsNone", "former-voters", "", 1, 6, "invariant 1", "none of 800 of members",
		"two voters removed by those whom the owner is cut off from"},
	{node.RestsAtApply, "RestsAtApply", "applied-set", "", 1, 6, "invariant 1", "none of 2000 of members",
		"an owner whom only the coordinator and one voter hear, who is replaced by a newcomer (whose disk hung)"},
	{node.ForgetRests, "ForgetRests", "forgotten-set", "", 1, 40, "invariant 1", "none of 2000 of members",
		"a removed voter who does not learn it, an agent killed before the commit index is stored (a hung disk), cuts"},
	{node.EvictedIsOver, "EvictedIsOver", "evicted", "", 1, 6, "invariant 1", "none of 800 of members",
		"two voters removed while the lease of an evicted owner, cut off, runs on"},
	{node.SwapVoters, "SwapVoters", "swapped", "", 1, 6, "invariant 1", "none of 800 of members",
		"a disk lost by a voter on whose promise the owner's lease rests, a shorter takeover, cuts"},
	{node.FormerSelf, "FormerSelf", "former-self", "", 1, 40, "invariant 3", "1 of members (the core stops itself)",
		"a disk lost while another voter is down, and the third lacks what both committed"},
	{node.OwnLength, "OwnLength", "own-length", "", 1, 6, "invariant 1", "none of 800 of members",
		"a shorter takeover of which the owner (its disk hangs) does not learn, a node cut off"},
	{node.AckCurrentL, "AckCurrentL", "current-length", "", 1, 6, "invariant 1", "1 of members (lease)",
		"a longer takeover just when the owner is no longer heard"},
	{node.LaterAck, "LaterAck", "later-ack", "", 1, 6, "invariant 1", "9 of members (lease)",
		"a shorter takeover just before the owner is heard again, for a moment"},
	{node.GraceState, "GraceState", "long-grace", "", 1, 6, "invariant 1", "15 of members (said)",
		"a shorter takeover, restarts of a majority within the former L, a node cut off"},
	{node.SilenceOwnD, "SilenceOwnD", "slow-learner", "", 1, 3, "invariant 5", "none of 800 of members",
		"a shorter takeover, a slow disk of the owner"},
	{node.SetBackUnseen, "SetBackUnseen", "set-back", "", 1, 3, "invariant 3", "none of 300 of mix, members, snapshots",
		"a disk set back to before what was committed while the third node was cut off, and the other down"},
	{node.ServeUnrecorded, "ServeUnrecorded", "", "mix", 1, 40, "said", "1 of mix", "none"},
	{node.ReleaseUnrecorded, "ReleaseUnrecorded", "", "mix", 4, 40, "said", "4 of mix", "a switchover"},
	{node.NumberUnrecorded, "NumberUnrecorded", "", "mix", 1, 40, "said", "1 of mix", "none"},
	{node.VoteUndurable, "VoteUndurable", "", "mix", 1, 40, "said", "1 of mix", "none"},
	{node.BanForgotten, "BanForgotten", "", "moves", 200, 40, "bans", "200 of moves",
		"a program that failed on one node, then on another, and another coordinator between"},
	{node.JournalLost, "JournalLost", "", "mix", 12, 40, "history", "12 of mix", "an entry that comes too late"},
	{node.PromiseUndurable, "PromiseUndurable", "", "changes", 1, 40, "said", "1 of changes", "another takeover"},
	{node.NumberOfFormerRun, "NumberOfFormerRun", "", "mix", 4, 40, "said", "4 of mix", "a run record that is lost"},
	{node.WanderingCoordinator, "WanderingCoordinator", "", "mix", 2, 40, "calm", "2 of mix, 2 of elections", "none"},
	{node.SnapshotWithoutTenures, "SnapshotWithoutTenures", "", "mix", 214, 40, "state", "214 of mix", "a snapshot while a group is handed over"},
	{node.StallRestarts, "StallRestarts", "", "storms", 1088, 3, "invariant 4", "1088 of storms",
		"one voter that is starved of time again and again, and an owner that dies meanwhile"},
	{node.CommitUnrepeated, "CommitUnrepeated", "", "lossy5", 12, 40, "invariant 4", "12 of lossy5",
		"loss while the owner is dead"},
	{node.FitnessBlind, "FitnessBlind", "", "surroundings", 1, 3, "twice", "1 of surroundings",
		"an uplink that flaps"},
	{node.BanForbids, "BanForbids", "", "surroundings", 9, 3, "kept off", "9 of surroundings",
		"surroundings that fail on one node, then the other node"},
	{node.MendedIgnored, "MendedIgnored", "", "surroundings", 9, 3, "kept off", "9 of surroundings",
		"surroundings that fail and heal"},
	{node.UntoldRecord, "UntoldRecord", "", "surroundings", 8, 3, "invariant 4", "8 of surroundings", "a gate or run record that can't be written"},
	{node.SnapshotWithoutPeople, "SnapshotWithoutPeople", "", "people", 13, 40, "state", "13 of people",
		"a snapshot while an instruction stands"},
	{node.ReplyEarly, "ReplyEarly", "", "people", 1, 40, "replies", "1 of people",
		"a command"},
	{node.FailbackAtOnce, "FailbackAtOnce", "", "mix", 47, 40, "failback", "47 of mix",
		"a preferred node that comes back"},
	{node.ManualMoves, "ManualMoves", "", "mix", 3, 40, "invariant 6", "3 of mix",
		"a manual group whose owner is lost"},
	{node.VoteUnsynced, "VoteUnsynced", "", "mix", 1, 40, "said", "1 of mix",
		"none"},
	{node.GateTooLong, "GateTooLong", "", "mix", 1, 40, "lease", "1 of mix",
		"none"},
	{node.PromiseToAnyNumber, "PromiseToAnyNumber", "", "mix", 13, 40, "said", "13 of mix",
		"an owner that is evicted and goes on under its number"},
	{node.NeverUrgent, "NeverUrgent", "", "takeover", 25, 40, "invariant 4", "25 of takeover",
		"an owner that dies"},
	{node.OutagesHalved, "OutagesHalved", "", "moves", 1, 20, "outages", "1 of moves", "none"},
	{node.FormerSet, "FormerSet", "former-set", "", 1, 3, "invariant 1", "", "more voters than before, a planned move to a node whose disk is slow, cuts that leave the owner to three of five"},
	{node.BlinkTrusted, "BlinkTrusted", "", "unmoved", 75, 40, "invariant 5", "75 of unmoved",
		"a network that dies for all and comes back"},
	{node.OneVoterJudges, "OneVoterJudges", "", "unmoved", 1, 40, "invariant 5", "1 of unmoved",
		"a switch port of another node, or a cut between two"},
	{node.UnwatchedVouched, "UnwatchedVouched", "uplink-unwatched", "", 1, 1, "outages", "none of 400 of mix, disks",
		"an uplink that goes while the owner's agent is down, which is back only after its lease"},
	{node.StoppedForgotten, "StoppedForgotten", "stop-unread", "", 1, 40, "instructions", "none of 150 of people",
		"an agent killed just after a stop of one resource, before the commit index is stored (a slow disk)"},
	{node.PhasesOverlap, "PhasesOverlap", "", "mix", 1, 40, "outages", "1 of mix", "an owner that is lost"},
	{node.StopToldEarly, "StopToldEarly", "", "people", 11, 40, "replies", "11 of people", "a stop of a whole group"},
	{node.EvictedServes, "EvictedServes", "", "mix", 12, 40, "said", "12 of mix",
		"an owner that is evicted and lives"},
}

// TestMutations: each planted bug is caught by a seed or script under which the faithful core is right.
func TestMutations(t *testing.T) {
	caught := map[node.Mutation]bool{node.Faithful: true}
	for _, m := range plants {
		caught[m.mutation] = true
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			for seed := m.seed; seed < m.seed+m.tries; seed++ {
				if m.catches(t, seed) {
					t.Logf("caught by seed %d of %s%s; needs %s; random seeds: %s", seed, m.script, m.profile, m.needs, m.found)
					return
				}
			}
			t.Errorf("nothing caught it in %d tries", m.tries)
		})
	}
	for m := node.Faithful; m < node.MutationCount; m++ {
		if !caught[m] {
			t.Errorf("nothing catches mutation %d", m)
		}
	}
}

// catches runs one seed with the bug; if a rule breaks, it must be the expected one, and hold without the bug.
func (m *plant) catches(t *testing.T, seed uint64) bool {
	t.Helper()
	p := m.plan(t, seed)
	r, err := RunPlan(p, Options{Mutation: m.mutation, Only: m.rule})
	if err != nil {
		t.Fatal(err)
	}
	if r.Violation == nil || !strings.HasPrefix(r.Violation.Rule, m.rule) {
		return false
	}
	if r, err = RunPlan(p, Options{}); err != nil || r.Violation != nil {
		t.Errorf("seed %d breaks the faithful core as well: %v, %v", seed, r.Violation, err)
	}
	return true
}

func (m *plant) plan(t *testing.T, seed uint64) *Plan {
	t.Helper()
	if m.script != "" {
		p := readScript(t, "testdata/"+m.script+".script")
		p.Seed = seed
		return p
	}
	p, err := Generate(seed, m.profile)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
