package resource

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// Process is the kind "process": a program that runs in the foreground.
//
// The program outlives the agent. It has its own session, its own cgroup, and its output goes to journald
// or a file, so nothing of it hangs on us. What a later agent must know to adopt it (pid and start time,
// which together name one process; epoch; role; a hash of the command) stands in a state file in RunDir,
// written while the program exists but has not run an instruction yet. Its end is noticed through a pidfd,
// at once, whether it is our child or adopted. Its cgroup is what makes a stop certain: everything that it
// forked is in there, is killed together, and Stop returns nil only when the kernel says that the cgroup is
// empty. When the main program ends, the rest is killed too: a command must not go to the background.
// Without cgroup v2 the process group takes the cgroup's place, and a program that leaves it escapes.
//
// A hot standby runs already, so taking over is writing two small files. Its environment is that of its
// start, and so is BATON_EPOCH; the file that BATON_STATE_FILE names holds "serving EPOCH" or "standby" and
// is replaced at each change of role.
type Process struct{}

const (
	startTimeout  = 30 * time.Second
	stopTimeout   = 10 * time.Second
	readyInterval = 50 * time.Millisecond
	readyTimeout  = time.Second
	wellInterval  = 2 * time.Second
	wellTimeout   = 2 * time.Second
	wellFailures  = 3
	// killMargin is the longest time before an operation's deadline that a stop ceases to be gentle.
	killMargin = time.Second
	// dying is how long a probe waits for the death of processes that were killed.
	dying = 200 * time.Millisecond
	// escapedInterval is the time between two looks whether a process group is gone, where no cgroup tells.
	escapedInterval = 5 * time.Millisecond
)

// Spec implements Kind.
func (Process) Spec() cluster.KindSpec {
	return cluster.KindSpec{
		Name: "process",
		Doc:  "A program that runs in the foreground; it acts on the world through its addresses and ports alone.",
		Main: "command",
		Fields: []cluster.FieldSpec{
			{Name: "command", Type: cluster.FieldList, Required: true, Doc: "the program and its arguments; it must stay in the foreground"},
			{Name: "user", Type: cluster.FieldString, Required: true, Doc: "whom it runs as: a name, or UID[:GID]; one of a directory (LDAP, SSSD) is found by getent"},
			{Name: "directory", Type: cluster.FieldString, Doc: "its working directory", Default: "/"},
			{Name: "environment", Type: cluster.FieldEnv, Doc: "added to a clean environment (PATH, HOME, USER, LANG) and BATON_CLUSTER, _NODE, _GROUP, _RESOURCE, _EPOCH (of its start), _STATE_FILE (holds \"serving EPOCH\" or \"standby\")"},
			{Name: "ready", Type: cluster.FieldMap, Live: true, Doc: "when its start is complete; without it, as soon as it runs",
				Fields: checkFields(readyInterval, readyTimeout)},
			{Name: "healthy", Type: cluster.FieldMap, Live: true, Doc: "whether it still works; without it, as long as it runs",
				Fields: checkFields(wellInterval, wellTimeout, cluster.FieldSpec{
					Name: "failures", Type: cluster.FieldInt, Doc: "so many in a row mean that it is ill", Default: int64(wellFailures)})},
			{Name: "ports", Type: cluster.FieldPorts, Live: true, Doc: "local ports that the gate guards"},
			{Name: "stop_signal", Type: cluster.FieldString, Live: true, Doc: "sent to its process group to stop it", Default: "SIGTERM"},
			{Name: "stop_timeout", Type: cluster.FieldDuration, Live: true, Doc: "after this it is killed", Default: stopTimeout},
			{Name: "start_timeout", Type: cluster.FieldDuration, Live: true, Doc: "within this it must be ready", Default: startTimeout},
			{Name: "effects", Type: cluster.FieldString, Doc: "where it acts on the world", Default: "address", Choices: []string{"address"}},
		},
		Effects:      cluster.EffectsAddress,
		Depths:       []cluster.Depth{cluster.Hot, cluster.Cold},
		StartTimeout: startTimeout,
		StopTimeout:  stopTimeout,
		Guards: func(fields map[string]any) ([]string, []cluster.Port, error) {
			ports, err := field[[]cluster.Port](fields, "ports", nil)
			return nil, ports, err
		},
		Faults: processFaults,
	}
}

// New implements Kind.
func (Process) New(env Env) (Resource, error) {
	p := newProcess(env)
	if err := p.configure(env.Spec.Fields); err != nil {
		return nil, err
	}
	return p.open()
}

// Leftover implements Kind.
func (Process) Leftover(env Env) (Resource, error) {
	p := newProcess(env)
	p.stopSignal, p.stopTimeout = unix.SIGTERM, cmp.Or(env.Spec.StopTimeout, stopTimeout) // if it noted none
	return p.open()
}

func newProcess(env Env) *process {
	p := &process{env: env, log: env.Log, journal: journalStdout}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.env.Doubts == nil {
		p.env.Doubts = func(status cluster.Status, reason, _ string) { p.env.Changed(status, reason, false) }
	}
	return p
}

// open reads the state that a predecessor left.
func (p *process) open() (Resource, error) {
	env := p.env
	if mount := cgroupMount(); mount != "" {
		p.group.dir = filepath.Join(mount, "baton", env.Cluster, string(env.Node), string(env.Group), string(env.Spec.ID))
	}
	text, err := ReadNote(p.stateFile())
	if text != nil {
		err = json.Unmarshal(text, &p.state)
	}
	if err != nil {
		return nil, fmt.Errorf("state of what runs: %s: %w", p.stateFile(), err)
	}
	p.life, p.end = context.WithCancel(context.Background())
	if len(p.command) > 0 { // a leftover starts nothing
		if err := p.reserve(); err != nil {
			p.log.Warn("no room is reserved for what a start notes: it may fail where others fill the file system", "cause", err)
		}
	}
	return p, nil
}

// process is one resource of the kind.
type process struct {
	env          Env
	log          *slog.Logger
	journal      string // journald's socket
	command      []string
	user         string
	dir          string
	environ      map[string]string
	ready        *check // nil: ready as soon as it runs
	healthy      *check // nil: well as long as it runs
	ports        []cluster.Port
	stopSignal   syscall.Signal
	stopTimeout  time.Duration
	startTimeout time.Duration
	hash         string // of what it is started with
	group        cgroup

	life  context.Context // ends at Close
	end   context.CancelFunc
	tasks sync.WaitGroup
	owner atomic.Pointer[account] // that it was started as, or was looked up for a check; nil: not yet

	mu    sync.Mutex // guards what follows; the operations alone write state
	state state
	run   *run // the last process known, perhaps dead; nil: none
}

// state is the content of the state file.
type state struct {
	Highest  cluster.Epoch // the highest epoch seen
	PID      int           // 0: none
	Start    uint64        // of the process, as stat has it
	Epoch    cluster.Epoch // under which it runs
	Serving  bool          // its role; else standby
	Ready    bool          // it was found ready
	Stopping bool          // it was told to stop
	Command  string        // hash of what it was started with
	Cgroup   bool          // it runs in the resource's cgroup, and not only in its own process group
	Signal   int           // that stops it, by the description it was started with; 0: not noted
	Patience time.Duration // after that it is killed
	From     int64         // where its output begins in the output file, in bytes
}

// run is one life of the program.
type run struct {
	pid   int
	start uint64
	child bool // of this process, so that it must be reaped and tells its exit status
	pidfd *os.File
	ctx   context.Context // ends with the process, and at Close
	stop  context.CancelFunc
	dead  chan struct{} // closed when the process has ended

	// guarded by process.mu
	exit     string // how it ended; set before dead is closed
	around   bool   // what is around it was to blame
	ready    bool   // its start is complete: from now on its end is news
	stopping bool   // it was told to stop, perhaps by a former agent
	killAt   time.Time
	ill      error              // why healthy calls it ill; nil: well
	quiet    context.CancelFunc // ends the watch over its health
	watching sync.WaitGroup     // the watch over its health
}

func (r *run) ended() bool {
	select {
	case <-r.dead:
		return true
	default:
		return false
	}
}

func (p *process) stateFile() string { return filepath.Join(p.env.RunDir, "process.json") }
func (p *process) roleFile() string  { return filepath.Join(p.env.RunDir, "role") }

// configure reads the fields.
func (p *process) configure(fields map[string]any) error {
	var signal string
	for _, err := range []error{
		read(fields, "command", &p.command, nil),
		read(fields, "user", &p.user, ""),
		read(fields, "directory", &p.dir, "/"),
		read(fields, "ports", &p.ports, nil),
		read(fields, "environment", &p.environ, nil),
		read(fields, "stop_signal", &signal, "SIGTERM"),
		read(fields, "stop_timeout", &p.stopTimeout, cmp.Or(p.env.Spec.StopTimeout, stopTimeout)),
		read(fields, "start_timeout", &p.startTimeout, cmp.Or(p.env.Spec.StartTimeout, startTimeout)),
	} {
		if err != nil {
			return err
		}
	}
	if faults := processFaults(fields); len(faults) > 0 {
		return errors.New(faults[0].String())
	}
	p.stopSignal = signalOf(signal)
	var err error
	if p.ready, err = newCheck(fields, "ready", readyInterval, readyTimeout, 1); err != nil {
		return err
	}
	if p.healthy, err = newCheck(fields, "healthy", wellInterval, wellTimeout, wellFailures); err != nil {
		return err
	}
	text, err := json.Marshal([]any{p.command, p.user, p.dir, p.environ})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	p.hash = hex.EncodeToString(sum[:8])
	return nil
}

// field returns a field's value, or the default where it is absent.
func field[T any](fields map[string]any, name string, absent T) (T, error) {
	v, ok := fields[name]
	if !ok || v == nil {
		return absent, nil
	}
	t, ok := v.(T)
	if !ok {
		return absent, fmt.Errorf("%s is a %T, not a %T", name, v, absent)
	}
	return t, nil
}

func read[T any](fields map[string]any, name string, to *T, absent T) (err error) {
	*to, err = field(fields, name, absent)
	return err
}

// Start implements Resource. A program that is ill, or was started with another command than the present
// one, or was told to stop, does not count as running: the latter two are stopped first.
func (p *process) Start(ctx context.Context, epoch cluster.Epoch) error {
	if epoch < p.state.Highest {
		return fmt.Errorf("start for epoch %d, seen %d: %w", epoch, p.state.Highest, ErrStaleEpoch)
	}
	return p.up(ctx, epoch, true)
}

// Standby implements Resource. Hot: the program runs and is ready; its ports are behind the gate.
func (p *process) Standby(ctx context.Context, epoch cluster.Epoch) error {
	epoch = max(epoch, p.state.Highest)
	if p.env.Spec.Depth == cluster.Hot {
		return p.up(ctx, epoch, false)
	}
	if err := p.Stop(ctx); err != nil {
		return err
	}
	return p.note(func(s *state) { s.Highest = epoch })
}

// Probe implements Resource. It does not ask whether the program is ready: that may take long, and only Start and Standby
// begin to watch over one that is.
func (p *process) Probe(ctx context.Context) (cluster.Status, error) {
	r, err := p.find()
	if err != nil {
		return cluster.StatusUnknown, err
	}
	if r == nil {
		return p.probeLeftovers(ctx)
	}
	p.mu.Lock()
	ill, ready, stopping, serving, obsolete := r.ill != nil, r.ready, r.stopping, p.state.Serving, p.state.Command != p.hash
	p.mu.Unlock()
	switch {
	case obsolete && !stopping:
		return cluster.StatusUnknown, nil
	case ill, stopping:
		return cluster.StatusFailed, nil
	case !ready:
		return cluster.StatusUnknown, nil
	case serving:
		return cluster.StatusRunning, nil
	}
	return cluster.StatusStandby, nil
}

// probeLeftovers tells what is the case when the main program does not run.
func (p *process) probeLeftovers(ctx context.Context) (cluster.Status, error) {
	some, err := p.group.populated()
	if err != nil {
		return cluster.StatusUnknown, fmt.Errorf("what is left of the program: %w", err)
	}
	if some && p.run != nil {
		// It has just ended, and watchEnd has killed the rest, which takes a moment to die.
		ctx, cancel := context.WithTimeout(ctx, dying)
		defer cancel()
		some = p.group.awaitEmpty(ctx) != nil
	}
	if some {
		return cluster.StatusFailed, nil
	}
	return cluster.StatusStopped, nil
}

// Keep implements Keeper.
func (p *process) Keep() error {
	if !NoteKept(p.stateFile()) && p.state != (state{}) {
		text, err := json.Marshal(p.state)
		if err == nil {
			err = WriteNote(p.stateFile(), text, 0o600, false)
		}
		if err != nil {
			return fmt.Errorf("note the state of what runs: %w", err)
		}
	}
	if !NoteKept(p.roleFile()) && p.state.PID != 0 {
		if err := p.tellRole(p.state.Epoch, p.state.Serving); err != nil {
			return fmt.Errorf("tell the role: %w", err)
		}
	}
	p.keepOutputShort()
	return p.reserve()
}

// keepOutputShort cuts the output of what runs, where somebody deleted the file. Outputs cuts those that have a name.
func (p *process) keepOutputShort() {
	p.mu.Lock()
	r := p.run
	p.mu.Unlock()
	if r == nil || r.ended() {
		return
	}
	if err := cutDeleted(Output(p.env), r.pid, cmp.Or(p.env.OutputLimit, OutputLimit)); err != nil {
		p.log.Warn("the output file grows on", "cause", err)
	}
}

// reserve makes room for what a start notes.
func (p *process) reserve() error {
	if err := ReserveNote(p.stateFile(), 0o600, notePage); err != nil {
		return fmt.Errorf("make room to note the state of what runs: %w", err)
	}
	if err := ReserveNote(p.roleFile(), 0o644, 0); err != nil {
		return fmt.Errorf("make room to tell the role: %w", err)
	}
	// The program finds its state file there; all other files in it are for root and the program alone.
	return os.Chmod(p.env.RunDir, 0o711)
}

// Close implements Resource.
func (p *process) Close() {
	p.end()
	p.mu.Lock()
	if p.run != nil {
		p.run.pidfd.Close()
	}
	p.mu.Unlock()
	p.tasks.Wait()
}

// up brings the program to run and be ready in the role.
func (p *process) up(ctx context.Context, epoch cluster.Epoch, serving bool) error {
	if len(p.command) == 0 {
		return errors.New("start a leftover: the file that described it is gone")
	}
	r, err := p.find()
	if err != nil {
		return err
	}
	if r != nil {
		p.mu.Lock()
		obsolete, ill := r.stopping || p.state.Command != p.hash, r.ill
		p.mu.Unlock()
		if ill != nil && !obsolete {
			if err := p.assume(epoch, serving); err != nil {
				return err
			}
			return fmt.Errorf("runs, but is ill: %w", ill)
		}
		if obsolete {
			if err := p.Stop(ctx); err != nil {
				return fmt.Errorf("stop what runs from before: %w", err)
			}
			r = nil
		}
	}
	if r == nil {
		if err := p.clear(ctx); err != nil {
			return err
		}
		r, err = p.launch(epoch, serving)
	} else {
		err = p.assume(epoch, serving)
	}
	if err != nil {
		return err
	}
	return p.awaitReady(ctx, r)
}

// assume changes the role of the program that runs.
func (p *process) assume(epoch cluster.Epoch, serving bool) error {
	if p.state.Highest == epoch && p.state.Epoch == epoch && p.state.Serving == serving {
		return nil
	}
	err := p.note(func(s *state) { s.Highest, s.Epoch, s.Serving = epoch, epoch, serving })
	if err != nil {
		return err
	}
	return p.tellRole(epoch, serving)
}

// tellRole writes what BATON_STATE_FILE names.
func (p *process) tellRole(epoch cluster.Epoch, serving bool) error {
	text := "standby\n"
	if serving {
		text = fmt.Sprintf("serving %d\n", epoch)
	}
	return WriteNote(p.roleFile(), []byte(text), 0o644, true)
}

// note changes the state and its file.
func (p *process) note(change func(*state)) error {
	next := p.state
	change(&next)
	if next == p.state {
		return nil
	}
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := WriteNote(p.stateFile(), text, 0o600, false); err != nil {
		return fmt.Errorf("note the state of what runs: %w", err)
	}
	p.mu.Lock()
	p.state = next
	p.mu.Unlock()
	return nil
}

// launch starts the program.
func (p *process) launch(epoch cluster.Epoch, serving bool) (*run, error) {
	owner, err := lookupAccount(p.user)
	if err != nil {
		return nil, lacking(err)
	}
	p.owner.Store(&owner)
	// The program finds its state file there; all other files in it are for root and the program alone.
	if err := os.Chmod(p.env.RunDir, 0o711); err != nil {
		return nil, err
	}
	out, kept, err := openOutput(p.journal, p.env, owner)
	if err != nil {
		return nil, fmt.Errorf("open the output: %w", err)
	}
	defer out.Close()
	from := outputAt(Output(p.env))
	in, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if err := p.tellRole(epoch, serving); err != nil {
		return nil, fmt.Errorf("tell the role: %w", err)
	}
	group, err := p.group.open()
	if err != nil {
		p.log.Warn("no cgroup: what leaves the program's process group is not stopped with it", "cause", err)
	} else {
		defer group.Close()
	}
	r := &run{child: true, ready: p.ready == nil}
	pid, pidfd, err := launch{
		argv: p.command, dir: p.dir, env: p.environment(owner, epoch), owner: owner, in: in, out: out, group: group,
		held: func(pid int) error {
			s, err := readStat(pid)
			if err != nil {
				return err
			}
			r.pid, r.start = pid, s.start
			return p.note(func(s *state) {
				*s = state{Highest: epoch, PID: pid, Start: r.start, Epoch: epoch, Serving: serving,
					Ready: r.ready, Command: p.hash, Cgroup: group != nil,
					Signal: int(p.stopSignal), Patience: p.stopTimeout, From: from}
			})
		},
	}.start()
	if err != nil {
		err = fmt.Errorf("start %s as %s: %w", p.command[0], p.user, err)
		return nil, errors.Join(err, p.note(func(s *state) { s.PID = 0 }))
	}
	r.pid, r.pidfd = pid, pidfd
	p.begin(r)
	p.log.Info("started", "pid", pid, "user", p.user, "epoch", epoch, "output", map[bool]string{true: Output(p.env), false: "journal"}[kept])
	return r, nil
}

// environment is a clean one: nothing of the agent's.
func (p *process) environment(owner account, epoch cluster.Epoch) []string {
	env := map[string]string{"PATH": defaultPath, "HOME": owner.home, "USER": owner.name, "LANG": "C.UTF-8"}
	maps.Copy(env, p.environ)
	maps.Copy(env, map[string]string{
		"BATON_CLUSTER":    p.env.Cluster,
		"BATON_NODE":       string(p.env.Node),
		"BATON_GROUP":      string(p.env.Group),
		"BATON_RESOURCE":   string(p.env.Spec.ID),
		"BATON_EPOCH":      strconv.FormatUint(uint64(epoch), 10),
		"BATON_STATE_FILE": p.roleFile(),
	})
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// seen returns the epoch under which the program runs.
func (p *process) seen() cluster.Epoch {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.Epoch
}

// find returns the process that runs, nil if none does. It adopts one that a former agent started.
func (p *process) find() (*run, error) {
	p.mu.Lock()
	r, s := p.run, p.state
	p.mu.Unlock()
	if r != nil && !r.ended() {
		return r, nil
	}
	if s.PID == 0 || r != nil && r.pid == s.PID && r.start == s.Start {
		return nil, nil
	}
	fd, err := unix.PidfdOpen(s.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("adopt process %d: pidfd_open: %w", s.PID, err)
	}
	// Read after the pidfd is had: if it is the process meant, the pidfd is its.
	now, err := readStat(s.PID)
	if err != nil || now.start != s.Start || hasExited(fd) {
		if err == nil && now.start == s.Start && now.parent == os.Getpid() {
			unix.Wait4(s.PID, nil, unix.WNOHANG, nil)
		}
		unix.Close(fd)
		return nil, nil
	}
	r = &run{pid: s.PID, start: s.Start, child: now.parent == os.Getpid(), pidfd: os.NewFile(uintptr(fd), "pidfd"),
		ready: s.Ready, stopping: s.Stopping}
	p.begin(r)
	p.log.Info("adopted", "pid", r.pid, "epoch", s.Epoch)
	return r, nil
}

// begin watches over a process from now on.
func (p *process) begin(r *run) {
	r.ctx, r.stop = context.WithCancel(p.life)
	r.dead = make(chan struct{})
	r.quiet = func() {}
	p.mu.Lock()
	p.run = r
	if r.ready {
		p.watchHealth(r)
	}
	p.mu.Unlock()
	p.tasks.Go(func() { p.watchEnd(r) })
}
