package gate

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// mechanisms are the values of Options.Prefer.
var mechanisms = []string{PreferEBPF, PreferClsact, PreferNFTables}

// manyGroups returns n groups with addresses and ports each.
func manyGroups(n, addresses, ports int) []Group {
	all := make([]Group, n)
	for i := range all {
		all[i].ID = cluster.GroupID(fmt.Sprintf("group-%d", i))
		for k := range addresses {
			number := i*addresses + k
			all[i].Addresses = append(all[i].Addresses, netip.AddrFrom4([4]byte{10, 9, byte(number >> 8), byte(number)}))
		}
		for k := range ports {
			all[i].Ports = append(all[i].Ports, cluster.Port{Protocol: "tcp", Number: uint16(1000 + i*ports + k)})
		}
	}
	return all
}

// As many groups as a file may name are guarded, opened, changed, closed and handed on, by each mechanism; and as many
// groups, addresses and ports as a gate takes.
func TestManyGroups(t *testing.T) {
	for _, prefer := range mechanisms {
		for _, groups := range [][]Group{manyGroups(500, 1, 0), manyGroups(maxGroups, maxAddresses/maxGroups, maxPorts/maxGroups)} {
			t.Run(fmt.Sprint(prefer, " ", len(groups)), func(t *testing.T) {
				w := newWorld(t)
				g := w.open(t, Options{Prefer: prefer})
				last := groups[len(groups)-1].ID
				for round, end := range []int64{hence(time.Hour), 0, hence(time.Hour)} {
					began := time.Now()
					must(t, g.Guard(groups))
					t.Logf("guarded in %v", time.Since(began))
					began = time.Now()
					for i := range groups {
						if epoch := cluster.Epoch(round + 1); end == 0 {
							closeGroup(t, g, groups[i].ID, epoch)
						} else {
							must(t, g.Set(groups[i].ID, epoch, end))
						}
					}
					t.Logf("set in %v", time.Since(began))
				}
				must(t, g.Close())
				g = w.open(t, Options{Prefer: prefer})
				left, err := g.Left()
				must(t, err)
				i := slices.IndexFunc(left, func(s State) bool { return s.Group == last })
				if len(left) != len(groups) || i < 0 || left[i].Epoch != 3 || left[i].Deadline == 0 {
					t.Errorf("%d groups are left, want %d; %s is number %d", len(left), len(groups), last, i)
				}
				must(t, g.Guard(groups))
				must(t, g.Remove())
			})
		}
	}
}
