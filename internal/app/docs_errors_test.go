package app

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"baton/internal/core/config"
)

// errorParts are the sections of the page of errors: the mistakes that TestBadInput makes, and below them what else
// the code of some files says. Every file that tells of errors stands in one.
var errorParts = []struct {
	name     string
	mistakes []badInput
	files    []string // below internal/
}{
	{"line", badLines, []string{"app/usage.go", "app/command_act.go", "app/command_move.go", "app/command_logs.go", "app/command_status.go", "app/command_report.go"}},
	{"file", badFiles, nil},
	{"file-text", nil, []string{"core/config/tree.go"}},
	{"file-values", nil, []string{"core/config/reader.go", "core/config/fields.go"}},
	{"file-nodes", nil, []string{"core/config/parse.go"}},
	{"file-groups", nil, []string{"core/config/groups.go", "core/config/reach.go", "core/config/rules.go"}},
	{"file-health", nil, []string{"core/config/health.go"}},
	{"init", nil, []string{"app/command_init.go", "app/command_check.go"}},
	{"change", nil, []string{"app/command_config.go", "app/command_edit.go", "app/backend_config.go", "app/validate.go", "io/api/config.go", "core/config/effects.go", "core/node/draft.go"}},
	{"key", badKeys, []string{"app/keyring.go", "app/rotate.go"}},
	{"data", badData, []string{"app/agent.go"}},
	{"socket", badSockets, []string{"app/cli.go", "app/command_agent.go", "app/farewell.go", "app/loop.go", "app/standing.go", "io/api/handlers.go"}},
	{"state", badNames, []string{"core/node/overview.go", "core/node/command.go", "core/node/ask.go", "core/node/names.go", "core/node/stays.go", "io/api/act.go", "io/api/observed.go", "io/api/plan.go", "app/plan.go"}},
	{"nodes", nil, []string{"app/command_members.go", "core/node/without.go", "io/api/members.go"}},
	{"remote", badRemotes, []string{"app/contexts.go", "io/api/access.go", "io/api/remote.go", "io/api/strict.go"}},
	{"invitation", badInvitations, []string{"app/command_join.go", "app/backend_access.go", "app/invitations.go"}},
	{"trial", nil, []string{"app/dev.go", "app/dev_auto.go", "app/dev_addresses.go", "app/dev_ground.go", "app/dev_lab.go", "app/dev_net.go", "app/bench.go"}},
}

// said is what a user is told: what is wrong, and what to do. "…" stands for what only the moment knows.
type said struct{ line, hint string }

// errorNotes say what an error means where it does not say so itself. A note is for the error that begins so.
var errorNotes = map[string]string{
	"there is no group \"mail\"":                                 "Names are those of the cluster file that counts: `baton config show`.",
	"open data directory DIR: data directory is corrupt":         "See [a node lost its disk](../how-to.md#a-node-lost-its-disk).",
	"no agent reached at SOCKET: the agent ended the connection": "It starts or ends just now, or has crashed: `journalctl -u baton`.",
	"the cluster is still forming":                               "It is formed once every node of the file has met. See [what status says](../how-to.md#what-to-do-when-status-says-).",
	"context x (HOST): its certificate is not of the cluster":    "The fingerprint is another cluster's, or of the time before the key was changed; else somebody in between answers in its place. The token was not told.",
	"HOST: its certificate is not of the cluster":                "The same. The invitation was not told, and is still good.",
	"HOST: the invitation is not known to this agent":            "Invitations are in the memory of the agent that gave them.",
	"a running cluster can't be changed so":                      "The lines above it say why, each with its own hint.",
	"not everything that the file names is there":                "A node lacks a user, program, interface or address that the file names: the lines above say which.",
	"group …: …: …":                                              "The host lacks what that resource needs, such as a user, a program, an interface.",
	"not asked whether they can take the file":                   "A node that runs does not answer others, so a mistake there would be found too late.",
	"… has left the cluster: it serves":                          "The agent's last word. Its unit does not start it again.",
	"it was not done: …":                                         "Between the question and the log something else came first.",
	"…: not in the log after …":                                  "No majority of the voters, or no coordinator, for so long.",
	"there is no node \"…\"":                                     "The hint names the nearest, and lists those that there are.",
	"… is not among the nodes of …":                              "The hint names the nearest, and lists those that there are.",
	"… is drained, but …":                                        "Each group that stays is named with the reason: a pin, a pause, what keeps it off each other node. The hint names the command that lifts it, such as `baton unpin web`.",
	"… can't take …: it …":                                       "Whatever `baton status` says of that node below the groups.",
}

// errorHolders are put in place of what the scene's mistakes name.
var errorHolders = []struct {
	seen  *regexp.Regexp
	shown string
}{
	{regexp.MustCompile(`data directory \$DIR/\w+`), "data directory DIR"},
	{regexp.MustCompile(`mkdir \$DIR/\w+`), "mkdir DIR"},
	{regexp.MustCompile(`\$DIR/(?:beta|held|spoilt)\b`), "DIR"},
	{regexp.MustCompile(`reached at \$DIR/[\w.]+`), "reached at SOCKET"},
	{regexp.MustCompile(`\$DIR[\w./]*`), "FILE"},
	{regexp.MustCompile(`\$SOCKET`), "SOCKET"},
	{regexp.MustCompile(`\$REMOTE|127\.0\.0\.1:1\b`), "HOST"},
	{regexp.MustCompile(`\$PIN`), "sha256:…"},
	{regexp.MustCompile(`AGO ago`), "… ago"},
	{regexp.MustCompile(`process PID`), "process …"},
	{regexp.MustCompile(`TCP 1\b`), "TCP 7400"},
}

func errorShown(s string) string {
	for _, h := range errorHolders {
		s = h.seen.ReplaceAllString(s, h.shown)
	}
	return s
}

// errorDocs writes the table of one section.
func errorDocs(name string) func(*testing.T) string {
	return func(t *testing.T) string {
		rows, noted := [][]string{{"it says", "do", "it means"}}, false
		for _, s := range errorSections(t)[name] {
			note := ""
			for begin, text := range errorNotes {
				if strings.HasPrefix(s.line, begin) {
					note, noted = text, true
				}
			}
			rows = append(rows, []string{quoted(s.line), quoted(s.hint), note})
		}
		if !noted {
			for i := range rows {
				rows[i] = rows[i][:2]
			}
		}
		return docsTable(rows)
	}
}

// errorSections returns what each section tells of. Each error stands in the first one that has it.
var errorSections = func() func(*testing.T) map[string][]said {
	var all map[string][]said
	return func(t *testing.T) map[string][]said {
		t.Helper()
		if all == nil {
			all = makeErrorSections(t)
		}
		return all
	}
}()

func makeErrorSections(t *testing.T) map[string][]said {
	t.Helper()
	out, made, seen := map[string][]said{}, []said{}, map[said]bool{}
	for _, part := range errorParts {
		for _, b := range part.mistakes {
			s := said{errorShown(b.line), errorShown(b.hint)}
			if strings.Contains(s.line+s.hint, "$") {
				t.Errorf("the page of errors would show %q, %q: name what stands there in errorHolders", s.line, s.hint)
			}
			if !seen[s] {
				seen[s] = true
				made, out[part.name] = append(made, s), append(out[part.name], s)
			}
		}
	}
	examples := fileExamples(t)
	for _, part := range errorParts {
		for _, file := range part.files {
			for _, s := range errorsIn(t, file) {
				inFull := regexp.MustCompile("(?:^|: )" + s.like() + "$")
				if seen[s] || slices.ContainsFunc(made, func(m said) bool { return inFull.MatchString(m.line) }) {
					continue
				}
				seen[s] = true
				if e, ok := examples[s.line]; ok && strings.HasPrefix(file, "core/config/") {
					s = e
				}
				out[part.name] = append(out[part.name], s)
			}
		}
	}
	return out
}

// like returns a pattern for the lines that this one may come to.
func (s said) like() string { return strings.ReplaceAll(regexp.QuoteMeta(s.line), "…", ".+") }

// fileExamples returns an example for nearly each error that package config may tell of, from its golden files. Of
// two errors that an example fits, it is one of that which has more words of its own.
func fileExamples(t *testing.T) map[string]said {
	t.Helper()
	var all []said
	for _, part := range errorParts {
		for _, file := range part.files {
			if strings.HasPrefix(file, "core/config/") {
				all = append(all, errorsIn(t, file)...)
			}
		}
	}
	out := map[string]said{}
	for _, e := range fileErrors(t) {
		best := said{}
		for _, s := range all {
			if len(s.line) > len(best.line) && regexp.MustCompile("^"+s.like()+"$").MatchString(e.line) {
				best = s
			}
		}
		if _, has := out[best.line]; !has {
			out[best.line] = e
		}
	}
	return out
}

// fileErrors are the errors in the cluster files with which package config is tested.
func fileErrors(t *testing.T) (out []said) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(docsRoot, "internal/core/config/testdata/*.txt"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range strings.Split("\n"+string(text), "\n=== ")[1:] {
			_, input, _ := strings.Cut(c, "\n")
			input, _, _ = strings.Cut(input, "----\n")
			_, err := config.Parse("cluster.yaml", []byte(input), Kinds()) // not those of the package's own tests
			var wrong config.Errors
			if errors.As(err, &wrong) {
				for _, w := range wrong {
					out = append(out, said{w.Message, w.Hint})
				}
			}
		}
	}
	return out
}

// errorsIn returns what the code of a file tells users of, in its order.
func errorsIn(t *testing.T, file string) (out []said) {
	t.Helper()
	path := filepath.Join(docsRoot, "internal", file)
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	w := errorWords{constants: map[string]string{}}
	for _, other := range docsParse(t, filepath.Join("internal", filepath.Dir(file))) {
		for _, d := range other.Decls {
			if g, ok := d.(*ast.GenDecl); ok {
				w.learn(g)
			}
		}
	}
	w.learn(f) // also what stands within its functions
	add := func(line, hint string) {
		if !errorWord.MatchString(line) {
			return // it passes on what was said elsewhere
		}
		if hint == "…" {
			hint = ""
		}
		out = append(out, said{line, hint})
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			at, ok := errorCalls[docsCallee(n)]
			if docsCallee(n) == "add" && file != "app/validate.go" {
				ok = false // it adds something else there
			}
			if ok && len(n.Args) > at+1 {
				add(w.format(n.Args[at+1], n.Args[at+2:]), w.text(n.Args[at]))
			}
		case *ast.CompositeLit:
			add(w.literal(n))
		case *ast.FuncDecl:
			w.returned(n, add)
		case *ast.AssignStmt: // reply.Text, reply.Hint = …, …
			if len(n.Lhs) == 2 && len(n.Rhs) == 2 && docsSelected(n.Lhs[0]) == "Text" && docsSelected(n.Lhs[1]) == "Hint" {
				add(w.text(n.Rhs[0]), w.text(n.Rhs[1]))
			}
		}
		return true
	})
	return out
}

// errorWord is a word that the code itself says.
var errorWord = regexp.MustCompile(`\pL{3,}`)

// errorCalls are the functions that tell of errors, and which argument is the hint; the format follows it.
var errorCalls = map[string]int{"fail": 1, "failure": 1, "refuse": 0, "add": 0}

func docsCallee(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if f.Sel.Name == "fail" { // a method of package config
			return "fail"
		}
	}
	return ""
}

func docsSelected(e ast.Expr) string {
	if s, ok := e.(*ast.SelectorExpr); ok {
		return s.Sel.Name
	}
	return ""
}

// errorWords writes expressions as far as the source tells what they are.
type errorWords struct{ constants map[string]string }

// learn notes the constants that are texts.
func (w errorWords) learn(within ast.Node) {
	ast.Inspect(within, func(n ast.Node) bool {
		g, ok := n.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			return true
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			for i := range min(len(v.Names), len(v.Values)) {
				if text := docsLiteral(v.Values[i]); text != "" {
					w.constants[v.Names[i].Name] = text
				}
			}
		}
		return true
	})
}

// text writes an expression; "…" stands for what is not known.
func (w errorWords) text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			return docsLiteral(e)
		}
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			return w.text(e.X) + w.text(e.Y)
		}
	case *ast.Ident:
		if text, ok := w.constants[e.Name]; ok {
			return text
		}
	case *ast.CallExpr:
		if docsSelected(e.Fun) == "Sprintf" {
			return w.format(e.Args[0], e.Args[1:])
		}
	}
	return "…"
}

// format writes what a format and its arguments come to.
func (w errorWords) format(format ast.Expr, args []ast.Expr) string {
	return errorVerb.ReplaceAllStringFunc(w.text(format), func(verb string) string {
		text := "…"
		if len(args) > 0 {
			text, args = w.text(args[0]), args[1:]
		}
		if verb == "%q" {
			return strconv.Quote(text)
		}
		return text
	})
}

var errorVerb = regexp.MustCompile(`%[0-9]*[a-zA-Z]`)

// literal returns text and hint of a refusal written out.
func (w errorWords) literal(c *ast.CompositeLit) (line, hint string) {
	if id, ok := c.Type.(*ast.Ident); ok && id.Name == "refusal" && len(c.Elts) == 3 {
		return w.text(c.Elts[1]), w.text(c.Elts[2])
	}
	for _, e := range c.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			switch key, _ := kv.Key.(*ast.Ident); {
			case key == nil:
			case key.Name == "Text":
				line = w.text(kv.Value)
			case key.Name == "Hint":
				hint = w.text(kv.Value)
			}
		}
	}
	if docsSelected(c.Type) != "Refusal" && hint == "" {
		return "", ""
	}
	return line, hint
}

// returned adds what a function returns whose results are named (text, hint).
func (w errorWords) returned(f *ast.FuncDecl, add func(line, hint string)) {
	var names []string
	if f.Type.Results != nil {
		for _, field := range f.Type.Results.List {
			for _, n := range field.Names {
				names = append(names, n.Name)
			}
		}
	}
	if !slices.Equal(names, []string{"text", "hint"}) {
		return
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) == 2 {
			add(w.text(r.Results[0]), w.text(r.Results[1]))
		}
		return true
	})
}

// TestDocsErrors: every file that tells users of errors stands in a section of the page, and every note is for one.
func TestDocsErrors(t *testing.T) {
	known, notes := map[string]bool{}, map[string]bool{}
	for _, part := range errorParts {
		for _, f := range part.files {
			known[f] = true
		}
		for _, s := range errorSections(t)[part.name] {
			for begin := range errorNotes {
				notes[begin] = notes[begin] || strings.HasPrefix(s.line, begin)
			}
		}
	}
	for _, dir := range []string{"app", "io/api", "core/config", "core/node"} {
		files, err := filepath.Glob(filepath.Join(docsRoot, "internal", dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			name := dir + "/" + filepath.Base(f)
			if strings.HasSuffix(f, "_test.go") || known[name] {
				continue
			}
			if all := errorsIn(t, name); len(all) > 0 {
				t.Errorf("%s stands in no section of errorParts, and says %q", name, all)
			}
		}
	}
	for begin := range errorNotes {
		if !notes[begin] {
			t.Errorf("no error begins with %q", begin)
		}
	}
}

// exitDocs writes the table of exit codes.
func exitDocs(t *testing.T) string {
	rows := [][]string{{"exit code", "meaning"}}
	for _, f := range docsParse(t, "internal/app") {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST || !strings.HasPrefix(g.Doc.Text(), "Exit codes") {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				rows = append(rows, []string{v.Values[0].(*ast.BasicLit).Value, docsSentence(v.Comment.Text())})
			}
		}
	}
	if len(rows) < 2 {
		t.Fatal("no exit codes found")
	}
	return docsTable(rows)
}
