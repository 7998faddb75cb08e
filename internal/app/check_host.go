package app

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"baton/internal/io/bounded"
	"baton/internal/io/gate"
)

// checkHost looks at the kernel and at what this user may do.
func checkHost(u *checkup) {
	if os.Geteuid() != 0 {
		u.add("user", warning, "sudo baton check", "not run as root: what follows may look worse than it is")
	}
	checkGate(u)
	checkCgroup(u)
	checkClocks(u)
	checkMemory(u)
	checkSnapshots(u)
}

// checkGate opens a gate under a name of its own, which guards nothing, and removes it again.
func checkGate(u *checkup) {
	dir, err := os.MkdirTemp("", "baton-check-gate")
	if err != nil {
		u.add("gate", warning, "", "make a place to try the gate in: %v", err)
		return
	}
	defer os.Remove(dir)
	try := func(mechanism string) (what, why string, err error) {
		g, err := gate.Open(gate.Options{Cluster: "check", Node: fmt.Sprintf("check-%d", os.Getpid()), Prefer: mechanism,
			Dir: filepath.Join(dir, "pins"), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return "", "", err
		}
		what, why = g.Describe(), g.Why()
		return what, why, g.Remove()
	}
	what, why, err := try(gate.PreferEBPF)
	if err == nil && why == "" {
		u.add("gate", pass, "", "the kernel can cut this node off at an absolute deadline (%s)", what)
		return
	}
	if err == nil {
		checkObstacles(u, what, why)
		return
	}
	what, _, second := try(gate.PreferNFTables)
	if second == nil {
		u.add("gate", warning, "allow the agent bpf() (CAP_BPF, CAP_NET_ADMIN; Linux 5.8 or later)",
			"%s: its timeout counts from the write, so an agent that is stopped between clock and write can leave the gate open for a lease too long; eBPF is refused: %v", what, err)
		return
	}
	u.add("gate", bad, "run as root, with the kernel's nf_tables or sch_clsact and cls_bpf", "neither eBPF nor nftables works here, so nothing cuts this node off when its lease ends: %v; %v", err, second)
}

// checkObstacles tells where others have what a gate at clsact needs: there nftables guards as well.
func checkObstacles(u *checkup, what, why string) {
	obstacles, err := gate.Obstacles()
	switch {
	case err != nil:
		u.add("gate", warning, "", "%s (%s); whether it can be on every interface is not known: %v", what, why, err)
	case len(obstacles) > 0:
		u.add("gate", warning, "have whoever put them there use clsact, and filters of a priority above 1",
			"%s (%s), and nftables beside it, whose timeout counts from the write, since others are in its place: %s", what, why, strings.Join(obstacles, "; "))
	default:
		u.add("gate", pass, "", "the kernel can cut this node off at an absolute deadline (%s; %s)", what, why)
	}
}

// cgroupMount finds the cgroup v2 hierarchy in the text of /proc/self/mountinfo (proc(5)).
func cgroupMount(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		before, after, found := strings.Cut(line, " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if found && len(place) >= 5 && len(kind) > 0 && kind[0] == "cgroup2" {
			return place[4]
		}
	}
	return ""
}

func checkCgroup(u *checkup) {
	text, err := bounded.ReadFile("/proc/self/mountinfo", bounded.Proc)
	if err != nil {
		u.add("cgroup", warning, "", "%v", err)
		return
	}
	at := cgroupMount(string(text))
	if at == "" {
		u.add("cgroup", bad, "mount -t cgroup2 none /sys/fs/cgroup/unified", "no cgroup v2 is mounted: processes of a group can't be held together, nor stopped to the last one")
		return
	}
	dir := filepath.Join(at, fmt.Sprintf("baton-check-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		u.add("cgroup", bad, "run as root; a container needs its cgroup delegated (Delegate=yes)", "cgroup v2 at %s can't be written: %v", at, err)
		return
	}
	_, err = os.Stat(filepath.Join(dir, "cgroup.kill"))
	if err = errors.Join(err, os.Remove(dir)); err != nil {
		u.add("cgroup", warning, "Linux 5.14 or later stops all of a cgroup's processes at once", "cgroup v2 at %s: %v", at, err)
		return
	}
	u.add("cgroup", pass, "", "cgroup v2 at %s", at)
}

// checkSnapshots names what remains where this host can be set back to a former state of itself.
func checkSnapshots(u *checkup) {
	text, err := bounded.ReadFile("/proc/cpuinfo", bounded.Proc)
	if err != nil || !virtual(string(text)) {
		return
	}
	u.add("snapshots", pass, "never set two nodes back at once, nor one while another is down",
		"a virtual machine: if it or its disk is set back to a snapshot, it takes no part and begins anew, as long as a node is heard that remembers")
}

// virtual tells from the text of /proc/cpuinfo whether this is a virtual machine (cpuid's hypervisor bit; x86 only).
func virtual(cpuinfo string) bool {
	for line := range strings.Lines(cpuinfo) {
		if name, flags, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "flags" {
			return strings.Contains(" "+strings.TrimSpace(flags)+" ", " hypervisor ")
		}
	}
	return false
}

func checkClocks(u *checkup) {
	source, err := bounded.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource", bounded.Proc)
	if err != nil {
		u.add("clock", warning, "", "the clock source is not known: %v", err)
	} else {
		v, hint, text := judgeClock(strings.TrimSpace(string(source)))
		u.add("clock", v, hint, "%s", text)
	}
	for _, name := range []string{"/etc/chrony/chrony.conf", "/etc/chrony.conf"} {
		text, err := bounded.ReadFile(name, bounded.Proc)
		if err != nil {
			continue
		}
		v, hint, found := judgeChrony(string(text))
		u.add("slew", v, hint, "%s: %s", name, found)
		return
	}
	u.add("slew", pass, "", "no chrony; other time daemons bend the clock by 0.05 %% at most, which the leases allow for")
}

// judgeClock tells what a clock source does to a lease (protocol.md, "Clocks").
func judgeClock(source string) (v verdict, hint, text string) {
	switch source {
	case "kvm-clock", "xen":
		return warning, "boot with clocksource=tsc where the host's tsc is stable, or give the node a fence",
			"clock source " + source + " stops while the hypervisor pauses this guest: a paused guest's lease lives on when it continues"
	case "tsc", "arch_sys_counter", "hyperv_clocksource_tsc_page":
		return pass, "", "clock source " + source
	}
	return warning, "see dmesg for why the kernel does not trust the tsc", "clock source " + source + " is slow to read, and each packet and each deadline reads it"
}

// chronySlew is chrony's default maxslewrate in parts per million (chrony.conf(5)).
const chronySlew = 83333.333

// allowedSlew is what a lease allows for at its end, in parts per million.
const allowedSlew = 1000

// judgeChrony reads how fast chrony may bend the clocks that the kernel's gate goes by.
func judgeChrony(text string) (v verdict, hint, found string) {
	rate := chronySlew
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) >= 2 && strings.EqualFold(f[0], "maxslewrate") {
			if r, err := strconv.ParseFloat(f[1], 64); err == nil {
				rate = r
			}
		}
	}
	if rate <= allowedSlew {
		return pass, "", fmt.Sprintf("chrony bends the clock by %.4g %% at most", rate/1e4)
	}
	return warning, fmt.Sprintf("put a line \"maxslewrate %d\" into it", allowedSlew),
		fmt.Sprintf("chrony may bend the clock by %.2g %%; if that begins while the agent is frozen, its gate closes up to that part of a lease late", rate/1e4)
}

// checkMemory tells whether the agent may keep its pages.
func checkMemory(u *checkup) {
	status, err := bounded.ReadFile("/proc/self/status", bounded.Proc)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		u.add("memory", warning, "", "%v", err)
		return
	}
	var limit unix.Rlimit
	err = unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	if hasCapability(string(status), unix.CAP_IPC_LOCK) || err == nil && limit.Cur == unix.RLIM_INFINITY {
		u.add("memory", pass, "", "the agent may lock its memory")
		return
	}
	u.add("memory", warning, "LimitMEMLOCK=infinity in the unit, or root", "the agent may not lock its memory: reclaim may delay a takeover")
}

// hasCapability reads the effective capabilities out of the text of /proc/self/status (proc(5)).
func hasCapability(status string, capability uint) bool {
	for line := range strings.Lines(status) {
		if text, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			return err == nil && set>>capability&1 == 1
		}
	}
	return false
}
