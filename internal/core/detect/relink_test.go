package detect

import (
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// Links change places, go and come: what was heard on each stays with it, and on a new one nothing was heard.
func TestRelink(t *testing.T) {
	p := NewPeer(3, 1000*ms, cluster.Timing{D: 90 * time.Millisecond})
	for i := range 3 {
		p.Arrived(i, cluster.Instant(1010+10*i)*ms, 100*time.Millisecond)
	}
	p.Relink([]int{2, -1, 0, -1})
	for i, want := range []cluster.Instant{1030 * ms, 0, 1010 * ms, 0} {
		if p.Link(i) != want {
			t.Errorf("link %d was heard at %d, not %d", i, p.Link(i), want)
		}
		if heard, lost := p.OnLink(i, 1040*ms); heard != (want != 0) || lost {
			t.Errorf("link %d: heard %v, lost %v", i, heard, lost)
		}
	}
	if p.Ago(1040*ms) != 10*time.Millisecond {
		t.Errorf("the peer was heard %v ago", p.Ago(1040*ms))
	}
	p.Arrived(3, 1050*ms, 0)
	if p.Link(3) != 1050*ms {
		t.Error("a new link is not heard")
	}
}
