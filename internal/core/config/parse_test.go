package config

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"baton/internal/core/cluster"
)

var update = flag.Bool("update", false, "write the results into the golden files")

// goldenCase is one case of a golden file: "=== name", the input, "----", the result.
type goldenCase struct{ name, input, result string }

func readGolden(t *testing.T, file string) []goldenCase {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cases []goldenCase
	for _, part := range strings.Split("\n"+string(text), "\n=== ")[1:] {
		name, rest, _ := strings.Cut(part, "\n")
		input, result, found := strings.Cut(rest, "----\n")
		if !found && !*update {
			t.Fatalf("%s: case %q has no result below ----", file, name)
		}
		cases = append(cases, goldenCase{name, strings.TrimSuffix(input, "\n") + "\n", strings.TrimRight(result, "\n")})
	}
	return cases
}

// TestGolden reads every case under testdata and compares what Parse says with what is written there.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	count := 0
	for _, file := range files {
		cases := readGolden(t, file)
		count += len(cases)
		var out strings.Builder
		for _, c := range cases {
			got := outcome(c.input)
			fmt.Fprintf(&out, "=== %s\n%s----\n%s\n\n", c.name, c.input, got)
			if got != c.result && !*update {
				t.Errorf("%s: %s\n--- got\n%s\n--- want\n%s", file, c.name, got, c.result)
			}
		}
		if *update {
			if err := os.WriteFile(file, []byte(strings.TrimSuffix(out.String(), "\n")), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if count < 40 {
		t.Errorf("only %d cases were found", count)
	}
}

func outcome(input string) string {
	spec, err := Parse("cluster.yaml", []byte(input), testKinds())
	if err != nil {
		return err.Error()
	}
	return show(spec)
}

// show writes a specification in a few lines.
func show(s *cluster.Spec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster %s takeover=%v L=%v h=%v key=%s\n", s.Cluster, s.Timing.Takeover, s.Timing.L, s.Timing.H, s.KeyFile)
	for _, n := range s.Nodes {
		fmt.Fprintf(&b, "node %s %s %s\n", n.ID, n.Role, n.Address)
	}
	for _, l := range s.Links {
		fmt.Fprintf(&b, "link %s udp %d", l.Name, l.UDP.Port)
		for _, id := range slices.Sorted(maps.Keys(l.UDP.Addresses)) {
			fmt.Fprintf(&b, " %s=%s", id, l.UDP.Addresses[id])
		}
		b.WriteString("\n")
	}
	if s.Health != nil {
		fmt.Fprintf(&b, "health %d", s.Health.Port)
		for _, id := range slices.Sorted(maps.Keys(s.Health.Addresses)) {
			fmt.Fprintf(&b, " %s=%s", id, s.Health.Addresses[id])
		}
		b.WriteString("\n")
	}
	for _, g := range s.Groups {
		failover := map[cluster.FailoverPolicy]string{cluster.FailoverAutomatic: "automatic", cluster.FailoverManual: "manual"}[g.Failover]
		failback := "never"
		if g.Failback.Automatic {
			failback = "after " + brief(g.Failback.After)
		}
		fmt.Fprintf(&b, "group %s on %v failover=%s failback=%s restarts=%d\n", g.ID, g.Nodes, failover, failback, g.Restarts)
		if g.Reach.None || len(g.Reach.Targets) > 0 {
			fmt.Fprintf(&b, "  reach %s\n", reachText(g.Reach))
		}
		for _, r := range g.Resources {
			fmt.Fprintf(&b, "  %s %s %s front=%v start=%v stop=%v guards=%v%v\n", r.ID, r.Kind, r.Depth, r.Front, r.StartTimeout, r.StopTimeout, r.Addresses, r.Ports)
			for _, f := range slices.Sorted(maps.Keys(r.Fields)) {
				fmt.Fprintf(&b, "    %s: %s\n", f, showValue(r.Fields[f]))
			}
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

func showValue(v any) string {
	switch v := v.(type) {
	case []string:
		return fmt.Sprintf("%q", v)
	case string:
		return fmt.Sprintf("%q", v)
	}
	return fmt.Sprintf("%v", v)
}

// TestNoText covers what a golden file can't hold.
func TestNoText(t *testing.T) {
	head := "cluster: web\n"
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "the file is empty"},
		{"blank", " \n\n", "the file is empty"},
		{"comments", "# nothing\n", "nothing but comments"},
		{"not UTF-8", head + "key_file: /\xff\n", ":2:1: this line is not UTF-8"},
		{"UTF-16", "\xff\xfec\x00l\x00", "not UTF-8"},
		{"byte order mark", "\uFEFF" + head, "byte order mark"},
		{"control character", head + "key_file: /a\x00b\n", ":2:13: a control character (U+0000)"},
		{"lone carriage return", "cluster: web\rtakeover: 3s\n", "a control character (U+000D)"},
		{"too large", head + strings.Repeat("# ....................................\n", maxFile/38+1), "more than the 1048576"},
		{"too many words", "- [" + strings.Repeat("a,", 51000) + "]", "more than the 100000"},
		{"deep flow", head + "groups: " + strings.Repeat("[", 50000), "more than 32 deep"},
		{"deep dashes", strings.Repeat("- ", 30000) + "x\n", "more than 32 deep"},
		{"deep maps", deepMap(200), "more than 32 deep"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("f", []byte(c.text), testKinds())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func deepMap(depth int) string {
	var b strings.Builder
	for i := range depth {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// TestErrorsAreTyped shows that a caller gets at every single error, and that their number is bounded.
func TestErrorsAreTyped(t *testing.T) {
	_, err := Parse("f", []byte("cluster: Web\ntakover: 3s\n"), testKinds())
	var all Errors
	if !errors.As(err, &all) || len(all) < 3 {
		t.Fatalf("got %v, want Errors with one for the name, the key and the nodes", err)
	}
	var one *Error
	if !errors.As(err, &one) || one.File != "f" || one.SourceLine == "" {
		t.Errorf("got %+v", one)
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "k%d: 1\n", i)
	}
	_, err = Parse("f", []byte(many.String()), testKinds())
	if !errors.As(err, &all) || len(all) != maxErrors+1 || !strings.Contains(err.Error(), "more errors below") {
		t.Errorf("got %d errors", len(all))
	}
}

// TestCRLF shows that a file from another world means the same.
func TestCRLF(t *testing.T) {
	text := "cluster: web\nnodes:\n  a: { address: 10.0.0.1 }\n  b: { address: 10.0.0.2 }\n  c: { address: 10.0.0.3 }\n"
	spec, err := Parse("f", []byte(strings.ReplaceAll(text, "\n", "\r\n")), testKinds())
	if err != nil || spec.Cluster != "web" || len(spec.Nodes) != 3 {
		t.Errorf("got %+v, %v", spec, err)
	}
}

func TestSplitWords(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string // nil: refused
	}{
		{"a b  c", []string{"a", "b", "c"}},
		{" a\tb\n", []string{"a", "b"}},
		{`'a b' "c d" e\ f`, []string{"a b", "c d", "e f"}},
		{`a'b'"c"`, []string{"abc"}},
		{`'' ""`, []string{"", ""}},
		{`"a\"b\\c\d"`, []string{`a"b\c\d`}},
		{`'a\'`, []string{`a\`}},
		{`"$HOME" *`, []string{"$HOME", "*"}},
		{"a\\\nb", []string{"ab"}},
		{`'a|b' "c;d" e\&`, []string{"a|b", "c;d", "e&"}},
		{"a | b", nil},
		{"a > b", nil},
		{"a;b", nil},
		{"`a`", nil},
		{"$(a)", nil},
		{"'a", nil},
		{`"a`, nil},
		{`a\`, nil},
	} {
		got, err := splitWords(c.text)
		if (err == nil) != (c.want != nil) || !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, %v, want %q", c.text, got, err, c.want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"takover", "takeover", 1}, {"ndoes", "nodes", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3}} {
		if got := cluster.Distance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// Two groups that the nodes could not tell apart are refused, wherever they stand.
func TestGroupsWithTheSameKey(t *testing.T) {
	file := `cluster: web
nodes: { alpha: { address: 10.0.0.11 }, beta: { address: 10.0.0.12 }, gamma: { address: 10.0.5.13, role: witness } }
groups:
  first: { resources: [process: { command: /bin/a, user: a }] }
  web: { resources: [process: { command: /bin/a, user: a }] }
  shop: { resources: [process: { command: /bin/a, user: a }] }
`
	byLength := func(id cluster.GroupID) uint64 { return uint64(len(id)) }
	_, err := parseBy("cluster.yaml", []byte(file), testKinds(), byLength)
	if err != nil {
		t.Errorf("different keys: %v", err)
	}
	_, err = parseBy("cluster.yaml", []byte(strings.Replace(file, "shop:", "app:", 1)), testKinds(), byLength)
	if got := fmt.Sprint(err); !strings.Contains(got, "cluster.yaml:6:3: groups web and app: ") || !strings.Contains(got, "give one of them another name") {
		t.Errorf("two groups with the same key: %s", got)
	}
}
