package cluster

import "net/netip"

// HealthSpec says where each node answers monitors and load balancers, without any authentication.
type HealthSpec struct {
	Port      uint16
	Addresses map[NodeID]netip.Addr // a node without one does not listen
}

// HealthAddress returns where a node answers monitors; false: nowhere.
func (s *Spec) HealthAddress(id NodeID) (netip.AddrPort, bool) {
	if s.Health == nil || !s.Health.Addresses[id].IsValid() {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(s.Health.Addresses[id], s.Health.Port), true
}
