package addr

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// watcher collects what WatchLinks tells on a host; hold makes it stop taking changes.
type watcher struct {
	hold   sync.Mutex
	mu     sync.Mutex
	states map[string]LinkState
	told   []LinkState
}

func (s *segment) watch(t *testing.T, host string) *watcher {
	w := &watcher{states: map[string]LinkState{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go s.on(host, func() {
		done <- WatchLinks(ctx, func(l LinkState) {
			w.hold.Lock()
			defer w.hold.Unlock()
			w.mu.Lock()
			defer w.mu.Unlock()
			w.states[l.Name] = l
			w.told = append(w.told, l)
		})
	})
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(soon):
			t.Error("WatchLinks goes on after its context has ended")
		}
	})
	return w
}

// state returns what was last told of an interface.
func (w *watcher) state(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	l, ok := w.states[name]
	if !ok {
		return "unknown"
	}
	return fmt.Sprintf("up=%v carrier=%v", l.Up, l.Carrier)
}

// named tells which interface has a name by what was last told.
func (w *watcher) named(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.states {
		if l.Named(name) {
			return "is " + l.Name
		}
	}
	return "is none"
}

func TestWatchLinks(t *testing.T) {
	s := newSegment(t, "a")
	w := s.watch(t, "a")
	is := func(name, want string) {
		t.Helper()
		eventually(t, name, want, func() string { return w.state(name) })
	}
	is("eth0", "up=true carrier=true")
	is("eth0.100", "up=true carrier=true")
	s.ip("sw", "link set dev a down") // the other end of the cable
	is("eth0", "up=true carrier=false")
	s.ip("sw", "link set dev a up")
	is("eth0", "up=true carrier=true")
	s.ip("a", "link set dev eth0 address 02:00:00:00:aa:01")
	eventually(t, "eth0's MAC", "02:00:00:00:aa:01", func() string { w.mu.Lock(); defer w.mu.Unlock(); return w.states["eth0"].MAC })
	s.ip("a", "link set eth0.100 down")
	is("eth0.100", "up=false carrier=false")
	s.ip("a", "link set eth0.100 name office")
	is("office", "up=false carrier=false")
	s.ip("a", "link property add dev eth0 altname enp1s0")
	eventually(t, "enp1s0", "is eth0", func() string { return w.named("enp1s0") })
	s.ip("a", "link property del dev eth0 altname enp1s0")
	eventually(t, "enp1s0", "is none", func() string { return w.named("enp1s0") })
	s.ip("a", "link add br1 type bridge")
	s.ip("a", "link set eth0 master br1")
	s.ip("a", "link set eth0 nomaster") // a message that looks like a removal of eth0
	is("br1", "up=false carrier=false")
	s.ip("a", "link set br1 up")
	s.ip("a", "link del office")
	is("br1", "up=true carrier=false")
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.told {
		if l.Name == "eth0" && !l.Up {
			t.Errorf("eth0 was said to be gone: %v", w.told)
		}
	}
}

// More changes than the socket holds while nobody takes them: what was lost is found by listing again.
func TestWatchLinksOverrun(t *testing.T) {
	s := newSegment(t, "a")
	s.ip("a", "link add name gone type bridge")
	w := s.watch(t, "a")
	s.ip("a", "link set gone up")
	eventually(t, "gone", "up=true carrier=true", func() string { return w.state("gone") })
	w.hold.Lock()
	batch := func(text string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "batch")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.ip("a", "-batch %s", file)
	}
	batch("link set eth0.100 down\nlink set eth0.100 up\n") // this one holds up the watcher, once it is there
	var flood strings.Builder
	for n := range 1500 {
		fmt.Fprintf(&flood, "link set dev eth0 alias n%d\n", n)
	}
	eventually(t, "a socket", "has lost messages", func() string {
		batch(flood.String())
		if s.lost(t, "a") == 0 {
			return "has lost nothing"
		}
		return "has lost messages"
	})
	batch("link del gone\nlink add name last type veth peer name tsal\nlink set tsal up\nlink set last up\nlink set eth0.100 down\n")
	w.hold.Unlock()
	eventually(t, "last", "up=true carrier=true", func() string { return w.state("last") })
	eventually(t, "eth0.100", "up=false carrier=false", func() string { return w.state("eth0.100") })
	eventually(t, "gone", "up=false carrier=false", func() string { return w.state("gone") })
}

// lost returns how many messages the host's netlink sockets have lost.
func (s *segment) lost(t *testing.T, host string) int {
	t.Helper()
	total := 0
	for _, line := range strings.Split(s.read(host, "/proc/net/netlink"), "\n")[1:] {
		if f := strings.Fields(line); len(f) > 8 {
			var n int
			fmt.Sscan(f[8], &n)
			total += n
		}
	}
	return total
}
