package app

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

func newKeeper(t *testing.T) *fileKeeper {
	dir := t.TempDir()
	return newFileKeeper("beta", filepath.Join(dir, "etc", "cluster.yaml"), filepath.Join(dir, "data"), discard())
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func adopt(t *testing.T, k *fileKeeper, revision cluster.Revision, text string) {
	t.Helper()
	k.adopted(revision, []byte(text))
	if err := k.update(); err != nil {
		t.Fatal(err)
	}
}

// A file that nobody edited follows the revisions, with its mode; an edited one stays, and is told of.
func TestFileFollows(t *testing.T) {
	k := newKeeper(t)
	put(t, k.path, "one\n")
	if k.drift() != nil {
		t.Error("a drift before anything is known")
	}
	adopt(t, k, 1, "one\n")
	adopt(t, k, 2, "one\ntwo\n")
	if got := get(t, k.path); got != "one\ntwo\n" || k.drift() != nil || k.base() != 2 {
		t.Errorf("it holds %q, drift %v, made from %d", got, k.drift(), k.base())
	}
	if info, _ := os.Stat(k.path); info.Mode().Perm() != 0o640 {
		t.Errorf("its mode became %v", info.Mode())
	}
	put(t, k.path, "one\nTWO\nthree\n")
	d := k.drift()
	if d == nil || d.Text() != "beta: "+k.path+" differs from revision 2 in 2 lines" || d.Hint() != "baton apply "+k.path+", or baton config restore" {
		t.Fatalf("drift %+v", d)
	}
	adopt(t, k, 3, "three\n")
	if got := get(t, k.path); got != "one\nTWO\nthree\n" || k.drift().Revision != 3 || k.base() != 2 {
		t.Errorf("an edited file became %q; drift %v, made from %d", got, k.drift(), k.base())
	}
	for i, want := range []string{"one\n", "one\ntwo\n", "three\n"} {
		if got := get(t, k.kept(cluster.Revision(i+1))); got != want {
			t.Errorf("revision %d is kept as %q", i+1, got)
		}
	}
	revision, kept, err := k.restore(time.Now())
	if err != nil || revision != 3 || get(t, k.path) != "three\n" || get(t, kept) != "one\nTWO\nthree\n" || k.drift() != nil || k.base() != 3 {
		t.Errorf("restored %d, %q, %v; drift %v", revision, kept, err, k.drift())
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(k.path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A node that was away while revisions came, and an agent that was killed between its two writes, catch up.
func TestFileCatchesUp(t *testing.T) {
	k := newKeeper(t)
	put(t, k.path, "one\n")
	adopt(t, k, 1, "one\n")
	again := newFileKeeper(k.node, k.path, filepath.Dir(k.dir), discard())
	adopt(t, again, 5, "five\n")
	if got := get(t, k.path); got != "five\n" {
		t.Errorf("after four missed revisions it holds %q", got)
	}
	put(t, k.kept(6), "six\n") // and not yet over the file
	third := newFileKeeper(k.node, k.path, filepath.Dir(k.dir), discard())
	adopt(t, third, 6, "six\n")
	if got := get(t, k.path); got != "six\n" {
		t.Errorf("after a kill it holds %q", got)
	}
	// Where the file is gone it is written anew.
	if err := os.Remove(k.path); err != nil {
		t.Fatal(err)
	}
	if d := third.drift(); d == nil || !strings.Contains(d.Text(), "no such file") {
		t.Errorf("drift %v", d)
	}
	adopt(t, third, 7, "seven\n")
	if got := get(t, k.path); got != "seven\n" {
		t.Errorf("it holds %q", got)
	}
}

// A file behind a symbolic link is replaced there, and the link stays.
func TestFileBehindLink(t *testing.T) {
	k := newKeeper(t)
	real := filepath.Join(t.TempDir(), "real.yaml")
	put(t, real, "one\n")
	if err := os.MkdirAll(filepath.Dir(k.path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, k.path); err != nil {
		t.Fatal(err)
	}
	adopt(t, k, 1, "one\n")
	adopt(t, k, 2, "two\n")
	if info, err := os.Lstat(k.path); err != nil || info.Mode().Type() != os.ModeSymlink || get(t, real) != "two\n" {
		t.Errorf("%v, %v, %q", info, err, get(t, real))
	}
}

// A directory that can't be written is told of, and nothing else breaks.
func TestFileTrouble(t *testing.T) {
	k := newKeeper(t)
	put(t, filepath.Join(k.path, "in-the-way"), "") // the file's name is taken by a directory
	ctx, cancel := context.WithCancel(t.Context())
	var runner sync.WaitGroup
	runner.Go(func() { k.run(ctx) })
	k.adopted(4, []byte("four\n"))
	until(t, func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.trouble != ""
	})
	if d := k.drift(); d == nil || !strings.Contains(d.Text(), "is a directory") {
		t.Errorf("drift %v", d)
	}
	cancel()
	runner.Wait()
	if got := get(t, k.kept(4)); got != "four\n" {
		t.Errorf("revision 4 is kept as %q", got)
	}
}

// Old revisions go, the newest stay.
func TestFileKeepsSome(t *testing.T) {
	k := newKeeper(t)
	put(t, k.path, "0")
	for i := range cluster.Revision(keptMax + 7) {
		adopt(t, k, i+1, fmt.Sprint(i))
	}
	if all := k.revisions(); len(all) != keptMax || all[0] != 8 {
		t.Errorf("%d are kept, the oldest is %d", len(all), all[0])
	}
}

func TestLinesApart(t *testing.T) {
	for _, c := range []struct {
		before, after string
		want          uint64
	}{
		{"a\nb\nc\n", "a\nb\nc\n", 0},
		{"a\nb\nc\n", "a\nB\nc\n", 1},
		{"a\nb\nc\n", "a\nc\n", 1},
		{"a\nc\n", "a\nb1\nb2\nc\n", 2},
		{"a\nb\nc\nd\ne\n", "A\nb\nc\nD\ne\nf\n", 3},
		{"", "a\nb\n", 2},
		{"a\n", "", 1},
		{"a\n", "a", 1},
		{strings.Repeat("x\n", 5000) + "a\n", strings.Repeat("y\n", 5000) + "a\n", 5000},
	} {
		if got := linesApart(c.before, c.after); got != c.want {
			t.Errorf("%.20q to %.20q: %d lines, want %d", c.before, c.after, got, c.want)
		}
	}
}
