package app

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty is a terminal: what is typed at it, and what a program has of it.
type pty struct {
	person, program *os.File
}

// openPTY makes a terminal that goes with the test.
func openPTY(t *testing.T) pty {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	person := os.NewFile(uintptr(fd), "/dev/ptmx") // not blocking, so that Close ends a Read
	t.Cleanup(func() { person.Close() })
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 140})
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return pty{person, program}
}

// modes is how the terminal is set.
func (p pty) modes(t *testing.T) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(p.program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

// within fails the test unless f returns in time.
func within(t *testing.T, limit time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s: not within %v", what, limit)
	}
}

func TestKeysOfTerminal(t *testing.T) {
	p := openPTY(t)
	before := p.modes(t)
	asked, restore := readDeeds(t.Context(), p.program)
	if p.modes(t) != silent(before) {
		t.Error("the terminal echoes keys, or waits for whole lines")
	}
	for _, key := range []string{"p", "q"} {
		fmt.Fprint(p.person, key)
		if got := <-asked; got != key {
			t.Errorf("key %q is read as %q", key, got)
		}
	}
	fmt.Fprint(p.person, "w") // nobody takes it any more
	within(t, 5*time.Second, "the end of the reader", restore)
	if p.modes(t) != before {
		t.Error("the terminal is not as it was")
	}
	if key, more := <-asked; more {
		t.Errorf("%q is asked for after the end", key)
	}
}

// A signal interrupts the wait for a key: no read may begin then, since none could be ended.
func TestKeysUnderSignals(t *testing.T) {
	p := openPTY(t)
	_, restore := readDeeds(t.Context(), p.program)
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	for ctx.Err() == nil {
		threads, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range threads {
			id, _ := strconv.Atoi(filepath.Base(path))
			_ = unix.Tgkill(unix.Getpid(), id, unix.SIGURG) // the runtime's own, which it ignores when it is not due
		}
		time.Sleep(time.Millisecond)
	}
	within(t, 5*time.Second, "the end of the reader", restore)
}

// A person who goes away ends the input.
func TestKeysOfClosedTerminal(t *testing.T) {
	p := openPTY(t)
	asked, restore := readDeeds(t.Context(), p.program)
	p.person.Close()
	within(t, 5*time.Second, "the end of the input", func() {
		for range asked {
		}
	})
	within(t, 5*time.Second, "the end of the reader", restore)
}
