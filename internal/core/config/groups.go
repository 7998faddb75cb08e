package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"baton/internal/core/cluster"
)

// placed is a resource with its place in the file.
type placed struct {
	position
	group    cluster.GroupID
	nodes    []cluster.NodeID
	resource cluster.ResourceSpec
	given    *node // the fields as written
}

func (r *reader) groups(n *node) {
	if n.kind != isMap {
		r.wants(n, "groups", "a map from names to groups")
		return
	}
	if len(n.entries) > maxGroups {
		r.fail(n.entries[maxGroups].position, "", "%d groups: a cluster has at most %d", len(n.entries), maxGroups)
		return
	}
	named := make(map[uint64]string, len(n.entries))
	for _, e := range n.entries {
		key := r.keyOf(cluster.GroupID(e.key))
		if other, taken := named[key]; taken {
			r.fail(e.position, "give one of them another name",
				"groups %s and %s: nodes call a group by a key of its name, and these two have the same", clip(other), clip(e.key))
		}
		named[key] = e.key
		r.group(e)
		if len(r.placed) > maxOfAll {
			r.fail(e.position, "make two clusters of it", "%d resources up to this group: a cluster has at most %d", len(r.placed), maxOfAll)
			return
		}
	}
	slices.SortFunc(r.spec.Groups, func(a, b cluster.GroupSpec) int { return cmp.Compare(a.ID, b.ID) })
}

func (r *reader) group(e entry) {
	what := "group " + clip(e.key)
	r.goodName(e.position, "a group", e.key)
	s := r.section(e.value, what, groupKeys)
	if s == nil {
		return
	}
	g := cluster.GroupSpec{ID: cluster.GroupID(e.key), Restarts: 1}
	if n := s["nodes"]; n != nil {
		g.Nodes = r.groupNodes(n, what)
	} else {
		g.Nodes = r.preferred()
		if len(g.Nodes) == 0 && len(r.spec.Nodes) > 0 {
			r.fail(e.position, "make some node a member", "%s has no node to run on: all nodes are witnesses", what)
		}
	}
	if n := s["failover"]; n != nil {
		g.Failover = r.failover(n, what)
	}
	if n := s["failback"]; n != nil {
		g.Failback = r.failback(n, what)
	}
	if n := s["restarts"]; n != nil {
		restarts, _ := r.integer(n, "restarts of "+what, 0, maxRestarts)
		g.Restarts = int(restarts)
	}
	g.Reach = r.reachAll
	if n := s["reach"]; n != nil {
		g.Reach = r.reach(n, what)
	}
	if n := s["resources"]; n != nil {
		first := len(r.placed)
		r.resources(n, &g)
		if n := s["standby"]; n != nil {
			r.groupStandby(n, what, r.placed[first:])
		}
		for _, p := range r.placed[first:] {
			g.Resources = append(g.Resources, p.resource)
		}
	}
	r.spec.Groups = append(r.spec.Groups, g)
}

// preferred are the nodes of a group that names none: members, then spares, by name.
func (r *reader) preferred() []cluster.NodeID {
	var out []cluster.NodeID
	for _, role := range []cluster.Role{cluster.Member, cluster.Spare} {
		for _, n := range r.spec.Nodes {
			if n.Role == role {
				out = append(out, n.ID)
			}
		}
	}
	return out
}

func (r *reader) groupNodes(n *node, what string) []cluster.NodeID {
	var out []cluster.NodeID
	if n.kind != isList || len(n.items) == 0 {
		r.wants(n, "nodes of "+what, "a list of nodes, most preferred first")
		return nil
	}
	spare := ""
	for _, item := range n.items {
		name, ok := r.text(item, "a node of "+what)
		if !ok || !r.knownNode(item.position, name, what) {
			continue
		}
		role := r.spec.Node(cluster.NodeID(name)).Role
		switch {
		case slices.Contains(out, cluster.NodeID(name)):
			r.fail(item.position, "", "%s names the node %s twice", what, name)
			continue
		case role == cluster.Witness:
			r.fail(item.position, "remove it here, or make it a member", "%s names %s, a witness, which runs nothing", what, name)
		case role == cluster.Member && spare != "":
			r.fail(item.position, "write spares last", "%s prefers %s, a spare, to %s, a member", what, spare, name)
		}
		if role == cluster.Spare {
			spare = name
		}
		out = append(out, cluster.NodeID(name))
	}
	return out
}

func (r *reader) failover(n *node, what string) cluster.FailoverPolicy {
	what = "failover of " + what
	if n.kind == isMap {
		s := r.section(n, what, failoverKeys)
		if n = s["default"]; n == nil {
			return cluster.FailoverAutomatic
		}
	}
	if r.asks(n, what, "write manual: the group then moves on a command only") {
		return cluster.FailoverAutomatic
	}
	if word, _ := r.word(n, what, "automatic", "manual"); word == "manual" {
		return cluster.FailoverManual
	}
	return cluster.FailoverAutomatic
}

// asks refuses the policy `ask`, which waits for a human's approval.
func (r *reader) asks(n *node, what, instead string) bool {
	if n.kind != isText || n.text != "ask" {
		return false
	}
	r.fail(n.position, instead, "%s: \"ask\" is %s", what, notInThisVersion)
	return true
}

func (r *reader) failback(n *node, what string) cluster.FailbackPolicy {
	what = "failback of " + what
	out := cluster.FailbackPolicy{After: DefaultFailbackAfter}
	mode := n
	var after *node
	if n.kind == isMap {
		s := r.section(n, what, failbackKeys)
		mode, after = s["mode"], s["after"]
	}
	if after != nil {
		if d, ok := r.duration(after, "after of "+what, 0, 30*24*time.Hour); ok {
			out.After = d
		}
	}
	if mode == nil || r.asks(mode, what, "write never: baton switch then returns the group") {
		return out
	}
	word, ok := r.word(mode, what, "never", "automatic")
	out.Automatic = word == "automatic"
	if ok && !out.Automatic {
		if after != nil {
			r.fail(after.position, "remove it, or write mode: automatic", "%s is never, so there is nothing to be after", what)
		}
		out.After = 0
	}
	return out
}

// resources reads a group's resources into r.placed.
func (r *reader) resources(n *node, g *cluster.GroupSpec) {
	what := "group " + string(g.ID)
	if n.kind != isList || len(n.items) == 0 {
		r.wants(n, "resources of "+what, "a list with at least one resource")
		return
	}
	if len(n.items) > maxResources {
		r.fail(n.items[maxResources].position, "", "%d resources: a group has at most %d", len(n.items), maxResources)
		return
	}
	first := len(r.placed)
	names := make(map[cluster.ResourceID]bool)
	for _, item := range n.items {
		p, ok := r.resource(item, g)
		if !ok {
			continue
		}
		if id := p.resource.ID; id != "" {
			if names[id] {
				r.fail(p.position, "", "a second resource named %q in %s", id, what)
			}
			names[id] = true
		}
		r.placed = append(r.placed, p)
	}
	// Names given come first; a resource without one is called by its kind, numbered from the second on.
	for i := range r.placed[first:] {
		p := &r.placed[first+i]
		if p.resource.ID != "" {
			continue
		}
		id := cluster.ResourceID(p.resource.Kind)
		for count := 2; names[id]; count++ {
			id = cluster.ResourceID(fmt.Sprintf("%s-%d", p.resource.Kind, count))
		}
		p.resource.ID, names[id] = id, true
	}
}

// keysOf returns the keys of a kind, which are put together once.
func (r *reader) keysOf(kind *cluster.KindSpec) []key {
	if r.keys[kind.Name] == nil {
		r.keys[kind.Name] = resourceKeys(kind)
	}
	return r.keys[kind.Name]
}

// resource reads one resource, a map with its kind as the only key.
func (r *reader) resource(item *node, g *cluster.GroupSpec) (placed, bool) {
	what := "group " + string(g.ID)
	if item.kind != isMap || len(item.entries) == 0 {
		r.wants(item, "a resource of "+what, "a map with one key, its kind")
		return placed{}, false
	}
	if len(item.entries) > 1 {
		r.fail(item.entries[1].position, "indent the fields below the kind, or begin the next resource with -",
			"a resource of %s has the keys %q and %q: it is a map with one key, its kind", what, clip(item.entries[0].key), clip(item.entries[1].key))
		return placed{}, false
	}
	e := item.entries[0]
	kind := r.kind(e)
	if kind == nil {
		return placed{}, false
	}
	p := placed{position: e.position, group: g.ID, nodes: g.Nodes, given: e.value}
	p.resource = cluster.ResourceSpec{Kind: kind.Name, Front: kind.Front, Effects: kind.Effects}
	what = fmt.Sprintf("%s of %s", kind.Name, what)
	given := e.value
	if given.kind != isMap {
		if kind.Main == "" || given.kind == isNull {
			r.wants(given, what, "a map of its fields")
			return placed{}, false
		}
		given = &node{position: e.position, kind: isMap, entries: []entry{{position: given.position, key: kind.Main, value: given}}}
		p.given = given
	}
	before := len(r.errs)
	r.among = g.Nodes
	s := r.section(given, what, r.keysOf(kind))
	p.resource.Fields = r.fields(s, what, kind.Fields)
	for _, f := range kind.Fields {
		if f.Live {
			p.resource.Live = append(p.resource.Live, f.Name)
		}
	}
	r.common(s, what, kind, &p.resource)
	if len(r.errs) == before {
		r.faults(kind, what, &p)
	}
	if len(r.errs) == before {
		r.guards(kind, what, &p)
	}
	return p, true
}

// kind finds the kind that a resource names.
func (r *reader) kind(e entry) *cluster.KindSpec {
	names := make([]string, len(r.kinds))
	for i := range r.kinds {
		if r.kinds[i].Name == e.key {
			return &r.kinds[i]
		}
		names[i] = r.kinds[i].Name
	}
	if slices.Contains(laterKinds, e.key) {
		r.fail(e.position, oneOf(names), "the resource kind %q is %s", e.key, notInThisVersion)
	} else {
		r.fail(e.position, didYouMean(e.key, names), "unknown resource kind %q", clip(e.key))
	}
	return nil
}

// common reads the fields that every resource has.
func (r *reader) common(s section, what string, kind *cluster.KindSpec, res *cluster.ResourceSpec) {
	if n := s[fieldName]; n != nil {
		if text, ok := r.text(n, "name of "+what); ok && r.goodName(n.position, "a resource", text) {
			res.ID = cluster.ResourceID(text)
		}
	}
	depths := depthsOf(kind)
	res.Depth = depths[len(depths)-1]
	if n := s[fieldStandby]; n != nil {
		words := make([]string, len(depths))
		for i, d := range depths {
			words[i] = d.String()
		}
		if word, ok := r.word(n, "standby of "+what, words...); ok {
			res.Depth = depths[slices.Index(words, word)]
		}
	}
	res.StartTimeout = r.timeout(s, what, kind, fieldStartTimeout)
	res.StopTimeout = r.timeout(s, what, kind, fieldStopTimeout)
}

func (r *reader) timeout(s section, what string, kind *cluster.KindSpec, field string) time.Duration {
	if n := s[field]; n != nil {
		d, _ := r.duration(n, field+" of "+what, time.Millisecond, 24*time.Hour)
		return d
	}
	return kindTimeout(kind, field)
}

// kindTimeout is the kind's default for start_timeout or stop_timeout.
func kindTimeout(kind *cluster.KindSpec, field string) time.Duration {
	d := kind.StartTimeout
	if field == fieldStopTimeout {
		d = kind.StopTimeout
	}
	if f := fieldOf(kind.Fields, field); d == 0 && f != nil {
		d, _ = f.Default.(time.Duration)
	}
	if d == 0 {
		d = time.Minute
	}
	return d
}

// depthsOf are the depths that a kind can stand by at; one that says nothing is cold.
func depthsOf(kind *cluster.KindSpec) []cluster.Depth {
	if len(kind.Depths) == 0 {
		return []cluster.Depth{cluster.Cold}
	}
	return kind.Depths
}

// groupStandby applies a group's depth to those of its resources that say nothing themselves. One that
// can't stand by so deep (an address is never hot) takes its deepest below; if none can, it is an error.
func (r *reader) groupStandby(n *node, what string, resources []placed) {
	word, ok := r.word(n, "standby of "+what, "cold", "warm", "hot")
	if !ok {
		return
	}
	wanted, reached := map[string]cluster.Depth{"cold": cluster.Cold, "warm": cluster.Warm, "hot": cluster.Hot}[word], false
	for i := range resources {
		p := &resources[i]
		if slices.ContainsFunc(p.given.entries, func(e entry) bool { return e.key == fieldStandby }) {
			reached = reached || p.resource.Depth == wanted
			continue
		}
		kind := r.kinds[slices.IndexFunc(r.kinds, func(k cluster.KindSpec) bool { return k.Name == p.resource.Kind })]
		p.resource.Depth = cluster.Cold
		for _, d := range depthsOf(&kind) {
			if d <= wanted {
				p.resource.Depth = max(p.resource.Depth, d)
			}
		}
		reached = reached || p.resource.Depth == wanted
	}
	if !reached && len(resources) > 0 {
		r.fail(n.position, "", "%s: none of its resources can stand by %s", what, word)
	}
}

// guards asks the kind what the gate guards for this resource.
func (r *reader) guards(kind *cluster.KindSpec, what string, p *placed) {
	if kind.Guards == nil {
		return
	}
	addresses, ports, err := kind.Guards(p.resource.Fields)
	if err != nil {
		r.fail(p.position, "", "%s: %v", what, err)
		return
	}
	for _, text := range addresses {
		a, err := netip.ParseAddr(text)
		if prefix, perr := netip.ParsePrefix(text); perr == nil {
			a, err = prefix.Addr(), nil
			p.resource.Subnets = append(p.resource.Subnets, prefix.Masked())
		}
		if err != nil {
			r.fail(p.position, "", "%s: the gate can't guard %q, which is no address", what, clip(text))
			continue
		}
		p.resource.Addresses = append(p.resource.Addresses, a)
	}
	p.resource.Ports = slices.Clone(ports)
}

// faults notes what the kind finds wrong with its fields, each where it is written.
func (r *reader) faults(kind *cluster.KindSpec, what string, p *placed) {
	if kind.Faults == nil {
		return
	}
	for _, f := range kind.Faults(p.resource.Fields) {
		r.fail(placeOf(p.given, f.Path), f.Hint, "%s", f.Of(what))
	}
}

// placeOf is where a field's value stands: that of the innermost field on the path that is written.
func placeOf(n *node, path []string) position {
	for _, name := range path {
		i := slices.IndexFunc(n.entries, func(e entry) bool { return e.key == name })
		if i < 0 {
			break
		}
		n = n.entries[i].value
	}
	return n.position
}
