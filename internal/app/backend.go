package app

import (
	"context"
	"errors"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/api"
)

// backend answers the API: by views of the core, and from the loop, between two steps of the core, where something
// is to be done.
type backend struct{ a *agent }

var errEnded = errors.New("the agent is stopping")

// ask runs f in the loop.
func (b *backend) ask(f func(*node.Node)) error {
	if !b.a.inbox.call(f, b.a.ended) {
		return errEnded
	}
	return nil
}

// Overview implements api.Backend.
func (b *backend) Overview(ctx context.Context) (*cluster.Overview, error) {
	p, err := b.a.look(ctx)
	if err != nil {
		return nil, err
	}
	o := p.seen(time.Now())
	b.a.access.tellForeign(o)
	b.a.tellFaults(o)
	b.a.tellReplaced(o)
	o.Drift = b.a.file.drift()
	return o, nil
}

// History implements api.Backend.
func (b *backend) History(ctx context.Context) ([]cluster.Line, error) {
	p, err := b.a.look(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Clone(p.history), nil
}

// Version implements api.Backend.
func (b *backend) Version() string { return Version() }

// Move implements api.Backend.
func (b *backend) Move(ctx context.Context, r api.MoveRequest) (api.MoveReply, error) {
	c := &node.Command{Op: node.OpSwitch, Group: r.Group, To: r.To, By: r.By}
	if r.Failback {
		c.Op = node.OpFailback
	}
	if r.DryRun {
		return b.dryRun(c)
	}
	m, err := b.carryOut(ctx, c)
	m.To = r.To
	return m, err
}

// Act implements api.ActBackend.
func (b *backend) Act(ctx context.Context, r api.ActRequest) (api.MoveReply, error) {
	return b.carryOut(ctx, &node.Command{Op: node.OpPropose, Part: r.Part, By: r.By, Why: r.Why, NoWait: r.NoWait})
}

// carryOut gives the core a command and waits for the answer.
func (b *backend) carryOut(ctx context.Context, c *node.Command) (api.MoveReply, error) {
	var answer chan node.Reply
	if err := b.ask(func(*node.Node) { answer = b.a.command(c) }); err != nil {
		return api.MoveReply{}, err
	}
	select {
	case x := <-answer:
		return api.MoveReply{Done: x.Done, Text: x.Text, Hint: x.Hint, UnderWay: x.UnderWay}, nil
	case <-ctx.Done():
		return api.MoveReply{}, ctx.Err()
	case <-b.a.ended:
		return api.MoveReply{}, errEnded
	}
}

func (b *backend) dryRun(c *node.Command) (m api.MoveReply, err error) {
	err = b.ask(func(n *node.Node) {
		to, r := n.WouldMove(b.a.clock.now(), c)
		if m = (api.MoveReply{Done: true, Text: string(c.Group) + " would move to " + string(to), To: to}); r != nil {
			m = api.MoveReply{Done: r.Done, Text: r.Text, Hint: r.Hint, To: to}
		}
	})
	return m, err
}

// command hands the core a command. It is called in the loop.
func (a *agent) command(c *node.Command) chan node.Reply {
	a.commands++
	c.ID = a.commands
	answer := make(chan node.Reply, 1)
	a.replies[c.ID] = answer
	a.inbox.put(c)
	return answer
}
