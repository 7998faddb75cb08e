package app

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"baton/internal/sim"
)

// This file generates what docs/ says of the simulator, from the tables in its code.

const simDir = "internal/sim"

// simVar returns the elements of a table of the simulator, as they stand in its code.
func simVar(t *testing.T, name string, files ...*ast.File) []ast.Expr {
	t.Helper()
	if len(files) == 0 {
		files = docsParse(t, simDir)
	}
	for _, f := range files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				if v := s.(*ast.ValueSpec); v.Names[0].Name == name {
					return v.Values[0].(*ast.CompositeLit).Elts
				}
			}
		}
	}
	t.Fatalf("the simulator has no %s", name)
	return nil
}

// simField returns a field of a struct's literal; nil where it is not named.
func simField(e ast.Expr, name string) ast.Expr {
	for _, x := range e.(*ast.CompositeLit).Elts {
		if kv, ok := x.(*ast.KeyValueExpr); ok && kv.Key.(*ast.Ident).Name == name {
			return kv.Value
		}
	}
	return nil
}

func simWordDocs(table string) func(*testing.T) string {
	return func(t *testing.T) string {
		rows := [][]string{{"word", "meaning"}}
		for _, e := range simVar(t, table) {
			f := e.(*ast.CompositeLit).Elts
			word, args := docsLiteral(f[0]), docsLiteral(f[1])
			if args != "" && !strings.HasSuffix(word, "=") {
				word += " "
			}
			rows = append(rows, []string{quoted(word + args), docsSentence(docsLiteral(f[2]))})
		}
		return docsTable(rows)
	}
}

// simFaultDocs lists the faults: verb, arguments and meaning, and what ends them.
func simFaultDocs(t *testing.T) string {
	verbs, lasts, ends := map[string]string{}, map[string]bool{}, map[string]string{}
	for _, e := range simVar(t, "shapes") {
		kv := e.(*ast.KeyValueExpr)
		kind := kv.Key.(*ast.Ident).Name
		verbs[kind], lasts[kind] = docsLiteral(simField(kv.Value, "verb")), simField(kv.Value, "lasts") != nil
	}
	for _, e := range simVar(t, "ends") {
		kv := e.(*ast.KeyValueExpr)
		for _, k := range kv.Value.(*ast.CompositeLit).Elts {
			ends[k.(*ast.Ident).Name] = docsLiteral(kv.Key)
		}
	}
	faults, commands := [][]string{{"fault", "meaning", "ended by"}}, [][]string{{"command", "meaning"}}
	for _, f := range docsParse(t, simDir) {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			if id, ok := g.Specs[0].(*ast.ValueSpec).Type.(*ast.Ident); !ok || id.Name != "Kind" {
				continue
			}
			for _, s := range g.Specs[:len(g.Specs)-1] { // the last one counts
				v := s.(*ast.ValueSpec)
				kind := v.Names[0].Name
				args, text, ok := strings.Cut(strings.TrimSpace(v.Comment.Text()), ": ")
				if !ok || verbs[kind] == "" {
					t.Errorf("the comment of %s tells no arguments: %q", kind, v.Comment.Text())
				}
				usage := strings.TrimSpace(verbs[kind] + " " + args)
				if c, ok := strings.CutPrefix(text, "command"); ok {
					commands = append(commands, []string{quoted(usage), docsSentence(strings.TrimLeft(c, ":; "))})
					continue
				}
				end := ""
				if lasts[kind] {
					usage += " [for TIME]"
					end = quoted(ends[kind])
				}
				faults = append(faults, []string{quoted(usage), docsSentence(text), end})
			}
		}
	}
	if len(faults)+len(commands) != len(verbs)+2 {
		t.Errorf("%d faults and %d commands, and %d verbs", len(faults)-1, len(commands)-1, len(verbs))
	}
	return docsTable(faults) + "\nWhat people ask for, of a node whose agent runs:\n\n" + docsTable(commands)
}

func simProfileDocs(t *testing.T) string {
	rows := map[string][]string{}
	for _, e := range simVar(t, "profiles") {
		kv := e.(*ast.KeyValueExpr)
		name := docsLiteral(kv.Key)
		rows[name] = []string{quoted(name), quoted(strings.ToLower(simField(kv.Value, "goal").(*ast.Ident).Name)),
			docsSentence(docsLiteral(simField(kv.Value, "doc")))}
	}
	out := [][]string{{"profile", "goal", "what is drawn"}}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		out = append(out, rows[name])
	}
	return docsTable(out)
}

// simCatches tells what catches each planted bug, by its name, as the test of planted bugs has it.
func simCatches(t *testing.T) map[string][2]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(docsRoot, simDir, "mutation_test.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][2]string{}
	for _, e := range simVar(t, "plants", f) {
		p := e.(*ast.CompositeLit).Elts
		seed, tries, by := p[4].(*ast.BasicLit).Value, p[5].(*ast.BasicLit).Value, ""
		switch script, profile := docsLiteral(p[2]), docsLiteral(p[3]); {
		case script != "":
			by = fmt.Sprintf("[%s](../../internal/sim/testdata/%s.script)", script, script)
			if tries != "1" {
				by += ", one of " + tries + " seeds"
			}
		case tries == "1":
			by = quoted("--profile " + profile + " --seeds " + seed)
		default:
			by = quoted("--profile "+profile) + ", one of " + tries + " seeds from " + seed + " on"
		}
		out[docsLiteral(p[1])] = [2]string{by, docsLiteral(p[6])}
	}
	return out
}

// TestDocsScript: the script shown comes to the outcome shown.
func TestDocsScript(t *testing.T) {
	blocks := docsFenced.FindAllStringSubmatch(docsPages(t)["reference/scripts.md"], -1)
	path := filepath.Join(t.TempDir(), "power.script")
	if err := os.WriteFile(path, []byte(blocks[0][2]), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	code := sim.Main(t.Context(), []string{path}, &out, &errOut)
	_, want, _ := strings.Cut(strings.TrimSuffix(blocks[1][2], "...\n"), "\n")
	if code != exitDone || want == "" || !strings.HasPrefix(out.String(), want) {
		t.Errorf("exit %d; it shows\n%s\nand comes to\n%s%s", code, want, out.String(), errOut.String())
	}
}

// TestDocsTotals: the page on scripts explains each line of the totals.
func TestDocsTotals(t *testing.T) {
	page := docsPages(t)["reference/scripts.md"]
	var out, errOut bytes.Buffer
	if code := sim.Main(t.Context(), []string{"--seeds", "1..6", "--profile", "takeover"}, &out, &errOut); code != exitDone {
		t.Fatalf("exit %d: %s%s", code, out.String(), errOut.String())
	}
	for _, line := range append(strings.Split(out.String(), "\n"), "clients: ") {
		if name, _, ok := strings.Cut(line, ":"); ok && !strings.Contains(page, "\n| `"+name+"` |") {
			t.Errorf("docs/reference/scripts.md does not explain the line %q", line)
		}
	}
}

// TestDocsSimRules: the page on testing explains each rule that a run can break.
func TestDocsSimRules(t *testing.T) {
	page := docsPages(t)["internals/testing.md"]
	paths, err := filepath.Glob(filepath.Join(docsRoot, simDir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	rule := regexp.MustCompile(`\.fail\("([a-z0-9 ]+)"|\brule :?= "([a-z0-9 ]+)"`)
	found := 0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range rule.FindAllStringSubmatch(string(text), -1) {
			if name := m[1] + m[2]; !strings.HasSuffix(path, "_test.go") {
				if found++; !strings.Contains(page, "\n| `"+name+"` |") {
					t.Errorf("docs/internals/testing.md does not explain the rule %q", name)
				}
			}
		}
	}
	if found == 0 {
		t.Error("no rule found")
	}
}
