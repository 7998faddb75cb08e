// Package bounded reads what others wrote: files, streams, the output of commands. Each reader has a limit, so that
// nothing that is long by mistake or by malice is held in memory. docs/internals/bounds.md lists all limits.
package bounded

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
)

// Limits of what is read, in bytes.
const (
	// ClusterFile is the longest text of a configuration, edited, kept or received.
	ClusterFile = 2 << 20
	// KeyFile is the longest file of a cluster's key: two lines, and what people note beside them.
	KeyFile = 16 << 10
	// Small is the longest of the files that hold a value or a few lines: in /proc, /sys, of cgroups, of agents.
	Small = 64 << 10
	// Proc is the longest of the files in which the kernel lists something: processors, mounts.
	Proc = 8 << 20
	// Accounts is the longest passwd(5) or group(5).
	Accounts = 16 << 20
	// Answer is the longest answer of a program that is asked something: systemctl.
	Answer = 1 << 20
	// Report is how much of a program's output goes into a report: the end.
	Report = 4 << 20
	// Line is the longest line of the journal; longer ones are passed over.
	Line = 1 << 20
	// Typed is the longest line that somebody types.
	Typed = 4 << 10
)

// ErrLong says that there is more than the limit.
var ErrLong = errors.New("it is too long")

func long(what string, limit int) error {
	return &fs.PathError{Op: "read", Path: what, Err: fmt.Errorf("%w: of more than %d bytes nothing is read", ErrLong, limit)}
}

// ReadFile reads a file. One longer than limit bytes is an ErrLong; so is one without end, such as a device.
func ReadFile(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := ReadAll(f, limit)
	if errors.Is(err, ErrLong) {
		return nil, long(path, limit)
	}
	return text, err
}

// Head reads the first limit bytes of a file, or all of a shorter one.
func Head(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(limit)))
}

// ReadAll reads to the end. More than limit bytes are an ErrLong.
func ReadAll(r io.Reader, limit int) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(text) > limit {
		return nil, long("a stream", limit)
	}
	return text, nil
}

// Output runs a command and returns what it prints on its standard output. After more than limit bytes it is killed, and
// that is an ErrLong.
func Output(c *exec.Cmd, limit int) ([]byte, error) {
	head := &head{limit: limit, full: func() { _ = c.Process.Kill() }} // it may have ended
	c.Stdout = head
	err := c.Run()
	if head.more {
		return nil, long("what "+c.Path+" prints", limit)
	}
	return head.kept, err
}

// head keeps the first bytes that are written to it.
type head struct {
	limit int
	full  func()
	kept  []byte
	more  bool
}

// Write implements io.Writer.
func (h *head) Write(b []byte) (int, error) {
	take := min(len(b), h.limit-len(h.kept))
	h.kept = append(h.kept, b[:take]...)
	if take < len(b) && !h.more {
		h.more = true
		h.full()
	}
	return len(b), nil
}

// Tail keeps the last bytes that are written to it, Limit at most. One goroutine uses it at a time.
type Tail struct {
	Limit int // bytes
	kept  []byte
}

// Write implements io.Writer.
func (t *Tail) Write(b []byte) (int, error) {
	t.kept = append(t.kept, b[max(0, len(b)-t.Limit):]...)
	if len(t.kept) > t.Limit {
		n := copy(t.kept, t.kept[len(t.kept)-t.Limit:])
		t.kept = t.kept[:n]
	}
	return len(b), nil
}

// Bytes returns what is kept. It is valid until the next Write.
func (t *Tail) Bytes() []byte { return t.kept }

// ReadLine reads a line with its end, however the buffer of r is sized. One longer than limit bytes is read to its end
// and not kept: that is an ErrLong, and the next call reads the line after it.
func ReadLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	tooLong := false
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			line, tooLong = nil, true
		}
		if !tooLong {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case tooLong && (err == nil || err == io.EOF):
			return nil, long("a line", limit)
		case err != nil:
			return line, err
		}
		return line, nil
	}
}
