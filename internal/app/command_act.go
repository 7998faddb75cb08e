package app

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	batonv1 "baton/api/v1"
	"baton/internal/io/api"
)

// startCmd is `baton start`.
type startCmd struct {
	Target string `arg:"" name:"group[/resource]" help:"What to start."`
	NoWait bool   `help:"Return once it stands in the log."`
}

// stopCmd is `baton stop`.
type stopCmd struct {
	Target string        `arg:"" name:"group[/resource]" help:"What to stop."`
	For    time.Duration `help:"Start it again by itself after this time (default: when somebody starts it)." placeholder:"30m"`
	Reason string        `help:"Why, for those who look on." placeholder:"TEXT"`
	NoWait bool          `help:"Return once it stands in the log."`
}

// restartCmd is `baton restart`.
type restartCmd struct {
	Target string `arg:"" name:"group[/resource]" help:"What to restart."`
	NoWait bool   `help:"Return once it stands in the log."`
}

// clearCmd is `baton clear`.
type clearCmd struct {
	Target string `arg:"" name:"group[/resource]" help:"Whose failures to forget."`
}

// pauseCmd is `baton pause`.
type pauseCmd struct {
	Group  string        `arg:"" optional:"" help:"The group (default: all)."`
	For    time.Duration `default:"30m" help:"It ends by itself after this time." placeholder:"30m"`
	Reason string        `help:"Why, for those who look on." placeholder:"TEXT"`
}

// resumeCmd is `baton resume`.
type resumeCmd struct {
	Group string `arg:"" optional:"" help:"The group (default: the pause of all)."`
}

// pinCmd is `baton pin`.
type pinCmd struct {
	Group  string        `arg:"" help:"The group."`
	Node   string        `arg:"" help:"Where it is to run."`
	For    time.Duration `help:"It ends by itself after this time (default: when somebody unpins it)." placeholder:"30m"`
	Reason string        `help:"Why, for those who look on." placeholder:"TEXT"`
	NoWait bool          `help:"Return once it stands in the log."`
}

// unpinCmd is `baton unpin`.
type unpinCmd struct {
	Group string `arg:"" help:"The group."`
}

// drainCmd is `baton drain`.
type drainCmd struct {
	Node   string        `arg:"" help:"The node."`
	For    time.Duration `default:"30m" help:"It ends by itself after this time." placeholder:"30m"`
	Reason string        `help:"Why, for those who look on." placeholder:"TEXT"`
	NoWait bool          `help:"Return once it stands in the log."`
}

// undrainCmd is `baton undrain`.
type undrainCmd struct {
	Node string `arg:"" help:"The node."`
}

// target splits GROUP[/RESOURCE].
func target(s string) (group, resource string, err error) {
	group, resource, named := strings.Cut(s, "/")
	if group == "" || named && resource == "" {
		return "", "", fail(exitUsage, "for example orders, or orders/web", "%q names no group and no resource of one", s)
	}
	return group, resource, nil
}

// span is for how long an instruction is to stand; absent where none is named.
func span(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// standsFor refuses a time that is none.
func standsFor(d time.Duration, mayBeNone bool) error {
	if d < 0 || d == 0 && !mayBeNone {
		return fail(exitUsage, "for example --for 30m", "nothing can stand for %v", d)
	}
	return nil
}

// Run starts what was stopped.
func (c *startCmd) Run(k *console) error {
	group, resource, err := target(c.Target)
	if err != nil {
		return err
	}
	return k.act(phasesOf(group), !c.NoWait, func(agent *api.Client) (outcome, error) {
		return agent.Act.Start(k.ctx, &batonv1.StartRequest{Group: group, Resource: resource, NoWait: c.NoWait})
	})
}

// Run stops a group or a resource.
func (c *stopCmd) Run(k *console) error {
	group, resource, err := target(c.Target)
	if err == nil {
		err = standsFor(c.For, true)
	}
	if err != nil {
		return err
	}
	return k.act(phasesOf(group), !c.NoWait, func(agent *api.Client) (outcome, error) {
		return agent.Act.Stop(k.ctx, &batonv1.StopRequest{Group: group, Resource: resource, For: span(c.For), Reason: c.Reason, NoWait: c.NoWait})
	})
}

// Run restarts a group or a resource in place.
func (c *restartCmd) Run(k *console) error {
	group, resource, err := target(c.Target)
	if err != nil {
		return err
	}
	return k.act(phasesOf(group), !c.NoWait, func(agent *api.Client) (outcome, error) {
		return agent.Act.Restart(k.ctx, &batonv1.RestartRequest{Group: group, Resource: resource, NoWait: c.NoWait})
	})
}

// Run forgets failures.
func (c *clearCmd) Run(k *console) error {
	group, resource, err := target(c.Target)
	if err != nil {
		return err
	}
	return k.act(phasesOf(group), false, func(agent *api.Client) (outcome, error) {
		return agent.Act.Clear(k.ctx, &batonv1.ClearRequest{Group: group, Resource: resource})
	})
}

// Run pauses a group, or all.
func (c *pauseCmd) Run(k *console) error {
	if err := standsFor(c.For, false); err != nil {
		return err
	}
	return k.act(phasesOf(c.Group), false, func(agent *api.Client) (outcome, error) {
		return agent.Act.Pause(k.ctx, &batonv1.PauseRequest{Group: c.Group, For: span(c.For), Reason: c.Reason})
	})
}

// Run ends a pause.
func (c *resumeCmd) Run(k *console) error {
	return k.act(phasesOf(c.Group), false, func(agent *api.Client) (outcome, error) {
		return agent.Act.Resume(k.ctx, &batonv1.ResumeRequest{Group: c.Group})
	})
}

// Run pins a group.
func (c *pinCmd) Run(k *console) error {
	if err := standsFor(c.For, true); err != nil {
		return err
	}
	return k.act(phasesOf(c.Group), !c.NoWait, func(agent *api.Client) (outcome, error) {
		return agent.Act.Pin(k.ctx, &batonv1.PinRequest{Group: c.Group, Node: c.Node, For: span(c.For), Reason: c.Reason, NoWait: c.NoWait})
	})
}

// Run ends a pin.
func (c *unpinCmd) Run(k *console) error {
	return k.act(phasesOf(c.Group), false, func(agent *api.Client) (outcome, error) {
		return agent.Act.Unpin(k.ctx, &batonv1.UnpinRequest{Group: c.Group})
	})
}

// Run drains a node.
func (c *drainCmd) Run(k *console) error {
	if err := standsFor(c.For, false); err != nil {
		return err
	}
	return k.act(leftOn(c.Node), !c.NoWait, func(agent *api.Client) (outcome, error) {
		return agent.Act.Drain(k.ctx, &batonv1.DrainRequest{Node: c.Node, For: span(c.For), Reason: c.Reason, NoWait: c.NoWait})
	})
}

// Run ends a drain.
func (c *undrainCmd) Run(k *console) error {
	return k.act(leftOn(c.Node), false, func(agent *api.Client) (outcome, error) {
		return agent.Act.Undrain(k.ctx, &batonv1.UndrainRequest{Node: c.Node})
	})
}

// leftOn returns what says in one line which groups are on a node.
func leftOn(node string) func(*batonv1.StatusResponse) string {
	return func(s *batonv1.StatusResponse) string {
		var left []string
		for _, g := range s.Groups {
			switch {
			case g.Owner == node && g.Move != nil:
				left = append(left, g.Name+" (moving to "+g.Move.To+")")
			case g.Owner == node:
				left = append(left, g.Name)
			}
		}
		if len(left) == 0 {
			return "nothing is left on " + node
		}
		return "on " + node + ": " + strings.Join(left, ", ")
	}
}
