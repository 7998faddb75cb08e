package app

import (
	"context"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// silent is a terminal's state in which it hands over keys at once, and does not show them.
func silent(t unix.Termios) unix.Termios {
	t.Lflag &^= unix.ICANON | unix.ECHO
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return t
}

// restoreLost restores a terminal from which a process took keys that could not restore it. How anybody else has
// set it since, as a shell does for its prompt, stays.
func restoreLost(fd int, before unix.Termios) {
	now, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil && *now == silent(before) {
		// Nothing can be done if the terminal has gone.
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, &before)
	}
}

// takeKeys makes a terminal hand over keys at once and silently, and calls key for each, in a goroutine of its
// own, until the context ends, key returns false, or the terminal goes; then it calls over. Ctrl-C stays a
// signal. What it returns ends that and restores the terminal. Without an effect on f it is false: f is no
// terminal, or one that can't be told.
func takeKeys(ctx context.Context, f *os.File, key func(byte) bool, over func()) (restore func(), ok bool) {
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, false
	}
	now := silent(*before)
	if unix.IoctlSetTermios(fd, unix.TCSETS, &now) != nil {
		return nil, false
	}
	ctx, cancel := context.WithCancel(ctx)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer over()
		var b [1]byte
		for ctx.Err() == nil {
			// A read can't be cancelled, so it is begun only when there is something to read: not when a
			// signal, such as that of Ctrl-C, has interrupted the wait.
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
			if n == 0 || err == unix.EINTR {
				continue
			}
			if err != nil {
				return
			}
			if n, err := f.Read(b[:]); err != nil || n == 0 || !key(b[0]) {
				return
			}
		}
	})
	return func() {
		cancel()
		reader.Wait()
		// Nothing can be done if the terminal has gone.
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, before)
	}, true
}
