package sim

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"baton/internal/core/cluster"
)

// Script returns the plan as text that Parse reads.
func (p *Plan) Script() string {
	b := new(strings.Builder)
	fmt.Fprintf(b, "seed %d\ntakeover %v\ngoal %v\nlinks %d\nlatency %v %v\nsync %v %v\n",
		p.Seed, p.Takeover, p.Goal, p.Links, p.Latency, p.Jitter, p.SyncMin, p.SyncMax)
	if p.StallEvery > 0 {
		fmt.Fprintf(b, "stalls %v %v\n", p.StallEvery, p.StallMax)
	}
	if p.Codec {
		b.WriteString("codec\n")
	}
	if p.Spread > 0 {
		fmt.Fprintf(b, "spread %v\n", p.Spread)
	}
	if p.Clients > 0 {
		fmt.Fprintf(b, "clients %v\n", p.Clients)
	}
	if p.Networks != "" {
		fmt.Fprintf(b, "networks %s\n", p.Networks)
	}
	if p.Compact > 0 {
		fmt.Fprintf(b, "compact %d\n", p.Compact)
	}
	if p.Blind {
		b.WriteString("blind\n")
	}
	for _, n := range p.Nodes {
		fmt.Fprintf(b, "node %s %v %dppm\n", n.ID, n.Role, n.PPM)
	}
	for _, n := range p.Out {
		fmt.Fprintf(b, "out %s\n", n)
	}
	for _, g := range p.Groups {
		fmt.Fprintf(b, "group %s", g.ID)
		for _, n := range g.Nodes {
			fmt.Fprintf(b, " %s", n)
		}
		if g.Hot {
			b.WriteString(" hot")
		}
		if g.Beyond {
			b.WriteString(" beyond")
		}
		if g.Manual {
			b.WriteString(" manual")
		}
		if g.Back > 0 {
			fmt.Fprintf(b, " failback=%v", g.Back)
		}
		fmt.Fprintf(b, " start=%v\n", g.Start)
	}
	for i := range p.Faults {
		fmt.Fprintln(b, p.Faults[i].String())
	}
	fmt.Fprintf(b, "run %v\n", p.Run)
	if p.Settle > 0 {
		fmt.Fprintf(b, "settle %v\n", p.Settle)
	}
	if p.Tail > 0 {
		fmt.Fprintf(b, "tail %v\n", p.Tail)
	}
	return b.String()
}

// scriptWord is a word that begins a line of a script: what follows it, and what it means. The page on scripts shows
// them as they stand here.
type scriptWord struct{ name, args, doc string }

var scriptWords = []scriptWord{
	{"nodes", "NODE[:ROLE]…", "machines, each a `member`, `spare` or `witness`; without a role a member"},
	{"node", "NODE [ROLE] [RATE]", "one machine; its clock runs fast by RATE, such as `2000ppm` or `-2493ppm`"},
	{"out", "NODE…", "machines that are not in the first configuration: `at TIME apply +NODE` lets one in"},
	{"group", "GROUP NODE… [OPTION…]", "a group, and its nodes in the order of preference; without any, the script has the hot group `web` on all but witnesses"},
	{"takeover", "TIME", "the takeover of the cluster; else `1s`"},
	{"links", "NUMBER", "how many links there are, of `lan`, `cross` and `third`; else 1"},
	{"latency", "LEAST MORE", "what a packet takes: LEAST, and up to MORE beside it; else `100us 100us`"},
	{"sync", "LEAST MOST", "what a sync of a disk takes; else `200us 900us`"},
	{"stalls", "EVERY MOST", "each machine stands still about so often, and for so long at the most; else never"},
	{"clients", "TIME", "each group has a client, whose ARP cache holds an address for so long; else there is none"},
	{"networks", "links|target", "what shows that clients reach a node: the link `lan`, or a target; else nothing is judged"},
	{"compact", "NUMBER", "after so many entries a node makes a snapshot; else as the core does by itself"},
	{"codec", "", "every message is encoded and decoded on its way"},
	{"blind", "", "agents do not measure how long their syncs take"},
	{"seed", "NUMBER", "what the script leaves open follows from it: each latency, which unsynced writes survive; else 1"},
	{"spread", "TIME", "each fault comes up to so much later, as the seed says, those of one instant together"},
	{"goal", "GOAL", "what the run must show beside safety: see below; else `converge`"},
	{"at", "TIME FAULT", "a fault, or what ends one: see below"},
	{"run", "TIME", "every fault that has an end has ended then. What is simulated is more: settling and tail follow"},
	{"settle", "TIME", "goal `converge`: so long after `run` every group serves; else 3 L, twice the longest start, and 500 ms"},
	{"tail", "TIME", "how long the run goes on after `run`; else with goal `converge` the settling, 2 L and 1 s, with others not at all"},
}

// groupWords are the options of a group.
var groupWords = []scriptWord{
	{"hot", "", "its program runs on every node, out of reach; else it starts where the group comes to serve"},
	{"manual", "", "it moves on a command only"},
	{"beyond", "", "what its program does goes beyond the gate: two at once do harm"},
	{"failback=", "TIME", "it returns to its preferred node once that has been well for so long; else on a command only"},
	{"start=", "TIME", "how long its program takes to start; else no time"},
}

// scriptReader reads a script line by line.
type scriptReader struct {
	*Plan
	line int
	seen map[string]int // the line of each word that stands once
}

// cutOutcome parts a script from its outcome, and tells whether it has one.
func cutOutcome(text string) (script, outcome string, found bool) {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	if strings.HasPrefix(text, outcomeMark+"\n") {
		return "", text[len(outcomeMark)+1:], true
	}
	script, outcome, found = strings.Cut(text+"\n", "\n"+outcomeMark+"\n")
	return script, strings.TrimSuffix(outcome, "\n"), found
}

// Parse reads a script, up to a line ---- after which its outcome stands. Each line is one word (scriptWords) and its
// arguments, # begins a comment:
//
//	nodes alpha beta gamma:witness
//	group web alpha beta hot failback=1s
//	goal converge
//	at 2s power alpha for 500ms      a fault (see Kind)
//	at 3s isolate beta
//	at 4s heal beta                  ends an earlier fault of that node: boot, relaunch, thaw, heal
//	run 5s
//
// It refuses what makes no cluster, and what the rules could not judge.
func Parse(text string) (*Plan, error) {
	if !isText(text) {
		return nil, errors.New("it is no text")
	}
	p := &Plan{Seed: 1, Takeover: time.Second, Links: 1, Latency: 100 * time.Microsecond, Jitter: 100 * time.Microsecond,
		SyncMin: 200 * time.Microsecond, SyncMax: 900 * time.Microsecond}
	r := &scriptReader{Plan: p, seen: map[string]int{}}
	script, _, _ := cutOutcome(text)
	empty := true
	for line := range strings.Lines(script) {
		r.line++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		empty = false
		if err := r.parseLine(words); err != nil {
			return nil, fmt.Errorf("script line %d, %s: %w", r.line, quote(strings.TrimSpace(line)), err)
		}
	}
	switch {
	case empty:
		return nil, errors.New("it is empty; a script names nodes, faults and a length, such as: nodes alpha beta gamma / at 5s power @owner / run 12s")
	case len(p.Nodes) == 0:
		return nil, errors.New("it names no nodes, as in: nodes alpha beta gamma")
	case p.Run <= 0:
		return nil, errors.New("it has no length, as in: run 12s")
	}
	if len(p.Groups) == 0 {
		g := PlanGroup{ID: "web", Hot: true}
		for _, n := range p.Nodes {
			if n.Role != cluster.Witness {
				g.Nodes = append(g.Nodes, n.ID)
			}
		}
		p.Groups = []PlanGroup{g}
	}
	slices.SortStableFunc(p.Faults, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	if err := p.check(); err != nil {
		return nil, err
	}
	return p, r.judgeable()
}

// judgeable refuses what could be run, but would break a rule by itself.
func (r *scriptReader) judgeable() error {
	if _, err := derive(r.Takeover); err != nil {
		return err
	}
	// What follows run is time to settle: a fault in it would be judged as if it had long ended.
	for i := range r.Faults {
		if f := &r.Faults[i]; f.At > r.Run {
			return f.wrong("it comes after the end: run says %v", r.Run)
		}
	}
	measured := func(f Fault) bool { return f.Kind != Loss || r.Goal == Still }
	if (r.Goal == Takeover || r.Goal == Still) && !slices.ContainsFunc(r.Faults, measured) {
		return fmt.Errorf("script line %d: goal %v measures what follows a fault (of takeover: other than loss), and the script has none", r.seen["goal"], r.Goal)
	}
	return nil
}

// wrong says what is wrong with a fault, and in which line of a script it stands.
func (f *Fault) wrong(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if f.line > 0 {
		return fmt.Errorf("script line %d, %s: %s", f.line, quote(f.String()), text)
	}
	return fmt.Errorf("%v: %s", f, text)
}

func (r *scriptReader) parseLine(words []string) error {
	name, args := words[0], words[1:]
	for _, w := range words {
		if len(w) > wordMost {
			return fmt.Errorf("no word is as long as the one of %d bytes", len(w))
		}
	}
	i := slices.IndexFunc(scriptWords, func(w scriptWord) bool { return w.name == name })
	if i < 0 {
		return fmt.Errorf("unknown word %s", quote(name))
	}
	if want := scriptWords[i].args; len(args) == 0 && want != "" {
		return fmt.Errorf("arguments are missing: %s %s", name, want)
	}
	switch name { // those that may stand more than once
	case "nodes":
		for _, w := range args {
			node, role, _ := strings.Cut(w, ":")
			if err := r.parseNode(node, role, ""); err != nil {
				return err
			}
		}
		return nil
	case "node":
		if len(args) > 3 {
			return fmt.Errorf("unexpected %q", args[3])
		}
		return r.parseNode(args[0], at(args, 1), at(args, 2))
	case "out":
		return r.parseOut(args)
	case "group":
		return r.parseGroup(args)
	case "at":
		return r.parseAt(args)
	}
	if line := r.seen[name]; line > 0 {
		return fmt.Errorf("%s stands in line %d already", name, line)
	}
	r.seen[name] = r.line
	return r.parseOnce(name, scriptWords[i].args, args)
}

// parseOnce reads a line whose word stands once.
func (r *scriptReader) parseOnce(name, want string, args []string) (err error) {
	if len(args) != len(strings.Fields(want)) {
		return fmt.Errorf("it is written: %s", strings.TrimSpace(name+" "+want))
	}
	p := r.Plan
	durations := func(to ...*time.Duration) (err error) {
		for i, d := range to {
			if *d, err = span(args[i]); err != nil {
				return err
			}
		}
		return nil
	}
	switch name {
	case "seed":
		p.Seed, err = number(args[0])
	case "compact":
		p.Compact, err = number(args[0])
	case "links":
		var n uint64
		if n, err = number(args[0]); err == nil && (n < 1 || n > uint64(len(linkNames))) {
			err = fmt.Errorf("a plan has 1 to %d links", len(linkNames))
		}
		p.Links = int(n)
	case "takeover":
		if err = durations(&p.Takeover); err == nil {
			_, err = derive(p.Takeover)
		}
	case "latency":
		err = durations(&p.Latency, &p.Jitter)
	case "sync":
		if err = durations(&p.SyncMin, &p.SyncMax); err == nil && p.SyncMax < p.SyncMin {
			err = errors.New("the most is less than the least")
		}
	case "stalls":
		if err = durations(&p.StallEvery, &p.StallMax); err == nil && p.StallEvery < time.Millisecond {
			err = errors.New("a machine can't stall more often than each millisecond")
		}
	case "clients":
		err = durations(&p.Clients)
	case "networks":
		if p.Networks = args[0]; p.Networks != byLinks && p.Networks != byTarget {
			err = fmt.Errorf("networks: %s or %s, not %s", byLinks, byTarget, quote(args[0]))
		}
	case "spread":
		err = durations(&p.Spread)
	case "run":
		err = durations(&p.Run)
	case "settle":
		err = durations(&p.Settle)
	case "tail":
		err = durations(&p.Tail)
	case "codec":
		p.Codec = true
	case "blind":
		p.Blind = true
	case "goal":
		i := slices.Index(goalNames, args[0])
		if i < 0 {
			return fmt.Errorf("unknown goal %q; there are %s", args[0], strings.Join(goalNames, ", "))
		}
		p.Goal = Goal(i)
	}
	return err
}

func number(word string) (uint64, error) {
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is no whole number", quote(word))
	}
	return n, nil
}

func at(words []string, i int) string {
	if i < len(words) {
		return words[i]
	}
	return ""
}

func (r *scriptReader) parseNode(name, role, ppm string) error {
	n := PlanNode{ID: cluster.NodeID(name)}
	if err := checkName(name); err != nil {
		return err
	}
	if r.node(n.ID) >= 0 {
		return fmt.Errorf("there is a node %s already", name)
	}
	switch role {
	case "", "member":
	case "spare":
		n.Role = cluster.Spare
	case "witness":
		n.Role = cluster.Witness
	default:
		return fmt.Errorf("unknown role %q; there are member, spare, witness", role)
	}
	if ppm != "" {
		v, err := strconv.ParseInt(strings.TrimSuffix(ppm, "ppm"), 10, 64)
		if err != nil {
			return fmt.Errorf("%s is no rate of a clock, such as 2000ppm", quote(ppm))
		}
		if n.PPM = v; checkRate(v) != nil {
			return checkRate(v)
		}
	}
	r.Nodes = append(r.Nodes, n)
	return nil
}

func (r *scriptReader) parseOut(names []string) error {
	for _, w := range names {
		id := cluster.NodeID(w)
		switch {
		case r.node(id) < 0:
			return fmt.Errorf("no node %q above", w)
		case slices.Contains(r.Out, id):
			return fmt.Errorf("%s is out already", w)
		}
		r.Out = append(r.Out, id)
	}
	return nil
}

func (r *scriptReader) parseGroup(words []string) error {
	g := PlanGroup{ID: cluster.GroupID(words[0])}
	if err := checkName(words[0]); err != nil {
		return err
	}
	if r.group(g.ID) >= 0 {
		return fmt.Errorf("there is a group %s already", g.ID)
	}
	for _, w := range words[1:] {
		key, value, ok := strings.Cut(w, "=")
		switch {
		case w == "hot":
			g.Hot = true
		case w == "beyond":
			g.Beyond = true
		case w == "manual":
			g.Manual = true
		case ok:
			d, err := span(value)
			if err != nil {
				return err
			}
			switch key {
			case "failback":
				g.Back = d
			case "start":
				g.Start = d
			default:
				return fmt.Errorf("unknown %q", key)
			}
		default:
			id := cluster.NodeID(w)
			i := r.node(id)
			switch {
			case i < 0:
				return fmt.Errorf("no node %q above", w)
			case r.Nodes[i].Role == cluster.Witness:
				return fmt.Errorf("%s is a witness, which runs no group", w)
			case slices.Contains(g.Nodes, id):
				return fmt.Errorf("%s stands twice among its nodes", w)
			}
			g.Nodes = append(g.Nodes, id)
		}
	}
	if len(g.Nodes) == 0 {
		return fmt.Errorf("group %s has no node", g.ID)
	}
	r.Groups = append(r.Groups, g)
	return nil
}

// ends says which earlier faults a closing verb ends.
var ends = map[string][]Kind{
	"boot":     {Power, Wipe, SetBack},
	"relaunch": {Kill, Forget},
	"thaw":     {Freeze},
	"heal": {Cut, OneWay, Isolate, Link, Carrier, Uplink, Loss, Dup, Late, Replay, SlowDisk, HangDisk, LateGate,
		NoStart, NoStop, Narrow, MTU, Starve, FailGate, FailRecord, DiskFull, DiskError, Suspend, PauseClock, Skew, Bloat, FlapLink,
		FlapUplink, Unreadable, Lack, Port, PortIn, PortOut, Unreach, NoTarget, NoAnswer, Unanswered},
}

func (r *scriptReader) parseAt(words []string) error {
	when, err := span(words[0])
	if err != nil {
		return err
	}
	if len(words) < 2 {
		return fmt.Errorf("a verb is missing")
	}
	kinds, closing := ends[words[1]]
	if !closing {
		f, err := parseFault(when, words[1:], linkNames)
		f.line = r.line
		r.Faults = append(r.Faults, f)
		return err
	}
	if len(words) > 3 {
		return fmt.Errorf("unexpected %q", words[3])
	}
	found := false
	for i := range r.Faults {
		f := &r.Faults[i]
		if f.For == 0 && f.At < when && slices.Contains(kinds, f.Kind) && (len(words) == 2 || f.Node == words[2]) {
			f.For, found = when-f.At, true
		}
	}
	if !found {
		return fmt.Errorf("there is nothing to end: no such fault stands above that begins before and has no end")
	}
	return nil
}
