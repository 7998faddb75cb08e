package app

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/io/resource"
)

// What programs print goes to journald. Where there is none it goes to files, and a program that prints without end
// must take room from nobody: not from the run record, not from the log, not from other software in /run. So the files
// are on a file system of their own, which the kernel lets grow to outputRoom and no further; and the agent cuts each
// long before that.
const (
	outputRoom   = 64 << 20 // bytes, of all programs of this node together
	outputFiles  = 8192     // files and directories
	outputLeast  = 64 << 10 // bytes to which a program's output is cut, however many there are
	outputDir    = "output" // in the run directory
	outputSource = "baton-output"
)

// outputPlace is where programs of this node print.
type outputPlace struct {
	dir   string // empty: each into its own run directory
	limit int64  // bytes of each
}

// openOutputRoom makes room for output. Without journald that takes a mount, which not everybody may make.
func (a *agent) openOutputRoom() {
	a.printing.limit = outputLimit(a.spec, a.self)
	dir := filepath.Join(a.opt.RunDir, outputDir)
	mounted := isMount(dir)
	if !mounted && (resource.HasJournal() || a.opt.NoGate || a.opt.SharedHost || a.opt.RunDir == "") {
		return
	}
	if !mounted {
		if err := mountOutput(dir); err != nil {
			a.log.Warn("programs print into the run directory, which they share with other software", "cause", err)
			return
		}
	}
	a.printing.dir = dir
}

// mountOutput makes a small file system.
func mountOutput(dir string) error {
	err := os.MkdirAll(dir, 0o711)
	if err == nil {
		err = unix.Mount(outputSource, dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC,
			fmt.Sprintf("size=%d,nr_inodes=%d,mode=711", outputRoom, outputFiles))
	}
	if err != nil {
		return fmt.Errorf("mount a tmpfs of %d MiB at %s for output: %w", outputRoom>>20, dir, err)
	}
	return nil
}

// isMount tells whether a file system is mounted at a directory.
func isMount(dir string) bool {
	var own, parent unix.Stat_t
	return unix.Stat(dir, &own) == nil && unix.Stat(filepath.Dir(dir), &parent) == nil && own.Dev != parent.Dev
}

// removeOutput takes the file system for output away.
func (d *runDir) removeOutput() error {
	dir := filepath.Join(d.path, outputDir)
	if !isMount(dir) {
		return os.RemoveAll(dir)
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return os.Remove(dir)
}

// of returns where a resource prints; empty: into its run directory.
func (p outputPlace) of(g cluster.GroupID, r cluster.ResourceID) string {
	if p.dir == "" {
		return ""
	}
	return filepath.Join(p.dir, string(g), string(r))
}

// outputLimit shares the room: with all at their limit, and what is kept of each beside it, some is left for what comes
// before the agent cuts.
func outputLimit(spec *cluster.Spec, self cluster.NodeID) int64 {
	n := int64(0)
	for i := range spec.Groups {
		if spec.Groups[i].Prefers(self) >= 0 {
			n += int64(len(spec.Groups[i].Resources))
		}
	}
	return min(max(outputRoom/2/max(n, 1), outputLeast), resource.OutputLimit)
}
