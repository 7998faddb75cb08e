package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"baton/internal/core/cluster"
)

// BadFault is a fault that can't be read, or names what does not exist.
type BadFault struct {
	Text string
	Hint string
}

func (b *BadFault) Error() string { return b.Text }

// Verbs says how faults of a forecast are written.
const Verbs = `Faults: NODE down, NODE up (or power NODE, boot NODE), kill NODE (its agent), kill GROUP on NODE (or fail NODE GROUP), ` +
	`freeze NODE, isolate NODE, cut NODE NODE [LINK], cutoneway NODE NODE [LINK], link LINK (silently; or LINK down), carrier LINK, uplink NODE, port NODE LINK (its switch port, silently), unreach NODE (what is under reach), ` +
	`loss LINK PERCENT, hangdisk NODE, slowdisk NODE TIME, wipe NODE, forget NODE (agent and run record), failstart NODE GROUP, failstop NODE GROUP.

What people ask for: switch GROUP [NODE], failback GROUP, drain NODE, undrain NODE, pause GROUP|all, resume GROUP|all, pin GROUP NODE, ` +
	`unpin GROUP, stop GROUP[/RESOURCE], start GROUP[/RESOURCE], restart GROUP[/RESOURCE], clear GROUP[/RESOURCE].

"at 5s" before one makes it come later, "for 2s" behind it ends it.`

const verbsHint = "baton plan --help lists the faults"

// foretold are the kinds of faults that a forecast knows. The others are for tests of the core alone.
var foretold = []Kind{Power, Wipe, Kill, Forget, Freeze, Cut, OneWay, Isolate, Link, Carrier, Uplink, Port, Unreach, Loss, SlowDisk, HangDisk,
	Fail, NoStart, NoStop, Switch, Failback, Pause, Resume, Pin, Unpin, Drain, Undrain, Stop, Start, Restart, Clear}

// verbs names the kinds of faults.
func verbs() string {
	all := []string{"down", "up"}
	for _, k := range foretold {
		if k != Power {
			all = append(all, k.String())
		}
	}
	return strings.Join(all, ", ")
}

// limits of a forecast's question
const (
	faultsMax = 16
	spanMax   = time.Minute // between the first fault and the end of the last
)

// question is what a forecast is asked: faults in the order of their instants, from the first one on.
type question struct {
	spec   *cluster.Spec
	links  []string
	faults []Fault
	up     []upAt // nodes that get power again
}

type upAt struct {
	at   time.Duration
	node string
}

// ask reads the faults of a forecast, separated by semicolons.
func ask(spec *cluster.Spec, text string) (*question, error) {
	q := &question{spec: spec}
	for _, l := range spec.Links {
		q.links = append(q.links, l.Name)
	}
	for _, one := range strings.Split(text, ";") {
		words := strings.Fields(one)
		if len(words) == 0 {
			continue
		}
		if err := q.read(words); err != nil {
			if b, ok := err.(*BadFault); ok {
				return nil, b
			}
			return nil, &BadFault{fmt.Sprintf("%q is no fault: %v", strings.Join(words, " "), err), verbsHint}
		}
	}
	switch n := len(q.faults) + len(q.up); {
	case n == 0:
		return nil, &BadFault{"no fault is named", `baton plan --if "alpha down", for example`}
	case n > faultsMax:
		return nil, &BadFault{fmt.Sprintf("%d faults are named, and a forecast takes %d", n, faultsMax), "ask for fewer at once"}
	}
	if q.span() > spanMax {
		return nil, &BadFault{fmt.Sprintf("the faults last %v, and a forecast reaches %v", q.span(), spanMax), "leave the times out: what is not ended stays"}
	}
	slices.SortStableFunc(q.faults, func(a, b Fault) int { return int(a.At - b.At) })
	return q, nil
}

// span is how long it takes from the first fault to the end of the last that has one.
func (q *question) span() time.Duration {
	last := time.Duration(0)
	for i := range q.faults {
		f := &q.faults[i]
		last = max(last, f.At)
		if shapes[f.Kind].lasts {
			last = max(last, f.At+f.For)
		}
	}
	for _, u := range q.up {
		last = max(last, u.at)
	}
	return last
}

// read takes the words of one fault.
func (q *question) read(words []string) error {
	at := time.Duration(0)
	if words[0] == "at" && len(words) > 2 {
		d, err := time.ParseDuration(words[1])
		if err != nil || d < 0 {
			return fmt.Errorf("%q is no length of time, such as 2s", words[1])
		}
		at, words = d, words[2:]
	}
	words = q.plainly(words)
	if words[0] == "boot" {
		if len(words) != 2 || q.spec.Node(cluster.NodeID(words[1])) == nil {
			return fmt.Errorf("boot takes a node: %s", q.nodes())
		}
		q.up = append(q.up, upAt{at, words[1]})
		return nil
	}
	if !slices.ContainsFunc(foretold, func(k Kind) bool { return k.String() == words[0] }) {
		return &BadFault{fmt.Sprintf("%q is no fault: the verbs are %s", strings.Join(words, " "), verbs()), verbsHint}
	}
	f, err := parseFault(at, words, q.links)
	if err != nil {
		return err
	}
	q.faults = append(q.faults, f)
	return q.check(&f)
}

// plainly turns what people say into the words of scripts.
func (q *question) plainly(w []string) []string {
	switch {
	case len(w) >= 2 && w[1] == "down" && slices.Contains(q.links, w[0]):
		return append([]string{"link", w[0]}, w[2:]...)
	case len(w) >= 2 && w[1] == "down":
		return append([]string{"power", w[0]}, w[2:]...)
	case len(w) == 2 && w[1] == "up":
		return []string{"boot", w[0]}
	case len(w) >= 4 && (w[0] == "kill" || w[0] == "fail") && w[2] == "on":
		return append([]string{"fail", w[3], w[1]}, w[4:]...)
	}
	return w
}

// check refuses names that do not exist.
func (q *question) check(f *Fault) error {
	for _, n := range []string{f.Node, f.Peer} {
		if n != "" && q.spec.Node(cluster.NodeID(n)) == nil {
			return fmt.Errorf("there is no node %q; the nodes are: %s", n, q.nodes())
		}
	}
	group, resource, _ := strings.Cut(f.Group, "/")
	if group == "" || group == "all" && (f.Kind == Pause || f.Kind == Resume) {
		return nil
	}
	g := q.spec.Group(cluster.GroupID(group))
	if g == nil {
		return fmt.Errorf("there is no group %q; the groups are: %s", group, q.groups())
	}
	if resource != "" && g.Resource(cluster.ResourceID(resource)) == nil {
		return fmt.Errorf("%s has no resource %q", group, resource)
	}
	if resource != "" && (f.Kind < Stop || f.Kind > Clear) {
		return fmt.Errorf("%v takes a whole group", f.Kind)
	}
	if on := cluster.NodeID(f.Node); (f.Kind == Fail || f.Kind == NoStart || f.Kind == NoStop) && g.Prefers(on) < 0 {
		return fmt.Errorf("%s never runs on %s", group, on)
	}
	return nil
}

func (q *question) nodes() string {
	var names []string
	for i := range q.spec.Nodes {
		names = append(names, string(q.spec.Nodes[i].ID))
	}
	return strings.Join(names, ", ")
}

func (q *question) groups() string {
	var names []string
	for i := range q.spec.Groups {
		names = append(names, string(q.spec.Groups[i].ID))
	}
	return strings.Join(names, ", ")
}

// put adds the faults to a plan, from an instant on. A node that gets power ends an earlier loss of it.
func (q *question) put(p *Plan, from time.Duration) {
	for _, f := range q.faults {
		f.At += from
		p.Faults = append(p.Faults, f)
	}
	for _, u := range q.up {
		for i := range p.Faults {
			f := &p.Faults[i]
			if (f.Kind == Power || f.Kind == Wipe) && f.Node == u.node && f.For == 0 && f.At <= from+u.at {
				f.For = from + u.at - f.At
			}
		}
	}
}
