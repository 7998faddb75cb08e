package decide

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"baton/internal/core/cluster"
)

// What is said of each node, whether it could take a group, is what the planner goes by: the same reasons against it, and
// in need only where the planner would take it so.
func TestCouldIsWhatIsDecided(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for page := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
			given, _, _ := strings.Cut(page, "\n----\n")
			f := parse(t, strings.TrimSpace(given))
			for i := range f.Groups {
				agrees(t, f, &f.Groups[i], given)
			}
		}
	}
}

func agrees(t *testing.T, f *cluster.Facts, g *cluster.GroupFacts, given string) {
	t.Helper()
	best, rejected := (&planner{f: f, asked: true}).choose(g)
	next, nextInNeed, _ := Next(f, g)
	for _, id := range f.Spec.Group(g.ID).Nodes {
		if id == g.Owner {
			continue
		}
		why := ""
		for _, r := range rejected {
			if r.Node == id && !strings.HasPrefix(r.Why, "could, but ") {
				why = r.Why
			}
		}
		refusal, inNeed := Could(f, g, id)
		if refusal != why {
			t.Errorf("%s\n%s could not take %s: %q, and is not chosen: %q", given, id, g.ID, refusal, why)
		}
		if best != nil && best.ID == id && next == id && nextInNeed != (inNeed != "") {
			t.Errorf("%s\n%s takes %s in need only: %v, and here for %q", given, id, g.ID, nextInNeed, inNeed)
		}
	}
}
