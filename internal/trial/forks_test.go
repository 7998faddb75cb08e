package trial

import (
	"strings"
	"testing"
)

// TestStandbyThatCanNotStart: a cold standby whose process table is full starts nothing, and so could not take over: all
// know before they need it, and count it in again once there is room.
func TestStandbyThatCanNotStart(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Cold: true})
	c.eventually("beta is next", func() bool { return c.group(Gamma).Next == Beta })
	// The shell that gives the room back is there before it is taken. It ends with an error: it can't start all that it is told to.
	_ = inHost(c.Host(Beta), `exec >/dev/null 2>&1
		( sleep 25; echo 32768 >/proc/sys/kernel/pid_max ) &
		echo 400 >/proc/sys/kernel/pid_max
		i=0; while [ $i -lt 500 ]; do sleep 25 & i=$((i+1)); done`)
	c.eventually("beta is not next", func() bool { return c.group(Gamma).Next == "" })
	if text := c.run(Gamma, "status"); !strings.Contains(text, "beta can't take it: it can't run it: lacks: service: no more processes can be started here") {
		t.Errorf("gamma says\n%s", text)
	}
	c.eventually("beta is next again", func() bool { return c.group(Gamma).Next == Beta })
}
