package app

import (
	"context"
	"fmt"
	"strings"
	"sync"

	batonv1 "baton/api/v1"
	"baton/internal/io/api"
)

// switchCmd is `baton switch`.
type switchCmd struct {
	Group  string `arg:"" help:"The group to move."`
	To     string `help:"The node that takes it (default: the best)." placeholder:"NODE"`
	DryRun bool   `help:"Only say what would happen."`
	NoWait bool   `help:"Return once the move has begun."`
}

// failbackCmd is `baton failback`.
type failbackCmd struct {
	Group  string `arg:"" help:"The group to move back."`
	DryRun bool   `help:"Only say what would happen."`
	NoWait bool   `help:"Return once the move has begun."`
}

// outcome is what both kinds of moves are answered with.
type outcome interface {
	GetDone() bool
	GetText() string
	GetHint() string
	GetUnderWay() bool
}

// Run moves the group and tells what became of it.
func (c *switchCmd) Run(k *console) error {
	return k.act(phasesOf(c.Group), !c.DryRun && !c.NoWait, func(agent *api.Client) (outcome, error) {
		return agent.Switch(k.ctx, &batonv1.SwitchRequest{Group: c.Group, To: c.To, DryRun: c.DryRun, NoWait: c.NoWait})
	})
}

// Run moves the group back and tells what became of it.
func (c *failbackCmd) Run(k *console) error {
	return k.act(phasesOf(c.Group), !c.DryRun && !c.NoWait, func(agent *api.Client) (outcome, error) {
		return agent.Failback(k.ctx, &batonv1.FailbackRequest{Group: c.Group, DryRun: c.DryRun, NoWait: c.NoWait})
	})
}

// act has the agent do something and tells the outcome; while it waits, how far it is, in the words of line.
func (k *console) act(line func(*batonv1.StatusResponse) string, waits bool, ask func(*api.Client) (outcome, error)) error {
	agent := k.agent()
	defer agent.Close()
	if waits && k.progress && !k.json {
		defer k.tellProgress(agent, line)()
	}
	o, err := ask(agent)
	if err != nil {
		if k.ctx.Err() != nil {
			return fail(exitFailed, "it goes on if it had begun: baton status", "interrupted")
		}
		return k.trouble(err)
	}
	good := o.GetDone() || o.GetUnderWay()
	if k.json {
		if err := k.printJSON(o); err != nil {
			return err
		}
		if !good {
			return exitCode(exitFailed)
		}
		return nil
	}
	if !good {
		return fail(exitFailed, o.GetHint(), "%s", o.GetText())
	}
	fmt.Fprintln(k.out, o.GetText())
	return nil
}

// tellProgress tells on err what line makes of the status, each time it changes, until the function that it
// returns is called.
func (k *console) tellProgress(agent *api.Client, line func(*batonv1.StatusResponse) string) (stop func()) {
	ctx, cancel := context.WithCancel(k.ctx)
	var teller sync.WaitGroup
	teller.Go(func() {
		stream, err := agent.Watch(ctx, &batonv1.WatchRequest{})
		if err != nil {
			return // whoever asks for the move is told
		}
		defer stream.Close()
		last := ""
		for stream.Receive() {
			now := line(stream.Msg())
			if now != last && last != "" {
				fmt.Fprintln(k.err, "  "+now)
			}
			last = now
		}
	})
	return func() { cancel(); teller.Wait() }
}

// phasesOf returns what says in one line how a group is on its nodes.
func phasesOf(group string) func(*batonv1.StatusResponse) string {
	return func(s *batonv1.StatusResponse) string { return phases(s, group) }
}

// phases says in one line how a group is on its nodes.
func phases(s *batonv1.StatusResponse, group string) string {
	for _, g := range s.Groups {
		if g.Name != group {
			continue
		}
		var out []string
		for _, n := range g.Nodes {
			out = append(out, n.Node+" "+n.Phase)
		}
		return fmt.Sprintf("epoch %d, %s: %s", g.Epoch, nobody(g.Owner), strings.Join(out, ", "))
	}
	return ""
}
