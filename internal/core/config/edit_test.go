package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"baton/internal/core/cluster"
)

// Each file of testdata/leave is a cluster file that delta leaves, a line ----, and what is to remain.
func TestWithout(t *testing.T) {
	paths, err := filepath.Glob("testdata/leave/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			before, want, _ := strings.Cut(string(text), "----\n")
			got, err := Without([]byte(before), "delta", testKinds())
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestWithoutRefuses(t *testing.T) {
	const nodes = "cluster: x\nnodes:\n  alpha: { address: 10.0.0.1 }\n  beta: { address: 10.0.0.2 }\n  gamma: { address: 10.0.0.3 }\n"
	const delta = "  delta: { address: 10.0.0.4 }\n"
	const group = "groups:\n  web:\n    nodes: [delta]\n    resources:\n      - vip: 10.0.0.9/24\n"
	for _, c := range []struct{ text, node, want string }{
		{nodes, "gamma", "2 nodes would remain"},
		{nodes + delta, "epsilon", `there is no node "epsilon"`},
		{nodes + delta + group, "delta", "no node would remain that may run web"},
		{"cluster: [", "delta", "not YAML"},
	} {
		if _, err := Without([]byte(c.text), cluster.NodeID(c.node), testKinds()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.node, err, c.want)
		}
	}
}
