package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// What an idle agent may cost.
const (
	idleCPUMax    = 1.0 // percent of a core
	idleMemoryMax = 40.0
	ticksPerSec   = 100 // USER_HZ, the unit of proc(5), the same on every Linux
)

// IdleReport is what idle agents cost.
type IdleReport struct {
	Machine string     `json:"machine"`
	Minutes float64    `json:"minutes"` // that each row covers
	Rows    []*IdleRow `json:"rows"`
}

// IdleRow is what one node's agent cost.
type IdleRow struct {
	State  string  `json:"state"` // of the cluster
	Node   string  `json:"node"`
	Does   string  `json:"does"`
	CPU    float64 `json:"cpuPercent"`  // of one core, over the whole time
	Memory float64 `json:"residentMiB"` // at its end
	Pass   bool    `json:"pass"`

	pid   int
	ticks uint64
}

// BenchIdle measures what the agents cost with a budget of 1 s, two links and one group in which nothing
// happens: for a time with all nodes up, then for as long with the standby dead.
func BenchIdle(ctx context.Context, each time.Duration, progress io.Writer) (report *IdleReport, err error) {
	b := &bench{}
	defer func() { err = errors.Join(err, b.close()) }()
	report = &IdleReport{Machine: machine(), Minutes: each.Minutes()}
	if err := b.ready(time.Second, false); err != nil {
		return nil, err
	}
	g, _, err := b.steady(ctx)
	if err != nil {
		return nil, errors.New(b.describe(err))
	}
	fmt.Fprintf(progress, "all up, %v\n", each)
	if err := b.idle(ctx, "all up", each, report); err != nil {
		return report, err
	}
	standby := otherMember(g.Owner)
	if err := b.powerOff(ctx, &run{owner: standby}); err != nil {
		return report, err
	}
	if err := pause(ctx, 5*time.Second); err != nil { // for its eviction and what follows
		return report, err
	}
	fmt.Fprintf(progress, "%s dead, %v\n", standby, each)
	return report, b.idle(ctx, standby+" dead", each, report)
}

// idle measures the agents of all nodes that are on.
func (b *bench) idle(ctx context.Context, state string, each time.Duration, report *IdleReport) error {
	s, err := b.trial.Status(Gamma)
	if err != nil {
		return errors.New(b.describe(err))
	}
	var rows []*IdleRow
	for _, name := range Nodes {
		if !b.trial.Host(name).On() {
			continue
		}
		row := &IdleRow{State: state, Node: name, Does: "stands by", pid: b.trial.Agent(name).Process().PID()}
		switch name {
		case s.Group().Owner:
			row.Does = "serves"
		case Gamma:
			row.Does = "witness"
		}
		if name == s.Coordinator {
			row.Does += ", coordinates"
		}
		if row.ticks, err = cpuTicks(row.pid); err != nil {
			return err
		}
		rows = append(rows, row)
	}
	began := time.Now()
	if err := pause(ctx, each); err != nil {
		return err
	}
	for _, row := range rows {
		ticks, err := cpuTicks(row.pid)
		if err != nil {
			return fmt.Errorf("%s's agent has not run all the time: %w", row.Node, err)
		}
		row.CPU = 100 * float64(ticks-row.ticks) / ticksPerSec / time.Since(began).Seconds()
		if row.Memory, err = resident(row.pid); err != nil {
			return err
		}
		row.Pass = row.CPU < idleCPUMax && row.Memory < idleMemoryMax
	}
	report.Rows = append(report.Rows, rows...)
	return nil
}

// cpuTicks returns user and system time of all of a process's threads (utime and stime of proc_pid_stat(5)).
func cpuTicks(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name in brackets, which may hold anything; field 3 follows the last one.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return 0, fmt.Errorf("/proc/%d/stat is not as expected: %s", pid, text)
	}
	user, err1 := strconv.ParseUint(fields[utime], 10, 64)
	system, err2 := strconv.ParseUint(fields[stime], 10, 64)
	return user + system, errors.Join(err1, err2)
}

// resident returns a process's resident memory, in MiB.
func resident(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, is := strings.CutPrefix(line, "VmRSS:"); is {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmRSS", pid)
}

// Pass tells whether every agent stayed within its limits.
func (r *IdleReport) Pass() bool {
	for _, row := range r.Rows {
		if !row.Pass {
			return false
		}
	}
	return true
}

// Print writes the report as a table.
func (r *IdleReport) Print(w io.Writer) error {
	fmt.Fprintf(w, "%s; takeover 1s, two links, one group; each over %.4g minutes\n\n", r.Machine, r.Minutes)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "cluster\tnode\tdoes\tof a core\tresident\tbar\tresult")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%.2f %%\t%.1f MiB\tunder %v %%, %v MiB\t%s\n", row.State, row.Node, row.Does, row.CPU, row.Memory,
			idleCPUMax, idleMemoryMax, verdict(row.Pass))
	}
	return t.Flush()
}

// verdict is what a table says of a bar.
func verdict(pass bool) string {
	if pass {
		return "pass"
	}
	return "MISSED"
}
