package resource

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// awaits is a watch under test.
type awaits struct {
	t    *testing.T
	w    *Watch
	came chan struct{}
}

func newAwaits(t *testing.T) *awaits {
	a := &awaits{t: t, came: make(chan struct{}, 1)}
	w, err := NewWatch(func() {
		select {
		case a.came <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	a.w = w
	return a
}

func (a *awaits) set(x Awaited) {
	a.t.Helper()
	for more := true; more; { // as its user does
		var err error
		if more, err = a.w.Set(x); err != nil {
			a.t.Fatal(err)
		}
	}
	for quiet := false; !quiet; {
		select {
		case <-a.came:
		case <-time.After(50 * time.Millisecond):
			quiet = true
		}
	}
}

// comes does something, and expects to be told or not.
func (a *awaits) comes(what string, want bool, do func() error) {
	a.t.Helper()
	if !want {
		a.quiet(what, do)
		return
	}
	if err := do(); err != nil {
		a.t.Fatal(what, err)
	}
	select {
	case <-a.came:
	case <-time.After(patience):
		a.t.Errorf("%s: not told", what)
	}
}

// quiet does something that nobody waits for, and expects not to be told.
func (a *awaits) quiet(what string, do func() error) {
	a.t.Helper()
	if err := do(); err != nil {
		a.t.Fatal(what, err)
	}
	select {
	case <-a.came:
		a.t.Errorf("%s: told", what)
	case <-time.After(100 * time.Millisecond):
	}
}

// A file is awaited through directories that are not there either, through links, and by its content and mode.
func TestAwaitFiles(t *testing.T) {
	a, dir := newAwaits(t), t.TempDir()
	file := filepath.Join(dir, "opt/app/bin/server")
	x := Awaited{Files: []string{file}}
	a.set(x)
	a.comes("another file", false, func() error { return os.WriteFile(filepath.Join(dir, "other"), nil, 0o600) })
	a.comes("the first directory", true, func() error { return os.Mkdir(filepath.Join(dir, "opt"), 0o755) })
	a.set(x)
	a.comes("all on the way", true, func() error { return os.MkdirAll(filepath.Dir(file), 0o755) })
	a.set(x)
	a.comes("the file", true, func() error { return os.WriteFile(file, []byte("#!/bin/sh"), 0o644) })
	a.set(x)
	a.comes("its mode", true, func() error { return os.Chmod(file, 0o755) })
	a.set(x)
	a.comes("a directory that goes", true, func() error { return os.RemoveAll(filepath.Join(dir, "opt/app")) })
	a.set(x)
	a.comes("a link to nowhere", true, func() error { return os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "opt/app")) })
	a.set(x)
	a.comes("where it leads to", true, func() error { return os.Mkdir(filepath.Join(dir, "elsewhere"), 0o755) })
	a.set(x)
	a.comes("what follows there", true, func() error { return os.Mkdir(filepath.Join(dir, "elsewhere/bin"), 0o755) })
	a.set(Awaited{})
	a.comes("what is awaited no more", false, func() error { return os.RemoveAll(dir) })
}

func TestAwaitMounts(t *testing.T) {
	a, dir := newAwaits(t), t.TempDir()
	a.set(Awaited{Files: []string{filepath.Join(dir, "server")}})
	a.comes("a mount", true, func() error { return unix.Mount("none", dir, "tmpfs", 0, "") })
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

// Each mount is told when it comes, and not when the list is compared next: the kernel's word is for who asks first, and
// that is this watch alone.
func TestEachMountIsTold(t *testing.T) {
	a, dir := newAwaits(t), t.TempDir()
	a.set(Awaited{Files: []string{filepath.Join(dir, "server")}})
	const times, late = 100, mountsEvery * time.Millisecond / 2
	var slow []time.Duration
	for range times {
		begun := time.Now()
		a.comes("a mount", true, func() error { return unix.Mount("none", dir, "tmpfs", 0, "") })
		if took := time.Since(begun); took > late {
			slow = append(slow, took)
		}
		a.comes("its removal", true, func() error { return unix.Unmount(dir, 0) })
	}
	if len(slow) > 1 { // the machine may stand still once
		t.Errorf("%d of %d mounts were told late: %v", len(slow), times, slow)
	}
}

func TestAwaitPorts(t *testing.T) {
	a := newAwaits(t)
	for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
		listen := func() (p cluster.Port, free func() error) {
			if strings.HasPrefix(network, "udp") {
				c, err := net.ListenPacket(network, ":0")
				if err != nil {
					t.Fatal(err)
				}
				return cluster.Port{Protocol: "udp", Number: uint16(c.LocalAddr().(*net.UDPAddr).Port)}, c.Close
			}
			c, err := net.Listen(network, ":0")
			if err != nil {
				t.Fatal(err)
			}
			return cluster.Port{Protocol: "tcp", Number: uint16(c.Addr().(*net.TCPAddr).Port)}, c.Close
		}
		port, free := listen()
		_, freeOther := listen()
		if got, err := listenedOn([]cluster.Port{port}); err != nil || len(got) != 1 {
			t.Errorf("%s: listened on %v, %v", network, got, err)
		}
		a.set(Awaited{Ports: []cluster.Port{port}})
		a.comes(network+": another port", false, freeOther)
		a.comes(network, true, free)
		if got, err := listenedOn([]cluster.Port{port}); err != nil || len(got) != 0 {
			t.Errorf("%s: listened on %v, %v", network, got, err)
		}
	}
}

// A program that ends since another has its port is not to blame, and what is awaited is that port.
func TestPortIsAnothers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := cluster.Port{Protocol: "tcp", Number: uint16(l.Addr().(*net.TCPAddr).Port)}
	s := spec("echo bind: Address already in use; exit 1", map[string]any{"ready": map[string]any{
		"command": []string{"false"}, "interval": time.Millisecond}, "ports": []cluster.Port{port}})
	b := newBench(t, s)
	err = b.p.Start(t.Context(), 1)
	if want := fmt.Sprintf("port tcp/%d is held by another program", port.Number); err == nil || !fromSurroundings(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, from what is around it %v; want %q", err, fromSurroundings(err), want)
	}
	if err := (Process{}).Blocked(s); err == nil {
		t.Error("it is not said to be kept from starting")
	}
	if a := (Process{}).Awaits(s); len(a.Ports) != 1 || a.Ports[0] != port {
		t.Errorf("awaits the ports %v", a.Ports)
	}
	l.Close()
	if err := (Process{}).Blocked(s); err != nil {
		t.Error(err)
	}
	if err := b.p.Start(t.Context(), 1); err == nil || fromSurroundings(err) {
		t.Errorf("with its port free: %v", err)
	}
}
