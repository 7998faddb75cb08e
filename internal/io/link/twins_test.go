package link

import (
	"net/netip"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// TestTwins: two agents that are heard in turns are told from one that was started again.
func TestTwins(t *testing.T) {
	home, other := netip.MustParseAddrPort("10.0.0.11:7400"), netip.MustParseAddrPort("10.0.0.99:7400")
	begun := time.Now()
	at := func(s float64) time.Time { return begun.Add(time.Duration(s * float64(time.Second))) }
	for _, c := range []struct {
		name  string
		speak func(hear func(run cluster.RunID, from netip.AddrPort, s float64))
		want  bool
	}{
		{"a copy speaks beside it", func(hear func(cluster.RunID, netip.AddrPort, float64)) {
			for s := 0.0; s < 10; s++ {
				hear(1, home, s)
				if s > 2 {
					hear(2, other, s+0.5)
				}
			}
		}, true},
		{"at long intervals", func(hear func(cluster.RunID, netip.AddrPort, float64)) {
			for s := 0.0; s < 15; s += 5 {
				hear(1, home, s)
				hear(2, other, s+1)
			}
		}, true},
		{"it was started again, and a packet of before came late", func(hear func(cluster.RunID, netip.AddrPort, float64)) {
			hear(1, home, 0)
			hear(2, home, 1)
			hear(1, home, 2)
			hear(2, home, 3)
			hear(2, home, 9.9)
		}, false},
		{"it is started again and again", func(hear func(cluster.RunID, netip.AddrPort, float64)) {
			for s := 0.0; s < 10; s++ {
				hear(cluster.RunID(s+1), home, s)
			}
		}, false},
		{"the copy is gone", func(hear func(cluster.RunID, netip.AddrPort, float64)) {
			for s := -30.0; s < 10; s++ {
				hear(1, home, s)
				if s < -6 {
					hear(2, other, s+0.5)
				}
			}
		}, false},
	} {
		l := &Links{voices: make(map[cluster.NodeID][]voice)}
		c.speak(func(run cluster.RunID, from netip.AddrPort, s float64) { l.hears("alpha", run, from, at(s)) })
		got := l.Twins(at(10))
		if (len(got) == 1) != c.want || c.want && (got[0] != Twins{"alpha", [2]netip.AddrPort{home, other}}) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
