package resource

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// A program's output is cut below it in the middle of a line: what it prints next is not the end of that line.
func TestCutInTheMiddleOfALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	x := &output{path: path, limit: OutputLimit}
	for _, step := range []struct{ content, want string }{
		{"one\nhalf of a li", "one"}, {"two\nthr", "two"}, {"two\nthree\n", "three"}, {"", ""}, {"four\n", "four"},
	} {
		if err := os.WriteFile(path, []byte(step.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, l := range x.read(time.Now()) {
			got += l.Text
		}
		if got != step.want {
			t.Errorf("%q: read %q, not %q", step.content, got, step.want)
		}
	}
}

// Lines are asked for by their numbers: those that are no longer kept are left out, and all after them come, once.
func TestLinesByNumber(t *testing.T) {
	x := &output{group: "web", resource: "app"}
	o := &Outputs{kept: map[string]*output{outputKey("web", "app"): x}}
	const all = outputLines + 200
	for i := range all {
		x.add(OutputLine{Text: fmt.Sprint(i)})
	}
	for from, first := range map[uint64]int{0: 200, 100: 200, 200: 200, 205: 205, outputLines: outputLines, all - 1: all - 1, all: all, all + 7: all} {
		lines, next := o.Next("web", "app", from)
		if next != all || len(lines) != all-first || len(lines) > 0 && lines[0].Text != fmt.Sprint(first) {
			t.Errorf("from %d on: %d lines, the next is %d, %v", from, len(lines), next, lines[:min(1, len(lines))])
		}
	}
	if lines, next := o.Next("web", "none", 5); len(lines) != 0 || next != 5 {
		t.Errorf("of what is not kept: %v, %d", lines, next)
	}
	x.bytes = 0
	for i := range x.lines {
		x.bytes += len(x.lines[i].Text)
	}
	if sum := x.bytes; sum > outputBytes {
		t.Errorf("%d bytes are kept", sum)
	}
	for range 100 { // long ones displace many
		x.add(OutputLine{Text: string(make([]byte, OutputLineLimit))})
	}
	if kept := len(x.lines); kept != outputBytes/OutputLineLimit {
		t.Errorf("%d lines of %d bytes are kept", kept, OutputLineLimit)
	}
}

// How long an operation may take: what runs by a former description has the time that that gave it to stop, whatever is
// asked for now.
func TestLimitOfAnOperation(t *testing.T) {
	for _, c := range []struct {
		want     cluster.Want
		patience time.Duration
		depth    cluster.Depth
		limit    time.Duration
	}{
		{cluster.Want{Target: cluster.TargetStopped, Deadline: 2 * time.Second}, 0, cluster.Cold, 2 * time.Second},
		{cluster.Want{Target: cluster.TargetStopped, Deadline: 2 * time.Second}, time.Minute, cluster.Cold, time.Minute},
		{cluster.Want{Target: cluster.TargetStopped, Deadline: 2 * time.Minute}, time.Minute, cluster.Cold, 2 * time.Minute},
		{cluster.Want{Target: cluster.TargetStopped}, 0, cluster.Cold, 6 * time.Second},
		{cluster.Want{Target: cluster.TargetStopped}, time.Minute, cluster.Cold, 61 * time.Second},
		{cluster.Want{Target: cluster.TargetRunning, Deadline: 3 * time.Second}, time.Minute, cluster.Cold, 3 * time.Second},
		{cluster.Want{Target: cluster.TargetRunning, Deadline: 3 * time.Second, Restart: true}, 0, cluster.Cold, 8 * time.Second},
		{cluster.Want{Target: cluster.TargetRunning, Deadline: 3 * time.Second, Restart: true}, time.Minute, cluster.Cold, 63 * time.Second},
		{cluster.Want{Target: cluster.TargetRunning}, 0, cluster.Cold, 13 * time.Second},
		{cluster.Want{Target: cluster.TargetRunning}, 0, cluster.Hot, 8 * time.Second},
		{cluster.Want{Target: cluster.TargetRunning, Restart: true}, time.Minute, cluster.Hot, 68 * time.Second},
	} {
		w := &Worker{patience: c.patience, spec: cluster.ResourceSpec{Depth: c.depth, StartTimeout: 7 * time.Second, StopTimeout: 5 * time.Second}}
		if got := w.limit(c.want); got != c.limit {
			t.Errorf("%+v, patience %v: %v, not %v", c.want, c.patience, got, c.limit)
		}
	}
}
