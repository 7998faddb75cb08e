package decide

import (
	"strings"
	"testing"

	"baton/internal/core/cluster"
)

// What is asked of the planner by the nodes themselves, before they restart what has failed or give up what is sick.

const (
	failedOnAlpha = `
node alpha admitted=1 fresh lease
node beta admitted=1 fresh lease
node gamma role=witness fresh
group web nodes=alpha,beta owner=alpha epoch=4 alpha=failed beta=hot`
	sickAlpha = `
node alpha admitted=1 fresh lease sick
node beta admitted=1 fresh lease
node gamma role=witness fresh
group web nodes=alpha,beta owner=alpha epoch=4 alpha=stopped beta=hot`
)

// A hot standby takes over what has failed, sooner than a restart: but not where a person has said otherwise, where it
// would have to start, or where the group failed before.
func TestRelief(t *testing.T) {
	for change, want := range map[string]bool{
		"": true, "beta=hot => beta=stopped": false, "beta=hot => beta=hot,failed": false, "beta=hot => beta=hot,cut": false, "beta=hot => beta=hot,lacks": false,
		"beta=hot => beta=hot manual": false, "beta=hot => beta=hot ban=beta": false, "beta=hot => beta=hot ban=beta:old": false,
		"beta=hot => beta=hot ban=beta:ahead": false, "beta=hot => beta=hot ban=alpha:old": true,
		"+ pause web": false, "+ pause all": false, "+ stop web": false, "+ pin web alpha": false, "+ drain beta": false, "+ drain alpha": true,
		"owner=alpha => last=alpha": false, "beta admitted=1 fresh lease => beta admitted=1 fresh": false,
		"beta admitted=1 fresh lease => beta admitted=1 fresh lease isolated": false,
	} {
		if f := changed(t, failedOnAlpha, change); Relief(f, &f.Groups[0]) != want {
			t.Errorf("%q: relief must be %v", change, want)
		}
	}
}

// What a sick node serves, or is to serve, is given up where the planner would move it, and only there.
func TestLeaves(t *testing.T) {
	for change, want := range map[string]cluster.NodeID{
		"": "beta", "beta=hot => beta=stopped": "beta", "alpha=stopped => alpha=serving": "beta", "lease sick => lease": "", "alpha=stopped => alpha=cut": "beta",
		"beta=hot => beta=hot manual": "", "beta=hot => beta=hot,cut": "", "+ pause web": "", "+ pause all": "", "+ stop web": "", "+ pin web alpha": "", "+ drain beta": "",
		"owner=alpha => last=alpha": "",
	} {
		if f := changed(t, sickAlpha, change); Leaves(f, &f.Groups[0]) != want {
			t.Errorf("%q: it goes to %q, not %q", change, Leaves(f, &f.Groups[0]), want)
		}
	}
}

// A group that fails where it failed before without having been well for a while waits longer before it goes back there;
// one that was well in between does not.
func TestTriesOfABan(t *testing.T) {
	for change, want := range map[string]int{
		"alpha=failed => alpha=failed,brief ban=alpha:often": 4, "alpha=failed => alpha=failed ban=alpha:often": 1, "alpha=failed => alpha=failed,brief": 1,
	} {
		var tries []int
		for _, e := range Make(changed(t, failedOnAlpha, change)).Entries {
			for _, p := range e.Parts {
				if p.Ban != nil && p.Ban.Node == "alpha" {
					tries = append(tries, p.Ban.Tries)
				}
			}
		}
		if len(tries) != 1 || tries[0] != want {
			t.Errorf("%q: the ban counts %v tries, not %d", change, tries, want)
		}
	}
}

// changed reads a page in which something is written otherwise ("this => that"), or that has one more line ("+ line").
func changed(t *testing.T, page, change string) *cluster.Facts {
	t.Helper()
	if line, ok := strings.CutPrefix(change, "+ "); ok {
		page += "\n" + line
	} else if from, to, ok := strings.Cut(change, " => "); ok {
		if strings.Count(page, from) != 1 {
			t.Fatalf("%q is not in the page, once", from)
		}
		page = strings.Replace(page, from, to, 1)
	}
	return parse(t, strings.TrimSpace(page))
}
