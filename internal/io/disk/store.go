// Package disk keeps what a node must never forget: the replicated log, its snapshot, Raft's hard state,
// the founding record and the notes. It is one append-only file, preallocated and filled with zeros, so
// that a write is one pwrite and one fdatasync that has no metadata to follow.
//
// Measured (ext4 on a virtual disk, entries of 300 bytes, 3,000 writes): this file 106 us at the median, bbolt,
// which syncs twice per transaction, 343 us; the same file without preallocation 150 us. A sync stands twice on
// the path of a takeover; therefore not bbolt. Now and then the file is full: it is then written anew from
// memory, which takes 4.4 ms for 4 MiB. Measure again with `go test -bench . ./internal/io/disk`. The file that it is
// written into is there already (a spare of the same size, with which it changes names), so that a full disk keeps
// nobody from writing.
//
// The whole content is also in memory: a node's log is short, since the core takes snapshots. So a log that was
// deleted or altered, or that the disk failed to write, is made anew while the agent runs.
package disk

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/io/bounded"
)

const (
	logName   = "log"
	tempName  = "log.new" // the spare file that the log is written anew into; what it holds is of no value
	runsName  = "runs"    // how many agents have begun on this directory
	runsWidth = 20        // digits of that number, so that the next one takes no more room
	lockName  = "lock"

	minSize    = 4 << 20  // bytes
	maxLog     = 1 << 30  // bytes: a larger file is none of ours
	blockSize  = 4096     // bytes: the log's size is a multiple
	zeroChunk  = 1 << 20  // bytes written at once to fill a new log
	readChunk  = 64 << 10 // bytes read at once: some kernels let nobody else run on the core during a read
	syncProbes = 9
)

var (
	// ErrCorrupt says that the disk lost or changed what it had confirmed before.
	ErrCorrupt = errors.New("data directory is corrupt")
	// ErrInUse says that another process holds the directory.
	ErrInUse = errors.New("data directory is in use")
	// ErrNoRoom says that the disk, or a quota, has no room for a write.
	ErrNoRoom = errors.New("no room on the disk")
	// ErrClosed is what Write returns after Close.
	ErrClosed = errors.New("store is closed")
)

// Options are for tests; the zero value is what an agent uses.
type Options struct {
	// SyncHook is called before every fsync and fdatasync, those of Open included; a slow or hung disk is
	// a hook that sleeps or blocks.
	SyncHook func()
	// WriteHook is called before every write to the log, to a new one, and before its rename; an error stands for
	// the kernel's. nil: nothing fails.
	WriteHook func() error
	// Size is the least size of the log file in bytes; 0 means 4 MiB.
	Size int64
	// Told is called, by the goroutine that writes, when the log had to be made anew, with the reason, and when the
	// spare is there or could not be made. nil: nobody is told.
	Told func(text string, err error)
}

// Report tells what Open found beside the content.
type Report struct {
	Torn   bool  // the last write before a crash was incomplete, and was dropped
	Offset int64 // of the dropped bytes in the log file
	Bytes  int64 // how many there were
}

// Store is an open data directory. Its methods are called from one goroutine.
type Store struct {
	runs     uint64
	dir      string
	opts     Options
	lock     *os.File
	file     *os.File
	image    cluster.DiskImage // what the file says, with every write so far
	tail     tail
	size     int64     // of the file; records never go beyond it
	written  time.Time // when the file was last written to, by its own clock
	buf      []byte
	syncTime time.Duration
	report   Report
	waits    bool // the image has a write that has failed: it is tried again
	lost     bool // nobody knows what the file holds: it is written anew
	unsure   bool // of two names that were exchanged, nobody knows whether the disk has that: the spare may be the log
	spare    bool // is there
	spareAt  time.Time
	err      error // what makes no sense was asked for, or the store is closed; it is dead from then on
}

// Open opens the data directory, which it makes with a new incarnation if there is none, and returns what
// it holds. It locks the directory: ErrInUse names who has it. ErrCorrupt means that this node's disk lied;
// nothing of it may be used. The image's slices belong to the caller, their bytes are shared and must not
// be changed.
func Open(dir string, opts Options) (*Store, cluster.DiskImage, error) {
	if opts.Size == 0 {
		opts.Size = minSize
	}
	s := &Store{dir: dir, opts: opts}
	if err := s.open(); err != nil {
		s.release()
		return nil, cluster.DiskImage{}, fmt.Errorf("open data directory %s: %w", dir, err)
	}
	image := s.image
	image.Entries = slices.Clone(image.Entries)
	return s, image, nil
}

func (s *Store) open() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path(logName), os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = s.found()
	case err == nil:
		s.file = f
		err = s.load()
	}
	if err != nil {
		return err
	}
	if s.runs, err = s.countRun(); err != nil {
		return fmt.Errorf("count the agents begun on this directory: %w", err)
	}
	if err := s.measureSync(); err != nil {
		return fmt.Errorf("measure how long a sync takes: %w", err)
	}
	s.mark()
	s.reserve()
	return nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Store) takeLock() error {
	f, err := os.OpenFile(s.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	s.lock = f
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		holder, _ := bounded.ReadFile(f.Name(), bounded.Small)
		return fmt.Errorf("%w: another agent (process %s) uses it", ErrInUse, strings.TrimSpace(string(holder)))
	}
	// The process id is for the message above only: a full disk must not keep an agent from starting.
	_ = f.Truncate(0)
	_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return nil
}

// found makes the directory's first log with a new incarnation.
func (s *Store) found() error {
	var random [8]byte
	for s.image.Incarnation == 0 {
		if _, err := rand.Read(random[:]); err != nil {
			return fmt.Errorf("make an incarnation: %w", err)
		}
		s.image.Incarnation = cluster.Incarnation(binary.LittleEndian.Uint64(random[:]) >> 1) // Raft keeps the highest ids for itself
	}
	if err := s.rewrite(); err != nil {
		return err
	}
	// The directory's own name must outlive a crash as well.
	return s.syncDir(filepath.Dir(filepath.Clean(s.dir)))
}

// Runs returns how many agents have begun on this directory, the present one included.
func (s *Store) Runs() uint64 { return s.runs }

// countRun counts one more agent begun on this directory, and makes that durable before it is used: the
// ids of runs must grow. The number is written over the former one, since a full disk has room for that.
func (s *Store) countRun() (uint64, error) {
	f, err := os.OpenFile(s.path(runsName), os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return 1, s.beginCount(1)
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, runsWidth+1)
	k, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b[:k])), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%w: %s holds %q, not a number: remove the data directory, so that this node joins anew", ErrCorrupt, f.Name(), b[:k])
	}
	n++
	if _, err := f.WriteAt(fmt.Appendf(nil, "%0*d\n", runsWidth, n), 0); err != nil {
		return 0, err
	}
	return n, s.sync(f)
}

// beginCount makes the file that counts runs, in one piece.
func (s *Store) beginCount(n uint64) error {
	f, err := os.OpenFile(s.path(runsName+".new"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%0*d\n", runsWidth, n)
	if err == nil {
		err = s.sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.path(runsName)); err != nil {
		return err
	}
	return s.syncDir(s.dir)
}

func (s *Store) load() error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() > maxLog {
		return corrupt(s.file.Name(), 0, fmt.Sprintf("%d bytes, a log has at most %d", info.Size(), maxLog))
	}
	b := make([]byte, info.Size())
	for at := 0; at < len(b); at += readChunk {
		if _, err := s.file.ReadAt(b[at:min(at+readChunk, len(b))], int64(at)); err != nil {
			return err
		}
	}
	r, err := readLog(s.file.Name(), b)
	if err != nil {
		return err
	}
	s.image, s.tail, s.size, s.report = r.image, r.tail, info.Size(), r.report
	if s.report.Torn {
		// A fresh file: what was cut off can never be mistaken for what will be written over it.
		return s.rewrite()
	}
	// What was read counts as durable from here on, but after a failed sync of a former agent it may stand
	// in the page cache alone, and clean: a sync would not write it. So it is written again, in its place.
	if _, err := s.file.WriteAt(b[:s.tail.at], 0); err != nil {
		return err
	}
	if err := s.sync(s.file); err != nil {
		return err
	}
	s.tail.durable = s.tail.seq
	return nil
}

// measureSync takes the median of several real syncs of the log's last block, into which it writes the
// zeros that are there. It needs no room on the disk unless the log is as good as full.
func (s *Store) measureSync() error {
	if s.tail.at > s.size-blockSize {
		if err := s.rewrite(); err != nil {
			return err
		}
	}
	var took [syncProbes]time.Duration
	for i := range took {
		start := time.Now()
		if _, err := s.file.WriteAt(make([]byte, blockSize), s.size-blockSize); err != nil {
			return err
		}
		if err := s.sync(s.file); err != nil {
			return err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took[:])
	s.syncTime = took[syncProbes/2]
	return nil
}

// SyncTime returns how long one write with a sync takes here: the median of several made by Open.
func (s *Store) SyncTime() time.Duration { return s.syncTime }

// Report returns what Open found beside the content.
func (s *Store) Report() Report { return s.report }

// Write carries out one write. If p.Sync, it and all before it are durable when Write returns. After an error the
// caller tries the same write again, and no other before that has succeeded, unless the store is Dead. After a failed
// write or sync nobody knows what the file holds (the kernel drops the pages and the error), so the log is written
// anew, from memory, into another file. The bytes that p refers to must not be changed afterwards.
func (s *Store) Write(p cluster.Persist) error {
	if s.err != nil {
		return s.err
	}
	if !s.waits {
		if s.err = s.take(p); s.err != nil {
			return s.err
		}
	}
	err := s.write(p)
	s.mark()
	if err == nil {
		s.waits = false
		s.reserve()
		return nil
	}
	s.waits = true
	s.lost = s.lost || !errors.Is(err, ErrNoRoom)
	return fmt.Errorf("write %d to %s: %w", p.N, s.path(logName), err)
}

// Dead tells whether the store takes no write any more: one made no sense, or it is closed.
func (s *Store) Dead() bool { return s.err != nil }

// take makes the change in the image.
func (s *Store) take(p cluster.Persist) error {
	if err := apply(&s.image, p); err != nil {
		return fmt.Errorf("write %d to %s: %w", p.N, s.path(logName), err)
	}
	return nil
}

func (s *Store) write(p cluster.Persist) error {
	if why := s.misplaced(); why != nil {
		told := !s.lost
		if err := s.place(); err != nil {
			return fmt.Errorf("%w: %w", why, err)
		}
		if told {
			s.tell("the log was made anew from memory", why)
		}
		return nil
	}
	if s.lost {
		if err := s.rewrite(); err != nil {
			return err
		}
		s.tell("the log was written into another file, since a write or sync of the former one failed", nil)
		return nil
	}
	if p.Founding == nil && p.Hard == nil && p.Snapshot == nil && p.Entries == nil && p.Notes == nil {
		return s.settle(p.Sync)
	}
	t := s.tail
	s.buf = t.append(s.buf[:0], func(b []byte) []byte { return appendChange(append(b, kindChange), p) })
	if len(s.buf) > maxLog {
		return fmt.Errorf("%d bytes, the limit is %d", len(s.buf), maxLog)
	}
	end := s.tail.at + int64(len(s.buf))
	if end > s.size || (p.Snapshot != nil && end > s.size/2) {
		err := s.rewrite()
		if !errors.Is(err, ErrNoRoom) || end > s.size {
			return err
		}
		// There is no room for a new file, and this one has some left.
		t = s.tail
		s.buf = t.append(s.buf[:0], func(b []byte) []byte { return appendChange(append(b, kindChange), p) })
	}
	// Beyond the tail nothing counts: a write that was cut short there is written over, by the same bytes.
	if err := s.writeAt(s.file, s.buf, s.tail.at); err != nil {
		return err
	}
	t.at = end
	s.tail = t
	return s.settle(p.Sync)
}

// settle makes what was written durable, if it is wanted and there is anything.
func (s *Store) settle(wanted bool) error {
	if !wanted || s.tail.durable == s.tail.seq {
		return nil
	}
	if err := s.sync(s.file); err != nil {
		return err
	}
	s.tail.durable = s.tail.seq
	return nil
}

// writeAt writes to a file. Where there is no room for it the error is ErrNoRoom: the kernel says so before it has
// taken what it could not place.
func (s *Store) writeAt(f *os.File, b []byte, at int64) error {
	err := s.mayWrite()
	if err == nil {
		_, err = f.WriteAt(b, at)
	}
	return noRoom(err)
}

func (s *Store) mayWrite() error {
	if s.opts.WriteHook == nil {
		return nil
	}
	return s.opts.WriteHook()
}

// noRoom marks an error that means only that there is no room.
func noRoom(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return err
}

// sync makes a file's content durable. After an error the same file is never synced again: the kernel may have dropped
// the pages, and a second sync would say that all is well.
func (s *Store) sync(f *os.File) error {
	if s.opts.SyncHook != nil {
		s.opts.SyncHook()
	}
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("fdatasync: %w", err)
		}
		return nil
	}
}

func (s *Store) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if s.opts.SyncHook != nil {
		s.opts.SyncHook()
	}
	return d.Sync()
}

// rewrite replaces the file by one that begins with the whole image and has room for as much again. It is
// durable on return. A crash leaves the old file or the new one.
func (s *Store) rewrite() error {
	salt := make([]byte, 4)
	if _, err := rand.Read(salt); err != nil {
		return err
	}
	t := tail{crc: binary.LittleEndian.Uint32(salt)}
	var size int64
	s.buf = t.append(s.buf[:0], func(b []byte) []byte {
		b = append(b, kindBase, formatVersion)
		at := len(b)
		b = binary.LittleEndian.AppendUint64(b, 0)
		b = binary.LittleEndian.AppendUint64(b, uint64(s.image.Incarnation))
		b = appendChange(b, whole(s.image))
		size = max(s.opts.Size, 2*int64(len(b))+blockSize)
		size = (size + blockSize - 1) / blockSize * blockSize
		binary.LittleEndian.PutUint64(b[at:], uint64(size))
		return b
	})
	if size > maxLog {
		return fmt.Errorf("the log needs a file of %d bytes, the limit is %d", size, maxLog)
	}
	f, err := s.makeFile(s.buf, size)
	if err != nil {
		return err
	}
	if s.file != nil {
		s.file.Close() // only read, or replaced: nothing in it matters any more
	}
	t.at = int64(len(s.buf))
	t.durable = t.seq
	s.file, s.tail, s.size, s.lost = f, t, size, false
	if cap(s.buf) > zeroChunk {
		s.buf = nil
	}
	return nil
}

// makeFile puts a durable file of the given size, which begins with head, in the log's place: the spare, where there is
// one. What had the place is the next spare. After ErrNoRoom the log is as it was.
func (s *Store) makeFile(head []byte, size int64) (*os.File, error) {
	if s.unsure {
		// The spare may be what the disk has as the log: its content must stay until a new exchange is durable.
		if err := os.Remove(s.path(tempName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		s.unsure = false
	}
	s.spare = false
	f, err := os.OpenFile(s.path(tempName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, noRoom(err)
	}
	kept := int64(0)
	err = func() error {
		if info, err := f.Stat(); err != nil {
			return err
		} else if kept = info.Size(); kept > size {
			if err := f.Truncate(size); err != nil {
				return err
			}
		}
		if err := s.writeAt(f, head, 0); err != nil {
			return err
		}
		zeros := make([]byte, zeroChunk)
		for at := int64(len(head)); at < size; {
			n := min(zeroChunk, size-at)
			if err := s.writeAt(f, zeros[:n], at); err != nil {
				return err
			}
			at += n
		}
		if err := s.sync(f); err != nil {
			return err
		}
		err := s.mayWrite()
		if err == nil {
			s.spare, err = s.exchange()
		}
		if err != nil {
			return noRoom(err)
		}
		if err := s.syncDir(s.dir); err != nil {
			s.unsure, s.lost = true, true
			return err
		}
		return nil
	}()
	if err != nil {
		f.Close()
		if errors.Is(err, ErrNoRoom) && kept < size {
			_ = os.Remove(f.Name()) // what room it has taken others may need; it was none that would do
		}
		return nil, fmt.Errorf("write the log anew (%d bytes): %w", size, err)
	}
	return f, nil
}

// exchange gives the spare the log's name, and what had it the spare's, if there is such a file and the file system
// can.
func (s *Store) exchange() (spare bool, err error) {
	from, to := s.path(tempName), s.path(logName)
	err = unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return false, os.Rename(from, to)
	}
	return false, &os.LinkError{Op: "exchange", Old: from, New: to, Err: err}
}

// SetAside moves what a data directory holds of a log into a directory within it, named after the time, and returns
// that one's path: the next Open finds an empty one. No store may have the directory open.
func SetAside(dir string, now time.Time) (string, error) {
	aside := filepath.Join(dir, "former-"+now.UTC().Format("20060102-150405.000"))
	if err := os.Mkdir(aside, 0o700); err != nil {
		return "", err
	}
	// The log comes last: cut short, this is done again.
	for _, name := range []string{runsName, logName} {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(aside, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	return aside, errors.Join(d.Sync(), d.Close())
}

// Close makes everything written durable and lets go of the directory. Called again it does nothing.
func (s *Store) Close() error {
	if s.file == nil {
		return nil
	}
	var err error
	if s.err == nil {
		if err = s.settle(true); s.lost {
			err = s.rewrite()
		}
		s.err = ErrClosed
	}
	return errors.Join(err, s.release())
}

func (s *Store) release() error {
	var err error
	if s.file != nil {
		err = s.file.Close()
		s.file = nil
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
		s.lock = nil
	}
	return err
}
