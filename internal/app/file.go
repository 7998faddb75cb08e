package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/io/bounded"
)

const (
	// keptMax is how many former revisions stay beside the data.
	keptMax = 50
	// fileMode is that of a cluster file which is written anew: it holds no secrets.
	fileMode = 0o644
	// madeFrom is the name of the note on which revision this node's file was made from.
	madeFrom = "made-from"
)

// fileKeeper keeps this node's own cluster file as the cluster's present revision, and the former ones
// beside the data. A file that somebody edited is left alone: it is not used, and told of.
//
// All disk work is done by run or by those who ask, never by the loop.
type fileKeeper struct {
	node cluster.NodeID
	path string // of this node's own file
	dir  string // of the former revisions
	log  *slog.Logger
	news chan struct{} // there is a newer revision than the one written

	mu       sync.Mutex
	revision cluster.Revision // that the cluster goes by; 0: not known yet
	text     []byte
	trouble  string // why the last write failed
	seen     fileLook
}

// fileLook is what a look at the file found, kept until the file or the revision changes.
type fileLook struct {
	revision cluster.Revision
	size     int64
	changed  time.Time
	drift    *cluster.Drift
	valid    bool
}

// newFileKeeper returns a keeper of the file at path. It does nothing before a revision was adopted.
func newFileKeeper(node cluster.NodeID, path, dataDir string, log *slog.Logger) *fileKeeper {
	if whole, err := filepath.Abs(path); err == nil {
		path = whole
	}
	return &fileKeeper{node: node, path: path, dir: filepath.Join(dataDir, "config"), log: log, news: make(chan struct{}, 1)}
}

// adopted tells of the revision that the cluster goes by now. It never waits: run does the work.
func (k *fileKeeper) adopted(revision cluster.Revision, text []byte) {
	k.mu.Lock()
	k.revision, k.text = revision, text
	k.mu.Unlock()
	select {
	case k.news <- struct{}{}:
	default: // run looks anyway, and takes the newest
	}
}

// noteRevision tells the keeper if the cluster's revision has changed. It is called in the loop.
func (a *agent) noteRevision() {
	r := a.node.Configuration().Current()
	if r == nil {
		return
	}
	if known, _ := a.file.newest(); known != r.Revision {
		a.file.adopted(r.Revision, r.Text)
	}
}

// run brings the file up to date after each change, until the context ends. What fails is tried again.
func (k *fileKeeper) run(ctx context.Context) {
	var failing complaint
	for again := false; ; {
		var retry <-chan time.Time
		if again {
			retry = time.After(keepEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-k.news:
		case <-retry:
		}
		err := k.update()
		again = err != nil
		k.mu.Lock()
		k.trouble, k.seen.valid = "", false
		if err != nil {
			k.trouble = err.Error()
		}
		k.mu.Unlock()
		if err != nil {
			failing.failed(k.log, "this node's cluster file is not kept up to date", "file", k.path, "cause", err)
			continue
		}
		failing.worked(k.log, "this node's cluster file is kept up to date again", "file", k.path)
		if d := k.drift(); d != nil {
			k.log.Warn(d.Text(), "hint", d.Hint())
		}
	}
}

// newest returns what the cluster goes by.
func (k *fileKeeper) newest() (cluster.Revision, []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.revision, k.text
}

// update keeps the newest revision beside the data, and writes it over the file unless somebody edited that.
func (k *fileKeeper) update() error {
	revision, text := k.newest()
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	if err := replaceFile(k.kept(revision), text, 0o600); err != nil {
		return fmt.Errorf("keep revision %d: %w", revision, err)
	}
	have, err := bounded.ReadFile(k.path, bounded.ClusterFile)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil && bytes.Equal(have, text):
	case err == nil && !k.known(have):
		return k.forgetOldest()
	default:
		if err := rewriteFile(k.path, text, fileMode); err != nil {
			return err
		}
		k.log.Info("this node's cluster file is brought up to date", "file", k.path, "revision", revision)
	}
	return errors.Join(k.note(revision), k.forgetOldest())
}

// note keeps which revision the file was made from, for the day when somebody edits it.
func (k *fileKeeper) note(revision cluster.Revision) error {
	return replaceFile(filepath.Join(k.dir, madeFrom), fmt.Appendf(nil, "%d\n", revision), 0o600)
}

// base returns the revision that the file was made from; 0: not known.
func (k *fileKeeper) base() cluster.Revision {
	text, err := bounded.ReadFile(filepath.Join(k.dir, madeFrom), bounded.Small)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return cluster.Revision(n)
}

func (k *fileKeeper) kept(revision cluster.Revision) string {
	return filepath.Join(k.dir, fmt.Sprintf("%d.yaml", revision))
}

// revisions lists the revisions that are kept, ascending.
func (k *fileKeeper) revisions() []cluster.Revision {
	names, _ := filepath.Glob(filepath.Join(k.dir, "*.yaml")) // the pattern is good
	var out []cluster.Revision
	for _, name := range names {
		if n, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), ".yaml"), 10, 64); err == nil {
			out = append(out, cluster.Revision(n))
		}
	}
	slices.Sort(out)
	return out
}

// newestKept returns the file of the newest revision that is kept; empty: none is.
func (k *fileKeeper) newestKept() string {
	all := k.revisions()
	if len(all) == 0 {
		return ""
	}
	return k.kept(all[len(all)-1])
}

// known tells whether a text is one of the cluster's revisions, so that it is nobody's edit.
func (k *fileKeeper) known(text []byte) bool {
	return slices.ContainsFunc(k.revisions(), func(r cluster.Revision) bool {
		kept, err := bounded.ReadFile(k.kept(r), bounded.ClusterFile)
		return err == nil && bytes.Equal(kept, text)
	})
}

func (k *fileKeeper) forgetOldest() (err error) {
	all := k.revisions()
	for _, r := range all[:max(0, len(all)-keptMax)] {
		err = errors.Join(err, os.Remove(k.kept(r)))
	}
	return err
}

// drift tells how the file differs from what the cluster goes by; nil: it does not, or nothing is known yet.
func (k *fileKeeper) drift() *cluster.Drift {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.revision == 0 {
		return nil
	}
	d := &cluster.Drift{Node: k.node, File: k.path, Revision: k.revision}
	info, err := os.Stat(k.path)
	if err != nil {
		d.Trouble = plainCause(err)
		return d
	}
	look := fileLook{revision: k.revision, size: info.Size(), changed: info.ModTime(), valid: true}
	if s := k.seen; s.valid && s.revision == look.revision && s.size == look.size && s.changed.Equal(look.changed) {
		return s.drift
	}
	have, err := bounded.ReadFile(k.path, bounded.ClusterFile)
	switch {
	case err != nil:
		d.Trouble = plainCause(err)
		return d
	case bytes.Equal(have, k.text):
		d = nil
	default:
		d.Lines, d.Trouble, d.Again = linesApart(string(k.text), string(have)), k.trouble, k.trouble != ""
	}
	look.drift = d
	k.seen = look
	return d
}

// plainCause strips an error of what the sentence around it says already.
func plainCause(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// restore writes the present revision over the file, and keeps a copy of what stood there. It returns the
// copy's name; empty: none was needed.
func (k *fileKeeper) restore(now time.Time) (revision cluster.Revision, kept string, err error) {
	revision, text := k.newest()
	if revision == 0 {
		return 0, "", errors.New("the cluster has no configuration of its own yet")
	}
	have, err := bounded.ReadFile(k.path, bounded.ClusterFile)
	switch {
	case err == nil && bytes.Equal(have, text):
		return revision, "", k.note(revision)
	case err == nil:
		kept = k.path + ".edited-" + now.Format("20060102-150405")
		if err := replaceFile(kept, have, fileMode); err != nil {
			return revision, "", fmt.Errorf("keep a copy: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return revision, "", err
	}
	if err := rewriteFile(k.path, text, fileMode); err != nil {
		return revision, kept, err
	}
	k.mu.Lock()
	k.trouble, k.seen.valid = "", false
	k.mu.Unlock()
	return revision, kept, errors.Join(os.MkdirAll(k.dir, 0o700), k.note(revision))
}

// rewriteFile replaces a file's text at one instant; its owner and mode stay, if it is there.
func rewriteFile(path string, text []byte, mode fs.FileMode) error {
	info, err := os.Stat(path)
	if err != nil {
		return replaceFile(path, text, mode)
	}
	if err := replaceFile(path, text, info.Mode().Perm()); err != nil {
		return err
	}
	if uid, gid, ok := ownerOf(info); ok {
		_ = os.Chown(path, uid, gid) // only root may
	}
	return nil
}

func ownerOf(info fs.FileInfo) (uid, gid int, ok bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(s.Uid), int(s.Gid), true
}
