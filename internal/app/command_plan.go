package app

import (
	"fmt"
	"io"
	"strings"
	"time"

	batonv1 "baton/api/v1"
	"baton/internal/sim"
)

// planCmd is `baton plan`.
type planCmd struct {
	If string `help:"Faults, separated by semicolons, such as \"alpha down\"; without: what the planner makes of each group now." placeholder:"FAULTS"`
}

// Help lists the faults.
func (c *planCmd) Help() string {
	return "The faults are played many times, each at another moment between two heartbeats, on a simulated cluster that begins as the real one is, " +
		"with the code that decides there. Nothing is done. What has to start, starts at once in it: its time comes on top. " +
		"Exit code 1: some group would not be served.\n\n" + sim.Verbs
}

// Run tells what would happen.
func (c *planCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	r, err := agent.Plan.Foresee(k.ctx, &batonv1.ForeseeRequest{WhatIf: c.If})
	if err != nil {
		return k.trouble(err)
	}
	if k.json {
		err = k.printJSON(r)
	} else {
		forecastView{k.paint, r}.write(k.out)
	}
	if err == nil && !r.Served {
		return exitCode(exitFailed)
	}
	return err
}

// forecastView renders a forecast for people.
type forecastView struct {
	palette
	*batonv1.ForeseeResponse
}

func (v forecastView) write(w io.Writer) {
	if v.WhatIf == "" {
		fmt.Fprintf(w, "As %s sees it, now:\n", v.Node)
	} else {
		fmt.Fprintf(w, "If %s, as %s sees the cluster:\n", v.WhatIf, v.Node)
	}
	for _, g := range v.Groups {
		fmt.Fprintf(w, "\n%s %s\n", v.text(bold, g.Name), v.fate(g))
		v.field(w, "why", strings.TrimSpace(g.Rule+" "+g.Why))
		v.field(w, "evidence", g.Evidence...)
		v.field(w, "not chosen", g.Rejected...)
		v.field(w, "but", g.Others...)
		if g.To != "" && g.Next != "" {
			v.field(w, "then", g.Next+" could take it over")
		}
	}
	v.list(w, "Refused", v.Refusals)
	v.list(w, "At risk after that", v.Risks)
	v.list(w, "Left out", v.Limits)
	for i, s := range v.Steps {
		if i == 0 {
			fmt.Fprintln(w, "\nStep by step")
		}
		fmt.Fprintf(w, "  %9s  %s\n", "+"+s.After.AsDuration().Round(time.Millisecond).String(), strings.TrimSpace(s.Rule+" "+s.Text))
	}
}

func (v forecastView) list(w io.Writer, name string, lines []string) {
	for i, l := range lines {
		if i == 0 {
			fmt.Fprintf(w, "\n%s\n", name)
		}
		fmt.Fprintf(w, "  %s\n", l)
	}
}

// fate says in one line what becomes of a group.
func (v forecastView) fate(g *batonv1.ForeseenGroup) string {
	would := "would be"
	if v.WhatIf == "" {
		would = "is"
	}
	switch {
	case g.To == "" && g.Stopped:
		return v.text(yellow, would+" stopped")
	case g.To == "" && g.From == "" && v.WhatIf != "":
		return v.text(red, "would go on without being served")
	case g.To == "":
		return v.text(red, would+" served by nobody")
	case g.From == g.To && v.WhatIf == "":
		return "stays on " + g.To
	case g.From == g.To:
		return "stays on " + g.To + v.outage(g)
	case g.From == "":
		return v.text(green, "goes to "+g.To) + v.outage(g)
	}
	return v.text(yellow, fmt.Sprintf("moves from %s to %s", g.From, g.To)) + v.outage(g)
}

// outageGrain is how exactly an outage is told: a forecast knows neither the real disks nor the real network.
const outageGrain = 10 * time.Millisecond

// outage says for how long nobody serves a group.
func (v forecastView) outage(g *batonv1.ForeseenGroup) string {
	if v.WhatIf == "" {
		return ""
	}
	least, most := g.OutageMin.AsDuration().Truncate(outageGrain), (g.OutageMax.AsDuration() + outageGrain - 1).Truncate(outageGrain)
	var b strings.Builder
	switch {
	case most <= outageGrain && g.OutageMax.AsDuration() > 0:
		b.WriteString(", unserved for milliseconds")
	case least == most && most > 0:
		fmt.Fprintf(&b, ", unserved for %s", short(most))
	case most > 0:
		fmt.Fprintf(&b, ", unserved for %s to %s", short(least), short(most))
	}
	for i, s := range g.Starts {
		if i == 0 {
			b.WriteString(", and while it starts: ")
		} else {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s (at most %s)", s.Resource, short(s.Limit.AsDuration()))
	}
	return b.String()
}
