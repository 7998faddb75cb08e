package resource

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"baton/internal/io/bounded"
)

// Notes are the small files on tmpfs without which nothing may start, stop or be served: the run record, what runs,
// what is up. Whoever fills the file system that they share must not keep them from being written, so each has a
// spare beside it, of the same size: a note is written into the spare, in place, and the two change names at one
// instant. That takes no room. What was deleted is made anew by the next write; that does.

const (
	// notePage is what a note takes of tmpfs at least, in bytes.
	notePage = 4096
	// NoteLimit is the longest note that is read, in bytes. The run record of 500 groups takes a tenth of it.
	NoteLimit = 4 << 20
)

// spareOf names the file that a note's next content is written into.
func spareOf(path string) string { return path + ".new" }

// ReserveNote makes room for a note of so many bytes, rounded up to whole pages, and its directory. The note itself is
// left as it is; one that was never written reads as empty from then on.
func ReserveNote(path string, mode fs.FileMode, size int) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		// Made under the spare's name, so that a note is never seen without its page.
		if err := fill(spareOf(path), []byte("\n"), mode, size); err != nil {
			return err
		}
		if err := os.Rename(spareOf(path), path); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if info, err := os.Stat(spareOf(path)); err == nil && info.Size() >= int64(size) && info.Size() > 0 {
		return nil
	}
	return fill(spareOf(path), []byte("\n"), mode, size)
}

// WriteNote replaces a note at one instant. Its text is padded with spaces to whole pages, and to what is reserved,
// which no reader of JSON or of words minds; with exact it is not, and must fit a page.
func WriteNote(path string, text []byte, mode fs.FileMode, exact bool) error {
	if len(text) == 0 || exact && len(text) > notePage {
		return fmt.Errorf("write %s: %d bytes are no note", path, len(text))
	}
	err := writeNote(path, text, mode, exact)
	if errors.Is(err, fs.ErrNotExist) { // its directory is gone
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		err = writeNote(path, text, mode, exact)
	}
	return err
}

func writeNote(path string, text []byte, mode fs.FileMode, exact bool) error {
	size := 0
	if !exact {
		size = len(text)
	}
	if err := fill(spareOf(path), text, mode, size); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, spareOf(path), unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return &os.LinkError{Op: "exchange", Old: spareOf(path), New: path, Err: err}
	}
	// There is no note yet, or the file system can't exchange names.
	if err := os.Rename(spareOf(path), path); err != nil {
		return err
	}
	_ = fill(spareOf(path), []byte("\n"), mode, size) // without it the next write has to make room
	return nil
}

// fill writes a text over a file, in place, and cuts or pads it: to whole pages that hold size bytes, or what the file
// has already; with size 0 to the text, which keeps the one page that it had.
func fill(path string, text []byte, mode fs.FileMode, size int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm() != mode {
		if err := f.Chmod(mode); err != nil {
			return err
		}
	}
	if size == 0 {
		if _, err := f.WriteAt(text, 0); err != nil {
			return err
		}
		return f.Truncate(int64(len(text)))
	}
	whole := max((size+notePage-1)/notePage*notePage, int(min(info.Size(), NoteLimit))/notePage*notePage)
	padded := append(make([]byte, 0, whole), text...)
	padded = append(padded, bytes.Repeat([]byte(" "), whole-len(text))...)
	padded[whole-1] = '\n'
	if len(text) == whole {
		padded[whole-1] = text[whole-1]
	}
	if _, err := f.WriteAt(padded, 0); err != nil {
		return err
	}
	if info.Size() > int64(whole) {
		return f.Truncate(int64(whole))
	}
	return nil
}

// ReadNote returns a note, without what pads it; nil: there is none. One above NoteLimit is an error.
func ReadNote(path string) ([]byte, error) {
	text, err := bounded.ReadFile(path, NoteLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return nil, nil
	}
	return text, nil
}

// NoteKept tells whether a note and its spare are where they belong: the next write takes no room.
func NoteKept(path string) bool {
	_, err := os.Stat(path)
	spare, bad := os.Stat(spareOf(path))
	return err == nil && bad == nil && spare.Size() > 0
}

// RemoveNote removes a note and its spare.
func RemoveNote(path string) error {
	var errs []error
	for _, p := range []string{path, spareOf(path)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
