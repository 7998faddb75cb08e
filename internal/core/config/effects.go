package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"baton/internal/core/cluster"
)

// Effect is one thing that a new cluster file would do to a running cluster.
type Effect struct {
	Group cluster.GroupID // empty: it is not about one
	Node  cluster.NodeID  // where; empty: on no node alone
	Kind  EffectKind
	Text  string // one sentence, without the group's name
}

// EffectKind says what an Effect does.
type EffectKind string

const (
	// EffectNone changes what happens later, and nothing now.
	EffectNone EffectKind = "none"
	// EffectStart starts what did not run: a group, a resource, a hot standby.
	EffectStart EffectKind = "start"
	// EffectStop stops it.
	EffectStop EffectKind = "stop"
	// EffectRestart stops and starts resources on the node where they run.
	EffectRestart EffectKind = "restart"
	// EffectMove moves a group from its node to another.
	EffectMove EffectKind = "move"
	// EffectTiming changes the timers of every node.
	EffectTiming EffectKind = "timing"
	// EffectJoin makes a node of the cluster.
	EffectJoin EffectKind = "join"
	// EffectLeave takes a node out.
	EffectLeave EffectKind = "leave"
)

// Running is what a new file meets: where the groups run, and who votes.
type Running struct {
	Groups []Placement
	Voters []cluster.NodeID // empty: every node of the present file
}

// Placement says where a group runs.
type Placement struct {
	Group cluster.GroupID
	Owner cluster.NodeID // empty: it runs nowhere
	Next  cluster.NodeID // who would take it over; empty: nobody could
}

func (r Running) placement(id cluster.GroupID) Placement {
	for _, p := range r.Groups {
		if p.Group == id {
			return p
		}
	}
	return Placement{Group: id}
}

// Effects tells what a new file would do, on which node, before anything happens; never empty.
func Effects(before, after *cluster.Spec, at Running) []Effect {
	e := &effects{before: before, after: after, at: at}
	e.cluster()
	for _, id := range union(groupNames(before), groupNames(after)) {
		e.group(at.placement(id))
	}
	if len(e.list) == 0 {
		e.add("", "", EffectNone, "nothing moves, stops or restarts")
	}
	return e.list
}

// effects collects them.
type effects struct {
	before, after *cluster.Spec
	at            Running
	list          []Effect
}

func (e *effects) add(g cluster.GroupID, n cluster.NodeID, kind EffectKind, format string, args ...any) {
	e.list = append(e.list, Effect{g, n, kind, fmt.Sprintf(format, args...)})
}

// cluster tells what changes for all nodes, and who comes and goes.
func (e *effects) cluster() {
	if x, y := e.before.Timing, e.after.Timing; x.Takeover != y.Takeover {
		e.add("", "", EffectTiming, "the lease is %s instead of %s on every node; no lease is lost over it", brief(y.L), brief(x.L))
	}
	if e.before.KeyFile != e.after.KeyFile {
		e.add("", "", EffectNone, "each agent reads its key from %s at its next start", e.after.KeyFile)
	}
	if !slices.Equal(linkTexts(e.before, e.after), linkTexts(e.after, e.before)) {
		e.add("", "", EffectTiming, "every agent opens its links anew, while the unchanged ones go on")
	}
	for _, id := range union(nodeNames(e.before), nodeNames(e.after)) {
		x, y := e.before.Node(id), e.after.Node(id)
		switch {
		case x == nil:
			e.add("", id, EffectJoin, "it joins as a %s once its agent runs: baton invite %s", y.Role, id)
		case y == nil:
			e.add("", id, EffectLeave, "it votes no longer, and its agent ends")
		case y.Role != x.Role && y.Role == cluster.Witness:
			e.add("", id, EffectNone, "it goes on voting, and runs no group any more")
		case y.Role != x.Role:
			e.add("", id, EffectNone, "it is a %s from then on, and runs what names it", y.Role)
		}
	}
}

// linkTexts describes a file's links among the nodes that another names too.
func linkTexts(s, other *cluster.Spec) []string {
	out := make([]string, len(s.Links))
	for i, l := range s.Links {
		out[i] = fmt.Sprintf("%s %d", l.Name, l.UDP.Port)
		for _, n := range s.Nodes {
			if other.Node(n.ID) != nil {
				out[i] += fmt.Sprintf(" %s=%v", n.ID, l.UDP.Addresses[n.ID])
			}
		}
	}
	return out
}

// group tells what a group's change does.
func (e *effects) group(at Placement) {
	id, from := at.Group, len(e.list)
	before, after := e.before.Group(id), e.after.Group(id)
	switch {
	case before == nil:
		e.add(id, after.Nodes[0], EffectStart, "starts on %s, or on the next of its nodes that can", after.Nodes[0])
		e.standbys(after, after.Nodes[1:], EffectStart)
		return
	case after == nil:
		e.removed(before, at)
		return
	case reflect.DeepEqual(before, after):
		return
	}
	owner := e.moved(before, after, at)
	e.resources(before, after, owner)
	gone := common(before.Nodes, before.Nodes, func(a, _ cluster.NodeID) bool { return after.Prefers(a) < 0 && a != at.Owner })
	e.standbys(before, gone, EffectStop)
	come := common(after.Nodes, after.Nodes, func(a, _ cluster.NodeID) bool { return before.Prefers(a) < 0 && a != owner })
	e.standbys(after, come, EffectStart)
	e.preferred(before, after, owner)
	if len(e.list) == from {
		e.add(id, at.Owner, EffectNone, "nothing moves or restarts: the change counts from then on")
	}
}

func (e *effects) removed(g *cluster.GroupSpec, at Placement) {
	if at.Owner == "" {
		e.add(g.ID, "", EffectNone, "it runs nowhere: there is nothing to stop")
	} else {
		e.add(g.ID, at.Owner, EffectStop, "is stopped on %s for good%s", at.Owner, goneAddresses(g))
	}
	rest := slices.DeleteFunc(slices.Clone(g.Nodes), func(n cluster.NodeID) bool { return n == at.Owner })
	e.standbys(g, rest, EffectStop)
}

// goneAddresses says which addresses nobody answers on any more.
func goneAddresses(g *cluster.GroupSpec) string {
	var out []string
	for i := range g.Resources {
		for _, a := range g.Resources[i].Addresses {
			out = append(out, a.String())
		}
	}
	if len(out) == 0 {
		return ""
	}
	return ", and nobody answers at " + strings.Join(out, ", ")
}

// standbys tells what becomes of a group's hot standbys on nodes that come or go.
func (e *effects) standbys(g *cluster.GroupSpec, nodes []cluster.NodeID, kind EffectKind) {
	hot := slices.ContainsFunc(g.Resources, func(r cluster.ResourceSpec) bool { return r.Depth == cluster.Hot })
	for _, n := range nodes {
		if hot && kind == EffectStart {
			e.add(g.ID, n, kind, "its hot standby starts on %s", n)
		} else if hot {
			e.add(g.ID, n, kind, "its hot standby is stopped on %s", n)
		}
	}
}

// moved tells of a move that the owner's absence from the new nodes forces, and returns who owns the group
// then; empty: nobody.
func (e *effects) moved(before, after *cluster.GroupSpec, at Placement) cluster.NodeID {
	switch {
	case at.Owner == "":
		return ""
	case after.Prefers(at.Owner) >= 0:
		return at.Owner
	case after.Prefers(at.Next) >= 0:
		e.add(after.ID, at.Owner, EffectMove, "moves from %s to %s: %s may not run it any more", at.Owner, at.Next, at.Owner)
		return at.Next
	}
	for _, n := range after.Nodes {
		if before.Prefers(n) >= 0 {
			e.add(after.ID, at.Owner, EffectMove, "has to move from %s to %s, which can't take it now: the change waits for that", at.Owner, n)
			return n
		}
	}
	return "" // Refusals tells
}

// resources tells which of a group's resources start, stop or restart, on its owner and where a hot standby is.
func (e *effects) resources(before, after *cluster.GroupSpec, owner cluster.NodeID) {
	for i := range before.Resources {
		if x := &before.Resources[i]; !sameKind(x, after.Resource(x.ID)) {
			e.served(after, x, owner, EffectStop, "")
			e.standby(after, x, owner, EffectStop)
		}
	}
	for i := range after.Resources {
		y := &after.Resources[i]
		x := before.Resource(y.ID)
		if !sameKind(x, y) {
			e.served(after, y, owner, EffectStart, "")
			e.standby(after, y, owner, EffectStart)
			continue
		}
		if why := whyRestart(x, y, owner); why != "" {
			e.served(after, y, owner, EffectRestart, why)
		}
		switch wasHot, isHot := x.Depth == cluster.Hot, y.Depth == cluster.Hot; {
		case wasHot && !isHot:
			e.standby(after, x, owner, EffectStop)
		case isHot && !wasHot:
			e.standby(after, y, owner, EffectStart)
		case isHot:
			for _, n := range after.Nodes {
				if why := whyRestart(x, y, n); why != "" && n != owner {
					e.standbyOn(after, y, n, EffectRestart, why)
				}
			}
		}
	}
	x, y := common(before.Resources, after.Resources, sameResource), common(after.Resources, before.Resources, sameResource)
	if !slices.EqualFunc(x, y, sameResource) {
		e.add(after.ID, "", EffectNone, "the new order counts from the next start: what runs stays up")
	}
}

var effectVerbs = map[EffectKind]string{EffectStart: "starts", EffectStop: "is stopped", EffectRestart: "restarts"}

// served tells what happens to a resource on the owner; empty: there is none.
func (e *effects) served(g *cluster.GroupSpec, r *cluster.ResourceSpec, owner cluster.NodeID, kind EffectKind, why string) {
	if owner != "" {
		e.add(g.ID, owner, kind, "%s %s on %s%s", resourceName(r), effectVerbs[kind], owner, why)
	}
}

// standby tells what happens to a resource on the other nodes, if it runs there.
func (e *effects) standby(g *cluster.GroupSpec, r *cluster.ResourceSpec, owner cluster.NodeID, kind EffectKind) {
	for _, n := range g.Nodes {
		if r.Depth == cluster.Hot && n != owner {
			e.standbyOn(g, r, n, kind, "")
		}
	}
}

func (e *effects) standbyOn(g *cluster.GroupSpec, r *cluster.ResourceSpec, n cluster.NodeID, kind EffectKind, why string) {
	e.add(g.ID, n, kind, "%s %s on %s, where it stands by%s", resourceName(r), effectVerbs[kind], n, why)
}

// whyRestart says which of the fields that changed for a node need a restart there, to stand after a sentence; empty:
// none.
func whyRestart(before, after *cluster.ResourceSpec, on cluster.NodeID) string {
	x, y := before.On(on), after.On(on)
	names := x.Restarts(&y)
	switch len(names) {
	case 0:
		return ""
	case 1:
		return ": its " + names[0] + " changed"
	}
	return ": its " + strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1] + " changed"
}

// preferred tells of a group that is not where it is preferred by the new order.
func (e *effects) preferred(before, after *cluster.GroupSpec, owner cluster.NodeID) {
	first := after.Nodes[0]
	if owner == "" || owner == first || (first == before.Nodes[0] && before.Failback == after.Failback) {
		return
	}
	if after.Failback.Automatic {
		when := ""
		if after.Failback.After > 0 {
			when = fmt.Sprintf(" once that has been well for %s", brief(after.Failback.After))
		}
		e.add(after.ID, owner, EffectMove, "moves back to %s by itself%s: failback is automatic", first, when)
	} else if first != before.Nodes[0] {
		e.add(after.ID, owner, EffectNone, "stays on %s: baton failback %s moves it to %s, which is preferred now", owner, after.ID, first)
	}
}

// Refusal is why a running cluster can't take a new file in one step.
type Refusal struct {
	Text string // what can't be done, and why
	Hint string // what to do instead
}

// Refusals tells what of a change a running cluster can't do; empty: nothing. Both files are good by
// themselves.
func Refusals(before, after *cluster.Spec, at Running) []Refusal {
	var out []Refusal
	refuse := func(hint, format string, args ...any) {
		out = append(out, Refusal{fmt.Sprintf(format, args...), hint})
	}
	if before.Cluster != after.Cluster {
		refuse(fmt.Sprintf("write cluster: %s, or make a new cluster with baton init", before.Cluster),
			"the cluster's name can't change from %s to %s: its gates, processes and data bear the name", before.Cluster, after.Cluster)
	}
	voters := at.Voters
	if len(voters) == 0 {
		voters = nodeNames(before)
	}
	left := slices.DeleteFunc(slices.Clone(voters), func(n cluster.NodeID) bool { return after.Node(n) == nil })
	if len(left) < len(voters) && len(left) < MinVoters {
		refuse("add the new nodes first, let them join, and take the old ones out when baton status shows that the new ones vote",
			"of the voters %s only %d would be left (%s) until another has joined, and fewer than %d is %s",
			join(voters), len(left), join(left), MinVoters, notInThisVersion)
	}
	for _, p := range at.Groups {
		if x, y := before.Group(p.Group), after.Group(p.Group); stranded(x, y, p.Owner) {
			refuse(fmt.Sprintf("name both first, nodes: [%s, %s], and take the old ones out when it has moved", join(x.Nodes), join(y.Nodes)),
				"group %s runs on %s and may not by the new file, and none of the nodes that may run it now may by both: it could not move", p.Group, p.Owner)
		}
	}
	for _, pair := range cutPairs(before, after) {
		refuse("keep one link of theirs as it is, or add a second link in a step of its own first",
			"no link between %s and %s would stay as it is, so the change could not reach both", pair[0], pair[1])
	}
	for _, text := range handedOver(before, after) {
		refuse("take it out of the one group first, and give it to the other in a second step",
			"%s: two groups could have it at the same time", text)
	}
	return out
}

// stranded tells whether a group would have to leave its node and could go nowhere.
func stranded(before, after *cluster.GroupSpec, owner cluster.NodeID) bool {
	return before != nil && after != nil && owner != "" && after.Prefers(owner) < 0 &&
		!slices.ContainsFunc(after.Nodes, func(n cluster.NodeID) bool { return before.Prefers(n) >= 0 })
}

// cutPairs returns the nodes of both files that no unchanged link joins: a node learns of the change over
// the links that it knows, and the others use the new ones already.
func cutPairs(before, after *cluster.Spec) (out [][2]cluster.NodeID) {
	ids := common(nodeNames(before), nodeNames(after), func(a, b cluster.NodeID) bool { return a == b })
	for i, a := range ids {
		for _, b := range ids[i+1:] {
			if !slices.ContainsFunc(before.Links, func(x cluster.LinkSpec) bool {
				y := linkOf(after, x.Name)
				return y != nil && x.UDP.Port == y.UDP.Port && joins(x, a, b) &&
					x.UDP.Addresses[a] == y.UDP.Addresses[a] && x.UDP.Addresses[b] == y.UDP.Addresses[b]
			}) {
				out = append(out, [2]cluster.NodeID{a, b})
			}
		}
	}
	return out
}

func joins(l cluster.LinkSpec, a, b cluster.NodeID) bool {
	return l.UDP.Addresses[a].IsValid() && l.UDP.Addresses[b].IsValid()
}

// handedOver returns the addresses and ports that go from one group to another while both stay. A group
// that is removed is over before the new file counts, so what it had is free by then.
func handedOver(before, after *cluster.Spec) (out []string) {
	had := make(map[any][]int) // by address or port: which groups had it, by their places in the file
	for i := range before.Groups {
		for _, x := range frontsOf(&before.Groups[i]) {
			had[x] = append(had[x], i)
		}
	}
	for _, g := range after.Groups {
		var from []int
		for _, x := range frontsOf(&g) {
			from = append(from, had[x]...)
		}
		slices.Sort(from)
		for _, i := range slices.Compact(from) {
			other := before.Groups[i]
			if other.ID == g.ID || after.Group(other.ID) == nil {
				continue
			}
			for _, a := range g.Addresses() {
				if slices.Contains(other.Addresses(), a) {
					out = append(out, fmt.Sprintf("the address %s goes from group %s to group %s", a, other.ID, g.ID))
				}
			}
			meet := len(common(g.Nodes, other.Nodes, func(a, b cluster.NodeID) bool { return a == b })) > 0
			for _, p := range portsOf(&g) {
				if meet && slices.Contains(portsOf(&other), p) {
					out = append(out, fmt.Sprintf("the port %s goes from group %s to group %s", valueText(p), other.ID, g.ID))
				}
			}
		}
	}
	return out
}

// frontsOf returns a group's addresses and ports.
func frontsOf(g *cluster.GroupSpec) (out []any) {
	for _, a := range g.Addresses() {
		out = append(out, a)
	}
	for _, p := range portsOf(g) {
		out = append(out, p)
	}
	return out
}

func portsOf(g *cluster.GroupSpec) (out []cluster.Port) {
	for i := range g.Resources {
		out = append(out, g.Resources[i].Ports...)
	}
	return out
}
