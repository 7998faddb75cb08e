package api

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

// availability is 1 less the share of the time, since the group first served, in which nobody did.
func availability(v *cluster.ServiceView, now time.Time) float64 {
	whole := now.Sub(time.Unix(0, int64(v.First)))
	down := v.Planned + v.Unplanned + v.Down
	switch {
	case v.First == 0 || down < 0:
		return 0
	case down == 0:
		return 1
	case whole <= down: // clocks of two nodes differ, or it has never been up for long
		return 0
	}
	return 1 - float64(down)/float64(whole)
}

func serviceOf(v *cluster.ServiceView, now time.Time) *batonv1.Service {
	return &batonv1.Service{
		First: stamp(v.First), Since: stamp(v.Since), Planned: durationpb.New(v.Planned), Unplanned: durationpb.New(v.Unplanned),
		Down: durationpb.New(v.Down), Availability: availability(v, now),
		Switchovers: v.Moves.Switchovers, Failbacks: v.Moves.Failbacks, Failovers: v.Moves.Failovers,
	}
}

func servedOf(all []cluster.Served) []*batonv1.Served {
	var out []*batonv1.Served
	for i := range all {
		s := &all[i]
		out = append(out, &batonv1.Served{
			Group: string(s.Group), Node: string(s.Node), Epoch: uint64(s.Epoch), Time: stamp(s.Wall), Planned: s.Planned,
			Down: durationpb.New(s.Down), Rough: s.Known != cluster.Within && s.Known != cluster.AtMost && s.Known != cluster.AtLeast, Detected: durationpb.New(s.Phases.Detected), Decided: durationpb.New(s.Phases.Decided),
			Waited: durationpb.New(s.Phases.Waited), Started: durationpb.New(s.Phases.Started), Paused: durationpb.New(s.Phases.Paused),
			Least: durationpb.New(s.Least), Known: string(s.Known), Share: durationpb.New(s.Share),
		})
	}
	return out
}
