package addr

import (
	"context"
	"net/netip"
	"os/exec"
	"testing"
	"time"
)

// Whoever heard none of the first announcements, and has a cache that never ends, is told by the refresh.
func TestRefresh(t *testing.T) {
	s := newSegment(t, "a", "client")
	s.serve("a")
	for _, v := range variants[:2] {
		p := netip.MustParsePrefix(v.prefix)
		a := s.vip("a", p, "", "")
		if a.refresh != DefaultRefresh {
			t.Fatalf("by default it is refreshed every %v", a.refresh)
		}
		a.repeats, a.refresh = nil, 0
		a.mustStart(1)
		s.ask("client", p.Addr())
		wrong := func() { s.ip("client", "neigh replace %s lladdr 02:00:00:00:00:99 dev eth0 nud reachable", p.Addr()) }
		wrong()
		time.Sleep(500 * time.Millisecond)
		if got := s.neighbour("client", "eth0", p.Addr()); got != "02:00:00:00:00:99" {
			t.Fatalf("turned off, and yet the client learned %q", got)
		}
		a.mustStop()
		a.refresh = 200 * time.Millisecond
		a.mustStart(1)
		for range 3 {
			wrong()
			eventually(t, "the client's neighbour cache", s.mac("a", "eth0"), func() string { return s.neighbour("client", "eth0", p.Addr()) })
		}
	}
}

func TestJitter(t *testing.T) {
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := jittered(DefaultRefresh)
		least, most = min(least, d), max(most, d)
	}
	if least < 30*time.Second || least > 32*time.Second || most > 60*time.Second || most < 58*time.Second {
		t.Errorf("the refresh comes every %v to %v", least, most)
	}
}

// A neighbour that did not answer and does again, or has another hardware address, is told; one that is merely
// learned, or looked up again, is not.
func TestWatchNeighbours(t *testing.T) {
	s := newSegment(t, "a", "b")
	told := make(chan bool, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s.on("a", func() { // its socket belongs to the thread's network
		began := make(chan bool)
		go func() {
			s.on("a", func() {
				close(began)
				done <- WatchNeighbours(ctx, func() { told <- true })
			})
		}()
		<-began
	})
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	time.Sleep(200 * time.Millisecond)
	none := func(when string) {
		t.Helper()
		select {
		case <-told:
			t.Errorf("told of a neighbour %s", when)
		case <-time.After(300 * time.Millisecond):
		}
	}
	come := func(when string) {
		t.Helper()
		select {
		case <-told:
		case <-time.After(soon):
			t.Errorf("not told of a neighbour %s", when)
		}
		time.Sleep(returnsEvery)
	}
	ping := func() {
		exec.Command("ip", "netns", "exec", s.prefix+"a", "ping", "-c", "1", "-W", "3", "10.77.0.2").Run()
	}
	ping()
	none("that is new")
	s.ip("a", "neigh change 10.77.0.2 dev eth0 nud stale")
	ping()
	none("that is only looked up again")
	s.ip("sw", "link set dev b nomaster")
	s.ip("a", "neigh change 10.77.0.2 dev eth0 nud failed")
	ping()
	none("that does not answer")
	s.ip("sw", "link set dev b master br0")
	ping()
	come("that answers again")
	s.ip("a", "neigh replace 10.77.0.2 lladdr 02:00:00:00:00:99 dev eth0 nud reachable")
	come("that has another hardware address")
}
