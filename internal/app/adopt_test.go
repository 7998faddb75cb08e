package app

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// An agent is not heard before it knows what runs. So that takes no time, however many programs are not ready, or do not
// end though the file does not name them any more; and what is not ready yet is not stopped for that.
func TestBeginsAtOnce(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0") // it accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	var slow strings.Builder
	groups := []string{"one", "two", "three"}
	for _, g := range groups {
		fmt.Fprintf(&slow, "  %s:\n    nodes: [a, b]\n    resources:\n      - process: { name: p, command: [sleep, 1000], user: root, start_timeout: 100ms, ready: { http: \"http://%s/\" } }\n", g, mute.Addr())
	}
	dir, up := tmpfsDir(t), filepath.Join(t.TempDir(), "up")
	end := up + ".end"
	deaf := strings.ReplaceAll(program("left", "trap '' TERM; touch "+up+"; until [ -e "+end+" ]; do sleep 0.02; done", 7021), "stop_timeout: 5s", "stop_timeout: 1m")
	r := newFittingRoom(t, dir, specOf(t, "3s", "", slow.String()+deaf))
	left := r.runs("left")
	r.turn("it is deaf", func() bool { return isThere(up) })
	pids := make(map[string]int)
	for _, g := range groups {
		r.want(g, cluster.TargetRunning, false)
		pids[g] = pidBelow(t, dir, g)
	}
	r.end()

	begun := time.Now()
	r = newFittingRoom(t, dir, specOf(t, "3s", "", strings.ReplaceAll(slow.String(), "start_timeout: 100ms", "start_timeout: 1m")))
	defer r.end()
	if took := time.Since(begun); took > 20*time.Second { // a busy disk may take some; what it must not wait for, a minute
		t.Errorf("nobody heard of this node for %v", took)
	}
	for _, d := range r.boot.Found {
		if pid := pids[string(d.Group)]; d.Status != cluster.StatusUnknown || !alive(pid) {
			t.Errorf("%s is found %v; process %d is there: %v", d.Group, d.Status, pid, alive(pid))
		}
	}
	if !alive(left) {
		t.Error("what is left has ended: this test shows nothing")
	}
	if err := os.WriteFile(end, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.turn("what is left is stopped all the same", func() bool { return !alive(left) && len(r.retiring) == 0 })
	for _, g := range groups {
		r.want(g, cluster.TargetStopped, false)
	}
}
