package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/io/api"
)

// checkLinks looks for this node's address of each link, and whether its ports are free, or in the hands of this
// node's agent.
func checkLinks(u *checkup, spec *cluster.Spec, self *cluster.NodeSpec, socket string) {
	here, err := hostAddresses()
	if err != nil {
		u.add("links", warning, "", "ask for this host's addresses: %v", err)
		return
	}
	running := askRunning(socket, self.ID)
	if running != nil && running.sick {
		u.add("agent", bad, "its log says which, and why: journalctl --unit=baton", "the agent that runs is sick: its disk, run record or gate takes no write, so this node takes nothing over")
	}
	for _, l := range spec.Links {
		if l.UDP == nil {
			continue
		}
		name, address := "link "+l.Name, l.UDP.Addresses[self.ID]
		if !address.IsValid() {
			u.add(name, pass, "", "%s has no address on it", self.ID)
			continue
		}
		if !slices.Contains(here, address.Unmap()) {
			u.add(name, bad, "ip address add, or correct the file", "%s is not an address of this host", address)
			continue
		}
		checkPorts(u, name, netip.AddrPortFrom(address.Unmap(), l.UDP.Port), running, "udp", "tcp")
	}
	checkSizes(u, spec, self, running)
	// What is no link's, but where the agent listens too.
	if at := apiAddress(spec, self.ID); at.IsValid() && !slices.ContainsFunc(spec.Links, func(l cluster.LinkSpec) bool {
		return l.UDP != nil && netip.AddrPortFrom(l.UDP.Addresses[self.ID].Unmap(), l.UDP.Port) == at
	}) && slices.Contains(here, at.Addr()) {
		checkPorts(u, "api", at, running, "tcp")
	}
	if at, ok := spec.HealthAddress(self.ID); ok && (at.Addr().IsUnspecified() || slices.Contains(here, at.Addr().Unmap())) {
		checkPorts(u, "health", at, running, "tcp")
	}
}

// checkPorts looks whether ports are free. Whose they are that are not is found out, not guessed: the agent that runs
// says what it can't use, and the kernel who has it.
func checkPorts(u *checkup, name string, at netip.AddrPort, running *runningAgent, networks ...string) {
	agents := false
	for _, network := range networks {
		err := free(network, at)
		switch {
		case err == nil:
			continue
		case !errors.Is(err, syscall.EADDRINUSE):
			u.add(name, bad, "", "%s %s: %v", network, at, err)
			return
		}
		h, found := holderOf(network, at)
		if running.has(network, at, h, found) {
			agents = true
			continue
		}
		hint := heldHint(at)
		if !found || h.pid == 0 {
			hint = fmt.Sprintf("ss -lnp 'sport = :%d' names it, as root", at.Port())
		}
		text := heldBy(network, at, func(string, netip.AddrPort) (holder, bool) { return h, found })
		if running != nil {
			text += ", and this node's agent runs without it"
		}
		u.add(name, bad, hint, "%s", text)
		return
	}
	if agents {
		u.add(name, pass, "", "%s is here, its ports are held by the agent that runs", at)
		return
	}
	u.add(name, pass, "", "%s is here, its ports are free", at)
}

// runningAgent is this node's agent, as far as it answers.
type runningAgent struct {
	pid    int // 0: not known
	sick   bool
	faults []*batonv1.LinkFault
	narrow []wayFault // on the ways to other nodes
}

// wayFault is what the agent has found wrong with its way to another node.
type wayFault struct {
	to string
	*batonv1.LinkFault
}

// askRunning asks the agent behind a socket who it is, and what it can't use; nil: none answers, or another node's.
func askRunning(socket string, self cluster.NodeID) *runningAgent {
	ctx, cancel := context.WithTimeout(context.Background(), agentAnswers)
	defer cancel()
	agent := api.Dial(socket)
	defer agent.Close()
	s, err := agent.Status(ctx, &batonv1.StatusRequest{})
	if err != nil || s.Node != string(self) {
		return nil
	}
	a := &runningAgent{pid: pidBehind(socket)}
	for _, n := range s.Nodes {
		if n.Name == s.Node {
			a.faults, a.sick = slices.DeleteFunc(n.Faults, func(f *batonv1.LinkFault) bool { return f.By != "" }), n.Sick
			continue
		}
		for _, f := range n.Faults {
			if f.By == "" && f.Link != twinFault { // what others tell is for their own check
				a.narrow = append(a.narrow, wayFault{n.Name, f})
			}
		}
	}
	return a
}

// pidBehind returns the process that listens on a socket of this host; 0: it is not known.
func pidBehind(socket string) int {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	err = raw.Control(func(fd uintptr) {
		if c, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(c.Pid)
		}
	})
	if err != nil {
		return 0
	}
	return pid
}

// has tells whether a port is in the agent's hands: by who has it, or, where that can't be seen, by what the agent says
// that it lacks.
func (a *runningAgent) has(network string, at netip.AddrPort, h holder, found bool) bool {
	switch {
	case a == nil:
		return false
	case found && h.pid != 0 && a.pid != 0:
		return h.pid == a.pid
	}
	lacks := strings.ToUpper(network) + " " + at.String() + " "
	return !slices.ContainsFunc(a.faults, func(f *batonv1.LinkFault) bool { return strings.HasPrefix(f.Text, lacks) })
}

// hostAddresses returns every address of this host, in its network namespace.
func hostAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out, nil
}

// free binds an address for a moment.
func free(network string, at netip.AddrPort) error {
	if network == "udp" {
		c, err := net.ListenPacket(network, at.String())
		if err == nil {
			c.Close()
		}
		return err
	}
	l, err := net.Listen(network, at.String())
	if err == nil {
		l.Close()
	}
	return err
}

// checkResources looks for what the groups of this node name: users, programs, interfaces.
func checkResources(u *checkup, spec *cluster.Spec, self *cluster.NodeSpec) {
	for _, g := range spec.Groups {
		if g.Prefers(self.ID) < 0 {
			continue
		}
		for _, r := range g.On(self.ID).Resources {
			if hint, err := checkResource(r); err != nil {
				u.add("group "+string(g.ID), bad, hint, "resource %s: %v", r.ID, err)
			} else if text, hint := doubtResource(r); text != "" {
				u.add("group "+string(g.ID), warning, hint, "resource %s: %s", r.ID, text)
			}
		}
	}
}

// firewall returns what must be let in here (self nil: on any node), as rules of nft(8).
func firewall(spec *cluster.Spec, self *cluster.NodeSpec) []string {
	rules := []string{}
	for _, l := range spec.Links {
		if l.UDP == nil {
			continue
		}
		var four, six []string
		for _, n := range spec.Nodes {
			a := l.UDP.Addresses[n.ID].Unmap()
			switch {
			case self != nil && n.ID == self.ID || !a.IsValid():
			case a.Is4():
				four = append(four, a.String())
			default:
				six = append(six, a.String())
			}
		}
		for family, from := range map[string][]string{"ip": four, "ip6": six} {
			if len(from) > 0 {
				rules = append(rules, fmt.Sprintf("%s saddr { %s } meta l4proto { udp, tcp } th dport %d accept", family, strings.Join(from, ", "), l.UDP.Port))
			}
		}
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}
