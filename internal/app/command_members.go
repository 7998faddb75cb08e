package app

import (
	"fmt"
	"strings"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/io/api"
)

// leaveCmd is `baton leave`.
type leaveCmd struct {
	Node string `arg:"" help:"The node that leaves the cluster. It may be down."`
	applyFlags
}

// Run takes the node out of the cluster file that counts, and applies the rest.
func (c *leaveCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	r, err := agent.Config.GetConfig(k.ctx, &batonv1.GetConfigRequest{})
	if err != nil {
		return k.trouble(err)
	}
	if spec, err := config.Parse("cluster.yaml", []byte(r.Text), Kinds()); err == nil && spec.Node(cluster.NodeID(c.Node)) == nil {
		known := make([]cluster.NodeID, len(spec.Nodes))
		for i := range spec.Nodes {
			known[i] = spec.Nodes[i].ID
		}
		return fail(exitFailed, cluster.Choice("nodes", c.Node, known), "there is no node %q", c.Node)
	}
	text, err := config.Without([]byte(r.Text), cluster.NodeID(c.Node), Kinds())
	if err != nil {
		return fail(exitFailed, "baton edit changes the file by hand", "%s can't leave: %v", c.Node, err)
	}
	if c.Comment == "" {
		c.Comment = c.Node + " leaves"
	}
	return k.apply(agent, c.applyFlags, &batonv1.ApplyRequest{Text: string(text), BaseRevision: r.Revision.GetRevision()})
}

// formCmd is `baton form`.
type formCmd struct {
	Without []string `required:"" help:"A node that can't be reached; may be given several times." placeholder:"NODE"`
	Yes     bool     `short:"y" help:"Do not ask."`
}

// Run founds the cluster without the nodes named.
func (c *formCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	names := strings.Join(c.Without, ", ")
	if !c.Yes {
		if k.json {
			return fail(exitUsage, "add --yes", "--json asks nothing, and it was not agreed to")
		}
		s, err := agent.Status(k.ctx, &batonv1.StatusRequest{})
		if err != nil {
			return k.trouble(err)
		}
		if s.Forming == "" || s.Joining {
			return fail(exitFailed, "baton status", "%s belongs to a cluster already", s.Node)
		}
		fmt.Fprintf(k.out, "The cluster is founded without %s, whose vote counts as missing until it is let in.\n", names)
		if !k.agreed("Found it so?") {
			return fail(exitFailed, "answer y, or add --yes", "nothing was done")
		}
	}
	if k.progress && !k.json {
		defer k.tellForming(agent)()
	}
	r, err := agent.Members.Form(k.ctx, &batonv1.FormRequest{Without: c.Without})
	if err != nil {
		if k.ctx.Err() != nil {
			return fail(exitFailed, "it goes on if it had begun: baton status", "interrupted")
		}
		return k.trouble(err)
	}
	return k.conclude(r, r.Done)
}

// tellForming tells on err what forming waits for, each time that changes, until the function that it returns
// is called.
func (k *console) tellForming(agent *api.Client) (stop func()) {
	last := ""
	return k.watching(agent, func(s *batonv1.StatusResponse) {
		if s.Forming != last && s.Forming != "" {
			fmt.Fprintln(k.err, "  "+s.Forming)
			last = s.Forming
		}
	})
}
