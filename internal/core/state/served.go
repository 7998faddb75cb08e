package state

import (
	"fmt"
	"slices"
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
	// What is on record of gaps in the service under Epoch, as its owner has told it.
	Ordered time.Duration `json:"ordered,omitempty"`
	Other   time.Duration `json:"other,omitempty"`
	// Open is the outage before Epoch, of which it is not known yet when it began; nil: it is, or never will be.
	Open *cluster.Served `json:"open,omitempty"`
	// Asked is the newest epoch whose placement somebody ordered.
	Asked cluster.Epoch `json:"asked,omitempty"`
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
	if v.Epoch != x.Epoch {
		x.Open = nil // whose epoch serves no more: nobody will tell when it began to
	}
	x.Count, x.Epoch, x.Since = v.Count, v.Epoch, v.Wall
	x.Ordered, x.Other = v.Ordered, v.Other
	if x.First == 0 {
		x.First = v.Wall
	}
	x.add(v.Planned, v.Down-v.Share)
	x.Planned += v.Share
	if v.Known == cluster.AtMost && v.Before != 0 {
		c := *v
		x.Open = &c
	}
	return ""
}

func (x *Service) add(planned bool, d time.Duration) {
	if planned {
		x.Planned += d
	} else {
		x.Unplanned += d
	}
}

// amend puts an outage right, in what it adds up to and where history tells of it.
func (s *State) amend(a *cluster.Amend) string {
	g := s.Group(a.Group)
	if g == nil {
		return "no such group"
	}
	x := &g.Service
	if x.Open == nil || x.Open.Count != a.Count {
		return "nothing of that outage is open"
	}
	was := x.Open
	x.add(was.Planned, -was.Down)
	x.add(a.Planned, a.Down)
	x.Open = nil
	for i := range s.Journal {
		l := &s.Journal[i]
		k := slices.IndexFunc(l.Served, func(v cluster.Served) bool { return v.Group == a.Group && v.Count == a.Count })
		if k < 0 {
			continue
		}
		l.Did, l.Served = slices.Clone(l.Did), slices.Clone(l.Served) // whoever was given the line before keeps it as it was
		v := &l.Served[k]
		before := v.String()
		v.Planned, v.Down, v.Least, v.Known, v.Phases = a.Planned, a.Down, a.Least, a.Known, v.Phases.Shorten(a.Down)
		if d := slices.Index(l.Did, before); d >= 0 {
			l.Did[d] = v.String()
		}
	}
	return ""
}

// asked tells whether a placement is that of the move under way.
func (g *Group) asked(a *cluster.Assign) bool {
	return g.Move != nil && g.Move.Assigned == 0 && g.Move.To == a.To && g.Owner != "" // else its owner was lost meanwhile
}

// placed counts a placement before it is applied: why it comes, and whether it brings the group elsewhere.
func (g *Group) placed(a *cluster.Assign) {
	x := &g.Service
	asked := g.asked(a)
	if asked {
		x.Asked = a.Epoch
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
