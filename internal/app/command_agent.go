package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/io/api"
)

// agentCmd is `baton agent`.
type agentCmd struct {
	Config    string `default:"/etc/baton/cluster.yaml" help:"The cluster file." placeholder:"FILE"`
	Node      string `help:"This node's name in the file (default: the host's name)." placeholder:"NAME"`
	Data      string `default:"/var/lib/baton" help:"What must outlive a reboot." placeholder:"DIR"`
	RunDir    string `name:"run" default:"/run/baton" help:"What must outlive the agent; on tmpfs." placeholder:"DIR"`
	Gate      string `enum:"auto,ebpf,clsact,nftables" default:"auto" help:"The gate's mechanism: auto, ebpf (tcx, else clsact), clsact or nftables."`
	LogFormat string `name:"log-format" enum:"auto,text,json,journal" default:"auto" help:"The log's format: text or json to standard error, journal to journald; auto: journal where systemd has connected standard error to it, else text."`
	LogLevel  string `name:"log-level" enum:"debug,info,warn,error" default:"info" help:"What is logged: debug, info, warn or error, and above."`
	NoGate    bool   `hidden:"" help:"Run without a gate; for baton dev on loopback addresses."`
	Dismantle bool   `help:"Run nothing: stop what an agent that has ended left here, and take its gate out of the kernel. For an uninstallation, or before a return to a version whose gate knows no tcx."`
}

// Run runs the agent until it is told to stop.
func (c *agentCmd) Run(k *console) error {
	began, supervised := time.Now(), os.Getenv("NOTIFY_SOCKET") != ""
	opt := AgentOptions{ConfigFile: c.Config, Node: c.Node, DataDir: c.Data, RunDir: c.RunDir, Socket: k.socket, NoGate: c.NoGate, LogFormat: c.LogFormat}
	if err := opt.LogLevel.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return fail(exitUsage, "", "--log-level: %v", err)
	}
	if c.Gate != "auto" {
		opt.Prefer = c.Gate
	}
	err := c.run(k, opt)
	if err != nil && supervised {
		pace(k.ctx, began)
	}
	return err
}

func (c *agentCmd) run(k *console, opt AgentOptions) error {
	if c.Dismantle {
		return dismantle(k, opt)
	}
	return RunAgent(k.ctx, opt)
}

// dismantle stops every resource of this node, removes the gate, and empties the run directory. What the
// cluster needs to know this node again, data, key and file, stays.
func dismantle(k *console, opt AgentOptions) error {
	asking, done := context.WithTimeout(k.ctx, agentAnswers)
	defer done()
	client := k.agent()
	defer client.Close()
	if _, err := client.Status(asking, &batonv1.StatusRequest{}); err == nil || !api.Explain(err).Unreached {
		return fail(exitFailed, "systemctl stop baton", "an agent runs here (%s)", k.socket)
	}
	spec, self, _, err := readSetup(opt, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	a := &agent{opt: opt, log: slog.New(slog.DiscardHandler), spec: spec, self: self}
	if a.run, err = openRunDir(opt.RunDir); err != nil {
		return err
	}
	var errs []error
	for _, g := range spec.Groups {
		for _, r := range slices.Backward(g.Resources) {
			if g.Prefers(self) >= 0 {
				errs = append(errs, a.stopForGood(k.ctx, g.ID, r))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err // the gate stays: what runs must not be reached
	}
	if !opt.NoGate {
		g, err := a.newGate()
		if err == nil {
			err = g.Remove()
		}
		if err != nil {
			return err
		}
	}
	return a.run.remove(opt.Socket)
}

// stopForGood stops a resource that no agent looks after.
func (a *agent) stopForGood(ctx context.Context, g cluster.GroupID, spec cluster.ResourceSpec) error {
	kind, env := a.describe(a.spec.Cluster, g, spec)
	env.Changed = func(cluster.Status, string, bool) {}
	r, err := kind.New(env)
	if err == nil {
		limited, cancel := context.WithTimeout(ctx, spec.StopTimeout)
		err = r.Stop(limited)
		cancel()
		r.Close()
	}
	if err != nil {
		return fmt.Errorf("stop %s/%s: %w", g, spec.ID, err)
	}
	return nil
}
