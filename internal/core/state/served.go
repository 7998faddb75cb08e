package state

import (
	"fmt"
	"time"

	"baton/internal/core/cluster"
)

// Service is how a group has served so far. It outlives the journal's lines that it was added up from.
type Service struct {
	Count     uint64             `json:"count"` // of the Served entries
	Epoch     cluster.Epoch      `json:"epoch"` // of the newest of them
	First     cluster.WallTime   `json:"first"` // when the group first served
	Since     cluster.WallTime   `json:"since"` // when it last began to
	Planned   time.Duration      `json:"planned,omitempty"`
	Unplanned time.Duration      `json:"unplanned,omitempty"`
	Moves     cluster.MoveCounts `json:"moves,omitzero"`
	// Asked is when somebody last asked for what takes the service away; 0: nobody has since it last began.
	Asked cluster.WallTime `json:"asked,omitempty"`
}

func (s *State) served(v *cluster.Served) string {
	g := s.Group(v.Group)
	switch {
	case g == nil:
		return "no such group"
	case v.Epoch > g.Epoch || v.Epoch < g.Service.Epoch:
		return fmt.Sprintf("the group is at epoch %d, and %d is on record", g.Epoch, g.Service.Epoch)
	case v.Count != g.Service.Count+1:
		return "it is on record already"
	}
	x := &g.Service
	x.Count, x.Epoch, x.Since, x.Asked = v.Count, v.Epoch, v.Wall, 0
	if x.First == 0 {
		x.First = v.Wall
	}
	if v.Planned {
		x.Planned += v.Down
	} else {
		x.Unplanned += v.Down
	}
	return ""
}

// How long before an outage somebody may have asked for it; and by how much clocks of two nodes may differ.
const (
	expectFor = 2 * time.Minute
	clockSlip = 5 * time.Second
)

// Expected tells whether an outage that began at a wall time was asked for.
func (x *Service) Expected(began cluster.WallTime) bool {
	return x.Asked != 0 && began >= x.Asked-cluster.WallTime(clockSlip) && began <= x.Asked+cluster.WallTime(expectFor)
}

// placed counts a placement before it is applied: why it comes, and whether it brings the group elsewhere.
func (g *Group) placed(a *cluster.Assign, now cluster.WallTime) {
	x := &g.Service
	asked := g.Move != nil && g.Move.Assigned == 0 && g.Move.To == a.To && g.Owner != "" // else its owner was lost meanwhile
	if asked {
		x.Asked = now
	}
	switch {
	case g.Last == "" || g.Last == a.To:
	case asked && g.Move.Failback:
		x.Moves.Failbacks++
	case asked:
		x.Moves.Switchovers++
	default:
		x.Moves.Failovers++
	}
}

// asked notes that a person's instruction stops or restarts a group: the outage that follows is planned.
func (s *State) asked(p cluster.Part, now cluster.WallTime) {
	id := cluster.GroupID("")
	switch {
	case p.Stop != nil:
		id = p.Stop.Group
	case p.Restart != nil:
		id = p.Restart.Group
	}
	if g := s.Group(id); g != nil {
		g.Service.Asked = now
	}
}
