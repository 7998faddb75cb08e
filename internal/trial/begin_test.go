package trial

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// The agent is killed while programs of its node are starting: the next one is heard at once, nothing moves, and the
// programs go on starting.
func TestAgentDiesWhileProgramsStart(t *testing.T) {
	t.Parallel()
	var slow strings.Builder
	for i := range 6 { // nobody has the address: each try takes its whole timeout
		fmt.Fprintf(&slow, `  slow%d:
    nodes: [alpha, beta]
    standby: cold
    resources:
      - process: { name: sleeper, command: [sleep, "471%d"], user: root, start_timeout: 100s, ready: { http: "http://10.77.0.249/", timeout: 2s } }
`, i, i)
	}
	c := start(t, Options{Takeover: "3s", Extra: slow.String()})
	const sleepers = "pgrep -f 'sleep 471[0-9]' | xargs"
	before := ""
	c.eventually("all of them run", func() bool {
		before = c.shell(Alpha, sleepers)
		return len(strings.Fields(before)) == 6
	})
	c.undisturbed("the agent dies while programs start", 8*time.Second, func() error { return c.Agent(Alpha).Process().Kill() })
	if after := c.shell(Alpha, sleepers); after != before {
		t.Errorf("what was starting ran as %s, and now as %s", before, after)
	}
}
