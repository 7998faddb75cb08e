package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/lab"
)

// devDirs is how the names of the directories of a demo on loopback begin; digits follow.
const devDirs = "baton-demo-"

const (
	// dyingLimit is how long processes that were killed may take to end, and to let go of a directory.
	dyingLimit = 2 * time.Second
	// forever is a limit that never ends.
	forever time.Duration = -time.Millisecond
	// terminalFile is the sweeper's descriptor of the terminal.
	terminalFile = 3
)

// endings adds to Ctrl-C and SIGTERM what else ends a demo in order: a terminal that is closed, unless that is to
// be outlived (nohup(1)).
func endings(ctx context.Context) (context.Context, context.CancelFunc) {
	if signal.Ignored(syscall.SIGHUP) {
		return context.WithCancel(ctx)
	}
	return signal.NotifyContext(ctx, syscall.SIGHUP)
}

// sweeperOrders is what the sweeper is told on its standard input.
type sweeperOrders struct {
	Demo     int           // the process to outlive
	Terminal *unix.Termios // how the terminal was, which is the sweeper's terminalFile; nil: there is none
}

// startSweeper starts this program once more, to restore the terminal and to remove all that is left once this
// process has ended, even by a crash or SIGKILL. What it returns ends the sweeper: nothing is left.
func startSweeper(in io.Reader) (dismiss func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "dev", "--sweep")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what ends us by the terminal must not end it
	orders := sweeperOrders{Demo: os.Getpid()}
	if f, ok := in.(*os.File); ok && isTerminal(f) {
		if orders.Terminal, err = unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			cmd.ExtraFiles = []*os.File{f}
		}
	}
	text, err := json.Marshal(orders)
	if err != nil {
		return nil, err
	}
	cmd.Stdin = bytes.NewReader(text)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start what tidies up after a crash: %w", err)
	}
	return func() {
		_ = cmd.Process.Kill() // it may have been killed before
		_ = cmd.Wait()
	}, nil
}

// sweeper waits for the end of the demo that has started it, and tidies up.
func sweeper(in io.Reader) error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM) // whoever ends all of a session, as a logout does
	var orders sweeperOrders
	if err := json.NewDecoder(in).Decode(&orders); err != nil {
		return fmt.Errorf("read the sweeper's orders: %w", err)
	}
	if err := awaitProcess(orders.Demo, forever); err != nil {
		return err
	}
	if orders.Terminal != nil {
		restoreLost(terminalFile, *orders.Terminal)
		unix.Close(terminalFile) // whoever shows the terminal waits until nobody has it
	}
	return sweepDemos()
}

// awaitProcess returns when a process has ended, which is an error if it has not within the limit.
func awaitProcess(pid int, limit time.Duration) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(limit.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err == nil && n == 0:
			return fmt.Errorf("process %d has not ended after %v", pid, limit)
		default:
			return err
		}
	}
}

// sweepDemos removes what demos have left, on this ground or the other, whose process is gone.
func sweepDemos() error {
	var errs []error
	if os.Geteuid() == 0 {
		errs = append(errs, lab.Sweep(""))
		links, _ := filepath.Glob(devSockets + "*")
		for _, l := range links {
			removeDeadLink(l)
		}
	}
	for _, parent := range append(memoryParents(), os.TempDir()) {
		entries, err := os.ReadDir(parent)
		if err != nil {
			continue // not here, then
		}
		for _, e := range entries {
			if e.IsDir() && demoID(e.Name()) != "" {
				errs = append(errs, sweepDir(filepath.Join(parent, e.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

// removeDeadLink removes a link that leads nowhere.
func removeDeadLink(path string) {
	to, err := os.Readlink(path)
	if err != nil {
		return
	}
	if _, err := os.Stat(to); errors.Is(err, os.ErrNotExist) {
		_ = os.Remove(path) // someone else may have done it
	}
}

// demoID is what stands for one demo in its directories' names; "": that is no demo's.
func demoID(dir string) string {
	id, ours := strings.CutPrefix(filepath.Base(dir), devDirs)
	if !ours || strings.Trim(id, "0123456789") != "" {
		return ""
	}
	return id
}

// demoCluster is the name of the cluster of a demo on loopback. No other ever has it: a process's cgroup is named
// after the cluster, so it may be removed with the demo.
func demoCluster(dir string) string { return "demo-" + demoID(dir) }

// claimDir makes a directory for this demo below parent. The lock that it returns says to others that this demo
// lives; it ends with this process.
func claimDir(parent string) (string, *os.File, error) {
	for {
		dir, err := os.MkdirTemp(parent, devDirs)
		if err != nil {
			return "", nil, err
		}
		lock, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // swept before it was locked
		}
		if err != nil {
			return "", nil, errors.Join(err, os.Remove(dir))
		}
		if err := flock(lock, unix.LOCK_EX); err != nil {
			return "", nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), lock.Close(), os.Remove(dir))
		}
		if here(lock, dir) {
			return dir, lock, nil
		}
		lock.Close()
	}
}

// here tells whether an open file is still what the path leads to.
func here(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// sweepDir removes a directory of a demo of this user, and its cgroup, unless the demo lives.
func sweepDir(dir string) error {
	lock, err := os.Open(dir)
	if err != nil {
		return nil // another user's, or swept by somebody else
	}
	defer lock.Close()
	info, err := lock.Stat()
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) != os.Geteuid() || flock(lock, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil
	}
	return errors.Join(removeDemoCgroup(dir), removeStubborn(dir))
}

// removeDemoCgroup kills what runs in the cgroup that root's agents made for a demo's processes, and removes it;
// others could not make any.
func removeDemoCgroup(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return lab.RemoveCgroup(filepath.Join("baton", demoCluster(dir)))
}

// removeStubborn removes a directory in which processes that are about to end may still write.
func removeStubborn(dir string) error {
	for deadline := time.Now().Add(dyingLimit); ; time.Sleep(10 * time.Millisecond) {
		if err := os.RemoveAll(dir); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
