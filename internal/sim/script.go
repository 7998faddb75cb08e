package sim

import (
	"bufio"
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

// Parse reads a script, up to a line ---- after which its outcome stands. Each line is one word and its arguments, # begins a comment:
//
//	takeover 100ms
//	node alpha member 2000ppm        a machine; its clock runs 0.2 % fast
//	nodes alpha beta gamma:witness   the same, shorter
//	group web alpha beta hot manual beyond failback=1s start=50ms
//	out delta                        machines that are not in the first configuration
//	links 2, latency 100us 200us, sync 200us 900us, stalls 1s 15ms, seed 7, codec, blind, compact 10
//	clients 30s                      each group has a client, whose ARP cache holds an address for so long
//	spread 20ms                      each fault comes up to so much later, as the seed says
//	goal converge|takeover|still|safety|mend
//	at 2s power alpha for 500ms      a fault (see Kind)
//	at 3s boot alpha                 ends an earlier fault of that node: boot, relaunch, thaw, heal
//	run 5s                           every fault that has an end has ended then
//	settle 1s                        and so much later every group serves (goal converge)
func Parse(text string) (*Plan, error) {
	p := &Plan{Seed: 1, Takeover: time.Second, Links: 1, Latency: 100 * time.Microsecond, Jitter: 100 * time.Microsecond,
		SyncMin: 200 * time.Microsecond, SyncMax: 900 * time.Microsecond}
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		if lines.Text() == outcomeMark {
			break
		}
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if err := p.parseLine(words); err != nil {
			return nil, fmt.Errorf("script line %d, %q: %w", n, strings.TrimSpace(line), err)
		}
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
	slices.SortStableFunc(p.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	return p, p.check()
}

func (p *Plan) parseLine(words []string) error {
	durations := func(to ...*time.Duration) error {
		if len(words)-1 != len(to) {
			return fmt.Errorf("%s takes %d durations", words[0], len(to))
		}
		for i, d := range to {
			var err error
			if *d, err = time.ParseDuration(words[i+1]); err != nil {
				return err
			}
		}
		return nil
	}
	if len(words) == 1 && words[0] != "codec" && words[0] != "blind" {
		return fmt.Errorf("arguments are missing")
	}
	var err error
	switch words[0] {
	case "seed":
		p.Seed, err = strconv.ParseUint(words[1], 10, 64)
	case "takeover":
		err = durations(&p.Takeover)
	case "compact":
		p.Compact, err = strconv.ParseUint(words[1], 10, 64)
	case "links":
		p.Links, err = strconv.Atoi(words[1])
	case "latency":
		err = durations(&p.Latency, &p.Jitter)
	case "sync":
		err = durations(&p.SyncMin, &p.SyncMax)
	case "stalls":
		err = durations(&p.StallEvery, &p.StallMax)
	case "clients":
		err = durations(&p.Clients)
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
		i := slices.Index(goalNames, words[1])
		if i < 0 {
			return fmt.Errorf("unknown goal")
		}
		p.Goal = Goal(i)
	case "nodes":
		for _, w := range words[1:] {
			name, role, _ := strings.Cut(w, ":")
			if err := p.parseNode(name, role, ""); err != nil {
				return err
			}
		}
	case "out":
		for _, w := range words[1:] {
			p.Out = append(p.Out, cluster.NodeID(w))
		}
	case "node":
		err = p.parseNode(words[1], at(words, 2), at(words, 3))
	case "group":
		err = p.parseGroup(words[1:])
	case "at":
		err = p.parseAt(words[1:])
	default:
		return fmt.Errorf("unknown word %q", words[0])
	}
	return err
}

func at(words []string, i int) string {
	if i < len(words) {
		return words[i]
	}
	return ""
}

func (p *Plan) parseNode(name, role, ppm string) error {
	n := PlanNode{ID: cluster.NodeID(name)}
	switch role {
	case "", "member":
	case "spare":
		n.Role = cluster.Spare
	case "witness":
		n.Role = cluster.Witness
	default:
		return fmt.Errorf("unknown role %q", role)
	}
	if ppm != "" {
		v, err := strconv.ParseInt(strings.TrimSuffix(ppm, "ppm"), 10, 64)
		if err != nil {
			return err
		}
		n.PPM = v
	}
	p.Nodes = append(p.Nodes, n)
	return nil
}

func (p *Plan) parseGroup(words []string) error {
	g := PlanGroup{ID: cluster.GroupID(words[0])}
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
			d, err := time.ParseDuration(value)
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
			if p.node(cluster.NodeID(w)) < 0 {
				return fmt.Errorf("no node %q", w)
			}
			g.Nodes = append(g.Nodes, cluster.NodeID(w))
		}
	}
	p.Groups = append(p.Groups, g)
	return nil
}

// ends says which earlier faults a closing verb ends.
var ends = map[string][]Kind{
	"boot":     {Power, Wipe},
	"relaunch": {Kill, Forget},
	"thaw":     {Freeze},
	"heal": {Cut, OneWay, Isolate, Link, Carrier, Uplink, Loss, Dup, Late, Replay, SlowDisk, HangDisk, LateGate,
		NoStart, NoStop, CutTCP, MTU, Starve, FailGate, FailRecord, DiskFull, DiskError, Suspend, PauseClock, Skew, Bloat, FlapLink,
		FlapUplink, Unreadable, Lack},
}

func (p *Plan) parseAt(words []string) error {
	when, err := time.ParseDuration(words[0])
	if err != nil {
		return err
	}
	if len(words) < 2 {
		return fmt.Errorf("a verb is missing")
	}
	kinds, closing := ends[words[1]]
	if !closing {
		f, err := parseFault(when, words[1:], linkNames)
		p.Faults = append(p.Faults, f)
		return err
	}
	found := false
	for i := range p.Faults {
		f := &p.Faults[i]
		if f.For == 0 && slices.Contains(kinds, f.Kind) && (len(words) == 2 || f.Node == words[2]) {
			f.For, found = when-f.At, true
		}
	}
	if !found {
		return fmt.Errorf("there is nothing to end")
	}
	return nil
}
