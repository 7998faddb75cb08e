package resource

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/io/accounts"
	"baton/internal/io/bounded"
)

// defaultPath is where programs are looked up whose command names no directory.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lockedMemory is the kernel's default limit of memory that a process may lock (8 MiB), in bytes.
const lockedMemory = 8 << 20

// launch says how to start one program.
type launch struct {
	argv  []string
	dir   string
	env   []string
	owner account
	in    *os.File
	out   *os.File // standard output and error
	group *os.File // directory of the cgroup to start in; nil: ours
	// held is called while the program exists but has not run an instruction of its own. If it fails, the
	// program is killed. nil: nothing to do.
	held func(pid int) error
}

// Turns keep a node that takes hundreds of groups over from forking for all of them at once: the agent's loop would wait
// behind them for a processor, for longer than a lease. A program that can't even be started (its file system hangs)
// holds others up for no longer than turnWait.
const (
	turnsAtOnce = 4
	turnWait    = time.Second
)

var turns = make(chan struct{}, turnsAtOnce)

// Turn waits for one, for a second at the most, and returns what ends it. Whatever needs a processor to start a
// resource takes one for so long, and none while it waits for something else.
func Turn() (end func()) {
	late := time.NewTimer(turnWait)
	defer late.Stop()
	select {
	case turns <- struct{}{}:
		return func() { <-turns }
	case <-late.C:
		return func() {}
	}
}

// start starts the program, in a session of its own, and returns its process id and a pidfd.
//
// The agent may run under SCHED_FIFO, with locked memory, a low oom_score_adj and raised limits: the program
// gets none of that. The scheduling class is a thread's and inherited at fork, so the forking thread leaves
// it for that moment; the rest is set while the program is held by ptrace(2) at its first instruction. A
// program that is still held when the agent dies, dies too: none runs that no state file tells of.
func (l launch) start() (pid int, pidfd *os.File, err error) {
	path, err := l.lookup()
	if err != nil {
		return 0, nil, lacking(err)
	}
	defer Turn()()
	runtime.LockOSThread() // ptrace requests must come from the thread that forked
	defer runtime.UnlockOSThread()
	traced, into := true, l.group != nil
	pid, fd, err := l.forkHeld(path, traced, into)
	if errors.Is(err, errKilled) && into {
		into = false
		pid, fd, err = l.forkHeld(path, traced, into)
	}
	if errors.Is(err, unix.EPERM) {
		// Tracing may be forbidden here, or somebody traces us. Then the program runs a moment before all is set.
		traced, into = false, l.group != nil
		pid, fd, err = l.forkHeld(path, traced, into)
	}
	if err != nil {
		return 0, nil, l.explained(err)
	}
	if l.group != nil && !into {
		err = os.WriteFile(filepath.Join(l.group.Name(), "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
	}
	if err == nil {
		err = settle(pid)
	}
	if err == nil && l.held != nil {
		err = l.held(pid)
	}
	if err != nil {
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
		unix.Close(fd)
		return 0, nil, err
	}
	if traced {
		unix.PtraceDetach(pid) // fails only if it was killed meanwhile, which its pidfd tells
	}
	return pid, os.NewFile(uintptr(fd), "pidfd"), nil
}

// errKilled means that a program was killed before it ran. After one write to a cgroup's cgroup.kill, Linux
// (seen on 6.18) kills whatever clone3(2) makes in it, for it compares the kill counts of two different
// cgroups: the forker's and the one to start in. So a cgroup that was killed is removed and made anew, and
// where that is not enough, the program moves there while it is held, which takes longer.
var errKilled = errors.New("was killed before it ran")

// forkHeld is fork, and waits until the program is held, if it is traced.
func (l launch) forkHeld(path string, traced, into bool) (pid, pidfd int, err error) {
	pid, pidfd, err = l.fork(path, traced, into)
	if err != nil || !traced {
		return pid, pidfd, err
	}
	if err := awaitHeld(pid); err != nil {
		unix.Close(pidfd)
		return 0, 0, err
	}
	return pid, pidfd, nil
}

// fork forks and executes the program under the normal scheduling class, into its cgroup if so told.
func (l launch) fork(path string, traced, into bool) (pid, pidfd int, err error) {
	restore, err := leaveRealtime()
	if err != nil {
		return 0, 0, err
	}
	pidfd = -1
	attr := &syscall.ProcAttr{
		Dir:   l.dir,
		Env:   l.env,
		Files: []uintptr{l.in.Fd(), l.out.Fd(), l.out.Fd()},
		Sys: &syscall.SysProcAttr{
			Setsid: true,
			PidFD:  &pidfd,
			Ptrace: traced,
		},
	}
	if os.Geteuid() == 0 || int(l.owner.uid) != os.Geteuid() { // who is not root may still run what is its own
		attr.Sys.Credential = &syscall.Credential{Uid: l.owner.uid, Gid: l.owner.gid, Groups: l.owner.groups}
	}
	if into {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(l.group.Fd())
	}
	pid, _, err = syscall.StartProcess(path, l.argv, attr)
	if missing(err) {
		err = lacking(err)
	}
	runtime.KeepAlive(l)
	if back := restore(); back != nil && err == nil {
		err = back
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
	}
	if err != nil {
		return 0, 0, err
	}
	if pidfd < 0 {
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			unix.Kill(pid, unix.SIGKILL)
			unix.Wait4(pid, nil, 0, nil)
			return 0, 0, fmt.Errorf("pidfd_open: %w", err)
		}
	}
	return pid, pidfd, unix.SetNonblock(pidfd, true)
}

// missing tells whether a program could not be executed because a file is not there, may not be used, or is none that
// can be executed here: it, its interpreter, or a directory.
func missing(err error) bool {
	for _, e := range []error{unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.ELOOP, unix.ESTALE, unix.ENOEXEC, unix.ETXTBSY} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// leaveRealtime puts this thread, which is locked, under SCHED_OTHER with nice 0 and the usual slice until restore is called.
func leaveRealtime() (restore func() error, err error) {
	was, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return nil, fmt.Errorf("read this thread's scheduling class: %w", err)
	}
	normal := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}
	err = unix.SchedSetAttr(0, normal, 0)
	if errors.Is(err, unix.EPERM) && was.Policy == unix.SCHED_NORMAL && was.Nice >= 0 {
		return func() error { return nil }, nil // started under nice(1), without the right to be less so: programs are no better
	}
	if err != nil {
		return nil, fmt.Errorf("leave realtime scheduling to fork: %w", err)
	}
	return func() error {
		was.Size = unix.SizeofSchedAttr
		if err := unix.SchedSetAttr(0, was, 0); err != nil {
			return fmt.Errorf("return to the scheduling class before the fork: %w", err)
		}
		return nil
	}, nil
}

// awaitHeld waits until the program stops at its first instruction.
func awaitHeld(pid int) error {
	for {
		var ws unix.WaitStatus
		if _, err := unix.Wait4(pid, &ws, 0, nil); err == unix.EINTR {
			continue
		} else if err != nil {
			return fmt.Errorf("wait for process %d to be held: %w", pid, err)
		}
		switch {
		case ws.Signaled() && ws.Signal() == unix.SIGKILL:
			return errKilled
		case !ws.Stopped():
			return fmt.Errorf("process %d %s before it ran", pid, describe(ws))
		case ws.StopSignal() == unix.SIGTRAP:
			unix.PtraceSetOptions(pid, unix.PTRACE_O_EXITKILL)
			return nil
		}
		unix.PtraceCont(pid, int(ws.StopSignal()))
	}
}

// settle takes from a program that has not run yet what it inherited from a realtime agent. A limit that the
// kernel does not let us change (an agent without CAP_SYS_RESOURCE was given it, and did not raise it) stays.
func settle(pid int) error {
	score := fmt.Sprintf("/proc/%d/oom_score_adj", pid)
	if text, err := bounded.ReadFile(score, bounded.Small); err == nil && strings.TrimSpace(string(text)) != "0" {
		if err := os.WriteFile(score, []byte("0"), 0); err != nil {
			return err
		}
	}
	for _, limit := range []struct {
		which int
		value uint64
		wrong func(ours uint64) bool // a program should not have ours
	}{
		{unix.RLIMIT_MEMLOCK, lockedMemory, func(ours uint64) bool { return ours > lockedMemory }},
		{unix.RLIMIT_RTPRIO, 0, func(ours uint64) bool { return ours > 0 }},
		{unix.RLIMIT_RTTIME, unix.RLIM_INFINITY, func(ours uint64) bool { return ours < unix.RLIM_INFINITY }},
	} {
		var ours unix.Rlimit
		if err := unix.Prlimit(0, limit.which, nil, &ours); err != nil {
			return fmt.Errorf("read limit %d: %w", limit.which, err)
		}
		if !limit.wrong(ours.Cur) && !limit.wrong(ours.Max) {
			continue
		}
		err := unix.Prlimit(pid, limit.which, &unix.Rlimit{Cur: limit.value, Max: limit.value}, nil)
		if err != nil && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("set limit %d of process %d: %w", limit.which, pid, err)
		}
	}
	return nil
}

// lookup finds the program as execvp(3) would, on the program's own PATH.
func (l launch) lookup() (string, error) {
	if l.dir != "" {
		if info, err := os.Stat(l.dir); err != nil {
			return "", fmt.Errorf("directory: %w", err)
		} else if !info.IsDir() {
			return "", fmt.Errorf("directory %s: not a directory", l.dir)
		}
	}
	name := l.argv[0]
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := l.path()
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("no program %s in %s", name, path)
}

// account is whom a program runs as.
type account struct {
	name, home string
	uid, gid   uint32
	groups     []uint32 // supplementary
}

// lookupAccount resolves a name, or uid[:gid], with its supplementary groups. A bare uid must be known to
// the system, which tells its groups; uid:gid need not be, and has no others.
func lookupAccount(text string) (account, error) {
	id, gid, both := strings.Cut(text, ":")
	if both {
		u, err1 := strconv.ParseUint(id, 10, 32)
		g, err2 := strconv.ParseUint(gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return account{}, fmt.Errorf("user %q is not UID:GID: %w", text, err)
		}
		return account{name: id, home: "/", uid: uint32(u), gid: uint32(g)}, nil
	}
	u, err := accounts.User(id)
	if err != nil {
		return account{}, err
	}
	return account{name: u.Name, home: u.Home, uid: u.UID, gid: u.GID, groups: u.Groups}, nil
}

// stat is what /proc/PID/stat tells (proc_pid_stat(5)).
type stat struct {
	zombie bool
	parent int
	group  int    // process group
	start  uint64 // in ticks of 10 ms since boot, suspended time included; with the pid it names one process
}

func readStat(pid int) (stat, error) {
	text, err := bounded.ReadFile(fmt.Sprintf("/proc/%d/stat", pid), bounded.Small)
	if err != nil {
		return stat{}, err
	}
	// The second field is the program's name in parentheses, which may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat has %d fields after the name, not 20", pid, len(fields))
	}
	parent, err1 := strconv.Atoi(fields[1])
	group, err2 := strconv.Atoi(fields[2])
	start, err3 := strconv.ParseUint(fields[19], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return stat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return stat{zombie: fields[0] == "Z", parent: parent, group: group, start: start}, nil
}

// groupAlive tells whether a process group has members that are not zombies.
func groupAlive(group int) (bool, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil && s.group == group && !s.zombie {
			return true, nil
		}
	}
	return false, nil
}

// ran tells how long a process with this start has run.
func ran(start uint64) time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	d := max(0, time.Duration(now.Nano())-time.Duration(start)*10*time.Millisecond)
	if d < 10*time.Second {
		return d.Truncate(10 * time.Millisecond)
	}
	return d.Truncate(time.Second)
}

// describe words how a process ended.
func describe(ws unix.WaitStatus) string {
	switch {
	case ws.Signaled():
		return "was killed by " + unix.SignalName(ws.Signal())
	case ws.Exited():
		return "exited with status " + strconv.Itoa(ws.ExitStatus())
	}
	return fmt.Sprintf("ended with wait status %#x", uint32(ws))
}

// awaitExit returns when the process of this pidfd has ended, or with an error when the file is closed.
// The runtime's poller waits, so it takes no thread and the notice comes at once.
func awaitExit(pidfd *os.File) error {
	conn, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(func(fd uintptr) bool { return hasExited(int(fd)) })
}

func hasExited(pidfd int) bool {
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0
}
