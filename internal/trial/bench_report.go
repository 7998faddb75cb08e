package trial

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/lab"
)

// Millis is a duration that prints, also in JSON, as milliseconds with two digits behind the point.
type Millis time.Duration

func (m Millis) String() string { return fmt.Sprintf("%.2f", float64(m)/float64(time.Millisecond)) }

// MarshalJSON writes a number.
func (m Millis) MarshalJSON() ([]byte, error) { return []byte(m.String()), nil }

// BenchReport is the outcome of a benchmark.
type BenchReport struct {
	Machine string      `json:"machine"`
	Began   time.Time   `json:"began"`
	Runs    int         `json:"runs"` // that count, asked of each row
	Rows    []*BenchRow `json:"rows"`
}

// BenchRow is one fault under one budget. All times are in milliseconds; those of its runs that are marked
// or broken do not count in its figures, but for Overlap.
type BenchRow struct {
	Takeover Millis       `json:"takeover"`
	Fault    string       `json:"fault"`
	Text     string       `json:"text"`
	UDP      Figures      `json:"udp"`
	TCP      Figures      `json:"tcp"`
	Overlap  Millis       `json:"dualActive"` // the longest
	Moves    int          `json:"moves"`      // of all runs that count
	Pass     bool         `json:"pass"`
	Missed   []string     `json:"missed,omitempty"` // the bars that it missed
	Trials   []BenchTrial `json:"trials"`

	wanted int
	stays  bool
	bars   bars
}

// Figures sum up the outages of a row.
type Figures struct {
	Median Millis `json:"median"`
	P95    Millis `json:"p95"` // nearest rank
	Max    Millis `json:"max"`
}

// BenchTrial is one run.
type BenchTrial struct {
	Owner       string   `json:"owner"` // before the fault
	Coordinator string   `json:"coordinator"`
	UDP         Millis   `json:"udp"`    // longest time without a reply around the fault, less the usual 1 ms
	TCP         Millis   `json:"tcp"`    // the same, of a client that connects for each request
	Later       Millis   `json:"later"`  // the same of UDP, while the node that failed came back
	Before      Millis   `json:"before"` // the same of UDP, before the fault: this machine's noise
	Overlap     Millis   `json:"dualActive"`
	Moves       int      `json:"moves"`
	Stalls      Millis   `json:"stalls"`      // the machine's own, from fault to recovery
	StallsInGap Millis   `json:"stallsInGap"` // of these, while the UDP client had no reply
	Syncs       []Millis `json:"slowSyncs,omitempty"`
	Marked      string   `json:"marked,omitempty"` // why it does not count
	Error       string   `json:"error,omitempty"`  // why there is no result

	gap  lab.Gap
	gaps []lab.Gap
}

func (t BenchTrial) String() string {
	if t.Error != "" {
		return "no result: " + t.Error
	}
	s := fmt.Sprintf("%s, coordinator %s: outage %s ms, TCP %s ms, dual-active %s ms", t.Owner, t.Coordinator, t.UDP, t.TCP, t.Overlap)
	if t.StallsInGap > 0 {
		s += fmt.Sprintf(", stalls within %s ms", t.StallsInGap)
	}
	if t.Moves > 1 {
		s += fmt.Sprintf(", moved %d times", t.Moves)
	}
	if t.Before > Millis(restartMax) {
		s += fmt.Sprintf(", before it a gap of %s ms", t.Before)
	}
	if t.Later > Millis(restartMax) {
		s += fmt.Sprintf(", later a gap of %s ms", t.Later)
	}
	if t.Marked != "" {
		s += "; marked: " + t.Marked
	}
	return s
}

// counts tells whether a run counts.
func (t *BenchTrial) counts() bool { return t.Error == "" && t.Marked == "" }

// Good counts the runs that count.
func (r *BenchRow) Good() int { return r.count(func(t *BenchTrial) bool { return t.counts() }) }

// Marked counts the runs that the machine disturbed.
func (r *BenchRow) Marked() int { return r.count(func(t *BenchTrial) bool { return t.Marked != "" }) }

// Broken counts the runs without a result.
func (r *BenchRow) Broken() int { return r.count(func(t *BenchTrial) bool { return t.Error != "" }) }

func (r *BenchRow) count(is func(*BenchTrial) bool) int {
	n := 0
	for i := range r.Trials {
		if is(&r.Trials[i]) {
			n++
		}
	}
	return n
}

// judge works out the figures and holds them against the bars.
func (r *BenchRow) judge() {
	var udp, tcp []Millis
	r.Moves, r.Overlap, r.Missed = 0, 0, nil
	for i := range r.Trials {
		t := &r.Trials[i]
		r.Overlap = max(r.Overlap, t.Overlap)
		if t.counts() {
			r.Moves += t.Moves
			udp, tcp = append(udp, t.UDP), append(tcp, t.TCP)
		}
	}
	r.UDP, r.TCP = figures(udp), figures(tcp)
	miss := func(is bool, format string, args ...any) {
		if is {
			r.Missed = append(r.Missed, fmt.Sprintf(format, args...))
		}
	}
	miss(r.Broken() > 0, "%d without a result", r.Broken())
	miss(r.Good() < r.wanted, "%d of %d runs count", r.Good(), r.wanted)
	miss(r.Overlap > 0, "dual-active")
	miss(r.bars.median > 0 && r.UDP.Median > Millis(r.bars.median), "median over %v", r.bars.median)
	miss(r.bars.max > 0 && r.UDP.Max > Millis(r.bars.max), "max over %v", r.bars.max)
	miss(r.bars != (bars{}) && r.stays && r.Moves != 0, "moved")
	r.Pass = len(r.Missed) == 0
}

func figures(of []Millis) Figures {
	n := len(of)
	if n == 0 {
		return Figures{}
	}
	slices.Sort(of)
	return Figures{Median: (of[(n-1)/2] + of[n/2]) / 2, P95: of[(95*n+99)/100-1], Max: of[n-1]}
}

// sort orders the rows by budget, the longest first, then as the faults are listed.
func (r *BenchReport) sort() {
	place := func(row *BenchRow) int {
		return slices.IndexFunc(faults, func(f fault) bool { return f.name == row.Fault })
	}
	slices.SortStableFunc(r.Rows, func(a, b *BenchRow) int {
		return cmp.Or(cmp.Compare(b.Takeover, a.Takeover), cmp.Compare(place(a), place(b)))
	})
}

// Pass tells whether no bar was missed.
func (r *BenchReport) Pass() bool {
	return !slices.ContainsFunc(r.Rows, func(row *BenchRow) bool { return !row.Pass })
}

// Print writes the report as a table, with the runs that do not count below it.
func (r *BenchReport) Print(w io.Writer) error {
	fmt.Fprintf(w, "%s\n%s; outages in ms, that clients see: UDP asks 1000 times a second, TCP connects for each request\n\n",
		r.Machine, r.Began.Format(time.RFC3339))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "takeover\tfault\truns\tUDP median\tp95\tmax\tTCP median\tp95\tmax\tdual-active\tbar\tresult")
	for _, row := range r.Rows {
		result := "pass"
		if !row.Pass {
			result = "MISSED: " + strings.Join(row.Missed, ", ")
		}
		runs := fmt.Sprint(row.Good())
		if m := row.Marked(); m > 0 {
			runs += fmt.Sprintf(" (+%d marked)", m)
		}
		fmt.Fprintf(t, "%v\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", time.Duration(row.Takeover), row.Text, runs,
			row.UDP.Median, row.UDP.P95, row.UDP.Max, row.TCP.Median, row.TCP.P95, row.TCP.Max, row.Overlap, row.bar(), result)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, row := range r.Rows {
		for i := range row.Trials {
			if !row.Trials[i].counts() {
				fmt.Fprintf(w, "\n%v, %s, run %d: %s\n", time.Duration(row.Takeover), row.Text, i+1, row.Trials[i])
			}
		}
	}
	return nil
}

// bar says what the row is held against, besides 0 ms of dual-active.
func (r *BenchRow) bar() string {
	var words []string
	if r.bars.median > 0 {
		words = append(words, fmt.Sprintf("median %v", r.bars.median))
	}
	if r.bars.max > 0 {
		words = append(words, fmt.Sprintf("max %v", r.bars.max))
	}
	if r.stays && len(words) > 0 {
		words = append(words, "0 moves")
	}
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, ", ")
}

// machine describes the machine in one line.
func machine() string {
	kernel := "Linux"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel += " " + unix.ByteSliceToString(u.Release[:])
	}
	line := fmt.Sprintf("%s, %d cores", kernel, runtime.NumCPU())
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return line
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(key) == "model name" {
			return line + ", " + strings.TrimSpace(value)
		}
	}
	return line
}
