package resource

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// What the host lacks at the moment says nothing of a program; what it answered, or never can be asked, does.
func TestCouldNotAsk(t *testing.T) {
	for err, want := range map[error]bool{
		unwell{cause: fmt.Errorf("fork: %w", unix.EAGAIN)}:          true,
		unwell{cause: fmt.Errorf("pipe: %w", unix.EMFILE)}:          true,
		unwell{cause: lacking(unasked{errors.New("user unknown")})}: true,
		unwell{cause: unix.ECONNREFUSED}:                            false,
		unwell{cause: lacking(errors.New("no such program"))}:       false,
		unwell{cause: status{short: "exited with status 1"}}:        false,
	} {
		if couldNotAsk(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
	if couldNotAsk(nil) {
		t.Error("what was answered could not be asked")
	}
}

// A program runs on while its health can't be asked, and that is told, once, and its end too.
func TestHealthThatCanNotBeAsked(t *testing.T) {
	b := newBench(t, spec("exec sleep 1000", map[string]any{"healthy": map[string]any{
		"command": []string{"true"}, "interval": 5 * time.Millisecond, "failures": int64(2)}}))
	b.start(1)
	known := b.p.owner.Load()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3 // nothing more can be opened
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}
	defer restore()
	c := b.next()
	restore()
	if known == nil {
		t.Error("who it runs as is looked up anew for each check")
	}
	if c.status != cluster.StatusRunning || !strings.Contains(c.reason, "can't be asked here") {
		t.Errorf("told %v", c)
	}
	if c := b.next(); c.status != cluster.StatusRunning || c.reason != "" {
		t.Errorf("told %v once it can be asked again", c)
	}
	time.Sleep(50 * time.Millisecond) // some tries
	b.silent()
}

// "localhost" is this host, whatever files and name servers say.
func TestLocalhostIsAskedOfNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, name := range []string{"localhost", "LocalHost.", "nobody-knows-it.localhost"} {
		conn, err := dial(context.Background(), "tcp", net.JoinHostPort(name, port))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		conn.Close()
	}
}
