package app

import (
	"errors"
	"net/netip"

	"baton/internal/core/cluster"
	"baton/internal/io/gate"
)

// noGate stands for the gate where the kernel gives none: a cluster on loopback addresses, run without
// root to try commands. It cuts nothing off. A frozen agent's service goes on answering there, so two
// nodes may serve; nothing but `baton dev` may use it.
type noGate struct{}

// errNoGate says where an agent may run without a gate.
var errNoGate = errors.New("--no-gate is for a cluster on loopback addresses, as baton dev makes it: elsewhere nothing would keep two nodes from serving at once")

// allowNoGate tells whether all nodes are on this machine's loopback, where no client from elsewhere can
// be deceived.
func allowNoGate(s *cluster.Spec) error {
	local := func(a netip.Addr) bool { return !a.IsValid() || a.IsLoopback() }
	for _, n := range s.Nodes {
		if !local(n.Address) {
			return errNoGate
		}
		for _, l := range s.Links {
			if l.UDP != nil && !local(l.UDP.Addresses[n.ID]) {
				return errNoGate
			}
		}
	}
	for _, g := range s.Groups {
		for _, r := range g.Resources {
			if len(r.Addresses) > 0 {
				return errNoGate
			}
		}
	}
	return nil
}

// Guard implements gate.Gate.
func (noGate) Guard([]gate.Group) error { return nil }

// Set implements gate.Gate.
func (noGate) Set(cluster.GroupID, cluster.Epoch, int64) error { return nil }

// Left implements gate.Gate.
func (noGate) Left() ([]gate.State, error) { return nil, nil }

// Sweep implements gate.Gate.
func (noGate) Sweep() error { return nil }

// Look implements gate.Gate.
func (noGate) Look() {}

// Describe implements gate.Gate.
func (noGate) Describe() string { return "none: nothing cuts a frozen agent off" }

// Why implements gate.Gate.
func (noGate) Why() string { return "" }

// Close implements gate.Gate.
func (noGate) Close() error { return nil }

// Remove implements gate.Gate.
func (noGate) Remove() error { return nil }
