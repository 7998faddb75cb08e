package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/io/bounded"
	"baton/internal/io/resource"
)

// runDir is where the agent keeps what outlives it but not the boot.
type runDir struct {
	path   string
	record string     // the run record's file
	mu     sync.Mutex // held while the record or its spare is written; guards what follows
	last   []byte     // the newest record; nil: none was written yet
}

const (
	recordLeast = 16 << 10 // bytes that are kept free for the run record
	recordGroup = 512      // and for each group; with ten epochs and a long name it takes 300
)

const tmpfsMagic = 0x01021994 // TMPFS_MAGIC of linux/magic.h

// openRunDir makes the directory. It must be on tmpfs: what stands there must be gone after a reboot.
func openRunDir(path string) (*runDir, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("make the run directory: %w", err)
	}
	var fsys unix.Statfs_t
	if err := unix.Statfs(path, &fsys); err != nil {
		return nil, fmt.Errorf("look at the run directory %s: %w", path, err)
	}
	if fsys.Type != tmpfsMagic {
		return nil, fmt.Errorf("the run directory %s is not on tmpfs: what stands there must not outlive the boot; use a directory below /run", path)
	}
	return &runDir{path: path, record: filepath.Join(path, "record.json")}, nil
}

// reserve makes room for the run record of a cluster of so many groups: then it can be written though others fill the
// file system. A record that was deleted is made anew.
func (d *runDir) reserve(groups int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := os.Lstat(d.record); errors.Is(err, fs.ErrNotExist) && d.last != nil {
		if err := resource.WriteNote(d.record, d.last, 0o600, false); err != nil {
			return fmt.Errorf("write the run record anew: %w", err)
		}
	}
	if err := resource.ReserveNote(d.record, 0o600, recordLeast+groups*recordGroup); err != nil {
		return fmt.Errorf("make room for the run record: %w", err)
	}
	return nil
}

// resource names a resource's own directory.
func (d *runDir) resource(g cluster.GroupID, r cluster.ResourceID) string {
	return filepath.Join(d.path, "resources", string(g), string(r))
}

// places lists the resources that have a directory.
func (d *runDir) places() (all []place) {
	dirs, _ := filepath.Glob(d.resource("*", "*")) // the pattern is well formed
	for _, dir := range dirs {
		all = append(all, place{cluster.GroupID(filepath.Base(filepath.Dir(dir))), cluster.ResourceID(filepath.Base(dir))})
	}
	return all
}

// tidy removes the directories of groups that have no resource here any more.
func (d *runDir) tidy() {
	dirs, _ := filepath.Glob(filepath.Join(d.path, "resources", "*"))
	for _, dir := range dirs {
		_ = os.Remove(dir) // it fails where there is something in it
	}
}

// remove removes what the agent keeps there, the socket of one that is gone included, and the directory if
// nothing else is in it.
func (d *runDir) remove(socket string) error {
	var errs []error
	errs = append(errs, d.removeOutput(), os.RemoveAll(filepath.Join(d.path, "resources")), resource.RemoveNote(d.record))
	for _, path := range []string{socket, partingPath(socket)} {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	_ = os.Remove(d.path) // what is not the agent's stays
	return errors.Join(errs...)
}

// load returns the run record of this boot, or nil. One that can't be read counts as none.
func (d *runDir) load(boot cluster.BootID) (*cluster.Record, error) {
	b, err := resource.ReadNote(d.record)
	if err != nil {
		return nil, fmt.Errorf("read the run record: %w", err)
	}
	if b == nil {
		return nil, nil
	}
	r := new(cluster.Record)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read the run record: %w", err)
	}
	if r.Boot != boot {
		return nil, nil
	}
	return r, nil
}

// store replaces the run record at one instant. It needs no room, unless the record or its directory was deleted: they
// are made anew.
func (d *runDir) store(r *cluster.Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the run record: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = b
	if err := resource.WriteNote(d.record, b, 0o600, false); err != nil {
		return fmt.Errorf("write the run record: %w", err)
	}
	return nil
}

// bootID returns the identity of the kernel's present boot.
func bootID() (cluster.BootID, error) {
	b, err := bounded.ReadFile("/proc/sys/kernel/random/boot_id", bounded.Small)
	if err != nil {
		return 0, fmt.Errorf("read the boot id: %w", err)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(strings.TrimSpace(string(b))))
	return cluster.BootID(max(h.Sum64(), 1)), nil
}
