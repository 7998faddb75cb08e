package app

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/durationpb"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/api"
	"baton/internal/sim"
)

// Foresee implements api.PlanBackend. Only the picture is taken in the loop; the forecast is worked out beside it.
func (b *backend) Foresee(ctx context.Context, whatIf string) (*batonv1.ForeseeResponse, error) {
	s, limits, err := b.situation()
	if err != nil {
		return nil, err
	}
	f, err := sim.Predict(ctx, s, whatIf)
	var bad *sim.BadFault
	switch {
	case errors.As(err, &bad):
		return nil, &api.Refusal{Usage: true, Text: bad.Text, Hint: bad.Hint}
	case err != nil:
		return nil, err
	}
	r := foreseen(f, s.Spec)
	r.Node, r.WhatIf, r.Limits = string(b.a.self), whatIf, limits
	return r, nil
}

// situation takes a picture of the cluster, and tells what of it a forecast leaves out.
func (b *backend) situation() (s *sim.Situation, limits []string, err error) {
	s = &sim.Situation{Read: func(text []byte) (*cluster.Spec, error) { return readKept("the configuration", text) }}
	forming := ""
	asked := b.ask(func(n *node.Node) {
		now := b.a.clock.now()
		s.Wall, s.Overview = now.Wall, n.Overview(now)
		st := n.State()
		if st == nil || st.IsBlank() {
			forming = s.Overview.Forming
			return
		}
		s.State, s.Spec = st.Encode(), st.Spec()
		if st.Draft != nil {
			limits = append(limits, fmt.Sprintf("the draft of revision %d, which is under way, is left out", st.Draft.Base+1))
		}
	})
	switch {
	case asked != nil:
		return nil, nil, asked
	case s.State == nil:
		return nil, nil, &api.Refusal{Text: "this node belongs to no cluster yet: " + forming, Hint: "baton status --wait"}
	}
	if !s.Overview.Quorum {
		limits = append(limits, fmt.Sprintf("%s hears no majority: what it knows of the others may be old", s.Overview.Node))
	}
	return s, limits, nil
}

// foreseen puts a forecast into the words of the schema.
func foreseen(f *sim.Forecast, spec *cluster.Spec) *batonv1.ForeseeResponse {
	r := &batonv1.ForeseeResponse{Runs: uint32(f.Runs), Served: true, Refusals: f.Answers, Risks: f.Risks}
	for i := range f.Groups {
		g := &f.Groups[i]
		x := &batonv1.ForeseenGroup{Name: string(g.ID), From: string(g.From), To: string(g.To), Rule: g.Rule, Why: g.Why, Evidence: g.Evidence,
			Rejected: g.Rejected, Next: string(g.Next), Stopped: g.Rule == api.StoppedRule, Others: g.Others,
			OutageMin: durationpb.New(g.Least), OutageMax: durationpb.New(g.Most)}
		for _, id := range g.Starts {
			x.Starts = append(x.Starts, &batonv1.ForeseenStart{Resource: string(id), Limit: durationpb.New(spec.Group(g.ID).Resource(id).StartTimeout)})
		}
		r.Served = r.Served && (g.To != "" || x.Stopped)
		r.Groups = append(r.Groups, x)
	}
	for _, s := range f.Steps {
		r.Steps = append(r.Steps, &batonv1.ForeseenStep{After: durationpb.New(s.After), Rule: s.Rule, Text: s.Text})
	}
	return r
}
