package sim

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
)

// memoryLimit is what a simulator takes at the most before it collects garbage all the time: a storm of packets in a
// broken core must not take the machine's memory. GOMEMLIMIT sets another.
const memoryLimit = 4 << 30

// Main runs the simulator from the command line and returns the exit code: 0 all invariants held, 1 one
// broke, 2 bad usage.
func Main(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("simulate", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	seeds := flags.String("seeds", "1..100", "a seed or a range of them")
	profile := flags.String("profile", "mix", "which faults are drawn")
	most := flags.Int("most", 5, "stop after this many failures")
	trace := flags.Bool("trace", false, "print the whole trace of a single seed or script")
	packets := flags.Bool("packets", false, "with every packet and write")
	script := flags.Bool("script", false, "print the seed's plan as a script, and don't run it")
	mutation, hunt := new(int), new(bool)
	if cluster.Planted {
		flags.IntVar(mutation, "mutation", 0, "a bug to plant, by its number in the core; with --hunt: look for this one alone")
		flags.BoolVar(hunt, "hunt", false, "print, for each bug that can be planted, the first seed that catches it")
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
		fmt.Fprintf(stdout, "usage: simulate [--seeds 1..1000] [--profile NAME] [--trace] [--packets] [SCRIPT]\n")
		flags.PrintDefaults()
		fmt.Fprintf(stdout, "profiles:\n%s", Profiles())
		return 0
	case err != nil:
		return refuse(stderr, "%v", err)
	}
	debug.SetGCPercent(1600) // worlds are small and short-lived
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	opt := Options{Mutation: node.Mutation(*mutation), Packets: *packets}
	if *trace {
		opt.Trace = stdout
	}
	if flags.NArg() > 0 {
		return runScript(flags.Arg(0), opt, stdout, stderr)
	}
	first, last, err := seedRange(*seeds)
	if err == nil {
		_, err = Generate(first, *profile)
	}
	if err == nil && *hunt {
		return huntAll(first, last, *profile, node.Mutation(*mutation), stdout, stderr)
	}
	if err == nil && *script {
		var p *Plan
		if p, err = Generate(first, *profile); err == nil {
			fmt.Fprint(stdout, p.Script())
			return 0
		}
	}
	if err != nil {
		return refuse(stderr, "%v", err)
	}
	if first == last && *trace {
		r, err := Run(first, *profile, opt)
		return report(r, err, opt, stdout, stderr)
	}
	return runRange(first, last, *profile, opt, *most, stdout, stderr)
}

// refuse tells what is wrong with the command line or the script.
func refuse(stderr io.Writer, format string, args ...any) int {
	fmt.Fprintf(stderr, "error: %s\nhint: baton simulate --help\n", fmt.Sprintf(format, args...))
	return 2
}

func seedRange(s string) (first, last uint64, err error) {
	a, b, found := strings.Cut(s, "..")
	if first, err = strconv.ParseUint(a, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("%q is neither a seed nor a range of them, such as 1..100", s)
	}
	if !found {
		return first, first, nil
	}
	if last, err = strconv.ParseUint(b, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("%q is neither a seed nor a range of them, such as 1..100", s)
	}
	return first, last, nil
}

// huntAll prints the first seed that catches each mutation, or (only not Faithful) that one, and that the
// faithful core stands.
func huntAll(first, last uint64, profile string, only node.Mutation, stdout, stderr io.Writer) int {
	for m := node.Faithful + 1; m < node.MutationCount; m++ {
		if only != node.Faithful && m != only {
			continue
		}
		seed, v, err := Hunt(first, last, profile, m)
		switch {
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

func runScript(path string, opt Options, stdout, stderr io.Writer) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return refuse(stderr, "read the script: %v", err)
	}
	p, err := Parse(string(text))
	if err != nil {
		return refuse(stderr, "%s: %v", path, err)
	}
	r, err := RunPlan(p, opt)
	return report(r, err, opt, stdout, stderr)
}

func report(r Result, err error, opt Options, stdout, stderr io.Writer) int {
	if err != nil {
		return refuse(stderr, "%v", err)
	}
	if r.Violation != nil {
		if opt.Trace == nil {
			fmt.Fprint(stdout, Tail(r.Plan, opt, 60))
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

func runRange(first, last uint64, profile string, opt Options, most int, stdout, stderr io.Writer) int {
	began := time.Now()
	total, failed, err := Range(first, last, profile, opt, most)
	if err != nil {
		return refuse(stderr, "%v", err)
	}
	took := time.Since(began)
	fmt.Fprintf(stdout, "%s%d of %d seeds failed; %v, %.0f simulated seconds per second\n", total.String(), len(failed), total.Runs,
		took.Round(time.Millisecond), total.Simulated.Seconds()/took.Seconds())
	for _, f := range failed {
		fmt.Fprintf(stdout, "seed %d: %v\n", f.Seed, f.Violation)
	}
	if len(failed) == 0 {
		return 0
	}
	p, err := Generate(failed[0].Seed, profile)
	if err != nil {
		return 1
	}
	small, v := Shrink(p, opt)
	if v != nil {
		fmt.Fprintf(stdout, "\nseed %d, made smaller:\n%s\n%s%v\n", failed[0].Seed, small.Script(), Tail(small, opt, 80), v)
	}
	return 1
}
