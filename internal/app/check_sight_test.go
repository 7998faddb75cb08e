package app

import (
	"testing"

	"baton/internal/core/config"
)

// Where nothing shows whether clients reach a node, check says so, and why.
func TestCheckSight(t *testing.T) {
	for _, c := range []struct{ what, text, want string }{
		{"three on the clients' link", "cluster: feed\nnodes:\n  alpha: { address: 10.0.0.11 }\n  beta: { address: 10.0.0.12 }\n  gamma: { address: 10.0.0.13, role: witness }\n" +
			"groups:\n  feed: { resources: [ { vip: 10.0.0.60/24 } ] }\n", ""},
		{"two on it", twoOnTheLAN + "groups:\n  feed: { resources: [ { vip: 10.0.0.60/24 } ] }\n  mail: { resources: [ { vip: 10.0.0.61/24 } ] }\n",
			"should this node lose the network of its clients while it lives, 2 groups would stay: link lan joins fewer than three nodes"},
		{"two on it, and a target", "reach: 10.0.0.1\n" + twoOnTheLAN + "groups:\n  feed: { resources: [ { vip: 10.0.0.60/24 } ] }\n", ""},
		{"two on it, and it is meant so", twoOnTheLAN + "groups:\n  feed: { reach: none, resources: [ { vip: 10.0.0.60/24 } ] }\n", ""},
		{"elsewhere", twoOnTheLAN + "groups:\n  feed: { resources: [ { vip: 10.9.0.60/24 } ] }\n", "1 group would stay: no link of this node is in the subnet of the group's address"},
		{"no other node", twoOnTheLAN + "groups:\n  feed: { nodes: [ alpha ], resources: [ { vip: 10.0.0.60/24 } ] }\n", ""},
		{"no address", twoOnTheLAN + "groups:\n  feed: { resources: [ { process: { name: p, command: [sleep, \"1\"], user: nobody } } ] }\n", ""},
	} {
		spec, err := config.Parse("file", []byte(c.text), Kinds())
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		u := quiet()
		checkSight(u, spec, spec.Node("alpha"))
		if c.want != "" {
			expectFinding(t, u, "reach", warning, c.want)
		} else if len(u.Checks) > 0 {
			t.Errorf("%s: %+v", c.what, u.Checks)
		}
	}
}

// twoOnTheLAN has the witness on another link than that which clients come by.
const twoOnTheLAN = `cluster: feed
nodes:
  alpha: { address: 10.0.1.11 }
  beta: { address: 10.0.1.12 }
  gamma: { address: 10.0.1.13, role: witness }
links:
  - { name: lan, udp: { addresses: { alpha: 10.0.0.11, beta: 10.0.0.12 } } }
  - { name: back, udp: { addresses: { alpha: 10.0.1.11, beta: 10.0.1.12, gamma: 10.0.1.13 } } }
`
