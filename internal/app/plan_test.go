package app

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	batonv1 "baton/api/v1"
	"baton/internal/io/api"
)

// Foresee implements api.PlanBackend: it knows the future of three faults.
func (s *stage) Foresee(_ context.Context, whatIf string) (*batonv1.ForeseeResponse, error) {
	d := durationpb.New
	r := &batonv1.ForeseeResponse{Node: "alpha", WhatIf: whatIf, Runs: 20, Served: true}
	switch whatIf {
	case "alpha down":
		r.Groups = []*batonv1.ForeseenGroup{
			{Name: "orders", From: "alpha", To: "beta", OutageMin: d(878 * ms), OutageMax: d(973 * ms), Rule: "N02",
				Why: "a majority of the voters has not heard it for the detection time", Evidence: []string{"not heard for 873ms by beta, gamma (2 of 3 voters, 2 needed)"},
				Starts: []*batonv1.ForeseenStart{{Resource: "web", Limit: d(time.Minute)}}, Others: []string{"served by nobody in 1 of 20 runs"}},
			{Name: "reports", From: "beta", To: "beta", OutageMin: d(0), OutageMax: d(0), Rule: "G90", Why: "its owner holds its lease and reports no failure", Next: "alpha"}}
		r.Risks = []string{"2 of 3 voters are left: with one more lost, nothing is decided and nothing serves", "nobody could take over orders"}
		r.Steps = []*batonv1.ForeseenStep{{After: d(862087 * time.Microsecond), Rule: "N02", Text: "evict alpha#3, assign orders to beta as epoch 8: a majority of the voters has not heard it for the detection time"},
			{After: d(963114 * time.Microsecond), Text: "beta serves orders, epoch 8"}}
	case "alpha down; beta down":
		r.Served = false
		r.Groups = []*batonv1.ForeseenGroup{{Name: "orders", From: "alpha", OutageMin: d(8 * time.Second), OutageMax: d(8 * time.Second), Why: "nobody may decide: 1 of 3 voters are left, and 2 are needed"}}
		r.Limits = []string{"alpha hears no majority: what it knows of the others may be old"}
	case "switch orders beta":
		r.Groups = []*batonv1.ForeseenGroup{{Name: "orders", From: "alpha", To: "alpha", OutageMin: d(0), OutageMax: d(0), Rule: "G90", Why: "its owner holds its lease and reports no failure"}}
		r.Refusals = []string{"beta can't take orders: it is being drained"}
	default:
		return nil, &api.Refusal{Usage: true, Text: fmt.Sprintf("%q is no fault", whatIf), Hint: "baton plan --help lists the faults"}
	}
	return r, nil
}

// TestPlanCommand: what `baton plan` prints.
func TestPlanCommand(t *testing.T) {
	socket := serveStage(t, healthy())
	failed := serveStage(t, broken())
	var all strings.Builder
	for _, c := range []struct {
		socket string
		args   []string
	}{
		{socket, []string{"plan"}}, {failed, []string{"plan"}},
		{socket, []string{"plan", "--if", "alpha down"}}, {socket, []string{"plan", "--if", "alpha down; beta down"}},
		{socket, []string{"plan", "--if", "switch orders beta"}}, {socket, []string{"plan", "--if", "rain"}},
		{socket, []string{"plan", "--json", "--if", "alpha down; beta down"}},
	} {
		code, out, errOut := baton(t, c.socket, c.args...)
		fmt.Fprintf(&all, "$ baton %q\n%s%s[%d]\n\n", c.args, out, errOut, code)
	}
	golden(t, "plan.golden", all.String())
}
