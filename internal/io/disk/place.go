package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/io/bounded"
)

// spareAgain is how long it takes until a spare for which there was no room is tried again.
const spareAgain = 5 * time.Second

// tell tells who wants to know.
func (s *Store) tell(text string, err error) {
	if s.opts.Told != nil {
		s.opts.Told(text, err)
	}
}

// reserve makes the spare, if it is not there: as much room as the log has. Without it the log can be written until it
// is full.
func (s *Store) reserve() {
	if s.spare || s.file == nil || time.Since(s.spareAt) < spareAgain {
		return
	}
	err := s.makeSpare()
	switch {
	case err != nil && s.spareAt.IsZero():
		s.tell("there is no spare for the log: once it is full, a full disk would keep this node from writing", err)
	case err == nil && !s.spareAt.IsZero():
		s.tell("there is a spare for the log again", nil)
	}
	if s.spare = err == nil; s.spare {
		s.spareAt = time.Time{}
		return
	}
	s.spareAt = time.Now()
}

func (s *Store) makeSpare() error {
	if err := s.mayWrite(); err != nil {
		return noRoom(err)
	}
	f, err := os.OpenFile(s.path(tempName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() >= s.size && allocated(info) {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, s.size)
	if err == nil || errors.Is(err, unix.EOPNOTSUPP) { // it is only where the file system knows how
		return nil
	}
	if info.Size() == 0 {
		_ = os.Remove(f.Name())
	}
	return noRoom(err)
}

// allocated tells whether a file has all its blocks.
func allocated(info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return !ok || s.Blocks*512 >= info.Size()
}

var (
	// errGone says that the log, or its directory, was deleted or replaced.
	errGone = errors.New("its file was deleted or replaced")
	// errAltered says that somebody else has written to the log, or cut it.
	errAltered = errors.New("its file was altered by something else than this agent")
)

// misplaced tells why what this store has open is not what stands in the directory, or does not hold what was written;
// nil: it does. What is written to a file without a name is lost with the agent.
func (s *Store) misplaced() error {
	for name, f := range map[string]*os.File{logName: s.file, lockName: s.lock} {
		if !s.named(name, f) {
			return errGone
		}
	}
	info, err := s.file.Stat()
	if err != nil || info.Size() == s.size && (s.lost || info.ModTime().Equal(s.written) || s.intact()) {
		return nil // what can't be looked at the write itself will tell
	}
	return errAltered
}

// intact tells whether the log holds what was written to it. It reads all of it, so it is asked only where the time of
// the last write is not that of this store's own: a time alone can be set without a write.
func (s *Store) intact() bool {
	b, err := bounded.ReadAll(io.NewSectionReader(s.file, 0, s.size), maxLog)
	if err != nil {
		return false
	}
	c, err := readLog(s.file.Name(), b)
	return err == nil && c.tail.at == s.tail.at && c.tail.crc == s.tail.crc && (s.waits || !c.report.Torn)
}

// mark notes when the log was last written to, by this store: what is written later, by the tick of the file system's
// clock (some ms), is somebody else's.
func (s *Store) mark() {
	if s.file == nil {
		return
	}
	if info, err := s.file.Stat(); err == nil {
		s.written = info.ModTime()
	}
}

// named tells whether a name in the directory is that of an open file. What can't be looked at counts as well: the
// write itself will tell.
func (s *Store) named(name string, f *os.File) bool {
	mine, err := f.Stat()
	if err != nil {
		return true
	}
	there, err := os.Stat(s.path(name))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR)
	}
	return os.SameFile(mine, there)
}

// place makes the directory and all that is in it anew, from memory. What somebody has put in its place is replaced if
// it is a copy of this very directory; if it is of another node or life, or another agent has it, it is left alone.
func (s *Store) place() error {
	_, before := os.Stat(s.dir)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("make the data directory anew: %w", err)
	}
	if err := s.mayReplace(); err != nil {
		return err
	}
	if !s.named(lockName, s.lock) {
		former := s.lock
		if err := s.takeLock(); err != nil {
			if s.lock != former {
				s.lock.Close()
			}
			s.lock = former
			return err
		}
		former.Close()
	}
	if n, err := bounded.ReadFile(s.path(runsName), bounded.Small); err != nil || len(n) > runsWidth+1 || strings.TrimSpace(string(n)) != fmt.Sprintf("%0*d", runsWidth, s.runs) {
		if err := s.beginCount(s.runs); err != nil {
			return fmt.Errorf("count the agents begun on this directory: %w", noRoom(err))
		}
	}
	if err := s.rewrite(); err != nil {
		return err
	}
	s.spare = false // what had the name may have been cut
	if before != nil {
		return s.syncDir(filepath.Dir(filepath.Clean(s.dir)))
	}
	return nil
}

// mayReplace tells whether the log that stands in the directory now, if there is one, is of this incarnation.
func (s *Store) mayReplace() error {
	f, err := os.Open(s.path(logName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := bounded.ReadAll(f, maxLog)
	if err != nil {
		return err
	}
	other, err := readLog(f.Name(), b)
	if err == nil && other.image.Incarnation != s.image.Incarnation {
		return fmt.Errorf("another data directory was put in the place of this one, that of incarnation %x: stop the agent to use it, or move it away", other.image.Incarnation)
	}
	return nil // a broken one is none
}
