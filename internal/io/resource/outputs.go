package resource

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// Limits of what is kept of programs' output in memory, per resource.
const (
	outputLines = 1000
	outputBytes = 256 << 10
	outputPass  = 64 << 10 // bytes that are read at a time; of more only the end
	// outputPause lets what a chatty program writes add up, so that it is read in pieces.
	outputPause = 20 * time.Millisecond
)

// OutputLineLimit is the longest line of a program's output that is kept, in bytes; a longer one is cut.
const OutputLineLimit = 8 << 10

// OutputLine is one line of a resource's output.
type OutputLine struct {
	Time time.Time // when it was seen; zero: before this run of the agent
	Text string    // valid UTF-8
}

// Outputs keeps the newest output of the resources on this node that goes to files, since there is no
// journald. Its methods may be called from any goroutine.
type Outputs struct {
	told    func(cluster.GroupID, cluster.ResourceID, string)
	inotify *os.File
	done    sync.WaitGroup

	mu      sync.Mutex // guards what follows
	kept    map[string]*output
	changed chan struct{} // closed when something has come
}

// output is what is kept of one resource's output. The lines are numbered from 0 on.
type output struct {
	group    cluster.GroupID
	resource cluster.ResourceID
	path     string
	limit    int64
	offset   int64
	partial  []byte
	watch    int32
	lines    []OutputLine
	first    uint64 // number of lines[0]
	bytes    int
}

// NewOutputs returns an Outputs that watches nothing yet. Told is called for each new line, from one goroutine.
func NewOutputs(told func(cluster.GroupID, cluster.ResourceID, string)) (*Outputs, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the output of programs: inotify: %w", err)
	}
	o := &Outputs{told: told, inotify: os.NewFile(uintptr(fd), "inotify"), kept: make(map[string]*output), changed: make(chan struct{})}
	o.done.Go(o.watch)
	return o, nil
}

// Close ends the watch.
func (o *Outputs) Close() {
	o.inotify.Close()
	o.done.Wait()
}

func outputKey(g cluster.GroupID, r cluster.ResourceID) string { return string(g) + "/" + string(r) }

// Watch begins to keep a resource's output; what its file holds already is kept without a time.
func (o *Outputs) Watch(env Env) error {
	raw, err := o.inotify.SyscallConn()
	if err != nil {
		return err
	}
	x := &output{group: env.Group, resource: env.Spec.ID, path: Output(env), limit: cmp.Or(env.OutputLimit, OutputLimit)}
	dir := filepath.Dir(x.path)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("watch the output of programs: %w", err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		wd, err := unix.InotifyAddWatch(int(fd), dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR)
		x.watch, failed = int32(wd), err
	}); err != nil || failed != nil {
		return fmt.Errorf("watch %s: %w", dir, errors.Join(err, failed))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept[outputKey(env.Group, env.Spec.ID)] = x
	x.read(time.Time{})
	x.cut() // nothing tells of a program that finds no room any more
	return nil
}

// Limit sets the size above which every output is cut, in bytes.
func (o *Outputs) Limit(size int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, x := range o.kept {
		x.limit = size
	}
}

// Forget ends the watch over a resource's output.
func (o *Outputs) Forget(g cluster.GroupID, r cluster.ResourceID) {
	o.mu.Lock()
	x := o.kept[outputKey(g, r)]
	delete(o.kept, outputKey(g, r))
	o.mu.Unlock()
	if x == nil {
		return
	}
	if raw, err := o.inotify.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(x.watch)) }) // it may be gone with its directory
	}
}

// Has tells whether a resource's output goes to a file.
func (o *Outputs) Has(g cluster.GroupID, r cluster.ResourceID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.kept[outputKey(g, r)]
	if x == nil {
		return false
	}
	_, err := os.Stat(x.path)
	return err == nil
}

// Next returns a resource's lines from a number on, and the number of the line that comes next. Lines that
// are no longer kept are left out.
func (o *Outputs) Next(g cluster.GroupID, r cluster.ResourceID, from uint64) ([]OutputLine, uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.kept[outputKey(g, r)]
	if x == nil {
		return nil, from
	}
	end := x.first + uint64(len(x.lines))
	if from >= end {
		return nil, end
	}
	return slices.Clone(x.lines[max(from, x.first)-x.first:]), end
}

// Changed returns a channel that is closed when some resource has printed more.
func (o *Outputs) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

// watch reads what programs write, until Close.
func (o *Outputs) watch() {
	buffer := make([]byte, 16<<10)
	for {
		n, err := o.inotify.Read(buffer)
		if err != nil {
			return
		}
		flood := false
		for _, wd := range watched(buffer[:n]) {
			flood = o.more(wd) || flood
		}
		if !flood { // else it is cut again before it fills what others print into, too
			time.Sleep(outputPause)
		}
	}
}

// watched returns the watches that events are of, each once.
func watched(events []byte) (out []int32) {
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		name := int(binary.NativeEndian.Uint32(events[12:]))
		if !slices.Contains(out, wd) {
			out = append(out, wd)
		}
		events = events[min(len(events), unix.SizeofInotifyEvent+name):]
	}
	return out
}

// more reads the outputs of a watch on, and cuts those that are too long; -1 stands for all of them, since events were
// lost. It tells whether one was cut.
func (o *Outputs) more(wd int32) (flood bool) {
	type told struct {
		group    cluster.GroupID
		resource cluster.ResourceID
		text     string
	}
	var news []told
	o.mu.Lock()
	for _, x := range o.kept {
		if x.watch != wd && wd != -1 {
			continue
		}
		for _, l := range x.read(time.Now()) {
			news = append(news, told{x.group, x.resource, l.Text})
		}
		if x.cut() {
			flood = true
		}
	}
	if len(news) > 0 {
		close(o.changed)
		o.changed = make(chan struct{})
	}
	o.mu.Unlock()
	for _, n := range news {
		o.told(n.group, n.resource, n.text)
	}
	return flood
}

// cut keeps the file short.
func (x *output) cut() bool {
	done, err := cut(x.path, x.limit, x.limit/outputShare)
	if done && err == nil {
		x.offset, x.partial = 0, nil
	}
	return done
}

// read takes what the file holds beyond what is known, and returns the new lines.
func (x *output) read(now time.Time) []OutputLine {
	f, err := os.Open(x.path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			x.offset, x.partial = 0, nil
		}
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	size := info.Size()
	if size < x.offset {
		x.offset, x.partial = 0, nil // it was cut
	}
	if size-x.offset > outputPass {
		x.offset, x.partial = size-outputPass, []byte("… ")
	}
	text := make([]byte, size-x.offset)
	n, err := f.ReadAt(text, x.offset)
	if err != nil && err != io.EOF {
		return nil
	}
	x.offset += int64(n)
	before := x.first + uint64(len(x.lines))
	for rest := append(x.partial, text[:n]...); ; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		if !whole && len(line) < OutputLineLimit {
			x.partial = slices.Clone(line)
			break
		}
		x.add(OutputLine{now, strings.ToValidUTF8(string(line[:min(len(line), OutputLineLimit)]), "\uFFFD")})
		rest = after
		if !whole {
			rest = line[OutputLineLimit:]
		}
	}
	return x.lines[max(before, x.first)-x.first:]
}

func (x *output) add(l OutputLine) {
	x.lines = append(x.lines, l)
	x.bytes += len(l.Text)
	drop := 0
	for len(x.lines)-drop > outputLines || x.bytes > outputBytes {
		x.bytes -= len(x.lines[drop].Text)
		drop++
	}
	x.lines = slices.Delete(x.lines, 0, drop)
	x.first += uint64(drop)
}

// HasJournal tells whether output goes to journald on this machine.
func HasJournal() bool {
	_, err := os.Stat(journalStdout)
	return err == nil
}
