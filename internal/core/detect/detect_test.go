package detect

import (
	"testing"
	"time"

	"baton/internal/core/cluster"
)

const ms = cluster.Instant(time.Millisecond)

func TestSilence(t *testing.T) {
	p := NewPeer(2, 1000*ms, cluster.Timing{D: 90 * time.Millisecond})
	if p.Heard() || p.Fresh(1000*ms) || p.Silent(1089*ms) || !p.Silent(1090*ms) {
		t.Error("a peer never heard is silent for as long as this node has listened")
	}
	p.Arrived(0, 1100*ms, 200*time.Millisecond)
	if !p.Fresh(1279*ms) || p.Fresh(1280*ms) || p.Silent(1279*ms) || !p.Silent(1280*ms) || p.SilentAt() != 1280*ms {
		t.Error("D is 0.9 of the lease length that the last heartbeat named")
	}
	p.Arrived(1, 1150*ms, 200*time.Millisecond)
	if p.Link(0) != 1100*ms || p.Link(1) != 1150*ms || p.Ago(1200*ms) != 50*time.Millisecond {
		t.Error("any link counts, each is kept")
	}
	p.Arrived(7, 1160*ms, 0) // over no link that is known here
	if p.Ago(1200*ms) != 40*time.Millisecond || p.D() != 180*time.Millisecond {
		t.Error("what came over no link counts as life, and names no length")
	}
}

// Its own stall is no silence of others; but stalling again and again hides nobody's death.
func TestOwnStallIsDeducted(t *testing.T) {
	p := NewPeer(1, 0, cluster.Timing{D: 90 * time.Millisecond})
	p.Arrived(0, 10*ms, 100*time.Millisecond)
	p.Stalled(400 * time.Millisecond)
	if p.Ago(450*ms) != 40*time.Millisecond || p.Silent(499*ms) || !p.Silent(500*ms) || p.SilentAt() != 500*ms {
		t.Error("D counts without the stall, and nothing restarts")
	}
	if p.Fresh(450 * ms) {
		t.Error("a stall is no sign of life")
	}
	p.Stalled(35 * time.Millisecond)
	p.Stalled(410 * time.Millisecond)
	if p.SilentAt() != 510*ms {
		t.Errorf("of several stalls the longest is deducted, so the peer is silent at 510 ms, not at %d", p.SilentAt()/ms)
	}
	p.Arrived(0, 600*ms, 100*time.Millisecond)
	if p.SilentAt() != 690*ms {
		t.Error("what was heard since counts from then on")
	}
}

// A report of silence may be older than the shorter length that the peer names now.
func TestShorterLength(t *testing.T) {
	p := NewPeer(1, 0, cluster.Timing{D: 9000 * time.Millisecond})
	p.Arrived(0, 20000*ms, 10*time.Second)
	p.Arrived(0, 21000*ms, 200*time.Millisecond)
	p.Arrived(0, 21020*ms, 100*time.Millisecond)
	if p.D() != 90*time.Millisecond || p.Reported(22999*ms) != 9*time.Second || p.Reported(23000*ms) != 90*time.Millisecond {
		t.Errorf("D %v, reported %v and then %v", p.D(), p.Reported(22999*ms), p.Reported(23000*ms))
	}
	p.Arrived(0, 24000*ms, 10*time.Second)
	if p.Reported(24000*ms) != 9*time.Second {
		t.Error("a longer length counts at once")
	}
	p.Arrived(0, 24000*ms, 20*time.Second)
	p.Arrived(0, 24000*ms, 100*time.Millisecond) // while the window of the former change has not passed
	if p.Reported(27999*ms) != 18*time.Second || p.Reported(28000*ms) != 90*time.Millisecond {
		t.Errorf("it grew and shrank again: reported %v and then %v", p.Reported(27999*ms), p.Reported(28000*ms))
	}
}
