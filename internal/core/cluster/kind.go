package cluster

import (
	"fmt"
	"strings"
	"time"
)

// KindSpec describes a resource kind as data, so that the file's reader, the simulator and the
// documentation know a kind without its code. Each kind exports one.
type KindSpec struct {
	Name         string
	Doc          string // one sentence
	Main         string // the field that a bare value stands for
	Fields       []FieldSpec
	Front        bool    // clients reach the group through it
	Effects      Effects // where it acts on the world
	Depths       []Depth // the depths that it can stand by at; the last is its default
	StartTimeout time.Duration
	StopTimeout  time.Duration
	// Guards returns the addresses and ports that the gate guards for a resource with these fields. An address with
	// a prefix length, as in 10.0.0.50/24, tells the subnet that its clients come from as well.
	Guards func(fields map[string]any) (addresses []string, ports []Port, err error)
	// Faults returns what is wrong with these fields on whatever host, beyond what FieldSpec tells; nil: nothing, or the
	// kind has no such rules.
	Faults func(fields map[string]any) []FieldFault
}

// FieldFault is what is wrong with a field of a resource, whatever host it is for.
type FieldFault struct {
	Path  []string // the field, and the fields within it
	Value string   // as it is written, where that is shown; empty: it is not
	Text  string   // what is wrong, to stand after the value, else after the field: "is no absolute path"
	Hint  string   // what to write instead
}

// String returns the field and what is wrong with it.
func (f FieldFault) String() string { return f.Of("") }

// Of returns the field of a resource, such as "process of group web", and what is wrong with it.
func (f FieldFault) Of(resource string) string {
	field := strings.Join(f.Path, ".")
	if resource != "" {
		field += " of " + resource
	}
	if f.Value != "" {
		return fmt.Sprintf("%s: %q %s", field, f.Value, f.Text)
	}
	return field + " " + f.Text
}

// FieldSpec describes one field of a resource kind.
type FieldSpec struct {
	Name     string
	Type     FieldType
	Doc      string
	Required bool
	Default  any // of the type's Go form; nil: absent
	Choices  []string
	Fields   []FieldSpec // of a FieldMap
	// ByNode says that it may also be given node by node, as a map from names of nodes (cluster.ByNode).
	ByNode bool
	// Live says that a change of the field takes effect on what runs: it needs no restart.
	Live bool
}

// FieldType says how a field is written and which Go type Spec.Fields holds for it.
type FieldType string

const (
	FieldString   FieldType = "string"   // string
	FieldList     FieldType = "list"     // []string; a string is split as a shell splits words
	FieldBool     FieldType = "bool"     // bool
	FieldInt      FieldType = "int"      // int64
	FieldDuration FieldType = "duration" // time.Duration; written with its unit
	FieldPrefix   FieldType = "prefix"   // netip.Prefix; written as ADDRESS/BITS
	FieldEnv      FieldType = "env"      // map[string]string
	FieldPort     FieldType = "port"     // Port; written as tcp/80
	FieldPorts    FieldType = "ports"    // []Port
	FieldMap      FieldType = "map"      // map[string]any, by Fields
)
