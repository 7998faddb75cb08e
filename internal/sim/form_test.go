package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// A cluster is founded without a node that can't be reached; the node is let in later and takes over.
func TestFormWithout(t *testing.T) {
	for script, want := range map[string][]string{
		"form-without": {"form alpha", "beta founds the cluster without alpha", "is founded without alpha", "alpha copies the log", "alpha votes",
			"fault: at 30s power beta", "gate of web opens"},
		"form-oneway": {"is founded\n", "form alpha", "is founded without alpha", "founded it as well, in vain", "wipe alpha", "alpha votes",
			"power beta", "gate of web opens"},
		"form-leave": {"is founded without alpha", "alpha votes no longer", "alpha is out", "revision 2 of the configuration counts", "power beta", "gate of web opens"},
	} {
		t.Run(script, func(t *testing.T) {
			shows(t, script, want)
		})
	}
}

// Whatever comes in between, power losses and cuts, an operator's word at any moment, of any and of two
// different nodes: there is one cluster, and once the faults are over everybody belongs to it.
func TestFormWithoutAnyhow(t *testing.T) {
	without, whole := 0, 0
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		names := []string{"alpha", "beta", "gamma", "delta", "epsilon"}[:3+2*r.IntN(2)]
		text := fmt.Sprintf("seed %d\ntakeover 1s\nnodes %s\ngroup web alpha beta hot\n", seed, strings.Join(names, " "))
		any := func() string { return names[r.IntN(len(names))] }
		ms := func(n int) string { return fmt.Sprintf("%dms", 20+r.IntN(n)) }
		away := any()
		deaf := r.IntN(2) == 0
		if !deaf {
			text += fmt.Sprintf("at 0s power %s for %s\n", away, ms(3000))
		} else { // it hears the others, and founds the cluster as well; its disk is taken away in the end
			for _, name := range names {
				if name != away {
					text += fmt.Sprintf("at 0s cutoneway %s %s for %s\n", away, name, ms(3000))
				}
			}
			text += "at 6s wipe " + away + " for 1s\n"
		}
		for range 1 + r.IntN(3) {
			text += fmt.Sprintf("at %s form %s\n", ms(3000), away)
			if r.IntN(3) == 0 && !deaf { // two nodes that each are to found it without the other need a person again
				away = any()
			}
		}
		for range r.IntN(4) {
			verb := []string{"power %s for %s", "kill %s for %s", "isolate %s for %s", "hangdisk %s for %s", "freeze %s for %s"}[r.IntN(5)]
			text += fmt.Sprintf("at %s "+verb+"\n", ms(3000), any(), ms(1500))
		}
		p, err := Parse(text + "run 8s\nsettle 30s\n")
		if err != nil {
			t.Fatal(err, text)
		}
		var trace strings.Builder
		result, err := RunPlan(p, Options{Trace: &trace})
		if err != nil || result.Violation != nil {
			t.Fatalf("%v %v\n%s\n%s", err, result.Violation, text, trace.String())
		}
		if strings.Contains(trace.String(), "is founded without") {
			without++
		} else {
			whole++
		}
	}
	if without < 20 || whole < 20 {
		t.Errorf("%d founded without a node, %d with all: that is too few of one kind to tell anything", without, whole)
	}
}
