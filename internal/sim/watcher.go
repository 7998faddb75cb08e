package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/decide"
	"baton/internal/core/node"
)

// Step is one thing that happens after a fault.
type Step struct {
	After time.Duration // since the first fault
	Rule  string        // of the planner; empty: none
	Text  string
}

// Reason is why a group goes, or stays, where it does.
type Reason struct {
	Rule     string
	Why      string
	Evidence []string
	Rejected []string // "NODE: why not"
}

// watcher keeps what one run of a forecast shows.
type watcher struct {
	every  int64
	from   int64 // the first fault
	groups []watched
	newest map[string]string // by subject, what was last decided
	steps  []Step
	said   []node.Reply // answers to the faults that are commands
}

// watched is what is seen of a group.
type watched struct {
	home   int     // who served it before the first fault; -1: nobody
	down   int64   // for how long nobody has served it since
	reason *Reason // of the newest placement
	starts []cluster.ResourceID
}

func newWatcher(w *world, from time.Duration) *watcher {
	x := &watcher{every: max(int64(w.spec.Timing.L)/1000, int64(time.Millisecond)), from: int64(from), groups: make([]watched, len(w.spec.Groups)),
		newest: make(map[string]string)}
	w.push(x.from-1, evLook, 0, 0, 0, 0)
	return x
}

// look sees for each group whether a client gets answers.
func (x *watcher) look(w *world) {
	for i := range x.groups {
		at := w.answers(i)
		if w.now < x.from {
			x.groups[i].home = at
		} else if at < 0 {
			x.groups[i].down += x.every
		}
	}
	w.push(w.now+x.every, evLook, 0, 0, 0, 0)
}

// answers returns the machine where clients of a group get answers; -1: nowhere.
func (w *world) answers(group int) int {
	return slices.IndexFunc(w.machines, func(m *machine) bool { return m.healthy(group) && !m.faultOn(Isolate, -1) })
}

// tell keeps a step, for a forecast.
func (w *world) tell(format string, args ...any) {
	w.outcome.add(w, format, args...)
	if w.watcher != nil {
		w.watcher.step(w, "", format, args...)
	}
}

func (x *watcher) step(w *world, rule, format string, args ...any) {
	if w.now >= x.from {
		x.steps = append(x.steps, Step{time.Duration(w.now - x.from), rule, fmt.Sprintf(format, args...)})
	}
}

// decided keeps a decision that waits for something: what is done stands in the log.
func (x *watcher) decided(w *world, d *decide.Decision) {
	if d.Group == "" || d.Verdict != decide.Wait && d.Verdict != decide.Stay || x.newest[string(d.Group)] == d.Rule {
		return
	}
	x.newest[string(d.Group)] = d.Rule
	if d.Rule != "G90" && d.Rule != "G02" { // all is well; another line tells
		x.step(w, d.Rule, "%s: %s", d.Group, d.Why)
	}
}

// entry keeps what an entry of the log does, and why a group is placed.
func (x *watcher) entry(w *world, e *cluster.Entry) {
	if w.now < x.from {
		return
	}
	var did []string
	for _, p := range e.Parts {
		did = append(did, p.String())
		switch {
		case p.Move != nil:
			x.placed(w, p.Move.Group, e)
		case p.Assign != nil:
			if r := x.groups[w.groupIndex(p.Assign.Group)].reason; r == nil || e.Rule != "G12" || r.Rule == "" {
				x.placed(w, p.Assign.Group, e)
			}
		}
	}
	why := e.Why
	if why != "" {
		why = ": " + why
	}
	x.step(w, e.Rule, "%s%s", strings.Join(did, ", "), why)
}

func (x *watcher) placed(w *world, id cluster.GroupID, e *cluster.Entry) {
	x.groups[w.groupIndex(id)].reason = &Reason{Rule: e.Rule, Why: e.Why, Evidence: e.Evidence, Rejected: e.Rejected}
}

// operation keeps which programs have to start.
func (x *watcher) operation(w *world, m *machine, r *resource) {
	up := r.status == cluster.StatusRunning || r.status == cluster.StatusStandby
	if w.now < x.from || r.spec.Front || r.doing.Target != cluster.TargetRunning || up && !r.doing.Restart {
		return
	}
	if g := &x.groups[r.group]; !slices.Contains(g.starts, r.spec.ID) {
		g.starts = append(g.starts, r.spec.ID)
	}
	x.step(w, "", "%s starts %s/%s", m.id, w.spec.Groups[r.group].ID, r.spec.ID)
}
