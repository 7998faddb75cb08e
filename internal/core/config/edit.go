package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"

	"baton/internal/core/cluster"
)

// Without returns a cluster file's text without a node: without its entry among the nodes, its address on links,
// and its name in groups. A link that joined it to one other goes whole. Everything else stays as it is, each
// comment included, but for those inside of what goes. It returns an error where no good file would remain.
func Without(text []byte, id cluster.NodeID, kinds []cluster.KindSpec) ([]byte, error) {
	spec, err := Parse("the cluster file", text, kinds)
	if err != nil {
		return nil, err
	}
	switch {
	case spec.Node(id) == nil:
		return nil, fmt.Errorf("there is no node %q", id)
	case len(spec.Nodes) <= MinVoters:
		return nil, fmt.Errorf("%d nodes would remain, and a cluster has at least %d", len(spec.Nodes)-1, MinVoters)
	}
	for i := range spec.Groups {
		if g := &spec.Groups[i]; len(g.Nodes) == 1 && g.Nodes[0] == id {
			return nil, fmt.Errorf("no node would remain that may run %s", g.ID)
		}
	}
	e, err := newEditor(text)
	if err != nil {
		return nil, err
	}
	e.dropNode(string(id))
	out := e.result()
	next, err := Parse("the cluster file without "+string(id), out, kinds)
	if err != nil {
		return nil, err
	}
	if next.Node(id) != nil || len(next.Nodes) != len(spec.Nodes)-1 || len(next.Groups) != len(spec.Groups) {
		return nil, fmt.Errorf("the file is written in a way that can't be changed by a program")
	}
	return out, nil
}

// editor cuts pieces out of a text.
type editor struct {
	text  []byte
	lines []int // where each line begins
	root  ast.Node
	cuts  []span
}

// span is a piece of the text, from one byte to another.
type span struct{ from, to int }

func newEditor(text []byte) (*editor, error) {
	e := &editor{text: text, lines: []int{0}}
	for i, b := range text {
		if b == '\n' {
			e.lines = append(e.lines, i+1)
		}
	}
	tokens, err := tokenize(string(text))
	if err != nil {
		return nil, err
	}
	file, err := parse(tokens)
	if err != nil {
		return nil, err
	}
	for _, d := range file.Docs {
		if d.Body != nil {
			e.root = d.Body
		}
	}
	return e, nil
}

// dropNode cuts out a node wherever the file names one.
func (e *editor) dropNode(id string) {
	e.dropEntry(value(e.root, "nodes"), id)
	if links, ok := value(e.root, "links").(*ast.SequenceNode); ok {
		for i, l := range links.Values {
			addresses := value(value(l, "udp"), "addresses")
			if addresses == nil || value(addresses, id) == nil {
				continue
			}
			if len(entries(addresses)) <= 2 {
				e.dropItem(links, i)
				continue
			}
			e.dropEntry(addresses, id)
		}
	}
	for _, g := range entries(value(e.root, "groups")) {
		if nodes, ok := value(g.Value, "nodes").(*ast.SequenceNode); ok {
			for i, n := range nodes.Values {
				if t := n.GetToken(); t != nil && t.Value == id {
					e.dropItem(nodes, i)
				}
			}
		}
	}
}

// entries returns the entries of a map; nil: it is none.
func entries(n ast.Node) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}

func entryAt(n ast.Node, key string) *ast.MappingValueNode {
	for _, v := range entries(n) {
		if t := v.Key.GetToken(); t != nil && t.Value == key {
			return v
		}
	}
	return nil
}

// value returns what a map holds under a key; nil: nothing.
func value(n ast.Node, key string) ast.Node {
	if v := entryAt(n, key); v != nil {
		return v.Value
	}
	return nil
}

// dropEntry cuts an entry out of a map.
func (e *editor) dropEntry(m ast.Node, key string) {
	v := entryAt(m, key)
	if v == nil {
		return
	}
	if flow, ok := m.(*ast.MappingNode); ok && flow.IsFlowStyle {
		e.cutFlow(e.offset(place(v.Key.GetToken())))
		return
	}
	at := place(v.Key.GetToken())
	e.cutBlock(at.line, at.column-1)
}

// dropItem cuts an item out of a list.
func (e *editor) dropItem(list *ast.SequenceNode, i int) {
	at := place(list.Values[i].GetToken())
	if list.IsFlowStyle {
		start := at
		if m := entries(list.Values[i]); len(m) > 0 {
			start = place(m[0].Key.GetToken())
		}
		from := e.offset(start)
		if flow, ok := list.Values[i].(*ast.MappingNode); ok && flow.IsFlowStyle {
			from = e.offset(place(flow.Start))
		}
		e.cutFlow(from)
		return
	}
	if m := entries(list.Values[i]); len(m) > 0 {
		at = place(m[0].Key.GetToken())
	}
	// The dash stands before the item, in its line or one above.
	for line := at.line; line > 0; line-- {
		if text := e.line(line); strings.HasPrefix(strings.TrimLeft(text, " "), "-") {
			e.cutBlock(line, len(text)-len(strings.TrimLeft(text, " ")))
			return
		}
	}
}

// offset returns where a place of the file is in the text. Columns count characters.
func (e *editor) offset(at position) int {
	from := e.lines[at.line-1]
	for range at.column - 1 {
		_, n := utf8.DecodeRune(e.text[from:])
		from += n
	}
	return from
}

func (e *editor) line(n int) string {
	to := len(e.text)
	if n < len(e.lines) {
		to = e.lines[n]
	}
	return strings.TrimRight(string(e.text[e.lines[n-1]:to]), "\r\n")
}

// cutBlock cuts a line and those below that are indented deeper. Comments and empty lines go only if more of it
// follows them.
func (e *editor) cutBlock(line, indent int) {
	last := line
	for n := line + 1; n <= len(e.lines); n++ {
		text := strings.TrimLeft(e.line(n), " ")
		if text == "" || text[0] == '#' {
			continue
		}
		if len(e.line(n))-len(text) <= indent {
			break
		}
		last = n
	}
	to := len(e.text)
	if last < len(e.lines) {
		to = e.lines[last]
	}
	e.cuts = append(e.cuts, span{e.lines[line-1], to})
}

// cutFlow cuts an item that begins at an offset out of a list or map in brackets, with one comma, and the line
// that it stood in if nothing but a comment is left there.
func (e *editor) cutFlow(from int) {
	to := e.endOfItem(from)
	if to < len(e.text) && e.text[to] == ',' {
		to++
		for to < len(e.text) && e.text[to] == ' ' {
			to++
		}
	} else {
		before := bytes.TrimRight(e.text[:from], " \r\n")
		if comma := bytes.HasSuffix(before, []byte(",")); comma {
			from = len(before) - 1
		}
	}
	begin, end := e.lines[e.lineOf(from)-1], len(e.text)
	if n := e.lineOf(from); n < len(e.lines) {
		end = e.lines[n]
	}
	before, after := strings.TrimSpace(string(e.text[begin:from])), ""
	if to <= end {
		after = strings.TrimSpace(string(e.text[to:end]))
	} else {
		after = "more"
	}
	if before == "" && (after == "" || after[0] == '#') {
		from, to = begin, end
	}
	e.cuts = append(e.cuts, span{from, to})
}

func (e *editor) lineOf(offset int) int {
	n, found := slices.BinarySearch(e.lines, offset)
	if found {
		return n + 1
	}
	return n
}

// endOfItem returns where an item of a list or map in brackets ends: at its comma, or the closing bracket.
func (e *editor) endOfItem(at int) int {
	depth, quote := 0, byte(0)
	for ; at < len(e.text); at++ {
		b := e.text[at]
		switch {
		case quote != 0:
			if b == '\\' && quote == '"' {
				at++
			} else if b == quote {
				quote = 0
			}
		case b == '"' || b == '\'':
			quote = b
		case b == '#' && at > 0 && (e.text[at-1] == ' ' || e.text[at-1] == '\n'):
			for at+1 < len(e.text) && e.text[at+1] != '\n' {
				at++
			}
		case b == '{' || b == '[':
			depth++
		case (b == '}' || b == ']') && depth == 0, b == ',' && depth == 0:
			return at
		case b == '}' || b == ']':
			depth--
		}
	}
	return at
}

// result returns the text without what was cut.
func (e *editor) result() []byte {
	slices.SortFunc(e.cuts, func(a, b span) int { return a.from - b.from })
	var out []byte
	at := 0
	for _, c := range e.cuts {
		if c.from > at {
			out = append(out, e.text[at:c.from]...)
		}
		at = max(at, c.to)
	}
	return append(out, e.text[at:]...)
}
