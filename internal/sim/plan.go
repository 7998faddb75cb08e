package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"baton/internal/core/cluster"
)

// Goal says what a run must show beside safety.
type Goal uint8

const (
	// Converge: after the last fault has ended every group serves again within a bound, and stays.
	Converge Goal = iota
	// Takeover: after the measured fault every group with an eligible node serves within the takeover. That is the last
	// fault before which all others have ended, and the cluster has settled; loss may be there all the time (Plan.cause).
	Takeover
	// Still: the faults are tolerated ones, no group moves and no gate closes.
	Still
	// Safety: nothing more.
	Safety
	// Mend: at every moment what can be served is served, within the takeover and the start after each change; nothing
	// is kept off a node for what is mended, and no group moves twice for one cause.
	Mend
)

var goalNames = []string{"converge", "takeover", "still", "safety", "mend"}

func (g Goal) String() string { return goalNames[g] }

// Plan is one run as data: a cluster, the machines' properties, and the faults. What it leaves open
// (each packet's latency, which unsynced writes survive) follows from Seed.
type Plan struct {
	Seed       uint64
	Takeover   time.Duration
	Nodes      []PlanNode
	Out        []cluster.NodeID // nodes that are not in the first revision of the configuration
	Links      int
	Groups     []PlanGroup
	Latency    time.Duration // of a packet, at the least
	Jitter     time.Duration // and this much more, at the most
	SyncMin    time.Duration // of the disk
	SyncMax    time.Duration
	StallEvery time.Duration // how often a machine stalls, on average; 0: never
	StallMax   time.Duration // and for how long at the most
	Codec      bool          // every message is encoded and decoded on its way
	Blind      bool          // agents do not measure how long their syncs take
	Clients    time.Duration // for how long a client's ARP cache holds an address; 0: there are no clients
	Networks   string        // by which clients come: byLinks, byTarget; empty: nothing is judged
	Compact    uint64        // entries after which a node makes a snapshot; 0: the core's default
	Goal       Goal
	Faults     []Fault       // in the order of At
	Spread     time.Duration // faults come up to this much later, those of one instant together
	Run        time.Duration // when every fault that has an end has ended
	Settle     time.Duration // goal Converge: within this time after Run; 0: 3 L, and what boots and starts
	Tail       time.Duration // what follows; 0: as long as the goal needs
}

// PlanNode is one machine.
type PlanNode struct {
	ID   cluster.NodeID
	Role cluster.Role
	PPM  int64 // millionths by which its clock runs fast
}

// PlanGroup is one group.
type PlanGroup struct {
	ID     cluster.GroupID
	Nodes  []cluster.NodeID
	Hot    bool // its first resource runs everywhere, out of reach
	Manual bool
	Beyond bool          // what its first resource does goes beyond the gate: two at once do harm
	Back   time.Duration // failback: automatic, after this long; 0: never
	Start  time.Duration // how long its first resource takes to start
}

// spec makes the cluster file's content that the nodes run with.
func (p *Plan) spec() (*cluster.Spec, error) {
	timing, err := derive(p.Takeover)
	if err != nil {
		return nil, err
	}
	s := &cluster.Spec{Cluster: "sim", Timing: timing}
	for i, n := range p.Nodes {
		s.Nodes = append(s.Nodes, cluster.NodeSpec{ID: n.ID, Role: n.Role, Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})})
	}
	slices.SortFunc(s.Nodes, func(a, b cluster.NodeSpec) int { return strings.Compare(string(a.ID), string(b.ID)) })
	for i := range p.Links {
		u := &cluster.UDPLink{Port: 7400, Addresses: map[cluster.NodeID]netip.Addr{}}
		for j, n := range s.Nodes {
			u.Addresses[n.ID] = netip.AddrFrom4([4]byte{10, 0, byte(i), byte(j + 1)})
		}
		s.Links = append(s.Links, cluster.LinkSpec{Name: linkNames[i], UDP: u})
	}
	for i, g := range p.Groups {
		s.Groups = append(s.Groups, g.spec(i))
	}
	slices.SortFunc(s.Groups, func(a, b cluster.GroupSpec) int { return strings.Compare(string(a.ID), string(b.ID)) })
	p.networked(s)
	return s, nil
}

func (g *PlanGroup) spec(i int) cluster.GroupSpec {
	s := cluster.GroupSpec{ID: g.ID, Nodes: g.Nodes, Restarts: 1}
	app := cluster.ResourceSpec{ID: "app", Kind: "process", Effects: cluster.EffectsOutgoing,
		StartTimeout: 10 * time.Second, StopTimeout: 2 * time.Second,
		Ports: []cluster.Port{{Protocol: "tcp", Number: uint16(80 + i)}}}
	if g.Hot {
		app.Depth = cluster.Hot
		s.Restarts = 0
	}
	if g.Beyond {
		app.Effects = cluster.EffectsBeyond
	}
	if g.Manual {
		s.Failover = cluster.FailoverManual
	}
	if g.Back > 0 {
		s.Failback = cluster.FailbackPolicy{Automatic: true, After: g.Back}
	}
	ip := cluster.ResourceSpec{ID: "ip", Kind: "vip", Front: true, Effects: cluster.EffectsAddress, Depth: cluster.Cold,
		StartTimeout: time.Second, StopTimeout: time.Second,
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i / 100), byte(100 + i%100)})}}
	s.Resources = []cluster.ResourceSpec{app, ip}
	return s
}

// check refuses a plan that the world can't run.
func (p *Plan) check() error {
	switch {
	case len(p.Nodes) < 3 || len(p.Nodes) > 16:
		return fmt.Errorf("a cluster has 3 to 16 nodes; this one has %d", len(p.Nodes))
	case len(p.Nodes)-len(p.Out) < 3:
		return fmt.Errorf("a cluster has 3 nodes at least; all but those that are out (%v) are %d", p.Out, len(p.Nodes)-len(p.Out))
	case p.Links < 1 || p.Links > len(linkNames):
		return fmt.Errorf("a plan has 1 to %d links; this one has %d", len(linkNames), p.Links)
	case p.Run <= 0:
		return fmt.Errorf("a plan has a length; this one's is %v", p.Run)
	}
	for _, n := range p.Nodes {
		if err := checkRate(n.PPM); err != nil {
			return fmt.Errorf("node %s: %w", n.ID, err)
		}
	}
	for i := range p.Faults {
		if err := p.checkFault(&p.Faults[i]); err != nil {
			return p.Faults[i].wrong("%v", err)
		}
	}
	return nil
}

// theirRoles are the names that stand for a node.
var theirRoles = []string{TheOwner, TheCoordinator, TheOther}

func (p *Plan) checkFault(f *Fault) error {
	if err := checkRate(f.PPM); err != nil {
		return err
	}
	if f.At < 0 {
		return errors.New("it comes before the run begins")
	}
	names := []string{f.Node, f.Peer}
	switch f.Kind {
	case Apply:
		if _, err := p.change(p.first(), strings.Fields(f.Words)); err != nil {
			return err
		}
	case Form:
		names = append(names, strings.Fields(f.Words)...)
	}
	for i, name := range names {
		switch {
		case name == "":
		case name[0] == '@' && i < 2:
			if !slices.Contains(theirRoles, name) {
				return fmt.Errorf("no node is called %s; there are %s", quote(name), strings.Join(theirRoles, ", "))
			}
		case p.node(cluster.NodeID(name)) < 0:
			return fmt.Errorf("no node %q", name)
		}
	}
	if f.Node != "" && f.Node == f.Peer {
		return errors.New("it takes two nodes")
	}
	if f.Link >= p.Links {
		return fmt.Errorf("the plan has %d links", p.Links)
	}
	return p.checkGroup(f)
}

// checkRate refuses a clock that the protocol makes no promise for.
func checkRate(ppm int64) error {
	if ppm < -cluster.DriftMaxPPM || ppm > cluster.DriftMaxPPM {
		return fmt.Errorf("a clock's rate may be off by %d ppm at most, not by %d", cluster.DriftMaxPPM, ppm)
	}
	return nil
}

func (p *Plan) checkGroup(f *Fault) error {
	group, resource, _ := strings.Cut(f.Group, "/")
	switch {
	case group == "" || group == "all" && (f.Kind == Pause || f.Kind == Resume):
	case p.group(cluster.GroupID(group)) < 0:
		return fmt.Errorf("no group %q", group)
	case resource != "" && resource != "app" && resource != "ip":
		return errors.New("a group has the resources app and ip")
	case resource != "" && (f.Kind < Stop || f.Kind > Clear):
		return errors.New("it takes a group, not a resource of it")
	}
	return nil
}

func (p *Plan) node(id cluster.NodeID) int {
	return slices.IndexFunc(p.Nodes, func(n PlanNode) bool { return n.ID == id })
}

func (p *Plan) group(id cluster.GroupID) int {
	return slices.IndexFunc(p.Groups, func(g PlanGroup) bool { return g.ID == id })
}

// spread returns the plan with its faults at the instants that its seed chooses.
func (p *Plan) spread() *Plan {
	if p.Spread == 0 {
		return p
	}
	c := p.clone()
	c.Spread = 0
	r := rand.New(rand.NewPCG(p.Seed, 3))
	var shift, last time.Duration
	for i := range c.Faults {
		f := &c.Faults[i]
		if i == 0 || f.At != last {
			shift = time.Duration(r.Int64N(int64(p.Spread)))
		}
		last = f.At
		f.At += shift
	}
	slices.SortStableFunc(c.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	return c
}

// clone returns a copy whose faults can be changed.
func (p *Plan) clone() *Plan {
	c := *p
	c.Faults = slices.Clone(p.Faults)
	return &c
}
