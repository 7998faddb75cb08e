package trial

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

// only is a group that one node alone may run: a program that answers at port 8081, addresses, and what else it runs.
func (c *incident) only(name, node, more string, hosts ...int) string {
	text := fmt.Sprintf(`  %s:
    nodes: [%s]
    resources:
      - process:
          name: service
          command: %s -port 8081
          environment: { BATON_LAB_MODE: echo }
          user: root
          ready: { tcp: "localhost:8081", interval: 20ms }
`, name, node, c.binary)
	for _, host := range hosts {
		text += fmt.Sprintf("      - vip: { name: ip%d, address: 10.77.0.%d/24 }\n", host, host)
	}
	return text + more
}

// An address goes from one group to another, in two revisions. The agent that has to take it down is slow, and hangs
// while the address is up: it is out of reach by then, and the other group serves it, before and after the agent goes
// on. Who asks for it never meets both.
func TestReconfigureHandsOver(t *testing.T) {
	for _, gate := range []string{"ebpf", "nftables"} {
		t.Run(gate, func(t *testing.T) { handsOver(t, gate) })
	}
}

func handsOver(t *testing.T, gate string) {
	dir, err := os.MkdirTemp("/dev/shm", "baton-trial-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := start(t, Options{Takeover: "1s", Gate: gate, Dir: dir + "/lab"})
	// What stands last stops first, and the address goes only then.
	const slow = "      - process: { name: slow, command: [ sh, -c, \"trap 'sleep 4; exit' TERM; while :; do sleep 0.1; done\" ], user: root, stop_timeout: 10s }\n"
	base := c.File()
	c.apply(base + c.only("giver", Alpha, slow, 51, 53) + c.only("taker", Beta, "", 52))
	moved := c.ask(Client, anotherAddress(51, 8081))
	kept := c.ask(Client, anotherAddress(53, 8081))

	taken := lab.Now()
	c.apply(base + c.only("giver", Alpha, "", 53) + c.only("taker", Beta, "", 52))
	agent := c.Agent(Alpha).Process()
	c.must(agent.Freeze())
	frozen := lab.Now()
	up := func() bool { return strings.Contains(c.shell(Alpha, "ip -o address show"), "10.77.0.51/") }
	if !up() {
		t.Error("the address is down before it was given away: this test shows nothing")
	}
	last51 := last(moved.Record(), Alpha)
	t.Logf("alpha answered for the address until %v after it was asked to give it up", last51-taken)
	time.Sleep(300 * time.Millisecond)
	if now := last(moved.Record(), Alpha); now >= frozen {
		t.Errorf("alpha answers for what was taken from it, %v after it hung", now-frozen)
	}

	next := base + c.only("giver", Alpha, "", 53) + c.only("taker", Beta, "", 51, 52)
	c.run(Beta, "apply", c.draft(Beta, next), "--yes", "--unchecked") // alpha can not be asked
	c.await(moved, "the other group serves it", func(r lab.Record) bool { return r.AnsweredSince(frozen, Beta) })
	if !up() {
		t.Error("the address is down before the agent goes on: this test shows nothing")
	}
	thawed := c.at(agent.Thaw)
	c.await(kept, "the first group serves what it has kept", func(r lab.Record) bool { return r.AnsweredSince(thawed, Alpha) })
	c.eventually("the address is down where it was", func() bool { return !up() })
	down := lab.Now()
	c.await(moved, "the other group serves it still", func(r lab.Record) bool { return r.AnsweredSince(down, Beta) })
	if now := last(moved.Record(), Alpha); now >= frozen {
		t.Errorf("alpha answered for it %v after it hung", now-frozen)
	}
}
