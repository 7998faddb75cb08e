package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"baton/internal/io/bounded"
)

// devCmd is `baton dev`.
type devCmd struct {
	File     string         `arg:"" optional:"" help:"A cluster file of yours to try; default: a small web service."`
	Auto     bool           `help:"Play every fault once, print a table, and end."`
	Only     []string       `help:"With --auto: only these of power, cable, silent, freeze, agent, switch, failback, service." placeholder:"FAULT"`
	Takeover *time.Duration `help:"Of the cluster without a FILE. Default: 1s." placeholder:"1s"`
	Loopback bool           `help:"Run on loopback addresses, as without root."`

	Service bool `hidden:"" help:"Be the service of the cluster on loopback."`
	Sweep   bool `hidden:"" help:"Tidy up once the demo that has started this has ended."`
}

// Run runs the cluster until it is told to stop, and removes everything.
func (c *devCmd) Run(k *console) (err error) {
	switch {
	case c.Service:
		return devService(k.ctx)
	case c.Sweep:
		return sweeper(k.in)
	}
	if k.json {
		return fail(exitUsage, "leave --json out; baton --json status --socket PATH, with a socket that dev names, asks its agents", "baton dev talks to people")
	}
	if err := c.check(); err != nil {
		return err
	}
	open, err := c.prepare(k)
	if err != nil {
		return err
	}
	var stop context.CancelFunc
	k.ctx, stop = endings(k.ctx)
	defer stop()
	_ = sweepDemos() // what can't be removed is nobody's trouble here
	dismiss, err := startSweeper(k.in)
	if err != nil {
		return err
	}
	defer dismiss()
	return c.play(k, open)
}

// check refuses flags that don't go together.
func (c *devCmd) check() error {
	for _, name := range c.Only {
		if trickWords[name] == "" {
			return fail(exitUsage, "baton dev --help", "--only: there is no fault %q", name)
		}
	}
	if c.Auto && c.File != "" {
		return fail(exitUsage, "leave FILE out, or leave --auto out", "--auto asks the demo's own service, and can't ask that of %s", c.File)
	}
	if c.Takeover != nil && c.File != "" {
		return fail(exitUsage, "leave --takeover out, and write takeover: into the file", "--takeover is for the cluster without a FILE: %s says its own", c.File)
	}
	return nil
}

// takeover is that of the cluster without a FILE.
func (c *devCmd) takeover() time.Duration {
	if c.Takeover != nil {
		return *c.Takeover
	}
	return time.Second
}

// play makes the cluster, lets it be played with, and takes it away.
func (c *devCmd) play(k *console, open opener) (err error) {
	if k.progress {
		fmt.Fprint(k.err, "making the machines …\r") // what follows overwrites it
	}
	p, g, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	s := newSession(k, p, g)
	c.introduce(s)
	ctx, stop := context.WithCancel(k.ctx)
	defer s.end()
	defer stop()
	person := &person{watches: isTerminal(k.in)}
	if !c.Auto {
		var restore func()
		person.asked, restore = readDeeds(ctx, k.in)
		defer restore()
	}
	if err := s.begin(ctx, person); err != nil || person.leaves {
		return c.interrupted(k, err)
	}
	if c.Auto {
		return c.interrupted(k, s.auto(ctx, c.Only))
	}
	return c.interrupted(k, s.play(ctx, person))
}

// interrupted turns the end by Ctrl-C, which is how a demo ends, into success; but not all was played then.
func (c *devCmd) interrupted(k *console, err error) error {
	switch {
	case k.ctx.Err() == nil || !errors.Is(err, context.Canceled):
		return err
	case c.Auto:
		return fail(exitFailed, "", "interrupted")
	}
	return nil
}

// opener makes the cluster of a plan and runs it.
type opener func() (*devPlan, ground, error)

// prepare decides what to run, in lab hosts with root, else on loopback, and makes nothing yet.
func (c *devCmd) prepare(k *console) (opener, error) {
	if c.Loopback || os.Geteuid() != 0 {
		if c.File != "" {
			return nil, fail(exitUsage, "run it as root", "a file's addresses take network namespaces, and those take root")
		}
		return c.openLoopback, nil
	}
	name, self := c.File, ""
	var text []byte
	var err error
	if c.File != "" {
		text, err = bounded.ReadFile(c.File, bounded.ClusterFile)
	} else if self, err = os.Executable(); err == nil {
		name, text = "the demo's cluster file", fmt.Appendf(nil, labFile, c.takeover(), self, devPort)
	}
	switch {
	case err != nil && c.File != "":
		return nil, fail(exitUsage, "name a file that is there, or none: baton dev runs a small web service", "read the cluster file %s: %s", c.File, cause(err))
	case err != nil:
		return nil, err
	}
	p, err := newDevPlan(name, text)
	if err != nil {
		return nil, err
	}
	p.own = c.File != ""
	nets, err := labNetworks(p.spec)
	if err != nil {
		return nil, err
	}
	if p.own {
		lacks := devLacks(p.spec)
		k.tellDevLacks(c.File, lacks)
		if p.starts = startable(p.spec, lacks); len(p.starts) == 0 {
			return nil, fail(exitUsage, "do what the list says, or try a copy of the file that names users and programs of this machine", "nothing of %s could serve on this machine", c.File)
		}
		p.group = p.starts[0]
	}
	return func() (*devPlan, ground, error) { return openLab(p, nets) }, nil
}

func (c *devCmd) openLoopback() (*devPlan, ground, error) {
	g, err := newLoopbackGround(c.takeover())
	if err != nil {
		return nil, nil, err
	}
	return g.plan, g, nil
}

func openLab(p *devPlan, nets []labNet) (*devPlan, ground, error) {
	g, err := newLabGround(p, nets)
	var told *failure
	switch {
	case err == nil:
		return p, g, nil
	case !errors.As(err, &told) && !p.own:
		err = fail(exitFailed, "baton dev --loopback needs none of that, and shows less", "no hosts can be made on this machine: %v", err)
	}
	return nil, nil, err
}

// introduce says what runs, what is missing, and what to type next.
func (c *devCmd) introduce(s *session) {
	paint := s.screen.palette
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", paint.text(bold, "A whole cluster on this machine."))
	for _, n := range s.plan.spec.Nodes {
		fmt.Fprintf(&b, "  %-8s %-15s %s\n", n.ID, n.Address, n.Role)
	}
	for _, g := range s.plan.spec.Groups {
		var what []string
		for _, r := range g.Resources {
			w := r.Kind + " " + string(r.ID)
			for _, a := range r.Addresses {
				w = "address " + a.String()
			}
			what = append(what, w)
		}
		fmt.Fprintf(&b, "  group %s: %s; takeover %s, lease %s\n", g.ID, strings.Join(what, ", "), s.plan.spec.Timing.Takeover, s.plan.spec.Timing.L)
	}
	if lacks := s.ground.lacks(); len(lacks) > 0 {
		fmt.Fprintf(&b, "\n%s\n", paint.text(yellow, "On loopback addresses, without root. What that lacks:"))
		for _, l := range lacks {
			fmt.Fprintf(&b, "  - %s\n", paint.text(red, l))
		}
	}
	if s.plan.own {
		b.WriteString("\nNo client asks your service: who serves is what baton says.\n")
	}
	if !c.Auto {
		node := s.plan.nodes()[len(s.plan.nodes())-1]
		fmt.Fprintf(&b, "\nIn another terminal:\n  %s status --watch --socket %s\n", typed(), s.ground.shownSocket(node))
		fmt.Fprintf(&b, "  %s explain %s --socket %s\n", typed(), s.plan.group, s.ground.shownSocket(node))
		if a := s.ground.aside(); a != "" {
			fmt.Fprintf(&b, "  %s\n", a)
		}
	}
	b.WriteByte('\n')
	s.screen.write(b.String())
}
