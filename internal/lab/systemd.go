package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// systemdPath is the program that becomes PID 1 of a host with HostConfig.Systemd.
const systemdPath = "/lib/systemd/systemd"

// goOn is what the lab tells such a host's PID 1 when its links are there.
const goOn = "go on\n"

// ownCgroup is the cgroup, in such a host's, of what the lab starts there: systemd has the rest for itself, and
// processes in the root would keep it from dividing resources.
const ownCgroup = "lab"

// rootMade is written last when such a host's root is made.
const rootMade = "etc/fstab"

// etcFiles are what such a host's /etc has of the machine's.
var etcFiles = []string{"passwd", "group", "shadow", "gshadow", "nsswitch.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
	"alternatives", "os-release", "login.defs", "protocols", "services", "localtime", "ssl", "profile"}

// masked are units that have nothing to do in a host without hardware, or would reach for the machine's kernel.
var masked = []string{
	"dev-hugepages.mount", "dev-mqueue.mount", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount",
	"sys-kernel-debug.mount", "sys-kernel-tracing.mount", "proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service",
	"systemd-modules-load.service", "systemd-sysctl.service", "systemd-random-seed.service", "systemd-pcrphase.service",
	"systemd-pcrphase-sysinit.service", "systemd-repart.service", "systemd-firstboot.service", "kmod-static-nodes.service",
	"systemd-remount-fs.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-udevd.service",
	"systemd-udev-trigger.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-logind.service",
	"systemd-timesyncd.service", "systemd-tmpfiles-clean.timer", "systemd-initctl.socket", "systemd-journald-audit.socket",
	"systemd-ask-password-wall.path", "systemd-ask-password-console.path", "systemd-user-sessions.service",
	"dbus.service", "dbus.socket", "getty.target",
}

// networkUnit stands for what configures a network: its stop takes the links down, as that of ifupdown does.
const networkUnit = `[Unit]
Description=Links of the lab
Before=network.target network-online.target
Wants=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
%s
[Install]
WantedBy=multi-user.target network-online.target
`

// makeRoot writes the root of a host with systemd, once: nothing of it is the machine's but /usr, which is
// shown (setup.systemd), and copies of some files of /etc.
func (h *Host) makeRoot() error {
	root := h.Disk("/")
	if _, err := os.Stat(filepath.Join(root, rootMade)); err == nil {
		return nil
	}
	if _, err := os.Stat(systemdPath); err != nil {
		return fmt.Errorf("its PID 1 is systemd, which is not here (apt-get install systemd): %w", err)
	}
	for _, dir := range []string{"dev", "etc/systemd/system/multi-user.target.wants", "etc/systemd/system/network-online.target.wants",
		"etc/tmpfiles.d", "proc", "root", "run", "sys", "tmp", "usr/local", "var/log/journal", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"bin", "lib", "lib32", "lib64", "libx32", "sbin"} {
		if to, err := os.Readlink("/" + name); err == nil {
			if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
				return err
			}
		}
	}
	for _, name := range etcFiles {
		out, err := exec.Command("cp", "-a", "/etc/"+name, filepath.Join(root, "etc")).CombinedOutput()
		if _, missing := os.Lstat("/etc/" + name); err != nil && !errors.Is(missing, fs.ErrNotExist) {
			return fmt.Errorf("copy /etc/%s: %w: %s", name, err, out)
		}
	}
	units := filepath.Join(root, "etc/systemd/system")
	for _, name := range masked {
		if err := os.Symlink("/dev/null", filepath.Join(units, name)); err != nil {
			return err
		}
	}
	return h.makeEtc(root, units)
}

func (h *Host) makeEtc(root, units string) error {
	var down strings.Builder
	for _, link := range h.Networks() {
		fmt.Fprintf(&down, "ExecStop=/sbin/ip link set dev %s down\n", link)
	}
	for path, text := range map[string]string{
		"etc/hostname":                           h.config.Name + "\n",
		"etc/hosts":                              "127.0.0.1 localhost\n",
		"etc/machine-id":                         strings.ReplaceAll(newUUID(), "-", "") + "\n",
		"etc/systemd/journald.conf":              "[Journal]\nSystemMaxUse=16M\n",
		"etc/systemd/system/lab-network.service": fmt.Sprintf(networkUnit, down.String()),
	} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for link, to := range map[string]string{
		"default.target":                                  "/lib/systemd/system/multi-user.target",
		"../../tmpfiles.d/tmp.conf":                       "/dev/null", // it empties /tmp at boot
		"multi-user.target.wants/lab-network.service":     "../lab-network.service",
		"network-online.target.wants/lab-network.service": "../lab-network.service",
	} {
		if err := os.Symlink(to, filepath.Join(units, link)); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o1777); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, rootMade), nil, 0o644)
}

// systemd sets up a host whose root is its own and whose PID 1 is systemd, and becomes that, once the lab says
// that the links are there. It returns only with an error.
func (s setup) systemd(in *bufio.Reader, ready func()) error {
	if err := s.enterRoot(); err != nil {
		return err
	}
	ready()
	if order, err := in.ReadString('\n'); err != nil || order != goOn {
		return fmt.Errorf("the lab says %q: %w", order, err)
	}
	if err := dieWithLab(); err != nil {
		return err
	}
	// As container managers do: systemd leaves alone what is the machine's.
	env := []string{"container=lab", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	return fmt.Errorf("become systemd: %w", syscall.Exec(systemdPath, []string{systemdPath}, env))
}

// dieWithLab makes the kernel kill what this thread becomes by execve when the lab ends: systemd does not
// watch the pipe.
func dieWithLab() error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("ask for the kernel's signal: %w", err)
	}
	pipe := []unix.PollFd{{Fd: 3}}
	if n, err := unix.Poll(pipe, 0); err != nil || n > 0 {
		return fmt.Errorf("the lab has ended: %w", err)
	}
	unix.CloseOnExec(3)
	return nil
}

// enterRoot mounts the root and what belongs into it, and enters it.
func (s setup) enterRoot() error {
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set the hostname: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	at := func(path string) string { return filepath.Join(s.Root, path) }
	if err := mount(s.Disk, s.Root, "", unix.MS_BIND); err != nil {
		return err
	}
	for _, path := range append([]string{"/usr"}, s.Show...) {
		if err := show(path, at(path)); err != nil {
			return err
		}
	}
	if err := mount(filepath.Join(s.Disk, "usr/local"), at("/usr/local"), "", unix.MS_BIND); err != nil {
		return err
	}
	const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		source, path, kind string
		flags              uintptr
	}{
		{"proc", "/proc", "proc", plain},
		{s.BootID, "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND},
		{"sysfs", "/sys", "sysfs", plain | unix.MS_RDONLY},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", plain},
		{"bpf", "/sys/fs/bpf", "bpf", plain},
		{"dev", "/dev", "tmpfs", unix.MS_NOSUID},
		{"run", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := mount(m.source, at(m.path), m.kind, m.flags); err != nil && m.kind != "bpf" { // a kernel without
			return err
		}
	}
	if err := makeDevices(at("/dev")); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	if err := unix.Chdir(s.Root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil { // the old root is now on top of the new one
		return fmt.Errorf("enter the root %s: %w", s.Root, err)
	}
	return unix.Unmount(".", unix.MNT_DETACH)
}

// show mounts a file or directory of the machine read-only.
func show(path, at string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(at, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(at), 0o755); err == nil {
		err = os.WriteFile(at, nil, 0o644)
	}
	if err != nil {
		return fmt.Errorf("make a place to mount on: %w", err)
	}
	if err := mount(path, at, "", unix.MS_BIND); err != nil {
		return err
	}
	return mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY)
}

// makeDevices fills a host's own /dev. The machine's console and disks are not in it.
func makeDevices(dev string) error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		at := filepath.Join(dev, name)
		if err := os.WriteFile(at, nil, 0o666); err != nil {
			return err
		}
		if err := mount("/dev/"+name, at, "", unix.MS_BIND); err != nil {
			return err
		}
	}
	for name, kind := range map[string]string{"pts": "devpts", "shm": "tmpfs"} {
		at := filepath.Join(dev, name)
		if err := os.Mkdir(at, 0o755); err != nil {
			return err
		}
		if err := mount(kind, at, kind, unix.MS_NOSUID|unix.MS_NOEXEC); err != nil {
			return err
		}
	}
	return errors.Join(os.Symlink("pts/ptmx", filepath.Join(dev, "ptmx")), os.Symlink("/proc/self/fd", filepath.Join(dev, "fd")))
}

// beginSystemd lets a host's PID 1 become systemd, now that its links are there, and waits for nothing.
func (h *Host) beginSystemd(b *boot) error {
	if _, err := io.WriteString(b.lifeline, goOn); err != nil {
		return fmt.Errorf("let systemd begin: %w", err)
	}
	place := filepath.Join(h.cgroup, ownCgroup)
	if err := os.Mkdir(place, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	own, err := os.Open(place)
	if err != nil {
		return err
	}
	b.cgroup.Close()
	b.cgroup = own
	go h.follow(b)
	return nil
}

// follow waits for the end of a boot, and does what a machine does when its systemd has shut it down: go off,
// or boot again. In a PID namespace, reboot(2) ends PID 1 by SIGHUP, and poweroff by SIGINT.
func (h *Host) follow(b *boot) {
	<-b.gone
	status, ok := b.init.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != unix.SIGHUP && status.Signal() != unix.SIGINT {
		return
	}
	h.power.Lock()
	h.mu.Lock()
	same := h.boot == b
	if same {
		h.boot = nil
	}
	h.mu.Unlock()
	var err error
	if same {
		err = h.powerOff(b)
	}
	h.power.Unlock()
	if same && err == nil && status.Signal() == unix.SIGHUP {
		err = h.Boot()
	}
	if err != nil {
		_ = appendFile(filepath.Join(h.dir, "log", "console"), err.Error()+"\n") // nobody waits for it
	}
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text)
	return errors.Join(err, f.Close())
}
