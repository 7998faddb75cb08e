package config

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"baton/internal/core/cluster"
)

// changeBase is the file that the cases of testdata/changes.golden change.
const changeBase = `cluster: shop
takeover: 3s
nodes:
  alpha: { address: 10.0.0.11 }
  beta:  { address: 10.0.0.12 }
  delta: { address: 10.0.0.14 }
  gamma: { address: 10.0.0.13, role: witness }
links:
  - { name: lan, udp: { port: 7400 } }
  - { name: cross, udp: { port: 7400, addresses: { alpha: 192.168.9.1, beta: 192.168.9.2 } } }
groups:
  api:
    nodes: [beta, delta]
    resources:
      - process: { name: api, command: api --port 9000, user: api, standby: cold, ports: [9000] }
      - vip: 10.0.0.51/24
  web:
    nodes: [alpha, beta]
    resources:
      - process:
          name: httpd
          command: httpd -f
          user: www
          standby: hot
          environment: { MODE: live, TOKEN: secret }
          ready: { tcp: "localhost:80" }
      - process: { name: log, command: logger, user: www, standby: cold }
      - vip: 10.0.0.50/24
`

// changed applies the edits of a case, one "OLD ==> NEW" a line (\n is a new line), and reads who runs
// what from lines such as "web on alpha, next beta".
func changed(t *testing.T, input string) (text string, at Running) {
	t.Helper()
	text = changeBase
	at = Running{Groups: []Placement{{"api", "beta", "delta"}, {"web", "alpha", "beta"}}}
	for lines := bufio.NewScanner(strings.NewReader(input)); lines.Scan(); {
		line := lines.Text()
		old, now, edit := strings.Cut(line, " ==> ")
		if !edit {
			old, edit = strings.CutSuffix(line, " ==>")
		}
		if !edit {
			var group, owner, next string
			fmt.Sscanf(strings.ReplaceAll(line, ",", ""), "%s on %s next %s", &group, &owner, &next)
			for i := range at.Groups {
				if p := &at.Groups[i]; string(p.Group) == group {
					p.Owner, p.Next = cluster.NodeID(strings.TrimPrefix(owner, "-")), cluster.NodeID(strings.TrimPrefix(next, "-"))
				}
			}
			continue
		}
		old, now = strings.ReplaceAll(old, `\n`, "\n"), strings.ReplaceAll(now, `\n`, "\n")
		if strings.Count(text, old) == 0 {
			t.Fatalf("%q does not stand in the file", old)
		}
		text = strings.ReplaceAll(text, old, now)
	}
	return text, at
}

// TestChanges: what a change is called, what it would do, and what of it is refused.
func TestChanges(t *testing.T) {
	const file = "testdata/changes.golden"
	before, err := Parse("cluster.yaml", []byte(changeBase), testKinds())
	if err != nil {
		t.Fatal(err)
	}
	cases := readGolden(t, file)
	var out strings.Builder
	for _, c := range cases {
		text, at := changed(t, c.input)
		got := foretold(before, text, at)
		fmt.Fprintf(&out, "=== %s\n%s----\n%s\n\n", c.name, c.input, got)
		if got != c.result && !*update {
			t.Errorf("%s\n--- got\n%s\n--- want\n%s", c.name, got, c.result)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.TrimSuffix(out.String(), "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if len(cases) < 20 {
		t.Errorf("only %d cases were found", len(cases))
	}
}

func foretold(before *cluster.Spec, text string, at Running) string {
	after, err := Parse("cluster.yaml", []byte(text), testKinds())
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, line := range Diff(before, after) {
		fmt.Fprintln(&b, line)
	}
	for _, e := range Effects(before, after, at) {
		subject := string(e.Group)
		if subject == "" {
			subject = string(e.Node)
		}
		fmt.Fprintf(&b, "%-7s @%s  %s: %s\n", e.Kind, e.Node, subject, e.Text)
	}
	for _, r := range Refusals(before, after, at) {
		fmt.Fprintf(&b, "refused: %s\nhint: %s\n", r.Text, r.Hint)
	}
	return strings.TrimRight(b.String(), "\n")
}

// TestSameFile: a file is no change of itself, whatever its comments.
func TestSameFile(t *testing.T) {
	a, err := Parse("a", []byte(changeBase), testKinds())
	if err != nil {
		t.Fatal(err)
	}
	b, err := Parse("b", []byte("# a comment\n"+strings.ReplaceAll(changeBase, "takeover: 3s", "takeover: 3000ms # the same")), testKinds())
	if err != nil {
		t.Fatal(err)
	}
	if lines := Diff(a, b); len(lines) > 0 {
		t.Errorf("differs: %q", lines)
	}
	if e := Effects(a, b, Running{}); len(e) != 1 || e[0].Kind != EffectNone {
		t.Errorf("does %v", e)
	}
	if r := Refusals(a, b, Running{}); len(r) > 0 {
		t.Errorf("is refused: %v", r)
	}
}
