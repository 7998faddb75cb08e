package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/core/wire"
	"baton/internal/io/api"
	"baton/internal/io/bounded"
	"baton/internal/io/disk"
	"baton/internal/io/identity"
)

// inviteCmd is `baton invite`.
type inviteCmd struct {
	Node string        `arg:"" help:"Which of the cluster file's nodes is to join."`
	For  time.Duration `default:"15m" help:"How long the invitation is valid." placeholder:"15m"`
}

// Run makes an invitation.
func (c *inviteCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	r, err := agent.Access.Invite(k.ctx, &batonv1.InviteRequest{Node: c.Node, For: durationpb.New(c.For)})
	if err != nil {
		return k.trouble(err)
	}
	if k.json {
		return k.printJSON(r)
	}
	fmt.Fprintf(k.err, "On %s, as root, until %s, once:\n", c.Node, r.Until.AsTime().Local().Format(time.TimeOnly))
	fmt.Fprintf(k.out, "baton join %s %s\n", r.Address, r.Token)
	return nil
}

// joinCmd is `baton join`.
type joinCmd struct {
	Address string `arg:"" help:"Where the node that invited answers: HOST[:PORT]."`
	Token   string `arg:"" help:"The invitation, as baton invite printed it."`
	Node    string `help:"This node's name in the file (default: the host's name)." placeholder:"NAME"`
	Config  string `default:"/etc/baton/cluster.yaml" help:"Where the cluster file goes." placeholder:"FILE"`
	Key     string `help:"Where the key goes (default: as the cluster file says)." placeholder:"FILE"`
	Data    string `default:"/var/lib/baton" help:"The agent's data directory." placeholder:"DIR"`
	Force   bool   `help:"Replace a cluster file or a key that differs."`
	NoCheck bool   `help:"Don't run baton check afterwards."`
}

// joinTimeout bounds each question to the node that invited.
const joinTimeout = 10 * time.Second

// clocksApart is from when on a difference of the clocks is told.
const clocksApart = 5 * time.Second

// joined is what `join` did; its JSON form stays.
type joined struct {
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	Config  string `json:"config"`
	Key     string `json:"key"`
	Next    string `json:"next"` // what to type next
}

// Run fetches file and key and writes both, if nothing speaks against it. The invitation is used up only when
// all that can be looked at was looked at.
func (c *joinCmd) Run(k *console) error {
	i, err := checkInvitation(c.Token)
	if err != nil {
		return err
	}
	if c.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fail(exitUsage, "name it: --node NAME", "ask for this host's name: %v", err)
		}
		c.Node, _, _ = strings.Cut(host, ".")
	}
	agent := api.DialTLS([]string{longAddress(c.Address)}, identity.Pinned([]identity.Fingerprint{i.Pin}), i.Format())
	defer agent.Close()
	look, err := c.look(k, agent)
	if err != nil {
		return err
	}
	if c.Key == "" {
		c.Key = look.KeyFile
	}
	if err := errors.Join(c.checkFile(c.Config, look.FileHash), c.checkFile(c.Key, look.KeyHash)); err != nil {
		return err
	}
	if err := checkData(c.Data, look.Cluster, look.Id); err != nil {
		return err
	}
	spec, err := c.fetch(k, agent)
	if err != nil {
		return err
	}
	return c.finish(k, spec)
}

// checkInvitation tells what is wrong with an invitation before it goes anywhere.
func checkInvitation(text string) (identity.Invitation, error) {
	const hint = "baton invite NODE prints the whole line on a node of the cluster"
	i, err := identity.ParseInvitation(text)
	_, token := identity.ParseToken(text)
	switch {
	case token == nil:
		return i, fail(exitUsage, hint, "that is a token for remote use, and no invitation")
	case errors.Is(err, identity.ErrSpoiltSecret):
		return i, fail(exitUsage, "copy the whole line again", "the invitation was cut short or changed")
	case err != nil:
		return i, fail(exitUsage, hint, "that is no invitation: an invitation begins with bi1_")
	}
	return i, nil
}

// look asks what there is to fetch.
func (c *joinCmd) look(k *console, agent *api.Client) (*batonv1.LookResponse, error) {
	ctx, cancel := context.WithTimeout(k.ctx, joinTimeout)
	defer cancel()
	look, err := agent.Join.Look(ctx, &batonv1.LookRequest{Node: c.Node})
	if err != nil {
		return nil, c.trouble(k, err)
	}
	if apart := time.Since(look.Time.AsTime()); (apart > clocksApart || apart < -clocksApart) && !k.json {
		fmt.Fprintf(k.err, "warning: this host's clock and that of the cluster are apart by %v: the history will be hard to read; chronyc makestep sets it\n", apart.Abs().Round(time.Second))
	}
	return look, nil
}

// trouble tells why the node that invited gave nothing.
func (c *joinCmd) trouble(k *console, err error) error {
	t := api.Explain(err)
	switch {
	case k.ctx.Err() != nil:
		return fail(exitFailed, "", "interrupted")
	case t.Unreached:
		return fail(exitUnreached, "is the agent running there, and does a firewall let TCP "+portOf(longAddress(c.Address))+" through? baton check prints the rules", "no agent reached at %s: %s", c.Address, t.Text)
	case errors.Is(err, identity.ErrStranger):
		return fail(exitFailed, "is the address right? If the key was changed meanwhile: baton invite again", "%s: %s", c.Address, t.Text)
	}
	return fail(exitFailed, t.Hint, "%s: %s", c.Address, t.Text)
}

func portOf(address string) string { return address[strings.LastIndex(address, ":")+1:] }

// checkFile tells if a file would be overwritten by something else, or can't be written.
func (c *joinCmd) checkFile(name string, hash []byte) error {
	text, err := bounded.ReadFile(name, bounded.ClusterFile)
	switch {
	case err == nil && !bytes.Equal(identity.Hash(text), hash) && !c.Force:
		return fail(exitFailed, "move it away, or replace it with --force", "%s is there already, and differs from the cluster's; nothing was changed", name)
	case err == nil || errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fail(exitFailed, "run it as root", "look at %s: %v", name, err)
	}
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fail(exitFailed, "run it as root", "make %s: %v", dir, err)
	}
	probe, err := os.CreateTemp(dir, ".baton-join-*")
	if err != nil {
		return fail(exitFailed, "run it as root", "write to %s: %v", dir, err)
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return fail(exitFailed, "", "write to %s: %v", dir, err)
	}
	return nil
}

// checkData tells if the data directory is another cluster's.
func checkData(dir, name, id string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(entries) == 0:
		return nil
	case err != nil:
		return fail(exitFailed, "run it as root", "look at the data directory: %v", err)
	}
	store, image, err := disk.Open(dir, disk.Options{})
	if errors.Is(err, disk.ErrInUse) {
		return fail(exitFailed, "systemctl stop baton, if this host is to join", "an agent runs on %s already", dir)
	} else if err != nil {
		return fail(exitFailed, "name another one with --data, if that is none of baton", "%v", err)
	}
	if err := store.Close(); err != nil {
		return fail(exitFailed, "", "%v", err)
	}
	if image.Founding == nil {
		return nil
	}
	f, err := cluster.DecodeFounding(image.Founding)
	if err != nil {
		return fail(exitFailed, "", "%s: %v", dir, err)
	}
	if f.ID == id {
		return nil
	}
	return fail(exitFailed, "if that one is no longer needed on this host, move "+dir+" away", "%s holds the data of another cluster (%s), not of %s", dir, f.ID, name)
}

// fetch uses the invitation and writes what it gives: the key first, without which the file is worth nothing.
func (c *joinCmd) fetch(k *console, agent *api.Client) (*cluster.Spec, error) {
	ctx, cancel := context.WithTimeout(k.ctx, joinTimeout)
	defer cancel()
	r, err := agent.Join.Fetch(ctx, &batonv1.FetchRequest{Node: c.Node})
	if err != nil {
		return nil, c.trouble(k, err)
	}
	if _, err := wire.ParseKeys(string(r.Key)); err != nil {
		return nil, fail(exitFailed, "are both sides the same release? baton version", "the key that was fetched: %v", err)
	}
	spec, err := config.Parse(c.Config, r.File, Kinds())
	if err != nil {
		return nil, fail(exitFailed, "are both sides the same release? baton version", "the cluster file that was fetched: %v", err)
	}
	if err := errors.Join(replaceFile(c.Key, r.Key, 0o600), replaceFile(c.Config, r.File, 0o644)); err != nil {
		return nil, fail(exitFailed, "baton invite again, once that is mended", "%v", err)
	}
	return spec, nil
}

// finish checks the host and says what to do next.
func (c *joinCmd) finish(k *console, spec *cluster.Spec) error {
	next := "systemctl enable --now baton"
	if host, _ := os.Hostname(); !strings.EqualFold(strings.SplitN(host, ".", 2)[0], c.Node) {
		next = "add --node " + c.Node + " to the agent's command line, then " + next
	}
	if k.json {
		return k.printJSON(joined{spec.Cluster, c.Node, c.Config, c.Key, next})
	}
	fmt.Fprintf(k.out, "%s belongs to cluster %s now: %s and %s are written\n\n", c.Node, spec.Cluster, c.Config, c.Key)
	if !c.NoCheck {
		check := checkCmd{File: c.Config, Node: c.Node, Data: c.Data, Measure: time.Second}
		if err := check.Run(k); err != nil {
			fmt.Fprintf(k.out, "\nnext: mend what failed, baton check %s, then %s\n", c.Config, next)
			return err
		}
	}
	fmt.Fprintf(k.out, "\nnext: %s\n", next)
	return nil
}
