package app

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestUnitOf(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/baton.service\n":                                       "baton.service",
		"9:name=systemd:/system.slice/my-baton.service\n4:memory:/x\n0::/\n":     "my-baton.service",
		"4:memory:/docker.service\n0::/\n":                                       "",
		"0::/user.slice/user-0.slice/session-1.scope\n":                          "",
		"0::/user.slice/user-0.slice/user@0.service/app.slice/vte-spawn.scope\n": "",
		"":       "",
		"0::/\n": "",
	} {
		if got := unitOf(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestJobOf(t *testing.T) {
	jobs := "71 baton.service restart running\n72 x-baton.service stop   waiting\n\n"
	for unit, want := range map[string]string{"baton.service": "restart", "x-baton.service": "stop", "b.service": ""} {
		if got := jobOf(jobs, unit); got != want {
			t.Errorf("%s: got %q, want %q", unit, got, want)
		}
	}
}

// What systemd hears: ready at first, signs of life while the loop turns or has said that it won't, and the end.
func TestSupervisor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "60000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	s := findSupervisor(slog.New(slog.DiscardHandler))
	if _, left := os.LookupEnv("NOTIFY_SOCKET"); left {
		t.Error("what the agent starts would speak for it")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { s.accompany(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	hear := func(wait time.Duration) string {
		b := make([]byte, 256)
		_ = manager.SetReadDeadline(time.Now().Add(wait))
		n, _ := manager.Read(b)
		return string(b[:n])
	}
	if got := hear(5 * time.Second); got != "READY=1" {
		t.Errorf("at first systemd hears %q", got)
	}
	if got := hear(200 * time.Millisecond); got != "" {
		t.Errorf("the loop hangs, and systemd hears %q", got)
	}
	s.turns.Add(1)
	if got := hear(5 * time.Second); got != "WATCHDOG=1" {
		t.Errorf("the loop turns, and systemd hears %q", got)
	}
	s.stopping(90 * time.Second)
	heard := make(map[string]bool)
	for range 3 {
		heard[hear(5*time.Second)] = true
	}
	if !heard["STOPPING=1\nEXTEND_TIMEOUT_USEC=90000000"] || !heard["WATCHDOG=1"] {
		t.Errorf("at the end systemd hears %v", heard)
	}
}

func TestJudgeUnit(t *testing.T) {
	good := "LoadState=loaded\nUnitFileState=enabled\nRuntimeDirectoryPreserve=yes\n"
	for _, c := range []struct {
		text string
		want verdict
		says string
	}{
		{good, pass, "is enabled"},
		{strings.Replace(good, "=enabled", "=disabled", 1), warning, "not enabled"},
		{strings.Replace(good, "=yes", "=no", 1), warning, "not adopted"},
		{"LoadState=not-found\nUnitFileState=\nRuntimeDirectoryPreserve=no\n", warning, "no unit"},
	} {
		if v, hint, text := judgeUnit(properties(c.text)); v != c.want || !strings.Contains(text, c.says) || v != pass && hint == "" {
			t.Errorf("%q: %s, %q, hint %q", c.text, v, text, hint)
		}
	}
}

func TestSameProgram(t *testing.T) {
	const rest = " ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }"
	for _, c := range []struct {
		command string
		start   string
		want    bool
	}{
		{"sleep 5", "{ path=/usr/bin/sleep ; argv[]=/usr/bin/sleep 1000" + rest, true},
		{"/bin/sleep 5", "{ path=/usr/bin/sleep ; argv[]=/usr/bin/sleep 5" + rest, true},
		{"sleep 5", "{ path=/usr/bin/cat ; argv[]=/usr/bin/cat" + rest, false},
		{"sh /srv/a", "{ path=/bin/sh ; argv[]=/bin/sh /srv/b" + rest, false},
		{"sh /srv/a", "{ path=/bin/sh ; argv[]=/bin/sh /srv/a" + rest, true},
		{"no-such-program", "{ path=/usr/bin/no-such-program ; argv[]=no-such-program" + rest, false},
		{"", "{ path=/usr/bin/cat ; argv[]=/usr/bin/cat" + rest, false},
		{"sleep 5", "", false},
	} {
		if got := sameProgram(strings.Fields(c.command), c.start); got != c.want {
			t.Errorf("%q and %q: %v", c.command, c.start, got)
		}
	}
}
