package trial

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"baton/internal/lab"
)

// installLimit bounds what is done to install baton on a host.
const installLimit = 30 * time.Second

// install puts baton on a host whose PID 1 is systemd, and starts it: on alpha as on a machine with the sources,
// elsewhere as a package does, by DESTDIR.
func (t *Trial) install(h *lab.Host) error {
	ctx, cancel := context.WithTimeout(context.Background(), installLimit)
	defer cancel()
	if err := os.MkdirAll(h.Disk("/etc/baton"), 0o755); err != nil {
		return err
	}
	if err := t.writeFiles(h); err != nil {
		return err
	}
	if err := awaitSystemd(ctx, h); err != nil {
		return err
	}
	if h.Name() == Alpha {
		if _, err := t.MakeInstall(ctx, h.Name(), t.binary); err != nil {
			return err
		}
	} else {
		out, err := exec.CommandContext(ctx, "make", "-C", sources(), "install", "DESTDIR="+h.Disk("/"), "BINARY="+t.binary).CombinedOutput()
		if err != nil {
			return fmt.Errorf("make install for %s: %w: %s", h.Name(), err, out)
		}
		if _, err := h.Command(ctx, "sh", "-c", "systemd-sysusers && systemctl daemon-reload"); err != nil {
			return err
		}
	}
	_, err := h.Command(ctx, "systemctl", "enable", "--now", "baton")
	return err
}

// MakeInstall installs a binary on a node, from the sources, as root there would.
func (t *Trial) MakeInstall(ctx context.Context, node, binary string) (string, error) {
	return t.Host(node).Command(ctx, "make", "-C", sources(), "install", "BINARY="+binary)
}

// awaitSystemd waits until a host's systemd has booted.
func awaitSystemd(ctx context.Context, h *lab.Host) error {
	for {
		out, err := h.Command(ctx, "systemctl", "is-system-running", "--wait")
		if err == nil {
			return nil
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			console, _ := os.ReadFile(h.LogPath("console"))
			return fmt.Errorf("systemd on %s is %q: %w\n%s", h.Name(), out, err, console)
		}
	}
}

// InstalledBinary is where an installation puts the binary.
const InstalledBinary = "/usr/local/bin/baton"

// journal returns what the agent of such a node has logged.
func (t *Trial) journal(node string) string {
	ctx, cancel := context.WithTimeout(context.Background(), installLimit)
	defer cancel()
	out, err := t.Host(node).Command(ctx, "journalctl", "--unit", "baton", "--no-pager", "--output", "short-precise")
	if err != nil {
		console, _ := os.ReadFile(t.Host(node).LogPath("console"))
		return fmt.Sprintf("%v; %s\n%s", err, filepath.Base(t.Host(node).LogPath("console")), console)
	}
	return out
}
