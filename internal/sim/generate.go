package sim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// profile says from which faults a plan is made.
type profile struct {
	doc       string
	goal      Goal
	takeovers []time.Duration
	kinds     []Kind        // that may be drawn
	always    []Kind        // that are drawn in every plan
	least     int           // faults per plan
	most      int           //
	run       time.Duration // 0: by takeover
	three     bool          // three nodes, all of them members of every group
	groups    int           // at least so many
	changes   bool          // the configuration changes: nodes join and leave, takeover and groups change
	loss      int           // goal Takeover: percent of all packets, from before the fault
	early     bool          // faults from the first instant on, while the cluster forms
	networks  bool          // the networks by which clients come are judged
	many      bool          // 60 to 150 groups, with names of full length
	drops     bool          // directories of an agent are deleted below it, in some plans
}

var (
	budgets = []time.Duration{100 * time.Millisecond, 150 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond,
		500 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 10 * time.Second}
	// mixed are the budgets of the long profile: a second under 100 ms costs as much as a hundred under 10 s.
	mixed = slices.Concat(budgets, budgets[5:])
	// slow are those of hours: an hour under 1 s costs as much as ten under 10 s.
	slow    = slices.Concat(budgets[5:], budgets[8:], slices.Repeat(budgets[9:], 9))
	anyKind = []Kind{Power, Wipe, Kill, Forget, Freeze, Cut, OneWay, Isolate, Link, Carrier, Uplink, Loss, Dup, Late, Replay,
		Drift, Wall, SlowDisk, HangDisk, LateGate, Fail, NoStart, NoStop, Switch, Failback, Narrow, MTU, Starve, FailGate, FailRecord,
		FlushGate, DiskFull, DiskError, Suspend, PauseClock, Skew, Bloat, FlapLink, FlapUplink, Lack, DropAddr, NoAnswer, Unanswered}
)

var profiles = map[string]profile{
	"mix": {doc: "any faults, five or more in 30 s; budgets from 100 ms to 10 s", drops: true, goal: Converge,
		takeovers: mixed, kinds: anyKind, least: 5, most: 24, run: 30 * time.Second},
	"short": {doc: "any faults within a few lease lengths of each other", drops: true, goal: Converge,
		takeovers: budgets, kinds: anyKind, least: 5, most: 16},
	"forming": {doc: "faults while the cluster forms", goal: Converge, early: true,
		takeovers: budgets[:6], kinds: []Kind{Power, Kill, Freeze, Cut, OneWay, Isolate, Loss, Late, Replay, SlowDisk}, least: 3, most: 8},
	"takeover": {doc: "one fault in a healthy cluster: within the takeover every group serves again", goal: Takeover,
		takeovers: budgets, three: true},
	"still": {doc: "tolerated faults: nothing moves", goal: Still, takeovers: budgets, three: true},
	"acks": {doc: "late and repeated packets, agents killed in quick succession", goal: Converge, takeovers: budgets,
		always: []Kind{Kill, Isolate, Replay}, kinds: []Kind{Late, Freeze, OneWay, Cut, Switch}, least: 6, most: 14},
	"reboots": {doc: "reboots in quick succession, packets of former boots", goal: Converge, takeovers: budgets,
		always: []Kind{Power, Replay}, kinds: []Kind{Late, Isolate, Kill, Switch, SlowDisk}, least: 6, most: 14},
	"moves": {doc: "switchovers while nodes are cut off, hang or restart", goal: Converge, takeovers: budgets, three: true,
		always: []Kind{Switch, Switch, Kill}, kinds: []Kind{HangDisk, SlowDisk, Isolate, OneWay, Cut, Power, Freeze, LateGate, Fail, NoStart, Late, Loss},
		least: 6, most: 16},
	"restarts": {doc: "switchovers of several groups, agents and machines restarted at once, slow disks", goal: Converge, takeovers: budgets,
		always: []Kind{Switch, Switch, Switch, Kill, SlowDisk}, kinds: []Kind{Power, Kill, HangDisk, OneWay, Late, Loss}, groups: 3, least: 8, most: 20},
	"elections": {doc: "coordinators cut off, paused and restarted, slow disks", goal: Converge, takeovers: budgets,
		always: []Kind{Isolate, Cut, OneWay}, kinds: []Kind{Kill, Power, SlowDisk, HangDisk, Freeze, Late, Loss, Switch}, least: 6, most: 16},
	"people": {doc: "instructions: pauses, pins, drains, stops, starts, restarts, among faults", drops: true, goal: Converge, takeovers: budgets,
		always: []Kind{Pause, Pin, Drain, Stop, Stop, Restart, Restart, Clear}, kinds: anyKind, least: 8, most: 24},
	"members": {doc: "nodes join, leave and lose disks, the takeover changes, with faults at every step", drops: true, goal: Converge, takeovers: budgets[:7],
		always: []Kind{Apply, Apply, Wipe}, kinds: []Kind{Power, Kill, Forget, Freeze, Isolate, OneWay, Cut, SlowDisk, Late, Replay, Loss, Switch, Unreadable, Narrow, MTU, Suspend, DiskFull, FailRecord},
		changes: true, least: 6, most: 18},
	"snapshots": {doc: "a disk set back to a former state, while those who remember it are heard", goal: Converge, takeovers: budgets, three: true,
		always: []Kind{SetBack, SetBack}, kinds: []Kind{Switch, Fail, Loss, Drift, SlowDisk, LateGate}, least: 3, most: 10},
	"storms": {doc: "starved machines, queues that fill, paths that differ or lose large packets, links that flap", goal: Converge,
		takeovers: budgets, always: []Kind{Starve, Bloat, FlapLink}, kinds: []Kind{Skew, MTU, Narrow, Loss, Power, Switch, Kill}, least: 4, most: 14},
	"disks": {doc: "disks, run records and gates that fail, machines that stand still", drops: true, goal: Converge, takeovers: budgets,
		kinds: []Kind{DiskFull, DiskError, FailRecord, FailGate, FlushGate, Ungate, SlowDisk, HangDisk, Suspend, PauseClock, Power, Kill, Switch}, least: 4, most: 14},
	"surroundings": {doc: "hours in which what is around the programs fails and heals: all is served, nobody is kept off, nothing moves twice", drops: true, goal: Mend,
		takeovers: slow, kinds: []Kind{Lack, DropAddr, FlapUplink, Uplink, Carrier, HangDisk, DiskFull, FailRecord, FailGate, Fail, NoAnswer, Unanswered, Kill, Power}},
	"large": {doc: "60 to 150 groups with names of full length: heartbeats tell of them in turns", goal: Converge,
		takeovers: budgets[5:], kinds: []Kind{Power, Kill, Link, Loss, Late, Cut, OneWay, Freeze, Switch, Fail, MTU, Narrow}, many: true, least: 2, most: 6},
	"networks": {doc: "the networks that clients come by: switch ports that die with their carrier up, targets that go, among other faults", goal: Converge,
		takeovers: budgets, always: []Kind{Port, PortIn, PortOut}, kinds: []Kind{Unreach, NoTarget, Link, Carrier, FlapLink, OneWay, Cut, Loss, Late, Isolate, Power, Kill,
			Freeze, Switch, Starve, Suspend, Skew}, networks: true, least: 5, most: 16},
	"ports": {doc: "the owner alone loses its clients' network, its carrier stays: within the takeover every group serves again", goal: Takeover,
		takeovers: budgets[2:], three: true, networks: true},
	"unmoved": {doc: "whole networks that die or blink, ports that nobody needs, targets that nobody reaches: nothing moves", goal: Still,
		takeovers: budgets, three: true, networks: true},
	"lossy1": {doc: "power loss of the owner while 1 % of all packets on the one link are lost", goal: Takeover,
		takeovers: []time.Duration{time.Second, 3 * time.Second}, three: true, loss: 1},
	"lossy5": {doc: "the same with 5 %, which a few in a hundred runs may not stand", goal: Takeover,
		takeovers: []time.Duration{time.Second, 3 * time.Second}, three: true, loss: 5},
	"changes": {doc: "the takeover changes, witnesses join and leave, with loss or a dead link: nothing moves", goal: Still,
		takeovers: budgets, three: true, changes: true},
	"healthy": {doc: "no faults", goal: Converge, takeovers: []time.Duration{time.Second}, three: true, run: 30 * time.Second},
}

// Profiles lists the profiles that Generate knows, with what each is for.
func Profiles() string {
	b := new(strings.Builder)
	for _, n := range slices.Sorted(maps.Keys(profiles)) {
		fmt.Fprintf(b, "  %-12s %s\n", n, profiles[n].doc)
	}
	return b.String()
}

var nodeNames = []cluster.NodeID{"alpha", "beta", "delta", "epsilon", "eta", "gamma", "zeta"}

// Generate makes a plan from a seed. Equal seeds give equal plans.
func Generate(seed uint64, name string) (*Plan, error) {
	f, ok := profiles[name]
	if !ok {
		return nil, fmt.Errorf("no profile %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(profiles)), ", "))
	}
	g := &generator{f: f, rand: rand.New(rand.NewPCG(seed, 0))}
	g.plan = &Plan{Seed: seed, Goal: f.goal, Takeover: f.takeovers[g.rand.IntN(len(f.takeovers))]}
	t, err := derive(g.plan.Takeover)
	if err != nil {
		return nil, err
	}
	g.l = t.L
	g.cluster()
	g.groups()
	if f.networks {
		g.plan.Networks, g.plan.Links = byLinks, 2
		if g.chance(30) {
			g.plan.Networks, g.plan.Links = byTarget, 1+g.rand.IntN(2)
		}
	}
	switch f.goal {
	case Takeover:
		if f.networks {
			g.outOfSight()
		} else if f.loss > 0 {
			g.lossy()
		} else {
			g.single()
		}
	case Mend:
		g.episodes()
	case Still:
		if f.networks {
			g.inSight()
		} else if f.changes {
			g.harmless()
		} else {
			g.tolerated()
		}
	default:
		g.faults()
	}
	if dice := rand.New(rand.NewPCG(seed, 5)); dice.IntN(5) == 0 { // its own: what it draws changes nothing else
		g.rand = dice
		g.plan.Clients = g.between(g.l, time.Minute)
	}
	if g.rand = rand.New(rand.NewPCG(seed, 6)); f.drops {
		g.drops()
	}
	slices.SortStableFunc(g.plan.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	return g.plan, g.plan.check()
}

type generator struct {
	f       profile
	plan    *Plan
	rand    *rand.Rand
	l       time.Duration
	members []cluster.NodeID // who may run groups
}

// rate draws how fast a clock runs, as far from true time as the protocol allows.
func (g *generator) rate() int64 { return g.rand.Int64N(2*cluster.DriftMaxPPM+1) - cluster.DriftMaxPPM }

func (g *generator) chance(percent int) bool { return g.rand.IntN(100) < percent }

func (g *generator) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(g.rand.Int64N(int64(b-a)))
}

// near returns a length around lease lengths: from a tenth of L to 6 L, short ones as often as long ones.
func (g *generator) near() time.Duration {
	d := g.l / 10
	for range g.rand.IntN(6) {
		d *= 2
	}
	return d + g.between(0, d)
}

// cluster draws nodes, clocks, links and disks.
func (g *generator) cluster() {
	p := g.plan
	n := 3
	if !g.f.three {
		n = []int{3, 3, 3, 3, 3, 3, 4, 5, 5, 7}[g.rand.IntN(10)]
	}
	rates := []int64{-cluster.DriftMaxPPM, 0, cluster.DriftMaxPPM, g.rate()}
	for i := range n {
		role := cluster.Member
		if i >= 2 && !g.f.three {
			switch {
			case g.chance(30):
				role = cluster.Witness
			case g.chance(15):
				role = cluster.Spare
			}
		}
		p.Nodes = append(p.Nodes, PlanNode{ID: nodeNames[i], Role: role, PPM: rates[g.rand.IntN(len(rates))]})
		if role != cluster.Witness {
			g.members = append(g.members, nodeNames[i])
		}
	}
	p.Links = 1 + g.rand.IntN(2)
	p.Latency, p.Jitter = g.between(20*time.Microsecond, 150*time.Microsecond), g.between(0, 150*time.Microsecond)
	p.SyncMin, p.SyncMax = 200*time.Microsecond, 900*time.Microsecond
	if g.f.goal == Converge && p.Takeover >= time.Second && g.chance(20) {
		p.SyncMin, p.SyncMax = 3*time.Millisecond, 9*time.Millisecond
	}
	if g.f.goal == Converge && g.chance(40) {
		p.StallEvery, p.StallMax = g.between(100*time.Millisecond, 5*time.Second), g.between(2*time.Millisecond, 50*time.Millisecond)
	}
	p.Codec = g.chance(10)
	if g.chance(40) {
		p.Compact = 2 + g.rand.Uint64N(30)
	}
}

var groupNames = []cluster.GroupID{"web", "mail", "db"}

func (g *generator) groups() {
	n := 1
	if !g.f.three {
		n = max(1+g.rand.IntN(len(groupNames)), g.f.groups)
	}
	names := groupNames
	if g.f.many {
		n, names = 60+g.rand.IntN(91), nil
		for i := range n {
			names = append(names, cluster.GroupID(fmt.Sprintf("%s-%03d", strings.Repeat("g", wire.MaxName-4), i)))
		}
	}
	for i := range n {
		q := PlanGroup{ID: names[i], Nodes: slices.Clone(g.members), Hot: true}
		g.rand.Shuffle(len(q.Nodes), func(a, b int) { q.Nodes[a], q.Nodes[b] = q.Nodes[b], q.Nodes[a] })
		if !g.f.three {
			q.Hot = g.chance(50)
			if len(q.Nodes) > 2 && g.chance(50) {
				q.Nodes = q.Nodes[:2]
			}
			q.Manual = g.chance(10)
			if g.chance(25) {
				q.Back = g.between(g.l, 5*g.l)
			}
		}
		q.Start = g.between(time.Millisecond, 300*time.Millisecond)
		g.plan.Groups = append(g.plan.Groups, q)
	}
}

// settled is when a cluster that nothing has disturbed is certainly formed and serves.
func (g *generator) settled() time.Duration { return 2*time.Second + 6*g.l }

// faults draws a swarm: first which kinds this plan has at all, then faults of these kinds, alone or close
// after one another.
func (g *generator) faults() {
	p := g.plan
	if p.Run = g.f.run; p.Run == 0 {
		p.Run = g.settled() + time.Duration(10+g.rand.IntN(20))*g.l
	}
	kinds := slices.Clone(g.f.always)
	for _, k := range g.f.kinds {
		if g.chance(40) {
			kinds = append(kinds, k)
		}
	}
	if len(kinds) == 0 {
		kinds = g.f.kinds
	}
	if len(kinds) == 0 {
		return
	}
	from := min(g.settled(), p.Run/2)
	if g.f.early || g.chance(10) {
		from = 0
	}
	at := g.between(from, p.Run)
	wiped := false
	if g.f.changes {
		g.outside()
	}
	for range g.f.least + g.rand.IntN(g.f.most-g.f.least+1) {
		k := kinds[g.rand.IntN(len(kinds))]
		if lost := k == Wipe || k == SetBack; lost && (wiped || at < g.settled()) {
			k = instead(k) // one lost disk is what a cluster of three stands, once it is formed
		}
		wiped = wiped || k == Wipe || k == SetBack
		p.Faults = append(p.Faults, g.fault(k, at))
		g.takeBack(p.Faults[len(p.Faults)-1])
		if at += g.near() / 2; at >= p.Run || g.chance(30) {
			at = g.between(from, p.Run)
		}
	}
	if !wiped && g.chance(20) {
		g.forGood()
	}
}

// instead is the fault that comes in the place of one that costs a second disk.
func instead(k Kind) Kind {
	if k == SetBack {
		return Switch // who remembers what the disk held stays heard
	}
	return Power
}

// outside leaves the last nodes out of the first configuration, as far as a cluster remains, and lengthens
// the run: a change takes a few lease lengths.
func (g *generator) outside() {
	p := g.plan
	p.Run += 10 * g.l
	names := []cluster.NodeID{}
	for len(p.Nodes) < 5 {
		p.Nodes = append(p.Nodes, PlanNode{ID: nodeNames[len(p.Nodes)], Role: cluster.Witness})
	}
	for _, n := range p.Nodes[3:] {
		if g.chance(60) {
			names = append(names, n.ID)
		}
	}
	p.Out = names
}

// padLeast is how large a configuration that is made large is at least, in bytes.
const padLeast = 1500

// words draws one change of the configuration.
func (g *generator) words() string {
	p := g.plan
	n := p.Nodes[1+g.rand.IntN(len(p.Nodes)-1)].ID
	switch g.rand.IntN(8) {
	case 0, 1:
		return "takeover=" + g.f.takeovers[g.rand.IntN(len(g.f.takeovers))].String()
	case 2:
		if g.chance(50) {
			return "pad=" + strconv.Itoa(padLeast<<g.rand.IntN(6))
		}
		return "mark=" + string(p.Groups[g.rand.IntN(len(p.Groups))].ID)
	case 3, 4:
		return "-" + string(n)
	default:
		return "+" + string(n)
	}
}

// drops deletes directories below agents, in one of three plans: a run directory, and, where the plan costs no disk, a
// data directory. An agent that is killed soon after has lost what was there.
func (g *generator) drops() {
	p := g.plan
	if !g.chance(33) || p.Run < g.settled() {
		return
	}
	kinds := []Kind{DropRun}
	if !slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Kind == Wipe || f.Kind == SetBack }) {
		kinds = append(kinds, DropData)
	}
	for _, k := range kinds {
		at := g.between(g.settled(), p.Run)
		if p.Goal == Mend { // well after another fault, so that it is noticed before the next: else it costs 2 L more
			if len(p.Faults) == 0 {
				return
			}
			f := p.Faults[g.rand.IntN(len(p.Faults))]
			at = min(f.At+f.For+g.between(30*time.Second, time.Minute), p.Run-time.Second)
		}
		p.Faults = append(p.Faults, g.fault(k, at))
		if dropped := p.Faults[len(p.Faults)-1]; p.Goal != Mend && g.chance(50) {
			p.Faults = append(p.Faults, Fault{At: at + g.between(0, 100*time.Millisecond), Kind: Kill, Node: dropped.Node, Link: -1,
				For: g.between(time.Millisecond, 40*time.Millisecond)})
		}
	}
}

// forGood makes one fault last beyond the run: a minority stays down. To form, a cluster needs everybody.
func (g *generator) forGood() {
	for i := range g.plan.Faults {
		f := &g.plan.Faults[i]
		if (f.Kind == Power || f.Kind == Kill || f.Kind == Freeze || f.Kind == Isolate || f.Kind == HangDisk) && f.Node[0] != '@' && f.At >= g.settled() {
			f.For = 0
			return
		}
	}
}

func (g *generator) node() string {
	switch g.rand.IntN(6) {
	case 0, 1:
		return TheOwner
	case 2:
		return TheCoordinator
	}
	return string(g.plan.Nodes[g.rand.IntN(len(g.plan.Nodes))].ID)
}

// fault draws one fault of a kind. It ends before the run does.
func (g *generator) fault(k Kind, at time.Duration) Fault {
	f := Fault{At: at, Kind: k, Link: -1}
	s := shapes[k]
	if s.nodes > 0 {
		f.Node = g.node()
	}
	if s.nodes > 1 {
		for f.Peer = f.Node; f.Peer == f.Node; {
			f.Peer = string(g.plan.Nodes[g.rand.IntN(len(g.plan.Nodes))].ID)
		}
	}
	if s.group {
		f.Group = string(g.plan.Groups[g.rand.IntN(len(g.plan.Groups))].ID)
	}
	if s.link && g.chance(60) {
		f.Link = g.rand.IntN(g.plan.Links)
	}
	if s.lasts {
		f.For = max(min(g.near(), g.plan.Run-at), 1)
	}
	switch k {
	case Power, Wipe, Kill, Forget:
		if g.chance(50) {
			f.For = min(g.between(time.Millisecond, 40*time.Millisecond), f.For)
		}
	case Loss:
		f.Percent = 5 + g.rand.IntN(70)
	case Dup:
		f.Percent = 5 + g.rand.IntN(95)
	case Late:
		f.Percent, f.Amount = 5+g.rand.IntN(95), g.near()/2
	case Replay:
		f.Percent, f.Amount = 5+g.rand.IntN(60), g.near()*2
	case Drift:
		f.PPM = g.rate()
	case Wall:
		f.Amount = g.between(time.Second, time.Hour)
		if g.chance(50) {
			f.Amount = -f.Amount
		}
	case MTU, Narrow:
		f.Bytes = []int{576, 1280, 1400, 1450}[g.rand.IntN(4)]
	case Starve:
		f.Amount = g.near() / 4
		f.Second = f.Amount + g.near()/2
	case Skew:
		f.Amount = g.near() / 2
	case Bloat:
		f.Amount = g.near()
	case FlapLink, FlapUplink:
		f.Amount, f.Second = g.near()/2, g.near()/2
	case SlowDisk:
		f.Amount = g.between(2*time.Millisecond, 30*time.Millisecond)
	case LateGate:
		f.Amount = g.near() / 2
	case SetBack:
		f.Amount = g.between(time.Millisecond, at)
	case Apply:
		f.Words = g.words()
	case Pause, Resume, Pin, Unpin, Drain, Undrain, Stop, Start, Restart, Clear:
		g.instruction(&f)
	case Switch:
		f.Node = ""
		if q := &g.plan.Groups[g.plan.group(cluster.GroupID(f.Group))]; g.chance(70) {
			f.Node = string(q.Nodes[g.rand.IntN(len(q.Nodes))])
		}
	}
	return f
}

// single draws the one fault of a plan that measures the takeover, and perhaps one stall that must fit.
func (g *generator) single() {
	p := g.plan
	at := g.settled() + g.between(0, g.l)
	one := []Fault{
		{Kind: Power, Node: TheOwner}, {Kind: Power, Node: TheCoordinator}, {Kind: Power, Node: TheOther},
		{Kind: Isolate, Node: TheOwner}, {Kind: Isolate, Node: TheCoordinator},
		{Kind: Kill, Node: TheOwner}, {Kind: Kill, Node: TheCoordinator},
		{Kind: Freeze, Node: TheOwner}, {Kind: Freeze, Node: TheCoordinator},
		{Kind: Cut, Node: TheOwner, Peer: TheCoordinator}, {Kind: OneWay, Node: TheOwner, Peer: TheOther},
		{Kind: Uplink, Node: TheOwner}, {Kind: Fail, Node: TheOwner, Group: "web"},
		{Kind: HangDisk, Node: TheOwner}, {Kind: HangDisk, Node: TheCoordinator},
		{Kind: Power, Node: TheOwner, For: 10 * time.Millisecond},
	}
	f := one[g.rand.IntN(len(one))]
	f.At, f.Link = at, -1
	p.Faults = []Fault{f}
	p.Run = at + p.Takeover*3 + time.Second
	if g.chance(50) {
		// No more than the stall that every takeover time allows for, on one machine.
		p.Faults = append(p.Faults, Fault{At: at + g.between(0, p.Takeover), Kind: Freeze, Link: -1,
			Node: string(p.Nodes[g.rand.IntN(len(p.Nodes))].ID), For: stallFits})
	}
}

// outOfSight draws what cuts the owner off from its clients and leaves it its carrier and another link, or nothing but
// heartbeats.
func (g *generator) outOfSight() {
	p := g.plan
	at := g.settled() + g.between(0, g.l)
	f := Fault{At: at, Kind: Unreach, Node: TheOwner, Link: -1}
	if p.Networks == byLinks {
		f.Kind, f.Link = []Kind{Port, PortIn, PortOut}[g.rand.IntN(3)], 0
	}
	p.Faults = []Fault{f}
	p.Run = at + p.Takeover*3 + time.Second
}

// inSight draws what leaves no node better off than the owner.
func (g *generator) inSight() {
	p := g.plan
	at := g.settled() + g.between(0, g.l)
	one := []Fault{
		{Kind: Link, Link: 0}, {Kind: Link, Link: 1}, {Kind: FlapLink, Link: 0, Amount: g.near(), Second: g.near()}, {Kind: Carrier, Link: 0},
		{Kind: Port, Node: TheOwner, Link: 1}, {Kind: PortIn, Node: TheOwner, Link: 1}, {Kind: PortOut, Node: TheOwner, Link: 1},
		{Kind: Port, Node: TheOther, Link: 0}, {Kind: PortIn, Node: TheOther, Link: 0}, {Kind: PortOut, Node: TheOther, Link: 0},
		{Kind: Loss, Percent: 30, Link: 0}, {Kind: Cut, Node: TheOwner, Peer: TheOther, Link: 0},
	}
	if p.Networks == byTarget {
		p.Links = 2
		one = append(one, Fault{Kind: NoTarget, Link: -1}, Fault{Kind: Unreach, Node: TheOther, Link: -1}, Fault{Kind: Port, Node: TheOwner, Link: 0})
	}
	f := one[g.rand.IntN(len(one))]
	f.At, f.For = at, g.near()
	p.Faults = []Fault{f}
	p.Run = at + f.For + max(20*g.l, 8*time.Second)
}

// lossy draws the power loss of the owner on one link that loses some packets from before.
func (g *generator) lossy() {
	p := g.plan
	p.Links = 1
	at := g.settled() + g.between(0, g.l)
	p.Faults = []Fault{{At: at / 2, Kind: Loss, Percent: g.f.loss, Link: -1}, {At: at, Kind: Power, Node: TheOwner, Link: -1}}
	p.Run = at + p.Takeover*3 + time.Second
}

// episodes draws faults one after another, with time between them for all to come to rest: about an hour.
func (g *generator) episodes() {
	p := g.plan
	p.StallEvery, p.Links, p.Codec = 0, 2, false
	for i := range p.Groups {
		q := &p.Groups[i]
		if q.Back = 0; g.chance(60) {
			q.Back = g.between(10*time.Second, time.Minute)
		}
	}
	at := g.settled() + 2*time.Minute
	for at < time.Hour {
		f := g.fault(g.f.kinds[g.rand.IntN(len(g.f.kinds))], at)
		if shapes[f.Kind].link { // one of two
			f.Link = g.rand.IntN(p.Links)
		}
		if shapes[f.Kind].lasts {
			f.For = g.between(time.Millisecond, 2*time.Minute)
			if g.chance(50) {
				f.For = g.near()
			}
		}
		if f.Kind == FlapUplink { // up for less than a failback waits
			f.Amount, f.Second = g.between(10*time.Millisecond, 5*time.Second), g.between(10*time.Millisecond, 20*time.Second)
		}
		p.Faults = append(p.Faults, f)
		at += f.For + g.between(2*time.Minute, 8*time.Minute)
	}
	p.Run = at
}

// tolerated draws a fault that must move nothing.
func (g *generator) tolerated() {
	p := g.plan
	at := g.settled() + g.between(0, g.l)
	p.Links = 2
	one := []Fault{
		{Kind: Loss, Percent: 30, Link: -1}, {Kind: Loss, Percent: 15, Link: -1},
		{Kind: Link, Link: 0}, {Kind: Link, Link: 1}, {Kind: Carrier, Link: g.rand.IntN(2)},
		{Kind: Power, Node: TheOther}, {Kind: Kill, Node: TheOther}, {Kind: Isolate, Node: TheOther}, {Kind: Freeze, Node: TheOther},
		{Kind: SlowDisk, Node: TheOther, Amount: 20 * time.Millisecond}, {Kind: HangDisk, Node: TheOther},
		{Kind: SlowDisk, Node: TheOwner, Amount: 10 * time.Millisecond},
		{Kind: Cut, Node: TheOwner, Peer: TheCoordinator}, {Kind: Cut, Node: TheOwner, Peer: TheOther},
		{Kind: Dup, Percent: 50, Link: -1}, {Kind: Drift, Node: TheOwner, PPM: cluster.DriftMaxPPM},
		{Kind: Kill, Node: TheOwner, For: g.l / 3}, {Kind: Kill, Node: TheCoordinator, For: g.l / 3},
	}
	f := one[g.rand.IntN(len(one))]
	if f.Kind != Loss && f.Kind != Link && f.Kind != Carrier && f.Kind != Dup {
		f.Link = -1
	}
	f.At = at
	if f.Kind == Loss {
		p.Links = 1 + g.rand.IntN(2)
	}
	p.Faults = []Fault{f}
	p.Run = at + 20*g.l + time.Second
}

// harmless draws changes of the configuration that must move nothing.
func (g *generator) harmless() {
	p := g.plan
	p.Links = 2
	p.Nodes = append(p.Nodes, PlanNode{ID: nodeNames[3], Role: cluster.Witness}, PlanNode{ID: nodeNames[4], Role: cluster.Witness})
	p.Out = []cluster.NodeID{nodeNames[4]}
	at, longest := g.settled(), g.l
	switch g.rand.IntN(4) {
	case 0:
		p.Faults = append(p.Faults, Fault{At: at, Kind: Loss, Percent: 20, Link: -1})
	case 1:
		p.Faults = append(p.Faults, Fault{At: at, Kind: Link, Link: g.rand.IntN(2)})
	}
	words := []string{"-" + string(nodeNames[3]), "+" + string(nodeNames[3]), "+" + string(nodeNames[4])}
	for range 2 + g.rand.IntN(5) {
		w := words[g.rand.IntN(len(words))]
		if g.chance(60) {
			t := budgets[g.rand.IntN(len(budgets))]
			w, longest = "takeover="+t.String(), max(longest, t)
		}
		p.Faults = append(p.Faults, Fault{At: at, Kind: Apply, Link: -1, Words: w})
		at += g.between(100*time.Millisecond, 4*longest)
	}
	p.Run = at + 3*longest + time.Second
}

// instruction draws what a person's command names.
func (g *generator) instruction(f *Fault) {
	if shapes[f.Kind].standing && g.chance(70) {
		f.For = g.near()
	}
	switch f.Kind {
	case Pause, Resume:
		if g.chance(20) {
			f.Group = "all"
		}
	case Pin:
		q := &g.plan.Groups[g.plan.group(cluster.GroupID(f.Group))]
		f.Node = string(q.Nodes[g.rand.IntN(len(q.Nodes))])
	case Stop, Start, Restart, Clear:
		if g.chance(50) {
			f.Group += []string{"/app", "/ip"}[g.rand.IntN(2)]
		}
	}
}

// takeBack adds, more often than not, the command that takes an instruction back.
func (g *generator) takeBack(f Fault) {
	back, ok := map[Kind]Kind{Pause: Resume, Pin: Unpin, Drain: Undrain, Stop: Start}[f.Kind]
	if !ok || !g.chance(70) {
		return
	}
	at := f.At + g.near()
	if at >= g.plan.Run {
		return
	}
	f.At, f.For = at, 0
	if f.Kind == Pin {
		f.Node = ""
	}
	f.Kind = back
	g.plan.Faults = append(g.plan.Faults, f)
}
