package api

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

// Each call becomes one part, which carries who asked, why, and until when.
func TestActs(t *testing.T) {
	f := newFake()
	_, c := serve(t, f)
	ctx := context.Background()
	half, hour := 30*time.Minute, time.Hour
	for _, x := range []struct {
		ask  func() (*batonv1.ActResponse, error)
		want string        // the part
		span time.Duration // of its note; 0: none
		wait bool
	}{
		{func() (*batonv1.ActResponse, error) { return c.Act.Pause(ctx, &batonv1.PauseRequest{}) }, "pause everything", half, true},
		{func() (*batonv1.ActResponse, error) {
			return c.Act.Pause(ctx, &batonv1.PauseRequest{Group: "web", For: durationpb.New(hour), Reason: "why"})
		}, "pause web", hour, true},
		{func() (*batonv1.ActResponse, error) { return c.Act.Resume(ctx, &batonv1.ResumeRequest{}) }, "resume everything", 0, true},
		{func() (*batonv1.ActResponse, error) {
			return c.Act.Pin(ctx, &batonv1.PinRequest{Group: "web", Node: "beta", NoWait: true})
		}, "pin web to beta", 0, false},
		{func() (*batonv1.ActResponse, error) { return c.Act.Unpin(ctx, &batonv1.UnpinRequest{Group: "web"}) }, "unpin web", 0, true},
		{func() (*batonv1.ActResponse, error) { return c.Act.Drain(ctx, &batonv1.DrainRequest{Node: "beta"}) }, "drain beta", half, true},
		{func() (*batonv1.ActResponse, error) { return c.Act.Undrain(ctx, &batonv1.UndrainRequest{Node: "beta"}) }, "undrain beta", 0, true},
		{func() (*batonv1.ActResponse, error) {
			return c.Act.Stop(ctx, &batonv1.StopRequest{Group: "web", Resource: "app", For: durationpb.New(hour)})
		}, "stop web/app", hour, true},
		{func() (*batonv1.ActResponse, error) {
			return c.Act.Start(ctx, &batonv1.StartRequest{Group: "web", NoWait: true})
		}, "start web", 0, false},
		{func() (*batonv1.ActResponse, error) {
			return c.Act.Restart(ctx, &batonv1.RestartRequest{Group: "web", Resource: "app"})
		}, "restart web/app", 0, true},
		{func() (*batonv1.ActResponse, error) {
			return c.Act.Clear(ctx, &batonv1.ClearRequest{Group: "web", Resource: "app"})
		}, "clear web/app", 0, true},
	} {
		before := time.Now()
		r, err := x.ask()
		if err != nil || !r.Done {
			t.Fatalf("%s: %v, %v", x.want, r, err)
		}
		got := f.acted[len(f.acted)-1]
		if got.Part.String() != x.want || got.NoWait == x.wait || !strings.Contains(got.By, "uid") {
			t.Errorf("asked for %v, want %s: %+v", got.Part, x.want, got)
		}
		n := cluster.Note{}
		switch p := got.Part; {
		case p.Pause != nil:
			n = p.Pause.Note
		case p.Pin != nil:
			n = p.Pin.Note
		case p.Drain != nil:
			n = p.Drain.Note
		case p.Stop != nil:
			n = p.Stop.Note
		}
		if x.span == 0 && n.Until != 0 || x.span > 0 && (time.Unix(0, int64(n.Until)).Before(before.Add(x.span)) || time.Unix(0, int64(n.Until)).After(time.Now().Add(x.span))) {
			t.Errorf("%s stands until %v, want %v from %v on", x.want, n.Until, x.span, before)
		}
		if n.Reason != got.Why {
			t.Errorf("%s: reason %q, %q in the journal", x.want, n.Reason, got.Why)
		}
	}
}

func TestActsThatAreWrong(t *testing.T) {
	f := newFake()
	_, c := serve(t, f)
	ctx := context.Background()
	for what, err := range map[string]error{
		"a time that is none": second(c.Act.Pause(ctx, &batonv1.PauseRequest{For: durationpb.New(-time.Second)})),
		"a time without end":  second(c.Act.Pin(ctx, &batonv1.PinRequest{Group: "web", For: durationpb.New(200 * 365 * 24 * time.Hour)})),
		"a novel":             second(c.Act.Stop(ctx, &batonv1.StopRequest{Group: "web", Reason: strings.Repeat("x", reasonMax+1)})),
		"no group":            second(c.Act.Stop(ctx, &batonv1.StopRequest{})),
		"no node":             second(c.Act.Drain(ctx, &batonv1.DrainRequest{})),
	} {
		if x := Explain(err); err == nil || x.Code != connect.CodeInvalidArgument || x.Hint == "" {
			t.Errorf("%s: %v, %+v", what, err, x)
		}
	}
	if len(f.acted) != 0 {
		t.Errorf("asked for %+v", f.acted)
	}
}

func second(_ *batonv1.ActResponse, err error) error { return err }
