package app

import (
	"strings"
	"testing"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

// calm is a ground on which nothing was done to any node.
type calm struct{ ground }

func (calm) upset(string) string { return "" }

// TestFootNamesGroups: where there are several groups, the foot names the one it shows and the keys act on, and tells
// who serves the others.
func TestFootNamesGroups(t *testing.T) {
	web := &batonv1.Group{Name: "web", Owner: "alpha", Serving: true}
	wiki := &batonv1.Group{Name: "wiki", Owner: "beta", Serving: true}
	mail := &batonv1.Group{Name: "mail"}
	s := &session{plan: &devPlan{group: "web", spec: &cluster.Spec{Nodes: []cluster.NodeSpec{{ID: "alpha"}, {ID: "beta"}}}}, ground: calm{}, screen: &screen{}}
	s.status = &batonv1.StatusResponse{Groups: []*batonv1.Group{web, wiki, mail}}
	if foot := strings.Join(s.foot(), "\n"); !strings.Contains(foot, " above is web, and the keys act on it  ·  wiki: beta serves, mail: nobody serves") {
		t.Errorf("it says\n%s", foot)
	}
	s.status.Groups = s.status.Groups[:1]
	if foot := strings.Join(s.foot(), "\n"); strings.Contains(foot, "the keys act on") {
		t.Errorf("with one group it says\n%s", foot)
	}
}
