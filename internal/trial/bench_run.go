package trial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/lab"
)

// Limits of every wait, so that a harness at fault ends with an error.
const (
	steadyLimit  = 30 * time.Second
	recoverLimit = 15 * time.Second // beyond the budget
	hostLimit    = 20 * time.Second // to power a host off or on
	closeLimit   = 30 * time.Second
	probeLimit   = 5 * time.Second
	commandLimit = 20 * time.Second
)

// Pauses of a run.
const (
	lookEvery   = 25 * time.Millisecond  // at the probes
	pollPause   = 100 * time.Millisecond // between looks at the status, which cost a process each
	restartTime = time.Second            // that a restarted agent is given, besides two budgets
	quietTime   = 300 * time.Millisecond // of probing before the fault, at least
	afterTime   = 200 * time.Millisecond // of probing after recovery, and after healing
	spacing     = time.Millisecond       // of the UDP client's requests: that much is no outage
	localEvery  = 2 * time.Millisecond   // the local client's requests, which cost the same cores
)

// servicePriority is the service's realtime priority: above all that has none, below the agent's.
const servicePriority = 5

// secondGroup keeps the standby busy, so that coordination does not move there.
const secondGroup = `  other:
    nodes: [beta, alpha]
    resources:
      - vip: 10.77.0.60/24
`

// secondName is its name.
const secondName = "other"

// run is one run under way.
type run struct {
	fault        *fault
	takeover     time.Duration
	owner, other string // before the fault
	epoch        string
	coordinator  string
	udp, tcp     *lab.Probe
	local        *lab.Probe // nil: none
	began        time.Duration
	beganWall    time.Time
	measured     time.Duration // the end of what counts as the fault's outage
	logs         map[string]int64
	starts       int // of the owner's agent, before the fault
	healed       time.Duration
	after        GroupStatus
}

// once makes one run: steady, fault, recovery, healed.
func (b *bench) once(ctx context.Context, takeover time.Duration, f *fault, n int) (result BenchTrial, err error) {
	if err := b.ready(takeover, f.coordinator); err != nil {
		return result, err
	}
	r := &run{fault: f, takeover: takeover, logs: make(map[string]int64)}
	if err := b.settle(ctx, r); err != nil {
		return result, err
	}
	result.Owner, result.Coordinator = r.owner, r.coordinator
	if err := b.startProbes(r); err != nil {
		return result, err
	}
	defer r.stopProbes()
	// A fault has no reason to come at the same phase of the heartbeats each time.
	if err := pause(ctx, quietTime+takeover/2+rand.N(100*time.Millisecond)); err != nil {
		return result, err
	}
	for _, name := range Nodes {
		r.logs[name] = size(b.trial.Host(name).LogPath("agent"))
	}
	r.starts = b.trial.Agent(r.owner).Starts()
	r.began, r.beganWall = lab.Now(), time.Now()
	if err := f.inject(b, ctx, r); err != nil {
		return result, fmt.Errorf("%s of %s: %w", f.text, r.owner, err)
	}
	if err := b.awaitRecovery(ctx, r); err != nil {
		return result, err
	}
	if f.heal != nil {
		if err := f.heal(b, r); err != nil {
			return result, fmt.Errorf("heal %s after %s: %w", r.owner, f.text, err)
		}
	}
	if r.after, _, err = b.steady(ctx); err != nil {
		return result, fmt.Errorf("after %s of %s was healed: %w", f.text, r.owner, err)
	}
	if err := pause(ctx, afterTime); err != nil {
		return result, err
	}
	b.evaluate(r, &result)
	err = b.keepLogs(r, &result, n)
	if f.bans {
		err = errors.Join(err, b.close())
	}
	return result, err
}

func (b *bench) startProbes(r *run) error {
	for _, name := range []string{Alpha, Beta} {
		if err := preferService(b.trial.Host(name)); err != nil {
			return err
		}
	}
	var err error
	client := b.trial.Host(Client)
	if r.udp, err = client.Probe(lab.ProbeConfig{Target: VIP, Interval: spacing}); err != nil {
		return err
	}
	if r.tcp, err = client.Probe(lab.ProbeConfig{Target: VIP, TCP: true}); err != nil {
		r.stopProbes()
		return err
	}
	probes := []*lab.Probe{r.udp, r.tcp}
	if r.fault.local {
		if r.local, err = b.trial.Host(r.owner).Probe(lab.ProbeConfig{Target: VIP, Interval: localEvery}); err != nil {
			r.stopProbes()
			return err
		}
		probes = append(probes, r.local)
	}
	since := lab.Now()
	for _, p := range probes {
		if err := p.Await(probeLimit, func(rec lab.Record) bool { return rec.AnsweredSince(since, r.owner) }); err != nil {
			r.stopProbes()
			return fmt.Errorf("before the fault %s serves, by its status, but answers nobody: %w", r.owner, err)
		}
	}
	return nil
}

// stopProbes ends them; again, it does nothing.
func (r *run) stopProbes() {
	for _, p := range []*lab.Probe{r.udp, r.tcp, r.local} {
		if p != nil {
			p.Stop()
		}
	}
	r.udp, r.tcp, r.local = nil, nil, nil
}

// awaitRecovery waits until clients are served again: by the other node, or, where nothing may move, with
// the agent back.
func (b *bench) awaitRecovery(ctx context.Context, r *run) error {
	deadline := time.Now().Add(r.takeover + recoverLimit)
	server, since := r.other, r.began
	if r.fault.stays {
		for b.trial.Agent(r.owner).Starts() == r.starts {
			if time.Now().After(deadline) {
				return fmt.Errorf("the agent of %s was not started again", r.owner)
			}
			if err := pause(ctx, lookEvery); err != nil {
				return err
			}
		}
		// Looking at the status meanwhile would cost the very cores that the agent starts on.
		if err := pause(ctx, restartTime+3*r.takeover/2); err != nil {
			return err
		}
		server, since = "", lab.Now()
	}
	for {
		if err := pause(ctx, lookEvery); err != nil {
			return err
		}
		u, t := r.udp.Record(), r.tcp.Record()
		if u.AnsweredSince(since, server) && t.AnsweredSince(since, server) {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s of %s clients are not served by %s: UDP %v, TCP %v", r.fault.text, r.owner, server, u, t)
		}
	}
	err := pause(ctx, afterTime)
	r.measured = lab.Now()
	return err
}

func (b *bench) powerOff(_ context.Context, r *run) error {
	return within(hostLimit, "power off "+r.owner, b.trial.Host(r.owner).PowerOff)
}

func (b *bench) boot(r *run) error {
	return within(hostLimit, "boot "+r.owner, b.trial.Host(r.owner).Boot)
}

func (b *bench) pullCable(_ context.Context, r *run) error {
	return b.trial.Lab.CutCarrier(r.owner, LAN)
}

func (b *bench) cutOff(_ context.Context, r *run) error { return b.trial.Lab.CutSilent(r.owner, "") }

func (b *bench) mend(r *run) error { return b.trial.Lab.Heal(r.owner, "") }

func (b *bench) freeze(_ context.Context, r *run) error {
	return b.trial.Agent(r.owner).Process().Freeze()
}

func (b *bench) thaw(r *run) error { return b.trial.Agent(r.owner).Process().Thaw() }

func (b *bench) killAgent(_ context.Context, r *run) error {
	return b.trial.Agent(r.owner).Process().Kill()
}

func (b *bench) switchOver(ctx context.Context, r *run) error {
	return b.move(ctx, r.owner, Group, r.other)
}

func (b *bench) killService(_ context.Context, r *run) error {
	pids, err := servicePIDs(b.trial.Host(r.owner))
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill the service, process %d: %w", pid, err)
		}
	}
	return nil
}

// preferService gives the service of a host realtime priority. All hosts share the machine's few cores,
// and what the service waits for one is no outage that a failover manager could shorten.
func preferService(h *lab.Host) error {
	pids, err := servicePIDs(h)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return err
		}
		for _, t := range threads {
			tid, err := strconv.Atoi(filepath.Base(t))
			if err != nil {
				return err
			}
			a := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: servicePriority}
			if err := unix.SchedSetAttr(tid, &a, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("give the service on %s realtime priority: %w", h.Name(), err)
			}
		}
	}
	return nil
}

// servicePIDs finds the service's processes, by the machine's count, among those of a host.
func servicePIDs(h *lab.Host) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(h.CgroupDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil // a cgroup may go while we look
		}
		text, _ := os.ReadFile(path)
		for _, word := range strings.Fields(string(text)) {
			args, _ := os.ReadFile("/proc/" + word + "/cmdline")
			if pid, err := strconv.Atoi(word); err == nil && bytes.Contains(args, []byte("\x00-port\x00")) {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	if err == nil && len(pids) == 0 {
		err = fmt.Errorf("%s has no process of the service", h.Name())
	}
	return pids, err
}

// move runs `baton switch` on a node.
func (b *bench) move(ctx context.Context, on, group, to string) error {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	out, err := b.trial.Run(ctx, on, "switch", group, "--to", to)
	if err != nil {
		return fmt.Errorf("switch %s to %s: %w: %s", group, to, err, out)
	}
	return nil
}

// within runs f, and returns an error when it takes longer than limit; then f goes on alone.
func within(limit time.Duration, what string, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("%s: not done after %v", what, limit)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
