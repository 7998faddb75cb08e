package api

import (
	"errors"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	batonv1 "baton/api/v1"
)

// TestForesee: what the backend says of a fault goes through, with the reason why it can't be used; without a
// fault the answer is what the planner makes of each group now.
func TestForesee(t *testing.T) {
	f := newFake()
	f.foreseen = func(whatIf string) (*batonv1.ForeseeResponse, error) {
		switch whatIf {
		case "alpha down":
			return &batonv1.ForeseeResponse{WhatIf: whatIf, Runs: 20, Served: true}, nil
		case "rain":
			return nil, &Refusal{Usage: true, Text: "rain is no fault", Hint: "baton plan --help"}
		case "young":
			return nil, &Refusal{Text: "no cluster yet", Hint: "baton status --wait"}
		}
		return nil, errors.New("broken")
	}
	_, c := serve(t, f)
	r, err := c.Plan.Foresee(t.Context(), &batonv1.ForeseeRequest{WhatIf: "alpha down"})
	if err != nil || r.Runs != 20 {
		t.Errorf("%v, %v", r, err)
	}
	for whatIf, want := range map[string]Trouble{
		"rain":                     {Code: connect.CodeInvalidArgument, Text: "rain is no fault", Hint: "baton plan --help"},
		"young":                    {Code: connect.CodeFailedPrecondition, Text: "no cluster yet", Hint: "baton status --wait"},
		"other":                    {Code: connect.CodeUnavailable, Text: "foresee: broken", Hint: "journalctl -u baton"},
		strings.Repeat("x;", 2000): {Code: connect.CodeInvalidArgument, Text: "the faults have 4000 bytes, and may have 2048", Hint: "ask for fewer faults at once"},
	} {
		if _, err := c.Plan.Foresee(t.Context(), &batonv1.ForeseeRequest{WhatIf: whatIf}); err == nil || Explain(err) != want {
			t.Errorf("%.20s: %+v", whatIf, Explain(err))
		}
	}
	r, err = c.Plan.Foresee(t.Context(), &batonv1.ForeseeRequest{})
	if err != nil || r.Served || len(r.Groups) != 3 || r.Groups[0].To != "beta" || r.Groups[2].To != "" {
		t.Errorf("%v, %v: reports is not served", r, err)
	}
}

// TestForeseeOneAtATime: a second forecast waits for the first.
func TestForeseeOneAtATime(t *testing.T) {
	f := newFake()
	at, most := make(chan struct{}, 4), make(chan int, 4)
	f.foreseen = func(string) (*batonv1.ForeseeResponse, error) {
		at <- struct{}{}
		most <- len(at)
		time.Sleep(20 * time.Millisecond)
		<-at
		return &batonv1.ForeseeResponse{}, nil
	}
	_, c := serve(t, f)
	ended := make(chan error, 4)
	for range 4 {
		go func() {
			_, err := c.Plan.Foresee(t.Context(), &batonv1.ForeseeRequest{WhatIf: "x"})
			ended <- err
		}()
	}
	for range 4 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := <-most; n != 1 {
			t.Errorf("%d at once", n)
		}
	}
}
