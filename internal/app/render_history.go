package app

import (
	"fmt"
	"io"
	"strings"

	batonv1 "baton/api/v1"
)

const timeFormat = "2006-01-02 15:04:05.000"

func lineTime(l *batonv1.Line) string {
	if !l.Time.IsValid() {
		return strings.Repeat("-", len(timeFormat))
	}
	return l.Time.AsTime().Local().Format(timeFormat)
}

// line writes an entry of the history as one line.
func (p palette) line(w io.Writer, l *batonv1.Line) {
	what := strings.Join(l.Did, "; ")
	if what == "" {
		what = "nothing done"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  #%-6d %s", lineTime(l), l.Index, what)
	for _, d := range l.Dropped {
		b.WriteString(p.text(yellow, "; dropped "+d))
	}
	why := strings.TrimSpace(l.Rule + " " + l.Why)
	if why != "" {
		b.WriteString(p.text(dim, " — "+why))
	}
	if l.By != "" {
		b.WriteString(p.text(dim, " [by "+l.By+"]"))
	}
	fmt.Fprintln(w, b.String())
}

// wholeLine writes everything that is known of an entry.
func (p palette) wholeLine(w io.Writer, l *batonv1.Line) {
	fmt.Fprintf(w, "%s  %s\n", p.text(bold, fmt.Sprintf("entry %d", l.Index)), lineTime(l))
	p.field(w, "decided by", l.By)
	if l.Rule != "" {
		p.field(w, "rule", l.Rule)
	}
	p.field(w, "why", l.Why)
	p.field(w, "evidence", l.Evidence...)
	p.field(w, "not chosen", l.Rejected...)
	p.field(w, "did", l.Did...)
	p.field(w, "dropped", l.Dropped...)
	p.field(w, "groups", strings.Join(l.Groups, ", "))
	p.field(w, "nodes", strings.Join(l.Nodes, ", "))
}

// field writes a named list, each value on a line of its own; an empty one is left out.
func (p palette) field(w io.Writer, name string, values ...string) {
	for i, v := range values {
		if v == "" {
			continue
		}
		if i > 0 {
			name = ""
		}
		fmt.Fprintf(w, "  %s  %s\n", p.text(dim, fmt.Sprintf("%-10s", name)), v)
	}
}

// group explains a group.
func (v statusView) explain(w io.Writer, r *batonv1.ExplainResponse) {
	g, history := r.Group, r.History
	fmt.Fprintf(w, "%s %s, epoch %d\n", v.text(bold, g.Name), v.where(g), g.Epoch)
	v.field(w, "why", v.why(g))
	v.field(w, "evidence", g.Evidence...)
	var once saidOnce
	for _, e := range g.Evidence {
		once.sayAfter(e, ": ")
	}
	rejected := make([]string, len(g.Rejected))
	for i, r := range g.Rejected {
		rejected[i] = once.sayAfter(r, ": ")
	}
	v.field(w, "not chosen", rejected...)
	next := "nobody could take it over now"
	if paused(v.StatusResponse, g.Name) {
		next = "nobody takes it over while it is paused"
	}
	switch {
	case g.NextOnCommand:
		next = "nobody by itself, since its failover is manual: " + onCommand(g)
	case g.Next != "":
		next = g.Next + " would take it over"
	}
	if g.NextBanned && !g.NextOnCommand {
		next += " if its node were lost, in need only: no better is left"
	}
	v.field(w, "next", next)
	v.field(w, "standing", v.about(g)...)
	v.field(w, "service", v.service(g))
	v.field(w, "policy", "failover "+g.Failover+", failback "+g.Failback)
	if m := g.Move; m != nil {
		state := "the target prepares"
		if m.Assigned != 0 {
			state = fmt.Sprintf("assigned as epoch %d", m.Assigned)
		}
		v.field(w, "move", fmt.Sprintf("from %s to %s: %s", nobody(m.From), m.To, state))
	}
	for _, b := range g.Bans {
		v.field(w, "kept off", fmt.Sprintf("%s until %s: %s", b.Node, b.Until.AsTime().Local().Format("15:04:05"), once.say(b.Reason)))
	}
	fmt.Fprintln(w)
	rows := [][]cell{heading("node", "phase", "epoch", "could take it")}
	for _, n := range g.Nodes {
		phase := n.Phase
		if n.Hot {
			phase += ", hot"
		}
		if n.Reason != "" {
			phase += ": " + once.say(n.Reason)
		}
		can := cell{"yes", green}
		switch {
		case n.Node == g.Owner:
			can = cell{"has it", plainText}
		case n.Refusal != "":
			can = cell{"no, it " + once.say(n.Refusal), yellow}
		case n.InNeed != "":
			can = cell{"only in need: " + once.say(n.InNeed), yellow}
		}
		rows = append(rows, []cell{{text: n.Node}, {text: phase}, {text: fmt.Sprint(n.Epoch)}, can})
	}
	v.table(w, rows)
	v.resources(w, r, &once)
	if len(history) > 0 {
		fmt.Fprintf(w, "\n%s\n", v.text(bold, "LAST ENTRIES"))
	}
	for _, l := range history {
		v.line(w, l)
	}
}

// resources lists a group's resources on its owner.
func (v statusView) resources(w io.Writer, r *batonv1.ExplainResponse, once *saidOnce) {
	g := r.Group
	if r.ResourcesMissing != "" {
		fmt.Fprintf(w, "\nHow its resources are is not known: %s.\n", r.ResourcesMissing)
	}
	if len(g.Resources) == 0 {
		return
	}
	fmt.Fprintln(w)
	rows := [][]cell{heading("resource on "+r.ResourcesOf, "kind", "status", "standby")}
	for _, r := range g.Resources {
		status := cell{text: r.Status}
		if r.Reason != "" {
			status.text += ": " + once.say(r.Reason)
		}
		if r.Status == "failed" {
			status.colour = red
		}
		rows = append(rows, []cell{{text: r.Name}, {text: r.Kind}, status, {text: r.Depth}})
	}
	v.table(w, rows)
}
