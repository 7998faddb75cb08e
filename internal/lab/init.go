package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// modeVariable, in its environment, tells this program which part of the lab to be.
	modeVariable = "BATON_LAB_MODE"
	modeInit     = "init"
	modeEcho     = "echo"
	modeProbe    = "probe"
	modeStalls   = "stalls"

	initReady = "ready"
)

// MaybeInit must be the first call of main, and of TestMain, in every program that uses a lab: hosts'
// PID 1, probes and the like are this same program, run again, and then MaybeInit does not return.
func MaybeInit() {
	mode := os.Getenv(modeVariable)
	if mode == "" {
		return
	}
	os.Unsetenv(modeVariable)
	switch mode {
	case modeInit:
		os.Exit(initMain())
	case modeEcho:
		os.Exit(EchoMain(os.Args[1:]))
	case modeProbe:
		os.Exit(probeMain(os.Args[1:]))
	case modeStalls:
		os.Exit(stallsMain())
	}
	fmt.Fprintf(os.Stderr, "%s is %q, which is none of the lab's modes\n", modeVariable, mode)
	os.Exit(2)
}

// setup is what a host's PID 1 has to do.
type setup struct {
	Hostname string
	BootID   string            // file on the machine that becomes the boot id
	Cgroup   string            // where the machine mounts cgroup2, and so the host
	Binds    map[string]string // the host's own directories: path in the host, path on the machine
	Root     string            // with systemd: where its root is mounted while PID 1 sets it up
	Disk     string            // and what is mounted there
	Show     []string          // and what of the machine is shown in it
}

// initMain is PID 1 of a host: it sets the host up, then waits for children that others have left
// behind, and ends when the lab closes the pipe or is gone.
func initMain() int {
	orders, report := os.NewFile(3, "orders"), os.NewFile(4, "report")
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	in := bufio.NewReader(orders)
	line, err := in.ReadBytes('\n')
	var s setup
	if err == nil {
		err = json.Unmarshal(line, &s)
	}
	ready := func() {
		fmt.Fprint(report, initReady)
		report.Close()
	}
	switch {
	case err != nil:
	case s.Root != "":
		err = s.systemd(in, ready)
	default:
		err = s.carryOut()
	}
	if err != nil {
		fmt.Fprint(report, err)
		fmt.Fprintln(os.Stderr, err) // after ready
		return 1
	}
	ready()

	gone := make(chan struct{})
	go func() {
		io.Copy(io.Discard, in)
		close(gone)
	}()
	for {
		select {
		case <-gone:
			return 0
		case <-children:
			for {
				pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
				if pid <= 0 && !errors.Is(err, unix.EINTR) {
					break
				}
			}
		}
	}
}

func (s setup) carryOut() error {
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set the hostname: %w", err)
	}
	// What this host mounts must not show on the machine.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for path, source := range s.Binds {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("make a place to mount on: %w", err)
		}
		if err := mount(source, path, "", unix.MS_BIND); err != nil {
			return err
		}
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC); err != nil {
		return err
	}
	if err := mount(s.BootID, "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND); err != nil {
		return err
	}
	if err := s.mountSys(); err != nil {
		return err
	}
	if err := mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV); err != nil {
		return err
	}
	if err := os.Mkdir("/run/lock", 0o777); err != nil {
		return err
	}
	return loopbackUp()
}

// mountSys mounts a /sys that shows this host's links, with cgroup2 where the machine has it and no
// other hierarchy, and the host's own BPF file system.
func (s setup) mountSys() error {
	if err := unmountBelow("/sys"); err != nil {
		return err
	}
	if err := mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC); err != nil {
		return err
	}
	if dir := filepath.Dir(s.Cgroup); dir != "/sys/fs" && strings.HasPrefix(dir, "/sys/") {
		if err := mount("cgroup", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(s.Cgroup, 0o755); err != nil {
		return err
	}
	if err := mount("cgroup2", s.Cgroup, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC); err != nil {
		return err
	}
	err := mount("bpf", "/sys/fs/bpf", "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil // a kernel without BPF
	}
	return err
}

// unmountBelow takes away what the machine has mounted at and below a directory, so that
// /proc/self/mountinfo of the host names each thing once.
func unmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			points = append(points, f[4])
		}
	}
	for i := len(points) - 1; i >= 0; i-- {
		if err := unix.Unmount(points[i], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", points[i], err)
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr) error {
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}
