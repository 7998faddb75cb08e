package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const dialTimeout = 2 * time.Second

// socket is a listening socket that knows its own file.
type socket struct {
	*net.UnixListener
	path string
	file fs.FileInfo // nil: not known
}

func listen(path string) (*socket, error) {
	l, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	s := &socket{UnixListener: l, path: path}
	s.file, _ = os.Lstat(path)
	return s, nil
}

// there tells whether the name still leads to this socket.
func (s *socket) there() bool {
	now, err := os.Lstat(s.path)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR)
	}
	return s.file != nil && os.SameFile(s.file, now)
}

// open makes the socket and sets who may connect.
func open(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := clearStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	// Until these have been set, the check of each peer alone keeps others out; it always does.
	err = os.Chmod(path, 0o660)
	if gid, ok := systemGroup(); ok && err == nil {
		err = os.Chown(path, -1, int(gid))
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("set its owner and mode: %w", err)
	}
	return l, nil
}

// clearStale removes a socket on which nobody listens.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("it is no socket but %v; nothing is removed", info.Mode())
	}
	c, err := net.DialTimeout("unix", path, dialTimeout)
	switch {
	case err == nil:
		defer c.Close()
		// The credentials of a listening socket are those of who called listen.
		p := askPeer(c)
		return fmt.Errorf("process %d of %s listens there already", p.pid, p)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return fmt.Errorf("it can't be told whether an agent listens there: %w", err)
}
