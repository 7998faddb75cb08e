package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/io/bounded"
)

// loopbackFile is the cluster without root. There is no address that moves: each node's service listens
// on that node's loopback address, and answers only while its node serves.
const loopbackFile = `cluster: %[8]s
takeover: %[3]s
key_file: %[4]q

nodes:
  alpha: { address: 127.0.%[2]d.11 }
  beta:  { address: 127.0.%[2]d.12 }
  gamma: { address: 127.0.%[2]d.13, role: witness }

groups:
  web:
    nodes: [alpha, beta]
    standby: hot
    resources:
      - process:
          name: service
          command: [%[5]q, dev, --service]
          user: "%[1]d:%[6]d"
          environment: { BATON_DEV: "%[7]d", BATON_DEV_NET: "%[2]d" }
`

// restartPause is the time between two starts of an agent that ends by itself.
const restartPause = 50 * time.Millisecond

// loopbackGround is a cluster of ordinary processes on this machine's loopback.
type loopbackGround struct {
	plan   *devPlan
	net    loopbackNet
	claim  io.Closer  // of net
	disk   string     // temporary; what must outlive a power loss
	memory string     // on tmpfs; what must not
	locks  []*os.File // of disk and memory
	upsets *upsets

	mu      sync.Mutex
	agents  map[string]*os.Process
	off     map[string]bool
	keepers sync.WaitGroup
}

// newLoopbackGround starts the agents. It needs no right.
func newLoopbackGround(takeover time.Duration) (g *loopbackGround, err error) {
	g = &loopbackGround{upsets: newUpsets(), agents: make(map[string]*os.Process), off: make(map[string]bool)}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	if g.net, g.claim, err = claimLoopback(); err != nil {
		return g, err
	}
	var lock *os.File
	if g.disk, lock, err = claimDir(os.TempDir()); err != nil {
		return g, fmt.Errorf("make the data directory: %w", err)
	}
	g.locks = append(g.locks, lock)
	if g.memory, lock, err = memoryDir(); err != nil {
		return g, err
	}
	g.locks = append(g.locks, lock)
	key, self := filepath.Join(g.disk, "key"), ""
	if err = makeKey(key); err != nil {
		return g, err
	}
	if self, err = os.Executable(); err != nil {
		return g, err
	}
	text := fmt.Appendf(nil, loopbackFile, os.Getuid(), g.net, takeover, key, self, os.Getgid(), os.Getpid(), demoCluster(g.disk))
	if g.plan, err = newDevPlan("the demo's cluster file", text); err != nil {
		return g, err
	}
	if err = os.WriteFile(g.file(), text, 0o644); err != nil {
		return g, err
	}
	for _, node := range g.plan.nodes() {
		if err = g.powerOn(node); err != nil {
			return g, err
		}
	}
	return g, nil
}

// memoryParents are where a user may have a tmpfs.
func memoryParents() []string {
	parents := []string{"/dev/shm", "/run"}
	if own := os.Getenv("XDG_RUNTIME_DIR"); own != "" {
		parents = slices.Insert(parents, 0, own)
	}
	return parents
}

// memoryDir makes a directory on a tmpfs that this user may write to, and locks it.
func memoryDir() (string, *os.File, error) {
	var errs []error
	for _, parent := range memoryParents() {
		var fsys unix.Statfs_t
		if err := unix.Statfs(parent, &fsys); err != nil || fsys.Type != tmpfsMagic {
			errs = append(errs, fmt.Errorf("%s is no tmpfs", parent))
			continue
		}
		dir, lock, err := claimDir(parent)
		if err == nil {
			return dir, lock, nil
		}
		errs = append(errs, err)
	}
	return "", nil, fmt.Errorf("make the run directory on a tmpfs: %w", errors.Join(errs...))
}

func (g *loopbackGround) file() string { return filepath.Join(g.disk, "cluster.yaml") }

func (g *loopbackGround) runDir(node string) string { return filepath.Join(g.memory, node) }

// keep runs a node's agent, again whenever it ends, until the node is off.
func (g *loopbackGround) keep(node string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	data := filepath.Join(g.disk, node)
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(data, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	started := make(chan error, 1)
	g.keepers.Go(func() {
		defer log.Close()
		// The kernel kills the agent when the thread that started it ends (PR_SET_PDEATHSIG(2const)), so this
		// one is kept.
		runtime.LockOSThread()
		for first := true; ; first = false {
			cmd := exec.Command(self, "agent", "--no-gate", "--node", node, "--config", g.file(), "--data", data, "--run", g.runDir(node), "--socket", g.socket(node))
			cmd.Stdout, cmd.Stderr = log, log
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL} // Ctrl-C is for us alone
			g.mu.Lock()
			if g.off[node] {
				g.mu.Unlock()
				return
			}
			err := cmd.Start()
			if err == nil {
				g.agents[node] = cmd.Process
			}
			g.mu.Unlock()
			if first {
				started <- err
			}
			if err != nil {
				return
			}
			_ = cmd.Wait() // however it ended, it is started again
			time.Sleep(restartPause)
		}
	})
	return <-started
}

func (g *loopbackGround) lacks() []string {
	return []string{
		"no address moves: a client asks all nodes, and the one that serves answers",
		"no gate: nothing cuts a frozen agent off here, so two can answer at once",
		"no cables to cut",
		"a power loss is kill -9 of the agent and the service",
		"no realtime priority: a busy machine may delay a takeover, or cause one",
	}
}

func (g *loopbackGround) socket(node string) string { return filepath.Join(g.memory, node+".sock") }

func (g *loopbackGround) shownSocket(node string) string { return g.socket(node) }

func (g *loopbackGround) on(node string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.off[node]
}

func (g *loopbackGround) upset(node string) string {
	if !g.on(node) {
		return upsetOff
	}
	return g.upsets.of(node)
}

// powerOff kills everything of a node at once, and forgets what was in memory.
func (g *loopbackGround) powerOff(node string) error {
	g.mu.Lock()
	g.off[node] = true
	agent := g.agents[node]
	g.mu.Unlock()
	var errs []error
	if agent != nil {
		if err := agent.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
		g.awaitEnd(agent)
	}
	if g.plan != nil {
		if pid, err := g.service(node, g.plan.group); err == nil {
			_ = unix.Kill(-pid, unix.SIGKILL) // its process group; it may have ended
			errs = append(errs, awaitProcess(pid, dyingLimit))
		}
	}
	g.upsets.remove(node, "")
	return errors.Join(append(errs, os.RemoveAll(g.runDir(node)))...)
}

// awaitEnd waits until the keeper has reaped a killed agent: only then it writes no state file any more.
func (g *loopbackGround) awaitEnd(agent *os.Process) {
	for range 200 {
		if agent.Signal(syscall.Signal(0)) != nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (g *loopbackGround) powerOn(node string) error {
	g.mu.Lock()
	g.off[node] = false
	g.mu.Unlock()
	return g.keep(node)
}

func (g *loopbackGround) cutCable(string) error    { return errNotHere }
func (g *loopbackGround) cutSilently(string) error { return errNotHere }

func (g *loopbackGround) signal(node string, s os.Signal) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.agents[node]; p != nil {
		return p.Signal(s)
	}
	return fmt.Errorf("node %s has no agent", node)
}

func (g *loopbackGround) freeze(node string) error {
	g.upsets.add(node, upsetFrozen)
	return g.signal(node, unix.SIGSTOP)
}

func (g *loopbackGround) thaw(node string) error {
	g.upsets.remove(node, upsetFrozen)
	return g.signal(node, unix.SIGCONT)
}

func (g *loopbackGround) service(node string, group cluster.GroupID) (int, error) {
	return processOf(g.plan, group, g.runDir(node), func(path string) ([]byte, error) { return bounded.ReadFile(path, bounded.Small) })
}

func (g *loopbackGround) killService(node string, group cluster.GroupID) error {
	pid, err := g.service(node, group)
	if err != nil {
		return err
	}
	return unix.Kill(pid, unix.SIGKILL)
}

func (g *loopbackGround) killAgent(node string) error {
	g.upsets.remove(node, upsetFrozen)
	return g.signal(node, unix.SIGKILL)
}

func (g *loopbackGround) heal() error { return healNodes(g, g.plan) }

func (g *loopbackGround) client() (*devClient, error) {
	conn, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the client's socket: %w", err)
	}
	var targets []netip.AddrPort
	for _, node := range g.plan.spec.Groups[0].Nodes {
		targets = append(targets, netip.MustParseAddrPort(g.net.service(string(node))))
	}
	return newDevClient(conn, targets)
}

func (g *loopbackGround) aside() string {
	return fmt.Sprintf("curl http://%s/ http://%s/", g.net.service("alpha"), g.net.service("beta"))
}

func (g *loopbackGround) close() error {
	var errs []error
	if g.plan != nil {
		for _, node := range slices.Sorted(maps.Keys(loopbackNodes)) {
			errs = append(errs, g.powerOff(node))
		}
	}
	g.keepers.Wait()
	if g.disk != "" {
		errs = append(errs, removeDemoCgroup(g.disk), removeStubborn(g.disk))
	}
	if g.memory != "" {
		errs = append(errs, removeStubborn(g.memory))
	}
	for _, l := range g.locks {
		errs = append(errs, l.Close())
	}
	if g.claim != nil {
		errs = append(errs, g.claim.Close())
	}
	return errors.Join(errs...)
}
