package trial

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// smallRun gives a node's /run little room, as small machines have it.
func (c *incident) smallRun(node string) {
	c.t.Helper()
	c.shell(node, "mount -o remount,size=24m /run")
}

// fillRun has something else on the node fill /run.
func (c *incident) fillRun(node string) {
	c.t.Helper()
	c.shell(node, "dd if=/dev/zero of=/run/stray bs=4k 2>/dev/null; [ $(df --output=avail /run | tail -1) = 0 ]")
}

// nextIs waits until a node says that this one would take over; "": nobody.
func (c *incident) nextIs(next, node string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%s says that %q is next", node, next), func() bool { return c.group(node).Next == next })
}

// Something else fills /run on the standby, then the owner dies: what the standby notes needs no room.
func TestFullRunDirectory(t *testing.T) {
	c := start(t, Options{Cold: true})
	c.smallRun(Beta)
	c.fillRun(Beta)
	time.Sleep(c.takeover())
	c.nextIs(Beta, Gamma)
	c.failsOver(Beta, c.at(c.Host(Alpha).PowerOff))
}

// Somebody deletes the standby's run directory: it is made anew, socket and all, before it is needed. Then it can't be
// written at all: that is known before the owner dies, and over as soon as it can.
func TestDeletedRunDirectory(t *testing.T) {
	c := start(t, Options{Cold: true})
	c.smallRun(Beta)
	c.shell(Beta, "rm -rf /run/baton 2>/dev/null; true") // the file system for output stays
	c.eventually("the agent of beta is reached again", func() bool { _, err := c.command(Beta, "status"); return err == nil })
	c.eventually("the run record is there again", func() bool {
		return c.shell(Beta, "ls /run/baton") != "" && strings.Contains(c.shell(Beta, "ls /run/baton"), "record.json")
	})
	c.nextIs(Beta, Gamma)

	c.shell(Beta, "mount -o remount,ro /run")
	c.nextIs("", Gamma)
	c.eventually("status says what is wrong", func() bool {
		text := c.run(Gamma, "status")
		return strings.Contains(text, "degraded") && strings.Contains(text, "sick: takes no write") && strings.Contains(text, "\nbeta: the run record in /run/baton can't be written: read-only file system.\n")
	})
	c.shell(Beta, "mount -o remount,rw /run; rm -rf /run/baton/* 2>/dev/null; true")
	c.nextIs(Beta, Gamma)
	c.eventually("the run directory is there again", func() bool { return strings.Contains(c.shell(Beta, "ls /run/baton"), "resources") })
	c.fillRun(Beta)
	c.failsOver(Beta, c.at(c.Host(Alpha).PowerOff))
}

// Somebody deletes the owner's run directory and kills its agent a while later: the program is adopted, the gate stays
// open, and nothing moves.
func TestDeletedRunDirectoryOfOwner(t *testing.T) {
	c := start(t, Options{})
	pid := c.serviceRuns(Alpha)
	since := c.at(func() error { return nil })
	c.shell(Alpha, "rm -rf /run/baton/* 2>/dev/null; true")
	c.eventually("it is made anew", func() bool {
		text := c.shell(Alpha, "cat /run/baton/record.json /run/baton/resources/web/service/process.json 2>/dev/null; true")
		return strings.Contains(text, "Incarnation") && strings.Contains(text, "PID")
	})
	c.must(c.Agent(Alpha).Process().Kill())
	c.must(c.AwaitServing(Alpha, limit))
	c.sameService(Alpha, pid)
	c.noGap("the run directory was deleted, and the agent killed", since)
}

// Somebody deletes the data directory of a running agent: it is made anew from memory, so that a restart loses nothing.
func TestDeletedDataDirectory(t *testing.T) {
	t.Parallel()
	c := start(t, Options{})
	before := c.group(Alpha)
	c.shell(Beta, "rm -rf /var/lib/baton/* 2>/dev/null; true")
	c.eventually("it is made anew", func() bool {
		return strings.Contains(c.shell(Beta, "ls /var/lib/baton"), "log") && strings.Contains(c.shell(Beta, "ls /var/lib/baton"), "runs")
	})
	c.must(c.Agent(Beta).Process().Kill())
	c.must(c.AwaitServing(Alpha, limit))
	if text := c.run(Gamma, "history"); strings.Contains(text, "copies the log") {
		t.Errorf("beta lost its disk:\n%s", text)
	}
	c.sameEpoch("the data directory was deleted", before)
	c.movesTo(Beta, c.at(c.Host(Alpha).PowerOff))
}

// Writes to the standby's log fail for a while: that is known before a takeover, and needs no restart to be over.
func TestFailedWritesNeedNoRestart(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("chattr"); err != nil {
		t.Skip("chattr is not here")
	}
	c := start(t, Options{OwnDisk: true, Cold: true})
	starts := c.Agent(Beta).Starts()
	c.shell(Beta, "chattr +i /var/lib/baton/log")
	c.nextIs("", Gamma)
	c.shell(Beta, "chattr -i /var/lib/baton/log")
	c.nextIs(Beta, Gamma)
	if n := c.Agent(Beta).Starts(); n != starts {
		t.Errorf("the agent was started %d times more", n-starts)
	}
	c.movesTo(Beta, c.at(c.Host(Alpha).PowerOff))
}

// A program without journald prints as fast as it can: /run keeps its room, the groups of its node can be moved, and what
// it printed last can be read.
func TestProgramThatPrintsWithoutEnd(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Cold: true, Extra: `  mad:
    nodes: [alpha, beta]
    standby: cold
    resources:
      - process:
          name: mad
          command: [ sh, -c, "while [ ! -e /run/go ]; do sleep 0.05; done; exec yes $(printf '%0200d')" ]
          user: root
`})
	c.smallRun(Alpha)
	c.smallRun(Beta)
	used := func(node string) int {
		n, err := strconv.Atoi(strings.TrimSpace(c.shell(node, "df --output=used /run | tail -1")))
		c.must(err)
		return n
	}
	c.shell(Alpha, "touch /run/go")
	worst := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		worst = max(worst, used(Alpha))
	}
	if worst > 8<<10 {
		t.Errorf("%d KiB of /run are taken", worst)
	}
	if text := c.run(Alpha, "logs", "mad", "-n", "5"); strings.Count(text, "00000000") < 5 {
		t.Errorf("logs shows %q", text)
	}
	for _, to := range []string{Beta, Alpha} {
		c.run(Gamma, "switch", Group, "--to", to)
		c.must(c.AwaitServing(to, limit))
	}
	c.run(Gamma, "stop", "mad")
}

// A health command prints without end. What it prints is read, but not kept: not in the agent, and not in a file in
// memory.
func TestCheckThatPrintsWithoutEnd(t *testing.T) {
	c := start(t, Options{Extra: `  chatty:
    nodes: [alpha]
    resources:
      - process:
          name: chatty
          command: [ sleep, "1000" ]
          user: root
          healthy: { command: [ sh, -c, "[ ! -e /run/go ] || head -c 600000000 /dev/zero" ], interval: 100ms, timeout: 10s }
`})
	shared := func() int {
		fields := strings.Fields(c.shell(Alpha, "grep ^Shmem: /proc/meminfo"))
		n, err := strconv.Atoi(fields[1])
		c.must(err)
		return n >> 10
	}
	before, worst := shared(), 0
	c.shell(Alpha, "touch /run/go")
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		worst = max(worst, shared())
	}
	if worst-before > 200 {
		t.Errorf("%d MiB more are held in memory than the %d MiB before", worst-before, before)
	}
}

// No command waits without end for an agent that is frozen.
func TestCommandsGiveAFrozenAgentUp(t *testing.T) {
	t.Parallel()
	c := start(t, Options{})
	p := c.Agent(Gamma).Process()
	c.must(p.Freeze())
	defer p.Thaw()
	for _, command := range [][]string{{"status"}, {"status", "--json"}, {"switch", Group}, {"logs", Group}, {"history"}} {
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		begin := time.Now()
		_, err := c.Run(ctx, Gamma, command...)
		took := time.Since(begin)
		if err == nil || !strings.Contains(err.Error(), "answered nothing") || !strings.Contains(err.Error(), "hint: ") || ctx.Err() != nil {
			t.Errorf("%v: %v after %v", command, err, took)
		}
		cancel()
	}
}
