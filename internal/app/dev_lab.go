package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/io/bounded"
	"baton/internal/lab"
)

// labFile is the cluster that is run where no file is given. The service is the lab's, run from this program.
const labFile = `cluster: demo
takeover: %s

nodes:
  alpha: { address: 10.77.0.11 }
  beta:  { address: 10.77.0.12 }
  gamma: { address: 10.77.0.13, role: witness }

links:
  - { name: lan,   udp: { port: 7400 } }
  - { name: cross, udp: { port: 7400, addresses: { alpha: 10.78.0.11, beta: 10.78.0.12, gamma: 10.78.0.13 } } }

groups:
  web:
    nodes: [alpha, beta]
    standby: hot
    resources:
      - process:
          name: service
          command: [%q, -port, "%d"]
          environment: { BATON_LAB_MODE: echo }
          user: root
          ready: { tcp: "localhost:%[3]d", interval: 20ms }
      - vip: 10.77.0.50/24
`

const (
	devPort    = 8080
	clientHost = "client"
	// devSockets leads, as a link, to where the agents' sockets are, so that they are quickly typed.
	devSockets = "/run/baton-dev"
	actLimit   = 5 * time.Second // for a program run in a host
)

// labGround is a cluster in lab hosts: network namespaces with real addresses and cables.
type labGround struct {
	plan    *devPlan
	lab     *lab.Lab
	nets    []labNet
	key     []byte
	agents  map[string]*lab.Service
	upsets  *upsets
	outside string         // the host that only asks
	target  netip.AddrPort // of the client; invalid: a service that we can't ask
	sockets string         // directory of the agents' sockets, as people type it
	shell   *lab.Process   // sleeps in the client's host, for people to enter it
}

// newLabGround makes the hosts on the networks of labNetworks, boots them, and starts the agents. It needs root.
func newLabGround(p *devPlan, nets []labNet) (*labGround, error) {
	var names []string
	for _, n := range nets {
		names = append(names, n.name)
	}
	l, err := lab.New("dev", lab.Options{Networks: names})
	if err != nil {
		return nil, err
	}
	g := &labGround{plan: p, lab: l, nets: nets, agents: make(map[string]*lab.Service), upsets: newUpsets()}
	if err := g.build(); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

func (g *labGround) build() error {
	s := g.plan.spec
	keyFile := filepath.Join(g.lab.Dir(), "key")
	if err := makeKey(keyFile); err != nil {
		return err
	}
	var err error
	if g.key, err = bounded.ReadFile(keyFile, bounded.KeyFile); err != nil {
		return err
	}
	taken := make(map[netip.Addr]bool) // by the file, or given
	for _, x := range s.Groups {
		for _, r := range x.Resources {
			for _, a := range r.Addresses {
				taken[a] = true
			}
		}
	}
	for _, n := range s.Nodes {
		for _, a := range addressesOf(s, n.ID) {
			taken[a] = true
		}
	}
	for _, a := range s.Targets {
		taken[a] = true
	}
	g.linkSockets()
	for i, n := range s.Nodes {
		c := lab.HostConfig{Name: string(n.ID), Addresses: make(map[string][]netip.Prefix), Interfaces: make(map[string]string), OnBoot: g.startAgent}
		for k := range g.nets {
			if net := &g.nets[k]; slices.Contains(net.nodes, n.ID) {
				c.Addresses[net.name] = net.addressesOf(s, n.ID, i, taken)
				if face := net.faces[n.ID]; face != "" {
					c.Interfaces[net.name] = face
				}
			}
		}
		if _, err := g.lab.AddHost(c); err != nil {
			return err
		}
	}
	return g.addClient(taken)
}

// firstGiven is where the addresses that the file does not name begin in a network.
const firstGiven = 11

// addressesOf are a node's addresses on a network: those that the file gives it, and one of each other subnet there, as
// every machine has that holds an address of it.
func (n *labNet) addressesOf(s *cluster.Spec, id cluster.NodeID, i int, taken map[netip.Addr]bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range n.prefixes {
		found := false
		for _, a := range addressesOf(s, id) {
			if p.Contains(a) {
				out, found = append(out, netip.PrefixFrom(a, p.Bits())), true
			}
		}
		if found || p.IsSingleIP() {
			continue
		}
		if a, ok := freeAddress(p, firstGiven+i, taken); ok {
			out = append(out, netip.PrefixFrom(a, p.Bits()))
		}
	}
	return out
}

// addClient adds a host that only asks. It has the addresses that groups are to reach, since there is no router.
func (g *labGround) addClient(taken map[netip.Addr]bool) error {
	g.outside = clientHost
	for g.plan.spec.Node(cluster.NodeID(g.outside)) != nil {
		g.outside += "0"
	}
	c := lab.HostConfig{Name: g.outside, Addresses: make(map[string][]netip.Prefix)}
	for k := range g.nets {
		n := &g.nets[k]
		for _, p := range n.prefixes {
			c.Addresses[n.name] = append(c.Addresses[n.name], targetsIn(g.plan.spec, p)...)
			if p.IsSingleIP() || len(targetsIn(g.plan.spec, p)) > 0 {
				continue
			}
			a, ok := freeAddress(p, 1, taken)
			if !ok {
				return fail(exitUsage, "write a wider subnet, or fewer addresses", "network %s has no address left for a client", p)
			}
			c.Addresses[n.name] = append(c.Addresses[n.name], netip.PrefixFrom(a, p.Bits()))
		}
	}
	h, err := g.lab.AddHost(c)
	if err != nil {
		return err
	}
	if !g.plan.own {
		g.target = netip.AddrPortFrom(g.plan.spec.Groups[0].Resources[1].Addresses[0], devPort)
	}
	g.shell, err = h.Start(lab.Program{Args: []string{"sleep", "infinity"}})
	return err
}

// targetsIn are those of a file's targets that are in a network.
func targetsIn(s *cluster.Spec, p netip.Prefix) (out []netip.Prefix) {
	for _, a := range s.Targets {
		if p.Contains(a) {
			out = append(out, netip.PrefixFrom(a, p.Bits()))
		}
	}
	return out
}

// linkSockets makes the sockets' directory short to type, if it can.
func (g *labGround) linkSockets() {
	g.sockets = g.lab.Dir()
	for _, name := range []string{devSockets, fmt.Sprintf("%s-%d", devSockets, os.Getpid())} {
		removeDeadLink(name)
		if os.Symlink(g.lab.Dir(), name) == nil {
			g.sockets = name
			return
		}
	}
}

// startAgent is what a host's init system does.
func (g *labGround) startAgent(h *lab.Host) error {
	dir := h.Disk("/etc/baton")
	if err := os.WriteFile(filepath.Join(dir, "cluster.yaml"), g.plan.text, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(g.plan.spec.KeyFile)), g.key, 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s, err := h.Supervise(lab.Program{Args: []string{self, "agent", "--socket", g.socket(h.Name())}, Output: "agent", Final: exitLeft})
	if err == nil {
		g.agents[h.Name()] = s
	}
	return err
}

func (g *labGround) lacks() []string { return nil }

// socket lies on the machine's own disk, which the hosts see too; only their /run is their own.
func (g *labGround) socket(node string) string { return filepath.Join(g.lab.Dir(), node+".sock") }

// shownSocket is the same, shorter.
func (g *labGround) shownSocket(node string) string { return filepath.Join(g.sockets, node+".sock") }

func (g *labGround) on(node string) bool { return g.lab.Host(node).On() }

func (g *labGround) upset(node string) string {
	if !g.on(node) {
		return upsetOff
	}
	return g.upsets.of(node)
}

func (g *labGround) powerOff(node string) error {
	g.upsets.remove(node, "")
	return g.lab.Host(node).PowerOff()
}

func (g *labGround) powerOn(node string) error { return g.lab.Host(node).Boot() }

func (g *labGround) cutCable(node string) error {
	net := ""
	for _, n := range slices.Backward(g.nets) {
		if slices.Contains(n.nodes, cluster.NodeID(node)) {
			net = n.name
		}
	}
	for _, x := range g.plan.spec.Groups {
		for _, r := range x.Resources {
			for _, a := range r.Addresses {
				if n := netOf(g.nets, a); x.ID == g.plan.group && n != nil && slices.Contains(n.nodes, cluster.NodeID(node)) {
					net = n.name
				}
			}
		}
	}
	g.upsets.add(node, upsetCable)
	return g.lab.CutCarrier(node, net)
}

func (g *labGround) cutSilently(node string) error {
	g.upsets.add(node, upsetSilent)
	return g.lab.CutSilent(node, "")
}

func (g *labGround) freeze(node string) error {
	g.upsets.add(node, upsetFrozen)
	return g.agents[node].Process().Freeze()
}

func (g *labGround) thaw(node string) error {
	g.upsets.remove(node, upsetFrozen)
	return g.agents[node].Process().Thaw()
}

func (g *labGround) killService(node string, group cluster.GroupID) error {
	ctx, cancel := context.WithTimeout(context.Background(), actLimit)
	defer cancel()
	h := g.lab.Host(node)
	pid, err := processOf(g.plan, group, "/run/baton", func(path string) ([]byte, error) {
		out, err := h.Command(ctx, "cat", path)
		return []byte(out), err
	})
	if err != nil {
		return err
	}
	_, err = h.Command(ctx, "sh", "-c", fmt.Sprintf("kill -9 %d", pid))
	return err
}

func (g *labGround) killAgent(node string) error {
	g.upsets.remove(node, upsetFrozen)
	return g.agents[node].Process().Kill()
}

func (g *labGround) heal() error {
	err := g.lab.HealAll()
	for _, node := range g.plan.nodes() {
		g.upsets.remove(node, upsetCable)
		g.upsets.remove(node, upsetSilent)
	}
	return errors.Join(err, healNodes(g, g.plan))
}

func (g *labGround) client() (*devClient, error) {
	if !g.target.IsValid() {
		return nil, nil
	}
	conn, err := g.lab.Host(g.outside).ListenPacket(context.Background(), "udp4", "0.0.0.0:0")
	if err != nil {
		return nil, fmt.Errorf("open the client's socket: %w", err)
	}
	return newDevClient(conn, []netip.AddrPort{g.target})
}

func (g *labGround) aside() string {
	for _, x := range g.plan.spec.Groups {
		for _, r := range x.Resources {
			for _, a := range r.Addresses {
				url := "ping " + a.String()
				if !g.plan.own {
					url = "curl http://" + net.JoinHostPort(a.String(), fmt.Sprint(devPort))
				}
				return fmt.Sprintf("nsenter -n -t %d %s", g.shell.PID(), url)
			}
		}
	}
	return ""
}

func (g *labGround) close() error {
	if g.sockets != g.lab.Dir() {
		os.Remove(g.sockets)
	}
	return g.lab.Close()
}
