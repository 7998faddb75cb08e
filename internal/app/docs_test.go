package app

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/core/decide"
	"baton/internal/sim"
)

var updateDocs = flag.Bool("update", false, "write the generated parts of docs/ anew")

const (
	docsRoot = "../.."
	docsDir  = docsRoot + "/docs"
	// howToUpdate ends each complaint about a part that is out of date.
	howToUpdate = "go test ./internal/app -run TestDocs -update"
)

// generatedParts are the parts of docs/ that the code itself writes. Each stands between two comments:
// <!-- generated: NAME --> and <!-- end: NAME -->.
var generatedParts = []struct {
	file, name string
	make       func(*testing.T) string
}{
	{"reference/cluster-file.md", "keys", fileKeyDocs},
	{"reference/cluster-file.md", "kinds", kindDocs},
	{"reference/commands.md", "commands", commandDocs},
	{"reference/commands.md", "simulate", simulateDocs},
	{"reference/errors.md", "exits", exitDocs},
	{"reference/errors.md", "line", errorDocs("line")},
	{"reference/errors.md", "file", errorDocs("file")},
	{"reference/errors.md", "file-text", errorDocs("file-text")},
	{"reference/errors.md", "file-values", errorDocs("file-values")},
	{"reference/errors.md", "file-nodes", errorDocs("file-nodes")},
	{"reference/errors.md", "file-groups", errorDocs("file-groups")},
	{"reference/errors.md", "file-health", errorDocs("file-health")},
	{"reference/errors.md", "init", errorDocs("init")},
	{"reference/errors.md", "change", errorDocs("change")},
	{"reference/errors.md", "key", errorDocs("key")},
	{"reference/errors.md", "data", errorDocs("data")},
	{"reference/errors.md", "socket", errorDocs("socket")},
	{"reference/errors.md", "state", errorDocs("state")},
	{"reference/errors.md", "nodes", errorDocs("nodes")},
	{"reference/errors.md", "remote", errorDocs("remote")},
	{"reference/errors.md", "invitation", errorDocs("invitation")},
	{"reference/errors.md", "trial", errorDocs("trial")},
	{"reference/rules.md", "instructions", ruleDocs("I")},
	{"reference/rules.md", "nodes", ruleDocs("N")},
	{"reference/rules.md", "groups", ruleDocs("G")},
	{"reference/rules.md", "voters", ruleDocs("V")},
	{"reference/rules.md", "drafts", ruleDocs("D")},
	{"reference/scripts.md", "words", simWordDocs("scriptWords")},
	{"reference/scripts.md", "group-words", simWordDocs("groupWords")},
	{"reference/scripts.md", "faults", simFaultDocs},
	{"reference/scripts.md", "profiles", simProfileDocs},
	{"reference/events.md", "events", eventDocs},
	{"reference/metrics.md", "metrics", metricDocs},
	{"reference/logs.md", "keys", logKeyDocs},
	{"reference/api.md", "calls", callDocs},
	{"reference/api.md", "messages", messageDocs},
	{"reference/api.md", "roles", roleDocs},
	{"internals/core.md", "entries", entryDocs},
	{"internals/testing.md", "mutations", mutationDocs},
	{"internals/bounds.md", "readers", readerDocs},
	{"internals/timing.md", "timers", timerDocs},
	{"internals/timing.md", "bounds", boundDocs},
	{"internals/timing.md", "limits", limitDocs},
}

// TestDocs: what the documentation says of keys, commands, rules, events, the API and timers is what the
// code says.
func TestDocs(t *testing.T) {
	for _, part := range generatedParts {
		t.Run(part.file+" "+part.name, func(t *testing.T) {
			path := filepath.Join(docsDir, part.file)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			open, end := fmt.Sprintf("<!-- generated: %s -->\n", part.name), fmt.Sprintf("<!-- end: %s -->\n", part.name)
			before, rest, ok := strings.Cut(string(text), open)
			have, after, ended := strings.Cut(rest, end)
			if !ok || !ended {
				t.Fatalf("%s lacks the comments %q and %q", part.file, open, end)
			}
			want := part.make(t)
			if have == want {
				return
			}
			if !*updateDocs {
				t.Fatalf("out of date: %s\nit says:\n%s\nthe code says:\n%s", howToUpdate, have, want)
			}
			if err := os.WriteFile(path, []byte(before+open+want+end+after), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// docsTable renders a Markdown table; the first row is its head.
func docsTable(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		for k := range row {
			row[k] = strings.ReplaceAll(strings.ReplaceAll(row[k], "|", `\|`), "\n", " ")
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			b.WriteString("|" + strings.Repeat(" --- |", len(row)) + "\n")
		}
	}
	return b.String()
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// docsSentence makes a doc string a sentence.
func docsSentence(s string) string {
	if s = strings.TrimSpace(s); s == "" {
		return ""
	}
	if c := s[0]; c >= 'a' && c <= 'z' {
		s = strings.ToUpper(s[:1]) + s[1:]
	}
	if strings.HasSuffix(s, ".") || strings.HasSuffix(s, "…") {
		return s
	}
	return s + "."
}

// docsShape is the part of a JSON Schema that the cluster file's uses.
type docsShape struct {
	Type        any                  `json:"type"`
	Description string               `json:"description"`
	Properties  map[string]docsShape `json:"properties"`
	Required    []string             `json:"required"`
	Additional  json.RawMessage      `json:"additionalProperties"`
	Items       *docsShape           `json:"items"`
	Enum        []string             `json:"enum"`
	Pattern     string               `json:"pattern"`
	AnyOf       []docsShape          `json:"anyOf"`
	OneOf       []docsShape          `json:"oneOf"`
	Minimum     *int64               `json:"minimum"`
	Maximum     *int64               `json:"maximum"`
}

func fileShape(t *testing.T) docsShape {
	t.Helper()
	text, err := config.Schema(Kinds())
	if err != nil {
		t.Fatal(err)
	}
	var s docsShape
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// named returns the docsShape of the values of a map from names, or nil.
func (s docsShape) named() *docsShape {
	var out docsShape
	if len(s.Additional) == 0 || s.Additional[0] != '{' || json.Unmarshal(s.Additional, &out) != nil {
		return nil
	}
	return &out
}

// docsPatterns tell the file's patterns apart: the first that a pattern accepts names it.
var docsPatterns = []struct{ text, what string }{
	{"1.5s", "duration"}, {"10.0.0.50/24", "address/bits"}, {"10.0.0.50", "address"}, {"/etc/baton/key", "absolute path"},
	{"tcp/80", "port"}, {"alpha", "name"},
}

// what says in a few words how a value is written.
func (s docsShape) what() string {
	switch {
	case len(s.AnyOf) > 0:
		var out []string
		for _, a := range s.AnyOf {
			if w := a.what(); !slices.Contains(out, w) {
				out = append(out, w)
			}
		}
		return strings.Join(out, ", or ")
	case len(s.Enum) > 0:
		return "`" + strings.Join(s.Enum, "` `") + "`"
	case s.Pattern != "":
		for _, e := range docsPatterns {
			if regexp.MustCompile(s.Pattern).MatchString(e.text) {
				return e.what
			}
		}
		return s.Pattern
	case s.Minimum != nil && s.Maximum != nil && *s.Maximum < 1<<31:
		return fmt.Sprintf("%d to %d", *s.Minimum, *s.Maximum)
	case s.Type == "array":
		if s.Items == nil || s.Items.what() == "map" {
			return "list of maps"
		}
		return "list of " + strings.Replace(s.Items.what()+"s", "sss", "sses", 1)
	case s.Type == "object":
		if n := s.named(); n != nil {
			return "map from names to " + n.what()
		}
		return "map"
	case s.Type == "string":
		return "text"
	case s.Type == nil:
		return "map"
	}
	return fmt.Sprint(s.Type)
}

// keys returns a map's keys, required ones first.
func (s docsShape) keys() []string {
	out := slices.Sorted(maps.Keys(s.Properties))
	slices.SortStableFunc(out, func(a, b string) int {
		rank := func(k string) int {
			if slices.Contains(s.Required, k) {
				return 0
			}
			return 1
		}
		return rank(a) - rank(b)
	})
	return out
}

func fileKeyDocs(t *testing.T) string {
	var b strings.Builder
	fileShape(t).write(&b, "")
	return strings.TrimPrefix(b.String(), "\n")
}

// write writes a table for a map, and below it one for each map in it.
func (s docsShape) write(b *strings.Builder, path string) {
	for _, a := range s.AnyOf {
		a.write(b, path)
	}
	if s.Items != nil && len(s.Items.OneOf) == 0 {
		s.Items.write(b, path+"[]")
	}
	if n := s.named(); n != nil {
		n.write(b, path+".NAME")
	}
	if len(s.Properties) == 0 {
		return
	}
	title := strings.TrimPrefix(path, ".")
	if title == "" {
		title = "top level"
	}
	fmt.Fprintf(b, "\n### %s\n\n", title)
	rows := [][]string{{"key", "value", "meaning"}}
	for _, k := range s.keys() {
		p := s.Properties[k]
		name := quoted(k)
		if slices.Contains(s.Required, k) {
			name += " (required)"
		}
		rows = append(rows, []string{name, p.what(), p.Description})
	}
	b.WriteString(docsTable(rows))
	for _, k := range s.keys() {
		s.Properties[k].write(b, path+"."+k)
	}
}

func kindDocs(t *testing.T) string {
	var b strings.Builder
	resources := fileShape(t).Properties["groups"].named().Properties["resources"].Items.OneOf
	for i, k := range Kinds() {
		fmt.Fprintf(&b, "### %s\n\n%s A bare value is its `%s`. ", k.Name, k.Doc, k.Main)
		depths := make([]string, len(k.Depths))
		for d := range k.Depths {
			depths[d] = k.Depths[d].String()
		}
		depths[len(depths)-1] += " (default)"
		fmt.Fprintf(&b, "Standby: %s. Its effects go by its %s; the gate cuts them.\n\n", strings.Join(depths, " or "), k.Effects)
		rows := [][]string{{"field", "value", "default", "meaning"}}
		rows = append(rows, fieldRows("", k.Fields)...)
		for _, name := range commonFields(resources[i].Properties[k.Name], k) {
			p := commonFieldShape(resources[i].Properties[k.Name], name)
			rows = append(rows, []string{quoted(name), p.what(), "", p.Description})
		}
		b.WriteString(docsTable(rows) + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func fieldRows(prefix string, fields []cluster.FieldSpec) (rows [][]string) {
	for _, f := range fields {
		name, def := quoted(prefix+f.Name), ""
		if f.Required {
			name += " (required)"
		}
		if f.Default != nil {
			def = quoted(fmt.Sprint(f.Default))
		}
		what := string(f.Type)
		switch {
		case len(f.Choices) > 0:
			what = "`" + strings.Join(f.Choices, "` `") + "`"
		case f.Type == cluster.FieldList:
			what = "list, or a text split as a shell splits it"
		case f.Type == cluster.FieldEnv:
			what = "map from names to values"
		case f.Type == cluster.FieldPrefix:
			what = "address/bits"
		case f.Type == cluster.FieldString:
			what = "text"
		}
		if f.ByNode {
			what += ", or a map from nodes to such"
		}
		rows = append(rows, []string{name, what, def, docsSentence(f.Doc)})
		rows = append(rows, fieldRows(prefix+f.Name+".", f.Fields)...)
	}
	return rows
}

// commonFields are the fields of a resource that its kind does not name itself.
func commonFields(s docsShape, k cluster.KindSpec) (names []string) {
	for _, a := range append(s.AnyOf, s) {
		for _, name := range a.keys() {
			if !slices.ContainsFunc(k.Fields, func(f cluster.FieldSpec) bool { return f.Name == name }) {
				names = append(names, name)
			}
		}
	}
	return names
}

func commonFieldShape(s docsShape, name string) docsShape {
	for _, a := range append(s.AnyOf, s) {
		if p, ok := a.Properties[name]; ok {
			return p
		}
	}
	return docsShape{}
}

func commandModel(t *testing.T) *kong.Application {
	t.Helper()
	k, err := kong.New(new(commands), kong.Name("baton"), kong.NoDefaultHelp())
	if err != nil {
		t.Fatal(err)
	}
	return k.Model
}

func commandDocs(t *testing.T) string {
	m := commandModel(t)
	var b strings.Builder
	b.WriteString("### Flags of every command\n\n" + flagTable(m.Flags, nil))
	for _, c := range m.Children {
		commandDoc(&b, c)
	}
	return b.String()
}

// commandDoc describes a command, or the commands below it.
func commandDoc(b *strings.Builder, c *kong.Node) {
	if c.Hidden {
		return
	}
	for _, below := range c.Children {
		commandDoc(b, below)
	}
	if len(c.Children) > 0 {
		return
	}
	fmt.Fprintf(b, "\n### baton %s\n\n%s\n\n    baton %s\n", strings.TrimPrefix(c.Path(), "baton "), c.Help, strings.TrimPrefix(c.Summary(), "baton "))
	if c.Detail != "" {
		fmt.Fprintf(b, "\n%s\n", c.Detail)
	}
	if rows := flagTable(c.Flags, c.Positional); rows != "" {
		b.WriteString("\n" + rows)
	}
}

func flagTable(flags []*kong.Flag, positional []*kong.Positional) string {
	rows := [][]string{{"argument", "default", "meaning"}}
	for _, p := range positional {
		rows = append(rows, []string{quoted(p.Summary()), quoted(p.Default), p.Help})
	}
	for _, f := range flags {
		if f.Hidden {
			continue
		}
		name := "--" + f.Name
		if f.Short != 0 {
			name = fmt.Sprintf("-%c, %s", f.Short, name)
		}
		if !f.IsBool() {
			name += " " + strings.Trim(f.FormatPlaceHolder(), `"`)
		}
		help := f.Help
		if len(f.Envs) > 0 {
			help += " Environment: " + quoted(strings.Join(f.Envs, ", ")) + "."
		}
		rows = append(rows, []string{quoted(name), quoted(f.Default), help})
	}
	if len(rows) == 1 {
		return ""
	}
	return docsTable(rows)
}

func simulateDocs(t *testing.T) string {
	var out, errOut bytes.Buffer
	sim.Main(t.Context(), []string{"--help"}, &out, &errOut)
	return "```\n" + strings.ReplaceAll(out.String(), "\t", "    ") + "```\n"
}

// docsRules are the first letters of the rules that the page of rules has a table for.
const docsRules = "INGVD"

func ruleDocs(prefix string) func(*testing.T) string {
	return func(t *testing.T) string {
		rows := [][]string{{"rule", "verdict", "why"}}
		for _, r := range decide.Rules() {
			if strings.HasPrefix(r.ID, prefix) {
				rows = append(rows, []string{r.ID, string(r.Verdict), docsSentence(r.Why)})
			}
			if !strings.Contains(docsRules, r.ID[:1]) {
				t.Errorf("rule %s stands in no table of docs/reference/rules.md", r.ID)
			}
		}
		return docsTable(rows)
	}
}

// eventNotes say what an event asks of its reader. Each code of the core has one.
var eventNotes = map[string]string{
	"applied":             "An entry of the log took effect. `baton explain INDEX` shows it in full.",
	"closed":              "The gate is closed. Normal in a move; else look for `lease.lost` or `lease.taken` just before.",
	"coordinator":         "This node won an election.",
	"coordinator.lost":    "Another node coordinates, or an election follows.",
	"file.other":          "The file of this empty node is too old to be let in by. Run `baton join` anew.",
	"joining":             "An empty node is let in: it has no vote before its copy is complete.",
	"left":                "The agent ends. Start it again only after `baton join`.",
	"set-back":            "The agent puts what the data directory held aside, and its unit starts it again: it is let in like a node that lost its disk. Set no node back to a snapshot.",
	"revision":            "The configuration has changed. `baton config history` shows by whom.",
	"forming":             "Tells what forming waits for. See [what status says](../how-to.md#what-to-do-when-status-says-).",
	"forming.without":     "Somebody has said `form --without` there: that node founds the cluster with those that it hears.",
	"founded":             "The founding record is on this node's disk.",
	"founding.other":      "Stop the agent there, move its data directory away, start it again: it is let in.",
	"founding.without":    "`baton form --without` was said, and a node left out has founded the cluster as well, in vain. Move its data directory away.",
	"founding.file":       "Copy the file from a node that runs, restart the agent.",
	"founding.unreadable": "A record of another version, or damaged. Compare `baton version` of the nodes.",
	"lease.lost":          "The gate has closed by then. Look for a cut, or for voters that are down.",
	"lease.taken":         "A majority did not hear this node, or it booted anew. It gets a new number when it is heard again.",
	"lease.outlived":      "The log of this node lags: its number was evicted and a later one given. It serves again once it has read that.",
	"halted":              "The log holds what this version can't read. Bring this node up to date and start it again; its data stays.",
	"serving":             "The gate is open: clients are answered.",
	"sick":                "The disk, the run record's file system or the kernel's gate hangs or fails: look at the log before it. What this node served moves, where another can take it.",
	"silent":              "One node's opinion. A majority of them evicts (rule N02).",
	"suspended":           "The machine slept. What it serves answers again once a majority has renewed the lease. Keep servers from suspending.",
	"stall":               "The machine paused. If it happens often, ask for a longer takeover: `baton check --measure 1m`.",
	"foreign":             "The data directory was another cluster's: `systemctl stop baton`, move it away, and `baton join`. Where it is the others that lost theirs, start them with their own.",
	"unreadable":          "Nodes of different versions, or a fault of memory: upgrade the older one.",
	"unsendable":          "A fault of baton: please report it, with the line.",
	"stranger":            "See [a node lost its disk](../how-to.md#a-node-lost-its-disk).",
}

func eventDocs(t *testing.T) string {
	found := make(map[string]string)
	for _, f := range docsParse(t, "internal/core/node") {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			at := map[string][2]int{"event": {0, 2}, "groupEvent": {0, 2}, "once": {1, 3}}[sel.Sel.Name]
			if at[1] == 0 || len(call.Args) <= at[1] {
				return true
			}
			if name, format := docsLiteral(call.Args[at[0]]), docsLiteral(call.Args[at[1]]); name != "" && found[name] == "" {
				found[name] = docsVerb.ReplaceAllString(format, "…")
			}
			return true
		})
	}
	rows := [][]string{{"code", "level", "text", "what it means"}}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if eventNotes[name] == "" {
			t.Errorf("event %q has no note in this test", name)
		}
		rows = append(rows, []string{quoted(name), strings.ToLower(eventLevel(name).String()), docsSentence(found[name]), eventNotes[name]})
	}
	for name := range eventNotes {
		if found[name] == "" {
			t.Errorf("the core emits no event %q", name)
		}
	}
	return docsTable(rows)
}

// docsVerb is a verb of package fmt.
var docsVerb = regexp.MustCompile(`%[a-z]`)

func docsLiteral(e ast.Expr) string {
	if sum, ok := e.(*ast.BinaryExpr); ok && sum.Op == token.ADD {
		return docsLiteral(sum.X) + docsLiteral(sum.Y)
	}
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return ""
	}
	s, err := strconv.Unquote(l.Value)
	if err != nil {
		return ""
	}
	return s
}

// docsParse parses the Go files of a directory that are no tests.
func docsParse(t *testing.T, dir string) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(docsRoot, dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no Go files in %s: %v", dir, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

func entryDocs(t *testing.T) string {
	docs := make(map[string]string)
	var parts []string
	for _, f := range docsParse(t, "internal/core/cluster") {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE || len(g.Specs) != 1 {
				continue
			}
			s := g.Specs[0].(*ast.TypeSpec)
			docs[s.Name.Name] = strings.Join(strings.Fields(g.Doc.Text()), " ")
			if s.Name.Name == "Part" {
				for _, field := range s.Type.(*ast.StructType).Fields.List {
					parts = append(parts, field.Names[0].Name)
				}
			}
		}
	}
	rows := [][]string{{"part", "meaning"}}
	for _, p := range parts {
		rows = append(rows, []string{quoted(p), docsSentence(strings.TrimPrefix(docs[p], p+" "))})
	}
	return docsTable(rows)
}

func mutationDocs(t *testing.T) string {
	rows, catches := [][]string{{"number", "bug", "what it does", "caught by", "rule that breaks"}}, simCatches(t)
	for _, f := range docsParse(t, "internal/core/node") {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			first := g.Specs[0].(*ast.ValueSpec)
			if id, ok := first.Type.(*ast.Ident); !ok || id.Name != "Mutation" {
				continue
			}
			for i, s := range g.Specs[1 : len(g.Specs)-1] { // Faithful is none, and the last one counts
				v := s.(*ast.ValueSpec)
				c := catches[v.Names[0].Name]
				rows = append(rows, []string{strconv.Itoa(i + 1), quoted(v.Names[0].Name), docsSentence(v.Comment.Text()), c[0], quoted(c[1])})
			}
		}
	}
	if len(rows) == 1 {
		t.Fatal("the core names no mutation")
	}
	return docsTable(rows)
}

// docsProto reads the schema's lines, those of baton.proto first.
func docsProto(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(docsRoot, "api/v1/*.proto"))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(files, func(a, b string) int {
		main := func(f string) int { return map[bool]int{true: 0, false: 1}[filepath.Base(f) == "baton.proto"] }
		return main(a) - main(b)
	})
	var lines []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(string(text), "\n")...)
	}
	return lines
}

var (
	protoService = regexp.MustCompile(`^service (\w+) \{`)
	protoCall    = regexp.MustCompile(`^  rpc (\w+)\((\w+)\) returns \((stream )?(\w+)\)`)
	protoMessage = regexp.MustCompile(`^message (\w+) \{(\})?`)
	protoField   = regexp.MustCompile(`^  (repeated )?([\w.]+) (\w+) = \d+;(?: // (.*))?$`)
)

func callDocs(t *testing.T) string {
	rows := [][]string{{"call", "asks with", "answers with", "does"}}
	comment, service := "", ""
	for _, line := range docsProto(t) {
		if c, ok := strings.CutPrefix(strings.TrimSpace(line), "// "); ok {
			comment = strings.TrimSpace(comment + " " + c)
			continue
		}
		if m := protoService.FindStringSubmatch(line); m != nil {
			service = m[1]
		}
		if m := protoCall.FindStringSubmatch(line); m != nil {
			rows = append(rows, []string{quoted(service + "/" + m[1]), m[2], m[3] + m[4], docsSentence(strings.TrimPrefix(comment, m[1]+" "))})
		}
		comment = ""
	}
	return docsTable(rows)
}

func messageDocs(t *testing.T) string {
	var b strings.Builder
	var rows [][]string
	comment := ""
	flush := func() {
		if len(rows) > 1 {
			b.WriteString(docsTable(rows))
		}
		rows = nil
	}
	for _, line := range docsProto(t) {
		if c, ok := strings.CutPrefix(line, "// "); ok {
			comment = strings.TrimSpace(comment + " " + c)
			continue
		}
		if m := protoMessage.FindStringSubmatch(line); m != nil && m[2] == "" {
			flush()
			fmt.Fprintf(&b, "\n### %s\n\n", m[1])
			if comment != "" {
				fmt.Fprintf(&b, "%s\n\n", docsSentence(comment))
			}
			rows = [][]string{{"field", "type", "meaning"}}
		}
		if m := protoField.FindStringSubmatch(line); m != nil && rows != nil {
			kind := strings.TrimPrefix(m[2], "google.protobuf.")
			if m[1] != "" {
				kind = "list of " + kind
			}
			rows = append(rows, []string{quoted(docsCamel(m[3])), kind, docsSentence(m[4])})
		}
		comment = ""
	}
	flush()
	return strings.TrimPrefix(b.String(), "\n")
}

// docsCamel is a field's name in the JSON form.
func docsCamel(name string) string {
	words := strings.Split(name, "_")
	for i := 1; i < len(words); i++ {
		words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
	}
	return strings.Join(words, "")
}

// docsTakeovers are those that the page on timing works out.
var docsTakeovers = []time.Duration{100 * time.Millisecond, 250 * time.Millisecond, time.Second, 3 * time.Second}

func docsDerived(t *testing.T, takeover time.Duration) (cluster.Timing, config.Bounds) {
	t.Helper()
	timing, bounds, err := config.Derive(takeover, config.DefaultStall, config.DefaultSync, config.DefaultRTT)
	if err != nil {
		t.Fatal(err)
	}
	return timing, bounds
}

// docsRounded writes a duration to a tenth of a millisecond.
func docsRounded(d time.Duration) string { return d.Round(time.Millisecond / 10).String() }

func timerDocs(t *testing.T) string {
	rows := [][]string{{"timer", "rule"}}
	names := []struct {
		name, rule string
		value      func(cluster.Timing) time.Duration
	}{
		{"h, heartbeat interval", "the largest for which all fits", func(x cluster.Timing) time.Duration { return x.H }},
		{"L, lease length", "10 h", func(x cluster.Timing) time.Duration { return x.L }},
		{"D, silence that makes a suspect", "0.9 L", func(x cluster.Timing) time.Duration { return x.D }},
		{"promise", "L(1+rho), rho = 0.5 %", func(x cluster.Timing) time.Duration { return x.Promised(x.L) }},
		{"quick repeat", "L/50", func(x cluster.Timing) time.Duration { return x.Quick() }},
		{"silence of the coordinator before an election", "L/2", func(x cluster.Timing) time.Duration { return x.L / 2 }},
		{"step between two candidates", "max(0.08 L, 4 RTT + 2 syncs)", func(x cluster.Timing) time.Duration { return x.Step }},
	}
	for _, n := range names {
		rows = append(rows, []string{n.name, n.rule})
	}
	for _, takeover := range docsTakeovers {
		timing, _ := docsDerived(t, takeover)
		rows[0] = append(rows[0], "T = "+takeover.String())
		for i, n := range names {
			rows[i+1] = append(rows[i+1], docsRounded(n.value(timing)))
		}
	}
	return docsTable(rows)
}

func boundDocs(t *testing.T) string {
	rows := [][]string{{"fault"}}
	for i, takeover := range docsTakeovers {
		_, bounds := docsDerived(t, takeover)
		rows[0] = append(rows[0], "T = "+takeover.String())
		for k, b := range bounds {
			if i == 0 {
				rows = append(rows, []string{b.Fault})
			}
			rows[k+1] = append(rows[k+1], docsRounded(b.Worst))
		}
	}
	return docsTable(rows)
}

func limitDocs(*testing.T) string {
	rows := [][]string{{"takeover", "slowest sync", "longest stall"}}
	for _, takeover := range docsTakeovers {
		rows = append(rows, []string{takeover.String(),
			most(func(d time.Duration) bool {
				_, _, err := config.Derive(takeover, config.DefaultStall, d, config.DefaultRTT)
				return err == nil
			}).String(),
			most(func(d time.Duration) bool {
				_, _, err := config.Derive(takeover, d, config.DefaultSync, config.DefaultRTT)
				return err == nil
			}).String()})
	}
	return docsTable(rows)
}

// most returns the longest time, in whole milliseconds, for which something holds that holds for less.
func most(holds func(time.Duration) bool) time.Duration {
	low, high := 0, int(config.MaxTakeover/time.Millisecond)
	for low < high {
		if mid := (low + high + 1) / 2; holds(time.Duration(mid) * time.Millisecond) {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return time.Duration(low) * time.Millisecond
}

// docsPages reads every page of docs/ by its path below it.
func docsPages(t *testing.T) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(docsDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".md") {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(docsDir, path)
		out[filepath.ToSlash(name)] = string(text)
		return err
	})
	if err != nil || len(out) == 0 {
		t.Fatalf("no pages in docs: %v", err)
	}
	return out
}

var (
	docsLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	docsHeading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	docsFenced  = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```")
	docsCommand = regexp.MustCompile("(?m)(?:`|^[#$] |^    )baton ([a-z]+)")
)

// docsAnchors returns a page's anchors, as the usual renderers make them.
func docsAnchors(page string) (out []string) {
	for _, m := range docsHeading.FindAllStringSubmatch(docsFenced.ReplaceAllString(page, ""), -1) {
		var b strings.Builder
		for _, r := range strings.ToLower(m[1]) {
			switch {
			case r == ' ':
				b.WriteByte('-')
			case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
				b.WriteRune(r)
			}
		}
		out = append(out, b.String())
	}
	return out
}

// TestDocsLinks: every link within the repository leads somewhere.
func TestDocsLinks(t *testing.T) {
	all := docsPages(t)
	for name, text := range all {
		for _, m := range docsLink.FindAllStringSubmatch(docsFenced.ReplaceAllString(text, ""), -1) {
			u, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: link %s: %v", name, m[1], err)
				continue
			}
			if u.Host != "" {
				continue
			}
			target := name
			if u.Path != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(name), u.Path))
			}
			if _, err := os.Stat(filepath.Join(docsDir, target)); err != nil {
				t.Errorf("%s: link %s leads nowhere: %v", name, m[1], err)
			} else if u.Fragment != "" && !slices.Contains(docsAnchors(all[target]), u.Fragment) {
				t.Errorf("%s: link %s: %s has no such heading; it has %v", name, m[1], target, docsAnchors(all[target]))
			}
		}
	}
}

// TestDocsExamples: every cluster file shown can be used, and every command shown exists.
func TestDocsExamples(t *testing.T) {
	known := map[string]bool{}
	for _, c := range commandModel(t).Children {
		known[c.Name] = true
	}
	files := 0
	for name, text := range docsPages(t) {
		for _, m := range docsFenced.FindAllStringSubmatch(text, -1) {
			if m[1] != "yaml" || !strings.Contains(m[2], "cluster:") {
				continue
			}
			files++
			if _, err := config.Parse(name, []byte(m[2]), Kinds()); err != nil {
				t.Errorf("%s shows a cluster file that is refused: %v", name, err)
			}
		}
		for _, m := range docsCommand.FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s shows the command baton %s, which does not exist", name, m[1])
			}
		}
	}
	if files == 0 {
		t.Error("no page shows a cluster file")
	}
}
