package app

import (
	"context"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/io/api"
	"baton/internal/io/identity"
)

// fakeAccess answers for a stage who gives nobody access.
type fakeAccess struct{}

var errStage = &api.Refusal{Text: "a stage gives no access"}

func (fakeAccess) Self() cluster.NodeID                   { return "alpha" }
func (fakeAccess) Identity() *identity.Identity           { return nil }
func (fakeAccess) Tokens() []cluster.Token                { return nil }
func (fakeAccess) Invited([]byte) (cluster.NodeID, error) { return "", errStage }
func (fakeAccess) Propose(context.Context, cluster.Part, string) (api.MoveReply, error) {
	return api.MoveReply{}, errStage
}
func (fakeAccess) Doors(context.Context) (api.Doors, error) { return api.Doors{}, errStage }
func (fakeAccess) Invite(context.Context, cluster.NodeID, time.Duration, string) (api.Invitation, error) {
	return api.Invitation{}, errStage
}
func (fakeAccess) Welcome(context.Context, []byte, bool) (api.Welcome, error) {
	return api.Welcome{}, errStage
}
func (fakeAccess) Keys() []byte                 { return nil }
func (fakeAccess) StepKey(string, []byte) error { return errStage }
func (fakeAccess) RotateKey(context.Context, []cluster.NodeID, string) (api.Rotation, error) {
	return api.Rotation{}, errStage
}
