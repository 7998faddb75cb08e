package app

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"baton/internal/core/cluster"
	"baton/internal/io/api"
)

// roll is what a node's log says: the revision that counts once an entry has taken effect, whom it names, and who
// has a copy of the log.
func roll(id string, applied uint64, revision cluster.Revision, nodes []cluster.NodeID, members ...api.Member) *api.Roll {
	return &api.Roll{ID: id, Applied: applied, Revision: revision, Nodes: nodes, Members: members}
}

// Only a later entry of the very log of this node proves that it was removed, or replaced.
func TestJudge(t *testing.T) {
	const id, inc = "ledger-1f2e", cluster.Incarnation(4)
	with, without := []cluster.NodeID{"alpha", "beta", "gamma", "delta"}, []cluster.NodeID{"alpha", "beta", "gamma"}
	a, b, c := api.Member{Node: "alpha", Incarnation: 1}, api.Member{Node: "beta", Incarnation: 2}, api.Member{Node: "gamma", Incarnation: 3}
	self, anew := api.Member{Node: "delta", Incarnation: inc}, api.Member{Node: "delta", Incarnation: 5}
	own := roll(id, 70, 3, with, a, b, c, self)
	for _, x := range []struct {
		what      string
		own, told *api.Roll
		want      standing
	}{
		{"a later revision does not name it", own, roll(id, 75, 4, without, a, b, c), wasRemoved},
		{"the teller has an older log, of before it joined", own, roll(id, 40, 2, without, a, b, c), asItWas},
		{"the teller has the same log", own, roll(id, 70, 3, with, a, b, c, self), asItWas},
		{"the same entry, and yet another membership", own, roll(id, 70, 4, without, a, b, c), asItWas},
		{"a later entry of the same revision", own, roll(id, 71, 3, without, a, b, c), asItWas},
		{"it is still a member", own, roll(id, 75, 3, with, a, b, c, self), asItWas},
		{"it is to leave, and has a copy still", own, roll(id, 75, 4, without, a, b, c, self), asItWas},
		{"its copy is taken away, and the revision that names it still counts", own, roll(id, 74, 3, with, a, b, c), wasReplaced},
		{"it was removed, and is to be let in anew", own, roll(id, 80, 5, with, a, b, c), wasReplaced},
		{"its lost disk was replaced", own, roll(id, 80, 3, with, a, b, c, anew), wasReplaced},
		{"another's incarnation has the same number", own, roll(id, 75, 4, without, a, b, c, api.Member{Node: "epsilon", Incarnation: inc}), wasRemoved},
		{"it is to be let in anew, says an older log", own, roll(id, 60, 5, with, a, b, c), asItWas},
		{"another cluster of the same name", own, roll("ledger-77aa", 75, 4, without, a, b, c), asItWas},
		{"the teller has no log yet", own, roll("", 0, 0, nil), asItWas},
		{"neither has a log", roll("", 0, 0, nil), roll("", 0, 0, nil), asItWas},
		{"this node only joins", roll("", 0, 0, nil), roll(id, 75, 4, without, a, b, c), asItWas},
		{"by its own log it is a former life of the node", roll(id, 70, 3, with, a, b, c, anew), roll(id, 75, 4, without, a, b, c), asItWas},
	} {
		if got := judge("delta", inc, x.own, x.told); got != x.want {
			t.Errorf("%s: %d, want %d", x.what, got, x.want)
		}
	}
}

// Where an agent has ended for good, every command says so. The next agent takes that back.
func TestParting(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	p := parting{Text: "delta was removed from the cluster", Hint: wayBack("delta", "/var/lib/baton")}
	if err := p.keep(socket); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := baton(t, socket, "status")
	want := "error: no agent runs here: delta was removed from the cluster\nhint: " + p.Hint + "\n"
	if code != exitUnreached || out != "" || errOut != want {
		t.Errorf("exit code %d, printed %q and %q, want %q", code, out, errOut, want)
	}
	a := &agent{opt: AgentOptions{Socket: socket}, log: slog.New(slog.DiscardHandler)}
	for range 2 {
		if a.forgetParting(); readParting(socket) != nil {
			t.Error("it is still there")
		}
	}
	if _, _, errOut := baton(t, socket, "status"); !strings.Contains(errOut, "no agent reached at "+socket) {
		t.Errorf("printed %q", errOut)
	}
}
