package api

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

// ActBackend carries out what people tell a cluster beside moves.
type ActBackend interface {
	// Act puts a part into the log and returns the outcome once it is carried out, as Backend.Move does.
	Act(ctx context.Context, r ActRequest) (MoveReply, error)
}

// ActRequest asks for one part.
type ActRequest struct {
	Part   cluster.Part
	By     string // who asked, for the journal
	Why    string // for the journal; empty: it was asked for
	NoWait bool   // return once it is in the log
}

const (
	defaultSpan = 30 * time.Minute     // for which a drain or a pause stands if nobody says
	spanMax     = 366 * 24 * time.Hour // what is to stand longer stands until it is taken back
	reasonMax   = 400                  // bytes; an entry of the log is to fit a datagram
)

// actHandlers implements the schema's service Act.
type actHandlers struct{ backend Backend }

// note makes the note of a standing instruction. fallback is the span where none is named; 0: until it is
// taken back.
func note(span *durationpb.Duration, fallback time.Duration, reason string) (cluster.Note, error) {
	n := cluster.Note{Reason: reason}
	d := fallback
	if span != nil {
		if d = span.AsDuration(); span.CheckValid() != nil || d <= 0 || d > spanMax {
			return n, failure(connect.CodeInvalidArgument, "for example 30m", "nothing can stand for %v: more than 0, and at most a year", d)
		}
	}
	if len(reason) > reasonMax {
		return n, failure(connect.CodeInvalidArgument, "say it shorter", "the reason has %d bytes, and may have %d", len(reason), reasonMax)
	}
	if d > 0 {
		n.Until = cluster.WallTime(time.Now().Add(d).UnixNano())
	}
	return n, nil
}

// act carries one part out. subject is the name that must not be missing.
func (h *actHandlers) act(ctx context.Context, subject string, part cluster.Part, reason string, noWait bool) (*batonv1.ActResponse, error) {
	if subject == "" {
		return nil, failure(connect.CodeInvalidArgument, "baton status lists groups and nodes", "nothing is named")
	}
	m, err := h.backend.Act(ctx, ActRequest{Part: part, By: peerOf(ctx).String(), Why: reason, NoWait: noWait})
	if err != nil {
		return nil, failed(part.String(), err)
	}
	return &batonv1.ActResponse{Done: m.Done, Text: m.Text, Hint: m.Hint, UnderWay: m.UnderWay}, nil
}

// everything is the subject of what need not name one.
const everything = "everything"

// Pause implements the schema's call.
func (h *actHandlers) Pause(ctx context.Context, r *batonv1.PauseRequest) (*batonv1.ActResponse, error) {
	n, err := note(r.For, defaultSpan, r.Reason)
	if err != nil {
		return nil, err
	}
	return h.act(ctx, everything, cluster.Part{Pause: &cluster.Pause{Group: cluster.GroupID(r.Group), Note: n}}, r.Reason, false)
}

// Resume implements the schema's call.
func (h *actHandlers) Resume(ctx context.Context, r *batonv1.ResumeRequest) (*batonv1.ActResponse, error) {
	return h.act(ctx, everything, cluster.Part{Resume: &cluster.Resume{Group: cluster.GroupID(r.Group)}}, "", false)
}

// Pin implements the schema's call.
func (h *actHandlers) Pin(ctx context.Context, r *batonv1.PinRequest) (*batonv1.ActResponse, error) {
	n, err := note(r.For, 0, r.Reason)
	if err != nil {
		return nil, err
	}
	return h.act(ctx, r.Group, cluster.Part{Pin: &cluster.Pin{Group: cluster.GroupID(r.Group), Node: cluster.NodeID(r.Node), Note: n}}, r.Reason, r.NoWait)
}

// Unpin implements the schema's call.
func (h *actHandlers) Unpin(ctx context.Context, r *batonv1.UnpinRequest) (*batonv1.ActResponse, error) {
	return h.act(ctx, r.Group, cluster.Part{Unpin: &cluster.Unpin{Group: cluster.GroupID(r.Group)}}, "", false)
}

// Drain implements the schema's call.
func (h *actHandlers) Drain(ctx context.Context, r *batonv1.DrainRequest) (*batonv1.ActResponse, error) {
	n, err := note(r.For, defaultSpan, r.Reason)
	if err != nil {
		return nil, err
	}
	return h.act(ctx, r.Node, cluster.Part{Drain: &cluster.Drain{Node: cluster.NodeID(r.Node), Note: n}}, r.Reason, r.NoWait)
}

// Undrain implements the schema's call.
func (h *actHandlers) Undrain(ctx context.Context, r *batonv1.UndrainRequest) (*batonv1.ActResponse, error) {
	return h.act(ctx, r.Node, cluster.Part{Undrain: &cluster.Undrain{Node: cluster.NodeID(r.Node)}}, "", false)
}

// Stop implements the schema's call.
func (h *actHandlers) Stop(ctx context.Context, r *batonv1.StopRequest) (*batonv1.ActResponse, error) {
	n, err := note(r.For, 0, r.Reason)
	if err != nil {
		return nil, err
	}
	p := &cluster.Stop{Group: cluster.GroupID(r.Group), Resource: cluster.ResourceID(r.Resource), Note: n}
	return h.act(ctx, r.Group, cluster.Part{Stop: p}, r.Reason, r.NoWait)
}

// Start implements the schema's call.
func (h *actHandlers) Start(ctx context.Context, r *batonv1.StartRequest) (*batonv1.ActResponse, error) {
	p := &cluster.Start{Group: cluster.GroupID(r.Group), Resource: cluster.ResourceID(r.Resource)}
	return h.act(ctx, r.Group, cluster.Part{Start: p}, "", r.NoWait)
}

// Restart implements the schema's call.
func (h *actHandlers) Restart(ctx context.Context, r *batonv1.RestartRequest) (*batonv1.ActResponse, error) {
	p := &cluster.Restart{Group: cluster.GroupID(r.Group), Resource: cluster.ResourceID(r.Resource)}
	return h.act(ctx, r.Group, cluster.Part{Restart: p}, "", r.NoWait)
}

// Clear implements the schema's call.
func (h *actHandlers) Clear(ctx context.Context, r *batonv1.ClearRequest) (*batonv1.ActResponse, error) {
	p := &cluster.Clear{Group: cluster.GroupID(r.Group), Resource: cluster.ResourceID(r.Resource)}
	return h.act(ctx, r.Group, cluster.Part{Clear: p}, "", false)
}

func instructionOf(v *cluster.InstructionView) *batonv1.Instruction {
	return &batonv1.Instruction{Verb: v.Verb, Group: string(v.Group), Resource: string(v.Resource), Node: string(v.Node), By: v.By,
		Reason: v.Reason, Until: stamp(v.Until)}
}
