package cluster

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Spec is a validated cluster file. It is read-only once made; package config makes it.
type Spec struct {
	Cluster string // the cluster's name
	Text    []byte // the file's exact text, comments included
	Timing  Timing
	KeyFile string
	Nodes   []NodeSpec  // sorted by name
	Links   []LinkSpec  // in the file's order; at least one
	Groups  []GroupSpec // sorted by name
	Health  *HealthSpec // nil: no node answers monitors
	// Targets are all that groups name under `reach`, sorted, each once: at most MaxTargets.
	Targets []netip.Addr
}

// NodeSpec is one node of the cluster file.
type NodeSpec struct {
	ID      NodeID
	Role    Role
	Address netip.Addr
}

// LinkSpec is one way for heartbeats to go.
type LinkSpec struct {
	Name string
	UDP  *UDPLink // the only kind so far
}

// Joins tells whether the link joins two nodes.
func (l *LinkSpec) Joins(a, b NodeID) bool {
	return l.UDP != nil && l.UDP.Addresses[a].IsValid() && l.UDP.Addresses[b].IsValid()
}

// UDPLink is a link over UDP. Every node of the cluster that it joins has an address on it.
type UDPLink struct {
	Port      uint16
	Addresses map[NodeID]netip.Addr
}

// GroupSpec is one group of the cluster file.
type GroupSpec struct {
	ID        GroupID
	Nodes     []NodeID // in order of preference
	Failover  FailoverPolicy
	Failback  FailbackPolicy
	Restarts  int            // local restarts before a move where no hot standby is ready
	Reach     ReachSpec      // what shows that clients can reach a node
	Resources []ResourceSpec // in starting order
}

// MaxTargets bounds Spec.Targets.
const MaxTargets = 64

// ReachSpec says what shows that a node is in the network from which a group's clients come. By default the links do
// that are in the subnet of one of the group's addresses.
type ReachSpec struct {
	None    bool         // nothing is judged
	Targets []netip.Addr // sorted; where there are any, links show nothing
}

// ClientLink tells whether a link shows that a node is in the network from which a group's clients come: the node's
// address on it is in the subnet of one of the group's.
func (s *Spec) ClientLink(g *GroupSpec, link int, id NodeID) bool {
	if g.Reach.None || len(g.Reach.Targets) > 0 || s.Links[link].UDP == nil {
		return false
	}
	a, ok := s.Links[link].UDP.Addresses[id]
	return ok && slices.ContainsFunc(g.Resources, func(r ResourceSpec) bool {
		return slices.ContainsFunc(r.Subnets, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// FailoverPolicy says who decides that a group moves after a failure.
type FailoverPolicy uint8

const (
	// FailoverAutomatic moves the group at once.
	FailoverAutomatic FailoverPolicy = iota
	// FailoverManual moves it only on a command.
	FailoverManual
)

// FailbackPolicy says whether a group returns to a preferred node by itself.
type FailbackPolicy struct {
	Automatic bool
	After     time.Duration // how long the preferred node must have been well
}

// returnMost bounds what a return waits for where those before it did not last, unless the file asks for more.
const returnMost = time.Hour

// Wait is how long the preferred node must have been well for a return, after so many in a row that did not last:
// After, twice as long each time.
func (p FailbackPolicy) Wait(failed int) time.Duration {
	wait := p.After
	for range failed {
		if wait = 2 * wait; wait >= returnMost {
			return max(p.After, returnMost)
		}
	}
	return wait
}

// Lasted tells whether a return that came after so many that did not last has lasted, if the group left after this time.
func (p FailbackPolicy) Lasted(failed int, stayed time.Duration) bool {
	return stayed >= max(time.Minute, 2*p.Wait(failed))
}

// ResourceSpec is one resource of a group. The core knows a resource only by these properties;
// what Fields mean is its kind's business.
type ResourceSpec struct {
	ID           ResourceID
	Kind         string
	Fields       map[string]any // as the kind's KindSpec describes them, defaults filled in
	Depth        Depth          // how deep this resource stands by where it does not serve
	Front        bool           // it is what clients reach (an address): brought up last, while the gate opens
	Effects      Effects
	StartTimeout time.Duration
	StopTimeout  time.Duration
	Addresses    []netip.Addr   // addresses that the gate guards for this resource
	Subnets      []netip.Prefix // of these, as far as they are told with a prefix length
	Ports        []Port         // local ports that the gate guards for this resource
	Live         []string       // fields whose change takes effect on what runs, without a restart
}

// Port is a transport port of this node.
type Port struct {
	Protocol string // "tcp" or "udp"
	Number   uint16
}

// Depth says how much of a resource runs on a node that does not serve.
type Depth uint8

const (
	// Cold: stopped.
	Cold Depth = iota
	// Warm: prepared, not running.
	Warm
	// Hot: running, out of clients' reach.
	Hot
)

var depthNames = [...]string{"cold", "warm", "hot"}

func (d Depth) String() string { return depthNames[d] }

// Effects says where a resource acts on the world, and so what can cut it off (protocol.md, "The gate").
type Effects uint8

const (
	// EffectsBeyond: neither gate nor cgroup reaches it. The safe default.
	EffectsBeyond Effects = iota
	// EffectsAddress: only those who reach its addresses or ports see it; the gate closes it.
	EffectsAddress
	// EffectsOutgoing: it acts on others over the network; its cgroup's egress gate closes it.
	EffectsOutgoing
)

var effectsNames = [...]string{"beyond", "address", "outgoing"}

func (e Effects) String() string { return effectsNames[e] }

// Timing holds every timer of the protocol, all derived from `takeover` by config.Derive.
type Timing struct {
	Takeover time.Duration // T: after any single fault a group serves again within this time
	L        time.Duration // lease length
	Longest  time.Duration // the longest L that any node of the cluster asks a promise for
	H        time.Duration // heartbeat interval
	D        time.Duration // silence after which a node is suspected
	Stall    time.Duration // the stall of a machine that must fit into T
	Sync     time.Duration // how long a sync of the log takes here
	RTT      time.Duration // round trip of the slowest link
	Step     time.Duration // base interval between the campaigns of two candidates
	RhoPPM   int64         // by how much the faster of two clocks may outrun the slower, in millionths
}

// RhoPPM is rho, in millionths, and a ratio: of any two nodes' clocks the faster runs at most 1+rho times as
// fast as the slower (protocol.md, "Clocks").
const RhoPPM = 5000

// DriftMaxPPM is by how many millionths each clock may differ from true time for that to hold, one being fast
// and the other slow: (1+x)/(1-x) <= 1+rho, so x <= rho/(2+rho).
const DriftMaxPPM = RhoPPM * 1_000_000 / (2_000_000 + RhoPPM)

// Promised returns how long a voter's promise under lease length l lasts: l(1+rho), rounded up.
func (t Timing) Promised(l time.Duration) time.Duration {
	return l + time.Duration(int64(l)/1_000_000*t.RhoPPM) + time.Duration((int64(l)%1_000_000*t.RhoPPM+999_999)/1_000_000)
}

// Quick returns the interval at which urgent packets are repeated: L/50.
func (t Timing) Quick() time.Duration { return t.L / 50 }

// Node returns the node's specification, or nil.
func (s *Spec) Node(id NodeID) *NodeSpec {
	for i := range s.Nodes {
		if s.Nodes[i].ID == id {
			return &s.Nodes[i]
		}
	}
	return nil
}

// Addresses returns the addresses that a group's resources serve under, in the order of the file.
func (g *GroupSpec) Addresses() []netip.Addr {
	var out []netip.Addr
	for i := range g.Resources {
		out = append(out, g.Resources[i].Addresses...)
	}
	return out
}

// Group returns the group's specification, or nil.
func (s *Spec) Group(id GroupID) *GroupSpec {
	// As read from a file they are in the order of names.
	if i, found := slices.BinarySearchFunc(s.Groups, id, func(g GroupSpec, id GroupID) int { return strings.Compare(string(g.ID), string(id)) }); found {
		return &s.Groups[i]
	}
	for i := range s.Groups {
		if s.Groups[i].ID == id {
			return &s.Groups[i]
		}
	}
	return nil
}

// Resource returns the resource's specification, or nil.
func (g *GroupSpec) Resource(id ResourceID) *ResourceSpec {
	for i := range g.Resources {
		if g.Resources[i].ID == id {
			return &g.Resources[i]
		}
	}
	return nil
}

// Prefers returns the node's place in the group's order of preference, or -1 if it may not run it.
func (g *GroupSpec) Prefers(id NodeID) int { return slices.Index(g.Nodes, id) }

// VotersMin is the least number of voters: with two, the question who may go on alone has no answer here, and the
// loss of one disk would stop the cluster for ever.
const VotersMin = 3

// Quorum returns how many of n voters are a majority.
func Quorum(n int) int { return n/2 + 1 }
