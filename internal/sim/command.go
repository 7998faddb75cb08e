package sim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
)

// memoryLimit is what a simulator takes at the most before it collects garbage all the time: a storm of packets in a
// broken core must not take the machine's memory. GOMEMLIMIT sets another.
const memoryLimit = 4 << 30

// plantedHint names the only binaries that hold bugs.
const plantedHint = "only in a binary built with -tags planted"

// request is what the command line asks for.
type request struct {
	seeds                          string
	profile                        string
	first, last                    uint64
	most                           int
	trace, packets, asScript, hunt bool
	mutation                       int
	scripts                        []string
	given                          map[string]bool // the flags that were named
}

// Main runs the simulator from the command line and returns the exit code: 0 all invariants held, 1 one
// broke, the outcome is another than the script says, or ctx ended first; 2 bad usage.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	q := &request{given: map[string]bool{}}
	flags := q.flags()
	switch err := q.parse(flags, args); {
	case errors.Is(err, flag.ErrHelp):
		usage(flags, stdout)
		return 0
	case err != nil:
		return refuse(stderr, "%v", err)
	}
	debug.SetGCPercent(1600) // worlds are small and short-lived
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	opt := Options{Mutation: node.Mutation(q.mutation), Packets: q.packets, Done: ctx.Done()}
	if q.trace {
		opt.Trace = stdout
	}
	switch {
	case len(q.scripts) > 0:
		return runScripts(q.scripts, opt, stdout, stderr)
	case q.hunt:
		return huntAll(q, opt, stdout, stderr)
	case q.asScript:
		p, err := Generate(q.first, q.profile)
		if err != nil {
			return refuse(stderr, "%v", err)
		}
		fmt.Fprint(stdout, p.Script())
		return 0
	case q.trace:
		r, err := Run(q.first, q.profile, opt)
		return report(r, err, opt, stdout, stderr)
	}
	return runRange(q, opt, stdout, stderr)
}

func (q *request) flags() *flag.FlagSet {
	f := flag.NewFlagSet("simulate", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {} // usage writes it
	f.StringVar(&q.seeds, "seeds", "1..100", "a `SEED` or a range of them")
	f.StringVar(&q.profile, "profile", "mix", "which faults are drawn, by the `NAME` of one of the profiles below")
	f.IntVar(&q.most, "most", 5, "stop after `N` failures")
	f.BoolVar(&q.trace, "trace", false, "print the whole trace of a single seed, or of scripts")
	f.BoolVar(&q.packets, "packets", false, "with --trace: every packet and write, too")
	f.BoolVar(&q.asScript, "script", false, "print a single seed's plan as a script, and don't run it")
	f.IntVar(&q.mutation, "mutation", 0, "plant the bug of this `NUMBER` in the core, or with --hunt look for it alone ("+plantedHint+")")
	f.BoolVar(&q.hunt, "hunt", false, "print, for each bug that can be planted, the first seed that catches it ("+plantedHint+")")
	return f
}

// usage writes what --help tells.
func usage(flags *flag.FlagSet, to io.Writer) {
	fmt.Fprint(to, "usage: baton simulate [--seeds 1..1000] [--profile NAME] [flags]\n       baton simulate [--trace] [--packets] SCRIPT...\nflags:\n")
	flags.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		if f.DefValue != "false" && f.DefValue != "0" {
			text += " (else " + f.DefValue + ")"
		}
		fmt.Fprintf(to, "  %-18s %s\n", strings.TrimSpace("--"+f.Name+" "+value), text)
	})
	fmt.Fprintf(to, "profiles:\n%s", Profiles())
}

// flagWords puts what package flag complains of into the words of the other commands.
var flagWords = []struct {
	seen  *regexp.Regexp
	plain string
}{
	{regexp.MustCompile(`^flag provided but not defined: -(.*)$`), `unknown flag --$1`},
	{regexp.MustCompile(`^flag needs an argument: -(.*)$`), `--$1 needs a value`},
	{regexp.MustCompile(`^invalid boolean value "(.*)" for -(\w+): .*$`), `--$2 takes no value`},
	{regexp.MustCompile(`^invalid value "(.*)" for flag -(\w+): .*$`), `--$2: "$1" is no whole number`},
	{regexp.MustCompile(`^bad flag syntax: (.*)$`), `unknown flag $1`},
}

// parse reads the command line: flags and scripts in any order; what follows -- is scripts alone.
func (q *request) parse(flags *flag.FlagSet, args []string) error {
	for {
		if err := flags.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return err
			}
			text := err.Error()
			for _, w := range flagWords {
				text = w.seen.ReplaceAllString(text, w.plain)
			}
			return errors.New(text)
		}
		rest := flags.Args()
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" {
			q.scripts = append(q.scripts, rest...)
			break
		}
		if len(rest) == 0 {
			break
		}
		q.scripts, args = append(q.scripts, rest[0]), rest[1:]
	}
	flags.Visit(func(f *flag.Flag) { q.given[f.Name] = true })
	return q.check()
}

// apart lists what can't be used together; "" stands for a script. Whoever names both has something else in mind.
var apart = [][2]string{
	{"", "seeds"}, {"", "profile"}, {"", "most"}, {"", "script"}, {"", "hunt"},
	{"script", "trace"}, {"script", "packets"}, {"script", "most"}, {"script", "hunt"}, {"script", "mutation"},
	{"hunt", "trace"}, {"hunt", "packets"}, {"hunt", "most"}, {"trace", "most"},
}

// check refuses what would do nothing, or not what was meant.
func (q *request) check() (err error) {
	for _, a := range apart {
		switch {
		case !q.given[a[1]]:
		case a[0] == "" && len(q.scripts) > 0:
			return fmt.Errorf("--%s and a script (%s) can't be used together", a[1], q.scripts[0])
		case q.given[a[0]]:
			return fmt.Errorf("--%s and --%s can't be used together", a[0], a[1])
		}
	}
	for _, name := range []string{"mutation", "hunt"} {
		if q.given[name] && !cluster.Planted {
			return fmt.Errorf("--%s: %s", name, plantedHint)
		}
	}
	if q.mutation < 0 || q.mutation >= int(node.MutationCount) {
		return fmt.Errorf("--mutation: the bugs are numbered 1 to %d, 0 is none; there is no %d", node.MutationCount-1, q.mutation)
	}
	if q.most < 1 {
		return fmt.Errorf("--most: the run stops after 1 failure or more, not after %d", q.most)
	}
	if q.packets && !q.trace {
		return errors.New("--packets adds to what --trace prints: name both")
	}
	if q.first, q.last, err = seedRange(q.seeds); err != nil {
		return err
	}
	if (q.trace || q.asScript) && len(q.scripts) == 0 && q.first != q.last {
		name := "trace"
		if q.asScript {
			name = "script"
		}
		return fmt.Errorf("--%s prints a single seed, such as --seeds 7, not %s", name, q.seeds)
	}
	if _, ok := profiles[q.profile]; !ok {
		_, err = Generate(q.first, q.profile) // tells which there are
	}
	return err
}

// refuse tells what is wrong with the command line or the script.
func refuse(stderr io.Writer, format string, args ...any) int {
	fmt.Fprintf(stderr, "error: %s\nhint: baton simulate --help\n", fmt.Sprintf(format, args...))
	return 2
}

func seedRange(s string) (first, last uint64, err error) {
	a, b, found := strings.Cut(s, "..")
	if first, err = strconv.ParseUint(a, 10, 64); err == nil && found {
		last, err = strconv.ParseUint(b, 10, 64)
	}
	switch {
	case err != nil:
		return 0, 0, fmt.Errorf("%s is neither a seed nor a range of them, such as 1..100", quote(s))
	case !found:
		return first, first, nil
	case last < first:
		return 0, 0, fmt.Errorf("%q is no range of seeds: it ends before it begins", s)
	}
	return first, last, nil
}

// huntAll prints the first seed that catches each mutation, or (only not Faithful) that one, and that the
// faithful core stands.
func huntAll(q *request, opt Options, stdout, stderr io.Writer) int {
	only := opt.Mutation
	for m := node.Faithful + 1; m < node.MutationCount; m++ {
		if only != node.Faithful && m != only {
			continue
		}
		opt.Mutation = m
		seed, v, err := Hunt(q.first, q.last, q.profile, opt)
		switch {
		case opt.stopped():
			fmt.Fprintf(stdout, "stopped at mutation %d of %d\n", m, node.MutationCount-1)
			return 1
		case err != nil:
			return refuse(stderr, "%v", err)
		case v == nil:
			fmt.Fprintf(stdout, "mutation %2d: none of the seeds\n", m)
		default:
			fmt.Fprintf(stdout, "mutation %2d: seed %d, %v\n", m, seed, v)
		}
	}
	return 0
}

// runScripts runs one script after the other. All are read first: a mistake in the last costs no run of the first.
func runScripts(paths []string, opt Options, stdout, stderr io.Writer) int {
	opt.Outcome = true
	var plans []*Plan
	var wants []string
	for _, path := range paths {
		text, err := readScriptFile(path)
		if err != nil {
			return refuse(stderr, "read the script: %v", err)
		}
		p, err := Parse(text)
		if err != nil {
			return refuse(stderr, "%s: %v", path, err)
		}
		_, want, _ := cutOutcome(text)
		plans, wants = append(plans, p), append(wants, want)
	}
	worst := 0
	for i, p := range plans {
		if len(paths) > 1 {
			fmt.Fprintf(stdout, "%s:\n", paths[i])
		}
		r, err := RunPlan(p, opt)
		if err == nil {
			fmt.Fprint(stdout, r.Outcome)
		}
		code := report(r, err, opt, stdout, stderr)
		if err == nil && wants[i] != "" && (r.Violation == nil || wants[i] == r.Outcome) { // else the violation is what counts
			if wants[i] == r.Outcome {
				fmt.Fprintf(stdout, "the outcome is the one that the script says\n")
			} else {
				fmt.Fprintf(stdout, "the outcome is not the one that the script says (- is missing, + is new):\n%s", difference(wants[i], r.Outcome))
				code = max(code, 1)
			}
		}
		if worst = max(worst, code); opt.stopped() {
			if len(paths) > 1 {
				fmt.Fprintf(stdout, "stopped after %d of %d scripts\n", i, len(paths))
			}
			break
		}
	}
	return worst
}

// differenceMost is how many lines of a difference are shown.
const differenceMost = 20

// difference shows which lines stand in one of two texts alone, in their order.
func difference(want, got string) string {
	a, b := slices.Collect(strings.Lines(want)), slices.Collect(strings.Lines(got))
	var lines []string
	for len(a) > 0 || len(b) > 0 {
		i, j := 0, 0 // the nearest lines that are the same in both
	find:
		for n := range len(a) + len(b) + 1 {
			for i = max(0, n-len(b)); i <= min(n, len(a)); i++ {
				if j = n - i; i == len(a) && j == len(b) || i < len(a) && j < len(b) && a[i] == b[j] {
					break find
				}
			}
		}
		for _, l := range a[:i] {
			lines = append(lines, "- "+strings.TrimSuffix(l, "\n")+"\n")
		}
		for _, l := range b[:j] {
			lines = append(lines, "+ "+strings.TrimSuffix(l, "\n")+"\n")
		}
		a, b = a[min(i+1, len(a)):], b[min(j+1, len(b)):]
	}
	if n := len(lines) - differenceMost; n > 0 {
		lines = append(lines[:differenceMost], fmt.Sprintf("… %d more …\n", n))
	}
	return strings.Join(lines, "")
}

func report(r Result, err error, opt Options, stdout, stderr io.Writer) int {
	if errors.Is(err, errStopped) {
		fmt.Fprintf(stdout, "stopped at %v of the run\n", r.Counts.Simulated.Round(time.Millisecond))
		return 1
	}
	if err != nil {
		return refuse(stderr, "%v", err)
	}
	if r.Violation != nil {
		if opt.Trace == nil {
			fmt.Fprintf(stdout, "the end of the trace:\n%s", Tail(r.Plan, opt, 60))
		}
		fmt.Fprintln(stdout, r.Violation.Error())
		return 1
	}
	total := Counts{}
	total.init()
	total.add(&r.Counts)
	fmt.Fprintf(stdout, "all invariants held for %v; hash %016x\n%s", r.Counts.Simulated, r.Hash, total.String())
	return 0
}

func runRange(q *request, opt Options, stdout, stderr io.Writer) int {
	began := time.Now()
	total, failed, err := Range(q.first, q.last, q.profile, opt, q.most)
	if err != nil {
		return refuse(stderr, "%v", err)
	}
	took := time.Since(began)
	if opt.stopped() {
		fmt.Fprintf(stdout, "stopped after %d of %s seeds\n", total.Runs, howMany(q.first, q.last))
	}
	fmt.Fprintf(stdout, "%s%d of %d seeds failed; %v, %.0f simulated seconds per second\n", total.String(), len(failed), total.Runs,
		took.Round(time.Millisecond), total.Simulated.Seconds()/took.Seconds())
	for _, f := range failed {
		fmt.Fprintf(stdout, "seed %d: %v\n", f.Seed, f.Violation)
	}
	if opt.stopped() {
		return 1
	}
	if len(failed) == 0 {
		return 0
	}
	p, err := Generate(failed[0].Seed, q.profile)
	if err != nil {
		return 1
	}
	small, v := Shrink(p, opt)
	switch {
	case opt.stopped():
		fmt.Fprintf(stdout, "stopped while seed %d was made smaller\n", failed[0].Seed)
	case v != nil:
		fmt.Fprintf(stdout, "\nseed %d, made smaller:\n%s\n%s%v\n", failed[0].Seed, small.Script(), Tail(small, opt, 80), v)
	}
	return 1
}

// howMany is how many seeds a range has, also that of all of them, for which a number of 64 bits is too small by one.
func howMany(first, last uint64) string {
	if first == 0 && last == ^uint64(0) {
		return "18446744073709551616"
	}
	return strconv.FormatUint(last-first+1, 10)
}
