package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/core/wire"
)

// This file checks, over time, that instructions and bans are kept, that groups return only to nodes that have
// been well, and that people are told the truth.

// kept is what the log says of instructions and bans, and who planned when.
type kept struct {
	stops    map[resourceOf]uint64 // log index of the Stop in force
	drains   map[cluster.NodeID]uint64
	bans     map[placement]banned // epoch 0
	last     map[cluster.GroupID]cluster.NodeID
	term     uint64 // of the newest entry
	began    uint64 // its first entry: who leads has applied that before it plans
	planned  uint64 // its newest entry of the planner that was made before the newest plan
	newest   uint64 // its newest entry of the planner …
	newestAt cluster.WallTime
	networks int64 // the network was last changed by a fault
	keys     map[string]uint64
	refused  map[string]time.Duration // commands that were refused at once
	asked    map[uint64]asking        // by number
	served   map[placement]int64      // epoch 0: when a gate was last opened there
}

type banned struct {
	index uint64
	until cluster.WallTime
}

// asking is a command that was given.
type asking struct {
	*node.Command
	at     int64
	server int // who served the group then
}

func (k *kept) init() {
	k.stops, k.drains, k.bans = map[resourceOf]uint64{}, map[cluster.NodeID]uint64{}, map[placement]banned{}
	k.last, k.keys, k.refused = map[cluster.GroupID]cluster.NodeID{}, map[string]uint64{}, map[string]time.Duration{}
	k.asked, k.served = map[uint64]asking{}, map[placement]int64{}
}

// knew tells whether whoever planned the newest entry had certainly applied an earlier one: it plans only after it
// has applied the first entry of its term, and its last proposal.
func (k *kept) knew(index uint64) bool { return index < max(k.began, k.planned) }

// keeps follows an entry that was applied for the first time anywhere, and judges what it decides.
func (w *world) keeps(e *cluster.LogEntry, d *cluster.Entry) {
	k := &w.check.kept
	if e.Term != k.term {
		k.term, k.began, k.planned, k.newest = e.Term, e.Index, 0, 0
	}
	if d == nil {
		return
	}
	if d.Rule != "" {
		if d.Wall != k.newestAt {
			k.planned = k.newest
		}
		k.newest, k.newestAt = e.Index, d.Wall
	}
	if d.ID != "" {
		w.notRefused(d.ID)
		if _, ok := k.keys[d.ID]; ok {
			return
		}
		k.keys[d.ID] = e.Index
	}
	w.outcome.entry(w, d)
	if d.Rule != "" {
		for _, p := range d.Parts {
			if p.Assign != nil {
				w.placesRightly(d, p.Assign)
			}
			if p.Move != nil && p.Move.Failback {
				w.returnsRightly(d.By, p.Move)
			}
		}
	}
	for _, p := range d.Parts {
		k.part(e.Index, p)
		if p.Move != nil {
			w.notRefused(p.Move.ID)
		}
	}
}

func (k *kept) part(index uint64, p cluster.Part) {
	switch {
	case p.Stop != nil:
		k.stops[resourceOf{p.Stop.Group, p.Stop.Resource}] = index
	case p.Start != nil:
		delete(k.stops, resourceOf{p.Start.Group, p.Start.Resource}) // if it was stopped anew it is, for this check, not
	case p.Drain != nil:
		if k.drains[p.Drain.Node] == 0 {
			k.drains[p.Drain.Node] = index
		}
	case p.Undrain != nil:
		delete(k.drains, p.Undrain.Node)
	case p.Ban != nil:
		k.bans[placement{group: p.Ban.Group, node: p.Ban.Node}] = banned{index, p.Ban.Until}
	case p.Unban != nil:
		delete(k.bans, placement{group: p.Unban.Group, node: p.Unban.Node})
	case p.Clear != nil:
		for b := range k.bans {
			if b.group == p.Clear.Group {
				delete(k.bans, b)
			}
		}
	case p.Assign != nil:
		k.last[p.Assign.Group] = p.Assign.To
	}
}

// adopted forgets what was said of groups and nodes that a revision no longer names.
func (k *kept) adopted(spec *cluster.Spec) {
	maps.DeleteFunc(k.stops, func(r resourceOf, _ uint64) bool { return spec.Group(r.group) == nil })
	maps.DeleteFunc(k.drains, func(n cluster.NodeID, _ uint64) bool { return spec.Node(n) == nil })
	maps.DeleteFunc(k.bans, func(p placement, _ banned) bool { return spec.Group(p.group) == nil || spec.Node(p.node) == nil })
}

// placesRightly judges a placement by the planner: never on a node that it knows to be drained, unless the group
// was there just before; and never where the group failed before while another node, as good in role, is well.
func (w *world) placesRightly(d *cluster.Entry, a *cluster.Assign) {
	k := &w.check.kept
	if at, ok := k.drains[a.To]; ok && k.knew(at) && d.Rule != "G11" && k.last[a.Group] != a.To {
		w.fail("instructions", "%s is placed on %s (rule %s), which is drained", a.Group, a.To, d.Rule)
	}
	b, ok := k.bans[placement{group: a.Group, node: a.To}]
	if _, pinned := w.check.said.pinned[a.Group]; !ok || pinned || b.until <= d.Wall || !k.knew(b.index) || d.Rule == "G11" || d.Rule == "G12" {
		return
	}
	by := w.index(cluster.NodeID(d.By))
	spec, g := w.latest.spec.Group(a.Group), w.groupIndex(a.Group)
	if g >= 0 && w.check.outages.groups[g].doubted {
		return // its health check has failed everywhere
	}
	if spec == nil || spec.Failover == cluster.FailoverManual || by < 0 || !w.well(by) {
		return
	}
	for _, id := range spec.Nodes {
		i := w.index(id)
		_, barred := k.bans[placement{group: a.Group, node: id}]
		_, drained := w.check.said.drained[id]
		if id != a.To && id != k.last[a.Group] && !barred && !drained && w.spec.Node(id).Role <= w.spec.Node(a.To).Role && w.well(i) {
			w.fail("bans", "%s is placed on %s (rule %s), where it failed before, though %s is well and it never failed there", a.Group, a.To, d.Rule, id)
		}
	}
}

// well tells whether a machine has been well, heard, and in possession of its lease, for so long that everybody
// knows.
func (w *world) well(i int) bool {
	m := w.machines[i]
	long := w.now - int64(3*w.check.length+settleSlack)
	if m.agent == nil || m.blocked() || m.runsSince == 0 || m.runsSince > long || m.hurt > long || w.check.kept.networks > long || w.unfit(i) || w.plan.StallEvery > 0 {
		return false
	}
	for k := range w.running {
		if f := &w.running[k]; f.on && (f.node == i || f.peer == i || f.node < 0) && f.Kind != NoStart && f.Kind != NoStop {
			return false
		}
	}
	return true
}

// hurts notes which machines a fault that begins or ends has to do with.
func (w *world) hurts(f *active) {
	if s := shapes[f.Kind]; s.link || f.Kind == Isolate {
		w.check.kept.networks = w.now
	}
	for _, i := range []int{f.node, f.peer} {
		if i >= 0 && !shapes[f.Kind].standing && f.Kind != Undrain && f.Kind != Fail && f.Kind != Switch {
			w.machines[i].hurt = w.now
		}
	}
}

// renews follows since when a node says that its lease runs.
func (m *machine) renews(hb *wire.Heartbeat) {
	switch {
	case !hb.LeaseRuns: // while its gate takes nothing it asks for none, and is as well as ever until that has lasted for L
		m.runsSince = 0
	case m.runsSince == 0:
		m.runsSince = m.w.now
	}
}

// returnsRightly judges a failback by the planner: the preferred node has been well for the time asked.
func (w *world) returnsRightly(by string, v *cluster.Move) {
	spec := w.latest.spec.Group(v.Group)
	i := w.index(v.To)
	if spec == nil || !spec.Failback.Automatic || i < 0 || !w.undisturbed() || time.Duration(w.now-w.check.calm.faultAt) < w.check.length {
		return
	}
	home := w.machines[i]
	least := spec.Failback.After*99/100 - w.check.length // clocks, and words of its lease that nobody heard
	if k := w.index(cluster.NodeID(by)); k >= 0 && time.Duration(w.now-w.machines[k].hurt) < spec.Failback.After {
		least -= w.check.length // whoever decided stood still, and its queues were full
	}
	if home.runsSince == 0 || time.Duration(w.now-home.runsSince) < least {
		w.fail("failback", "%s returns to %s, which has been well for %v, not for %v", v.Group, v.To, time.Duration(w.now-home.runsSince), spec.Failback.After)
	}
}

// stays checks that nothing of what was stopped serves or is started where the Stop is known, by this run of the
// agent or a former one.
func (w *world) stays(m *machine, out *node.Output) {
	for i := range out.Gates {
		if g := &out.Gates[i]; g.End > m.clock.read(w.now) && w.toldToStop(m, g.Group, "") {
			w.fail("instructions", "%s serves %s, of which it has applied that it is to be stopped", m.id, g.Group)
		}
	}
	for i := range out.Wants {
		if v := &out.Wants[i]; v.Target != cluster.TargetStopped && w.toldToStop(m, v.Group, "") {
			w.fail("instructions", "%s starts %s/%s, and has applied that the group is to be stopped", m.id, v.Group, v.Resource)
		}
		if v := &out.Wants[i]; v.Target == cluster.TargetRunning && w.toldToStop(m, v.Group, v.Resource) {
			w.fail("instructions", "%s starts %s/%s for clients, and has applied that it is to be stopped", m.id, v.Group, v.Resource)
		}
	}
}

func (w *world) toldToStop(m *machine, g cluster.GroupID, r cluster.ResourceID) bool {
	at := w.check.kept.stops[resourceOf{g, r}]
	return at > 0 && m.speaker.reach >= at
}

// remains looks at the end of a run at what still runs though it was stopped long ago.
func (w *world) remains() {
	for _, m := range w.machines {
		if m.agent == nil || m.blocked() || m.out || m.agent.State() == nil {
			continue
		}
		for i := range m.resources {
			r := &m.resources[i]
			g := w.spec.Groups[r.group].ID
			at := w.check.kept.stops[resourceOf{g, ""}]
			if at > 0 && m.applied >= at && r.status == cluster.StatusRunning && !r.busy && !m.faultOn(NoStop, r.group) &&
				time.Duration(w.now-max(w.check.changed, w.check.calm.faultAt)) > stopsWithin {
				w.fail("instructions", "%s/%s still runs on %s, which has long applied that it is to be stopped", g, r.spec.ID, m.id)
			}
		}
	}
}

// stopsWithin bounds how long a stop may take: its timeout, and a few tries.
const stopsWithin = 10 * time.Second

// gives notes a command, so that its answer can be judged.
func (w *world) gives(c *node.Command) {
	a := asking{Command: c, at: w.now, server: -1}
	if i := w.groupIndex(c.Group); i >= 0 {
		a.server = w.check.groups[i].server
	}
	w.check.kept.asked[c.ID] = a
}

// answers judges the replies of a step.
func (w *world) replies(m *machine, out *node.Output) {
	for i := range out.Replies {
		r := &out.Replies[i]
		a, ok := w.check.kept.asked[r.ID]
		if !ok || r.UnderWay {
			continue
		}
		key := fmt.Sprintf("%s-%x-%d", m.id, uint64(m.run), r.ID)
		switch {
		case !r.Done && a.at == w.now:
			w.check.kept.refused[key] = time.Duration(w.now)
		case !r.Done || strings.HasSuffix(r.Text, "nothing to do"):
		case a.Op == node.OpPropose:
			if at, ok := w.check.kept.keys[key]; !ok || at > m.applied {
				w.fail("replies", "%s tells that command %d is done (%s), which does not stand in the log", m.id, r.ID, r.Text)
			}
			if p := a.Part.Stop; p != nil && p.Resource == "" {
				w.reallyStopped(m, r, p.Group)
			}
		case a.Op == node.OpSwitch && a.To != "":
			opened := w.check.kept.served[placement{group: a.Group, node: a.To}]
			if i := w.index(a.To); w.lateness(i) > 0 || len(w.machines[i].late) > 0 {
				continue // the kernel will do it
			}
			if opened < a.at && (a.server < 0 || w.machines[a.server].id != a.To) {
				w.fail("replies", "%s tells that command %d is done (%s), and %s has not served %s since", m.id, r.ID, r.Text, a.To, a.Group)
			}
		}
	}
}

// reallyStopped judges the word that a group is stopped: nobody serves it, and nothing of it is up where an agent is that
// was heard.
func (w *world) reallyStopped(m *machine, r *node.Reply, id cluster.GroupID) {
	g := w.groupIndex(id)
	if g < 0 || w.check.kept.stops[resourceOf{id, ""}] == 0 {
		return // it was started again meanwhile
	}
	for _, o := range w.machines {
		if o.serves(g) && !o.clock.still && !w.excused(o, g) {
			w.fail("replies", "%s tells that command %d is done (%s), and %s serves %s", m.id, r.ID, r.Text, o.id, id)
		}
		for _, i := range o.parts[g] {
			if res := &o.resources[i]; res.up() && w.well(o.idx) {
				w.fail("replies", "%s tells that command %d is done (%s), and %s/%s is up on %s", m.id, r.ID, r.Text, id, res.spec.ID, o.id)
			}
		}
	}
}

// notRefused checks that what stands in the log was not refused when it was asked for.
func (w *world) notRefused(key string) {
	if at, ok := w.check.kept.refused[key]; ok {
		w.fail("replies", "a command that was refused at %v stands in the log", at)
	}
}

// permit allows one change of a group's node.
func (s *served) permit(to cluster.NodeID) { s.permits = append(s.permits, to) }

// use takes the permission to be served on a node; it tells whether there was one.
func (s *served) use(on cluster.NodeID) bool {
	i := slices.Index(s.permits, on)
	if i >= 0 {
		s.permits = slices.Delete(s.permits, i, i+1)
	}
	return i >= 0
}
