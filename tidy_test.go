// Package baton_test keeps the house in order: who may import whom, what the core may not touch, and how
// code is written here. Each rule carries its reason; none has a list of exceptions.
package baton_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "baton"

// goFile is one Go file of the module.
type goFile struct {
	path      string // from the module's root, with slashes
	dir       string // its directory; "." for the root
	isTest    bool
	generated bool
	text      []byte
	syntax    *ast.File
}

func (f *goFile) inCore() bool { return within(f.dir, "internal/core") }

// within tells whether dir is root or below it.
func within(dir, root string) bool { return dir == root || strings.HasPrefix(dir, root+"/") }

// source is the whole module, parsed once for all tests.
type source struct {
	files *token.FileSet
	all   []*goFile
}

// load parses every Go file of the module. What does not parse is an error and is left out.
func load(t *testing.T) *source {
	t.Helper()
	s := &source{files: token.NewFileSet()}
	var others []string // directories of other modules: these rules are not theirs
	walk(t, func(name string, text []byte) {
		if path.Base(name) == "go.mod" && name != "go.mod" {
			others = append(others, path.Dir(name))
		}
		if !strings.HasSuffix(name, ".go") {
			return
		}
		syntax, err := parser.ParseFile(s.files, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%s does not parse: %v", name, err)
			return
		}
		s.all = append(s.all, &goFile{
			path: name, dir: path.Dir(name), isTest: strings.HasSuffix(name, "_test.go"),
			generated: ast.IsGenerated(syntax), text: text, syntax: syntax,
		})
	})
	s.all = slices.DeleteFunc(s.all, func(f *goFile) bool {
		return slices.ContainsFunc(others, func(dir string) bool { return within(f.dir, dir) })
	})
	if len(s.all) < 2 {
		t.Fatal("no Go files found: this test must run in the module's root")
	}
	return s
}

// walk calls visit for every file of the module but hidden ones and test data.
func walk(t *testing.T, visit func(name string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another process removed it meanwhile
		}
		if err != nil {
			return err
		}
		base := entry.Name()
		if name != "." && (strings.HasPrefix(base, ".") || base == "testdata" || base == "node_modules" || base == "vendor") {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		visit(filepath.ToSlash(name), text)
		return err
	})
	if err != nil {
		t.Fatalf("walking the module: %v", err)
	}
}

// at writes a place for an error.
func (s *source) at(pos token.Pos) string {
	p := s.files.Position(pos)
	return fmt.Sprintf("%s:%d:%d", p.Filename, p.Line, p.Column)
}

func imports(f *goFile) map[string]token.Pos {
	out := make(map[string]token.Pos)
	for _, i := range f.syntax.Imports {
		if name, err := strconv.Unquote(i.Path.Value); err == nil {
			out[name] = i.Pos()
		}
	}
	return out
}

// directions says which packages of this module a package may import: the entry with the longest matching
// dir counts; "x/*" stands for everything below x.
var directions = []struct {
	dir    string
	may    []string
	reason string
}{
	{".", nil, "the root holds nothing but this test"},
	{"api", []string{"api/*"}, "the schema is public and depends on nothing"},
	{"client", []string{"api/*", "client"}, "a client is light: no Raft, no netlink, no internal type in sight"},
	{"member", []string{"internal/app"}, "a member is the agent inside another program"},
	{"cmd", []string{"internal/app", "internal/lab"}, "commands turn flags into calls of app, and no more; the lab's hosts are this program run again"},
	{"internal/app", []string{"api/*", "client", "internal/core/*", "internal/io/*", "internal/sim", "internal/lab", "internal/trial"}, "app is the one place where decisions become effects"},
	{"internal/sim", []string{"internal/core/*"}, "the simulator drives the real core in a world of its own, never real io"},
	{"internal/trial", []string{"internal/lab"}, "a trial judges the built binary from outside"},
	{"internal/lab", []string{"api/*", "client/*"}, "the lab sees the built binary from outside"},
	{"internal/core/cluster", nil, "the shared words depend on nothing"},
	{"internal/core/node", []string{"internal/core/*"}, "the parts of the core meet in node"},
	{"internal/core", []string{"internal/core/cluster"}, "the parts of the core do not import each other: they meet in node, through types of cluster"},
	{"internal/io/link", []string{"internal/io/bounded", "internal/core/cluster", "internal/core/wire", "internal/io/identity", "internal/io/nowait"}, "a link carries messages, and knows nobody who decides"},
	{"internal/io/addr", []string{"internal/io/bounded", "internal/core/cluster", "internal/io/resource"}, "an address is a resource kind"},
	{"internal/io/postgres", []string{"internal/core/cluster", "internal/io/resource"}, "PostgreSQL is a resource kind"},
	{"internal/io/vm", []string{"internal/core/cluster", "internal/io/resource"}, "a virtual machine is a resource kind"},
	{"internal/io/api", []string{"internal/io/bounded", "internal/core/cluster", "internal/io/accounts", "internal/io/identity", "api/*"}, "the API speaks its schema, and asks who somebody is"},
	{"internal/io/resource", []string{"internal/io/bounded", "internal/core/cluster", "internal/io/accounts"}, "a program runs as a user of this host"},
	{"internal/io", []string{"internal/io/bounded", "internal/core/cluster"}, "io acts on shared words and never sees the core that decides, nor other io"},
}

// TestImportDirections holds the packages to the direction that docs and layout promise.
func TestImportDirections(t *testing.T) {
	s := load(t)
	for _, f := range s.all {
		if f.isTest {
			continue
		}
		rule := slices.IndexFunc(directions, func(d struct {
			dir    string
			may    []string
			reason string
		}) bool {
			return within(f.dir, d.dir)
		})
		if rule < 0 {
			t.Errorf("%s: no rule says what %s may import: a new package needs one in this test", f.path, f.dir)
			continue
		}
		for name, pos := range imports(f) {
			own, isOwn := strings.CutPrefix(name, module+"/")
			if !isOwn || own == f.dir {
				continue
			}
			if !slices.ContainsFunc(directions[rule].may, func(may string) bool {
				below, all := strings.CutSuffix(may, "/*")
				return own == may || (all && within(own, below))
			}) {
				t.Errorf("%s: %s imports %s, but %s", s.at(pos), f.dir, own, directions[rule].reason)
			}
		}
	}
}

// forbiddenImports are standard packages that code below dir may not import; "x/*" is x and all below it.
var forbiddenImports = []struct {
	dir    string
	names  []string
	reason string
}{
	{"internal/core", []string{"os/*", "io/fs", "io/ioutil", "syscall", "embed", "path/filepath", "plugin"}, "the core does no I/O: files belong to internal/io"},
	{"internal/core", []string{"net", "net/http/*", "net/rpc/*", "net/smtp", "net/mail"}, "the core does no I/O: sockets belong to internal/io (net/netip and net/url are fine)"},
	{"internal/core", []string{"math/rand/*", "crypto/rand"}, "the core has no dice: equal seeds must give equal traces"},
	{"internal/core", []string{"sync/*", "context"}, "the core has no concurrency: Step takes one input and never waits"},
	{"internal/core", []string{"log/*"}, "the core tells what happens by Emit; only app logs"},
	{"internal/core", []string{"runtime/*", "unsafe", "testing/*", "expvar", "flag"}, "the core depends on its inputs alone, not on the process that it runs in"},
	{"internal/sim", []string{"testing/*"}, "the simulator ships in the binary"},
	{"internal/sim", []string{"math/rand", "crypto/rand"}, "the world's dice come from its seed (math/rand/v2 with a source of one's own is fine)"},
	{"client", []string{"testing/*"}, "a client is light"},
	{"internal", []string{"os/user"}, "without the C library it knows only files: internal/io/accounts asks getent too"},
}

// coreModules are the only outside packages that the core may import, by the package that may.
var coreModules = []struct {
	dir   string
	names []string
}{
	{"internal/core/config", []string{"github.com/goccy/go-yaml/*"}},
	{"internal/core/wire", []string{"go.etcd.io/raft/v3", "go.etcd.io/raft/v3/raftpb", "golang.org/x/crypto/*", "google.golang.org/protobuf/proto"}},
	{"internal/core/node", []string{"go.etcd.io/raft/v3/*", "google.golang.org/protobuf/proto"}},
}

func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		below, all := strings.CutSuffix(p, "/*")
		return name == p || (all && within(name, below))
	})
}

// TestForbiddenImports keeps I/O, time, dice and concurrency out of the core.
func TestForbiddenImports(t *testing.T) {
	s := load(t)
	for _, f := range s.all {
		if f.isTest {
			continue
		}
		for name, pos := range imports(f) {
			for _, rule := range forbiddenImports {
				if within(f.dir, rule.dir) && matches(name, rule.names) {
					t.Errorf("%s: imports %s, but %s", s.at(pos), name, rule.reason)
				}
			}
			first, _, _ := strings.Cut(name, "/")
			if !f.inCore() || !strings.Contains(first, ".") {
				continue
			}
			if !slices.ContainsFunc(coreModules, func(m struct {
				dir   string
				names []string
			}) bool {
				return within(f.dir, m.dir) && matches(name, m.names)
			}) {
				t.Errorf("%s: %s imports %s, but the core depends on as little as it can: coreModules in this test lists what it may", s.at(pos), f.dir, name)
			}
		}
	}
}

// unboundedReaders hold in memory whatever there is to read; what they belong to, and what is to be used instead.
var unboundedReaders = map[string]string{
	"os.ReadFile": "bounded.ReadFile", "io.ReadAll": "bounded.ReadAll",
	"ReadString": "bounded.ReadLine", "ReadBytes": "bounded.ReadLine", "CombinedOutput": "bounded.Output, or a bounded.Tail",
}

// TestReadersAreBounded: what others wrote is read with a limit. Package bounded has them all.
func TestReadersAreBounded(t *testing.T) {
	s := load(t)
	for _, f := range s.all {
		if f.isTest || f.generated || !within(f.dir, "internal/app") && !within(f.dir, "internal/io") || within(f.dir, "internal/io/bounded") {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			sel, isSel := n.(*ast.SelectorExpr)
			if !isSel {
				return true
			}
			name := sel.Sel.Name
			if pkg, isName := sel.X.(*ast.Ident); isName && (pkg.Name == "os" || pkg.Name == "io") {
				name = pkg.Name + "." + name
			}
			if instead := unboundedReaders[name]; instead != "" {
				t.Errorf("%s: %s, but what others wrote may be of any length: use %s", s.at(n.Pos()), name, instead)
			}
			return true
		})
	}
}

// clockNames are what package time has besides arithmetic.
var clockNames = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Timer", "Ticker", "LoadLocation", "Local"}

// TestCorePurity: the core reads no clock, starts nothing and waits for nothing.
func TestCorePurity(t *testing.T) {
	s := load(t)
	for _, f := range s.all {
		if f.isTest || !f.inCore() {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			complain := func(what, reason string) { t.Errorf("%s: %s, but %s", s.at(n.Pos()), what, reason) }
			const noWaiting = "the core never waits: what happens comes as an input of Step"
			switch n := n.(type) {
			case *ast.GoStmt:
				complain("starts a goroutine", "the core has none: traces must repeat")
			case *ast.SelectStmt:
				complain("selects", noWaiting)
			case *ast.ChanType:
				complain("uses a channel", noWaiting)
			case *ast.SendStmt:
				complain("sends on a channel", noWaiting)
			case *ast.UnaryExpr:
				if n.Op == token.ARROW {
					complain("receives from a channel", noWaiting)
				}
			case *ast.SelectorExpr:
				if pkg, isName := n.X.(*ast.Ident); isName && pkg.Name == "time" && slices.Contains(clockNames, n.Sel.Name) {
					complain("uses time."+n.Sel.Name, "the core has no clock and no time zone of its own: the time comes with every input")
				}
			}
			return true
		})
	}
}

// seededNames are what package math/rand/v2 has besides dice that nobody seeded.
var seededNames = []string{"New", "NewPCG", "NewChaCha8", "NewZipf", "Rand", "PCG", "ChaCha8", "Zipf", "Source"}

// TestSeededWorld: a simulated world throws its own dice only, so that a seed names a run.
func TestSeededWorld(t *testing.T) {
	s := load(t)
	for _, f := range s.all {
		if f.isTest || !within(f.dir, "internal/sim") {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if sel, isSel := n.(*ast.SelectorExpr); isSel {
				if pkg, isName := sel.X.(*ast.Ident); isName && pkg.Name == "rand" && !slices.Contains(seededNames, sel.Sel.Name) && imports(f)["math/rand/v2"] != token.NoPos {
					t.Errorf("%s: rand.%s, but a world throws its own seeded dice only: equal seeds must give equal traces", s.at(n.Pos()), sel.Sel.Name)
				}
			}
			return true
		})
	}
}

// typed is a package of the core with its types.
type typed struct {
	dir   string
	files []*goFile
	info  *types.Info
}

// listed is what `go list -json` tells of a package.
type listed struct {
	ImportPath string
	Export     string
	Error      *struct{ Err string }
}

// planted tells whether a file is compiled with the tag `planted` only.
func (f *goFile) planted() bool { return bytes.HasPrefix(f.text, []byte("//go:build planted\n")) }

// coreTypes type-checks the packages of the core against the export data of what they import. A package
// that does not compile is an error here, and is left out.
func coreTypes(t *testing.T, s *source) []typed {
	t.Helper()
	list := exec.Command("go", "list", "-e", "-export", "-deps", "-json=ImportPath,Export,Error", "./internal/core/...")
	var complaints bytes.Buffer
	list.Stderr = &complaints
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list on the core failed: %v\n%s", err, complaints.String())
	}
	exports := make(map[string]string)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("reading what go list says: %v", err)
		}
		exports[p.ImportPath] = p.Export
	}
	lookup := func(name string) (io.ReadCloser, error) {
		if exports[name] == "" {
			return nil, fmt.Errorf("%s does not compile", name)
		}
		return os.Open(exports[name])
	}
	byDir := make(map[string][]*goFile)
	for _, f := range s.all {
		if f.inCore() && !f.isTest && !f.planted() {
			byDir[f.dir] = append(byDir[f.dir], f)
		}
	}
	var packages []typed
	for dir, files := range byDir {
		p := typed{dir: dir, files: files, info: &types.Info{
			Types: make(map[ast.Expr]types.TypeAndValue), Uses: make(map[*ast.Ident]types.Object), Defs: make(map[*ast.Ident]types.Object)}}
		config := types.Config{Importer: importer.ForCompiler(s.files, "gc", lookup)}
		var syntax []*ast.File
		for _, f := range files {
			syntax = append(syntax, f.syntax)
		}
		if _, err := config.Check(module+"/"+dir, s.files, syntax, p.info); err != nil {
			t.Errorf("%s can't be checked for map order and floating point, since it does not compile: %v", dir, err)
			continue
		}
		packages = append(packages, p)
	}
	return packages
}

const orderComment = "// order does not matter: "

// TestMapOrder: what the core does never depends on the order of a map.
func TestMapOrder(t *testing.T) {
	s := load(t)
	for _, p := range coreTypes(t, s) {
		for _, f := range p.files {
			excused := excuses(s, f)
			sorted := make(map[ast.Expr]bool) // calls whose result is put in order at once
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				what := ""
				switch n := n.(type) {
				case *ast.RangeStmt:
					if of := p.info.TypeOf(n.X); of != nil && isMap(of) && (named(n.Key) || named(n.Value)) {
						what = "ranges over a map"
					}
				case *ast.CallExpr:
					switch name := called(p.info, n); name {
					case "slices.Sorted", "slices.SortedFunc", "slices.SortedStableFunc":
						sorted[n.Args[0]] = true
					case "maps.Keys", "maps.Values", "maps.All":
						if !sorted[n] {
							what = "calls " + name + " without slices.Sorted"
						}
					}
				}
				line := s.files.Position(n0(n)).Line
				if what != "" && !excused[line] && !excused[line-1] {
					t.Errorf("%s: %s, but the order of a map differs from run to run: go through sorted keys, or say why it is all the same: %s…",
						s.at(n.Pos()), what, orderComment)
				}
				return true
			})
		}
	}
}

// n0 is a node's place, also of none.
func n0(n ast.Node) token.Pos {
	if n == nil {
		return token.NoPos
	}
	return n.Pos()
}

// named tells whether a range variable is used: `for range m` only counts.
func named(e ast.Expr) bool {
	name, isName := e.(*ast.Ident)
	return e != nil && (!isName || name.Name != "_")
}

func isMap(t types.Type) bool {
	if p, isParam := t.(*types.TypeParam); isParam {
		t = p.Constraint()
	}
	_, is := t.Underlying().(*types.Map)
	return is
}

// called names the package function that is called, as in "maps.Keys".
func called(info *types.Info, call *ast.CallExpr) string {
	fun := call.Fun
	if generic, is := fun.(*ast.IndexExpr); is {
		fun = generic.X
	}
	sel, isSel := fun.(*ast.SelectorExpr)
	if !isSel {
		return ""
	}
	if f, isFunc := info.Uses[sel.Sel].(*types.Func); isFunc && f.Pkg() != nil && f.Signature().Recv() == nil {
		return f.Pkg().Path() + "." + f.Name()
	}
	return ""
}

// excuses are the lines with a comment that says why a map's order is all the same.
func excuses(s *source, f *goFile) map[int]bool {
	out := make(map[int]bool)
	for _, group := range f.syntax.Comments {
		for _, c := range group.List {
			if reason, found := strings.CutPrefix(c.Text, orderComment); found && strings.TrimSpace(reason) != "" {
				// The whole comment counts, so that a reason may take two lines.
				for line := s.files.Position(c.Pos()).Line; line <= s.files.Position(group.End()).Line; line++ {
					out[line] = true
				}
			}
		}
	}
	return out
}

// noFloats are the packages whose values are stored, sent or compared between nodes.
var noFloats = []string{"internal/core/state", "internal/core/wire", "internal/core/lease"}

// TestNoFloats: two machines must reach the same bits.
func TestNoFloats(t *testing.T) {
	s := load(t)
	for _, p := range coreTypes(t, s) {
		if !slices.Contains(noFloats, p.dir) {
			continue
		}
		for _, f := range p.files {
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				e, isExpr := n.(ast.Expr)
				if !isExpr {
					return true
				}
				of := p.info.TypeOf(e)
				if of == nil {
					return true
				}
				if basic, is := of.Underlying().(*types.Basic); is && basic.Info()&(types.IsFloat|types.IsComplex) != 0 {
					t.Errorf("%s: floating point, but what is stored, sent or compared between nodes must be the same bits everywhere", s.at(n.Pos()))
					return false
				}
				return true
			})
		}
	}
}

// TestFunctionLength: a function is read as a whole or not at all. Test files are free, since a table of
// cases may be long; generated files are nobody's style.
func TestFunctionLength(t *testing.T) {
	s := load(t)
	for _, f := range s.all {
		if f.isTest || f.generated {
			continue
		}
		most := 120
		if f.inCore() {
			most = 70
		}
		for _, d := range f.syntax.Decls {
			fn, isFunc := d.(*ast.FuncDecl)
			if !isFunc || fn.Body == nil {
				continue
			}
			lines := s.files.Position(fn.Body.Rbrace).Line - s.files.Position(fn.Body.Lbrace).Line - 1
			if lines > most {
				t.Errorf("%s: %s has %d lines between its braces, more than the %d that are allowed here: keep branches in the parent, move arithmetic to leaves",
					s.at(fn.Pos()), fn.Name.Name, lines, most)
			}
		}
	}
}

// TestNoHiddenCalls: what a program does begins in main, in the order that one can read.
func TestNoHiddenCalls(t *testing.T) {
	s := load(t)
	for _, f := range s.all {
		for _, d := range f.syntax.Decls {
			if fn, isFunc := d.(*ast.FuncDecl); isFunc && fn.Recv == nil && fn.Name.Name == "init" && !f.generated {
				t.Errorf("%s: an init function, but nothing registers itself here: app hands over what it knows", s.at(fn.Pos()))
			}
		}
		// The lab's hosts are processes of their own, each with a main that the lab brings along.
		if f.isTest || within(f.dir, "cmd") || within(f.dir, "internal/lab") {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			sel, isSel := n.(*ast.SelectorExpr)
			if !isSel {
				return true
			}
			pkg, isName := sel.X.(*ast.Ident)
			if isName && (pkg.Name == "os" && sel.Sel.Name == "Exit" || pkg.Name == "log" && strings.HasPrefix(sel.Sel.Name, "Fatal")) {
				t.Errorf("%s: %s.%s, but only main ends the program: return an error", s.at(n.Pos()), pkg.Name, sel.Sel.Name)
			}
			return true
		})
	}
}

// emptyNames say nothing of what a package is for, and so collect everything.
var emptyNames = []string{"util", "utils", "common", "manager", "types", "helper", "helpers", "misc", "shared", "base", "lib"}

// TestPackages: every package has a name that a manual could use, and says what it is.
func TestPackages(t *testing.T) {
	s := load(t)
	documented := make(map[string]bool)
	for _, f := range s.all {
		if f.isTest && f.dir != "." {
			continue
		}
		documented[f.dir] = documented[f.dir] || f.syntax.Doc != nil || f.generated
		if name := f.syntax.Name.Name; slices.Contains(emptyNames, name) || slices.Contains(emptyNames, path.Base(f.dir)) {
			t.Errorf("%s: a package named %s collects what nobody places: name it for what it holds", f.path, name)
		}
	}
	for dir, has := range documented {
		if !has {
			t.Errorf("%s: no file has a package comment: say in one sentence what the package is for", dir)
		}
	}
}

// knownMethods are documented by the interface that they satisfy.
var knownMethods = []string{"String", "Error", "Unwrap", "Is", "As", "Len", "Less", "Swap", "MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "ServeHTTP"}

// TestExportedNamesAreDocumented: who uses a name reads its comment, not its code.
func TestExportedNamesAreDocumented(t *testing.T) {
	s := load(t)
	for _, f := range s.all {
		if f.isTest || f.generated || f.syntax.Name.Name == "main" {
			continue
		}
		for _, d := range f.syntax.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				known := d.Recv != nil && (slices.Contains(knownMethods, d.Name.Name) || !exportedReceiver(d))
				if d.Name.IsExported() && d.Doc == nil && !known {
					t.Errorf("%s: %s is exported and has no comment: say what it does, its units, its errors", s.at(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, name := range undocumented(d) {
					t.Errorf("%s: %s is exported and has no comment: say what it stands for", s.at(name.Pos()), name.Name)
				}
			}
		}
	}
}

func exportedReceiver(d *ast.FuncDecl) bool {
	of := d.Recv.List[0].Type
	for {
		switch t := of.(type) {
		case *ast.StarExpr:
			of = t.X
		case *ast.IndexExpr:
			of = t.X
		case *ast.IndexListExpr:
			of = t.X
		case *ast.Ident:
			return t.IsExported()
		default:
			return true
		}
	}
}

// undocumented are a declaration's exported names without a comment. In a block of constants or variables
// a comment covers those that follow it, and that of its type a constant.
func undocumented(d *ast.GenDecl) []*ast.Ident {
	var out []*ast.Ident
	covered := d.Doc != nil
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() && spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
				out = append(out, spec.Name)
			}
		case *ast.ValueSpec:
			covered = covered || spec.Doc != nil || spec.Comment != nil || (d.Tok == token.CONST && spec.Type != nil)
			for _, name := range spec.Names {
				if name.IsExported() && !covered {
					out = append(out, name)
				}
			}
		}
	}
	return out
}

// TestFormat: one format, so that a diff shows what changed.
func TestFormat(t *testing.T) {
	for _, f := range load(t).all {
		formatted, err := format.Source(f.text)
		if err != nil {
			t.Errorf("%s can't be formatted: %v", f.path, err)
		} else if !bytes.Equal(formatted, f.text) {
			t.Errorf("%s is not formatted: gofmt -w %s", f.path, f.path)
		}
	}
}

// contract is the page that comments cite as protocol.md.
const contract = "docs/internals/protocol.md"

// cited is what a comment may cite of the contract: its headings, without a mark that it is planned, and the
// numbers of the items under each.
type cited map[string][]string

var numberedItem = regexp.MustCompile(`^(\d+)\. `)

// headings reads what can be cited of the contract.
func headings(text string) cited {
	out, heading, inCode := make(cited), "", false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n ")
		level, title, is := strings.Cut(line, " ")
		switch item := numberedItem.FindStringSubmatch(line); {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			inCode = !inCode
		case inCode:
		case is && len(level) > 1 && strings.Trim(level, "#") == "":
			heading = strings.TrimSuffix(title, " (planned)")
			out[heading] = nil
		case item != nil && heading != "":
			out[heading] = append(out[heading], item[1])
		}
	}
	return out
}

var (
	citation = regexp.MustCompile(`protocol\.md`)
	// citedNext is one step of a citation: a heading in quotes, or the number of an item under the last one.
	citedNext = regexp.MustCompile(`^,?\s+(?:and\s+)?(?:"([^"]+)"|(\d+)\b)`)
)

// wrong returns what is wrong with the citations of the contract in a comment. They read: protocol.md, "Heading",
// 1, 2 and 3, and "Another heading".
func (c cited) wrong(comment string) []string {
	var out []string
	comment = strings.Join(strings.Fields(comment), " ") // a heading may be wrapped
	for _, at := range citation.FindAllStringIndex(comment, -1) {
		heading, rest := "", comment[at[1]:]
		for m := citedNext.FindStringSubmatch(rest); m != nil; m = citedNext.FindStringSubmatch(rest) {
			rest = rest[len(m[0]):]
			items, known := c[m[1]]
			switch {
			case m[1] != "" && !known:
				return append(out, fmt.Sprintf("there is no heading %q", m[1]))
			case m[1] != "":
				heading = m[1]
			case heading == "":
				return append(out, fmt.Sprintf("item %s of no heading", m[2]))
			default:
				if items = c[heading]; !slices.Contains(items, m[2]) {
					out = append(out, fmt.Sprintf("under %q there is no item %s", heading, m[2]))
				}
			}
		}
		if heading == "" {
			out = append(out, "no heading is named")
		}
	}
	return out
}

// TestCitations: a rule that the code carries out stands in the contract where the comment says, since a change
// of it begins there.
func TestCitations(t *testing.T) {
	text, err := os.ReadFile(contract)
	if err != nil {
		t.Fatal(err)
	}
	known := headings(string(text))
	s := load(t)
	for _, f := range s.all {
		if f.dir == "." {
			continue // its examples are wrong on purpose
		}
		for _, group := range f.syntax.Comments {
			for _, wrong := range known.wrong(group.Text()) {
				t.Errorf("%s: cites %s, but %s: name a heading of that page in quotes, and an item's number where that helps", s.at(group.Pos()), contract, wrong)
			}
		}
	}
}

// TestCitationsAreRead: the test above sees each kind of mistake.
func TestCitationsAreRead(t *testing.T) {
	known := headings("# Page\n## Clocks\n1. One.\n   3. in it\n2. Two.\n## Two nodes (planned)\n- no number\n```\n## Code\n3. no item\n```\n### Forming, and more\n1. One.\n")
	for comment, want := range map[string]string{
		"no citation at all, 7 and \"x\"":                           "",
		"(protocol.md, \"Clocks\")":                                 "",
		"(protocol.md,\n\"Clocks\", 1 and 2, and \"Two nodes\"): 9": "",
		"protocol.md, \"Forming,\nand more\", 1":                    "",
		"protocol.md says so":                                       "no heading is named",
		"protocol.md, 1":                                            "item 1 of no heading",
		"protocol.md, \"Clock\"":                                    "there is no heading \"Clock\"",
		"protocol.md, \"Code\"":                                     "there is no heading \"Code\"",
		"protocol.md, \"Clocks\", 1 and 3":                          "under \"Clocks\" there is no item 3",
		"protocol.md, \"Two nodes\", 1":                             "under \"Two nodes\" there is no item 1",
		"protocol.md, \"Clocks\"; protocol.md, \"Nothing\"":         "there is no heading \"Nothing\"",
	} {
		if got := strings.Join(known.wrong(comment), "; "); got != want {
			t.Errorf("%q: %q is wrong with it, want %q", comment, got, want)
		}
	}
}

// usualRoots are the directories of every system, which code and documentation may name.
var usualRoots = []string{"bin", "boot", "dev", "etc", "home", "lib", "media", "mnt", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var"}

// TestNoWorkplace: nothing names the place where it was written, since readers do not have it.
func TestNoWorkplace(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	place := filepath.ToSlash(here)
	first, _, below := strings.Cut(strings.TrimPrefix(place, "/"), "/")
	if below && !slices.Contains(usualRoots, first) {
		place = "/" + first + "/"
	}
	walk(t, func(name string, text []byte) {
		if bytes.IndexByte(text, 0) >= 0 {
			return // no text
		}
		for number, line := range strings.Split(string(text), "\n") {
			for i := strings.Index(line, place); i >= 0; {
				// Part of a longer path it is something else.
				if i == 0 || !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./~}", rune(line[i-1])) {
					t.Errorf("%s:%d names %s, a path of the machine on which it was written: write a path that every reader has", name, number+1, place)
					break
				}
				next := strings.Index(line[i+1:], place)
				if next < 0 {
					break
				}
				i += 1 + next
			}
		}
	})
}
