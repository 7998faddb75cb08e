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

// A program that a probe finds ill fails after several tries: it counts as ill since the first of them.
func TestOutageFromTheFirstFailedTry(t *testing.T) {
	r := settled(t, file("one", nil))
	ill := func(s cluster.Status, reason string) {
		r.at("alpha").step(&Done{cluster.Done{Group: "web", Resource: "proc", Status: s, Reason: reason, Probe: "GET /: 503"}})
	}
	ill(cluster.StatusRunning, "")
	r.run(600 * time.Millisecond)
	first := r.at("gamma").group("web").Service.Count
	ill(cluster.StatusFailed, "GET /: 503, 3 times in a row")
	r.until("it is on record", 5*time.Second, func() bool { return r.at("gamma").group("web").Service.Count > first })
	if s := r.at("gamma").group("web").Service; s.Unplanned < 600*time.Millisecond || s.Unplanned > 700*time.Millisecond {
		t.Errorf("clients were not served for 600 ms at the most, and %v are on record", s.Unplanned)
	}
}
