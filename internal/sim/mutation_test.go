package sim

import (
	"strings"
	"testing"

	"baton/internal/core/node"
)

// plant is a bug that the core can be told to have, and what catches it.
type plant struct {
	mutation node.Mutation
	name     string
	profile  string // with seed; or
	seed     uint64
	script   string // a file of testdata
	rule     string // that breaks
	needs    string // faults without which it stays hidden
	found    string // how many random seeds it took
}

var plants = []plant{}

// TestMutations: each planted bug is caught by a seed or script under which the faithful core is right.
func TestMutations(t *testing.T) {
	caught := map[node.Mutation]bool{node.Faithful: true}
	for _, m := range plants {
		caught[m.mutation] = true
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			p := m.plan(t)
			r, err := RunPlan(p, Options{Mutation: m.mutation})
			if err != nil {
				t.Fatal(err)
			}
			if r.Violation == nil || !strings.HasPrefix(r.Violation.Rule, m.rule) {
				t.Errorf("not caught: %v, want a violation of %s", r.Violation, m.rule)
			}
			if r, err = RunPlan(p, Options{}); err != nil || r.Violation != nil {
				t.Errorf("the faithful core fails as well: %v, %v", r.Violation, err)
			}
		})
	}
	for m := node.Faithful; m < node.MutationCount; m++ {
		if !caught[m] {
			t.Errorf("nothing catches mutation %d", m)
		}
	}
}

func (m *plant) plan(t *testing.T) *Plan {
	t.Helper()
	if m.script != "" {
		return readScript(t, "testdata/"+m.script+".script")
	}
	p, err := Generate(m.seed, m.profile)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
