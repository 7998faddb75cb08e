package app

import (
	"fmt"
	"strings"
	"testing"

	"baton/internal/core/cluster"
	"baton/internal/io/api"
)

// changing: delta waits to be let in, epsilon has no vote yet, and beta is to leave.
func changing() *stage {
	s := healthy()
	v := &s.view
	v.Nodes[1].Membership = cluster.Leaves
	v.Nodes = append([]cluster.NodeView{}, v.Nodes...)
	v.Nodes = append(v.Nodes,
		cluster.NodeView{ID: "delta", Links: []cluster.LinkView{{}, {}}, Membership: cluster.Outside},
		cluster.NodeView{ID: "epsilon", Heard: true, Fresh: true, Ago: 3 * ms, Links: []cluster.LinkView{{Heard: true, Ago: 3 * ms}, {}}, Membership: cluster.Copies})
	v.Draft = &cluster.DraftText{Draft: cluster.Draft{Base: 4, Comment: "beta leaves"}, By: "anna (pid 4711)", Wall: day("07:20:00"), Waits: "beta still holds lease number 2"}
	return s
}

// joining has an empty data directory, and the others are a cluster.
func joining() *stage {
	s := forming()
	s.view.Joining, s.view.Quorum = true, false
	s.view.Forming = "beta belongs to a cluster already, and this node, whose data directory is empty, waits to be let in"
	s.reply = api.MoveReply{Text: "beta belongs to a cluster already: alpha is let in there", Hint: "baton status --wait"}
	return s
}

// departed has learned that it belongs to the cluster no longer.
func departed() *stage {
	s := healthy()
	s.view.Left, s.view.Quorum, s.view.Coordinator = "alpha was removed from the cluster while it was not heard: revision 8 does not name it, as beta says", false, ""
	return s
}

// outlived has the data directory of a life that the others have removed.
func outlived() *stage {
	s := healthy()
	s.view.Nodes = append([]cluster.NodeView{}, s.view.Nodes...)
	s.view.Nodes[0].Trouble, s.view.Coordinator = "its data directory is of a former life, which was removed from the cluster, as beta says: it takes no part", ""
	return s
}

func TestMembers(t *testing.T) {
	founded := forming()
	founded.reply = api.MoveReply{Done: true, Text: "the cluster ledger-1f2e is founded without gamma"}
	four := newConfigStage(t)
	four.add(t, strings.Replace(firstText, "\ngroups:", "\n  # rented\n  delta: { address: 10.0.0.14 }\ngroups:", 1), "anna", "")
	four.add(t, strings.Replace(four.last(), "nodes: [alpha, beta]", "nodes: [alpha, delta]", 1), "anna", "")
	for _, c := range []struct {
		name     string
		stage    api.Backend
		commands []string
	}{
		{"members", changing(), []string{"status", "status --json", "status --wait --timeout 300ms"}},
		{"joining", joining(), []string{"status", "status --wait --timeout 300ms", "form --without gamma --yes"}},
		{"left", departed(), []string{"status", "status --wait --timeout 300ms"}},
		{"outlived", outlived(), []string{"status"}},
		{"form", founded, []string{"form", "form --without gamma", "form --without gamma --yes", "form --without gamma --without delta --yes --json", "form --without gamma --json"}},
		{"leave", four, []string{"leave epsilon", "leave delta", "leave delta --dry-run", "leave delta --yes", "leave gamma", "leave delta", "config show", "config history"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket := serveStage(t, c.stage)
			var all strings.Builder
			for _, line := range c.commands {
				code, out, errOut := baton(t, socket, strings.Fields(line)...)
				fmt.Fprintf(&all, "$ baton %s\n%s%s[%d]\n\n", line, out, errOut, code)
			}
			got := clockTimes.ReplaceAllString(all.String(), "${1}TIME")
			golden(t, c.name+".golden", jsonTimes.ReplaceAllString(got, `$1"TIME"$2`))
		})
	}
}

func (s *configStage) last() string { return string(s.conf.Current().Text) }
