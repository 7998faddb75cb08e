package api

import (
	"context"

	"connectrpc.com/connect"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

// MembersBackend founds clusters, and knows who belongs to one.
type MembersBackend interface {
	// Form founds the cluster without nodes that can't be reached and returns the outcome, as Backend.Move does.
	Form(ctx context.Context, without []cluster.NodeID, by string) (MoveReply, error)
	// Roll returns who belongs to the cluster by this node's log.
	Roll(ctx context.Context) (*Roll, error)
}

// Roll is who belongs to the cluster, once an entry of its log has taken effect.
type Roll struct {
	ID       string // of the cluster; empty: there is no copy of a log yet
	Applied  uint64 // the entry's index
	Revision cluster.Revision
	Nodes    []cluster.NodeID // that the configuration names
	Members  []Member         // who has a copy of the log
}

// Member is one life of a node: between an empty data directory and its loss.
type Member struct {
	Node        cluster.NodeID
	Incarnation cluster.Incarnation
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

// ListMembers implements the schema's call.
func (h *membersHandlers) ListMembers(ctx context.Context, _ *batonv1.ListMembersRequest) (*batonv1.ListMembersResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	r, err := h.backend.Roll(ctx)
	if err != nil {
		return nil, failed("list the members", err)
	}
	out := &batonv1.ListMembersResponse{Id: r.ID, Applied: r.Applied, Revision: uint64(r.Revision), Nodes: texts(r.Nodes)}
	for _, m := range r.Members {
		out.Members = append(out.Members, &batonv1.Member{Node: string(m.Node), Incarnation: uint64(m.Incarnation)})
	}
	return out, nil
}

// RollFrom reads what ListMembers answered.
func RollFrom(r *batonv1.ListMembersResponse) *Roll {
	out := &Roll{ID: r.Id, Applied: r.Applied, Revision: cluster.Revision(r.Revision)}
	for _, name := range r.Nodes {
		out.Nodes = append(out.Nodes, cluster.NodeID(name))
	}
	for _, m := range r.Members {
		out.Members = append(out.Members, Member{cluster.NodeID(m.Node), cluster.Incarnation(m.Incarnation)})
	}
	return out
}
