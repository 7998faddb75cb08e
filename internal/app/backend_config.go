package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/core/node"
	"baton/internal/io/api"
)

// begunAfter is how long a change that nobody waits for may take to be refused.
const begunAfter = 500 * time.Millisecond

// Configuration implements api.ConfigBackend.
func (b *backend) Configuration(ctx context.Context) (*cluster.Configuration, error) {
	p, err := b.a.lookAnew(ctx)
	if err != nil {
		return nil, err
	}
	c := &cluster.Configuration{Revisions: slices.Clone(p.conf.Revisions)}
	if p.conf.Draft != nil {
		d := *p.conf.Draft
		c.Draft = &d
	}
	return c, nil
}

// Compare implements api.ConfigBackend.
func (b *backend) Compare(before, after []byte) []string { return compareTexts(before, after) }

// compareTexts tells how one text differs from another, in the words of the file.
func compareTexts(before, after []byte) []string {
	x, err1 := readKept("before", before)
	y, err2 := readConfig("after", after)
	if err := errors.Join(err1, err2); err != nil {
		return []string{fmt.Sprintf("%d lines (this version can't read one of the two)", linesApart(string(before), string(after)))}
	}
	lines := config.Diff(x, y)
	if len(lines) == 0 && string(before) != string(after) {
		return []string{"comments and layout only"}
	}
	return lines
}

// File implements api.ConfigBackend.
func (b *backend) File() api.File {
	k := b.a.file
	return api.File{Node: k.node, Path: k.path, Base: k.base(), Drift: k.drift()}
}

// Restore implements api.ConfigBackend.
func (b *backend) Restore(context.Context) (api.Restored, error) {
	revision, kept, err := b.a.file.restore(time.Now())
	return api.Restored{File: b.a.file.path, Revision: revision, Copy: kept}, err
}

// Validate implements api.ConfigBackend.
func (b *backend) Validate(ctx context.Context, text []byte) ([]api.Problem, error) {
	c, err := b.Configuration(ctx)
	if err != nil {
		return nil, err
	}
	return b.host(c).validate(text), nil
}

func (b *backend) host(c *cluster.Configuration) *host {
	h := &host{self: b.a.self, sync: b.a.store.SyncTime()}
	if r := c.Current(); r != nil {
		// A text that this version can't read is none that it could have adopted.
		h.present, _ = readKept("cluster.yaml", r.Text)
	} else {
		h.present = b.a.shared.Load() // by which it waits to be let in
	}
	return h
}

// Apply implements api.ConfigBackend.
func (b *backend) Apply(ctx context.Context, r api.ApplyRequest) (api.ApplyReply, error) {
	c, err := b.Configuration(ctx)
	if err != nil {
		return api.ApplyReply{}, err
	}
	o, err := b.Overview(ctx)
	if err != nil {
		return api.ApplyReply{}, err
	}
	reply := preview(ctx, c, o, b.host(c), b, r)
	if !reply.Done || r.DryRun || len(reply.Changes) == 0 {
		return reply, nil
	}
	return b.propose(ctx, r, reply)
}

// preview tells what an ApplyRequest would do. Its Done says that nothing is in the way.
func preview(ctx context.Context, c *cluster.Configuration, o *cluster.Overview, here *host, peers Peers, r api.ApplyRequest) api.ApplyReply {
	current := c.Current()
	if current == nil {
		return api.ApplyReply{Text: "the cluster is still forming, and has no configuration of its own yet", Hint: "baton status --wait"}
	}
	reply := api.ApplyReply{Base: current.Revision, Revision: current.Revision}
	if text, hint := stale(c, r.Base); text != "" {
		reply.Text, reply.Hint = text, hint
		return reply
	}
	next, err := readConfig("cluster.yaml", r.Text)
	if err != nil {
		reply.Problems = here.unreadable(err)
		for i := range reply.Problems {
			reply.Problems[i].Node = "" // it is no node's own
		}
		reply.Text = "the file is not right"
		return reply
	}
	if here.present == nil {
		reply.Text, reply.Hint = fmt.Sprintf("this version can't read revision %d, which counts", current.Revision), "bring this node's baton up to date"
		return reply
	}
	reply.Changes = compareTexts(current.Text, r.Text)
	if len(reply.Changes) == 0 {
		reply.Done, reply.Text = true, fmt.Sprintf("nothing to change: the text is that of revision %d", current.Revision)
		return reply
	}
	reply.Revision = current.Revision + 1
	at := running(o)
	for _, e := range config.Effects(here.present, next, at) {
		reply.Effects = append(reply.Effects, api.Effect{Group: e.Group, Node: e.Node, Kind: string(e.Kind), Text: e.Text})
	}
	for _, x := range config.Refusals(here.present, next, at) {
		reply.Problems = append(reply.Problems, api.Problem{Text: x.Text, Hint: x.Hint})
	}
	if len(reply.Problems) > 0 {
		reply.Text, reply.Hint = "a running cluster can't be changed so", "baton config show prints what counts now"
		return reply
	}
	reply.Problems = validateAll(ctx, here, peers, next, o)
	verdictOn(&reply, r.Unchecked)
	return reply
}

// verdictOn says whether what the nodes answered lets a change happen.
func verdictOn(reply *api.ApplyReply, unchecked bool) {
	var refused, unasked []cluster.NodeID
	for _, p := range reply.Problems {
		switch {
		case p.Unreached && !p.Silent && !unchecked:
			unasked = append(unasked, p.Node)
		case !p.Unreached:
			refused = append(refused, p.Node)
		}
	}
	switch {
	case len(refused) > 0:
		reply.Text, reply.Hint = "not everything that the file names is there: see "+joinNodes(refused), "nothing was changed: correct the file or the nodes, and try again"
	case len(unasked) > 0:
		reply.Text, reply.Hint = "not asked whether they can take the file: "+joinNodes(unasked), "put that right, or add --unchecked"
	default:
		reply.Done, reply.Text = true, fmt.Sprintf("revision %d can follow revision %d", reply.Revision, reply.Base)
	}
}

func joinNodes(nodes []cluster.NodeID) string {
	out := ""
	for i, n := range slices.Compact(nodes) {
		if i > 0 {
			out += ", "
		}
		out += string(n)
	}
	return out
}

// stale tells why a text that was made from revision base can't be applied now.
func stale(c *cluster.Configuration, base cluster.Revision) (text, hint string) {
	current := c.Current()
	if d := c.Draft; d != nil {
		waits := ""
		if d.Waits != "" {
			waits = ", which waits: " + d.Waits
		}
		return fmt.Sprintf("a change by %s is under way%s", d.By, waits), "wait until it counts, or give it up: baton config drop"
	}
	if base == 0 || base == current.Revision {
		return "", ""
	}
	if base > current.Revision {
		return fmt.Sprintf("the text was made from revision %d, and the newest here is %d", base, current.Revision), "baton config history lists them"
	}
	i := slices.IndexFunc(c.Revisions, func(r cluster.RevisionText) bool { return r.Revision == base+1 })
	if i < 0 {
		i = 0
	}
	between := ""
	for _, r := range c.Revisions[i:] {
		if between != "" {
			between += ", "
		}
		between += fmt.Sprintf("revision %d by %s", r.Revision, r.By)
		if r.Comment != "" {
			between += fmt.Sprintf(" (%s)", r.Comment)
		}
	}
	return fmt.Sprintf("the text was made from revision %d, and since then came %s", base, between),
		fmt.Sprintf("baton config diff %d shows what changed; take it over, then apply with --base %d", base, current.Revision)
}

// running tells the core's preview where everything is.
func running(o *cluster.Overview) config.Running {
	var at config.Running
	for _, g := range o.Groups {
		at.Groups = append(at.Groups, config.Placement{Group: g.ID, Owner: g.Owner, Next: g.Next})
	}
	return at
}

// propose puts the draft into the log and waits until it counts, or was given up.
func (b *backend) propose(ctx context.Context, r api.ApplyRequest, reply api.ApplyReply) (api.ApplyReply, error) {
	draft := &cluster.Draft{Base: reply.Base, Text: r.Text, Comment: r.Comment, ID: fmt.Sprintf("%s-%d", b.a.self, time.Now().UnixNano())}
	waiting := ctx
	if r.NoWait {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeout(ctx, begunAfter)
		defer cancel()
	}
	x, err := b.proposePart(waiting, r.By, r.Comment, cluster.Part{Draft: draft})
	reply.Done, reply.Text, reply.Hint = x.Done, x.Text, x.Hint
	switch {
	case err != nil && r.NoWait && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		reply.UnderWay, reply.Text = true, fmt.Sprintf("the change to revision %d is under way", reply.Revision)
		return reply, nil
	case errors.Is(err, errEnded) && b.a.leftAt != 0: // the loop has ended, and nobody writes this any more
		reply.Done, reply.Text = true, fmt.Sprintf("%s has left the cluster, which goes on to revision %d without it", b.a.self, reply.Revision)
		return reply, nil
	case !x.Done:
		reply.Revision = reply.Base
	}
	return reply, err
}

// proposePart asks the core to put a part into the log, and waits for its answer.
func (b *backend) proposePart(ctx context.Context, by, why string, part cluster.Part) (node.Reply, error) {
	var answer chan node.Reply
	if err := b.ask(func(*node.Node) {
		answer = b.a.command(&node.Command{Op: node.OpPropose, By: by, Why: why, Part: part})
	}); err != nil {
		return node.Reply{}, err
	}
	select {
	case x := <-answer:
		return x, nil
	case <-ctx.Done():
		return node.Reply{}, ctx.Err()
	case <-b.a.ended:
		return node.Reply{}, errEnded
	}
}

// DropDraft implements api.ConfigBackend.
func (b *backend) DropDraft(ctx context.Context, by string) (api.ApplyReply, error) {
	c, err := b.Configuration(ctx)
	if err != nil {
		return api.ApplyReply{}, err
	}
	if c.Draft == nil {
		return api.ApplyReply{Text: "no change is under way", Hint: "baton config history lists what was changed"}, nil
	}
	x, err := b.proposePart(ctx, by, "", cluster.Part{Drop: &cluster.Drop{Base: c.Draft.Base, Reason: "given up by " + by}})
	if err == nil && x.Done {
		x.Text = fmt.Sprintf("the change by %s is given up: revision %d goes on counting", c.Draft.By, c.Draft.Base)
	}
	return api.ApplyReply{Done: x.Done, Text: x.Text, Hint: x.Hint}, err
}
