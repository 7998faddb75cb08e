package sim

import (
	"fmt"
	"slices"
	"strings"

	"baton/internal/core/cluster"
)

// outcomeMark is the line of a script after which its outcome stands.
const outcomeMark = "----"

// The most lines of an outcome: from the beginning, and from the end.
const (
	outcomeFirst = 9
	outcomeLast  = 5
)

// outcome keeps what a run came to, as an incident report tells it: who served from when to when, and what was
// decided on nodes and groups. Times are true ones, in seconds.
type outcome struct{ lines []string }

func (o *outcome) add(w *world, format string, args ...any) {
	if o != nil {
		o.lines = append(o.lines, fmt.Sprintf("%9.3f  ", float64(w.now)/1e9)+fmt.Sprintf(format, args...))
	}
}

// entry keeps a decision that changes who serves, or who belongs to the cluster.
func (o *outcome) entry(w *world, d *cluster.Entry) {
	if o == nil {
		return
	}
	var parts []string
	for _, p := range d.Parts {
		if p.Admit == nil && p.Ended == nil && p.Released == nil && p.Served == nil && p.Amend == nil && p.Performed == nil {
			parts = append(parts, p.String())
		}
	}
	if len(parts) == 0 {
		return
	}
	rule := ""
	if d.Rule != "" {
		rule = " (" + d.Rule + ")"
	}
	o.add(w, "%s%s", strings.Join(parts, " + "), rule)
}

// text returns the report, the middle left out where it is long.
func (o *outcome) text(w *world) string {
	lines := slices.Clone(o.lines)
	if n := len(lines) - outcomeFirst - outcomeLast; n > 1 {
		lines = slices.Concat(lines[:outcomeFirst], []string{fmt.Sprintf("           … %d more …", n)}, lines[len(lines)-outcomeLast:])
	}
	last := "all invariants held"
	if w.broken != nil {
		last = "VIOLATION of " + w.broken.Rule + ": " + w.broken.Text
	}
	return strings.Join(append(lines, fmt.Sprintf("%9.3f  %s", float64(w.now)/1e9, last)), "\n") + "\n"
}
