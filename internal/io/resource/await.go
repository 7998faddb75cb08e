package resource

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/io/bounded"
)

// Awaited is what a resource may wait for, of which the kernel tells when it comes. Interfaces and addresses are not
// among it: the agent listens for them at all times.
type Awaited struct {
	Files []string       // that may appear or change, absolute; or be mounted
	Ports []cluster.Port // that another program may free
}

// Awaiter is a Kind that can name what its resources wait for.
type Awaiter interface {
	// Awaits names what a resource of the kind needs from this host. It changes nothing.
	Awaits(spec cluster.ResourceSpec) Awaited
}

// AwaitedBy names what a resource of a kind may wait for.
func AwaitedBy(k Kind, spec cluster.ResourceSpec) (a Awaited) {
	if x, ok := k.(Awaiter); ok {
		a = x.Awaits(spec)
	}
	return a
}

// Watch tells when something that is awaited may have come: by inotify(7) of files, by the kernel's list of mounts, and
// by sock_diag(7) of ports.
type Watch struct {
	came    func()
	notify  *os.File // inotify
	mounts  *os.File
	ended   [2]*os.File // a pipe; closing its second end ends the wait for mounts
	readers sync.WaitGroup
	files   atomic.Bool // some are awaited

	mu    sync.Mutex
	names map[int]map[string]bool // awaited in a directory, by its watch
	dirs  map[string]int          // watches
	ports []cluster.Port
	diag  *nl.NetlinkSocket // nil: no port is awaited
}

// NewWatch begins to watch, at first for nothing. It calls came, which must not block, from its own goroutines.
func NewWatch(came func()) (*Watch, error) {
	w := &Watch{came: came, names: make(map[int]map[string]bool), dirs: make(map[string]int)}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w.notify = os.NewFile(uintptr(fd), "inotify")
	w.readers.Go(w.readNotes)
	// Not by os.Open: the runtime would wait for the file as well, and of a change the kernel tells whoever looks first.
	if fd, err = unix.Open(mountList, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		w.mounts = os.NewFile(uintptr(fd), mountList)
		w.ended[0], w.ended[1], err = os.Pipe()
	}
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("watch the mounts: %w", err)
	}
	w.readers.Go(w.readMounts)
	return w, nil
}

// Close ends the watch.
func (w *Watch) Close() {
	w.Set(Awaited{})
	for _, f := range []*os.File{w.notify, w.ended[1]} {
		if f != nil {
			f.Close()
		}
	}
	w.readers.Wait()
	for _, f := range []*os.File{w.mounts, w.ended[0]} {
		if f != nil {
			f.Close()
		}
	}
}

// Set makes these what is awaited. It reports whether anything is awaited now that was not before: that may have come
// in between, so the caller looks again. The error says what can't be watched; the rest is.
func (w *Watch) Set(a Awaited) (more bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wanted := make(map[string]map[string]bool)
	for _, f := range a.Files {
		for _, s := range steps(f) {
			if wanted[s.dir] == nil {
				wanted[s.dir] = make(map[string]bool)
			}
			wanted[s.dir][s.name] = true
		}
	}
	w.files.Store(len(wanted) > 0)
	for _, dir := range slices.Collect(maps.Keys(w.dirs)) {
		if wanted[dir] == nil {
			_, _ = unix.InotifyRmWatch(int(w.notify.Fd()), uint32(w.dirs[dir])) // it may be gone
			w.drop(dir)
		}
	}
	for dir, names := range wanted {
		wd, had := w.dirs[dir]
		if !had {
			n, failed := unix.InotifyAddWatch(int(w.notify.Fd()), dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE|unix.IN_MOVED_FROM|
				unix.IN_ATTRIB|unix.IN_CLOSE_WRITE|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_ONLYDIR)
			if failed != nil {
				if !errors.Is(failed, unix.ENOENT) {
					err = errors.Join(err, fmt.Errorf("watch %s: %w", dir, failed))
				}
				continue
			}
			wd, w.dirs[dir] = n, n
		}
		for name := range names {
			more = more || !w.names[wd][name]
		}
		w.names[wd] = names
	}
	news, failed := w.awaitPorts(a.Ports)
	return more || news, errors.Join(err, failed)
}

func (w *Watch) drop(dir string) {
	delete(w.names, w.dirs[dir])
	delete(w.dirs, dir)
}

// step is one name on the way to a file.
type step struct{ dir, name string }

// steps lists the names that lead to a file, as far as they are there, those that symbolic links lead to included, and
// the first that is not.
func steps(file string) (out []step) {
	const linksMax = 40 // as many as the kernel follows
	dir, rest := "/", strings.Split(strings.Trim(filepath.Clean(file), "/"), "/")
	for links := 0; len(rest) > 0 && rest[0] != ""; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			dir = filepath.Dir(dir)
			continue
		}
		out = append(out, step{dir, name})
		at := filepath.Join(dir, name)
		info, err := os.Lstat(at)
		if err != nil {
			return out
		}
		if info.Mode()&os.ModeSymlink == 0 {
			dir = at
			continue
		}
		to, err := os.Readlink(at)
		if links++; err != nil || links > linksMax {
			return out
		}
		if filepath.IsAbs(to) {
			dir = "/"
		}
		rest = append(strings.Split(strings.Trim(to, "/"), "/"), rest...)
	}
	return out
}

// readNotes takes what inotify tells.
func (w *Watch) readNotes() {
	buffer := make([]byte, 16<<10)
	for {
		n, err := w.notify.Read(buffer)
		if err != nil {
			return // closed
		}
		if w.concern(buffer[:n]) {
			w.came()
		}
	}
}

// concern tells whether one of these events is about a name that is awaited.
func (w *Watch) concern(events []byte) (yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		// struct inotify_event of inotify(7)
		watch, mask := int(int32(binary.NativeEndian.Uint32(events))), binary.NativeEndian.Uint32(events[4:])
		end := min(unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(events[12:])), len(events))
		name := strings.TrimRight(string(events[unix.SizeofInotifyEvent:end]), "\x00")
		events = events[end:]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			yes = true
		case mask&(unix.IN_IGNORED|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF) != 0: // it is another directory's now, if any's
			for dir, wd := range w.dirs {
				if wd == watch {
					_, _ = unix.InotifyRmWatch(int(w.notify.Fd()), uint32(wd))
					w.drop(dir)
					yes = true
				}
			}
		case w.names[watch][name]:
			yes = true
		}
	}
	return yes
}

// mountList is the kernel's list of mounts.
const mountList = "/proc/self/mountinfo"

// mountsEvery is how often, in milliseconds, the list of mounts is compared while a file is awaited, should the kernel's
// word that it has changed be missing.
const mountsEvery = 1000

// readMounts waits for changes of the list of mounts (proc_pid_mountinfo(5)).
func (w *Watch) readMounts() {
	fds := []unix.PollFd{{Fd: int32(w.mounts.Fd()), Events: unix.POLLPRI}, {Fd: int32(w.ended[0].Fd()), Events: unix.POLLIN}}
	var known []byte
	for {
		_, err := unix.Poll(fds, mountsEvery)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || fds[1].Revents != 0:
			return
		case !w.files.Load():
			known = nil
		default:
			list, _ := bounded.ReadFile(w.mounts.Name(), bounded.Proc)
			if fds[0].Revents != 0 || known != nil && !bytes.Equal(known, list) {
				w.came()
			}
			known = list
		}
	}
}

// awaitPorts is Set for ports. It is called with mu held.
func (w *Watch) awaitPorts(ports []cluster.Port) (more bool, err error) {
	more = slices.ContainsFunc(ports, func(p cluster.Port) bool { return !slices.Contains(w.ports, p) })
	w.ports = slices.Clone(ports)
	switch {
	case len(ports) == 0 && w.diag != nil:
		w.diag.Close()
		w.diag = nil
	case len(ports) > 0 && w.diag == nil:
		if w.diag, err = nl.Subscribe(unix.NETLINK_SOCK_DIAG, destroyed...); err != nil {
			return more, fmt.Errorf("watch for ports that are freed: %w", err)
		}
		s := w.diag
		w.readers.Go(func() { w.readSockets(s) })
	}
	return more, nil
}

// destroyed are the groups in which the kernel tells of sockets that end: SKNLGRP_INET_TCP_DESTROY to
// SKNLGRP_INET6_UDP_DESTROY of linux/sock_diag.h.
var destroyed = []uint{1, 2, 3, 4}

// readSockets takes what is told of sockets that have ended, until this one is closed.
func (w *Watch) readSockets(s *nl.NetlinkSocket) {
	for {
		messages, from, err := s.Receive()
		w.mu.Lock()
		closed, ports := w.diag != s, w.ports
		w.mu.Unlock()
		switch {
		case closed:
			return
		case errors.Is(err, unix.ENOBUFS): // some were lost
			w.came()
			continue
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return
		case from.Pid != nl.PidKernel:
			continue
		}
		for _, m := range messages {
			if len(m.Data) < portAt+2 {
				continue
			}
			number := binary.BigEndian.Uint16(m.Data[portAt:])
			if slices.ContainsFunc(ports, func(p cluster.Port) bool { return p.Number == number }) {
				w.came()
			}
		}
	}
}
