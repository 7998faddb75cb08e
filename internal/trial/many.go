package trial

import (
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"baton/internal/lab"
)

// This file is a cluster of many groups of one process and one address each, and what asks all of them.

// answererSource is the smallest program that really serves: it answers datagrams to the group's address.
//
//go:embed answerer/answerer.c
var answererSource []byte

const (
	manyPort = 9000
	// askEvery is how often each group is asked. What is said of an outage is right to this much.
	askEvery = 100 * time.Millisecond
)

// Many is a cluster of many groups in a lab.
type Many struct {
	Lab      *lab.Lab
	Nodes    []string
	takeover time.Duration
	groups   int
	binary   string
	answerer string
	key      []byte
	agents   map[string]*lab.Service
}

// NewMany boots a cluster of 3 to 7 nodes and so many groups, with a client on its network. With 3 nodes the last one is
// a witness.
func NewMany(name string, nodes, groups int, takeover time.Duration) (*Many, error) {
	l, err := lab.New(name, lab.Options{Networks: []string{LAN, Cross}})
	if err != nil {
		return nil, err
	}
	m := &Many{Lab: l, takeover: takeover, groups: groups, agents: make(map[string]*lab.Service)}
	for i := range nodes {
		m.Nodes = append(m.Nodes, fmt.Sprintf("n%d", 1+i))
	}
	if err := m.build(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return m, nil
}

func (m *Many) build() (err error) {
	if m.binary, err = Binary(); err != nil {
		return err
	}
	if err := m.compile(); err != nil {
		return err
	}
	key := filepath.Join(m.Lab.Dir(), "key")
	if out, err := exec.Command(m.binary, "keygen", key).CombinedOutput(); err != nil {
		return fmt.Errorf("make a key: %w: %s", err, out)
	}
	if m.key, err = os.ReadFile(key); err != nil {
		return err
	}
	for i, name := range append(slices.Clone(m.Nodes), Client) {
		addresses := map[string][]netip.Prefix{LAN: {netip.MustParsePrefix(fmt.Sprintf("10.91.0.%d/16", 11+i))}}
		c := lab.HostConfig{Name: name, Addresses: addresses}
		if name != Client {
			addresses[Cross] = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.92.0.%d/24", 11+i))}
			c.OnBoot = m.startAgent
		}
		if _, err := m.Lab.AddHost(c); err != nil {
			return err
		}
	}
	return nil
}

// compile makes the program that the groups run.
func (m *Many) compile() error {
	m.answerer = filepath.Join(m.Lab.Dir(), "answerer")
	source := m.answerer + ".c"
	if err := os.WriteFile(source, answererSource, 0o644); err != nil {
		return err
	}
	if out, err := exec.Command("cc", "-Os", "-static", "-o", m.answerer, source).CombinedOutput(); err != nil {
		return fmt.Errorf("compile the program that groups run (install a C compiler): %w: %s", err, out)
	}
	return nil
}

// Address returns where a group answers.
func (m *Many) Address(group int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 91, byte(1 + group/250), byte(1 + group%250)}), manyPort)
}

// Group returns a group's name.
func (m *Many) Group(group int) string {
	return fmt.Sprintf("%s-%03d", strings.Repeat("g", 59), group)
}

// File returns the cluster file, with a comment at its end.
func (m *Many) File(comment string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster: many\ntakeover: %s\nnodes:\n", m.takeover)
	cross := make([]string, len(m.Nodes))
	for i, n := range m.Nodes {
		role := ""
		if len(m.Nodes) == 3 && i == 2 {
			role = ", role: witness"
		}
		fmt.Fprintf(&b, "  %s: { address: 10.91.0.%d%s }\n", n, 11+i, role)
		cross[i] = fmt.Sprintf("%s: 10.92.0.%d", n, 11+i)
	}
	fmt.Fprintf(&b, "links:\n  - { name: lan, udp: { port: 7400 } }\n  - { name: cross, udp: { port: 7400, addresses: { %s } } }\ngroups:\n", strings.Join(cross, ", "))
	for g := range m.groups {
		a := m.Address(g)
		fmt.Fprintf(&b, "  %s:\n    nodes: [n1, n2]\n    standby: cold\n    resources:\n", m.Group(g))
		fmt.Fprintf(&b, "      - process: { name: answerer, command: [%s, %s, '%d'], user: root }\n", m.answerer, a.Addr(), a.Port())
		fmt.Fprintf(&b, "      - vip: %s/16\n", a.Addr())
	}
	return b.String() + "# " + comment + "\n"
}

func (m *Many) startAgent(h *lab.Host) error {
	dir := h.Disk("/etc/baton")
	if _, err := os.Stat(filepath.Join(dir, "key")); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(filepath.Join(dir, "cluster.yaml"), []byte(m.File("as founded")), 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "key"), m.key, 0o600); err != nil {
			return err
		}
	}
	s, err := h.Supervise(lab.Program{Args: []string{m.binary, "agent", "--config", "/etc/baton/cluster.yaml"}, Output: "agent", Final: exitLeft})
	if err == nil {
		m.agents[h.Name()] = s
	}
	return err
}

// Close removes everything.
func (m *Many) Close() error { return m.Lab.Close() }

// Run runs one command of the binary on a node and returns what it printed, and how long it took.
func (m *Many) Run(ctx context.Context, node string, args ...string) (string, time.Duration, error) {
	began := time.Now()
	out, err := m.Lab.Host(node).Command(ctx, append([]string{m.binary}, args...)...)
	return out, time.Since(began), err
}

// Status asks a node how the cluster looks from there.
func (m *Many) Status(ctx context.Context, node string) (*Status, time.Duration, error) {
	out, took, err := m.Run(ctx, node, "status", "--json")
	if err != nil {
		return nil, took, fmt.Errorf("status on %s: %w: %s", node, err, out)
	}
	s := new(Status)
	return s, took, json.Unmarshal([]byte(out), s)
}

// AwaitAll waits until every group serves on a node, and knows where it would go next.
func (m *Many) AwaitAll(ctx context.Context, asked, owner string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		s, _, err := m.Status(ctx, asked)
		missing := m.groups
		if err == nil {
			for _, g := range s.Groups {
				if g.Owner == owner && g.Serving {
					missing--
				}
			}
			if missing == 0 {
				return nil
			}
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%d of %d groups don't serve on %s after %v (%v)", missing, m.groups, owner, limit, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// Asker asks every group again and again, from the client.
type Asker struct {
	conn   net.PacketConn
	end    chan struct{}
	paused atomic.Bool
	wg     sync.WaitGroup
	mu     sync.Mutex
	seen   map[netip.AddrPort]*answers
}

// answers are what a group has answered.
type answers struct {
	gap time.Duration // the longest time without an answer
	at  time.Time     // of the last one
}

// Ask begins to ask.
func (m *Many) Ask(ctx context.Context) (*Asker, error) {
	conn, err := m.Lab.Host(Client).ListenPacket(ctx, "udp4", "0.0.0.0:0")
	if err != nil {
		return nil, err
	}
	a := &Asker{conn: conn, end: make(chan struct{}), seen: make(map[netip.AddrPort]*answers)}
	for g := range m.groups {
		a.seen[m.Address(g)] = &answers{}
	}
	a.wg.Go(a.hear)
	a.wg.Go(func() { a.ask(m) })
	return a, nil
}

func (a *Asker) ask(m *Many) {
	const slots = 20 // of askEvery: questions are spread, so that no queue drops them
	tick := time.NewTicker(askEvery / slots)
	defer tick.Stop()
	question := make([]byte, 8)
	for n := uint64(0); ; n++ {
		select {
		case <-a.end:
			return
		case <-tick.C:
		}
		if a.paused.Load() {
			continue
		}
		binary.LittleEndian.PutUint64(question, n)
		for g := int(n % slots); g < m.groups; g += slots {
			_, _ = a.conn.WriteTo(question, net.UDPAddrFromAddrPort(m.Address(g)))
		}
	}
}

func (a *Asker) hear() {
	b := make([]byte, 64)
	for {
		_, from, err := a.conn.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the host of that address is gone, and its neighbour says so
		}
		now := time.Now()
		a.mu.Lock()
		if x := a.seen[from.(*net.UDPAddr).AddrPort()]; x != nil {
			if !x.at.IsZero() {
				x.gap = max(x.gap, now.Sub(x.at))
			}
			x.at = now
		}
		a.mu.Unlock()
	}
}

// Pause makes it ask nobody for a while.
func (a *Asker) Pause(paused bool) { a.paused.Store(paused) }

// Forget begins to measure gaps anew.
func (a *Asker) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.seen {
		x.gap = 0
	}
}

// Gap returns for how long a group has been silent at the longest, the present silence included.
func (a *Asker) Gap(address netip.AddrPort) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.seen[address]
	return max(x.gap, time.Since(x.at))
}

// Stop ends it.
func (a *Asker) Stop() {
	close(a.end)
	a.conn.Close()
	a.wg.Wait()
}
