package sim

import (
	"strings"
	"testing"

	"baton/internal/core/node"
)

// plant is a bug that the core can be told to have, and what catches it. After a change of the core a seed may
// no longer do; find another with `baton simulate --hunt --profile P --seeds 1..1000`.
type plant struct {
	mutation node.Mutation
	name     string
	script   string // a file of testdata, or
	profile  string // a profile of random seeds
	seed     uint64 // the first that is tried
	tries    uint64 // how many
	rule     string // that breaks
	needs    string // faults without which it stays hidden
	found    string // how many random seeds it took
}

var plants = []plant{
	{node.NoGrace, "NoGrace", "grace", "", 1, 3, "invariant 1",
		"an eviction of a node whose lease is fresh (its disk hangs in a switchover), restarts of a majority within L", ""},
	{node.LeaseQuorumOne, "LeaseQuorumOne", "", "short", 1, 40, "invariant 1", "a node cut off", ""},
	{node.SaidQuorumOne, "SaidQuorumOne", "", "short", 1, 200, "invariant 1", "the owner cut off from one voter, then from all", ""},
	{node.NoWait, "NoWait", "", "short", 1, 40, "invariant 1", "a node cut off", ""},
	{node.NoRho, "NoRho", "", "short", 1, 200, "invariant 1", "an owner with a slow clock cut off from voters with fast ones", ""},
	{node.SenderStamp, "SenderStamp", "", "short", 1, 40, "invariant", "a node cut off, or dead", ""},
	{node.StaleNow, "StaleNow", "", "short", 1, 80, "invariant 1", "a node cut off", ""},
	{node.AckArrival, "AckArrival", "", "acks", 1, 300, "invariant 1", "late packets, a node cut off", ""},
	{node.AckNoRun, "AckNoRun", "former-run", "", 1, 3, "invariant 1", "late packets, an agent killed, then cut off", ""},
	{node.SayAtAppend, "SayAtAppend", "cut-off", "", 1, 3, "invariant 1",
		"an Evict cut off the log (coordinator cut off), cuts that leave the owner to one voter, then to none", ""},
	{node.SayUndurable, "SayUndurable", "undurable", "", 1, 10, "invariant 1",
		"a hung disk, an agent killed, three one-way cuts", ""},
	{node.OnlyLastTenure, "OnlyLastTenure", "", "moves", 1, 200, "invariant 1",
		"a switchover that the owner does not see, a failure or another switchover on the way", ""},
	{node.EvictKeepsOwner, "EvictKeepsOwner", "", "elections", 1, 100, "invariant 1", "the same node evicted twice, nobody else able at first", ""},
	{node.EarlyNumber, "EarlyNumber", "", "short", 1, 100, "invariant", "a restart that reads the log again", ""},
	{node.AnyBoot, "AnyBoot", "any-boot", "", 1, 30, "invariant 1", "a switchover, power loss before the commit index is durable, a cut", ""},
	{node.ForgetActivated, "ForgetActivated", "", "still", 1, 80, "invariant 5", "an agent killed", ""},
	{node.ForgetReleased, "ForgetReleased", "", "restarts", 1, 600, "invariant", "a switchover, an agent killed before the commit index is stored", ""},
	{node.BootProves, "BootProves", "former-boot", "", 1, 3, "invariant 1",
		"two reboots in quick succession, packets of the first that are late, a receiver restarted and cut off", ""},
	{node.ReleaseEarly, "ReleaseEarly", "", "short", 1, 200, "invariant", "late kernel writes, a switchover", ""},
	{node.ReleaseServedOnly, "ReleaseServedOnly", "", "restarts", 1, 600, "invariant 4", "a switchover called off before the target served", ""},
	{node.RelativeGate, "RelativeGate", "", "short", 1, 200, "invariant 1", "late kernel writes or a pause, a node cut off", ""},
	{node.ApplyStale, "ApplyStale", "late-command", "", 1, 30, "invariant 6", "late packets, two commands", ""},
	{node.TwoFoundings, "TwoFoundings", "", "short", 1, 20, "invariant 3", "none", ""},
	{node.NoBackoff, "NoBackoff", "backoff", "", 1, 2, "invariant 4", "syncs longer than the step between candidates", ""},
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
					t.Logf("caught by seed %d of %s%s", seed, m.script, m.profile)
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
	r, err := RunPlan(p, Options{Mutation: m.mutation})
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
