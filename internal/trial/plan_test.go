package trial

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

// foreseen is what tests read of `baton plan --json`.
type foreseen struct {
	Served bool `json:"served"`
	Groups []struct {
		Name      string `json:"name"`
		From      string `json:"from"`
		To        string `json:"to"`
		OutageMax string `json:"outageMax"`
		Rule      string `json:"rule"`
		Next      string `json:"next"`
	} `json:"groups"`
	Risks []string `json:"risks"`
}

// plan asks a node what would happen.
func (c *incident) plan(node, faults string) *foreseen {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	out, _ := c.Run(ctx, node, "plan", "--json", "--if", faults) // the exit code says only whether all is served
	f := new(foreseen)
	if err := json.Unmarshal([]byte(out), f); err != nil || len(f.Groups) != 1 {
		c.t.Fatalf("plan --if %q on %s: %v in %s", faults, node, err, out)
	}
	return f
}

// happened returns the rule by which the group was placed last, by the cluster's history.
func (c *incident) happened(node string) string {
	c.t.Helper()
	var h struct {
		Lines []struct {
			Rule string   `json:"rule"`
			Did  []string `json:"did"`
		} `json:"lines"`
	}
	if err := json.Unmarshal([]byte(c.run(node, "history", "--json")), &h); err != nil {
		c.t.Fatal(err)
	}
	for _, l := range slices.Backward(h.Lines) {
		if slices.ContainsFunc(l.Did, func(d string) bool { return strings.HasPrefix(d, "assign "+Group+" to ") }) {
			return l.Rule
		}
	}
	return ""
}

// What plan --if says is what happens then, whichever node is asked: where the group goes, by which rule, and for
// how long nobody serves it at the most. To ask changes nothing.
func TestPlanComesTrue(t *testing.T) {
	c := start(t, Options{Takeover: "1s"})
	before, asked := c.group(Beta), lab.Now()
	steps := []struct {
		faults, to string
		really     func() error
	}{
		{"power alpha", Beta, c.Host(Alpha).PowerOff},
		{"alpha up; at 5s switch web alpha", Alpha, func() error {
			if err := c.Host(Alpha).Boot(); err != nil {
				return err
			}
			if err := c.AwaitServing(Beta, limit); err != nil {
				return err
			}
			_, err := c.command(Gamma, "switch", Group, "--to", Alpha)
			return err
		}},
	}
	for _, s := range steps {
		var expected []*foreseen
		for _, n := range Nodes {
			if c.Host(n).On() {
				expected = append(expected, c.plan(n, s.faults))
			}
		}
		if g := c.group(Beta); g != before {
			t.Fatalf("to ask has changed something: %+v, then %+v", before, g)
		}
		c.noGap("to ask has taken the service away", asked)

		gap := c.movesTo(s.to, c.at(s.really))
		rule := c.happened(Gamma)
		for i, f := range expected {
			g := f.Groups[0]
			most, err := time.ParseDuration(g.OutageMax)
			c.must(err)
			t.Logf("%s: foreseen on %s by %s, %v at the most; it was by %s, %v", s.faults, g.To, g.Rule, most, rule, gap)
			if !f.Served || g.To != s.to || g.Rule != rule || gap > most+slack {
				t.Errorf("%s, asked %d of %d: foreseen %+v; then the group went to %s by %s, after %v", s.faults, i+1, len(expected), f, s.to, rule, gap)
			}
		}
		c.must(c.AwaitServing(s.to, limit))
		before, asked = c.group(Beta), lab.Now()
	}
	f := c.plan(Gamma, "alpha down; beta down")
	if f.Served || f.Groups[0].To != "" || len(f.Risks) == 0 || !strings.Contains(f.Risks[0], "no majority") {
		t.Errorf("two of three nodes lost: %+v", f)
	}
	out, err := c.command(Gamma, "plan", "--if", "alpha down; beta down")
	if err == nil || !strings.Contains(out, "would be served by nobody") {
		t.Errorf("it succeeds where a group would not be served: %v\n%s", err, out)
	}
	t.Logf("%s", c.run(Gamma, "plan", "--if", "alpha down"))
}
