package app

import (
	"bytes"
	"strings"
	"testing"

	batonv1 "baton/api/v1"
)

// TestExplainSaysOnce: a long reason that holds for several nodes and resources is told once in explain.
func TestExplainSaysOnce(t *testing.T) {
	const cause = "the directory of users does not answer: getent passwd www-data took longer than 2s, and ended without an answer"
	const short = "exited with status 1"
	node := func(name string) *batonv1.GroupNode {
		return &batonv1.GroupNode{Node: name, Phase: "standby", Reason: "lacks: app: " + cause, Refusal: "can't run it: lacks: app: " + cause}
	}
	g := &batonv1.Group{Name: "web", Owner: "alpha", Last: "alpha", Epoch: 2, Decision: "why", Failover: "automatic", Failback: "never",
		Rejected: []string{"beta: can't run it: lacks: app: " + cause, "gamma: can't run it: lacks: app: " + cause},
		Nodes:    []*batonv1.GroupNode{{Node: "alpha", Phase: "failed", Reason: "app: " + short}, node("beta"), node("gamma")},
		Resources: []*batonv1.Resource{{Name: "app", Kind: "process", Status: "failed", Reason: short}, {Name: "db", Kind: "process", Status: "failed", Reason: short},
			{Name: "more", Kind: "process", Status: "failed", Reason: cause}}}
	var b bytes.Buffer
	statusView{palette{}, &batonv1.StatusResponse{Node: "alpha", Quorum: true, Groups: []*batonv1.Group{g}}}.explain(&b, &batonv1.ExplainResponse{Group: g, ResourcesOf: "alpha"})
	text := b.String()
	if n := strings.Count(text, cause); n != 1 {
		t.Errorf("told %d times:\n%s", n, text)
	}
	if strings.Count(text, short) != 3 || !strings.Contains(text, "gamma: as said above") || !strings.Contains(text, "beta   standby: as said above") || !strings.Contains(text, "failed: as said above") {
		t.Error(text)
	}
}
