package app

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/core/wire"
	"baton/internal/io/bounded"
)

// checkCmd is `baton check`.
type checkCmd struct {
	File    string        `arg:"" optional:"" default:"/etc/baton/cluster.yaml" help:"The cluster file."`
	Node    string        `help:"This node's name in the file (default: the host's name)." placeholder:"NAME"`
	Data    string        `default:"/var/lib/baton" help:"The agent's data directory." placeholder:"DIR"`
	Measure time.Duration `default:"1s" help:"How long to look for stalls; the longer, the more the answer is worth." placeholder:"1s"`
}

// verdict is the outcome of one check.
type verdict string

const (
	pass    verdict = "pass"
	warning verdict = "warning"
	bad     verdict = "failure"
)

// finding is what one check found.
type finding struct {
	Name    string  `json:"name"` // stable
	Verdict verdict `json:"verdict"`
	Text    string  `json:"text"`
	Hint    string  `json:"hint,omitempty"`
}

// bound is a config.Bound as people and scripts read it.
type bound struct {
	Fault string `json:"fault"`
	Worst string `json:"worst"`
	Why   string `json:"why"`
}

// checkup is everything that `check` found out; its JSON form stays.
type checkup struct {
	File     string    `json:"file"`
	Node     string    `json:"node"`
	Checks   []finding `json:"checks"`
	Takeover string    `json:"takeover"` // that the file asks for
	Least    string    `json:"least"`    // that this host could keep, by what was measured
	Bounds   []bound   `json:"bounds"`
	Firewall []string  `json:"firewall"` // what must be let in

	tell func(finding) // shows a finding as soon as it is there
}

func (u *checkup) add(name string, v verdict, hint, format string, args ...any) {
	f := finding{name, v, fmt.Sprintf(format, args...), hint}
	u.Checks = append(u.Checks, f)
	u.tell(f)
}

func (u *checkup) count(v verdict) (n int) {
	for _, f := range u.Checks {
		if f.Verdict == v {
			n++
		}
	}
	return n
}

// Run checks everything, in the order in which a failure explains those that follow.
func (c *checkCmd) Run(k *console) error {
	if c.Measure <= 0 {
		return fail(exitUsage, "1s suits most, and 1m sees more", "--measure: %v is no time to look for stalls in", c.Measure)
	}
	u := &checkup{File: c.File, Checks: []finding{}, Bounds: []bound{}, Firewall: []string{}, tell: func(f finding) {
		if !k.json {
			k.finding(f)
		}
	}}
	spec := checkFile(u, c.File)
	if spec != nil {
		checkKey(u, spec.KeyFile)
		self := checkName(u, c.Node, spec)
		checkHost(u)
		m := measure(u, c.Measure, c.Data)
		checkBudget(u, spec, m)
		if self != nil {
			checkLinks(u, spec, self, k.socket)
			checkReach(u, spec, self)
			checkSight(u, spec, self)
			checkResources(u, spec, self)
			checkGroups(u, spec, self)
			checkUnits(u, spec, self)
		}
		u.Firewall = firewall(spec, self)
	}
	if k.json {
		if err := k.printJSON(u); err != nil {
			return err
		}
	} else {
		k.summary(u)
	}
	switch {
	case spec == nil:
		return exitCode(exitUsage)
	case u.count(bad) > 0:
		return exitCode(exitFailed)
	}
	return nil
}

// finding prints one finding.
func (k *console) finding(f finding) {
	c := map[verdict]colour{pass: green, warning: yellow, bad: red}[f.Verdict]
	fmt.Fprintf(k.out, "%s  %-11s %s\n", k.paint.text(c, fmt.Sprintf("%-7s", f.Verdict)), f.Name, f.Text)
	if f.Hint != "" {
		fmt.Fprintf(k.out, "         %-11s %s\n", "hint:", f.Hint)
	}
}

// summary prints what comes after the findings.
func (k *console) summary(u *checkup) {
	if len(u.Bounds) > 0 {
		fmt.Fprintf(k.out, "\nAt worst a group is away this long, its own start-up excluded (takeover %s):\n", u.Takeover)
		rows := [][]cell{heading("fault", "at worst", "why")}
		for _, b := range u.Bounds {
			rows = append(rows, []cell{{text: b.Fault}, {text: b.Worst}, {text: b.Why, colour: dim}})
		}
		k.paint.table(k.out, rows)
	}
	if u.Least != "" {
		fmt.Fprintf(k.out, "\nBy what was measured this host could keep a takeover of %s.\n", u.Least)
	}
	if len(u.Firewall) > 0 {
		fmt.Fprintln(k.out, "\nA firewall must let in (nftables, chain input):")
		for _, r := range u.Firewall {
			fmt.Fprintln(k.out, "  "+r)
		}
	}
	fmt.Fprintf(k.out, "\n%d passed, %d warnings, %d failures\n", u.count(pass), u.count(warning), u.count(bad))
}

// noFileHint is what to do where there is no cluster file.
const noFileHint = "on the first node baton init makes it, on others baton join fetches it"

// checkFile reads the cluster file. Nil: it can't be used, and nothing else can be said.
func checkFile(u *checkup, name string) *cluster.Spec {
	text, err := bounded.ReadFile(name, bounded.ClusterFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		u.add("file", bad, noFileHint+"; or name another one: baton check FILE", "%v", err)
		return nil
	case err != nil:
		u.add("file", bad, "name another one: baton check FILE", "%v", err)
		return nil
	}
	spec, err := config.Parse(name, text, Kinds())
	var wrong config.Errors
	switch {
	case errors.As(err, &wrong):
		for _, w := range wrong {
			hint := w.Hint
			shown := *w
			shown.Hint = "" // it stands in a line of its own
			u.add("file", bad, hint, "%v", &shown)
		}
		return nil
	case err != nil:
		u.add("file", bad, "", "%v", err)
		return nil
	}
	u.Takeover = spec.Timing.Takeover.String()
	u.add("file", pass, "", "%s: cluster %s, %s, %s, %s", name, spec.Cluster, counted(len(spec.Nodes), "node"), counted(len(spec.Links), "link"), counted(len(spec.Groups), "group"))
	if bytes.Contains(text, []byte("\r\n")) {
		u.add("line ends", warning, "sed -i 's/\\r$//' "+name+", on every node",
			"%s has DOS line ends (CR LF): a cluster forms only from files that are the same to the byte, and what a shell gets from it may end in CR", name)
	}
	return spec
}

// checkKey reads the cluster's key, which nobody but root may.
func checkKey(u *checkup, name string) {
	info, err := os.Stat(name)
	if err != nil {
		u.add("key", bad, "on one node: baton keygen "+name+", then copy it to the others", "%v", err)
		return
	}
	text, err := bounded.ReadFile(name, bounded.ClusterFile)
	if err != nil {
		u.add("key", bad, "run check as root", "%v", err)
		return
	}
	if _, err := wire.ParseKeys(string(text)); err != nil {
		u.add("key", bad, "copy it again from a node that works", "%s: %v", name, err)
		return
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		u.add("key", bad, "chmod 600 "+name, "%s has mode %04o: others can read it, and whoever has it can speak for any node", name, mode)
		return
	}
	u.add("key", pass, "", "%s", name)
}

// checkName finds this host in the file.
func checkName(u *checkup, name string, spec *cluster.Spec) *cluster.NodeSpec {
	id, err := nodeName(name, spec)
	if err != nil {
		u.add("node", bad, "baton check --node NAME, and the same for the agent", "%v", err)
		return nil
	}
	u.Node = string(id)
	self := spec.Node(id)
	u.add("node", pass, "", "this host is %s, a %s at %s", id, self.Role, self.Address)
	return self
}

// keygenCmd is `baton keygen`.
type keygenCmd struct {
	File string `arg:"" optional:"" help:"Where to (mode 0600); else to standard output."`
}

// Run makes a key. It never overwrites one: the nodes that have it would be cut off.
func (c *keygenCmd) Run(k *console) error {
	key, err := wire.NewKey(rand.Reader)
	if err != nil {
		return err
	}
	if c.File == "" {
		_, err := io.WriteString(k.out, wire.FormatKey(key))
		return err
	}
	if err := writeKey(c.File, wire.FormatKey(key)); err != nil {
		return err
	}
	if k.json {
		return k.printJSON(struct {
			File string `json:"file"`
		}{c.File})
	}
	fmt.Fprintf(k.out, "a new key is in %s: copy it to every node\n", c.File)
	return nil
}

// counted writes a number of things: 1 link, 2 links.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
