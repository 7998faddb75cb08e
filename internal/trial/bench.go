package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"baton/internal/lab"
)

// What a run may be disturbed by before it is marked and repeated, and how much of that is borne.
const (
	stallsMax   = 15 * time.Millisecond // the machine's own stalls between fault and recovery, summed
	markedTenth = 3                     // of ten runs, this many may be marked
	brokenMax   = 2                     // runs of one row that the harness may lose before it gives the row up
)

// Limits of a row that do not depend on the takeover budget.
const (
	crashMedian  = 20 * time.Millisecond
	switchMedian = 5 * time.Millisecond
	switchMax    = 20 * time.Millisecond
	restartMax   = 2 * time.Millisecond
	// restartFrom is the shortest budget that promises to bear a restart of the agent unseen.
	restartFrom = 250 * time.Millisecond
)

// BenchOptions say what to measure. The zero value is the whole benchmark.
type BenchOptions struct {
	Takeovers []time.Duration // default 1 s, 250 ms, 100 ms
	Faults    []string        // names or families of Faults; default all
	Runs      int             // that count, of each; default 10
	Logs      string          // directory for each run's stretch of the agents' logs; default none
	Progress  io.Writer       // default none
}

// fault is one kind of fault, and how a run with it goes.
type fault struct {
	name, family, text string
	// coordinator: the active node coordinates, too. Else another does.
	coordinator bool
	// local: a client on the active node asks as well, since it may see what those outside can't.
	local bool
	// stays: nothing may move.
	stays bool
	// bans: it leaves a ban on the node, so that the next run needs a cluster of its own.
	bans   bool
	inject func(*bench, context.Context, *run) error
	heal   func(*bench, *run) error
	bars   func(takeover time.Duration) bars
}

// bars are a row's limits; zero: none.
type bars struct{ median, max time.Duration }

func withinBudget(takeover time.Duration) bars { return bars{max: takeover} }

// faults are all kinds, in the order of their rows.
var faults = []fault{
	{name: "power", family: "power", text: "power loss, coordinator elsewhere",
		inject: (*bench).powerOff, heal: (*bench).boot, bars: withinBudget},
	{name: "power-coordinator", family: "power", text: "power loss, coordinator lost too", coordinator: true,
		inject: (*bench).powerOff, heal: (*bench).boot, bars: withinBudget},
	{name: "carrier", family: "link", text: "LAN cable pulled", local: true,
		inject: (*bench).pullCable, heal: (*bench).mend, bars: withinBudget},
	{name: "cut", family: "link", text: "all links cut silently", local: true,
		inject: (*bench).cutOff, heal: (*bench).mend, bars: withinBudget},
	{name: "freeze", family: "freeze", text: "agent frozen", local: true,
		inject: (*bench).freeze, heal: (*bench).thaw, bars: withinBudget},
	{name: "crash", family: "crash", text: "service killed, hot standby", bans: true,
		inject: (*bench).killService, bars: func(time.Duration) bars { return bars{median: crashMedian} }},
	{name: "switch", family: "switch", text: "switchover",
		inject: (*bench).switchOver, bars: func(time.Duration) bars { return bars{median: switchMedian, max: switchMax} }},
	{name: "restart", family: "restart", text: "agent killed, restarted", stays: true,
		inject: (*bench).killAgent, bars: func(t time.Duration) bars {
			if t < restartFrom {
				return bars{}
			}
			return bars{max: restartMax}
		}},
}

// Faults returns the names of the benchmark's faults, and those of their families, for help texts.
func Faults() []string {
	var names []string
	for _, f := range faults {
		for _, n := range []string{f.family, f.name} {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}

func (o *BenchOptions) complete() ([]fault, error) {
	if len(o.Takeovers) == 0 {
		o.Takeovers = []time.Duration{time.Second, 250 * time.Millisecond, 100 * time.Millisecond}
	}
	if o.Runs <= 0 {
		o.Runs = 10
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if len(o.Faults) == 0 {
		return faults, nil
	}
	for _, name := range o.Faults {
		if !slices.Contains(Faults(), name) {
			return nil, fmt.Errorf("there is no fault %q: choose of %s", name, strings.Join(Faults(), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
		return !slices.Contains(o.Faults, f.name) && !slices.Contains(o.Faults, f.family)
	}), nil
}

// runTime is what one run takes, roughly: making steady, fault, recovery, healing.
func runTime(takeover time.Duration) time.Duration { return 2*time.Second + 2*takeover }

// bench is a benchmark under way.
type bench struct {
	opt     BenchOptions
	sampler *lab.StallSampler
	trial   *Trial // nil: none now
	second  bool   // the trial has a second group
}

// Bench measures, for each takeover budget and fault, what clients see of it. It needs root. The report
// is of what was done, also where there is an error: that of a cancelled context, or of a machine that
// can't be measured on.
func Bench(ctx context.Context, opt BenchOptions) (report *BenchReport, err error) {
	chosen, err := opt.complete()
	if err != nil {
		return nil, err
	}
	b := &bench{opt: opt}
	report = &BenchReport{Machine: machine(), Began: time.Now().Truncate(time.Second), Runs: opt.Runs}
	if b.sampler, err = lab.SampleStalls(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close(), b.sampler.Stop()) }()
	var estimate time.Duration
	for _, takeover := range opt.Takeovers {
		estimate += time.Duration(len(chosen)*opt.Runs) * runTime(takeover)
	}
	fmt.Fprintf(opt.Progress, "%d runs or more, about %v\n", len(chosen)*opt.Runs*len(opt.Takeovers), estimate.Round(time.Minute/4))
	for _, takeover := range opt.Takeovers {
		for _, second := range []bool{false, true} {
			for i := range chosen {
				if chosen[i].coordinator != second {
					continue
				}
				row := b.row(ctx, takeover, &chosen[i])
				report.Rows = append(report.Rows, row)
				if ctx.Err() != nil {
					return report, ctx.Err()
				}
			}
			if err := b.close(); err != nil {
				return report, err
			}
		}
	}
	report.sort()
	return report, nil
}

// row makes all runs with one fault under one budget.
func (b *bench) row(ctx context.Context, takeover time.Duration, f *fault) *BenchRow {
	row := &BenchRow{Takeover: Millis(takeover), Fault: f.name, Text: f.text, wanted: b.opt.Runs, stays: f.stays, bars: f.bars(takeover)}
	markedMax := max(1, b.opt.Runs*markedTenth/10)
	for n := 1; row.Good() < b.opt.Runs && ctx.Err() == nil; n++ {
		r, err := b.once(ctx, takeover, f, n)
		if err != nil && ctx.Err() != nil {
			break
		}
		if err != nil {
			r.Error = b.describe(err)
			b.close() // what is left of it may be in any state; an error to remove it is no news
		}
		row.Trials = append(row.Trials, r)
		fmt.Fprintf(b.opt.Progress, "%v %s %d: %s\n", takeover, f.name, n, r)
		if row.Broken() >= brokenMax || row.Marked() > markedMax {
			break
		}
	}
	row.judge()
	return row
}

// close ends the trial under way, if there is one.
func (b *bench) close() error {
	if b.trial == nil {
		return nil
	}
	t := b.trial
	b.trial = nil
	return within(closeLimit, "remove the lab", t.Close)
}

// ready makes a trial under the budget where none is, or one without or with a second group is asked for.
func (b *bench) ready(takeover time.Duration, second bool) error {
	if b.trial != nil && b.trial.opt.Takeover == takeover.String() && b.second == second {
		return nil
	}
	if err := b.close(); err != nil {
		return err
	}
	opt := Options{Takeover: takeover.String()}
	if second {
		opt.Extra = secondGroup
	}
	t, err := New("bench", opt)
	if err != nil {
		return fmt.Errorf("make a cluster with takeover %v: %w", takeover, err)
	}
	b.trial, b.second = t, second
	return nil
}
