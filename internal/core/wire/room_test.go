package wire

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// fullest is what a heartbeat holds at the most beside groups: 7 nodes with names of full length, all of them but the
// sender evicted, numbers as large as they may become in a century.
func fullest() *Heartbeat {
	const large = 1 << 48
	m := &Heartbeat{Incarnation: 1 << 63, Boot: 1 << 63, Number: large, Seq: large, L: 10 * time.Minute, Rests: large, View: 1,
		Sent: 1 << 62, Lead: large, Applied: large, LeaseRuns: true, Sick: true, Revision: large}
	for i := range 6 {
		id := cluster.NodeID(strings.Repeat("n", MaxName-1) + string(rune('a'+i)))
		m.Heard = append(m.Heard, Heard{id, 1 << 63, 1 << 63, 365 * 24 * time.Hour, large})
		m.Said = append(m.Said, Lease{id, large})
	}
	m.Said = append(m.Said, Lease{cluster.NodeID(strings.Repeat("s", MaxName)), large})
	m.Sight = Sight{Revision: large, Reached: 1 << 63, Missed: 1 << 63}
	for range MaxLinks {
		m.Sight.Links = append(m.Sight.Links, LinkSight{1<<7 - 1, 1<<7 - 1})
	}
	return m
}

// A path of 1,280 bytes, the least of IPv6, carries a heartbeat, whatever it holds.
func TestHeartbeatNeverLeavesTheDatagram(t *testing.T) {
	if headers := 40 + 8; MaxPacket+headers > 1280 {
		t.Fatalf("a packet of %d bytes is too large for a path of 1,280", MaxPacket)
	}
	r := rand.New(rand.NewPCG(1, 2))
	self := cluster.NodeID(strings.Repeat("s", MaxName))
	s := sealer(t, self, 9)
	for range 2000 {
		m := fullest()
		m.Heard, m.Said = m.Heard[:r.IntN(7)], m.Said[:r.IntN(8)]
		room, _ := Room(nil, m)
		if room < 200 {
			t.Fatalf("room for %d bytes of groups beside %d nodes", room, len(m.Heard))
		}
		for full := false; !full; {
			report := GroupReport{Group: GroupKey(r.Uint64()), Epoch: cluster.Epoch(r.Uint64() >> r.IntN(64)), Phase: PhaseFailed, Probe: r.Uint64() * r.Uint64N(2),
				Reason: strings.Repeat("é", r.IntN(2)*r.IntN(MaxReason))}
			release := Tenure{GroupKey(r.Uint64()), cluster.Epoch(r.Uint64() >> r.IntN(64))}
			switch {
			case report.Size() <= room && r.IntN(2) > 0:
				m.Groups, room = append(m.Groups, report), room-report.Size()
			case release.Size() <= room:
				m.Released, room = append(m.Released, release), room-release.Size()
			default:
				full = true
			}
		}
		b, err := Append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		if sealed := s.Seal(nil, 1, "beta", b); len(sealed) > MaxPacket {
			t.Fatalf("%d bytes", len(sealed))
		}
		if got, err := Decode(b); err != nil {
			t.Fatalf("read as %+v, %v", got, err)
		}
	}
}

// What is too large for a datagram is no heartbeat: it must not take another road.
func TestLargeHeartbeatIsRefused(t *testing.T) {
	m := fullest()
	for i := range MaxGroups {
		m.Groups = append(m.Groups, GroupReport{Group: KeyOf(cluster.GroupID(fmt.Sprint(i)))})
	}
	if _, err := Append(nil, m); err == nil || !strings.Contains(err.Error(), "never leaves the datagram") {
		t.Fatal(err)
	}
}
