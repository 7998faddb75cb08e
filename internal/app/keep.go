package app

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/io/api"
)

const (
	keepEvery = 5 * time.Second // between two looks at what stands in the run directory
	keepAgain = time.Second     // while something of it can't be made anew
	// keepSettle is how long is waited after something was deleted: more of it may go.
	keepSettle = 20 * time.Millisecond
)

// noRoom tells whether an error says that a file system is full.
func noRoom(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// keepRunDir makes anew what somebody deletes of the run directory: room for the run record, what resources note of
// what runs, and the socket. The record itself the core tries by and by. A resource whose notes can't be written can't be
// started, so the core is told that this host lacks that.
func (a *agent) keepRunDir(ctx context.Context, server *api.Server) {
	var record, socket, notes complaint
	deleted := watchDeletes(ctx, a.run.path)
	for wait := keepEvery; ; {
		deleted.watch()
		select {
		case <-ctx.Done():
			return
		case <-deleted.some:
			time.Sleep(keepSettle)
		case <-time.After(wait):
		}
		wait = keepEvery
		told := func(c *complaint, failed, works string, err error) {
			if err == nil {
				c.worked(a.log, works)
				return
			}
			wait = keepAgain
			c.failed(a.log, failed, "cause", err)
		}
		told(&record, "a full file system may keep this node from taking over", "there is room for the run record again", a.run.reserve(len(a.shared.Load().Groups)))
		unkept, err := a.keepNotes()
		told(&notes, "what runs can't be noted: it can't be started here", "what runs can be noted again", err)
		if a.lacks.keeps(unkept) {
			a.lacks.look()
		}
		anew, err := server.Keep()
		told(&socket, "commands can't reach this agent", "commands can reach this agent again", err)
		if anew {
			a.log.Warn("the agent's socket was deleted or replaced: it is made anew", "file", a.opt.Socket)
		}
	}
}

// keepNotes has every resource keep what it notes, and returns whose notes can't be written, and why.
func (a *agent) keepNotes() (unkept map[place]string, first error) {
	for _, s := range *a.held.Load() {
		anew, err := s.keep()
		if err != nil {
			if unkept == nil {
				unkept = make(map[place]string)
			}
			unkept[s.place] = err.Error()
			if first == nil {
				first = err
			}
			continue
		}
		if anew {
			a.log.Warn("the run directory of a resource was deleted: it is made anew", "resource", s.place)
			s.mu.Lock()
			env := s.env
			s.mu.Unlock()
			a.follow(env)
		}
	}
	return unkept, first
}

// deletes tells of what is deleted in a directory.
type deletes struct {
	dir  string
	file *os.File      // an inotify instance; nil: there is none, and nothing is told
	some chan struct{} // holds one token
}

// watchDeletes makes one, until the context ends.
func watchDeletes(ctx context.Context, dir string) *deletes {
	d := &deletes{dir: dir, some: make(chan struct{}, 1)}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return d
	}
	d.file = os.NewFile(uintptr(fd), "inotify")
	context.AfterFunc(ctx, func() { d.file.Close() })
	go func() {
		for b := make([]byte, 4<<10); ; {
			if _, err := d.file.Read(b); err != nil {
				return
			}
			select {
			case d.some <- struct{}{}:
			default:
			}
		}
	}()
	return d
}

// watch watches what bears the directory's name now; again it does nothing.
func (d *deletes) watch() {
	if d.file == nil {
		return
	}
	raw, err := d.file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // where it can't, it is looked at every keepEvery
		_, _ = unix.InotifyAddWatch(int(fd), d.dir, unix.IN_DELETE|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_ONLYDIR)
	})
}

// holds publishes the resources of this node for those beside the loop.
func (a *agent) holds() {
	all := slices.SortedFunc(maps.Values(a.slots), func(x, y *slot) int {
		return slices.Compare([]string{string(x.group), string(x.resource)}, []string{string(y.group), string(y.resource)})
	})
	a.held.Store(&all)
}

// keep has the resource keep what it notes, once it is made. Anew: its directory was gone.
func (s *slot) keep() (anew bool, err error) {
	s.mu.Lock()
	w := s.worker
	s.mu.Unlock()
	if w == nil {
		return false, nil
	}
	return w.Keep()
}

// keeps takes whose notes can't be written at the moment, and tells whether that is news.
func (l *lacks) keeps(unkept map[place]string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := !maps.Equal(l.unkept, unkept)
	l.unkept = unkept
	return news
}
