package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxFile bounds a cluster file, in bytes: it travels in one entry of the log.
const maxFile = 1 << 20

// maxTokens bounds the words and marks of a file: the YAML library takes time by the square of a map's
// length, and every node of the cluster reads the file. 500 groups of two resources need some 40,000.
const maxTokens = 100_000

// maxDepth bounds how deep values stand inside each other; the deepest known field needs nine.
const maxDepth = 32

// nodeKind says what a node of the tree is. The zero value is nothing at all.
type nodeKind uint8

const (
	isNull nodeKind = iota
	isMap
	isList
	isText
	isInt
	isFloat
	isBool
)

// node is one value of the file. It stands between the YAML library and the rules of the file, so
// that these see only maps, lists and scalars with their places.
type node struct {
	position
	kind    nodeKind
	quoted  bool    // text in quotes or in a block
	text    string  // of a scalar, as written, without quotes
	entries []entry // of a map; each key once
	items   []*node // of a list
}

// entry is one key of a map with its value.
type entry struct {
	position
	key   string
	value *node
}

// tree turns the text into a tree, or notes why it can't and returns nil.
func (c *complaints) tree(text []byte) *node {
	if !c.plainText(text) {
		return nil
	}
	// Tokens are looked at before the library parses them: what this file may not hold, and nesting
	// that would exhaust the stack, is refused here.
	tokens, err := tokenize(string(text))
	if err != nil {
		c.fail(position{1, 1}, yamlHint, "this is not YAML: %v", err)
		return nil
	}
	if len(tokens) > maxTokens {
		c.fail(place(tokens[maxTokens]), "", "the file has %d words and marks, more than the %d that a cluster file may have", len(tokens), maxTokens)
		return nil
	}
	if !c.plainTokens(tokens) {
		return nil
	}
	file, err := parse(tokens)
	if err != nil {
		c.failYAML(err)
		return nil
	}
	return c.document(file)
}

// tokenize and parse turn a panic of the YAML library into an error: a text can't be allowed to end the
// agent. (Fuzzing finds such texts in every YAML library.)
func tokenize(text string) (tokens token.Tokens, err error) {
	defer recoverTo(&err)
	return lexer.Tokenize(text), nil
}

func parse(tokens token.Tokens) (file *ast.File, err error) {
	defer recoverTo(&err)
	// Duplicate keys are found later, so that all of them are reported.
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

func recoverTo(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the YAML reader gave up: %v", p)
	}
}

// plainText refuses what is no text, before anything tries to understand it.
func (c *complaints) plainText(text []byte) bool {
	start := position{1, 1}
	switch {
	case len(text) > maxFile:
		c.fail(start, "", "the file has %d bytes, more than the %d that a cluster file may have", len(text), maxFile)
		return false
	case len(strings.TrimSpace(string(text))) == 0:
		c.fail(start, "baton init writes a first cluster file", "the file is empty")
		return false
	case strings.HasPrefix(string(text), "\uFEFF"):
		c.fail(start, "save it without a byte order mark", "the file begins with a byte order mark")
		return false
	}
	for i, line := range c.lines {
		if !utf8.ValidString(line) {
			c.fail(position{i + 1, 1}, "save it as UTF-8", "this line is not UTF-8")
			continue
		}
		c.plainLine(i+1, line)
	}
	return len(c.errs) == 0
}

func (c *complaints) plainLine(number int, line string) {
	column, indent := 0, true
	for _, r := range line {
		column++
		switch {
		case r == '\t' && indent:
			c.fail(position{number, column}, "indent with spaces", "a tab in the indentation")
			return
		case (r < ' ' && r != '\t') || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xFEFF:
			c.fail(position{number, column}, "remove it", "a control character (%U)", r)
			return
		}
		indent = indent && (r == ' ' || r == '-')
	}
}

// refusedTokens are the parts of YAML that let one text mean another: a cluster file means what it says.
var refusedTokens = []struct {
	token token.Type
	name  string
	hint  string
}{
	{token.AnchorType, "anchors (&name)", "write the value where it is needed"},
	{token.AliasType, "aliases (*name)", "write the value where it is needed, or put a text that begins with * in quotes"},
	{token.MergeKeyType, "merge keys (<<)", "write the keys where they are needed"},
	{token.TagType, "tags (!name)", "remove it, or put a text that begins with ! in quotes"},
	{token.DirectiveType, "directives (%NAME)", "remove it, or put a text that begins with % in quotes"},
	{token.MappingKeyType, "complex keys (?)", "write key: value"},
}

func (c *complaints) plainTokens(tokens token.Tokens) bool {
	depth, dashes, dashLine, content := 0, 0, 0, false
	for _, t := range tokens {
		at := place(t)
		for _, r := range refusedTokens {
			if t.Type == r.token {
				c.fail(at, r.hint, "%s have no place in a cluster file", r.name)
			}
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType:
			if at.line != dashLine {
				dashes, dashLine = 0, at.line
			}
			dashes++
		case token.DocumentHeaderType:
			if content && len(c.errs) == 0 {
				c.fail(at, "one file describes one cluster: remove what is below", "a second document")
				return false
			}
			content = true
		}
		if depth > maxDepth || dashes > maxDepth {
			c.fail(at, "", "values stand inside each other more than %d deep", maxDepth)
			return false
		}
		content = content || t.Type != token.CommentType
	}
	return len(c.errs) == 0
}

func place(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{t.Position.Line, t.Position.Column}
}

// failYAML notes what the YAML library found.
func (c *complaints) failYAML(err error) {
	var placed interface {
		GetMessage() string
		GetToken() *token.Token
	}
	if errors.As(err, &placed) {
		c.fail(place(placed.GetToken()), yamlHint, "this is not YAML: %s", placed.GetMessage())
		return
	}
	c.fail(position{1, 1}, yamlHint, "this is not YAML: %v", err)
}

// yamlHint is about what is wrong most often.
const yamlHint = "what belongs together begins in the same column, and every { and [ needs its end; look at the line above, too"

// document converts the file's only document.
func (c *complaints) document(file *ast.File) *node {
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			c.fail(place(doc.Body.GetToken()), "one file describes one cluster: remove what is below", "a second document")
			return nil
		}
		body = doc.Body
	}
	if body == nil {
		c.fail(position{1, 1}, "baton init writes a first cluster file", "the file holds nothing but comments")
		return nil
	}
	return c.convert(body, 0)
}

// convert turns a value of the YAML library into a node; a value that it can't read becomes nothing.
func (c *complaints) convert(n ast.Node, depth int) *node {
	out := &node{position: place(n.GetToken())}
	if depth > maxDepth {
		c.fail(out.position, "", "values stand inside each other more than %d deep", maxDepth)
		return out
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		c.convertMap(out, n.Values, depth)
	case *ast.MappingValueNode:
		c.convertMap(out, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		out.kind = isList
		for _, v := range n.Values {
			out.items = append(out.items, c.convert(v, depth+1))
		}
	case *ast.LiteralNode:
		out.kind, out.quoted = isText, true
		if n.Value != nil {
			out.text = n.Value.Value
		}
	case *ast.NullNode:
	default:
		c.convertScalar(out, n)
	}
	return out
}

func (c *complaints) convertScalar(out *node, n ast.Node) {
	t := n.GetToken()
	if t == nil {
		c.fail(out.position, "", "this is not YAML: a value without text")
		return
	}
	out.text = t.Value
	switch n.(type) {
	case *ast.IntegerNode:
		out.kind = isInt
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		out.kind = isFloat
	case *ast.BoolNode:
		out.kind = isBool
	case *ast.StringNode:
		out.kind = isText
		out.quoted = t.Type == token.SingleQuoteType || t.Type == token.DoubleQuoteType
	default:
		c.fail(out.position, "", "%s has no place in a cluster file", n.Type())
	}
}

func (c *complaints) convertMap(out *node, values []*ast.MappingValueNode, depth int) {
	out.kind = isMap
	first := make(map[string]int)
	for i, v := range values {
		t := v.Key.GetToken()
		e := entry{position: place(t)}
		if i == 0 {
			// The token of a block map is its first colon; its place is that of its first key.
			out.position = e.position
		}
		if _, isScalar := v.Key.(ast.ScalarNode); !isScalar || t == nil {
			c.fail(e.position, "write key: value", "a key must be a single word")
			continue
		}
		e.key = t.Value
		if line, known := first[e.key]; known {
			c.fail(e.position, fmt.Sprintf("it stands in line %d already: keep one of the two", line), "duplicate key %q", e.key)
			continue
		}
		first[e.key] = e.line
		e.value = c.convert(v.Value, depth+1)
		if e.value.kind == isNull {
			e.value.position = e.position
		}
		out.entries = append(out.entries, e)
	}
}
