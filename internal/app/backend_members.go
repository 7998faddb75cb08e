package app

import (
	"context"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/api"
)

// Form implements api.MembersBackend.
func (b *backend) Form(ctx context.Context, without []cluster.NodeID, by string) (api.MoveReply, error) {
	b.a.log.Info("told to found the cluster without nodes that can't be reached", "without", without, "by", by)
	return b.carryOut(ctx, &node.Command{Op: node.OpForm, Without: without, By: by})
}
