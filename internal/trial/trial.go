// Package trial is a whole cluster of the real binary in lab hosts: two members, a witness and a client.
// Tests and the benchmark use it; it judges from outside, by what a client sees and by what
// the commands print.
package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"baton/internal/lab"
)

// The hosts of a trial.
const (
	Alpha  = "alpha"
	Beta   = "beta"
	Gamma  = "gamma" // the witness
	Client = "client"
)

// Nodes are the hosts that run an agent.
var Nodes = []string{Alpha, Beta, Gamma}

// Spares are hosts that may be added to the cluster, by Options.Spares.
var Spares = []string{"delta", "epsilon"}

// Where things are in a trial.
const (
	LAN   = "lan"
	Cross = "cross"
	// Group is the group's name; its process is "service".
	Group = "web"
	// port of the service behind the virtual address
	port = 8080
)

// VIP is the virtual address of the group, by IPv4 and IPv6.
var (
	VIP  = netip.MustParseAddrPort("10.77.0.50:8080")
	VIP6 = netip.MustParseAddrPort("[fd77::50]:8080")
)

// Options say what cluster to make. The zero value is a takeover of 1 s, a hot standby and both links.
type Options struct {
	Takeover string // default 1s
	Cold     bool   // the standby is cold
	OneLink  bool   // heartbeats go over the LAN only
	Failback string // failback policy; default never
	Extra    string // appended to the file: further groups
	Spares   int    // hosts beside those that the file names at first, of Spares
	Gate     string // mechanism to prefer
	Systemd  bool   // the nodes' PID 1 is systemd, and baton is installed there as users do
	OwnDisk  bool   // each node's data directory is a file system of its own, which HangDisk can stop
	Bare     bool   // beta and gamma get neither file, key nor agent
	Dir      string // of the lab; default: its own
	Keep     bool

	Edit   func(file string) string // changes the file before anything starts; nil: it stays
	Before func(*lab.Host) error    // prepares a host at each boot, before its agent starts; nil: nothing to do
}

// Trial is a running cluster in a lab.
type Trial struct {
	Lab    *lab.Lab
	binary string
	opt    Options
	agents map[string]*lab.Service
}

// New makes the lab, its hosts and files, and boots everything. The binary is this program itself, which
// must call lab.MaybeInit and, with the command `agent`, run an agent.
func New(name string, opt Options) (*Trial, error) {
	if opt.Takeover == "" {
		opt.Takeover = "1s"
	}
	networks := []string{LAN, Cross}
	if opt.OneLink {
		networks = networks[:1]
	}
	l, err := lab.New(name, lab.Options{Networks: networks, Dir: opt.Dir, Keep: opt.Keep})
	if err != nil {
		return nil, err
	}
	t := &Trial{Lab: l, opt: opt, agents: make(map[string]*lab.Service)}
	if err := t.build(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return t, nil
}

func (t *Trial) build() error {
	binary, err := Binary()
	if err != nil {
		return err
	}
	t.binary = binary
	for i, name := range slices.Concat(Nodes, []string{Client}, Spares[:t.opt.Spares]) {
		addresses := map[string][]netip.Prefix{LAN: {
			netip.MustParsePrefix(fmt.Sprintf("10.77.0.%d/24", 11+i)), netip.MustParsePrefix(fmt.Sprintf("fd77::%d/64", 11+i))}}
		if !t.opt.OneLink && name != Client {
			addresses[Cross] = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.78.0.%d/24", 11+i))}
		}
		c := lab.HostConfig{Name: name, Addresses: addresses}
		if t.opt.Systemd && slices.Contains(Nodes, name) {
			c.Systemd, c.Show = true, []string{filepath.Dir(t.binary), sources()}
		} else if name != Client {
			c.OnBoot = t.startAgent
		}
		if t.opt.OwnDisk {
			c.Disk = []string{imageDir}
		}
		h, err := t.Lab.AddHost(c)
		if err == nil && c.Systemd {
			err = t.install(h)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// File returns the cluster file.
func (t *Trial) File() string {
	depth := "hot"
	if t.opt.Cold {
		depth = "cold"
	}
	failback := t.opt.Failback
	if failback == "" {
		failback = "never"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "cluster: trial\ntakeover: %s\n\nnodes:\n", t.opt.Takeover)
	fmt.Fprintf(&b, "  alpha: { address: 10.77.0.11 }\n  beta:  { address: 10.77.0.12 }\n  gamma: { address: 10.77.0.13, role: witness }\n\n")
	fmt.Fprintf(&b, "links:\n  - { name: lan, udp: { port: 7400 } }\n")
	if !t.opt.OneLink {
		fmt.Fprintf(&b, "  - { name: cross, udp: { port: 7400, addresses: { alpha: 10.78.0.11, beta: 10.78.0.12, gamma: 10.78.0.13 } } }\n")
	}
	fmt.Fprintf(&b, "\ngroups:\n  web:\n    nodes: [alpha, beta]\n    failback: %s\n    standby: %s\n    resources:\n", failback, depth)
	fmt.Fprintf(&b, "      - process:\n          name: service\n          command: %s -port %d\n          environment: { BATON_LAB_MODE: echo }\n          user: root\n", t.binary, port)
	fmt.Fprintf(&b, "          ready: { tcp: \"localhost:%d\", interval: 20ms }\n", port)
	fmt.Fprintf(&b, "      - vip: 10.77.0.50/24\n      - vip: { name: vip6, address: \"fd77::50/64\" }\n%s", t.opt.Extra)
	if t.opt.Edit != nil {
		return t.opt.Edit(b.String())
	}
	return b.String()
}

// writeFiles gives a host its cluster file and the key, at its first boot.
func (t *Trial) writeFiles(h *lab.Host) error {
	dir := h.Disk("/etc/baton")
	if _, err := os.Stat(filepath.Join(dir, "cluster.yaml")); err == nil {
		return nil
	}
	if err := os.WriteFile(filepath.Join(dir, "cluster.yaml"), []byte(t.File()), 0o644); err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(t.Lab.Dir(), "key"))
	if errors.Is(err, os.ErrNotExist) {
		key, err = t.newKey()
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "key"), key, 0o600)
}

// startAgent is what the host's init system does.
func (t *Trial) startAgent(h *lab.Host) error {
	if t.opt.Before != nil {
		if err := t.opt.Before(h); err != nil {
			return err
		}
	}
	if t.opt.Bare && h.Name() != Alpha {
		return nil
	}
	if slices.Contains(Spares, h.Name()) {
		return t.startSpare(h)
	}
	if err := t.writeFiles(h); err != nil {
		return err
	}
	if t.opt.OwnDisk {
		if err := mountDisk(h); err != nil {
			return err
		}
	}
	return t.supervise(h)
}

// exitLeft is how the agent of a node that has left the cluster ends: it is not started again.
const exitLeft = 5

// supervise starts a host's agent with what is on its disk.
func (t *Trial) supervise(h *lab.Host) error {
	s, err := h.Supervise(t.agentProgram())
	if err == nil {
		t.agents[h.Name()] = s
	}
	return err
}

// agentProgram is how an agent is started.
func (t *Trial) agentProgram() lab.Program {
	args := []string{t.binary, "agent", "--config", "/etc/baton/cluster.yaml"}
	if t.opt.Gate != "" {
		args = append(args, "--gate", t.opt.Gate)
	}
	return lab.Program{Args: args, Output: "agent", Final: exitLeft}
}

// imageDir is where a host keeps the image of a disk of its own.
const imageDir = "/var/lib/baton-disk"

// mountDisk gives a host a data directory that is a file system of its own, in an image.
func mountDisk(h *lab.Host) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := h.Command(ctx, "sh", "-c", `cd `+imageDir+` && if [ ! -f image ]; then truncate -s 64M image && mkfs.ext4 -q image; fi &&
		mount -o loop image /var/lib/baton`)
	return err
}

// HangDisk makes every write to a node's disk wait (fsfreeze(8)) until the function that it returns is called.
func (t *Trial) HangDisk(node string) (heal func() error, err error) {
	freeze := func(flag string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err := t.Host(node).Command(ctx, "fsfreeze", flag, "/var/lib/baton")
		return err
	}
	return func() error { return freeze("--unfreeze") }, freeze("--freeze")
}

// Host returns a host by name.
func (t *Trial) Host(name string) *lab.Host { return t.Lab.Host(name) }

// Agent returns a node's supervised agent.
func (t *Trial) Agent(name string) *lab.Service { return t.agents[name] }

// Close removes everything.
func (t *Trial) Close() error { return t.Lab.Close() }

// Run runs one command of the binary on a node and returns what it printed.
func (t *Trial) Run(ctx context.Context, node string, args ...string) (string, error) {
	return t.Host(node).Command(ctx, append([]string{t.binary}, args...)...)
}

// Status is what tests read of `baton status --json`.
type Status struct {
	Coordinator string `json:"coordinator"`
	Forming     string `json:"forming"`
	Joining     bool   `json:"joining"`
	Revision    string `json:"revision"`
	Draft       *struct {
		Waits string `json:"waits"`
	} `json:"draft"`
	Quorum bool          `json:"quorum"`
	ID     string        `json:"id"` // of the cluster
	Nodes  []NodeStatus  `json:"nodes"`
	Groups []GroupStatus `json:"groups"`
}

// NodeStatus is one node in a Status.
type NodeStatus struct {
	Name       string `json:"name"`
	Membership string `json:"membership"`
	Fresh      bool   `json:"fresh"`
	Admitted   bool   `json:"admitted"`
	LeaseRuns  bool   `json:"leaseRuns"`
	Trouble    string `json:"trouble"`
}

// GroupStatus is one group in a Status.
type GroupStatus struct {
	Name    string `json:"name"`
	Owner   string `json:"owner"`
	Epoch   string `json:"epoch"` // protobuf's JSON writes 64-bit numbers as strings
	Serving bool   `json:"serving"`
	Next    string `json:"next"`
}

// Status asks a node how the cluster looks from there.
func (t *Trial) Status(node string) (*Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := t.Run(ctx, node, "status", "--json")
	if err != nil {
		return nil, fmt.Errorf("status on %s: %w: %s", node, err, out)
	}
	s := new(Status)
	if err := json.Unmarshal([]byte(out), s); err != nil {
		return nil, fmt.Errorf("status on %s: %w in %s", node, err, out)
	}
	return s, nil
}

// ServicePID returns the process id, as the machine counts, of the group's program on a node.
func (t *Trial) ServicePID(node string) (int, error) {
	path := filepath.Join(t.Host(node).CgroupDir(), "baton", "trial", node, Group, "service", "cgroup.procs")
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("find the service on %s: %w", node, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("find the service on %s: %s holds %q, not one process", node, path, text)
	}
	return pid, nil
}

// pollEvery is how often Await looks.
const pollEvery = 20 * time.Millisecond

// Await waits until a node's status satisfies the condition.
func (t *Trial) Await(node string, limit time.Duration, what string, ok func(*Status) bool) error {
	deadline := time.Now().Add(limit)
	var last *Status
	var err error
	for time.Now().Before(deadline) {
		if last, err = t.Status(node); err == nil && ok(last) {
			return nil
		}
		time.Sleep(pollEvery)
	}
	return fmt.Errorf("%s: not so on %s within %v: %+v, %v", what, node, limit, last, err)
}

// Group returns the group's status.
func (s *Status) Group() GroupStatus {
	for _, g := range s.Groups {
		if g.Name == Group {
			return g
		}
	}
	return GroupStatus{}
}

// AwaitServing waits until every node that is on agrees that the group serves on the node named and that
// the other member stands by.
func (t *Trial) AwaitServing(owner string, limit time.Duration) error {
	for _, name := range Nodes {
		if !t.Host(name).On() {
			continue
		}
		other := Beta
		if owner == Beta {
			other = Alpha
		}
		err := t.Await(name, limit, "web serves on "+owner+", the other stands by", func(s *Status) bool {
			g := s.Group()
			return s.Coordinator != "" && g.Owner == owner && g.Serving && (g.Next == other || !t.Host(other).On())
		})
		if err != nil {
			return err
		}
	}
	return nil
}
