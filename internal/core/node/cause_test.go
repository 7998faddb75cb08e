package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// TestCauseOfAnOutageInPlace: what took a service away that came back where it was stands in history, by the word of the
// node that had it, whoever coordinates.
func TestCauseOfAnOutageInPlace(t *testing.T) {
	r := settled(t, file("one", func(s *cluster.Spec) { s.Groups[0].Restarts = 3 }))
	told := func(node cluster.NodeID, text string) func() bool {
		return func() bool {
			return slices.ContainsFunc(r.at(node).n.state.Journal, func(l cluster.Line) bool {
				return strings.Contains(strings.Join(l.Did, "; "), text)
			})
		}
	}
	fail := func(why string) {
		r.at("alpha").hold(done)
		defer r.at("alpha").answer(done)
		defer r.run(30 * time.Millisecond)
		r.at("alpha").step(&Done{cluster.Done{Group: "web", Resource: "proc", Status: cluster.StatusFailed, Reason: why}})
	}
	fail("was killed by SIGSEGV")
	r.until("beta tells of it", 5*time.Second, told("beta", "(proc: was killed by SIGSEGV)"))

	fail(strings.Repeat("ä", 200))
	r.until("a long one is cut", 5*time.Second, told("beta", "(proc: "+strings.Repeat("ä", 40)))
}
