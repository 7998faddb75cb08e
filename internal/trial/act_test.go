package trial

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/lab"
)

// says runs a command that must succeed and print a text.
func (c *incident) says(text, node string, args ...string) {
	c.t.Helper()
	if out := c.run(node, args...); !strings.Contains(out, text) {
		c.t.Errorf("%v on %s says %q, want %q", args, node, out, text)
	}
}

// silent checks that the client has had no answer to anything that it sent since an instant.
func (c *incident) silent(what string, since time.Duration) {
	c.t.Helper()
	r := c.probe.Record()
	if len(r.Replies) > 0 && last(r, "") > since {
		for _, x := range r.Replies {
			if x.Sent > since {
				c.t.Errorf("%s: %s answered", what, x.Node)
				return
			}
		}
	}
}

// gone checks that the service's program runs nowhere.
func (c *incident) gone(nodes ...string) {
	c.t.Helper()
	for _, n := range nodes {
		if pid, err := c.ServicePID(n); err == nil {
			c.t.Errorf("the service runs on %s, as %d", n, pid)
		}
	}
}

// A group is stopped on purpose. It stays so while its former owner reboots and an agent restarts, until it is
// started.
func TestStopAndStart(t *testing.T) {
	c := start(t, Options{})
	c.says("web is stopped", Gamma, "stop", Group, "--reason", "new schema")
	stopped := lab.Now()
	c.gone(Alpha, Beta)
	if text := c.run(Beta, "status", "--wait"); !strings.Contains(text, "web is stopped by root") || !strings.Contains(text, "new schema") {
		t.Errorf("status does not tell of the stop:\n%s", text)
	}
	c.refused("web was stopped by root", Beta, "switch", Group)
	c.must(c.Host(Alpha).PowerOff())
	c.must(c.Agent(Beta).Process().Kill())
	time.Sleep(2 * c.takeover())
	c.must(c.Host(Alpha).Boot())
	c.must(c.Await(Gamma, limit, "alpha is back", func(s *Status) bool { return s.Nodes[0].LeaseRuns && s.Nodes[0].Fresh }))
	time.Sleep(2 * c.takeover())
	c.silent("it was stopped", stopped)
	c.gone(Alpha, Beta)
	c.says("web serves on alpha", Beta, "start", Group)
	c.await(c.probe, "alpha answers", func(r lab.Record) bool { return r.AnsweredSince(stopped, Alpha) })
	c.says("nothing to do", Gamma, "start", Group)
	c.must(c.AwaitServing(Alpha, limit))
}

// One resource is stopped in place: the address stays, nobody takes over, and neither an agent's restart nor a
// switchover starts it.
func TestStopOfOneResource(t *testing.T) {
	c := start(t, Options{})
	before := c.group(Alpha)
	c.says("web/service is stopped", Gamma, "stop", Group+"/service")
	stopped := lab.Now()
	c.gone(Alpha)
	c.must(c.Agent(Alpha).Process().Kill())
	time.Sleep(2 * c.takeover())
	c.gone(Alpha)
	c.silent("its resource is stopped", stopped)
	c.sameEpoch("one resource is stopped", before)
	if !c.holdsVIP(Alpha) {
		t.Error("the address went as well")
	}
	c.says("web/service runs again", Beta, "start", Group+"/service")
	c.await(c.probe, "alpha answers", func(r lab.Record) bool { return r.AnsweredSince(stopped, Alpha) })
	c.sameEpoch("it was started again", before)
}

// A restart is one in place: another process, the same epoch, nobody else serves; and an agent's restart does
// not repeat it.
func TestRestartInPlace(t *testing.T) {
	c := start(t, Options{})
	before, pid := c.group(Alpha), c.serviceRuns(Alpha)
	for _, what := range []string{Group, Group + "/service"} {
		asked := lab.Now()
		c.says(what+" was restarted", Gamma, "restart", what)
		now := c.serviceRuns(Alpha)
		if now == pid {
			t.Errorf("%s: it is the same process", what)
		}
		pid = now
		done := lab.Now()
		c.await(c.probe, "alpha answers", func(r lab.Record) bool { return r.AnsweredSince(done, Alpha) })
		if gap := longest(c.probe.Record(), asked); gap > handover {
			t.Errorf("the restart of %s took the service away for %v", what, gap)
		}
		c.sameEpoch("a restart in place", before)
	}
	c.undisturbed("the agent is killed after a restart", 2*c.takeover(), c.Agent(Alpha).Process().Kill)
	if now := c.serviceRuns(Alpha); now != pid {
		t.Errorf("the service was restarted again: %d became %d", pid, now)
	}
}

// A node is drained, and told so nobody can move anything there; then a pin, then a pause that lets nobody take
// over from a dead node.
func TestDrainPinPause(t *testing.T) {
	c := start(t, Options{})
	asked := lab.Now()
	c.says("alpha is drained: nothing is left on it", Gamma, "drain", Alpha, "--reason", "new kernel")
	if gap := c.movesTo(Beta, lab.Now()); gap > handover || longest(c.probe.Record(), asked) > handover {
		t.Errorf("the drain took the service away for %v", longest(c.probe.Record(), asked))
	}
	c.refused("hint: baton undrain alpha", Beta, "switch", Group, "--to", Alpha)
	c.refused("beta is drained, but web stays there: no other node can take it (alpha is drained by ", Gamma, "drain", Beta)
	c.says("beta may be given groups again", Alpha, "undrain", Beta)
	c.says("alpha may be given groups again", Alpha, "undrain", Alpha)

	c.says("web is pinned to alpha", Beta, "pin", Group, Alpha)
	c.movesTo(Alpha, lab.Now())
	c.refused("hint: baton unpin web", Beta, "switch", Group)
	c.refused("alpha is drained, but web stays there: it is pinned to alpha by ", Gamma, "drain", Alpha)
	c.refused("hint: baton unpin web; ", Gamma, "drain", Alpha)
	c.says("alpha may be given groups again", Alpha, "undrain", Alpha)
	c.says("web is pinned no longer", Beta, "unpin", Group)

	c.must(c.AwaitServing(Alpha, limit))
	c.says("web is paused for 10m0s", Beta, "pause", Group, "--for", "10m")
	c.refused("hint: baton resume web", Beta, "switch", Group)
	off := c.at(c.Host(Alpha).PowerOff)
	dark := lab.Now() // until the power is off, alpha may answer
	time.Sleep(3 * c.takeover())
	c.silent("it is paused", dark)
	c.says("web is paused no longer", Gamma, "resume", Group)
	c.movesTo(Beta, off)
}

// What ends by itself: a pause, by the coordinator's wall clock.
func TestPauseEnds(t *testing.T) {
	c := start(t, Options{})
	c.says("everything is paused for 2s", Gamma, "pause", "--for", "2s")
	off := c.at(c.Host(Alpha).PowerOff)
	c.await(c.probe, "beta answers", func(r lab.Record) bool { return r.AnsweredSince(off, Beta) })
	c.says("resume everything", Beta, "history")
}

// The service failed on alpha, which is kept off; a clear lets it come back.
func TestClear(t *testing.T) {
	c := start(t, Options{Cold: true})
	for range 2 { // the first is answered by a restart in place
		pid := c.serviceRuns(Alpha)
		c.must(syscall.Kill(pid, syscall.SIGKILL))
		c.eventually("it is noticed", func() bool {
			now, err := c.ServicePID(Alpha)
			return err != nil || now != pid
		})
	}
	c.movesTo(Beta, lab.Now())
	c.refused("hint: baton clear web", Gamma, "switch", Group, "--to", Alpha)
	c.says("nothing is held against web any more", Gamma, "clear", Group)
	c.says("web serves on alpha", Gamma, "switch", Group, "--to", Alpha)
	c.movesTo(Alpha, lab.Now())
}
