package config

import (
	"fmt"
	"math"
	"slices"
	"time"

	"baton/internal/core/cluster"
)

// maxDuration bounds durations that have no limit of their own.
const maxDuration = 365 * 24 * time.Hour

// fields reads the given fields from a section and fills in defaults. The result has no entry for a
// field that is absent and has no default.
func (r *reader) fields(s section, what string, specs []cluster.FieldSpec) map[string]any {
	out := make(map[string]any)
	for i := range specs {
		f := &specs[i]
		n := s[f.Name]
		if n == nil {
			if f.Default != nil {
				out[f.Name] = f.Default
			}
			continue
		}
		if value, ok := r.field(n, fmt.Sprintf("%s of %s", f.Name, what), f); ok {
			out[f.Name] = value
		}
	}
	return out
}

// field reads one field by its type.
func (r *reader) field(n *node, what string, f *cluster.FieldSpec) (any, bool) {
	if f.ByNode && n.kind == isMap {
		return r.byNode(n, what, f)
	}
	switch f.Type {
	case cluster.FieldString:
		return r.textField(n, what, f)
	case cluster.FieldList:
		words, ok := r.words(n, what)
		if ok && len(words) == 0 {
			r.fail(n.position, "", "%s is empty", what)
			return nil, false
		}
		return words, ok && r.chosen(n.position, what, f, words...)
	case cluster.FieldBool:
		return both(r.truth(n, what))
	case cluster.FieldInt:
		return both(r.integer(n, what, 0, math.MaxInt64))
	case cluster.FieldDuration:
		return both(r.duration(n, what, 0, maxDuration))
	case cluster.FieldPrefix:
		return both(r.prefix(n, what))
	case cluster.FieldPort:
		return both(r.port(n, what))
	case cluster.FieldPorts:
		return r.portsField(n, what)
	case cluster.FieldEnv:
		return r.envField(n, what)
	case cluster.FieldMap:
		if s := r.section(n, what, fieldKeys(f.Fields)); s != nil {
			return r.fields(s, what, f.Fields), true
		}
		return nil, false
	}
	r.fail(n.position, "", "%s has the type %q, which this version does not know", what, f.Type)
	return nil, false
}

// byNode reads a field that is given node by node: for each node that may run the group, and for no other.
func (r *reader) byNode(n *node, what string, f *cluster.FieldSpec) (any, bool) {
	one := *f
	one.ByNode = false
	out, good := make(cluster.ByNode), true
	for _, e := range n.entries {
		if !r.knownNode(e.position, e.key, what) {
			good = false
			continue
		}
		id := cluster.NodeID(e.key)
		if !slices.Contains(r.among, id) {
			r.fail(e.position, "remove it here, or name the node in nodes of the group", "%s names %s, which may not run the group", what, id)
			good = false
			continue
		}
		value, ok := r.field(e.value, fmt.Sprintf("%s on %s", what, id), &one)
		out[id], good = value, good && ok
	}
	for _, id := range r.among {
		if _, named := out[id]; !named && good {
			r.fail(n.position, fmt.Sprintf("add %s: …, or write one value for all nodes", id), "%s says nothing for %s, which may run the group", what, id)
			return nil, false
		}
	}
	return out, good
}

// both makes a value and whether it is good fit for a caller that wants any value.
func both[T any](value T, ok bool) (any, bool) { return value, ok }

func (r *reader) textField(n *node, what string, f *cluster.FieldSpec) (any, bool) {
	text, ok := r.text(n, what)
	if !ok {
		return nil, false
	}
	if text == "" {
		r.fail(n.position, "", "%s is empty", what)
		return nil, false
	}
	return text, r.chosen(n.position, what, f, text)
}

// chosen checks values against the choices of a field that has some.
func (r *reader) chosen(at position, what string, f *cluster.FieldSpec, values ...string) bool {
	if len(f.Choices) == 0 {
		return true
	}
	for _, v := range values {
		if !slices.Contains(f.Choices, v) {
			r.fail(at, didYouMean(v, f.Choices), "%s can't be %q", what, clip(v))
			return false
		}
	}
	return true
}

func (r *reader) portsField(n *node, what string) (any, bool) {
	ports, good := []cluster.Port{}, true
	for _, item := range one(n) {
		p, ok := r.port(item, what)
		switch {
		case !ok:
			good = false
		case slices.Contains(ports, p):
			r.fail(item.position, "", "%s: %s/%d stands there twice", what, p.Protocol, p.Number)
			good = false
		default:
			ports = append(ports, p)
		}
	}
	return ports, good
}

func (r *reader) envField(n *node, what string) (any, bool) {
	if n.kind != isMap {
		r.wants(n, what, "a map from names to values")
		return nil, false
	}
	env, good := make(map[string]string), true
	for _, e := range n.entries {
		if !envRule.MatchString(e.key) {
			r.fail(e.position, "letters, digits and _ make a name, and it does not begin with a digit", "%s: %q is no name of a variable", what, clip(e.key))
			good = false
			continue
		}
		switch e.value.kind {
		case isText, isInt, isFloat, isBool:
			env[e.key] = e.value.text
		default:
			r.fail(e.value.position, `write a text; "" is the empty one`, "%s: %s is %s", what, e.key, describe(e.value))
			good = false
		}
	}
	return env, good
}

// fieldShape is the JSON Schema of a field.
func fieldShape(f *cluster.FieldSpec) map[string]any {
	if f.ByNode {
		one := *f
		one.ByNode = false
		return anyShape(fieldShape(&one), namedShape(namePattern, fieldShape(&one)))
	}
	switch f.Type {
	case cluster.FieldList:
		return anyShape(textShape(), listShape(map[string]any{"type": []string{"string", "number"}}))
	case cluster.FieldBool:
		return map[string]any{"type": "boolean"}
	case cluster.FieldInt:
		return intShape(0, math.MaxInt64)
	case cluster.FieldDuration:
		return patternShape(durationPattern)
	case cluster.FieldPrefix:
		return patternShape(prefixPattern)
	case cluster.FieldPort:
		return portShape()
	case cluster.FieldPorts:
		return anyShape(portShape(), listShape(portShape()))
	case cluster.FieldEnv:
		return namedShape(envPattern, map[string]any{"type": []string{"string", "number", "boolean"}})
	case cluster.FieldMap:
		return mapShape(fieldKeys(f.Fields))
	}
	if len(f.Choices) > 0 {
		return wordShape(f.Choices...)
	}
	return textShape()
}

func portShape() map[string]any { return anyShape(intShape(1, 65535), patternShape(portPattern)) }
