package trial

import (
	"context"
	"strings"
	"testing"

	"baton/internal/lab"
)

// holdPort has another program listen on a node, and waits until it does.
func (c *incident) holdPort(node, address string) *lab.Process {
	c.t.Helper()
	p, err := c.Host(node).Start(lab.Program{Args: []string{"python3", "-c",
		"import socket,sys,time; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind((sys.argv[1],7400)); time.sleep(1000)", address}})
	c.must(err)
	c.eventually("the program has the port", func() bool { return strings.Contains(c.shell(node, "ss -Hlun"), address+":7400") })
	return p
}

// restartAgent ends a node's agent for good, and starts another once between has been done.
func (c *incident) restartAgent(node string, between func()) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	c.must(c.Agent(node).Stop(ctx))
	between()
	c.must(c.supervise(c.Host(node)))
}

// checked is what `baton check` says on a node, whatever it finds.
func (c *incident) checked(node string) string {
	c.t.Helper()
	out, err := c.command(node, "check", "--measure", "20ms")
	if err != nil {
		out += err.Error()
	}
	return out
}

// wants waits until a command's output on a node has every part, and then looks for what must not be in it.
func (c *incident) wants(node string, command []string, parts []string, never ...string) {
	c.t.Helper()
	out := ""
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Logf("%v on %s said last:\n%s", command, node, out)
		}
	})
	c.eventually(strings.Join(command, " ")+" on "+node+" says "+strings.Join(parts, " … "), func() bool {
		if out, _ = c.command(node, command...); command[0] == "check" {
			out = c.checked(node)
		}
		for _, p := range parts {
			if !strings.Contains(out, p) {
				return false
			}
		}
		return true
	})
	for _, n := range never {
		if strings.Contains(out, n) {
			c.t.Errorf("%v on %s says %q:\n%s", command, node, n, out)
		}
	}
}

// The standby's port is in the hands of another program. What says so, says whose it is and on which node: before the
// agent starts, while it runs, and on the other nodes; and it ends when the program does.
func TestPortIsTaken(t *testing.T) {
	t.Parallel()
	c := start(t, Options{})
	check, status := []string{"check", "--measure", "20ms"}, []string{"status"}
	var other *lab.Process
	c.restartAgent(Beta, func() {
		other = c.holdPort(Beta, "0.0.0.0")
		c.wants(Beta, check, []string{"failure  link lan", "UDP 10.77.0.12:7400 is held by python", "pid"}, "its ports are free", "held by the agent")
	})
	c.wants(Beta, status, []string{"beta can't use link lan: UDP 10.77.0.12:7400 is held by python", "on all addresses", "hint: stop that program",
		"beta can't use link cross"}, "healthy")
	c.wants(Beta, check, []string{"failure  link lan", "is held by python", "this node's agent runs without it"}, "held by the agent that runs")
	c.wants(Gamma, status, []string{"beta is not heard"})
	c.must(other.Kill())
	c.wants(Beta, status, []string{"healthy"}, "can't use")
	c.wants(Beta, check, []string{"10.77.0.12:7400 is here, its ports are held by the agent that runs"}, "failure  link")

	// One link of two: the node is heard, and what is wrong stands under its name everywhere.
	c.restartAgent(Beta, func() { other = c.holdPort(Beta, "10.77.0.12") })
	c.must(c.Agent(Gamma).Process().Kill()) // this run has never heard it there
	c.wants(Gamma, status, []string{"beta was never heard on lan", "beta can't use link lan: UDP 10.77.0.12:7400 is held by python"}, "alpha was never", "beta is not heard")
	c.wants(Beta, status, []string{"beta can't use link lan"}, "alpha was never", "alpha is silent", "gamma was never", "can't use link cross")
	c.must(other.Kill())
	c.wants(Gamma, status, []string{"healthy"})
}

// A node starts without its address on one link: its status says which, and it is well once the address comes.
func TestLinkWithoutAddress(t *testing.T) {
	t.Parallel()
	c := start(t, Options{})
	c.restartAgent(Beta, func() { c.shell(Beta, "ip address del 10.78.0.12/24 dev cross") })
	c.wants(Beta, []string{"status"}, []string{"beta can't use link cross: 10.78.0.12 is not an address of this host", "hint: ip address add"}, "healthy")
	for _, other := range []string{Alpha, Gamma} {
		c.wants(other, []string{"status"}, []string{"beta can't use link cross: 10.78.0.12 is not an address of this host"}, "healthy")
	}
	c.shell(Beta, "ip address add 10.78.0.12/24 dev cross")
	c.wants(Beta, []string{"status"}, []string{"healthy"}, "can't use")
}
