package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// restartFloor is the least time between two starts of a supervised program, so that one which fails
// at once does not eat the machine.
const restartFloor = 20 * time.Millisecond

// Program is what to run in a host.
type Program struct {
	Args []string // looked up in the PATH; the machine's files are the host's
	Env  []string // added to the lab's own environment
	// Output names the log, in the host's log directory, to which standard output and error are
	// appended; default: the program's base name.
	Output string
	// Final is the exit status after which a supervised program is not started again; 0: there is none.
	Final int
}

// Process is a running program in a host. It is in all of the host's namespaces and in its cgroup.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait, once done is closed
}

// LogPath returns where, on the machine, the output of a program goes.
func (h *Host) LogPath(output string) string { return filepath.Join(h.dir, "log", output) }

// Start starts a program in the host. It is not started again when it ends, nor at the next boot.
func (h *Host) Start(p Program) (*Process, error) {
	b := h.booted()
	if b == nil {
		return nil, fmt.Errorf("start %v on %s: it is off", p.Args, h.config.Name)
	}
	return h.start(b, p)
}

func (h *Host) start(b *boot, p Program) (*Process, error) {
	if p.Output == "" && len(p.Args) > 0 {
		p.Output = filepath.Base(p.Args[0])
	}
	log, err := os.OpenFile(h.LogPath(p.Output), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %v on %s: %w", p.Args, h.config.Name, err)
	}
	defer log.Close()
	return h.spawn(b, p, func(cmd *exec.Cmd) error {
		cmd.Stdout, cmd.Stderr = log, log
		return nil
	})
}

// spawn starts a program from a thread that has joined the host, which makes it a direct child of ours
// under its true process id: no helper stands between.
func (h *Host) spawn(b *boot, p Program, prepare func(*exec.Cmd) error) (*Process, error) {
	fail := func(err error) (*Process, error) {
		return nil, fmt.Errorf("start %v on %s: %w", p.Args, h.config.Name, err)
	}
	if len(p.Args) == 0 {
		return fail(errors.New("no program named"))
	}
	process := &Process{done: make(chan struct{})}
	b.mu.Lock() // against the end of the boot, which waits for what is running
	select {
	case <-b.off:
		b.mu.Unlock()
		return fail(errors.New("the host is off"))
	default:
	}
	b.running.Add(1)
	b.mu.Unlock()
	err := onOwnThread(func() error {
		if err := b.join(); err != nil {
			return err
		}
		process.cmd = exec.Command(p.Args[0], p.Args[1:]...)
		process.cmd.Env = append(os.Environ(), p.Env...)
		process.cmd.SysProcAttr = &syscall.SysProcAttr{
			Setsid: true,
			// The same root as PID 1's cgroup namespace. It is not joined, since a kernel that delegates
			// by namespace then refuses the way from our cgroup to the host's.
			Unshareflags: unix.CLONE_NEWCGROUP,
			UseCgroupFD:  true,
			CgroupFD:     int(b.cgroup.Fd()),
		}
		if err := prepare(process.cmd); err != nil {
			return err
		}
		return process.cmd.Start()
	})
	if err != nil {
		b.running.Done()
		return fail(err)
	}
	go func() {
		process.err = process.cmd.Wait()
		close(process.done)
		b.running.Done()
	}()
	return process, nil
}

// join puts the calling thread into the host's namespaces. It never comes back.
func (b *boot) join() error {
	// A thread that shares its root and working directory can't change its mount namespace (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the thread's root: %w", err)
	}
	for _, s := range b.spaces {
		if err := unix.Setns(int(s.file.Fd()), s.kind); err != nil {
			return fmt.Errorf("join %s: %w", s.file.Name(), err)
		}
	}
	return nil
}

// Command runs a program in the host until it ends, or ctx does, and returns its standard output. An
// error carries its standard error.
func (h *Host) Command(ctx context.Context, args ...string) (string, error) {
	b := h.booted()
	if b == nil {
		return "", fmt.Errorf("run %v on %s: it is off", args, h.config.Name)
	}
	var out, errOut bytes.Buffer
	p, err := h.spawn(b, Program{Args: args}, func(cmd *exec.Cmd) error {
		cmd.Stdout, cmd.Stderr = &out, &errOut
		cmd.WaitDelay = time.Second // a child that keeps the pipe must not keep us
		return nil
	})
	if err != nil {
		return "", err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Signal(syscall.SIGKILL)
		<-p.done
		return out.String(), fmt.Errorf("run %v on %s: %w", args, h.config.Name, ctx.Err())
	}
	if p.err != nil {
		return out.String(), fmt.Errorf("run %v on %s: %w: %s", args, h.config.Name, p.err, bytes.TrimSpace(errOut.Bytes()))
	}
	return out.String(), nil
}

// PID returns the process id, as the machine counts.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal. A process that has ended is no error.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to process %d: %w", s, p.PID(), err)
	}
	return nil
}

// Freeze stops the process (SIGSTOP).
func (p *Process) Freeze() error { return p.Signal(syscall.SIGSTOP) }

// Thaw lets it go on (SIGCONT).
func (p *Process) Thaw() error { return p.Signal(syscall.SIGCONT) }

// Kill ends it at once (SIGKILL): a crash.
func (p *Process) Kill() error { return p.Signal(syscall.SIGKILL) }

// Done is closed when the process has ended and been waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the process to end. It returns nil for exit status 0, else an *exec.ExitError.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Service is a supervised program: started again at once whenever it ends, as systemd does with
// Restart=always, RestartSec=0 and no start limit. It ends for good with its final exit status, Stop or the
// host's power; a later boot does not start it (see HostConfig.OnBoot).
type Service struct {
	host    *Host
	program Program
	stop    chan struct{}
	once    sync.Once
	done    chan struct{}

	mu      sync.Mutex
	process *Process
	starts  int
}

// Supervise starts a program and keeps it running.
func (h *Host) Supervise(p Program) (*Service, error) {
	b := h.booted()
	if b == nil {
		return nil, fmt.Errorf("supervise %v on %s: it is off", p.Args, h.config.Name)
	}
	first, err := h.start(b, p)
	if err != nil {
		return nil, err
	}
	s := &Service{host: h, program: p, stop: make(chan struct{}), done: make(chan struct{}), process: first, starts: 1}
	b.mu.Lock()
	b.services = append(b.services, s)
	b.mu.Unlock()
	go s.keep(b)
	return s, nil
}

func (s *Service) keep(b *boot) {
	defer close(s.done)
	for {
		started := time.Now()
		p := s.Process()
		<-p.done
		if final := s.current().Final; final != 0 && p.cmd.ProcessState.ExitCode() == final {
			return
		}
		wait := max(0, restartFloor-time.Since(started))
		for {
			select {
			case <-s.stop:
				return
			case <-b.off:
				return
			case <-time.After(wait):
			}
			if s.restart(b) {
				break
			}
			wait = restartFloor
		}
	}
}

// restart starts the program again. A failure (the binary is just being replaced, say) is tried again.
func (s *Service) restart(b *boot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stop: // Stop has signalled the process before; a new one would not know
		return true
	default:
	}
	p, err := s.host.start(b, s.program)
	if err != nil {
		return false
	}
	s.process, s.starts = p, s.starts+1
	return true
}

// Process returns the process that runs now, or that ran last: for Freeze, Kill and Signal.
func (s *Service) Process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

func (s *Service) current() Program {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.program
}

// Change makes the service another program from its next start on.
func (s *Service) Change(p Program) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.program = p
}

// Starts returns how often the program was started.
func (s *Service) Starts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.starts
}

// Stop ends the service for good: SIGTERM, and SIGKILL when ctx ends first, which is then the error.
func (s *Service) Stop(ctx context.Context) error {
	s.once.Do(func() {
		s.mu.Lock()
		close(s.stop)
		s.mu.Unlock()
	})
	p := s.Process()
	err := p.Signal(syscall.SIGTERM)
	p.Thaw() // a frozen process would not see it
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill()
		<-p.done
		err = fmt.Errorf("stop %v on %s: SIGTERM did not end it, killed: %w", s.program.Args, s.host.config.Name, ctx.Err())
	}
	<-s.done
	return err
}
