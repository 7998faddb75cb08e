package api

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	batonv1 "baton/api/v1"
)

// PlanBackend foresees.
type PlanBackend interface {
	// Foresee plays faults, which are never empty, on a simulated cluster. An error of type *Refusal is the asker's
	// to do something about.
	Foresee(ctx context.Context, whatIf string) (*batonv1.ForeseeResponse, error)
}

// maxWhatIf is how long, in bytes, the faults of a forecast may be.
const maxWhatIf = 2 << 10

// planHandlers implements the schema's service Plan.
type planHandlers struct {
	*handlers
	busy chan struct{} // one token while a forecast is worked out: it costs the agent's processor
}

// Foresee implements the schema's call.
func (h *planHandlers) Foresee(ctx context.Context, r *batonv1.ForeseeRequest) (*batonv1.ForeseeResponse, error) {
	if r.WhatIf == "" {
		return h.now(ctx)
	}
	if len(r.WhatIf) > maxWhatIf {
		return nil, failure(connect.CodeInvalidArgument, "ask for fewer faults at once", "the faults have %d bytes, and may have %d", len(r.WhatIf), maxWhatIf)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	select {
	case h.busy <- struct{}{}:
		defer func() { <-h.busy }()
	case <-ctx.Done():
		return nil, failure(connect.CodeResourceExhausted, "ask again in a moment", "other forecasts are being worked out")
	}
	f, err := h.backend.Foresee(ctx, r.WhatIf)
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal) && refusal.Usage:
		return nil, failure(connect.CodeInvalidArgument, refusal.Hint, "%s", refusal.Text)
	case errors.As(err, &refusal):
		return nil, failure(connect.CodeFailedPrecondition, refusal.Hint, "%s", refusal.Text)
	case err != nil:
		return nil, failed("foresee", err)
	}
	return f, nil
}

// now tells what the planner makes of each group at the moment.
func (h *planHandlers) now(ctx context.Context) (*batonv1.ForeseeResponse, error) {
	s, err := h.look(ctx)
	if err != nil {
		return nil, err
	}
	if s.Forming != "" {
		return nil, failure(connect.CodeFailedPrecondition, "baton status --wait", "the cluster is still forming: %s", s.Forming)
	}
	f := &batonv1.ForeseeResponse{Node: s.Node, Served: true}
	for _, g := range s.Groups {
		x := &batonv1.ForeseenGroup{Name: g.Name, Rule: g.Rule, Why: g.Decision, Evidence: g.Evidence, Rejected: g.Rejected, Next: g.Next, Stopped: g.Rule == StoppedRule}
		if g.Serving {
			x.From, x.To = g.Owner, g.Owner
		}
		if m := g.Move; m != nil {
			x.To = m.To
		}
		f.Served = f.Served && (x.To != "" || x.Stopped)
		f.Groups = append(f.Groups, x)
	}
	return f, nil
}

// StoppedRule is the planner's rule on a group that a person has stopped.
const StoppedRule = "G05"
