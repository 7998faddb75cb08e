package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"baton/internal/core/cluster"
)

// forecastRuns is how often a fault is played, each time at another moment of the heartbeats.
const forecastRuns = 20

// Forecast is what would happen.
type Forecast struct {
	Runs    int // how often it was played
	Groups  []GroupForecast
	Answers []string // to what was asked of baton, where it was refused
	Risks   []string
	Steps   []Step        // of the run with the longest outage
	After   time.Duration // the moment that To and Risks tell of, from the first fault on
}

// GroupForecast is what would become of one group.
type GroupForecast struct {
	ID     cluster.GroupID
	From   cluster.NodeID       // where it serves before the fault; empty: nowhere
	To     cluster.NodeID       // where it would serve; empty: nowhere
	Least  time.Duration        // for how long nobody would serve it, at the least
	Most   time.Duration        // and at the most. What has to start, starts at once in a forecast
	Starts []cluster.ResourceID // what has to start: its time comes on top
	Next   cluster.NodeID       // who could take it over after that; empty: nobody
	Others []string             // how the rarer runs end, if they differ
	Reason
}

// Predict plays faults on a simulated cluster that begins as the situation is: the agents are the real core,
// the machines, the network and what they run are not. Faults are verbs as Verbs says, separated by
// semicolons. The error is a *BadFault where the text can't be used. If the context ends early, fewer runs are made.
func Predict(ctx context.Context, s *Situation, faults string) (*Forecast, error) {
	q, err := ask(s.Spec, faults)
	if err != nil {
		return nil, err
	}
	st, err := s.prepare()
	if err != nil {
		return nil, err
	}
	var ends []*ending
	for seed := uint64(1); seed <= forecastRuns && (len(ends) == 0 || ctx.Err() == nil); seed++ {
		e, err := st.play(q, seed)
		if err != nil {
			return nil, err
		}
		ends = append(ends, e)
	}
	return st.sum(q, ends), nil
}

// ending is how one run has ended.
type ending struct {
	*watcher
	to   []cluster.NodeID
	over *cluster.Overview // as who knows most sees it; nil: no agent runs
	well int               // voters that a majority could be made of
	of   int               // voters
}

// reach is how long after the last fault a forecast looks: for an eviction, an election with some failed
// rounds, and a planned move of every group.
func (s *standing) reach() time.Duration {
	t := s.Spec.Timing
	return t.Takeover + 4*t.L + 2*time.Second
}

// play makes one run.
func (s *standing) play(q *question, seed uint64) (*ending, error) {
	p := s.plan(seed)
	dice := rand.New(rand.NewPCG(seed, 4))
	from := s.settles() + time.Duration(dice.Int64N(int64(s.Spec.Timing.L)))
	q.put(p, from)
	p.Run, p.Tail = from+q.span()+s.reach(), time.Millisecond
	w := s.world(p, Options{})
	w.watcher = newWatcher(w, from)
	w.run()
	if w.broken != nil {
		return nil, fmt.Errorf("run %d of the simulation broke a rule, which is a bug in baton: %w", seed, w.broken)
	}
	e := &ending{watcher: w.watcher}
	for i := range w.spec.Groups {
		to := cluster.NodeID("")
		if m := w.answers(i); m >= 0 {
			to = w.machines[m].id
		}
		e.to = append(e.to, to)
	}
	w.survey(e)
	return e, nil
}

// survey asks who coordinates, or else who hears the most voters, how it looks in the end.
func (w *world) survey(e *ending) {
	for _, m := range w.machines {
		if m.agent == nil || m.blocked() {
			continue
		}
		o := m.agent.Overview(cluster.Now{Mono: m.clock.read(w.now), Wall: m.wallTime()})
		well := 0
		for i := range o.Nodes {
			if o.Nodes[i].Fresh && w.votes(w.machines[i]) {
				well++
			}
		}
		if e.over == nil || well > e.well || well == e.well && o.Coordinator == m.id {
			e.over, e.well = o, well
		}
	}
	e.of = len(w.latest.voters)
	if e.of == 0 {
		e.of = len(w.machines)
	}
}

// sum makes one forecast of all runs.
func (s *standing) sum(q *question, ends []*ending) *Forecast {
	f := &Forecast{Runs: len(ends), After: q.span() + s.reach()}
	worst := ends[0]
	for _, e := range ends {
		if e.longest() > worst.longest() {
			worst = e
		}
	}
	f.Steps = worst.steps
	for _, r := range worst.said {
		if !r.Done {
			f.Answers = append(f.Answers, r.Text)
		}
	}
	for i := range s.Spec.Groups {
		f.Groups = append(f.Groups, s.sumGroup(i, ends))
	}
	f.Risks = worst.risks(f)
	return f
}

func (e *ending) longest() int64 {
	most := int64(0)
	for i := range e.groups {
		most = max(most, e.groups[i].down)
	}
	return most
}

// sumGroup tells of one group how most runs end.
func (s *standing) sumGroup(i int, ends []*ending) GroupForecast {
	spec := &s.Spec.Groups[i]
	count := make(map[cluster.NodeID]int)
	for _, e := range ends {
		count[e.to[i]]++
	}
	usual := ends[0]
	for _, e := range ends {
		if count[e.to[i]] > count[usual.to[i]] {
			usual = e
		}
	}
	g := GroupForecast{ID: spec.ID, To: usual.to[i], Starts: usual.groups[i].starts, Least: time.Duration(usual.groups[i].down)}
	if home := usual.groups[i].home; home >= 0 {
		g.From = s.Spec.Nodes[home].ID
	}
	for _, e := range ends {
		if e.to[i] != g.To {
			continue
		}
		g.Least, g.Most = min(g.Least, time.Duration(e.groups[i].down)), max(g.Most, time.Duration(e.groups[i].down))
	}
	for _, id := range append([]cluster.NodeID{""}, spec.Nodes...) {
		if n := count[id]; n > 0 && id != g.To {
			where := "served by nobody"
			if id != "" {
				where = "on " + string(id)
			}
			g.Others = append(g.Others, fmt.Sprintf("%s in %d of %d runs", where, n, len(ends)))
		}
	}
	g.reason(i, usual)
	return g
}

// reason tells why: the decision in the log where the group was placed, else how it looks in the end.
func (g *GroupForecast) reason(i int, e *ending) {
	if e.over != nil && i < len(e.over.Groups) {
		v := &e.over.Groups[i]
		g.Next = v.Next
		g.Reason = Reason{Rule: v.Rule, Why: v.Decision, Evidence: v.Evidence, Rejected: v.Rejected}
	}
	lost := fmt.Sprintf("%d of %d voters are left, and %d are needed", e.well, e.of, cluster.Quorum(e.of))
	switch r := e.groups[i].reason; {
	case g.To == "" && e.well < cluster.Quorum(e.of):
		g.Next, g.Reason = "", Reason{Why: "nobody may decide: " + lost}
	case r != nil && g.To != "":
		g.Reason = *r
	}
}

// risks tells what the cluster could no longer bear afterwards.
func (e *ending) risks(f *Forecast) []string {
	var out []string
	spare := e.well - cluster.Quorum(e.of)
	switch {
	case spare < 0:
		out = append(out, fmt.Sprintf("no majority: %d of %d voters are left, %d are needed; nothing is decided, and what still serves ends with its lease", e.well, e.of, cluster.Quorum(e.of)))
	case spare == 0:
		out = append(out, fmt.Sprintf("%d of %d voters are left: with one more lost, nothing is decided and nothing serves", e.well, e.of))
	}
	var alone []string
	for i := range f.Groups {
		if g := &f.Groups[i]; g.To != "" && g.Next == "" && e.over != nil && len(e.over.Groups[i].Nodes) > 1 {
			alone = append(alone, string(g.ID))
		}
	}
	if len(alone) > 0 && spare >= 0 {
		out = append(out, "nobody could take over "+strings.Join(alone, ", "))
	}
	return slices.Clip(out)
}
