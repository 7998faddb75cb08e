package app

import (
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"baton/internal/trial"
)

// benchCmd is `baton bench`.
type benchCmd struct {
	Takeover []time.Duration `help:"Takeover budgets to measure." default:"1s,250ms,100ms" placeholder:"TIMES"`
	Faults   []string        `help:"Faults to measure (default: all): power, power-coordinator, link, carrier, cut, freeze, crash, switch, restart." placeholder:"NAMES"`
	Runs     int             `help:"Runs of each that count." default:"10"`
	Logs     string          `help:"Write each run's stretch of the agents' logs to this directory." type:"path" placeholder:"DIR"`
	Idle     bool            `help:"Measure what idle agents cost instead."`
	Many     bool            `help:"Measure a cluster of many groups instead: their takeover, commands, a dead link, idle agents."`
	Groups   int             `help:"With --many: how many groups, of one process and one address each." default:"500"`
	Nodes    []int           `help:"With --many: of how many nodes, 3 to 7." default:"3,7" placeholder:"NUMBERS"`
	Minutes  float64         `help:"With --idle: how long, with all nodes up and again with one dead." default:"10"`
}

// Run measures on this machine, in network namespaces of its own, and exits with 1 where a bar is missed.
func (c *benchCmd) Run(k *console) error {
	if c.Runs < 1 || c.Minutes <= 0 {
		return fail(exitUsage, "", "there is nothing to measure in %d runs or %v minutes", c.Runs, c.Minutes)
	}
	if c.Groups < 1 || c.Groups > 500 || slices.ContainsFunc(c.Nodes, func(n int) bool { return n < 3 || n > 7 }) {
		return fail(exitUsage, "", "many groups are 1 to 500, on 3 to 7 nodes")
	}
	for _, name := range c.Faults {
		if !slices.Contains(trial.Faults(), name) {
			return fail(exitUsage, "choose of "+strings.Join(trial.Faults(), ", "), "there is no fault %q to measure", name)
		}
	}
	var report interface {
		Pass() bool
		Print(io.Writer) error
	}
	var err error
	if c.Many {
		opt := trial.ManyOptions{Nodes: c.Nodes, Groups: c.Groups, Progress: k.err}
		var r *trial.ManyReport
		if r, err = trial.BenchMany(k.ctx, opt); r != nil {
			report = r
		}
	} else if c.Idle {
		var r *trial.IdleReport
		if r, err = trial.BenchIdle(k.ctx, time.Duration(c.Minutes*float64(time.Minute)), k.err); r != nil {
			report = r
		}
	} else {
		opt := trial.BenchOptions{Takeovers: c.Takeover, Faults: c.Faults, Runs: c.Runs, Logs: c.Logs, Progress: k.err}
		var r *trial.BenchReport
		if r, err = trial.Bench(k.ctx, opt); r != nil {
			report = r
		}
	}
	if report != nil {
		print := func() error { return report.Print(k.out) }
		if k.json {
			print = func() error { return k.printJSON(report) }
		}
		err = errors.Join(err, print())
	}
	switch {
	case k.ctx.Err() != nil:
		return fail(exitFailed, "", "interrupted")
	case err != nil:
		return err
	case !report.Pass():
		return exitCode(exitFailed)
	}
	return nil
}
