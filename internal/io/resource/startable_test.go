package resource

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStartable: that no program can be started is known before one must, and its end too. Nothing is executed.
func TestStartable(t *testing.T) {
	s := spec("exec sleep 1000", map[string]any{"user": "nobody"})
	newBench(t, s).start(1)
	if err := Lacks(Process{}, s); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &none); err != nil { // root is excused, nobody is not
		t.Fatal(err)
	}
	time.Sleep(2 * trialKept)
	err := Lacks(Process{}, s)
	again := unix.Setrlimit(unix.RLIMIT_NPROC, &limit)
	if again != nil {
		t.Fatal(again)
	}
	if err == nil || !Exhausted(err) || !fromSurroundings(err) || !strings.Contains(err.Error(), "no more processes can be started here") {
		t.Errorf("got %v", err)
	}
	time.Sleep(2 * trialKept)
	if err := Lacks(Process{}, s); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func BenchmarkStartable(b *testing.B) {
	owner, err := lookupAccount("nobody")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		clear(trials.last)
		if err := startable(owner); err != nil {
			b.Fatal(err)
		}
	}
}
