package app

import (
	"go/ast"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"baton/internal/io/api"
)

func metricDocs(*testing.T) string {
	rows := [][]string{{"metric", "type", "labels", "meaning"}}
	for _, m := range api.MetricList() {
		labels := ""
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "` `") + "`"
		}
		rows = append(rows, []string{quoted(m.Name), m.Type, labels, m.Help})
	}
	return docsTable(rows)
}

// logKeys are the keys of the agent's log, and what their values are. Each that the code logs has a note here.
var logKeys = map[string]string{
	"about":     "Node that the line is about, where that is another one.",
	"address":   "Address, with or without port.",
	"by":        "Who asked.",
	"without":   "Nodes that an operator said are to be done without.",
	"bytes":     "Size.",
	"in":        "A directory.",
	"cause":     "Error: what was tried, what was seen.",
	"cgroup":    "Directory of a control group.",
	"detail":    "Why a link can't be used.",
	"done":      "Whether what was asked for was done.",
	"epoch":     "Epoch of the group.",
	"event":     "[Event code](events.md), `decision`, or `output` of a program.",
	"evidence":  "What a decision rests on; in the journal one field per piece.",
	"file":      "Path, or what the file says.",
	"from":      "Node from which something came.",
	"group":     "Group that the line is about.",
	"hint":      "What to do.",
	"index":     "Number of a network interface.",
	"instead":   "What is used in its place.",
	"key":       "Fingerprint of a cluster key; never the key.",
	"lease":     "Length of a lease.",
	"limit":     "Limit that was exceeded.",
	"link":      "Link by name.",
	"mechanism": "Mechanism of the gate.",
	"node":      "This node. It stands in every line.",
	"offset":    "Place in a file.",
	"output":    "Where the output of a program goes.",
	"packets":   "How many packets.",
	"pid":       "Process id.",
	"reason":    "Why something was refused.",
	"resource":  "Resource that the line is about; its group stands beside it.",
	"revision":  "Revision of the configuration.",
	"rule":      "[Rule](rules.md) that decided.",
	"signal":    "Signal.",
	"stack":     "Stack of an internal error.",
	"step":      "Step of a change of the key.",
	"sync":      "How long a sync of the disk takes.",
	"to":        "Node to which something was sent.",
	"lasted":    "For how long it has failed.",
	"times":     "How often it has failed.",
	"took":      "How long it took.",
	"unit":      "Unit of systemd.",
	"up":        "Whether a link can be used.",
	"user":      "User that a program runs as.",
	"verdict":   "What a decision comes to.",
	"what":      "What systemd was to be told.",
}

// logCalls are the methods of a logger, and of a complaint that is given one, and where their keys begin.
var logCalls = map[string]int{"failed": 2, "worked": 2, "Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "With": 0, "Log": 3}

func logKeyDocs(t *testing.T) string {
	found := make(map[string]bool)
	dirs, err := filepath.Glob(filepath.Join(docsRoot, "internal/io/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(dirs, filepath.Join(docsRoot, "internal/app")) {
		rel, err := filepath.Rel(docsRoot, dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range docsParse(t, rel) {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if sel, ok := call.Fun.(*ast.SelectorExpr); ok && (isLogger(sel.X) || len(call.Args) > 1 && isLogger(call.Args[0])) {
					from, known := logCalls[sel.Sel.Name]
					for i := from; known && i < len(call.Args); i += 2 {
						if key := docsLiteral(call.Args[i]); key != "" {
							found[key] = true
						}
					}
				}
				return true
			})
		}
	}
	rows := [][]string{{"key", "field in the journal", "value"}}
	for _, key := range slices.Sorted(maps.Keys(found)) {
		if logKeys[key] == "" {
			t.Errorf("the log's key %q has no note in this test", key)
		}
		rows = append(rows, []string{quoted(key), quoted(journalName(key)), logKeys[key]})
	}
	for key := range logKeys {
		if !found[key] {
			t.Errorf("nothing logs the key %q", key)
		}
	}
	return docsTable(rows)
}

// isLogger tells whether an expression is a logger, by its name.
func isLogger(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return strings.EqualFold(e.Name, "log")
	case *ast.SelectorExpr:
		return strings.EqualFold(e.Sel.Name, "log")
	}
	return false
}
