package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

// What a cluster of many groups is held to, beside the takeover.
const (
	manyStart     = 5 * time.Second // for the programs of all groups to be started, one after the other, on a small machine
	manyAnswer    = time.Second     // of `status`, and of `apply`
	manyCPUMax    = 5.0             // percent of a core, of an idle agent
	manyMemoryMax = 150.0           // MiB
	manyBoot      = 2 * time.Minute
	manyWatch     = 5 * time.Second
	slowestShare  = 20 // of the groups, one in so many is told of with its reason
)

// ManyOptions say what to measure with many groups.
type ManyOptions struct {
	Nodes    []int         // default 3 and 7
	Groups   int           // default 500
	Takeover time.Duration // default 3 s
	Idle     time.Duration // for how long idle agents are watched; default 1 minute
	Progress io.Writer
}

// ManyReport is what was measured with many groups.
type ManyReport struct {
	Machine  string     `json:"machine"`
	Groups   int        `json:"groups"`
	Takeover Millis     `json:"takeoverMillis"`
	Rows     []ManyRow  `json:"rows"`
	Slowest  []SlowMove `json:"slowest"`
}

// ManyRow is one measure.
type ManyRow struct {
	Nodes int    `json:"nodes"`
	What  string `json:"what"`
	Value string `json:"value"`
	Bar   string `json:"bar"`
	Pass  bool   `json:"pass"`
}

// SlowMove is one of the groups that took longest to be served again, and why, by the cluster's own record.
type SlowMove struct {
	Nodes  int    `json:"nodes"`
	Group  string `json:"group"`
	Outage Millis `json:"outageMillis"` // as its client saw it
	Reason string `json:"reason"`
}

// BenchMany measures a cluster of many groups of one process and one address each, all on one node.
func BenchMany(ctx context.Context, opt ManyOptions) (report *ManyReport, err error) {
	if len(opt.Nodes) == 0 {
		opt.Nodes = []int{3, 7}
	}
	if opt.Groups == 0 {
		opt.Groups = 500
	}
	if opt.Takeover == 0 {
		opt.Takeover = 3 * time.Second
	}
	if opt.Idle == 0 {
		opt.Idle = time.Minute
	}
	if opt.Progress == nil {
		opt.Progress = io.Discard
	}
	report = &ManyReport{Machine: machine(), Groups: opt.Groups, Takeover: Millis(opt.Takeover)}
	for _, nodes := range opt.Nodes {
		b := manyBench{opt: opt, nodes: nodes, report: report}
		if err := b.run(ctx); err != nil {
			return report, fmt.Errorf("%d groups on %d nodes: %w", opt.Groups, nodes, err)
		}
	}
	return report, nil
}

type manyBench struct {
	opt    ManyOptions
	nodes  int
	report *ManyReport
	m      *Many
	asker  *Asker
}

func (b *manyBench) run(ctx context.Context) (err error) {
	if b.m, err = NewMany("bench-many", b.nodes, b.opt.Groups, b.opt.Takeover); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, within(closeLimit, "remove the lab", b.m.Close)) }()
	began := time.Now()
	watcher := b.m.Nodes[len(b.m.Nodes)-1]
	if err := b.m.AwaitAll(ctx, watcher, "n1", manyBoot); err != nil {
		return err
	}
	fmt.Fprintf(b.opt.Progress, "%d nodes: all %d groups serve after %v\n", b.nodes, b.opt.Groups, time.Since(began).Round(time.Millisecond))
	if b.asker, err = b.m.Ask(ctx); err != nil {
		return err
	}
	defer b.asker.Stop()
	if err := pause(ctx, manyWatch); err != nil {
		return err
	}
	for _, step := range []func(context.Context, string) error{b.answers, b.oneLink, b.idle, b.power} {
		if err := step(ctx, watcher); err != nil {
			return err
		}
	}
	return nil
}

// row adds a measure.
func (b *manyBench) row(pass bool, what, value, bar string) {
	b.report.Rows = append(b.report.Rows, ManyRow{b.nodes, what, value, bar, pass})
	fmt.Fprintf(b.opt.Progress, "%d nodes: %s: %s\n", b.nodes, what, value)
}

// answers measures how long commands take.
func (b *manyBench) answers(ctx context.Context, watcher string) error {
	var slowest time.Duration
	for _, n := range b.m.Nodes {
		_, took, err := b.m.Status(ctx, n)
		if err != nil {
			return err
		}
		slowest = max(slowest, took)
	}
	b.row(slowest < manyAnswer, "status, the slowest of all nodes", slowest.Round(time.Millisecond).String(), "under "+manyAnswer.String())
	next := filepath.Join(b.m.Lab.Host(watcher).Disk("/etc/baton"), "next.yaml")
	if err := os.WriteFile(next, []byte(b.m.File("another comment")), 0o644); err != nil {
		return err
	}
	out, took, err := b.m.Run(ctx, watcher, "apply", "--yes", "/etc/baton/next.yaml")
	if err != nil {
		return fmt.Errorf("apply: %w: %s", err, out)
	}
	b.row(took < manyAnswer, "apply of a comment", took.Round(time.Millisecond).String(), "under "+manyAnswer.String())
	return nil
}

// oneLink kills one of the owner's two links for a while.
func (b *manyBench) oneLink(ctx context.Context, watcher string) error {
	before, _, err := b.m.Status(ctx, watcher)
	if err != nil {
		return err
	}
	if err := b.m.Lab.CutSilent("n1", Cross); err != nil {
		return err
	}
	if err := pause(ctx, 2*b.opt.Takeover); err != nil {
		return err
	}
	if err := b.m.Lab.Heal("n1", Cross); err != nil {
		return err
	}
	after, _, err := b.m.Status(ctx, watcher)
	if err != nil {
		return err
	}
	moved := 0
	for i := range before.Groups {
		if i >= len(after.Groups) || before.Groups[i].Owner != after.Groups[i].Owner || before.Groups[i].Epoch != after.Groups[i].Epoch {
			moved++
		}
	}
	b.row(moved == 0, "one of two links of the owner dead", fmt.Sprintf("%d groups moved", moved), "none")
	return nil
}

// idle measures what the agents cost while nothing happens.
func (b *manyBench) idle(ctx context.Context, _ string) error {
	b.asker.Pause(true)
	defer b.asker.Pause(false)
	before := make([]uint64, len(b.m.Nodes))
	began := time.Now()
	for i, n := range b.m.Nodes {
		ticks, err := cpuTicks(b.m.agents[n].Process().PID())
		if err != nil {
			return err
		}
		before[i] = ticks
	}
	if err := pause(ctx, b.opt.Idle); err != nil {
		return err
	}
	var cpu, memory float64
	for i, n := range b.m.Nodes {
		pid := b.m.agents[n].Process().PID()
		ticks, err := cpuTicks(pid)
		if err != nil {
			return fmt.Errorf("%s's agent has not run all the time: %w", n, err)
		}
		size, err := resident(pid)
		if err != nil {
			return err
		}
		cpu = max(cpu, 100*float64(ticks-before[i])/ticksPerSec/time.Since(began).Seconds())
		memory = max(memory, size)
	}
	b.row(cpu < manyCPUMax, "idle agent, the busiest", fmt.Sprintf("%.1f %% of a core", cpu), fmt.Sprintf("under %v %%", manyCPUMax))
	b.row(memory < manyMemoryMax, "idle agent, the largest", fmt.Sprintf("%.0f MiB", memory), fmt.Sprintf("under %v MiB", manyMemoryMax))
	return nil
}

// power takes the power of the node that serves all groups.
func (b *manyBench) power(ctx context.Context, watcher string) error {
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	b.asker.Forget()
	if err := within(hostLimit, "power off n1", b.m.Lab.Host("n1").PowerOff); err != nil {
		return err
	}
	if err := b.m.AwaitAll(ctx, watcher, "n2", manyBoot); err != nil {
		return err
	}
	if err := pause(ctx, time.Second); err != nil { // the last ones answer
		return err
	}
	phases, err := b.phases(ctx, watcher)
	if err != nil {
		return err
	}
	moves := make([]SlowMove, 0, b.opt.Groups)
	for g := range b.opt.Groups {
		name := b.m.Group(g)
		moves = append(moves, SlowMove{b.nodes, name, Millis(b.asker.Gap(b.m.Address(g))), phases[name]})
	}
	slices.SortFunc(moves, func(x, y SlowMove) int { return int(y.Outage - x.Outage) })
	bar := b.opt.Takeover + manyStart + askEvery
	worst, median := time.Duration(moves[0].Outage), time.Duration(moves[len(moves)/2].Outage)
	b.row(worst <= bar, "power loss of the owner, the longest outage", worst.Round(time.Millisecond).String(),
		fmt.Sprintf("%v and %v for all starts", b.opt.Takeover, manyStart))
	b.row(true, "power loss of the owner, the median outage", median.Round(time.Millisecond).String(), "")
	b.report.Slowest = append(b.report.Slowest, moves[:max(1, len(moves)/slowestShare)]...)
	return nil
}

// phases returns, by group, what the last outage on record was made of.
func (b *manyBench) phases(ctx context.Context, node string) (map[string]string, error) {
	out, _, err := b.m.Run(ctx, node, "history", "--json", "-n", "0")
	if err != nil {
		return nil, fmt.Errorf("history: %w: %s", err, out)
	}
	var h struct {
		Lines []struct {
			Served []struct {
				Group                              string
				Detected, Decided, Waited, Started string
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &h); err != nil {
		return nil, err
	}
	reasons := make(map[string]string)
	for _, l := range h.Lines {
		for _, s := range l.Served {
			if s.Detected != "" || s.Started != "" {
				reasons[s.Group] = fmt.Sprintf("detected %s, decided %s, waited %s, started %s", s.Detected, s.Decided, s.Waited, s.Started)
			}
		}
	}
	return reasons, nil
}

// Pass tells whether every bar was held.
func (r *ManyReport) Pass() bool {
	return !slices.ContainsFunc(r.Rows, func(row ManyRow) bool { return !row.Pass })
}

// Print writes the report as a table.
func (r *ManyReport) Print(w io.Writer) error {
	fmt.Fprintf(w, "%s; takeover %v, %d groups of one process and one address each, all on one node, cold standby\n\n", r.Machine, time.Duration(r.Takeover), r.Groups)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "nodes\tmeasured\tvalue\tbar\tresult")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\n", row.Nodes, row.What, row.Value, row.Bar, verdict(row.Pass))
	}
	if err := t.Flush(); err != nil || len(r.Slowest) == 0 {
		return err
	}
	fmt.Fprintf(w, "\nthe slowest 5 %%, by their clients (asked each %v), and their reason by the cluster's record:\n", askEvery)
	for _, s := range r.Slowest {
		fmt.Fprintf(w, "%d nodes  %s  %v: %s\n", s.Nodes, s.Group[len(s.Group)-4:], time.Duration(s.Outage).Round(time.Millisecond), s.Reason)
	}
	return nil
}
