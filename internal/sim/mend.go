package sim

import (
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/decide"
)

// This file checks goal Mend: surroundings fail and heal, one after another, over hours. In between, and at every
// moment, what can be served is served; a node is kept off only for what is not mended; one cause moves a group once.

// mending is what goal Mend keeps of a group.
type mending struct {
	moved int // since the last fault began, but for homecomings
	home  int // homecomings since then
}

// returns is how a group's homecomings have gone, under goal Mend: each that did not last has the next wait longer.
type returns struct {
	at    int64 // when it last came home; 0: it is not there
	short int   // how many in a row did not last
}

// goes follows a move of a group.
func (r *returns) goes(now int64, home bool, policy cluster.FailbackPolicy) {
	switch {
	case home:
		r.at = now
	case r.at != 0:
		r.short++
		if stayed := time.Duration(now - r.at); stayed > max(time.Minute, 4*policy.After<<min(r.short, 10)) {
			r.short = 0
		}
		r.at = 0
	}
}

// wait is for how long at the most a group's preferred node must be well for its return.
func (r *returns) wait(policy cluster.FailbackPolicy) time.Duration {
	return min(policy.After<<min(r.short, 10), max(policy.After, time.Hour))
}

// reach is within what a group serves after something has changed: the takeover, its start, and what a planned
// move adds.
func (w *world) reach(group int) time.Duration {
	return w.spec.Timing.Promised(w.plan.Takeover) + 2*w.plan.Groups[w.planGroup[group]].Start + plannedGap
}

// changedBy notes that a fault has begun, or ended.
func (c *checker) changedBy(w *world, begins bool) {
	if w.plan.Goal != Mend {
		return
	}
	c.changed = w.now
	for i := range c.groups {
		if begins {
			c.groups[i].mending = mending{}
		}
	}
}

// moved counts a move of a group.
func (c *checker) moved(w *world, group, to int) {
	if w.plan.Goal != Mend {
		return
	}
	s, spec := &c.groups[group], &w.spec.Groups[group]
	if s.returns.goes(w.now, w.index(spec.Nodes[0]) == to, spec.Failback); w.now < c.from {
		return
	}
	if home := w.preferred(group); spec.Failback.Automatic && (home == to || home < 0) {
		if s.mending.home++; s.mending.home > 2 { // one more where a ban has just run out
			w.fail("twice", "%s comes home to %s for the third time since the last fault began", spec.ID, w.machines[to].id)
		}
		return
	}
	if s.mending.moved++; s.mending.moved > 1 {
		w.fail("twice", "%s has moved for the second time since the last fault began, to %s", spec.ID, w.machines[to].id)
	}
}

// preferred returns the first node of a group's list that no fault keeps from serving it; -1: there is none, or
// it can't be told, as the group's program has failed there: it may be banned, or not.
func (w *world) preferred(group int) int {
	for _, id := range w.spec.Groups[group].Nodes {
		switch i := w.index(id); {
		case w.unfit(i) || w.machines[i].faultOn(Lack, group):
		case w.failedOn(i, group):
			return -1
		default:
			return i
		}
	}
	return -1
}

// mend looks at all groups between faults.
func (c *checker) mend(w *world) {
	for g := range w.spec.Groups {
		s, spec := &c.groups[g], &w.spec.Groups[g]
		if !w.expected(g) {
			s.down = 0
			continue
		}
		quiet := time.Duration(w.now - c.changed)
		if slices.ContainsFunc(w.machines, func(m *machine) bool { return m.healthy(g) }) {
			if s.down != 0 {
				w.counts.Outages++
				w.counts.Worst = max(w.counts.Worst, int((w.now-s.down)*1000/int64(w.plan.Takeover)))
			}
			s.down = 0
		} else if s.down == 0 {
			s.down = w.now
		} else if time.Duration(w.now-s.down) > w.reach(g) && quiet > w.reach(g) {
			w.fail("invariant 4", "nobody has served %s for %v, and nothing has changed for %v", spec.ID, time.Duration(w.now-s.down), quiet)
		}
		if home := w.preferred(g); spec.Failback.Automatic && home >= 0 && s.server != home && w.calm() &&
			quiet > s.returns.wait(spec.Failback)+w.reach(g)+4*w.check.length {
			w.fail("home", "%s is on %s, not on %s, which has been well for %v", spec.ID, w.machines[max(s.server, 0)].id, w.machines[home].id, quiet)
		}
		if quiet > w.reach(g)+4*w.check.length {
			c.keptOff(w, g)
		}
	}
	w.push(w.now+c.every, evSample, 0, 0, 0, 0)
}

// calm tells that no fault acts.
func (w *world) calm() bool {
	return !slices.ContainsFunc(w.running, func(f active) bool { return f.on })
}

// keptOff looks for bans that nothing explains any more: what was around a program is mended, and the program
// itself never failed there, or long ago.
func (c *checker) keptOff(w *world, group int) {
	lead := w.coordinator()
	if lead < 0 || w.machines[lead].agent == nil || w.machines[lead].agent.State() == nil {
		return
	}
	m := w.machines[lead]
	for _, b := range m.agent.State().Group(w.spec.Groups[group].ID).Bans {
		on := w.index(b.Node)
		if b.Until > m.wallTime() && !w.unfit(on) && !w.failedOn(on, group) {
			w.fail("kept off", "%s is kept off %s for what is mended: %s", b.Group, b.Node, b.Reason)
		}
	}
}

// bannedFor is how long a program's failure may keep its group off a node.
const bannedFor = decide.BanFor + cluster.DriftMaxPPM*decide.BanFor/1_000_000 + time.Minute
