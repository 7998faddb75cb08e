package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"baton/internal/lab"
)

// This file is for trials in which nodes join and leave.

// spareLine is a spare's line in the cluster file.
func spareLine(name string) string {
	for i, s := range Spares {
		if s == name {
			return fmt.Sprintf("  %s: { address: 10.77.0.%d }\n", name, 11+len(Nodes)+1+i)
		}
	}
	return ""
}

// startSpare is what a spare's init system does: its agent runs once the host was brought in.
func (t *Trial) startSpare(h *lab.Host) error {
	if _, err := os.Stat(filepath.Join(h.Disk("/etc/baton"), "cluster.yaml")); err != nil {
		return nil
	}
	return t.supervise(h)
}

// BringIn gives a host the file that counts on another node, and the key, and starts its agent: what `baton
// join` and systemctl do. What its data directory held goes.
func (t *Trial) BringIn(ctx context.Context, name, from string) error {
	text, err := t.Run(ctx, from, "config", "show")
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(t.Host(from).Disk("/etc/baton"), "key"))
	if err != nil {
		return err
	}
	if err := t.StopAgent(ctx, name); err != nil {
		return err
	}
	h := t.Host(name)
	if err := emptyDirectory(h.Disk("/var/lib/baton")); err != nil {
		return err
	}
	dir := h.Disk("/etc/baton")
	if err := os.WriteFile(filepath.Join(dir, "key"), key, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "cluster.yaml"), []byte(text), 0o644); err != nil {
		return err
	}
	if !h.On() {
		return nil
	}
	return t.supervise(h)
}

// StopAgent stops a node's agent if it runs.
func (t *Trial) StopAgent(ctx context.Context, name string) error {
	s := t.agents[name]
	if s == nil || !t.Host(name).On() {
		return nil
	}
	delete(t.agents, name)
	return s.Stop(ctx)
}

// SendHome takes a host's file away, so that its agent does not start with the next boot.
func (t *Trial) SendHome(ctx context.Context, name string) error {
	if err := t.StopAgent(ctx, name); err != nil {
		return err
	}
	return os.Remove(filepath.Join(t.Host(name).Disk("/etc/baton"), "cluster.yaml"))
}

// LoseDisk switches a host off and empties its data directory.
func (t *Trial) LoseDisk(name string) error {
	if err := t.Host(name).PowerOff(); err != nil {
		return err
	}
	return emptyDirectory(t.Host(name).Disk("/var/lib/baton"))
}

func emptyDirectory(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if err == nil {
			err = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
	return err
}

// Voters returns the nodes that a status names, each with its part; "…" stands behind those not heard.
func (s *Status) Voters() string {
	var out []string
	for _, n := range s.Nodes {
		text := n.Name + " " + n.Membership
		if !n.Fresh {
			text += "…"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// settled tells whether a status names exactly these nodes, all voters and heard, and no change is under way.
func (s *Status) settled(names []string) bool {
	if s.Draft != nil || s.Coordinator == "" || s.Joining || len(s.Nodes) != len(names) {
		return false
	}
	for _, n := range s.Nodes {
		if n.Membership != "votes" || !n.Fresh {
			return false
		}
	}
	for _, name := range names {
		if !strings.Contains(s.Voters(), name+" ") {
			return false
		}
	}
	return true
}

// AwaitVoters waits until all of these nodes agree that they, and nobody else, vote, that all are heard, and that
// no change is under way.
func (t *Trial) AwaitVoters(limit time.Duration, names ...string) error {
	for _, name := range names {
		err := t.Await(name, limit, strings.Join(names, ", ")+" vote", func(s *Status) bool { return s.settled(names) })
		if err != nil {
			return err
		}
	}
	return nil
}

// KeepDisk copies a host's data directory, and returns what puts the copy in its place, as one does who sets a
// machine back to a snapshot. The host is off meanwhile, both times.
func (t *Trial) KeepDisk(name string) (setBack func() error, err error) {
	dir := t.Host(name).Disk("/var/lib/baton")
	kept, err := os.MkdirTemp("", "baton-kept-")
	if err != nil {
		return nil, err
	}
	setBack = func() error {
		if err := emptyDirectory(dir); err != nil {
			return err
		}
		return errors.Join(os.CopyFS(dir, os.DirFS(kept)), os.RemoveAll(kept))
	}
	return setBack, os.CopyFS(kept, os.DirFS(dir))
}
