package config

import (
	"fmt"

	"baton/internal/core/cluster"
)

// key declares one key of the file once: for reading, for the schema and for its documentation.
type key struct {
	name     string
	doc      string
	required bool
	// later is set for a key that the interface has and this version lacks: what to do instead.
	later string
	// instead names the required key that such a key stands for, so that it is not reported as lacking.
	instead string
	// shape is the value's JSON Schema.
	shape map[string]any
}

const notInThisVersion = "not in this version"

// Patterns of the file, for reading and for the schema.
const (
	namePattern     = `^[a-z0-9][a-z0-9-]{0,62}$`
	durationPattern = `^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`
	envPattern      = `^[A-Za-z_][A-Za-z0-9_]*$`
	portPattern     = `^((tcp|udp)/)?[0-9]{1,5}$`
	prefixPattern   = `^[0-9a-fA-F.:]+/[0-9]{1,3}$`
	addressPattern  = `^[0-9a-fA-F.:]+$`
)

func textShape() map[string]any { return map[string]any{"type": "string"} }

func patternShape(pattern string) map[string]any {
	return map[string]any{"type": "string", "pattern": pattern}
}

func wordShape(words ...string) map[string]any { return map[string]any{"enum": words} }

func intShape(from, to int64) map[string]any {
	return map[string]any{"type": "integer", "minimum": from, "maximum": to}
}

func listShape(items map[string]any) map[string]any {
	return map[string]any{"type": "array", "items": items}
}

func anyShape(shapes ...map[string]any) map[string]any { return map[string]any{"anyOf": shapes} }

// mapShape is a map with exactly these keys.
func mapShape(keys []key) map[string]any {
	properties, required := make(map[string]any), []string{}
	for _, k := range keys {
		if k.later != "" {
			continue
		}
		shape := make(map[string]any, len(k.shape)+1)
		// order does not matter: a copy.
		for name, value := range k.shape {
			shape[name] = value
		}
		shape["description"] = k.doc
		properties[k.name] = shape
		if k.required {
			required = append(required, k.name)
		}
	}
	out := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

// namedShape is a map from names to values of one shape.
func namedShape(names string, value map[string]any) map[string]any {
	return map[string]any{"type": "object", "propertyNames": map[string]any{"pattern": names}, "additionalProperties": value}
}

var fileKeys = []key{
	{name: "cluster", required: true, shape: patternShape(namePattern),
		doc: "The cluster's name."},
	{name: "takeover", shape: patternShape(durationPattern),
		doc: "The one timing knob, 100ms to 60s: after any single fault a group serves again within this time, its own start-up excluded. Default: 3s."},
	{name: "key_file", shape: patternShape(`^/`),
		doc: "The file with the cluster's key, the same on every node. Default: " + DefaultKeyFile + "."},
	{name: "nodes", required: true, shape: namedShape(namePattern, mapShape(nodeKeys)),
		doc: "The machines of the cluster by name: three to seven."},
	{name: "links", shape: listShape(mapShape(linkKeys)),
		doc: "The ways for heartbeats, which go over all of them at once. Default: UDP port 7400 on each node's address."},
	{name: "groups",
		doc: "The units of failover by name."}, // its shape depends on the resource kinds
	{name: "health", shape: mapShape(healthKeys),
		doc: "Where nodes answer monitors and load balancers: /metrics, /healthz, /readyz, /v1/groups/GROUP/primary, for whoever asks. Default: nowhere."},
	{name: "reach", shape: reachShape(),
		doc: reachDoc + "It counts for groups that say nothing themselves. Default: the links in the subnet of the group's address."},
	{name: "receivers", later: "remove it; the journal and the agent's log tell what happened"},
	{name: "arbiters", later: "remove it; a third node with role witness makes a majority of two"},
	{name: "defaults", later: "write it under each group"},
	{name: "fence", later: "remove it; only groups that the gate can cut off can run without a fence"},
	{name: "watchdog", later: "remove it; only groups that the gate can cut off can run without a watchdog"},
}

var nodeKeys = []key{
	{name: "address", required: true, shape: patternShape(addressPattern),
		doc: "The node's own address, IPv4 or IPv6, never a name."},
	{name: "role", shape: wordShape("member", "spare", "witness"),
		doc: "member (default) runs groups and votes; spare runs groups only when no member can, and votes; witness votes and runs nothing."},
	{name: "vote", later: "remove it; every node votes"},
	{name: "fence", later: "remove it; only groups that the gate can cut off can run without a fence"},
	{name: "watchdog", later: "remove it; only groups that the gate can cut off can run without a watchdog"},
}

var linkKeys = []key{
	{name: "name", required: true, shape: patternShape(namePattern), doc: "The link's name."},
	{name: "udp", required: true, shape: mapShape(udpKeys), doc: "A link over UDP."},
	{name: "serial", instead: "udp", later: "use a second network as a second udp link"},
}

var udpKeys = []key{
	{name: "port", shape: intShape(1, 65535), doc: "UDP port. Default: 7400."},
	{name: "addresses", shape: namedShape(namePattern, patternShape(addressPattern)),
		doc: "The address of each node that the link joins. Default: every node's own address."},
}

var groupKeys = []key{
	{name: "nodes", shape: listShape(patternShape(namePattern)),
		doc: "The nodes that may run the group, most preferred first. Default: all members, then all spares, by name."},
	{name: "failover", shape: anyShape(wordShape("automatic", "manual"), mapShape(failoverKeys)),
		doc: "Whether the group moves by itself after a failure: automatic (default) or manual."},
	{name: "failback", shape: anyShape(wordShape("never", "automatic"), mapShape(failbackKeys)),
		doc: "Whether the group returns to a preferred node by itself: never (default) or automatic."},
	{name: "restarts", shape: intShape(0, maxRestarts),
		doc: "Restarts on the same node before the group moves, where no hot standby is ready. Default: 1."},
	{name: "standby", shape: wordShape("cold", "warm", "hot"),
		doc: "How deep the group's resources stand by on the nodes that do not serve. Default: as each kind says."},
	{name: "resources", required: true,
		doc: "What runs together, started in this order and stopped in reverse."}, // its shape depends on the kinds
	{name: "companion", later: "remove it; groups are placed independently of each other"},
	{name: "doubled", later: "remove it; limit the service with its own means"},
	{name: "receivers", later: "remove it; the journal and the agent's log tell what happened"},
	{name: "reach", shape: reachShape(),
		doc: reachDoc + "Default: as the file's reach says."},
	{name: "exclusive", later: "remove it; every group is served by one node at most"},
	{name: "on_stop_failure", later: "remove it; a group whose stop failed is blocked on that node until baton clear"},
	{name: "durability", later: "remove it"},
}

var failoverKeys = []key{
	{name: "default", required: true, shape: wordShape("automatic", "manual"), doc: "As failover itself."},
	{name: "data-loss", later: "remove it; no kind of this version holds data of its own"},
}

var failbackKeys = []key{
	{name: "mode", required: true, shape: wordShape("never", "automatic"), doc: "As failback itself."},
	{name: "after", shape: patternShape(durationPattern),
		doc: "How long the preferred node must have been well. Default: 10m."},
	{name: "window", later: "use failback: never, and baton switch at the time that suits"},
}

// laterKinds are the kinds that the interface has and this version may lack.
var laterKinds = []string{"systemd", "ocf", "script", "mount", "postgres", "vm", "route", "dns"}

// Common fields of every resource, whatever its kind.
const (
	fieldName         = "name"
	fieldStandby      = "standby"
	fieldStartTimeout = "start_timeout"
	fieldStopTimeout  = "stop_timeout"
)

// resourceKeys are the fields of a resource of one kind: those of every kind, then the kind's own.
func resourceKeys(kind *cluster.KindSpec) []key {
	depths := []string{}
	for _, d := range depthsOf(kind) {
		depths = append(depths, d.String())
	}
	common := []key{
		{name: fieldName, shape: patternShape(namePattern), doc: "The resource's name, unique within its group. Default: its kind."},
		{name: fieldStandby, shape: wordShape(depths...), doc: "How deep the resource stands by where it does not serve."},
		{name: fieldStartTimeout, shape: patternShape(durationPattern), doc: fmt.Sprintf("How long a start may take. Default: %v.", kindTimeout(kind, fieldStartTimeout))},
		{name: fieldStopTimeout, shape: patternShape(durationPattern), doc: fmt.Sprintf("How long a stop may take. Default: %v.", kindTimeout(kind, fieldStopTimeout))},
		{name: "durability", later: "remove it"},
		{name: "on_stop_failure", later: "remove it; a group whose stop failed is blocked on that node until baton clear"},
	}
	keys := []key{}
	for _, k := range common {
		own := fieldOf(kind.Fields, k.name)
		if own == nil || k.later == "" {
			keys = append(keys, k)
		}
	}
	for _, k := range fieldKeys(kind.Fields) {
		if keyOf(keys, k.name) == nil {
			keys = append(keys, k)
		}
	}
	return keys
}

// fieldKeys turns a kind's fields into keys.
func fieldKeys(fields []cluster.FieldSpec) []key {
	keys := make([]key, len(fields))
	for i := range fields {
		f := &fields[i]
		keys[i] = key{name: f.Name, doc: f.Doc, required: f.Required, shape: fieldShape(f)}
	}
	return keys
}

func keyOf(keys []key, name string) *key {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}

func fieldOf(fields []cluster.FieldSpec, name string) *cluster.FieldSpec {
	for i := range fields {
		if fields[i].Name == name {
			return &fields[i]
		}
	}
	return nil
}
