package app

import (
	"context"
	"fmt"
	"time"

	batonv1 "baton/api/v1"
	"baton/internal/sim"
)

// explainCmd is `baton explain`.
type explainCmd struct {
	Subject string `arg:"" name:"id|group" help:"A group, or the number of an entry of the history."`
}

// Run explains.
func (c *explainCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	r, err := agent.Explain(k.ctx, &batonv1.ExplainRequest{Subject: c.Subject})
	switch {
	case err != nil:
		return k.trouble(err)
	case k.json:
		return k.printJSON(r)
	case r.Line != nil:
		k.paint.wholeLine(k.out, r.Line)
	default:
		statusView{k.paint, r.Status}.explain(k.out, r)
	}
	return nil
}

// historyCmd is `baton history`.
type historyCmd struct {
	Group string `help:"Only what is about this group." placeholder:"GROUP"`
	Limit uint32 `short:"n" default:"50" help:"How many of the newest (0: all)." placeholder:"50"`
}

// Run lists the history.
func (c *historyCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	r, err := agent.History(k.ctx, &batonv1.HistoryRequest{Group: c.Group, Limit: c.Limit})
	if err != nil {
		return k.trouble(err)
	}
	if k.json {
		return k.printJSON(r)
	}
	if len(r.Lines) == 0 {
		fmt.Fprintln(k.err, "nothing was decided yet")
	}
	for _, l := range r.Lines {
		k.paint.line(k.out, l)
	}
	return nil
}

// versionCmd is `baton version`.
type versionCmd struct{}

// agentAnswers is how long `version` waits for an agent, which need not run.
const agentAnswers = time.Second

// Run prints the version of this binary, and of the agent if one answers with another.
func (c *versionCmd) Run(k *console) error {
	ctx, cancel := context.WithTimeout(k.ctx, agentAnswers)
	defer cancel()
	agent := k.agent()
	defer agent.Close()
	running := ""
	if r, err := agent.Version(ctx, &batonv1.VersionRequest{}); err == nil {
		running = r.Version
	}
	if k.json {
		return k.printJSON(struct {
			Version      string `json:"version"`
			AgentVersion string `json:"agentVersion"` // empty: none answers
		}{Version(), running})
	}
	fmt.Fprintln(k.out, "baton", Version())
	if running != "" && running != Version() {
		fmt.Fprintf(k.out, "the agent at %s is %s: restart it to bring it up to date\n", k.where(), running)
	}
	return nil
}

// simulateCmd is `baton simulate`: the simulator reads its own arguments.
type simulateCmd struct {
	Args []string `arg:"" optional:"" help:"Arguments of the simulator."`
}

// Run hands over to the simulator.
func (c *simulateCmd) Run(k *console) error {
	args := c.Args
	if k.json { // said before the command; the simulator refuses it as it does behind it
		args = append([]string{"--json"}, args...)
	}
	if code := sim.Main(k.ctx, args, k.out, k.err); code != exitDone {
		return exitCode(code)
	}
	return nil
}
