package trial

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"baton/internal/lab"
)

// pins are the gate's links on a node, by their paths as this process sees them.
func (c *incident) pins(node string) []string {
	p := c.Agent(node).Process()
	if p == nil {
		return nil
	}
	all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/root/run/baton-gate/*_*", p.PID()))
	return all
}

// detach takes a gate's links off, as `bpftool link detach` does.
func (c *incident) detach(node string) error {
	for _, path := range c.pins(node) {
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return err
		}
		err = l.(interface{ Detach() error }).Detach()
		l.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// gateOffs are ways in which others take a node's gate off, by mechanism.
func (c *incident) gateOffs() map[string]map[string]func(node string) error {
	shell := func(line string) func(string) error {
		return func(node string) error {
			_, err := c.Host(node).Command(c.t.Context(), "sh", "-c", line)
			return err
		}
	}
	return map[string]map[string]func(node string) error{
		"auto": {
			"bpf link detach": c.detach,
			"pins removed":    shell("rm -f /run/baton-gate/*_*"),
			"umount":          shell("umount -l /run/baton-gate"),
		},
		"clsact": {
			"tc qdisc del":  shell("tc qdisc del dev lan clsact"),
			"tc filter del": shell("tc filter del dev lan ingress"),
		},
		"nftables": {"nft flush ruleset": shell("nft flush ruleset")},
	}
}

// Others take the gate off, on the node that serves and on the standby. It is put back at once, and nobody's answers
// stop; the log and status say so; the gate holds afterwards, also when its agent is killed.
func TestGateTakenOff(t *testing.T) {
	for _, mechanism := range []string{"auto", "clsact", "nftables"} {
		t.Run(mechanism, func(t *testing.T) {
			opt := Options{Takeover: "1s"}
			if mechanism != "auto" {
				opt.Gate = mechanism
			}
			c := start(t, opt)
			for name, take := range c.gateOffs()[mechanism] {
				for _, node := range Nodes[:2] {
					c.undisturbed(name+" on "+node, slack, func() error { return take(node) })
					c.eventually(name+" on "+node+": status tells", func() bool {
						text := c.run(node, "status")
						return strings.Contains(text, "gate") && strings.Contains(text, "took it off")
					})
					c.eventually(name+": gamma tells of it", func() bool {
						text := c.run(Gamma, "status")
						return strings.Contains(text, node+"'s gate was taken off") && strings.Contains(text, node+"'s gate: others took it off")
					})
				}
			}
			c.failsOver(Beta, c.at(c.Agent(Alpha).Process().Freeze))
			c.must(c.Agent(Alpha).Process().Thaw())
		})
	}
}

// A gate that can't be put back: its node is no place to move to, and says so, until it can.
func TestGateThatStaysOff(t *testing.T) {
	t.Parallel()
	c := start(t, Options{})
	if len(c.pins(Beta)) == 0 {
		t.Skip("this kernel has no tcx")
	}
	// Its agent makes the directory again at once: until a file stands there first.
	c.shell(Beta, "until [ -f /run/baton-gate ]; do umount -l /run/baton-gate; rmdir /run/baton-gate; : > /run/baton-gate; done 2>/dev/null")
	c.eventually("gamma says that beta lacks a whole gate", func() bool {
		return strings.Contains(c.run(Gamma, "explain", Group), "a whole gate")
	})
	if text := c.run(Beta, "status"); !strings.Contains(text, "is not whole") {
		t.Errorf("status on beta does not tell:\n%s", text)
	}
	c.refused("a whole gate", Gamma, "switch", Group, "--to", Beta)
	c.shell(Beta, "rm /run/baton-gate")
	c.eventually("its pins are back", func() bool { return len(c.pins(Beta)) > 0 })
	c.failsOver(Beta, c.at(c.Host(Alpha).PowerOff))
}

// Both nodes' gates are taken off at random moments, all the time, while the group moves, agents freeze and are killed.
// Never do two answer. A move waits until the former node's gate is whole again, since it is not known to be shut before
// that; the kernel takes up to 20 ms for each hook of tcx, and whoever takes the gate off again meanwhile prolongs it.
func TestGateTakenOffAtRandom(t *testing.T) {
	for _, mechanism := range []string{"auto", "clsact", "nftables"} {
		t.Run(mechanism, func(t *testing.T) {
			const takeover = time.Second
			opt := Options{Takeover: takeover.String()}
			if mechanism != "auto" {
				opt.Gate = mechanism
			}
			c := start(t, opt)
			calm := c.moves(6)
			stop := make(chan struct{})
			var takers sync.WaitGroup
			for i, node := range Nodes[:2] {
				takers.Go(func() {
					dice := rand.New(rand.NewPCG(uint64(i), 1))
					var ways []func(string) error
					for _, take := range c.gateOffs()[mechanism] {
						ways = append(ways, take)
					}
					for {
						select {
						case <-stop:
							return
						case <-time.After(time.Duration(100+dice.IntN(300)) * time.Millisecond):
						}
						_ = ways[dice.IntN(len(ways))](node) // it may be off already
					}
				})
			}
			wild := c.moves(6)
			close(stop)
			takers.Wait()
			t.Logf("a switchover took %v, with gates taken off and put back %v", calm, wild)
			if worst(wild) > takeover+handover {
				t.Errorf("moves took up to %v while gates were taken off, %v before", worst(wild), worst(calm))
			}
		})
	}
}

// moves moves the group to and fro, and returns what each move cost the client.
func (c *incident) moves(n int) (gaps []time.Duration) {
	c.t.Helper()
	for range n {
		to := Beta
		if c.served().Owner == Beta {
			to = Alpha
		}
		asked := lab.Now()
		c.run(Gamma, "switch", Group, "--to", to)
		gaps = append(gaps, c.movesTo(to, asked).Round(100*time.Microsecond))
		c.must(c.AwaitServing(to, limit))
	}
	return gaps
}

func worst(all []time.Duration) (w time.Duration) {
	for _, d := range all {
		w = max(w, d)
	}
	return w
}

// Other software has an ingress qdisc where clsact would be, before the agent starts or after. The agent starts, and is
// not in its way; check says what it found.
func TestForeignIngressQdisc(t *testing.T) {
	t.Run("before", func(t *testing.T) {
		for _, mechanism := range []string{"auto", "clsact"} {
			t.Run(mechanism, func(t *testing.T) {
				t.Parallel()
				opt := Options{}
				if mechanism != "auto" {
					opt.Gate = mechanism
				}
				c := start(t, opt)
				c.stopAgent(Beta)
				c.shell(Beta, "tc qdisc del dev lan clsact 2>/dev/null; tc qdisc add dev lan ingress")
				c.must(c.supervise(c.Host(Beta)))
				c.must(c.AwaitServing(Alpha, limit))
				c.serviceRuns(Beta)
				c.run(Gamma, "switch", Group)
				c.must(c.AwaitServing(Beta, limit))
				if q := c.shell(Beta, "tc qdisc show dev lan"); !strings.Contains(q, "ingress") {
					t.Errorf("the other program's qdisc is gone: %s", q)
				}
				c.failsOver(Alpha, c.at(c.Agent(Beta).Process().Freeze)) // its gate shuts by itself
				c.must(c.Agent(Beta).Process().Thaw())
			})
		}
	})
	t.Run("after", func(t *testing.T) {
		t.Parallel()
		c := start(t, Options{})
		if _, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress}); err != nil {
			t.Skipf("this kernel has no tcx: %v", err)
		}
		for _, n := range Nodes[:2] {
			c.undisturbed("an ingress qdisc on "+n, slack, func() error {
				_, err := c.Host(n).Command(t.Context(), "tc", "qdisc", "add", "dev", "lan", "ingress")
				return err
			})
		}
		c.failsOver(Beta, c.at(c.Agent(Alpha).Process().Freeze))
		c.must(c.Agent(Alpha).Process().Thaw())
	})
}

// An interface that appears later is guarded as soon as the kernel tells of it: the address of a frozen former owner
// can't be reached by it.
func TestInterfaceAppearsLater(t *testing.T) {
	t.Parallel()
	c := start(t, Options{})
	before := len(c.pins(Alpha))
	c.shell(Alpha, "ip link add late0 type veth peer name late1 && ip link set late0 up && ip link set late1 up")
	c.eventually("both ends of the new cable have their programs", func() bool { return len(c.pins(Alpha)) == before+4 })
	c.shell(Alpha, "ip link del late0")
	c.eventually("their pins go with them", func() bool { return len(c.pins(Alpha)) == before })
	c.must(c.AwaitServing(Alpha, limit))
}

// The agent of an older version has its gate at clsact. The new one takes it over and goes to tcx: served all the time,
// shut all the time where it is to be, and nothing is left at clsact. It goes back the same way.
func TestGateFromClsact(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Takeover: "3s", Gate: "clsact"})
	for _, gate := range []string{"", "clsact", ""} {
		c.opt.Gate = gate
		for _, n := range Nodes[:2] {
			c.undisturbed("the agent of "+n+" goes to gate "+gate, 2*time.Second, func() error {
				c.Agent(n).Change(c.agentProgram())
				return c.Agent(n).Process().Kill()
			})
			want := map[string]string{"": "", "clsact": "clsact"}[gate]
			c.eventually("the gate of "+n+" is at "+gate, func() bool {
				q := c.shell(n, "tc qdisc show dev lan")
				return strings.Contains(q, "clsact") == (want != "") && (len(c.pins(n)) > 0) == (want == "")
			})
		}
	}
	c.failsOver(Beta, c.at(c.Agent(Alpha).Process().Freeze))
	c.must(c.Agent(Alpha).Process().Thaw())
}

// check says which mechanism it is, and why: where a unit's own mount namespace would take the pins away with the agent
// it is clsact, and where others are in clsact's place there it names them.
func TestCheckTellsOfTheGate(t *testing.T) {
	t.Parallel()
	c := start(t, Options{})
	const check = " check /etc/baton/cluster.yaml 2>&1 | grep -A1 ' gate' || true"
	if text := c.shell(Beta, c.binary+check); !strings.Contains(text, "ebpf tcx") {
		t.Skipf("this kernel has no tcx: %s", text)
	}
	if text := c.shell(Beta, "unshare -m "+c.binary+check); !strings.Contains(text, "ebpf clsact") || !strings.Contains(text, "mount namespace of PID 1") {
		t.Errorf("check in a mount namespace of its own: %s", text)
	}
	c.shell(Beta, "tc qdisc add dev lan ingress")
	text := c.shell(Beta, "unshare -m "+c.binary+check)
	for _, word := range []string{"lan egress", "ingress", "nftables beside it"} {
		if !strings.Contains(text, word) {
			t.Errorf("check beside another program's qdisc does not say %q: %s", word, text)
		}
	}
}

// An agent in a mount namespace of its own, as a unit's PrivateTmp makes it, has its gate where its death does not open
// it, also if the one before it was at tcx.
func TestGateInItsOwnMountNamespace(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Takeover: "3s"})
	p := c.agentProgram()
	p.Args = append([]string{"unshare", "-m"}, p.Args...)
	c.undisturbed("the agent gets a mount namespace of its own", 2*time.Second, func() error {
		c.Agent(Alpha).Change(p)
		return c.Agent(Alpha).Process().Kill()
	})
	c.eventually("its gate is at clsact", func() bool { return strings.Contains(c.shell(Alpha, "tc qdisc show dev lan"), "clsact") })
	c.shell(Alpha, "mv "+"/etc/baton/key /etc/baton/key.gone") // so that no other agent starts
	since := c.at(c.Agent(Alpha).Process().Kill)
	c.failsOver(Beta, since)
	c.shell(Alpha, "mv "+"/etc/baton/key.gone /etc/baton/key")
}
