package resource

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// foreign is this test's own binary as one for another machine, or for another system (its loader is not here).
func foreign(t *testing.T, machine elf.Machine) []byte {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint16(text[18:], uint16(machine)) // e_machine (elf(5))
	return text
}

// Whatever keeps a file from being executed, its start and `check` say what it is and what to do, and not the
// kernel's word for it alone: "no such file" of a file that is there.
func TestUnfitPrograms(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root starts programs as others, and mounts")
	}
	dir, err := os.MkdirTemp("", "resource-unfit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	noexec, closed := filepath.Join(dir, "noexec"), filepath.Join(dir, "closed")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(noexec, 0o755), os.Mkdir(closed, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", noexec, "tmpfs", unix.MS_NOEXEC, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(noexec, unix.MNT_DETACH) })
	for _, c := range []struct {
		file, text string
		mode       fs.FileMode
		want, hint string
		late       bool // only a start finds it
		runs       bool // the kernel starts it, and it ends
	}{
		{"dos.sh", "#!/bin/sh\r\nsleep 100\r\n", 0o755, "has DOS line ends", `sed -i 's/\r$//'`, false, false},
		{"dos-with-option.sh", "#!/bin/sh -e\r\nsleep 100\r\n", 0o755, "has DOS line ends", `sed -i`, false, true},
		{"dos-env.py", "#!/usr/bin/env python3\r\n", 0o755, "has DOS line ends", `sed -i`, false, true},
		{"bare.sh", "sleep 100\n", 0o755, "neither a binary nor does it begin with #!", "#!/bin/sh", false, false},
		{"empty", "", 0o755, "is empty", "install it", false, false},
		{"marked.sh", "\xef\xbb\xbf#!/bin/sh\nsleep 100\n", 0o755, "byte order mark", "sed -i", false, false},
		{"no-interpreter", "#!/no/such/shell\n", 0o755, "wants the interpreter /no/such/shell, which is not here", "install it", false, false},
		{"no-env", "#!/usr/bin/env no-such-shell\n", 0o755, "wants no-such-shell, which is not in", "set PATH", false, true},
		{"no-name", "#!\nsleep 100\n", 0o755, "names no interpreter", "#!/bin/sh", false, false},
		{"plain.sh", "#!/bin/sh\nsleep 100\n", 0o644, "is not executable", "chmod +x", false, false},
		{"other-machine", string(foreign(t, elf.EM_SPARCV9)), 0o755, "is built for EM_SPARCV9, and this machine is", "the one for this machine", false, false},
		{"cut", "\x7fELF", 0o755, "damaged binary", "install it", false, false},
		{"noexec/x.sh", "#!/bin/sh\nsleep 100\n", 0o755, "mounted noexec", "move it", false, false},
		{"closed/x.sh", "#!/bin/sh\nsleep 100\n", 0o755, "/closed is closed to user nobody", "chmod o+x", true, false},
	} {
		t.Run(c.file, func(t *testing.T) {
			file := filepath.Join(dir, c.file)
			if err := errors.Join(os.WriteFile(file, []byte(c.text), c.mode), os.Chmod(file, c.mode)); err != nil {
				t.Fatal(err)
			}
			s := spec("", map[string]any{"command": []string{file}, "user": "nobody"})
			b := newBench(t, s)
			err := b.p.Start(t.Context(), 1)
			if c.runs {
				end := ""
				if err != nil { // it ended at once
					end = err.Error()
				} else {
					end = b.next().reason
				}
				if !strings.Contains(end, "No such file") && !strings.Contains(end, c.want) {
					t.Errorf("its end: %s", end)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.hint) || !fromSurroundings(err) {
				t.Errorf("start: %v (surroundings %v)", err, fromSurroundings(err))
			}
			if hint, err := (Process{}).Check(s); !c.late && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(hint, c.hint)) {
				t.Errorf("check: %v; %s", err, hint)
			}
		})
	}
	for _, well := range []string{"#!/bin/sh\nexec sleep 1000\n", "#!/usr/bin/env -S sh -e\nexec sleep 1000\n", "#! /bin/sh -e \nexec sleep 1000\n"} {
		file := filepath.Join(dir, "well")
		if err := os.WriteFile(file, []byte(well), 0o755); err != nil {
			t.Fatal(err)
		}
		b := newBench(t, spec("", map[string]any{"command": []string{file}, "user": "nobody"}))
		if _, err := (Process{}).Check(b.env.Spec); err != nil {
			t.Errorf("%q: %v", well, err)
		}
		b.start(1)
		b.stop()
	}
}

// How a program ended is told with what it means where that is known.
func TestEndsAreExplained(t *testing.T) {
	script := filepath.Join(t.TempDir(), "x.sh")
	if err := os.WriteFile(script, []byte("cd /tmp\r\nls\r\nexit 1\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		command []string
		want    string
	}{
		{"daemon", []string{"sh", "-c", "setsid sleep 1000 & exit 0"}, "went to the background (it exited with status 0 and left a process)"},
		{"daemon that forks twice", []string{"sh", "-c", `up="${BATON_STATE_FILE%/*}/up"; export up; (setsid sh -c 'sleep 1000 & sleep 1000 & : > "$up"; wait' &) ; until [ -e "$up" ]; do sleep 0.01; done; exit 0`}, "went to the background (it exited with status 0 and left 3 processes)"},
		{"done", []string{"sh", "-c", "exit 0"}, "exited with status 0 after"},
		{"bind", []string{"sh", "-c", "echo 'OSError: [Errno 99] Cannot assign requested address'; exit 1"}, "addresses come up last; let it listen on all, or sysctl net.ipv4.ip_nonlocal_bind=1"},
		{"bind, and more", []string{"sh", "-c", "echo '[ALERT] cannot bind socket (Cannot assign requested address) for [10.0.0.50:80]'; echo 'Exiting.'; exit 1"}, "addresses come up last"},
		{"port", []string{"sh", "-c", "echo 'bind() to 0.0.0.0:80 failed (98: Address already in use)'; exit 1"}, "its port is taken: ss -tulpn says by whom"},
		{"shell's script", []string{"sh", script}, script + " has DOS line ends (CR LF)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, spec("", map[string]any{"command": c.command, "ready": map[string]any{"command": []string{"false"}}}))
			err := b.p.Start(t.Context(), 1)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("start: %v", err)
			}
			if c.name == "done" && strings.Contains(err.Error(), "background") {
				t.Errorf("nothing was left: %v", err)
			}
			b.probes(cluster.StatusStopped)
		})
	}
}
