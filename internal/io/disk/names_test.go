package disk

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// openDirs returns which directories this process has open.
func openDirs(t *testing.T) (dirs []string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		path, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if info, statErr := os.Stat(path); err == nil && statErr == nil && info.IsDir() {
			dirs = append(dirs, path)
		}
	}
	return dirs
}

// A name is durable once its directory is synced: the data directory's own in the one above it, and those of the log and
// of the count of runs in the data directory, the log's each time that it is written anew.
func TestNamesAreSynced(t *testing.T) {
	above := t.TempDir()
	dir := filepath.Join(above, "data")
	synced := map[string]int{}
	last := ""
	s, _, err := Open(dir, Options{Size: testSize, SyncHook: func() {
		last = ""
		for _, d := range openDirs(t) {
			if d == dir || d == above {
				synced[d], last = synced[d]+1, d
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if synced[dir] < 2 || synced[above] != 1 {
		t.Errorf("a new directory: synced %v", synced)
	}
	before := synced[dir]
	write(t, s, cluster.Persist{N: 1, Entries: entries(1, 3, 1), Sync: true})
	if synced[dir] != before {
		t.Error("a write within the log syncs names")
	}
	write(t, s, cluster.Persist{N: 2, Entries: []cluster.LogEntry{{Index: 4, Term: 1, Data: make([]byte, testSize)}}, Sync: true})
	if synced[dir] != before+1 || last != dir {
		t.Errorf("the log was written anew: its directory was synced %d times, the last that was synced is %q", synced[dir]-before, last)
	}
}

// The exchange of the log's name with the spare's is done, and nobody knows whether the disk has that. Until another
// one certainly is there, what it may have as the log keeps its content.
func TestUncertainExchange(t *testing.T) {
	dir := t.TempDir()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	armed := false
	restore := func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	s, _, err := Open(dir, Options{Size: testSize, SyncHook: func() {
		if armed { // the file is open; the directory can't be, after the exchange
			none := limit
			none.Cur = 3
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
				t.Error(err)
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	defer restore()
	write(t, s, cluster.Persist{N: 1, Entries: entries(1, 3, 1), Sync: true})
	held, err := os.Open(filepath.Join(dir, logName)) // what a crash may bring back
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	before := make([]byte, testSize)
	if _, err := held.ReadAt(before, 0); err != nil {
		t.Fatal(err)
	}
	large := cluster.Persist{N: 2, Entries: []cluster.LogEntry{{Index: 4, Term: 1, Data: make([]byte, testSize)}}, Sync: true}
	armed = true
	err = s.Write(large)
	armed = false
	restore()
	if err == nil {
		t.Fatal("the directory could not be synced, and the write has succeeded")
	}
	if now, err := os.Stat(filepath.Join(dir, tempName)); err != nil {
		t.Fatal("the names were not exchanged", err)
	} else if was, _ := held.Stat(); !os.SameFile(was, now) {
		t.Fatal("the former log is not the spare")
	}
	write(t, s, large)
	after := make([]byte, testSize)
	if _, err := held.ReadAt(after, 0); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the former log was written over before another was certain: %v", err)
	}
	if _, err := readLog("the former log", after); err != nil {
		t.Error(err)
	}
}

// A write has failed and nobody has tried it again when the agent ends: what it was is in memory, and so in the log that
// is written as the store closes.
func TestFailedWriteBeforeTheEnd(t *testing.T) {
	dir := t.TempDir()
	fails := error(nil)
	s, _, err := Open(dir, Options{Size: testSize, WriteHook: func() error { return fails }})
	if err != nil {
		t.Fatal(err)
	}
	write(t, s, cluster.Persist{N: 1, Entries: entries(1, 2, 1)})
	fails = unix.EIO
	if err := s.Write(cluster.Persist{N: 2, Entries: entries(3, 4, 1), Sync: true}); err == nil {
		t.Fatal("a write that failed has succeeded")
	}
	fails = nil
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, image := open(t, dir)
	if len(image.Entries) != 4 {
		t.Errorf("%d entries are there, not 4", len(image.Entries))
	}
}

// That there is no spare is told once, and that there is one again once, each time anew.
func TestSpareIsTold(t *testing.T) {
	var told []bool
	fails := error(nil)
	s, _, err := Open(t.TempDir(), Options{Size: testSize, WriteHook: func() error { return fails }, Told: func(_ string, err error) { told = append(told, err == nil) }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		s.spare, fails = false, unix.ENOSPC
		for range 3 {
			s.reserve()
			if !s.spareAt.IsZero() {
				s.spareAt = s.spareAt.Add(-2 * spareAgain)
			}
		}
		fails = nil
		s.reserve()
		s.spare = false // it has become the log
		s.reserve()
		s.reserve()
	}
	if want := []bool{false, true, false, true}; !slices.Equal(told, want) {
		t.Errorf("told %v, not %v", told, want)
	}
}
