package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"baton/internal/core/cluster"
)

// FuzzParse: no text makes Parse panic, every error has a place, and what Parse accepts is sound.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	examples, _ := filepath.Glob("../../../examples/*.yaml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, file := range files {
		for _, c := range readGoldenForFuzz(file) {
			f.Add([]byte(c))
		}
	}
	for _, file := range examples {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	kinds := testKinds()
	f.Fuzz(func(t *testing.T, text []byte) {
		spec, err := Parse("f", text, kinds)
		if err == nil {
			sound(t, spec)
			return
		}
		var all Errors
		if spec != nil || !errors.As(err, &all) || len(all) == 0 {
			t.Fatalf("got %v and %v", spec, err)
		}
		for _, e := range all {
			if e.Line < 1 || e.Column < 1 || e.Message == "" || e.Error() == "" {
				t.Fatalf("an error without a place: %+v", e)
			}
		}
	})
}

func readGoldenForFuzz(file string) []string {
	var inputs []string
	for _, c := range readGolden(&testing.T{}, file) {
		inputs = append(inputs, c.input)
	}
	return inputs
}

// sound checks what the core relies on in a specification.
func sound(t *testing.T, s *cluster.Spec) {
	t.Helper()
	must := func(ok bool, what string) {
		t.Helper()
		if !ok {
			t.Fatalf("unsound: %s: %s", what, show(s))
		}
	}
	must(nameRule.MatchString(s.Cluster), "the cluster's name")
	must(len(s.Nodes) >= MinVoters && len(s.Nodes) <= MaxNodes, "number of nodes")
	must(s.Timing.L > 0 && s.Timing.L == 10*s.Timing.H && budget(s.Timing) <= s.Timing.Takeover, "timing")
	must(len(s.Links) > 0, "links")
	for i, n := range s.Nodes {
		must(nameRule.MatchString(string(n.ID)) && n.Address.IsValid(), "a node")
		must(i == 0 || s.Nodes[i-1].ID < n.ID, "order of nodes")
	}
	for _, l := range s.Links {
		must(l.UDP != nil && l.UDP.Port > 0 && len(l.UDP.Addresses) >= 2, "a link")
		for id, a := range l.UDP.Addresses {
			must(s.Node(id) != nil && a.IsValid(), "an address of a link")
		}
	}
	served := make(map[netip.Addr]bool)
	for i, g := range s.Groups {
		must(nameRule.MatchString(string(g.ID)) && len(g.Nodes) > 0 && len(g.Resources) > 0, "a group")
		must(i == 0 || s.Groups[i-1].ID < g.ID, "order of groups")
		for j, id := range g.Nodes {
			must(s.Node(id) != nil && s.Node(id).Role != cluster.Witness && g.Prefers(id) == j, "a node of a group")
		}
		for j := range g.Resources {
			r := &g.Resources[j]
			must(nameRule.MatchString(string(r.ID)) && g.Resource(r.ID) == r, "a resource's name")
			must(r.StartTimeout > 0 && r.StopTimeout > 0 && r.Effects != cluster.EffectsBeyond && r.Fields != nil, "a resource")
			for _, a := range r.Addresses {
				must(!served[a], "an address served twice")
				served[a] = true
			}
		}
	}
}
