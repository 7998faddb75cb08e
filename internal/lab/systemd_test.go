package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A host with systemd boots, reboots and goes off as it is told from within; its root is its own.
func TestSystemd(t *testing.T) {
	l := newLab(t)
	shown := filepath.Join(t.TempDir(), "shown")
	must(t, os.WriteFile(shown, []byte("word"), 0o644))
	a, err := l.AddHost(HostConfig{Name: "alpha", Systemd: true, Show: []string{shown}})
	must(t, err)
	running := func() {
		t.Helper()
		eventually(t, "systemd has booted", func() bool {
			out, _ := a.Command(t.Context(), "systemctl", "is-system-running")
			return strings.TrimSpace(out) == "running"
		})
	}
	running()
	want(t, "what is shown", run(t, a, "cat "+shown), "word")
	want(t, "its name", run(t, a, "hostname"), "alpha")
	run(t, a, "echo kept > /var/kept; echo gone > /run/gone; echo own > /usr/local/own; ! echo x > "+shown)
	text, err := os.ReadFile(a.Disk("/usr/local/own"))
	must(t, err)
	want(t, "the disk from outside", string(text), "own\n")
	if _, err := os.Stat("/usr/local/own"); err == nil {
		t.Error("a file of the host is on the machine")
	}

	first := a.BootID()
	run(t, a, "systemctl reboot")
	eventually(t, "it boots again", func() bool { return a.On() && a.BootID() != first })
	running()
	want(t, "after the reboot", run(t, a, "cat /var/kept; test -e /run/gone || echo none; cat /proc/sys/kernel/random/boot_id"), "kept\nnone\n"+a.BootID())

	run(t, a, "systemctl poweroff")
	eventually(t, "it goes off", func() bool { return !a.On() })
	must(t, a.Boot())
	running()
	must(t, a.PowerOff())
}
