package trial

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

// TestBench runs the benchmark once through a switchover and a crash. What it measures here, beside other
// tests, says nothing; that it measures, and judges, does.
func TestBench(t *testing.T) {
	var progress bytes.Buffer
	report, err := Bench(context.Background(), BenchOptions{
		Takeovers: []time.Duration{time.Second}, Faults: []string{"switch", "crash"}, Runs: 1, Logs: t.TempDir(), Progress: &progress})
	t.Log(progress.String())
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Rows) != 2 || report.Rows[0].Fault != "crash" || report.Rows[1].Fault != "switch" {
		t.Fatalf("want a row for the crash and one for the switchover, got %d: %+v", len(report.Rows), report.Rows)
	}
	for _, row := range report.Rows {
		if row.Overlap != 0 {
			t.Errorf("%s: two nodes served for %s ms", row.Fault, row.Overlap)
		}
		for i := range row.Trials {
			r := &row.Trials[i]
			if r.Error != "" || r.Moves != 1 || r.UDP <= 0 || r.TCP <= 0 || r.Owner == r.Coordinator {
				t.Errorf("%s: want one move, seen by both clients, the coordinator elsewhere; got %+v", row.Fault, r)
			}
		}
	}
	var table bytes.Buffer
	if err := report.Print(&table); err != nil || !strings.Contains(table.String(), "switchover") {
		t.Errorf("the table: %v\n%s", err, table.String())
	}
	text, err := json.Marshal(report)
	if err != nil || !json.Valid(text) {
		t.Errorf("as JSON: %v\n%s", err, text)
	}
}

// TestBenchUnknownFault: a misspelt fault must not pass as one that holds all bars.
func TestBenchUnknownFault(t *testing.T) {
	if _, err := Bench(context.Background(), BenchOptions{Faults: []string{"pwoer"}}); err == nil || !strings.Contains(err.Error(), "power") {
		t.Errorf("want an error that lists the faults, got %v", err)
	}
}

func ms(n float64) Millis { return Millis(n * float64(time.Millisecond)) }

// TestBenchJudge: what counts, and what a row is held against.
func TestBenchJudge(t *testing.T) {
	run := func(udp, overlap float64, moves int, marked, broken string) BenchTrial {
		return BenchTrial{UDP: ms(udp), TCP: ms(udp), Overlap: ms(overlap), Moves: moves, Marked: marked, Error: broken}
	}
	budget := withinBudget(time.Second)
	restart := bars{max: restartMax}
	for name, c := range map[string]struct {
		row    BenchRow
		missed string
	}{
		"good":                          {BenchRow{bars: budget, wanted: 2, Trials: []BenchTrial{run(900, 0, 1, "", ""), run(999, 0, 1, "", "")}}, ""},
		"one over":                      {BenchRow{bars: budget, wanted: 2, Trials: []BenchTrial{run(900, 0, 1, "", ""), run(1001, 0, 1, "", "")}}, "max over 1s"},
		"over, but the machine stalled": {BenchRow{bars: budget, wanted: 1, Trials: []BenchTrial{run(1001, 0, 1, "stalled", ""), run(999, 0, 1, "", "")}}, ""},
		"dual-active counts though":     {BenchRow{bars: budget, wanted: 1, Trials: []BenchTrial{run(900, 0.1, 1, "stalled", ""), run(999, 0, 1, "", "")}}, "dual-active"},
		"too few":                       {BenchRow{bars: budget, wanted: 2, Trials: []BenchTrial{run(900, 0, 1, "stalled", ""), run(999, 0, 1, "", "")}}, "1 of 2 runs count"},
		"none":                          {BenchRow{bars: budget, wanted: 1, Trials: []BenchTrial{run(0, 0, 0, "", "broke")}}, "1 without a result, 0 of 1 runs count"},
		"median":                        {BenchRow{bars: bars{median: switchMedian, max: switchMax}, wanted: 2, Trials: []BenchTrial{run(4, 0, 1, "", ""), run(8, 0, 1, "", "")}}, "median over 5ms"},
		"moved":                         {BenchRow{bars: restart, stays: true, wanted: 1, Trials: []BenchTrial{run(1, 0, 1, "", "")}}, "moved"},
		"moved, without a bar":          {BenchRow{stays: true, wanted: 1, Trials: []BenchTrial{run(1, 0, 1, "", "")}}, ""},
	} {
		c.row.judge()
		if got := strings.Join(c.row.Missed, ", "); got != c.missed || c.row.Pass != (got == "") {
			t.Errorf("%s: missed %q, want %q", name, got, c.missed)
		}
	}
	f := figures([]Millis{5, 1, 4, 2, 3, 10, 9, 8, 7, 6})
	if f.Median != 5 || f.P95 != 10 || f.Max != 10 {
		t.Errorf("figures of 1 to 10: %+v", f)
	}
}

// TestOverlapOfTwoClients: a client on the active node that is cut off sees what the one outside can't.
func TestOverlapOfTwoClients(t *testing.T) {
	reply := func(node string, epoch uint64, sent time.Duration) lab.Reply {
		return lab.Reply{Node: node, Epoch: epoch, Sent: sent, Received: sent + 1}
	}
	outside := lab.Record{Replies: []lab.Reply{reply("alpha", 1, 10), reply("beta", 2, 100)}}
	if got := overlap(outside, lab.Record{Replies: []lab.Reply{reply("alpha", 1, 12), reply("alpha", 1, 90)}}); got != 0 {
		t.Errorf("the cut-off node stopped in time, yet an overlap of %v", got)
	}
	if got := overlap(outside, lab.Record{Replies: []lab.Reply{reply("alpha", 1, 12), reply("alpha", 1, 130)}}); got != 30 {
		t.Errorf("the cut-off node served 30 too long, got %v", got)
	}
}

// TestSlowSyncs reads what agents log of them.
func TestSlowSyncs(t *testing.T) {
	log := []byte("time=2026-01-02T03:04:05.000Z level=INFO msg=gate\n" +
		"time=2026-01-02T03:04:06.000Z level=WARN msg=\"a sync was slow\" node=alpha took=7.1ms\n" +
		"time=2026-01-02T03:04:08.000Z level=WARN msg=\"a sync was slow\" node=alpha took=9ms\n")
	from := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if got := slowSyncs(log, from, from.Add(2*time.Second)); len(got) != 1 || got[0] != 7100*time.Microsecond {
		t.Errorf("want the one of 7.1 ms within the time, got %v", got)
	}
}
