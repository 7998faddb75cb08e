package config

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"baton/internal/core/cluster"
)

// mostShown is how many characters a former and a new value may have together to be shown.
const mostShown = 100

// Diff tells how one cluster file differs from another, one line for each change, in the words of the
// file. Empty: both mean the same. Values of environment variables are never shown: they may be secrets.
func Diff(before, after *cluster.Spec) []string {
	d := &differ{}
	d.value("cluster", before.Cluster, after.Cluster)
	d.value("takeover", brief(before.Timing.Takeover), brief(after.Timing.Takeover))
	d.value("key_file", before.KeyFile, after.KeyFile)
	d.nodes(before, after)
	d.links(before, after)
	for _, id := range union(groupNames(before), groupNames(after)) {
		d.group(id, before, after)
	}
	return d.lines
}

// differ collects lines.
type differ struct{ lines []string }

func (d *differ) add(format string, args ...any) {
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

// value notes a value that has changed.
func (d *differ) value(what, before, after string) {
	if before == after {
		return
	}
	none := func(s string) string {
		if s == "" {
			return "none"
		}
		return s
	}
	if len([]rune(before))+len([]rune(after)) > mostShown {
		d.add("%s changed", what)
		return
	}
	d.add("%s %s → %s", what, none(before), none(after))
}

// union returns the members of two sorted lists, sorted, each once.
func union[T ~string](a, b []T) []T {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

func nodeNames(s *cluster.Spec) []cluster.NodeID {
	out := make([]cluster.NodeID, len(s.Nodes))
	for i := range s.Nodes {
		out[i] = s.Nodes[i].ID
	}
	return out
}

func groupNames(s *cluster.Spec) []cluster.GroupID {
	out := make([]cluster.GroupID, len(s.Groups))
	for i := range s.Groups {
		out[i] = s.Groups[i].ID
	}
	return out
}

func (d *differ) nodes(before, after *cluster.Spec) {
	for _, id := range union(nodeNames(before), nodeNames(after)) {
		a, b := before.Node(id), after.Node(id)
		switch {
		case a == nil:
			d.add("node %s added: %s at %s", id, b.Role, b.Address)
		case b == nil:
			d.add("node %s removed", id)
		default:
			d.value(fmt.Sprintf("node %s: address", id), a.Address.String(), b.Address.String())
			d.value(fmt.Sprintf("node %s: role", id), a.Role.String(), b.Role.String())
		}
	}
}

func linkOf(s *cluster.Spec, name string) *cluster.LinkSpec {
	for i := range s.Links {
		if s.Links[i].Name == name {
			return &s.Links[i]
		}
	}
	return nil
}

func linkNames(s *cluster.Spec) []string {
	out := make([]string, len(s.Links))
	for i := range s.Links {
		out[i] = s.Links[i].Name
	}
	return slices.Sorted(slices.Values(out))
}

func (d *differ) links(before, after *cluster.Spec) {
	for _, name := range union(linkNames(before), linkNames(after)) {
		a, b := linkOf(before, name), linkOf(after, name)
		switch {
		case a == nil:
			d.add("link %s added: udp port %d", name, b.UDP.Port)
			continue
		case b == nil:
			d.add("link %s removed", name)
			continue
		}
		d.value(fmt.Sprintf("link %s: port", name), fmt.Sprint(a.UDP.Port), fmt.Sprint(b.UDP.Port))
		for _, id := range union(nodeNames(before), nodeNames(after)) {
			if before.Node(id) == nil || after.Node(id) == nil {
				continue // the line on the node tells
			}
			x, y := a.UDP.Addresses[id], b.UDP.Addresses[id]
			if x == before.Node(id).Address && y == after.Node(id).Address {
				continue // so does that on its address
			}
			d.value(fmt.Sprintf("link %s: address of %s", name, id), addressText(x), addressText(y))
		}
	}
	if a, b := common(before.Links, after.Links, sameLink), common(after.Links, before.Links, sameLink); !slices.EqualFunc(a, b, sameLink) {
		d.add("links reordered")
	}
}

func sameLink(a, b cluster.LinkSpec) bool { return a.Name == b.Name }

// common returns what of a list is in another too.
func common[T any](of, in []T, same func(a, b T) bool) (out []T) {
	for _, x := range of {
		if slices.ContainsFunc(in, func(y T) bool { return same(x, y) }) {
			out = append(out, x)
		}
	}
	return out
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (d *differ) group(id cluster.GroupID, before, after *cluster.Spec) {
	a, b := before.Group(id), after.Group(id)
	switch {
	case a == nil:
		d.add("group %s added on %s: %s", id, join(b.Nodes), resourceNames(b))
		if former := renamedFrom(b, before, after); former != "" {
			d.add("group %s is as group %s was: a new name makes a new group", id, former)
		}
		return
	case b == nil:
		d.add("group %s removed", id)
		return
	}
	what := fmt.Sprintf("group %s: ", id)
	d.value(what+"nodes", join(a.Nodes), join(b.Nodes))
	d.value(what+"failover", failoverText(a.Failover), failoverText(b.Failover))
	d.value(what+"failback", failbackText(a.Failback), failbackText(b.Failback))
	d.value(what+"reach", reachText(a.Reach), reachText(b.Reach))
	d.value(what+"restarts", fmt.Sprint(a.Restarts), fmt.Sprint(b.Restarts))
	for i := range a.Resources {
		if x := &a.Resources[i]; !sameKind(x, b.Resource(x.ID)) {
			d.add("%s%s removed", what, resourceName(x))
		}
	}
	for i := range b.Resources {
		y := &b.Resources[i]
		if x := a.Resource(y.ID); sameKind(y, x) {
			d.resource(what+resourceName(y)+": ", x, y)
		} else {
			d.add("%s%s added%s", what, resourceName(y), mainValue(y))
		}
	}
	x, y := common(a.Resources, b.Resources, sameResource), common(b.Resources, a.Resources, sameResource)
	if !slices.EqualFunc(x, y, sameResource) {
		d.add("%sresources reordered: %s → %s", what, resourceNames(a), resourceNames(b))
	}
}

// renamedFrom names the group that was removed and had all that this one has; empty: none.
func renamedFrom(g *cluster.GroupSpec, before, after *cluster.Spec) cluster.GroupID {
	for _, old := range before.Groups {
		same := *g
		same.ID = old.ID
		if after.Group(old.ID) == nil && reflect.DeepEqual(same, old) {
			return old.ID
		}
	}
	return ""
}

func sameKind(a, b *cluster.ResourceSpec) bool { return a != nil && b != nil && a.Kind == b.Kind }

func sameResource(a, b cluster.ResourceSpec) bool { return a.ID == b.ID && a.Kind == b.Kind }

func join[T ~string](names []T) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = string(n)
	}
	return strings.Join(out, ", ")
}

// resourceName names a resource by its kind and, where it has one of its own, its name.
func resourceName(r *cluster.ResourceSpec) string {
	if string(r.ID) == r.Kind {
		return r.Kind
	}
	return r.Kind + " " + string(r.ID)
}

func resourceNames(g *cluster.GroupSpec) string {
	out := make([]string, len(g.Resources))
	for i := range g.Resources {
		out[i] = resourceName(&g.Resources[i])
	}
	return strings.Join(out, ", ")
}

// mainValue shows the addresses of a resource that has some, to stand after its name.
func mainValue(r *cluster.ResourceSpec) string {
	if len(r.Addresses) == 0 {
		return ""
	}
	out := make([]string, len(r.Addresses))
	for i, a := range r.Addresses {
		out[i] = a.String()
	}
	return " (" + strings.Join(out, ", ") + ")"
}

func failoverText(p cluster.FailoverPolicy) string {
	if p == cluster.FailoverManual {
		return "manual"
	}
	return "automatic"
}

func failbackText(p cluster.FailbackPolicy) string {
	if !p.Automatic {
		return "never"
	}
	return "automatic after " + brief(p.After)
}

func (d *differ) resource(what string, a, b *cluster.ResourceSpec) {
	d.fields(what, a.Fields, b.Fields)
	d.value(what+"standby", a.Depth.String(), b.Depth.String())
	// A kind may have the timeouts among its own fields.
	if _, own := b.Fields[fieldStartTimeout]; !own {
		d.value(what+fieldStartTimeout, brief(a.StartTimeout), brief(b.StartTimeout))
	}
	if _, own := b.Fields[fieldStopTimeout]; !own {
		d.value(what+fieldStopTimeout, brief(a.StopTimeout), brief(b.StopTimeout))
	}
}

// fields compares what a kind's fields hold; a field that is itself a map is compared part by part.
func (d *differ) fields(what string, a, b map[string]any) {
	for _, name := range union(slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b))) {
		x, y := a[name], b[name]
		if reflect.DeepEqual(x, y) {
			continue
		}
		xm, xIs := x.(map[string]any)
		ym, yIs := y.(map[string]any)
		if _, differs := y.(cluster.ByNode); differs || isByNode(x) {
			d.byNode(what+name, x, y)
			continue
		}
		xe, xEnv := x.(map[string]string)
		ye, yEnv := y.(map[string]string)
		switch {
		case xIs && yIs:
			d.fields(what+name+".", xm, ym)
		case xIs:
			d.add("%s%s removed", what, name)
		case yIs:
			d.add("%s%s added: %s", what, name, mapText(ym))
		case xEnv || yEnv:
			d.environment(what+name, xe, ye)
		default:
			d.value(what+name, valueText(x), valueText(y))
		}
	}
}

func isByNode(v any) bool {
	_, differs := v.(cluster.ByNode)
	return differs
}

// byNode compares what a field is on each node that has a value of its own for it.
func (d *differ) byNode(what string, x, y any) {
	names := func(v any) []cluster.NodeID {
		m, _ := v.(cluster.ByNode)
		return slices.Sorted(maps.Keys(m))
	}
	on := func(v any, node cluster.NodeID) string {
		if m, differs := v.(cluster.ByNode); differs {
			return valueText(m[node])
		}
		return valueText(v)
	}
	for _, node := range union(names(x), names(y)) {
		d.value(what+" on "+string(node), on(x, node), on(y, node))
	}
}

func (d *differ) environment(what string, a, b map[string]string) {
	for _, name := range union(slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b))) {
		x, had := a[name]
		y, has := b[name]
		switch {
		case !had:
			d.add("%s: %s added", what, name)
		case !has:
			d.add("%s: %s removed", what, name)
		case x != y:
			d.add("%s: %s changed", what, name)
		}
	}
}

// mapText shows the parts of a map that say most: those that are texts.
func mapText(m map[string]any) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		switch m[name].(type) {
		case string, []string:
			out = append(out, name+" "+valueText(m[name]))
		}
	}
	return clip(strings.Join(out, ", "))
}

// valueText writes a value of a field as one would in the file; nil is nothing.
func valueText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case time.Duration:
		return brief(v)
	case []string:
		words := make([]string, len(v))
		for i, w := range v {
			words[i] = w
			if w == "" || strings.ContainsAny(w, " \t'\"") {
				words[i] = fmt.Sprintf("%q", w)
			}
		}
		return strings.Join(words, " ")
	case []cluster.Port:
		ports := make([]string, len(v))
		for i, p := range v {
			ports[i] = valueText(p)
		}
		return strings.Join(ports, ", ")
	case cluster.Port:
		return fmt.Sprintf("%s/%d", v.Protocol, v.Number)
	}
	return fmt.Sprint(v)
}
