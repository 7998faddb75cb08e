package sim

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"baton/internal/core/node"
)

// Options say how a plan is run.
type Options struct {
	Mutation node.Mutation   // a bug to plant
	Trace    io.Writer       // nil: none
	Packets  bool            // every packet and write stands in the trace
	Looks    bool            // somebody looks at the nodes all the time
	Outcome  bool            // the result tells what the run came to
	Only     string          // if not empty: a violation counts only if its rule begins so
	Done     <-chan struct{} // closed: the run stops where it is; nil: it doesn't
}

// errStopped tells that a run was stopped from outside: it shows nothing.
var errStopped = errors.New("stopped")

func (o *Options) stopped() bool {
	select {
	case <-o.Done:
		return true
	default:
		return false
	}
}

// Violation is a broken invariant: which, when in true time, and how.
type Violation struct {
	Rule string // "invariant 1" to "invariant 8", "assert", "panic", "loop"
	At   time.Duration
	Text string
}

func (v *Violation) Error() string { return fmt.Sprintf("%s at %v: %s", v.Rule, v.At, v.Text) }

// Counts tell what one run, or many together, have been through.
type Counts struct {
	Runs        int
	Simulated   time.Duration
	Faults      [kindCount]int
	Rules       map[string]int // decisions, by the planner's rule
	Steps       int
	Packets     int
	Lost        int
	Pieces      int // of messages that no datagram holds
	Agents      int // lives of agents
	Entries     int // committed
	Openings    int // of gates
	Moves       int // of groups
	Groups      int // that ever served
	Replies     int
	Refusals    int
	Looks       int // of an onlooker
	Torn        int // power losses that took unsynced writes
	Relics      int // times that a gate outlived its lease because its machine's clock had stood still
	Unfiltered  int // times that two had a group's address while one's gate was taken away
	Asked       int // requests of clients
	Unanswered  int
	Recorded    int           // services that began, with the outage before
	Amended     int           // outages on record that were put right
	ClientWorst time.Duration // the longest that a client got no answers
	Outages     int           // of groups, in plans that measure the takeover
	Worst       int           // the longest of them, in thousandths of the takeover
}

func (c *Counts) init() { c.Rules = map[string]int{} }

func (c *Counts) add(o *Counts) {
	c.Runs++
	c.Simulated += o.Simulated
	for k := range c.Faults {
		c.Faults[k] += o.Faults[k]
	}
	for r, n := range o.Rules {
		c.Rules[r] += n
	}
	c.Steps += o.Steps
	c.Packets += o.Packets
	c.Lost += o.Lost
	c.Pieces += o.Pieces
	c.Agents += o.Agents
	c.Entries += o.Entries
	c.Openings += o.Openings
	c.Moves += o.Moves
	c.Groups += o.Groups
	c.Replies += o.Replies
	c.Refusals += o.Refusals
	c.Torn += o.Torn
	c.Relics += o.Relics
	c.Unfiltered += o.Unfiltered
	c.Asked += o.Asked
	c.Unanswered += o.Unanswered
	c.Recorded += o.Recorded
	c.Amended += o.Amended
	c.ClientWorst = max(c.ClientWorst, o.ClientWorst)
	c.Outages += o.Outages
	c.Worst = max(c.Worst, o.Worst)
}

// String tells the totals, a line for each matter. The page on scripts says what each line means.
func (c *Counts) String() string {
	b := new(strings.Builder)
	fmt.Fprintf(b, "runs: %d, %v simulated\n", c.Runs, c.Simulated.Round(time.Second))
	fmt.Fprintf(b, "cores: %d steps, %d agents started, %d log entries committed\n", c.Steps, c.Agents, c.Entries)
	fmt.Fprintf(b, "packets: %d, %d of them lost; %d pieces of what no datagram holds\n", c.Packets, c.Lost, c.Pieces)
	fmt.Fprintf(b, "groups: %d gates opened, %d moves\n", c.Openings, c.Moves)
	fmt.Fprintf(b, "commands: %d done, %d refused\n", c.Replies, c.Refusals)
	fmt.Fprintf(b, "disks: %d power losses took writes that were not synced\n", c.Torn)
	fmt.Fprintf(b, "excused: %d times a machine served on by a clock that had stood still, %d times one without its gate beside another\n",
		c.Relics, c.Unfiltered)
	if c.Asked > 0 {
		fmt.Fprintf(b, "clients: %d requests, %d not answered, none for %v at the longest\n", c.Asked, c.Unanswered, c.ClientWorst.Round(time.Millisecond))
	}
	fmt.Fprintf(b, "records: %d outages and first services, %d of them put right later\n", c.Recorded, c.Amended)
	if c.Outages > 0 {
		fmt.Fprintf(b, "outages: %d, the longest %.1f %% of the takeover\n", c.Outages, float64(c.Worst)/10)
	}
	b.WriteString("faults:")
	none := " none"
	for k, n := range c.Faults {
		if n > 0 {
			fmt.Fprintf(b, " %v %d", Kind(k), n)
			none = ""
		}
	}
	b.WriteString(none + "\nrules:")
	if len(c.Rules) == 0 {
		b.WriteString(" none")
	}
	for _, r := range slices.Sorted(maps.Keys(c.Rules)) {
		fmt.Fprintf(b, " %s %d", r, c.Rules[r])
	}
	b.WriteString("\n")
	return b.String()
}

// Result is the outcome of one run.
type Result struct {
	Plan      *Plan
	Violation *Violation // nil: all invariants held
	Hash      uint64     // equal for equal plans
	Counts    Counts
	Outcome   string // empty unless it was asked for
}

// RunPlan runs one plan. The error tells that the plan can't be run, or that the run was stopped: it counts for nothing
// then, but for how far it came.
func RunPlan(p *Plan, opt Options) (Result, error) {
	if opt.stopped() {
		return Result{Plan: p}, errStopped
	}
	w, err := newWorld(p.spread(), opt)
	if err != nil {
		return Result{}, err
	}
	w.run()
	w.counts.Simulated = time.Duration(w.now)
	if w.stopped {
		return Result{Plan: p, Counts: w.counts}, errStopped
	}
	if w.onlooker != nil {
		w.counts.Looks = w.onlooker.seen
	}
	r := Result{Plan: p, Violation: w.broken, Hash: w.hash, Counts: w.counts}
	if w.outcome != nil {
		r.Outcome = w.outcome.text(w)
	}
	return r, nil
}

// Run makes a plan from a seed in the given profile and runs it.
func Run(seed uint64, profile string, opt Options) (Result, error) {
	p, err := Generate(seed, profile)
	if err != nil {
		return Result{}, err
	}
	return RunPlan(p, opt)
}

// Failure is a seed that broke an invariant.
type Failure struct {
	Seed      uint64
	Violation *Violation
}

// Range runs the seeds from first to last on as many goroutines as there are processors, and stops early
// once `most` of them have failed, or opt.Done says so: only runs that ended count. Failures come in the order of
// their seeds.
func Range(first, last uint64, profile string, opt Options, most int) (Counts, []Failure, error) {
	var (
		mu     sync.Mutex
		next   = first
		total  Counts
		failed []Failure
		broken error
		wait   sync.WaitGroup
	)
	total.init()
	all := first > last
	one := func() bool {
		mu.Lock()
		if all || len(failed) >= most || broken != nil {
			mu.Unlock()
			return false
		}
		seed := next
		all = seed == last // and not next > last: after the greatest number comes 0
		next++
		mu.Unlock()
		r, err := Run(seed, profile, opt)
		mu.Lock()
		defer mu.Unlock()
		if errors.Is(err, errStopped) {
			return false
		}
		if err != nil {
			broken = fmt.Errorf("seed %d: %w", seed, err)
			return false
		}
		total.add(&r.Counts)
		if r.Violation != nil {
			failed = append(failed, Failure{seed, r.Violation})
		}
		return true
	}
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for one() {
			}
		})
	}
	wait.Wait()
	slices.SortFunc(failed, func(a, b Failure) int {
		if a.Seed < b.Seed {
			return -1
		}
		return 1
	})
	return total, failed, broken
}

// Hunt returns the first seed of a range under which the planted bug breaks an invariant and the faithful
// core does not, and the violation; nil if there is none.
func Hunt(first, last uint64, profile string, opt Options) (uint64, *Violation, error) {
	for from := first; from <= last; {
		_, failed, err := Range(from, last, profile, opt, 1)
		if err != nil || len(failed) == 0 {
			return 0, nil, err
		}
		seed := failed[0].Seed
		r, err := Run(seed, profile, Options{Done: opt.Done})
		if err != nil {
			return 0, nil, err
		}
		if r.Violation == nil {
			return seed, failed[0].Violation, nil
		}
		if from = seed + 1; from == 0 {
			break
		}
	}
	return 0, nil, nil
}

// Tail returns the last lines of the plan's trace.
func Tail(p *Plan, opt Options, lines int) string {
	r := &ring{lines: make([]string, 0, lines), most: lines}
	opt.Trace = r
	if _, err := RunPlan(p, opt); err != nil {
		return err.Error()
	}
	return strings.Join(r.lines, "")
}

// ring keeps the last lines written to it.
type ring struct {
	lines []string
	most  int
}

func (r *ring) Write(b []byte) (int, error) {
	if len(r.lines) == r.most {
		copy(r.lines, r.lines[1:])
		r.lines = r.lines[:r.most-1]
	}
	r.lines = append(r.lines, string(b))
	return len(b), nil
}
