package trial

import (
	"testing"
	"time"

	"baton/internal/lab"
)

// The owner's agent hangs; its kernel, address and service are still there. The gate closes without it,
// and only then does the other serve. When the agent goes on, it gives the address up.
func TestAgentFrozen(t *testing.T) {
	for _, takeover := range []string{"1s", "250ms"} {
		t.Run(takeover, func(t *testing.T) {
			c := start(t, Options{Takeover: takeover})
			agent := c.Agent(Alpha).Process()
			c.freeze(agent.Freeze, agent.Thaw)
			if n := c.Agent(Alpha).Starts(); n != 1 {
				t.Errorf("alpha's agent was started %d times", n)
			}
		})
	}
}

// The owner's whole machine is paused, as a hypervisor does.
func TestHostFrozen(t *testing.T) {
	c := start(t, Options{})
	c.freeze(c.Host(Alpha).Freeze, c.Host(Alpha).Thaw)
}

func (c *incident) freeze(freeze, thaw func() error) {
	c.t.Helper()
	pid := c.serviceRuns(Alpha)
	fault := c.at(freeze)
	c.failsOver(Beta, fault)
	c.sameService(Alpha, pid)
	time.Sleep(c.takeover())
	c.givesUp("what was frozen goes on", thaw)
}

// givesUp lets alpha's agent go on, which finds beta in its place, gives the address up and disturbs nobody.
func (c *incident) givesUp(what string, goOn func() error) {
	c.t.Helper()
	before := c.group(Beta)
	since := c.at(goOn)
	c.must(c.AwaitServing(Beta, limit))
	c.eventually("alpha gives the address up", func() bool { return !c.holdsVIP(Alpha) })
	c.noGap(what, since)
	c.sameEpoch(what, before)
}

// sameService checks that the service's process on a node is still the one that it was.
func (c *incident) sameService(node string, pid int) {
	c.t.Helper()
	if now, err := c.ServicePID(node); err != nil || now != pid {
		c.t.Errorf("the service's process on %s is %d (%v), it was %d", node, now, err, pid)
	}
}

// An agent is killed and its supervisor starts it again, on the owner, the standby that coordinates, and the
// witness. Nothing moves, and the program is adopted, not started anew.
func TestAgentKilled(t *testing.T) {
	for _, takeover := range []string{"1s", "250ms"} {
		t.Run(takeover, func(t *testing.T) {
			c := start(t, Options{Takeover: takeover})
			pids := map[string]int{Alpha: c.serviceRuns(Alpha), Beta: c.serviceRuns(Beta)}
			c.coordinator(Beta)
			for _, node := range []string{Gamma, Beta, Alpha} {
				c.undisturbed("the agent of "+node+" is killed", 2*c.takeover(), c.Agent(node).Process().Kill)
				if n := c.Agent(node).Starts(); n != 2 {
					t.Errorf("the agent of %s was started %d times, want 2", node, n)
				}
			}
			c.must(c.AwaitServing(Alpha, limit))
			for node, pid := range pids {
				c.sameService(node, pid)
			}
		})
	}
}

// The owner's agent dies and can't be started again. Its service runs on, but no longer reachable, not even
// from its own machine, and the other node serves. Once the agent is back, it gives the address up.
func TestAgentStaysDead(t *testing.T) {
	c := start(t, Options{})
	inside := c.ask(Alpha, VIP)
	pid := c.serviceRuns(Alpha)
	repair := c.breakAgent(Alpha)
	fault := c.at(c.Agent(Alpha).Process().Kill)
	c.failsOver(Beta, fault)
	c.sameService(Alpha, pid)
	if !c.holdsVIP(Alpha) {
		t.Error("nobody was there to take the address off alpha, and yet it is gone: this test shows nothing")
	}
	if closed, served := last(inside.Record(), Alpha), first(c.probe.Record(), Beta); closed >= served {
		t.Errorf("alpha's own client was served until %v after beta had begun", closed-served)
	}
	c.givesUp("the agent is back", repair)
}

// The agent is stopped for good: a planned move. Afterwards nothing of the group answers on this machine,
// even if somebody adds the address and starts the service by hand: the gate is still there, and closed.
func TestAgentStopped(t *testing.T) {
	c := start(t, Options{Takeover: "3s"})
	asked := lab.Now()
	c.stopAgent(Alpha)
	if gap := c.movesTo(Beta, asked); gap > handover {
		t.Errorf("the stop took the service away for %v", gap)
	}
	if c.holdsVIP(Alpha) {
		t.Error("alpha still has the address")
	}
	if pid, err := c.ServicePID(Alpha); err == nil {
		t.Errorf("the service still runs on alpha: %d", pid)
	}
	c.shell(Alpha, "ip address add "+VIP.Addr().String()+"/32 dev lo")
	program, err := lab.EchoProgram(VIP.Port())
	c.must(err)
	_, err = c.Host(Alpha).Start(program)
	c.must(err)
	own, err := c.Host(Alpha).Probe(lab.ProbeConfig{Target: ownAddress})
	c.must(err)
	c.must(own.Await(limit, func(r lab.Record) bool { return len(r.Replies) > 100 })) // it serves, where it is not gated
	gated, err := c.Host(Alpha).Probe(lab.ProbeConfig{Target: VIP})
	c.must(err)
	time.Sleep(500 * time.Millisecond)
	if r := gated.Stop(); len(r.Replies) > 0 {
		t.Errorf("the gate let %d answers pass: %v", len(r.Replies), r)
	}
	own.Stop()
	if c.shell(Alpha, "ls /run/baton-gate 2>/dev/null; tc filter show dev lan ingress; tc filter show dev lan egress") == "" {
		t.Error("neither a pin nor a filter of the gate is left on alpha")
	}
}

// Where bpf() can't be had, nftables keeps the lease, in every fault that needs it: hung agent, switchover,
// power loss, silent and one-way cuts, a lost carrier, an agent killed and back, one that stays away.
func TestNftables(t *testing.T) {
	c := start(t, Options{Gate: "nftables"})
	agent := c.Agent(Alpha).Process()
	c.freeze(agent.Freeze, agent.Thaw)
	asked := lab.Now()
	c.run(Gamma, "switch", Group, "--to", Alpha)
	if gap := c.movesTo(Alpha, asked); gap > handover {
		t.Errorf("the switchover took the service away for %v", gap)
	}
	c.must(c.AwaitServing(Alpha, limit))
	c.failsOver(Beta, c.at(c.Host(Alpha).PowerOff))

	c.must(c.Host(Alpha).Boot())
	c.must(c.AwaitServing(Beta, limit))
	c.undisturbed("the agent of beta is killed", 2*c.takeover(), c.Agent(Beta).Process().Kill)
	c.must(c.AwaitServing(Beta, limit))
	owner, other := Beta, Alpha
	for _, cut := range []func(host string) error{
		func(h string) error { return c.Lab.CutSilent(h, "") },
		func(h string) error { return c.Lab.CutOneWay(h, "", lab.Out) },
		func(h string) error { return c.Lab.CutOneWay(h, "", lab.In) },
		func(h string) error { return c.Lab.CutCarrier(h, LAN) },
	} {
		c.failsOver(other, c.at(func() error { return cut(owner) }))
		c.must(c.Lab.Heal(owner, ""))
		c.must(c.AwaitServing(other, limit))
		owner, other = other, owner
	}
}
