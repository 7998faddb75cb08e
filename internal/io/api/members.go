package api

import (
	"context"

	"connectrpc.com/connect"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

// MembersBackend founds clusters.
type MembersBackend interface {
	// Form founds the cluster without nodes that can't be reached and returns the outcome, as Backend.Move does.
	Form(ctx context.Context, without []cluster.NodeID, by string) (MoveReply, error)
}

// membersHandlers implements the schema's service Members.
type membersHandlers struct{ backend MembersBackend }

// Form implements the schema's call.
func (h *membersHandlers) Form(ctx context.Context, r *batonv1.FormRequest) (*batonv1.FormResponse, error) {
	if len(r.Without) == 0 {
		return nil, failure(connect.CodeInvalidArgument, "baton form --without NODE", "no node is named to do without")
	}
	var without []cluster.NodeID
	for _, name := range r.Without {
		without = append(without, cluster.NodeID(name))
	}
	m, err := h.backend.Form(ctx, without, peerOf(ctx).String())
	if err != nil {
		return nil, failed("found the cluster", err)
	}
	return &batonv1.FormResponse{Done: m.Done, Text: m.Text, Hint: m.Hint}, nil
}
