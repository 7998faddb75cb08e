package lab

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// StallLimit is how late a wake-up must be to count as a stall.
	StallLimit     = time.Millisecond
	stallInterval  = time.Millisecond
	stallsPriority = 60 // above the agent's
	stallLine      = "stall %d %d %d"
)

// Stall is a time in which one of the machine's cores did not run a thread of high real-time priority
// that wanted to run: what no program on the machine, the agent least of all, could have done better.
type Stall struct {
	CPU      int
	From, To time.Duration // on the clock of Now: when it should have woken, and when it did
}

// StallSampler watches all cores for stalls, from a process of its own.
type StallSampler struct {
	cmd  *exec.Cmd
	stop io.Closer
	read chan struct{}

	mu     sync.Mutex
	stalls []Stall
	weak   bool
}

// SampleStalls starts a sampler.
func SampleStalls() (*StallSampler, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &StallSampler{cmd: exec.Command(self), read: make(chan struct{})}
	s.cmd.Env = append(os.Environ(), modeVariable+"="+modeStalls)
	s.cmd.Stderr = os.Stderr
	if s.stop, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the stall sampler: %w", err)
	}
	go func() {
		defer close(s.read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.add(lines.Text())
		}
	}()
	return s, nil
}

func (s *StallSampler) add(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var stall Stall
	if n, _ := fmt.Sscanf(line, stallLine, &stall.CPU, &stall.From, &stall.To); n == 3 {
		s.stalls = append(s.stalls, stall)
	} else if line == "weak" {
		s.weak = true
	}
}

// Stop ends the sampler; what it saw can still be asked for. An error means that it had no real-time
// priority, so that its stalls say nothing about the machine, or that it failed.
func (s *StallSampler) Stop() error {
	s.stop.Close()
	<-s.read
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("stop the stall sampler: %w", err)
	}
	if s.weak {
		return fmt.Errorf("sample stalls: no permission for real-time priority %d", stallsPriority)
	}
	return nil
}

// Stalls returns the stalls that overlap the time between two instants, cut to it, by their begin.
func (s *StallSampler) Stalls(from, to time.Duration) []Stall {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Stall
	for _, stall := range s.stalls {
		if stall.To > from && stall.From < to {
			found = append(found, Stall{stall.CPU, max(stall.From, from), min(stall.To, to)})
		}
	}
	slices.SortFunc(found, func(a, b Stall) int { return cmp.Compare(a.From, b.From) })
	return found
}

// Sum returns for how long, between two instants, at least one core was in a stall of more than
// StallLimit.
func (s *StallSampler) Sum(from, to time.Duration) time.Duration {
	var sum time.Duration
	for _, stall := range s.Stalls(from, to) {
		if stall.To > from {
			sum += stall.To - max(stall.From, from)
			from = stall.To
		}
	}
	return sum
}

// stallsMain is the process of a StallSampler. It ends with its standard input.
func stallsMain() int {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		fmt.Fprintln(os.Stderr, "stall sampler: read the cores allowed:", err)
		return 1
	}
	runtime.GOMAXPROCS(allowed.Count() + 2) // each thread below keeps one to itself; see sleepUntil
	for cpu, left := 0, allowed.Count(); left > 0; cpu++ {
		if !allowed.IsSet(cpu) {
			continue
		}
		left--
		go func() {
			runtime.LockOSThread()
			var one unix.CPUSet
			one.Set(cpu)
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				return // the core has just been taken away
			}
			if !beRealTime(stallsPriority) {
				os.Stdout.WriteString("weak\n")
			}
			for {
				due := Now() + stallInterval
				sleepUntil(due)
				if now := Now(); now-due > StallLimit {
					fmt.Printf(stallLine+"\n", cpu, due, now)
				}
			}
		}()
	}
	io.Copy(io.Discard, os.Stdin)
	return 0
}
