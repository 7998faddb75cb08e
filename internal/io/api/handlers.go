package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

// handlers implements the schema's service.
type handlers struct {
	backend  Backend
	watchers chan struct{} // one token for each Watch under way
	faulty   faultyNodes
}

// failure makes an error of one sentence and what to do next.
func failure(code connect.Code, hint, format string, args ...any) *connect.Error {
	err := connect.NewError(code, fmt.Errorf(format, args...))
	if hint != "" {
		if d, bad := connect.NewErrorDetail(&batonv1.Hint{Hint: hint}); bad == nil {
			err.AddDetail(d)
		}
	}
	return err
}

// failed says of an error of the backend what it means for the asker.
func failed(what string, err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return failure(connect.CodeDeadlineExceeded, "journalctl -u baton tells what the agent is busy with", "%s: the agent did not answer in time", what)
	case errors.Is(err, context.Canceled):
		return failure(connect.CodeCanceled, "", "%s: cancelled", what)
	}
	return failure(connect.CodeUnavailable, "journalctl -u baton", "%s: %w", what, err)
}

func (h *handlers) look(ctx context.Context) (*batonv1.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	o, err := h.backend.Overview(ctx)
	if err != nil {
		return nil, failed("look at the cluster", err)
	}
	return statusOf(o, time.Now(), h.backend.Version()), nil
}

func (h *handlers) Status(ctx context.Context, _ *batonv1.StatusRequest) (*batonv1.StatusResponse, error) {
	s, err := h.look(ctx)
	if err == nil {
		h.askFaulty(ctx, s)
	}
	return s, err
}

func (h *handlers) Watch(ctx context.Context, _ *batonv1.WatchRequest, out *connect.ServerStream[batonv1.StatusResponse]) error {
	select {
	case h.watchers <- struct{}{}:
		defer func() { <-h.watchers }()
	default:
		return failure(connect.CodeResourceExhausted, "end another one first", "%d watches are under way, and no more are allowed", maxWatchers)
	}
	tick := time.NewTicker(minInterval)
	defer tick.Stop()
	var last *batonv1.StatusResponse
	var sent time.Time
	for {
		s, err := h.look(ctx)
		if err != nil {
			return err
		}
		h.askFaulty(ctx, s)
		still := withoutAges(s)
		if last == nil || time.Since(sent) >= maxInterval-minInterval/2 || !proto.Equal(still, last) {
			if err := out.Send(s); err != nil {
				return err
			}
			last, sent = still, time.Now()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// withoutAges returns what of a status is news when it differs.
func withoutAges(s *batonv1.StatusResponse) *batonv1.StatusResponse {
	s = proto.CloneOf(s)
	s.Time, s.Applied = nil, 0
	for _, g := range s.Groups {
		if g.Service != nil {
			g.Service.Down, g.Service.Availability = nil, 0
		}
	}
	for _, n := range s.Nodes {
		n.Ago, n.LeaseLeft = nil, nil
		for _, l := range n.Links {
			l.Ago, l.RoundTrip = nil, nil
		}
	}
	return s
}

func (h *handlers) Switch(ctx context.Context, r *batonv1.SwitchRequest) (*batonv1.SwitchResponse, error) {
	m, begun, err := h.move(ctx, MoveRequest{Group: cluster.GroupID(r.Group), To: cluster.NodeID(r.To), DryRun: r.DryRun}, r.NoWait)
	if err != nil {
		return nil, err
	}
	return &batonv1.SwitchResponse{Done: m.Done, Text: m.Text, Hint: m.Hint, To: string(m.To), UnderWay: begun}, nil
}

func (h *handlers) Failback(ctx context.Context, r *batonv1.FailbackRequest) (*batonv1.FailbackResponse, error) {
	m, begun, err := h.move(ctx, MoveRequest{Group: cluster.GroupID(r.Group), Failback: true, DryRun: r.DryRun}, r.NoWait)
	if err != nil {
		return nil, err
	}
	return &batonv1.FailbackResponse{Done: m.Done, Text: m.Text, Hint: m.Hint, To: string(m.To), UnderWay: begun}, nil
}

// move carries a request out. It first asks what would happen, so that the answer names the node, and a
// refusal costs nothing. With noWait it returns once the move has not been refused for a moment.
func (h *handlers) move(ctx context.Context, r MoveRequest, noWait bool) (m MoveReply, begun bool, err error) {
	if r.Group == "" {
		return m, false, failure(connect.CodeInvalidArgument, "baton status lists the groups", "no group is named")
	}
	what := "move " + string(r.Group)
	r.By = By(ctx)
	dry := r
	dry.DryRun = true
	would, err := h.backend.Move(ctx, dry)
	switch {
	case err != nil:
		return m, false, failed(what, err)
	case !would.Done || r.DryRun:
		if would.Done && would.Text == "" {
			would.Text = fmt.Sprintf("%s would move to %s", r.Group, would.To)
		}
		return would, false, nil
	case !r.Failback:
		r.To = would.To
	}
	waiting := ctx
	if noWait {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeout(ctx, begunAfter)
		defer cancel()
	}
	m, err = h.backend.Move(waiting, r)
	switch {
	case err != nil && noWait && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return MoveReply{To: would.To, Text: fmt.Sprintf("the move of %s to %s is under way", r.Group, would.To)}, true, nil
	case err != nil:
		return m, false, failed(what, err)
	}
	m.To = would.To
	return m, false, nil
}

func (h *handlers) lines(ctx context.Context) ([]cluster.Line, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	lines, err := h.backend.History(ctx)
	if err != nil {
		return nil, failed("read the history", err)
	}
	return lines, nil
}

// about returns the newest lines about a group (empty: all), at most limit (0: all), oldest first.
func about(lines []cluster.Line, group cluster.GroupID, limit int) []*batonv1.Line {
	var out []*batonv1.Line
	for i := len(lines) - 1; i >= 0 && (limit == 0 || len(out) < limit); i-- {
		if group == "" || concerns(&lines[i], group) {
			out = append(out, lineOf(&lines[i]))
		}
	}
	slices.Reverse(out)
	return out
}

// concerns tells whether a line is about a group; of a line whose parts were all dropped only its words tell.
func concerns(l *cluster.Line, group cluster.GroupID) bool {
	return slices.Contains(l.Groups, group) || slices.ContainsFunc(l.Dropped, func(d string) bool {
		part, _, _ := strings.Cut(d, ": ")
		return slices.Contains(strings.Fields(part), string(group))
	})
}

func (h *handlers) History(ctx context.Context, r *batonv1.HistoryRequest) (*batonv1.HistoryResponse, error) {
	if r.Group != "" {
		if _, _, err := h.group(ctx, r.Group); err != nil {
			return nil, err
		}
	}
	lines, err := h.lines(ctx)
	if err != nil {
		return nil, err
	}
	return &batonv1.HistoryResponse{Lines: about(lines, cluster.GroupID(r.Group), int(r.Limit))}, nil
}

// group returns the status and the group in it.
func (h *handlers) group(ctx context.Context, name string) (*batonv1.StatusResponse, *batonv1.Group, error) {
	s, err := h.look(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, g := range s.Groups {
		if g.Name == name {
			return s, g, nil
		}
	}
	if len(s.Groups) == 0 && s.Forming != "" {
		return s, nil, failure(connect.CodeUnavailable, "baton status --wait", "the cluster is still forming: %s", s.Forming)
	}
	names := make([]string, len(s.Groups))
	for i, g := range s.Groups {
		names[i] = g.Name
	}
	return s, nil, failure(connect.CodeNotFound, cluster.Choice("groups", name, names), "there is no group %q", name)
}

func (h *handlers) Explain(ctx context.Context, r *batonv1.ExplainRequest) (*batonv1.ExplainResponse, error) {
	if r.Subject == "" {
		return nil, failure(connect.CodeInvalidArgument, "baton explain GROUP, or a number that baton history shows", "nothing is named to explain")
	}
	lines, err := h.lines(ctx)
	if err != nil {
		return nil, err
	}
	s, g, err := h.group(ctx, r.Subject)
	if err == nil {
		x := &batonv1.ExplainResponse{Status: s, Group: g, History: about(lines, cluster.GroupID(r.Subject), explainLines), ResourcesOf: s.Node}
		h.askOwner(ctx, x)
		return x, nil
	}
	index, bad := strconv.ParseUint(strings.TrimPrefix(r.Subject, "#"), 10, 64)
	if bad != nil {
		return nil, err
	}
	for i := range lines {
		if lines[i].Index == index {
			return &batonv1.ExplainResponse{Line: lineOf(&lines[i])}, nil
		}
	}
	if len(lines) == 0 {
		return nil, failure(connect.CodeNotFound, "baton status", "the history has no entry %d: it is empty", index)
	}
	return nil, failure(connect.CodeNotFound, "baton history lists the entries", "the history has no entry %d: it reaches from %d to %d, and not every number has one",
		index, lines[0].Index, lines[len(lines)-1].Index)
}

// ownerAnswers is how long the owner of a group may take to tell of its resources.
const ownerAnswers = 2 * time.Second

// askOwner puts in how a group's resources are on its owner, which alone knows.
func (h *handlers) askOwner(ctx context.Context, x *batonv1.ExplainResponse) {
	owner := x.Group.Owner
	others, ok := h.backend.(interface {
		Peer(ctx context.Context, node cluster.NodeID) (*Client, error)
	})
	if owner == "" || owner == x.Status.Node || !ok {
		return
	}
	x.ResourcesOf, x.Group.Resources = owner, nil
	ctx, cancel := context.WithTimeout(ctx, ownerAnswers)
	defer cancel()
	peer, err := others.Peer(ctx, cluster.NodeID(owner))
	if err != nil {
		x.ResourcesMissing = owner + " can't be asked: " + err.Error()
		return
	}
	defer peer.Close()
	s, err := peer.Status(ctx, &batonv1.StatusRequest{})
	if err != nil {
		x.ResourcesMissing = owner + " does not answer: " + Explain(err).Text
		return
	}
	for _, g := range s.Groups {
		if g.Name == x.Group.Name {
			x.Group.Resources = g.Resources
		}
	}
}

func (h *handlers) Version(context.Context, *batonv1.VersionRequest) (*batonv1.VersionResponse, error) {
	return &batonv1.VersionResponse{Version: h.backend.Version()}, nil
}
