package trial

import (
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/lab"
)

// This file is about what status, explain and history say of a program that fails.

// mayRun is a file without which the program of the group mail ends at once.
const mayRun = "/run/mail-may-run"

// mailOn is a group mail whose program ends with status 7 where it may not run.
func mailOn(nodes string) string {
	return `  mail:
    nodes: ` + nodes + `
    restarts: 1
    resources:
      - process: { name: postfix, command: [sh, -c, "test -e ` + mayRun + ` || exit 7; exec sleep 1000"], user: root }
`
}

func makeMayRun(h *lab.Host) error { return inHost(h, "touch "+mayRun) }

// A group's program fails, is restarted as often as it may be, and then tried again after pauses. Every node says which
// program it is, how it ended, and what is left of its restarts; explain says when the next try comes. History tells
// the pauses apart from the starting.
func TestFailedProgramIsNamed(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Extra: mailOn("[alpha]"), Before: makeMayRun})
	c.eventually("mail serves", func() bool { return c.placed(Gamma, "mail").Serving })
	c.shell(Alpha, "rm "+mayRun)
	c.shell(Alpha, `for p in $(pgrep -x sleep); do tr '\0' '\n' < /proc/$p/cmdline | grep -qx 1000 && kill -KILL $p; done; true`)
	for _, node := range Nodes {
		c.eventually(node+" tells how mail failed", func() bool {
			text := c.run(node, "status")
			return strings.Contains(text, "alpha, failed: postfix: exited with status 7") && strings.Contains(text, "its restarts are used up, 1 within 10m")
		})
		c.eventually(node+" tells when the next try comes", func() bool {
			return regexp.MustCompile(`postfix +process +failed: exited with status 7.*; the next try comes in [\d.]+m?s`).MatchString(c.run(node, "explain", "mail"))
		})
	}
	c.shell(Alpha, "touch "+mayRun)
	c.eventually("mail serves again", func() bool { return c.placed(Gamma, "mail").Serving })
	c.eventually("history names the pause", func() bool {
		return regexp.MustCompile(`mail serves on alpha, epoch \d+, after unplanned outage of at least \d+ ms \(postfix: [^)]*\): paused \d+ ms before another try`).MatchString(c.run(Gamma, "history", "--group", "mail"))
	})
}

// A program is killed and restarted, and hangs as it starts: status names the signal, and which restart this is.
func TestRestartIsNamed(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Cold: true, Edit: func(file string) string {
		return regexp.MustCompile(`ready: \{ tcp: [^,]*,`).ReplaceAllString(file, `ready: { command: [sh, -c, "! test -e /run/hangs"],`)
	}})
	c.shell(Alpha, "touch /run/hangs")
	c.must(syscall.Kill(c.serviceRuns(Alpha), syscall.SIGKILL))
	c.eventually("gamma tells of the restart", func() bool {
		text := c.run(Gamma, "status")
		return strings.Contains(text, "alpha, preparing: service: was killed by SIGKILL") && strings.Contains(text, "it is started again, and 1 of ")
	})
	c.shell(Alpha, "rm /run/hangs")
	said := regexp.MustCompile(`web serves on alpha, epoch 1, after unplanned outage of [^(]* \(service: was killed by SIGKILL[^)]*\)`)
	c.eventually("history names the cause", func() bool { return said.MatchString(c.run(Gamma, "history")) })
}

// The standby takes over, and its program does not start at first: the pauses before other tries are told apart from the
// starting.
func TestPauseInATakeover(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Extra: mailOn("[alpha, beta]"), Before: makeMayRun})
	c.eventually("mail serves on alpha", func() bool { g := c.placed(Gamma, "mail"); return g.Serving && g.Owner == Alpha })
	c.shell(Beta, "rm -f "+mayRun)
	c.must(c.Host(Alpha).PowerOff())
	c.eventually("beta fails to start it", func() bool { return strings.Contains(c.run(Gamma, "status"), "its restarts are used up") })
	time.Sleep(2 * time.Second)
	c.shell(Beta, "touch "+mayRun)
	c.eventually("mail serves on beta", func() bool { g := c.placed(Gamma, "mail"); return g.Serving && g.Owner == Beta })
	said := regexp.MustCompile(`mail serves on beta, epoch \d+, after unplanned outage of at most \d+ ms: detected \d+ ms, decided \d+ ms, waited \d+ ms, started \d+ ms, paused (\d+) ms before another try`)
	c.eventually("history names the pause", func() bool { return said.MatchString(c.run(Gamma, "history", "--group", "mail")) })
}
