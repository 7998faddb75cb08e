package resource

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/io/bounded"
)

// cgroup is a directory of the cgroup v2 tree (cgroups(7)). Whatever a program forks, and however often,
// stays in it, so killing it kills all.
type cgroup struct{ dir string }

// cgroupMount finds where cgroup v2 is mounted; "" means nowhere.
func cgroupMount() string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, bounded.Proc) // of layered file systems lines are long
	for lines.Scan() {
		// proc_pid_mountinfo(5): id parent major:minor root mountpoint options [tags] - type source options
		mount, kind, _ := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(mount)
		if strings.HasPrefix(kind, "cgroup2 ") && len(fields) > 4 {
			if _, err := os.Stat(filepath.Join(fields[4], "cgroup.procs")); err == nil {
				return fields[4]
			}
		}
	}
	return ""
}

// open makes the cgroup if it is not there and opens its directory, for clone3(2) to start a program in.
func (c cgroup) open() (*os.File, error) {
	if c.dir == "" {
		return nil, errors.New("cgroup v2 is not mounted")
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(c.dir, "cgroup.kill")); err != nil {
		return nil, fmt.Errorf("the kernel can't kill a cgroup (Linux 5.14 can): %w", err)
	}
	return os.Open(c.dir)
}

// kill sends SIGKILL to everything in the cgroup, forks under way included.
func (c cgroup) kill() error {
	err := os.WriteFile(filepath.Join(c.dir, "cgroup.kill"), []byte("1"), 0)
	if c.dir == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// populated tells whether any process is in the cgroup or below it.
func (c cgroup) populated() (bool, error) {
	if c.dir == "" {
		return false, nil
	}
	text, err := bounded.ReadFile(filepath.Join(c.dir, "cgroup.events"), bounded.Small)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return bytes.Contains(text, []byte("populated 1")), nil
}

// awaitEmpty returns when no process is left in the cgroup. The kernel notifies of that through inotify.
func (c cgroup) awaitEmpty(ctx context.Context) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	_, err = unix.InotifyAddWatch(fd, filepath.Join(c.dir, "cgroup.events"), unix.IN_MODIFY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch %s: %w", c.dir, err)
	}
	stop := context.AfterFunc(ctx, func() { events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buffer := make([]byte, 4096)
	for {
		if some, err := c.populated(); err != nil || !some {
			return err
		}
		if _, err := events.Read(buffer); err != nil {
			return fmt.Errorf("cgroup %s still has processes: %w", c.dir, context.Cause(ctx))
		}
	}
}

// remove removes the cgroup and those that the program made below it. It is tidiness only: what can't be
// removed stays.
func (c cgroup) remove() {
	if c.dir == "" {
		return
	}
	entries, _ := os.ReadDir(c.dir)
	for _, e := range entries {
		if e.IsDir() {
			cgroup{filepath.Join(c.dir, e.Name())}.remove()
		}
	}
	os.Remove(c.dir)
}
