package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"baton/internal/core/cluster"
)

const testSize = 16 << 10

func open(t testing.TB, dir string) (*Store, cluster.DiskImage) {
	t.Helper()
	s, image, err := Open(dir, Options{Size: testSize})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, image
}

func write(t testing.TB, s *Store, p cluster.Persist) {
	t.Helper()
	if err := s.Write(p); err != nil {
		t.Fatal(err)
	}
}

func entries(first, last, term uint64) []cluster.LogEntry {
	var l []cluster.LogEntry
	for i := first; i <= last; i++ {
		l = append(l, cluster.LogEntry{Index: i, Term: term, Type: int32(i % 3), Data: fmt.Appendf(nil, "entry %d of term %d", i, term)})
	}
	return l
}

// clone copies the image's structure, with nil and empty made equal, to compare it later.
func clone(image cluster.DiskImage) cluster.DiskImage {
	if len(image.Founding) == 0 {
		image.Founding = nil
	}
	image.Entries = slices.Clone(image.Entries)
	if len(image.Entries) == 0 {
		image.Entries = nil
	}
	for i := range image.Entries {
		image.Entries[i].Data = append([]byte{}, image.Entries[i].Data...)
	}
	if image.Snapshot != nil {
		snapshot := *image.Snapshot
		snapshot.Data = append([]byte{}, snapshot.Data...)
		image.Snapshot = &snapshot
	}
	return image
}

func equal(a, b cluster.DiskImage) bool { return reflect.DeepEqual(clone(a), clone(b)) }

func TestWritesAreReadBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "data")
	s, first := open(t, dir)
	if first.Incarnation == 0 || first.Founding != nil || first.Snapshot != nil || len(first.Entries) != 0 {
		t.Fatalf("a new directory holds %+v", first)
	}
	if s.SyncTime() <= 0 {
		t.Errorf("a sync took %v", s.SyncTime())
	}
	write(t, s, cluster.Persist{Founding: []byte("founding"), Sync: true})
	write(t, s, cluster.Persist{Hard: &cluster.HardState{Term: 1, Vote: 2, Commit: 0}, Entries: entries(1, 9, 1), Sync: true})
	write(t, s, cluster.Persist{Entries: entries(6, 7, 2), Sync: true}) // replaces 6 to 9
	write(t, s, cluster.Persist{Hard: &cluster.HardState{Term: 2, Vote: 3, Commit: 5}})
	write(t, s, cluster.Persist{Notes: &cluster.Notes{LongestPromise: time.Second}})
	want := cluster.DiskImage{
		Incarnation: first.Incarnation, Founding: []byte("founding"), Hard: cluster.HardState{Term: 2, Vote: 3, Commit: 5},
		Entries: append(entries(1, 5, 1), entries(6, 7, 2)...), Notes: cluster.Notes{LongestPromise: time.Second},
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		var got cluster.DiskImage
		if s, got = open(t, dir); !equal(got, want) {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
		if s.Report() != (Report{}) {
			t.Errorf("report %+v", s.Report())
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(cluster.Persist{Hard: &cluster.HardState{}}); !errors.Is(err, ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
}

func TestSnapshotReplacesItsPartOfTheLog(t *testing.T) {
	s, _ := open(t, t.TempDir())
	snapshot := func(index, term uint64) cluster.Persist {
		return cluster.Persist{Snapshot: &cluster.Snapshot{Index: index, Term: term, Data: []byte("state")}, Sync: true}
	}
	check := func(what string, want []cluster.LogEntry) {
		t.Helper()
		if got := s.image.Entries; len(got) != len(want) || (len(want) > 0 && !reflect.DeepEqual(got, want)) {
			t.Errorf("%s: the log holds %+v, want %+v", what, got, want)
		}
	}
	write(t, s, cluster.Persist{Entries: entries(1, 9, 1), Sync: true})
	write(t, s, snapshot(4, 1))
	check("own snapshot", entries(5, 9, 1))
	write(t, s, snapshot(4, 1))
	check("the same again", entries(5, 9, 1))
	write(t, s, snapshot(6, 2))
	check("snapshot of another history", nil)
	p := snapshot(20, 2)
	p.Entries = entries(21, 22, 3)
	write(t, s, p)
	check("snapshot beyond the log, with entries after it", entries(21, 22, 3))
}

func TestWritesThatMakeNoSenseKillTheStore(t *testing.T) {
	for name, p := range map[string]cluster.Persist{
		"gap":                    {Entries: entries(11, 12, 1)},
		"below the snapshot":     {Entries: entries(3, 12, 1)},
		"gap within":             {Entries: append(entries(9, 9, 1), entries(11, 11, 1)...)},
		"older snapshot":         {Snapshot: &cluster.Snapshot{Index: 2, Term: 1}},
		"other founding":         {Founding: []byte("other")},
		"gap after the snapshot": {Snapshot: &cluster.Snapshot{Index: 20, Term: 1}, Entries: entries(22, 22, 1)},
	} {
		dir := t.TempDir()
		s, _ := open(t, dir)
		write(t, s, cluster.Persist{Founding: []byte("founding"), Entries: entries(1, 9, 1), Sync: true})
		write(t, s, cluster.Persist{Snapshot: &cluster.Snapshot{Index: 3, Term: 1}, Sync: true})
		write(t, s, cluster.Persist{Founding: []byte("founding"), Sync: true})
		before := clone(s.image)
		err := s.Write(p)
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
		if err2 := s.Write(cluster.Persist{Hard: &cluster.HardState{Term: 5}}); err2 == nil || err2.Error() != err.Error() {
			t.Errorf("%s: the next write: %v", name, err2)
		}
		s.Close()
		if _, got := open(t, dir); !equal(got, before) {
			t.Errorf("%s: got %+v, want %+v", name, got, before)
		}
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	_, _, err := Open(dir, Options{})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("second open: %v", err)
	}
	s.Close()
	open(t, dir)
}

// The log is written anew when it is full, and when a snapshot makes most of it worthless.
func TestLogIsWrittenAnew(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	inode := func() uint64 {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, logName), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	anew, last := 0, inode()
	for i := uint64(1); i <= 3000; i++ {
		write(t, s, cluster.Persist{Entries: entries(i, i, 1), Hard: &cluster.HardState{Commit: i}})
		if i%100 == 0 {
			write(t, s, cluster.Persist{Snapshot: &cluster.Snapshot{Index: i - 10, Term: 1, Data: make([]byte, 1000)}, Sync: true})
		}
		if now := inode(); now != last {
			anew, last = anew+1, now
		}
	}
	if anew < 10 || s.size > 2*testSize {
		t.Errorf("written anew %d times, the file has %d bytes", anew, s.size)
	}
	write(t, s, cluster.Persist{Snapshot: &cluster.Snapshot{Index: 3000, Term: 1, Data: make([]byte, 100_000)}, Sync: true})
	if s.size < 200_000 {
		t.Errorf("%d bytes for a content of 100,000", s.size)
	}
	want := clone(s.image)
	s.Close()
	if _, got := open(t, dir); !equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// What the spare holds is of no value, whatever it is.
func TestSpareIsNeverRead(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	write(t, s, cluster.Persist{Entries: entries(1, 3, 1), Sync: true})
	s.Close()
	temp := filepath.Join(dir, tempName)
	for _, spare := range [][]byte{[]byte("half a log"), bytes.Repeat([]byte("x"), 3*testSize), nil} {
		if err := os.WriteFile(temp, spare, 0o600); err != nil {
			t.Fatal(err)
		}
		s, image := open(t, dir)
		next := image.Entries[len(image.Entries)-1].Index + 1
		for range 200 {
			write(t, s, cluster.Persist{Entries: entries(next, next, 1), Sync: true})
			next++
		}
		want := clone(s.image)
		s.Close()
		s, got := open(t, dir)
		if !equal(got, want) {
			t.Errorf("got %+v", got)
		}
		s.Close()
	}
}

// A write fails: the log is written into another file, from memory, by the next try, and nothing is lost.
func TestFailedWriteIsWrittenAnew(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	write(t, s, cluster.Persist{Entries: entries(1, 3, 1), Sync: true})
	good := s.file
	broken, err := os.Open(filepath.Join(dir, logName)) // read only: a write fails with EBADF
	if err != nil {
		t.Fatal(err)
	}
	s.file = broken
	p := cluster.Persist{Entries: entries(4, 4, 1), Sync: true}
	if s.Write(p) == nil {
		t.Fatal("the write succeeded")
	}
	if s.Dead() {
		t.Fatal("the store takes nothing any more")
	}
	write(t, s, p)
	good.Close()
	write(t, s, cluster.Persist{Entries: entries(5, 5, 1), Sync: true})
	want := clone(s.image)
	s.Close()
	if _, got := open(t, dir); !equal(got, want) || len(got.Entries) != 5 {
		t.Errorf("got %+v", got)
	}
}

// The directory is deleted, emptied, or replaced by a copy of itself, below a running store: the next write makes it
// anew, with all that was written.
func TestDeletedDirectoryIsMadeAnew(t *testing.T) {
	for name, harm := range map[string]func(dir string) error{
		"deleted":      os.RemoveAll,
		"log deleted":  func(dir string) error { return os.Remove(filepath.Join(dir, logName)) },
		"lock deleted": func(dir string) error { return os.Remove(filepath.Join(dir, lockName)) },
		"replaced": func(dir string) error {
			return errors.Join(os.CopyFS(dir+".copy", os.DirFS(dir)), os.RemoveAll(dir), os.Rename(dir+".copy", dir))
		},
		"replaced by a file": func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600), os.Remove(dir))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			told := 0
			s, _, err := Open(dir, Options{Size: testSize, Told: func(string, error) { told++ }})
			if err != nil {
				t.Fatal(err)
			}
			write(t, s, cluster.Persist{Entries: entries(1, 3, 1), Sync: true})
			if err := harm(dir); err != nil {
				t.Fatal(err)
			}
			hard := cluster.HardState{Term: 3}
			write(t, s, cluster.Persist{Hard: &hard, Sync: true}) // as an idle node tries its disk
			if told != 1 {
				t.Errorf("told of %d times", told)
			}
			if _, _, err := Open(dir, Options{}); !errors.Is(err, ErrInUse) {
				t.Errorf("another agent on the same directory: %v", err)
			}
			want, runs := clone(s.image), s.Runs()
			s.Close()
			s, got := open(t, dir)
			if !equal(got, want) || len(got.Entries) != 3 || s.Runs() != runs+1 {
				t.Errorf("run %d after %d, got %+v", s.Runs(), runs, got)
			}
		})
	}
}

// The log is written to in its place by somebody else, below a running store: the next write puts it right, whole.
func TestAlteredLogIsMadeAnew(t *testing.T) {
	for name, harm := range map[string]func(log string, old []byte) error{
		"emptied":        func(log string, _ []byte) error { return os.Truncate(log, 0) },
		"cut":            func(log string, _ []byte) error { return os.Truncate(log, testSize-1) },
		"longer":         func(log string, _ []byte) error { return os.Truncate(log, testSize+1) },
		"an older state": func(log string, old []byte) error { return os.WriteFile(log, old, 0) }, // as cp does
		"zeros":          func(log string, old []byte) error { return os.WriteFile(log, make([]byte, len(old)), 0) },
		"one byte":       func(log string, old []byte) error { return overwrite(log, []byte{old[40] ^ 1}, 40) },
		"touched":        func(log string, _ []byte) error { return os.Chtimes(log, time.Time{}, time.Now().Add(time.Hour)) },
		"the same again": func(log string, _ []byte) error {
			now, err := os.ReadFile(log)
			return errors.Join(err, os.WriteFile(log, now, 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			log := filepath.Join(dir, logName)
			told := 0
			s, _, err := Open(dir, Options{Size: testSize, Told: func(string, error) { told++ }})
			if err != nil {
				t.Fatal(err)
			}
			write(t, s, cluster.Persist{Entries: entries(1, 3, 1), Sync: true})
			old, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			write(t, s, cluster.Persist{Entries: entries(4, 5, 1), Sync: true})
			time.Sleep(20 * time.Millisecond) // the file system's clock goes by ticks
			if err := harm(log, old); err != nil {
				t.Fatal(err)
			}
			for term := range uint64(3) {
				write(t, s, cluster.Persist{Hard: &cluster.HardState{Term: 3 + term}, Sync: true})
			}
			want := 1
			if name == "touched" || name == "the same again" {
				want = 0
			}
			if told != want {
				t.Errorf("told of %d times, want %d", told, want)
			}
			if info, err := os.Stat(filepath.Join(dir, tempName)); err != nil || info.Size() < testSize || !allocated(info) && name != "longer" {
				t.Errorf("the spare: %v", err)
			}
			after := clone(s.image)
			s.file.Close() // killed
			s.lock.Close()
			if _, got := open(t, dir); !equal(got, after) || len(got.Entries) != 5 || got.Hard.Term != 5 {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// overwrite writes bytes into a file, in its place.
func overwrite(name string, b []byte, at int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, at)
	return errors.Join(err, f.Close())
}

// Another node's directory in the place of this one is left alone, and no write counts meanwhile.
func TestOtherDirectoryInItsPlace(t *testing.T) {
	root := t.TempDir()
	dir, other := filepath.Join(root, "data"), filepath.Join(root, "other")
	s, _ := open(t, dir)
	x, _ := open(t, other)
	write(t, x, cluster.Persist{Entries: entries(1, 2, 1), Sync: true})
	theirs := clone(x.image)
	x.Close()
	if err := errors.Join(os.Rename(dir, dir+".away"), os.Rename(other, dir)); err != nil {
		t.Fatal(err)
	}
	p := cluster.Persist{Entries: entries(1, 3, 1), Sync: true}
	if err := s.Write(p); err == nil || !strings.Contains(err.Error(), "another data directory") {
		t.Fatalf("the write: %v", err)
	}
	if err := errors.Join(os.Rename(dir, other), os.Rename(dir+".away", dir)); err != nil {
		t.Fatal(err)
	}
	write(t, s, p)
	s.Close()
	if _, got := open(t, dir); len(got.Entries) != 3 {
		t.Errorf("got %+v", got)
	}
	if _, got := open(t, other); !equal(got, theirs) {
		t.Errorf("the other one holds %+v", got)
	}
}

// A full disk: the file is preallocated, and so is the one that it is written anew into, so that writes go on as long as
// the log as such does not grow; then the store says so, and goes on once there is room again. What was confirmed stays,
// whenever it ends.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	s, _ := open(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	confirmed := uint64(0)
	next := func() error {
		err := s.Write(cluster.Persist{Entries: entries(confirmed+1, confirmed+1, 1), Sync: true})
		if err == nil {
			confirmed++
		}
		return err
	}
	var err error
	for err == nil && confirmed < 10_000 {
		err = next()
	}
	if !errors.Is(err, ErrNoRoom) || !errors.Is(err, unix.ENOSPC) || confirmed < 20 {
		t.Fatalf("%d writes, then %v", confirmed, err)
	}
	if err := next(); !errors.Is(err, ErrNoRoom) {
		t.Errorf("tried again on the full disk: %v", err)
	}
	os.Remove(filepath.Join(dir, "ballast"))
	for range 3 {
		if err := next(); err != nil {
			t.Fatalf("there is room again: %v", err)
		}
	}
	s.Close()
	if _, image := open(t, dir); uint64(len(image.Entries)) != confirmed {
		t.Errorf("%d entries after the restart, %d were confirmed", len(image.Entries), confirmed)
	}
}

// A full disk keeps nobody from writing as long as snapshots keep the log short: what it is written anew into is there.
func TestFullDiskForEver(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	s, _ := open(t, dir)
	for range 2 {
		if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		for i := s.image.Hard.Commit + 1; i < s.image.Hard.Commit+2000; i++ {
			p := cluster.Persist{Entries: entries(i, i, 1), Sync: true}
			if i%20 == 0 {
				p.Snapshot = &cluster.Snapshot{Index: i - 1, Term: 1, Data: make([]byte, 1000)}
			}
			write(t, s, p)
		}
		n := uint64(len(s.image.Entries))
		write(t, s, cluster.Persist{Hard: &cluster.HardState{Commit: s.image.Entries[n-1].Index}, Sync: true})
		s.Close()
		s, _ = open(t, dir) // an agent that starts on the full disk
	}
}

// Any one of the writes fails: nothing of it counts, whenever the power goes, and tried again all is there once.
func TestNoRoomAtAnyWrite(t *testing.T) {
	for _, fault := range []error{unix.ENOSPC, unix.EDQUOT, unix.EIO} {
		for at := 1; ; at++ {
			dir, calls := t.TempDir(), 0
			s, _, err := Open(dir, Options{Size: testSize})
			if err != nil {
				t.Fatal(err)
			}
			s.opts.WriteHook = func() error {
				if calls++; calls >= at && calls < at+3 {
					return fault
				}
				return nil
			}
			failed := 0
			for i := uint64(1); i <= 60 && failed < 20; i++ {
				p := cluster.Persist{Entries: entries(i, i, 1), Hard: &cluster.HardState{Commit: i}, Sync: true}
				if i%20 == 0 {
					p.Snapshot = &cluster.Snapshot{Index: i - 2, Term: 1, Data: make([]byte, 1000)}
				}
				before := clone(s.image)
				err := s.Write(p)
				for ; err != nil && !s.Dead(); err = s.Write(p) {
					failed++
					if other := copyOf(t, dir); !equal(other, before) {
						t.Fatalf("%v at write %d: power lost, got %+v", fault, at, other)
					}
				}
				if err != nil {
					t.Fatalf("%v at write %d: %v", fault, at, err)
				}
			}
			want := clone(s.image)
			if s.Close(); calls < at {
				break // it was never reached
			}
			if _, got := open(t, dir); !equal(got, want) {
				t.Errorf("%v at write %d: got %+v, want %+v", fault, at, got, want)
			}
		}
	}
}

// copyOf reads a directory as it would be found after a power loss now.
func copyOf(t *testing.T, dir string) cluster.DiskImage {
	t.Helper()
	other := t.TempDir()
	b, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, logName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, image := open(t, other)
	return image
}

func TestSyncHookAndSync(t *testing.T) {
	syncs := 0
	s, _, err := Open(t.TempDir(), Options{SyncHook: func() { syncs++ }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	count := func(p cluster.Persist) int {
		before := syncs
		write(t, s, p)
		return syncs - before
	}
	if n := count(cluster.Persist{Hard: &cluster.HardState{Commit: 1}}); n != 0 {
		t.Errorf("%d syncs for a write that may be lost", n)
	}
	if n := count(cluster.Persist{Sync: true}); n != 1 {
		t.Errorf("%d syncs for what was written before", n)
	}
	if n := count(cluster.Persist{Entries: entries(1, 1, 1), Sync: true}); n != 1 {
		t.Errorf("%d syncs for one write", n)
	}
	if n := count(cluster.Persist{Sync: true}); n != 0 {
		t.Errorf("%d syncs for nothing", n)
	}
}

// history is a log with the state after each of its records.
type history struct {
	b      []byte
	starts []int64 // where record i begins; the base is 0
	states []cluster.DiskImage
	end    int64
}

// record writes each change with a sync and notes where it went.
func makeHistory(t testing.TB, changes []cluster.Persist) history {
	dir := t.TempDir()
	s, image := open(t, dir)
	h := history{starts: []int64{0}, states: []cluster.DiskImage{clone(image)}}
	for _, p := range changes {
		h.starts = append(h.starts, s.tail.at)
		write(t, s, p)
		h.states = append(h.states, clone(s.image))
	}
	h.end = s.tail.at
	var err error
	if h.b, err = os.ReadFile(filepath.Join(dir, logName)); err != nil {
		t.Fatal(err)
	}
	return h
}

func someChanges() []cluster.Persist {
	return []cluster.Persist{
		{Founding: []byte("founding"), Sync: true},
		{Hard: &cluster.HardState{Term: 1, Vote: 77}, Entries: entries(1, 4, 1), Sync: true},
		{Entries: entries(3, 5, 2), Notes: &cluster.Notes{LongestPromise: time.Second}, Sync: true},
		{Snapshot: &cluster.Snapshot{Index: 3, Term: 2, Data: []byte("state")}, Sync: true},
		{Hard: &cluster.HardState{Term: 2, Vote: 78, Commit: 4}, Sync: true},
	}
}

// Power lost while the file was written: everything from some byte on is still zero.
func TestCutAtEveryByte(t *testing.T) {
	h := makeHistory(t, someChanges())
	for cut := h.end; cut >= 0; cut-- {
		b := slices.Clone(h.b)
		clear(b[cut:])
		c, err := readLog("log", b)
		whole := 0 // records that are wholly there; trailing zeros of a record may be
		for whole < len(h.states) && bytes.Equal(b[:recordEnd(h, whole)], h.b[:recordEnd(h, whole)]) {
			whole++
		}
		if whole == 0 {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("cut at %d, within the first record: %v", cut, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if !equal(c.image, h.states[whole-1]) {
			t.Fatalf("cut at %d: got %+v, want the state after record %d: %+v", cut, c.image, whole-1, h.states[whole-1])
		}
		if end := recordEnd(h, whole-1); c.report.Torn != (len(bytes.TrimRight(b[end:], "\x00")) > 0) {
			t.Fatalf("cut at %d: report %+v", cut, c.report)
		}
	}
}

func recordEnd(h history, i int) int64 {
	if i+1 < len(h.starts) {
		return h.starts[i+1]
	}
	return h.end
}

// A file that lost its end is not one that a crash leaves.
func TestTruncatedFileIsCorrupt(t *testing.T) {
	h := makeHistory(t, someChanges())
	for n := range len(h.b) {
		if n > int(h.end)+64 && n%97 != 0 {
			continue
		}
		if _, err := readLog("log", h.b[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("truncated to %d of %d bytes: %v", n, len(h.b), err)
		}
	}
}

func TestEveryFlippedByteIsFound(t *testing.T) {
	h := makeHistory(t, someChanges())
	last := h.starts[len(h.starts)-1]
	for i := range h.b {
		for _, flip := range []byte{1, 0x80, 0xff} {
			b := slices.Clone(h.b)
			b[i] ^= flip
			c, err := readLog("log", b)
			switch {
			case int64(i) < last:
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("byte %d (last record at %d): %v", i, last, err)
				}
			case err != nil:
				t.Fatalf("byte %d, in or after the last record: %v", i, err)
			case int64(i) < h.end:
				if !c.report.Torn || c.report.Offset != last || !equal(c.image, h.states[len(h.states)-2]) {
					t.Fatalf("byte %d, in the last record: %+v, report %+v", i, c.image, c.report)
				}
			default:
				if !c.report.Torn || !equal(c.image, h.states[len(h.states)-1]) {
					t.Fatalf("byte %d, after the end: %+v, report %+v", i, c.image, c.report)
				}
			}
		}
		if int64(i) > h.end+200 {
			break
		}
	}
}

func TestCorruptionSaysWhereAndWhatToDo(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	for _, p := range someChanges() {
		write(t, s, p)
	}
	at := s.tail.at - 100
	s.Close()
	name := filepath.Join(dir, logName)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("garbage"), at); err != nil {
		t.Fatal(err)
	}
	_, _, err = Open(dir, Options{})
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "nothing of it may be used") {
		t.Errorf("%v", err)
	}
	t.Log(err)
	if _, _, again := Open(dir, Options{}); again == nil || again.Error() != err.Error() {
		t.Errorf("the second time: %v", again)
	}
}

// A torn write is cut off for good: what is written after it is read back, the torn bytes never are.
func TestTornTailIsCutOff(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	write(t, s, cluster.Persist{Entries: entries(1, 3, 1), Sync: true})
	at := s.tail.at
	write(t, s, cluster.Persist{Entries: entries(4, 40, 1), Sync: true})
	end := s.tail.at
	s.Close()
	f, err := os.OpenFile(filepath.Join(dir, logName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 128), at+512); err != nil {
		t.Fatal(err)
	}
	s, image := open(t, dir)
	want := Report{Torn: true, Offset: at, Bytes: end - at}
	if r := s.Report(); r.Torn != want.Torn || r.Offset != at || r.Bytes > end-at || r.Bytes < end-at-8 {
		t.Errorf("report %+v, want %+v", r, want)
	}
	if len(image.Entries) != 3 {
		t.Errorf("%d entries", len(image.Entries))
	}
	write(t, s, cluster.Persist{Entries: entries(4, 5, 2), Sync: true})
	s.Close()
	s, image = open(t, dir)
	if !reflect.DeepEqual(image.Entries, append(entries(1, 3, 1), entries(4, 5, 2)...)) || s.Report().Torn {
		t.Errorf("got %+v, report %+v", image.Entries, s.Report())
	}
}

// Power lost at any moment: of what was written since the last sync, any sectors may be on the disk and
// any may not. What is read must be the state after some write, and no synced write may be missing.
func TestPowerLoss(t *testing.T) {
	root := t.TempDir()
	trial := 0
	rapid.Check(t, func(t *rapid.T) {
		trial++
		dir := filepath.Join(root, fmt.Sprint(trial))
		s, image, err := Open(dir, Options{Size: testSize})
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		defer s.Close()
		content := func() []byte {
			b, err := os.ReadFile(filepath.Join(dir, logName))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		durable, states := content(), []cluster.DiskImage{clone(image)}
		next := uint64(1)
		for range rapid.IntRange(0, 8).Draw(t, "writes") {
			n := rapid.Uint64Range(1, 12).Draw(t, "entries")
			p := cluster.Persist{
				Entries: entries(next, next+n-1, 1), Hard: &cluster.HardState{Commit: next}, Sync: rapid.Bool().Draw(t, "sync"),
			}
			next += n
			if err := s.Write(p); err != nil {
				t.Fatal(err)
			}
			if p.Sync {
				durable, states = content(), nil
			}
			states = append(states, clone(s.image))
		}
		b, written := slices.Clone(durable), content()
		for at := 0; at < len(b); at += 512 {
			sector := written[at:min(at+512, len(b))]
			if !bytes.Equal(b[at:at+len(sector)], sector) && rapid.Bool().Draw(t, "sector survives") {
				copy(b[at:], sector)
			}
		}
		c, err := readLog("log", b)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(states, func(state cluster.DiskImage) bool { return equal(state, c.image) }) {
			t.Fatalf("got %+v, which is the state after none of the last %d writes", c.image, len(states))
		}
	})
}

// FuzzRead puts any bytes anywhere into a log; the checksums keep a fuzzer out of the content, so that is
// tried by itself too.
func FuzzRead(f *testing.F) {
	h := makeHistory(f, someChanges())
	f.Add([]byte{0}, uint16(h.starts[1]))
	f.Add(h.b[h.starts[2]:h.starts[3]], uint16(h.starts[1]))
	f.Add(h.b[h.starts[1]:h.end], uint16(h.end))
	f.Add(h.b[h.starts[2]+headerSize+1:h.starts[3]], uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		if p, err := decodeChange(b); err == nil {
			again, err := decodeChange(appendChange(nil, p))
			if err != nil || !reflect.DeepEqual(p, again) {
				t.Fatalf("%+v was read again as %+v, %v", p, again, err)
			}
			var image cluster.DiskImage
			_ = apply(&image, p)
		}
		full := slices.Clone(h.b)
		copy(full[int(at)%len(full):], b)
		if c, err := readLog("log", full); err == nil && !slices.ContainsFunc(h.states, func(s cluster.DiskImage) bool { return equal(s, c.image) }) {
			t.Fatalf("a state that was never written: %+v", c.image)
		}
		if _, err := readLog("log", b); err == nil {
			t.Fatalf("%d bytes are a log", len(b))
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	s, _, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	data := make([]byte, 300)
	var took []time.Duration
	for i := uint64(1); b.Loop(); i++ {
		p := cluster.Persist{Entries: []cluster.LogEntry{{Index: i, Term: 1, Data: data}}, Sync: true}
		if i%1000 == 0 {
			p.Snapshot = &cluster.Snapshot{Index: i - 1, Term: 1, Data: data}
		}
		start := time.Now()
		if err := s.Write(p); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "median-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-us")
}

// What is set aside is kept, and the directory begins anew, with another incarnation and no runs.
func TestSetAside(t *testing.T) {
	dir := t.TempDir()
	s, before := open(t, dir)
	write(t, s, cluster.Persist{N: 1, Entries: entries(1, 3, 1), Sync: true})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	aside, err := SetAside(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s, after := open(t, dir)
	if after.Incarnation == before.Incarnation || len(after.Entries) > 0 || s.Runs() != 1 {
		t.Errorf("after it was set aside the directory holds incarnation %x (before: %x), %d entries, run %d", after.Incarnation, before.Incarnation, len(after.Entries), s.Runs())
	}
	if _, kept := open(t, aside); kept.Incarnation != before.Incarnation || len(kept.Entries) != 3 {
		t.Errorf("aside are incarnation %x (it was %x) and %d entries", kept.Incarnation, before.Incarnation, len(kept.Entries))
	}
}

// The count of runs is written over the former one, in as many bytes: a full disk keeps no agent from starting.
func TestCountOfRunsTakesNoRoom(t *testing.T) {
	dir := t.TempDir()
	size := int64(0)
	for run := uint64(1); run <= 12; run++ {
		s, _, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, runsName))
		if err != nil || s.Runs() != run || size != 0 && info.Size() != size {
			t.Fatalf("run %d: counted %d, the file has %d bytes and had %d, %v", run, s.Runs(), info.Size(), size, err)
		}
		size = info.Size()
		s.Close()
	}
	if err := os.WriteFile(filepath.Join(dir, runsName), []byte("7\n"), 0o600); err != nil { // of a former version
		t.Fatal(err)
	}
	s, _, err := Open(dir, Options{})
	if err != nil || s.Runs() != 8 {
		t.Fatalf("after 7 comes %d, %v", s.Runs(), err)
	}
	s.Close()
}
