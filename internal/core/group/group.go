// Package group runs one group on this node: from its assignment and what its resources report to the
// next target of each. Starting goes in the group's order, stopping in reverse; fronts (what clients
// reach) come up last, while the gate opens.
package group

import (
	"time"

	"baton/internal/core/cluster"
)

// pace of local restarts
const (
	restartsForgotten = 10 * time.Minute      // a restart older than this does not count against the limit
	retryFirst        = time.Second           // wait before a failed resource is tried again; doubled each time
	frontFirst        = 50 * time.Millisecond // the same of an address, which costs next to nothing to put back
	retryMax          = 30 * time.Second      // of what is down
	illMax            = 5 * time.Minute       // of what is up, and would be killed
	// wellLeast is the least time for which it must have been well before the waiting begins anew: it is forgotten
	// after twice the last wait, and no sooner than this.
	wellLeast = time.Minute
)

// sinceBoot is since when what is found up counts as well: that is not known, and no earlier than the boot.
const sinceBoot cluster.Instant = 1

// Role is what this node is to the group now.
type Role uint8

const (
	// Bystander: this node stands by, as deep as each resource says.
	Bystander Role = iota
	// Owner: the group is assigned here.
	Owner
)

// Situation is what the node knows that the group's resources depend on.
type Situation struct {
	Role         Role
	Epoch        cluster.Epoch
	MayStart     bool // the epoch is in the run record
	Alone        bool // every earlier tenure is over: what acts beyond the gate may start
	MayServe     bool // the lease runs, too
	HotElsewhere bool // another node could take over without a start
	Keep         bool // the log is being read again: change nothing yet
	Stopped      bool // by a person: nothing of it is to run here, not even a standby
	// Shared says that every other node that could have the group says the same of the same probe (decide.Shared): it
	// is not this node, so nothing that is up is killed for it.
	Shared bool
	// Held names the resources that a person has stopped: the owner leaves them so, and misses none of them.
	Held []cluster.ResourceID
}

// Outcome is how the group is here.
type Outcome struct {
	Wants   []cluster.Want
	Ready   bool   // every resource but the fronts runs for the epoch
	Fronts  bool   // the fronts are up too
	AtDepth bool   // everything stands by as deep as configured, or is stopped where that is asked for
	Hot     bool   // every resource but the fronts is up: a takeover needs no start
	Closed  bool   // nothing runs here whose effects go beyond gate and cgroup
	Failed  string // which resource failed, and what was seen
	Partly  bool   // what has failed is a front, and others of them are up for the epoch, as is all else
	Again   string // which resource is started again, and why
	Tries   string // of either: what is left of the local restarts; short
	Lacks   bool   // not it is to blame, but what is around it
	Probe   Probe  // whose probe has failed
	Note    string // what is to be told of a resource that runs (another host answers for its address)
	WakeAt  cluster.Instant
}

// Probe is what a resource's probe has said against it.
type Probe struct {
	// Says stands for the resource, the probe and its answer: equal where they are. 0: nothing.
	Says uint64
	Ill  bool // the resource has failed for it; else only the probe's last try has
	// Brief says that the resource had not been well for a while when it failed.
	Brief bool
}

// Group is one group on this node.
type Group struct {
	spec     *cluster.GroupSpec
	counter  *uint64 // numbers the Wants of the whole node
	res      []resource
	epoch    cluster.Epoch
	role     Role
	restarts []restart
	announce bool
}

// restart is a local one, of a resource that had failed.
type restart struct {
	at       cluster.Instant
	resource cluster.ResourceID
}

type resource struct {
	spec   *cluster.ResourceSpec
	status cluster.Status
	epoch  cluster.Epoch // for which it runs
	reason string        // of the last failure
	// surroundings says that it is what is around the resource that failed last.
	surroundings bool
	probe        uint64          // what its probe has said against it, as one number; 0: nothing
	illAt        cluster.Instant // since when it has said anything against it; 0: it says nothing
	up           bool            // it reached its target, and what has failed since was told by a probe
	wellAt       cluster.Instant // since when it is well; 0: it is not
	brief        bool            // when it failed last, it had not been well for a while
	pending      uint64          // number of the Want under way; 0: none
	unseen       bool            // it ran when this agent started, which has not asked for it yet: nobody watches it
	target       cluster.Target
	wanted       cluster.Epoch
	retryAt      cluster.Instant // not before this instant
	backoff      time.Duration
	stale        bool // it is up by a former description: it must be restarted
	held         bool // a person has stopped it
	again        bool // a person restarts it: it is to be stopped first
	ordered      bool // somebody ordered what keeps it from running, or did so while it did not
}

// New returns a group of which nothing is known to run. Wants are numbered from *counter on.
func New(spec *cluster.GroupSpec, counter *uint64) *Group {
	g := &Group{spec: spec, counter: counter}
	for i := range spec.Resources {
		g.res = append(g.res, resource{spec: &spec.Resources[i], status: cluster.StatusStopped})
	}
	return g
}

// Found takes over what a probe found when the agent started, running for the given epoch.
func (g *Group) Found(d cluster.Done, epoch cluster.Epoch) {
	if r := g.find(d.Resource); r != nil {
		r.status, r.reason, r.epoch = d.Status, d.Reason, epoch
		r.up = d.Status == cluster.StatusRunning || d.Status == cluster.StatusStandby
		switch d.Status { // it is as somebody wanted it: not wanted anew for what its probe says against it
		case cluster.StatusRunning:
			r.unseen, r.target, r.wanted, r.wellAt = true, cluster.TargetRunning, epoch, sinceBoot
		case cluster.StatusStandby:
			r.target, r.wellAt = cluster.TargetStandby, sinceBoot
		}
	}
}

// Announce asks that running fronts make themselves known again, once.
func (g *Group) Announce() { g.announce = true }

// Done takes the answer to a Want, or the news that a resource changed by itself. It reports whether
// that means anything.
func (g *Group) Done(d cluster.Done, now cluster.Instant) bool {
	r := g.find(d.Resource)
	if r == nil || (d.N != 0 && d.N != r.pending) {
		return false
	}
	if d.N == 0 && d.Status != cluster.StatusFailed && r.pending != 0 {
		return false // the Want under way will tell
	}
	r.pending = 0
	r.status, r.reason, r.surroundings = d.Status, d.Reason, d.Surroundings
	r.probe = digest(d.Resource, d.Probe)
	switch {
	case r.probe == 0:
		r.illAt = 0
	case r.illAt == 0:
		r.illAt = now
	}
	if d.N != 0 || d.Status == cluster.StatusStopped {
		r.stale = false
	}
	switch d.Status {
	case cluster.StatusRunning:
		if d.N != 0 {
			r.epoch = r.wanted
		}
		r.well(now)
	case cluster.StatusStandby, cluster.StatusStopped:
		if r.target == cluster.TargetRunning && d.N != 0 {
			r.wait(now) // wanted running, found otherwise: the operation was cut short
			break
		}
		r.well(now)
		if d.Status == cluster.StatusStopped {
			r.up, r.wellAt, r.backoff = false, 0, 0
		}
	default:
		r.up = r.probe != 0 && r.up && d.N == 0
		r.wait(now)
	}
	return true
}

// well notes that what was wanted is so. How long the next wait is, is not forgotten yet.
func (r *resource) well(now cluster.Instant) {
	r.up, r.retryAt = true, 0
	if r.wellAt == 0 {
		r.wellAt = now
	}
}

// wait puts off the next attempt, longer each time, until it has been well for a while.
func (r *resource) wait(now cluster.Instant) {
	if r.wellAt != 0 {
		if r.brief = now.Sub(r.wellAt) < max(wellLeast, 2*r.backoff); !r.brief {
			r.backoff = 0
		}
	}
	r.wellAt = 0
	first, limit := retryFirst, retryMax
	if r.spec.Front {
		first = frontFirst
	}
	if r.probe != 0 {
		limit = illMax
	}
	r.backoff = min(max(2*r.backoff, first), limit)
	r.retryAt = now.Add(r.backoff)
}

// digest makes one number of what a probe has said (FNV-1a), so that nodes can compare it: 0 of nothing.
func digest(id cluster.ResourceID, probe string) uint64 {
	if probe == "" {
		return 0
	}
	h := uint64(14695981039346656037)
	for _, b := range []byte(string(id) + "\n" + probe) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return max(h, 1)
}

func (g *Group) find(id cluster.ResourceID) *resource {
	for i := range g.res {
		if g.res[i].spec.ID == id {
			return &g.res[i]
		}
	}
	return nil
}

// Step returns what to ask of the resources now, and how the group is.
func (g *Group) Step(now cluster.Instant, s Situation) Outcome {
	if s.Epoch != g.epoch || s.Role != g.role {
		g.epoch, g.role = s.Epoch, s.Role
		for i := range g.res { // a new placement begins without the past's waiting
			g.res[i].backoff, g.res[i].retryAt, g.res[i].again, g.res[i].brief = 0, 0, false, true
		}
	}
	g.hold(s)
	o := Outcome{WakeAt: cluster.Never}
	switch {
	case s.Keep:
	case s.Stopped:
		g.takeDown(now, s, &o, func(*resource) bool { return true })
	case s.Role == Owner:
		g.owner(now, s, &o)
	default:
		g.bystander(now, s.Shared, &o)
	}
	g.judge(now, s, &o)
	g.carriedOut(s)
	return o
}

// owner brings the resources up in order, the fronts when the group may serve.
func (g *Group) owner(now cluster.Instant, s Situation, o *Outcome) {
	if !s.MayStart {
		return
	}
	g.takeDown(now, s, o, func(r *resource) bool { return r.held })
	if !g.stoppedForRestart(now, s, o) {
		return
	}
	ready := true
	for i := range g.res {
		r := &g.res[i]
		if r.spec.Front || !ready || r.held {
			continue
		}
		if s.Alone || r.spec.Effects != cluster.EffectsBeyond {
			g.pursue(now, r, cluster.TargetRunning, s, o)
		}
		ready = r.runs(s.Epoch)
	}
	for i := range g.res {
		r := &g.res[i]
		switch {
		case !r.spec.Front || r.held:
		case ready && s.MayServe:
			if (g.announce || r.unseen) && r.runs(s.Epoch) && r.pending == 0 {
				g.want(r, cluster.TargetRunning, s.Epoch, o)
				o.Wants[len(o.Wants)-1].Announce = true
				continue
			}
			g.pursue(now, r, cluster.TargetRunning, s, o)
		case r.status == cluster.StatusRunning && r.epoch != s.Epoch:
			g.pursue(now, r, cluster.TargetStopped, s, o)
		}
	}
	g.announce = false
}

func (r *resource) runs(e cluster.Epoch) bool {
	return r.status == cluster.StatusRunning && r.epoch == e && !r.stale
}

// bystander takes resources down in reverse order to the depth that each stands by at, then brings those
// up, in order, that stand by hot.
func (g *Group) bystander(now cluster.Instant, shared bool, o *Outcome) {
	s := Situation{Epoch: g.epoch, Shared: shared}
	down := true
	for i := len(g.res) - 1; i >= 0 && down; i-- {
		r := &g.res[i]
		if r.rest() == cluster.TargetStandby {
			if r.status == cluster.StatusRunning || (r.pending != 0 && r.target == cluster.TargetRunning) {
				g.pursue(now, r, cluster.TargetStandby, s, o)
			}
			continue
		}
		g.pursue(now, r, cluster.TargetStopped, s, o)
		down = r.status == cluster.StatusStopped && r.pending == 0
	}
	for i := range g.res {
		r := &g.res[i]
		if r.rest() != cluster.TargetStandby {
			continue
		}
		g.pursue(now, r, cluster.TargetStandby, s, o)
		if r.status != cluster.StatusStandby {
			return
		}
	}
}

// rest is the target of a resource that does not serve.
func (r *resource) rest() cluster.Target {
	if r.spec.Depth == cluster.Cold || r.spec.Front {
		return cluster.TargetStopped
	}
	return cluster.TargetStandby
}

// pursue asks for a target unless it is reached, under way, or must wait.
func (g *Group) pursue(now cluster.Instant, r *resource, t cluster.Target, s Situation, o *Outcome) {
	epoch := s.Epoch
	if r.pending != 0 && r.target == t && (t != cluster.TargetRunning || r.wanted == epoch) {
		return
	}
	if r.pending == 0 && r.at(t, epoch) {
		return
	}
	shared := s.Shared && t != cluster.TargetStopped && r.pending == 0 && r.status == cluster.StatusFailed && r.probe != 0
	if shared && r.up && r.target == t && (t != cluster.TargetRunning || r.wanted == epoch) {
		o.WakeAt = min(o.WakeAt, now.Add(wellLeast)) // its probe will tell when it is well again
		return
	}
	if r.pending == 0 && now < r.retryAt && (shared || !g.restartNow(now, r, t, s)) {
		o.WakeAt = min(o.WakeAt, r.retryAt)
		return
	}
	g.want(r, t, epoch, o)
	if shared { // it never became ready, which is waited for again, or has another role now
		o.Wants[len(o.Wants)-1].Restart = false
	}
}

// restartNow tells whether a failed resource is restarted at once: within the limit of local restarts,
// and not where a hot standby can take over sooner than a restart would end.
func (g *Group) restartNow(now cluster.Instant, r *resource, t cluster.Target, s Situation) bool {
	if t != cluster.TargetRunning || s.HotElsewhere || r.status != cluster.StatusFailed {
		return false
	}
	if g.recent(now) >= g.spec.Restarts {
		return false
	}
	g.restarts = append(g.restarts, restart{now, r.spec.ID})
	return true
}

func (r *resource) at(t cluster.Target, e cluster.Epoch) bool {
	if r.stale {
		return false
	}
	switch t {
	case cluster.TargetRunning:
		return r.runs(e)
	case cluster.TargetStandby:
		return r.status == cluster.StatusStandby
	default:
		return r.status == cluster.StatusStopped
	}
}

func (g *Group) want(r *resource, t cluster.Target, epoch cluster.Epoch, o *Outcome) {
	*g.counter++
	deadline := r.spec.StartTimeout
	if t == cluster.TargetStopped {
		deadline = r.spec.StopTimeout
	}
	restart := (r.stale || r.status == cluster.StatusFailed) && t != cluster.TargetStopped
	r.pending, r.target, r.wanted, r.unseen = *g.counter, t, epoch, false
	o.Wants = append(o.Wants, cluster.Want{N: *g.counter, Group: g.spec.ID, Resource: r.spec.ID,
		Target: t, Epoch: epoch, Deadline: deadline, Restart: restart})
}

// judge sums up how the group is.
func (g *Group) judge(now cluster.Instant, s Situation, o *Outcome) {
	o.Ready, o.Fronts, o.AtDepth, o.Hot, o.Closed = true, true, true, !s.Stopped, true
	for i := range g.res {
		r := &g.res[i]
		runs := r.runs(s.Epoch)
		if r.held { // nothing is missed
			runs = true
		}
		if r.spec.Front {
			o.Fronts = o.Fronts && runs
		} else {
			o.Ready = o.Ready && runs
			o.Hot = o.Hot && (r.held || r.status == cluster.StatusRunning || (r.status == cluster.StatusStandby && r.spec.Depth == cluster.Hot))
		}
		rest := r.rest()
		if s.Stopped {
			rest = cluster.TargetStopped
		}
		o.AtDepth = o.AtDepth && r.pending == 0 && r.at(rest, s.Epoch)
		if r.spec.Effects == cluster.EffectsBeyond && (r.pending != 0 || r.status != cluster.StatusStopped && r.status != cluster.StatusStandby) { // a start that was cut short may have had its effect
			o.Closed = false
		}
		if r.status == cluster.StatusRunning && r.reason != "" && o.Note == "" {
			o.Note = string(r.spec.ID) + ": " + r.reason
		}
		if r.status == cluster.StatusFailed && r.pending == 0 && o.Failed == "" && !r.held {
			o.Failed, o.Lacks = string(r.spec.ID)+": "+r.reason, r.surroundings
			o.Tries = g.tries(now, r, s)
		}
		if r.status == cluster.StatusFailed && r.pending != 0 && r.target == cluster.TargetRunning && r.reason != "" && o.Again == "" {
			o.Again = string(r.spec.ID) + ": " + r.reason
		}
	}
	o.Partly = o.Failed != "" && o.Ready && s.Role == Owner && g.partly(s.Epoch)
	if o.Failed == "" && o.Again != "" {
		o.Tries = g.under(now)
	}
	o.Probe = g.Probe()
}

// partly tells whether some of the fronts that are wanted run for an epoch.
func (g *Group) partly(e cluster.Epoch) bool {
	for i := range g.res {
		if r := &g.res[i]; r.spec.Front && !r.held && r.runs(e) {
			return true
		}
	}
	return false
}

// Probe returns what a probe says against the group here: of the first resource that has failed, or else of the first
// whose probe's last try has.
func (g *Group) Probe() (p Probe) {
	for i := range g.res {
		r := &g.res[i]
		switch {
		case r.held || r.pending != 0 && r.status != cluster.StatusFailed:
		case r.status == cluster.StatusFailed && r.pending == 0: // one that is tried again still says it, but has not failed
			return Probe{Says: r.probe, Ill: r.probe != 0, Brief: r.probe != 0 && r.brief}
		case p.Says == 0:
			p.Says = r.probe
		}
	}
	return p
}

// IllSince returns since when the probes of resources that have failed have said anything against them, the first of
// them; 0: none has failed for its probe.
func (g *Group) IllSince() (at cluster.Instant) {
	for i := range g.res {
		if r := &g.res[i]; r.status == cluster.StatusFailed && r.illAt != 0 && (at == 0 || r.illAt < at) {
			at = r.illAt
		}
	}
	return at
}

// Resource returns a resource's status and the reason of its last failure.
func (g *Group) Resource(id cluster.ResourceID) (cluster.Status, string) {
	r := g.find(id)
	if r == nil {
		return cluster.StatusUnknown, ""
	}
	return r.status, r.reason
}
