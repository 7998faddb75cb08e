package app

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTable(t *testing.T) {
	var b bytes.Buffer
	palette{on: true}.table(&b, [][]cell{heading("a", "bb"), {{"größe", red}, {"x", plainText}}})
	if got, want := b.String(), "\x1b[1mA\x1b[0m      \x1b[1mBB\x1b[0m\n\x1b[31mgröße\x1b[0m  x\n"; got != want {
		t.Errorf("got %q, want %q: colours and bytes do not count as width", got, want)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", 1400 * time.Microsecond: "1ms", 999 * ms: "999ms", 2149 * ms: "2.1s", 75400 * ms: "1m15s"} {
		if got := short(d); got != want {
			t.Errorf("%v: got %s, want %s", time.Duration(d), got, want)
		}
	}
}

// terminal opens a pseudo terminal (pty(7)).
func terminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo terminal: %v", err)
	}
	t.Cleanup(func() { keyboard.Close() })
	fd := int(keyboard.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 8, Col: 60}); err != nil {
		t.Fatal(err)
	}
	return keyboard, tty
}

// On a terminal the view is repainted in place until q, and leaves the terminal as it was.
func TestWatchOnATerminal(t *testing.T) {
	keyboard, tty := terminal(t)
	before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	var screen lockedBuffer
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := keyboard.Read(b)
			if err != nil {
				return // closed when the test ends
			}
			screen.Write(b[:n])
		}
	}()
	s := healthy()
	socket := serveStage(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	code := make(chan int, 1)
	go func() {
		code <- runCommand(ctx, []string{"status", "--watch", "--socket", socket}, tty, tty, tty)
	}()
	until(t, func() bool { return strings.Contains(screen.String(), "more lines") }) // the last line of the picture
	got := screen.String()
	if !strings.HasPrefix(got, enterScreen+toTop) || !strings.Contains(got, "\x1b[32mhealthy\x1b[0m") || !strings.Contains(got, "… 6 more lines") {
		t.Errorf("got %q", got)
	}
	s.mu.Lock()
	s.view.Quorum = false
	s.mu.Unlock()
	until(t, func() bool { return strings.Contains(screen.String(), "No quorum") })
	if _, err := keyboard.WriteString("xq"); err != nil {
		t.Fatal(err)
	}
	if c := <-code; c != exitDone || ctx.Err() != nil {
		t.Errorf("q: exit %d, %v", c, ctx.Err())
	}
	until(t, func() bool { return strings.HasSuffix(screen.String(), leaveScreen) })
	after, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal was %+v and is %+v, %v", before, after, err)
	}
}
