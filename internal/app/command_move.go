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
	ending
	GetUnderWay() bool
}

// ending is how a command that changes something has ended, in the schema's words.
type ending interface {
	GetDone() bool
	GetText() string
	GetHint() string
}

// conclude tells how a command has ended; what is not good is a failure.
func (k *console) conclude(e ending, good bool) error {
	switch {
	case k.json:
		return k.outcomeJSON(e, good)
	case !good:
		return fail(exitFailed, e.GetHint(), "%s", e.GetText())
	}
	fmt.Fprintln(k.out, e.GetText())
	return nil
}

// outcomeJSON prints an outcome, which decides the exit code.
func (k *console) outcomeJSON(v any, good bool) error {
	if err := k.printJSON(v); err != nil {
		return err
	}
	if !good {
		return exitCode(exitFailed)
	}
	return nil
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
	return k.conclude(o, o.GetDone() || o.GetUnderWay())
}

// watching hands each status to a function until the function that it returns is called.
func (k *console) watching(agent *api.Client, each func(*batonv1.StatusResponse)) (stop func()) {
	ctx, cancel := context.WithCancel(k.ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		stream, err := agent.Watch(ctx, &batonv1.WatchRequest{})
		if err != nil {
			return // whoever asks for the change is told
		}
		defer stream.Close()
		for stream.Receive() {
			each(stream.Msg())
		}
	})
	return func() { cancel(); watcher.Wait() }
}

// tellProgress tells on err what line makes of the status, each time it changes, until the function that it
// returns is called.
func (k *console) tellProgress(agent *api.Client, line func(*batonv1.StatusResponse) string) (stop func()) {
	last := ""
	return k.watching(agent, func(s *batonv1.StatusResponse) {
		now := line(s)
		if now != last && last != "" {
			fmt.Fprintln(k.err, "  "+now)
		}
		last = now
	})
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
