package app

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestFileAfterFullDisk: a file that could not be brought up to date is tried again by itself, and meanwhile no hint would
// have the former text applied over the newer revision.
func TestFileAfterFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t)
		put(t, k.path, "one\n")
		adopt(t, k, 1, "one\n")
		if err := os.Rename(k.dir, k.dir+".away"); err != nil {
			t.Fatal(err)
		}
		put(t, k.dir, "in the way")
		ctx, cancel := context.WithCancel(t.Context())
		var runner sync.WaitGroup
		runner.Go(func() { k.run(ctx) })
		k.adopted(2, []byte("one\ntwo\n"))
		time.Sleep(time.Minute)
		d := k.drift()
		if d == nil || d.Trouble == "" || strings.Contains(d.Hint(), "apply") || !strings.Contains(d.Hint(), "tried again by itself") {
			t.Errorf("drift %+v", d)
		}
		if err := os.Remove(k.dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(k.dir+".away", k.dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(keepEvery + time.Second)
		if got := get(t, k.path); got != "one\ntwo\n" || k.drift() != nil {
			t.Errorf("it holds %q, drift %v", got, k.drift())
		}
		cancel()
		runner.Wait()
	})
}

// TestMeasureFullDisk: what check says of a disk that is full is to make room, not to be root.
func TestMeasureFullDisk(t *testing.T) {
	for _, c := range []struct {
		err  error
		hint string
	}{
		{&os.PathError{Op: "write", Path: filepath.Join("x", "y"), Err: unix.ENOSPC}, "make room there"},
		{&os.PathError{Op: "open", Path: filepath.Join("x", "y"), Err: unix.EACCES}, "run as root, or name the data directory with --data"},
		{&os.PathError{Op: "write", Path: filepath.Join("x", "y"), Err: unix.EIO}, "look at that disk, or name the data directory with --data"},
	} {
		if got := syncHint(c.err); got != c.hint {
			t.Errorf("%v: %q, want %q", c.err, got, c.hint)
		}
	}
}
