package trial

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

// A node's disk is lost. Its agent is started with an empty one, and that is all: it is let in anew, votes, and
// the cluster bears the next power loss.
func TestLostDisk(t *testing.T) {
	for _, c := range []struct{ lost, serves, next string }{
		{Gamma, Alpha, Beta}, // the witness
		{Beta, Alpha, Beta},  // the standby
		{Alpha, Beta, Alpha}, // who serves
	} {
		t.Run(c.lost, func(t *testing.T) {
			i := start(t, Options{})
			lost := i.at(func() error { return i.LoseDisk(c.lost) })
			if c.serves != Alpha {
				i.failsOver(c.serves, lost)
			}
			back := i.at(i.Host(c.lost).Boot)
			i.must(i.AwaitVoters(limit, Nodes...))
			i.must(i.AwaitServing(c.serves, limit))
			if c.serves == Alpha {
				i.noGap("the loss of another node's disk disturbed the service", lost)
			}
			i.noGap("a node that was let in anew disturbed the service", back)
			i.failsOver(c.next, i.at(i.Host(c.serves).PowerOff))
		})
	}
}

// A node's disk is set back to a former state, as by a snapshot of the machine. The others remember what it has
// acknowledged since, so it takes no part, puts that state aside, and is let in anew.
func TestSetBack(t *testing.T) {
	for _, node := range []string{Beta, Alpha} { // the standby, and who serves
		t.Run(node, func(t *testing.T) {
			c := start(t, Options{})
			c.must(c.Host(node).PowerOff())
			setBack, err := c.KeepDisk(node)
			c.must(err)
			c.must(c.Host(node).Boot())
			c.must(c.AwaitVoters(limit, Nodes...))
			if node == Alpha {
				c.must(c.AwaitServing(Beta, limit))
				c.run(Beta, "failback", Group)
			}
			c.must(c.AwaitServing(Alpha, limit))
			serves := Alpha
			off := c.at(c.Host(node).PowerOff)
			if node == Alpha {
				c.failsOver(Beta, off)
				serves = Beta
			}
			c.must(setBack())
			back := c.at(c.Host(node).Boot)
			c.tells(node, "the data directory of "+node+" was set back to a former state")
			c.must(c.AwaitVoters(limit, Nodes...))
			c.must(c.AwaitServing(serves, limit))
			c.noGap("a node whose disk was set back disturbed the service", back)
			if aside, err := filepath.Glob(filepath.Join(c.Host(node).Disk("/var/lib/baton"), "former-*", "log")); err != nil || len(aside) != 1 {
				t.Errorf("put aside: %v, %v", aside, err)
			}
			c.failsOver(otherMember(serves), c.at(c.Host(serves).PowerOff))
		})
	}
}

// add brings a spare into the file and into the cluster.
func (c *incident) add(name string) {
	c.t.Helper()
	const gamma = "  gamma: { address: 10.77.0.13, role: witness }\n"
	c.change(Alpha, gamma, gamma+spareLine(name))
	c.must(c.BringIn(c.t.Context(), name, Alpha))
}

// A fourth and a fifth node join, so that two may fail; they leave again, one while it is down. Nothing of it
// disturbs the service.
func TestGrowAndShrink(t *testing.T) {
	c := start(t, Options{Spares: 2})
	began := lab.Now()
	c.refused("2 nodes would remain", Alpha, "leave", Gamma)
	c.add("delta")
	c.must(c.AwaitVoters(limit, Alpha, Beta, Gamma, "delta"))
	c.add("epsilon")
	c.must(c.AwaitVoters(limit, append(Nodes, Spares...)...))
	c.must(c.Host(Gamma).PowerOff())
	c.must(c.Host("delta").PowerOff())
	time.Sleep(2 * c.takeover())
	c.must(c.Await(Alpha, limit, "three of five are a majority", func(s *Status) bool { return s.Quorum && s.Group().Serving }))
	c.must(c.Host(Gamma).Boot())

	out := c.run(Beta, "leave", "delta", "--yes")
	if !strings.Contains(out, "node delta removed") || !strings.Contains(out, "delta: it votes no longer") || !strings.Contains(out, "counts") {
		t.Errorf("leave says\n%s", out)
	}
	c.must(c.AwaitVoters(limit, Alpha, Beta, Gamma, "epsilon"))
	out = c.run("epsilon", "leave", "epsilon", "--yes")
	if !strings.Contains(out, "epsilon has left the cluster") {
		t.Errorf("leave on the node itself says\n%s", out)
	}
	c.must(c.AwaitVoters(limit, Nodes...))
	c.tells("epsilon", "epsilon has left the cluster: it serves and votes no longer")
	c.must(c.SendHome(t.Context(), "epsilon"))
	c.must(c.Host("delta").Boot()) // it does not know yet that it has left, and disturbs nobody
	time.Sleep(2 * c.takeover())
	c.noGap("nodes that came and went disturbed the service", began)
	c.failsOver(Beta, c.at(c.Host(Alpha).PowerOff))
}

// The node that serves leaves: what it serves moves first.
func TestOwnerLeaves(t *testing.T) {
	c := start(t, Options{Spares: 1})
	c.add("delta")
	c.must(c.AwaitVoters(limit, Alpha, Beta, Gamma, "delta"))
	asked := c.at(func() error { c.run(Gamma, "leave", Alpha, "--yes"); return nil })
	if gap := c.movesTo(Beta, asked); gap > handover {
		t.Errorf("the move took the service away for %v", gap)
	}
	c.must(c.AwaitVoters(limit, Beta, Gamma, "delta"))
	if c.holdsVIP(Alpha) {
		t.Error("alpha has left, and holds the address")
	}
}

// A power loss at each step of a node's joining and leaving: of the coordinator, of the node itself, of who
// serves. Whatever came to be done or not, once power is back all is as was asked for.
func TestPowerLossWhileMembersChange(t *testing.T) {
	c := start(t, Options{Spares: 1, Takeover: "250ms"})
	all := append(Nodes, "delta")
	steps := []struct {
		what string
		do   func()
		want []string
	}{
		{"add it to the file", func() {
			const gamma = "  gamma: { address: 10.77.0.13, role: witness }\n"
			text := strings.Replace(c.text(Beta), gamma, gamma+spareLine("delta"), 1)
			_, _ = c.command(Beta, "apply", c.draft(Beta, text), "--yes", "--no-wait")
		}, nil},
		{"start its agent", func() { c.must(c.BringIn(t.Context(), "delta", Beta)) }, all},
		{"let it leave", func() { _, _ = c.command(Gamma, "leave", "delta", "--yes", "--no-wait") }, Nodes},
	}
	for _, who := range []string{"coordinator", "joiner", "owner"} {
		for k, step := range steps {
			step.do()
			victim := map[string]string{"joiner": "delta", "owner": c.served().Owner, "coordinator": c.coordinates()}[who]
			if victim == "delta" && k == 0 {
				victim = Beta // who was told
			}
			time.Sleep(time.Duration(k) * 7 * time.Millisecond)
			t.Logf("%s loses power just after: %s", victim, step.what)
			c.must(c.Host(victim).PowerOff())
			time.Sleep(c.takeover())
			c.must(c.Host(victim).Boot())
			if k == 0 { // it may have been lost with the node that was told
				c.awaitQuiet()
				if !strings.Contains(c.text(Beta), "delta:") {
					step.do()
					c.awaitQuiet()
				}
				continue
			}
			if k == 2 {
				c.awaitQuiet()
				if strings.Contains(c.text(Gamma), "delta:") {
					step.do()
				}
			}
			c.must(c.AwaitVoters(2*limit, step.want...))
			if k == 2 {
				c.must(c.SendHome(t.Context(), "delta"))
			}
		}
	}
	c.eventually("web serves", func() bool { return c.served().Serving })
}

// coordinates returns who coordinates.
func (c *incident) coordinates() (name string) {
	c.t.Helper()
	c.eventually("somebody coordinates", func() bool {
		s, err := c.Status(Gamma)
		if err == nil {
			name = s.Coordinator
		}
		return name != ""
	})
	return name
}

// awaitQuiet waits until no change of the configuration is under way.
func (c *incident) awaitQuiet() {
	c.t.Helper()
	for _, n := range Nodes {
		c.must(c.Await(n, 2*limit, "no change is under way", func(s *Status) bool { return s.Coordinator != "" && s.Draft == nil }))
	}
}

// A cluster is formed though a node can't be reached, on the word of a person. The node is let in when it comes,
// and takes over like any other.
func TestFormWithout(t *testing.T) {
	c := bare(t)
	c.must(c.Host(Alpha).PowerOff())
	for _, n := range []string{Beta, Gamma} {
		c.must(c.writeFiles(c.Host(n)))
		c.must(c.supervise(c.Host(n)))
	}
	waits := func(n string) bool {
		s, err := c.Status(n)
		return err == nil && strings.Contains(s.Forming, "alpha is not heard")
	}
	c.eventually("both wait for alpha", func() bool { return waits(Beta) && waits(Gamma) })
	c.refused("would be founded by beta", Gamma, "form", "--without", Alpha, "--yes")
	c.eventually("beta hears gamma, and won't do without it", func() bool {
		_, err := c.command(Beta, "form", "--without", Gamma, "--yes")
		return err != nil && strings.Contains(err.Error(), "gamma is heard")
	})
	if out := c.run(Beta, "form", "--without", Alpha, "--yes"); !strings.Contains(out, "is founded without alpha") {
		t.Errorf("form says %q", out)
	}
	c.must(c.Await(Gamma, limit, "web serves on beta", func(s *Status) bool { return s.Group().Serving && s.Group().Owner == Beta }))
	c.refused("belongs to a cluster already", Beta, "form", "--without", Alpha, "--yes")
	c.probe = c.ask(Client, VIP)
	back := c.at(c.Host(Alpha).Boot)
	c.must(c.AwaitVoters(limit, Nodes...))
	c.noGap("alpha, which was let in, disturbed the service", back)
	c.must(c.AwaitServing(Beta, limit))
	c.failsOver(Alpha, c.at(c.Host(Beta).PowerOff))
}

// end waits until a node's agent has ended for good, and returns what it has logged since an earlier call.
func (c *incident) end(name string, logged *int) string {
	c.t.Helper()
	agent := c.Agent(name)
	select {
	case <-agent.Process().Done():
	case <-time.After(limit):
		c.t.Fatalf("the agent of %s still runs after %v", name, limit)
	}
	var exit *exec.ExitError
	if err := agent.Process().Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitLeft || agent.Starts() != 1 {
		c.t.Errorf("the agent of %s ended with %v, and was started %d times", name, err, agent.Starts())
	}
	b, _ := os.ReadFile(c.Host(name).LogPath("agent"))
	text := string(b[*logged:])
	*logged = len(b)
	return text
}

// wasRemoved checks what a node says whose agent ended because it was removed while it was not heard.
func (c *incident) wasRemoved(name, log string) {
	c.t.Helper()
	sentence := regexp.MustCompile(name + ` was removed from the cluster while it was not heard: revision \d+ does not name it, as \w+ says`)
	told := regexp.MustCompile(`error: ` + sentence.String() + `\nhint: .*baton invite ` + name)
	if !told.MatchString(log) || strings.Count(log, "event=left") != 1 {
		c.t.Errorf("%s's agent says\n%s", name, log)
	}
	if _, err := c.command(name, "status"); err == nil || !sentence.MatchString(err.Error()) || !strings.Contains(err.Error(), "hint: to let it in again") {
		c.t.Errorf("status on %s says %v", name, err)
	}
	if c.holdsVIP(name) {
		c.t.Errorf("%s was removed, and holds the address", name)
	}
}

// A node is removed while it is off. When it is switched on it finds that out, says so and ends, each time; until it
// is let in again the documented way. Nothing of it disturbs the service.
func TestRemovedWhileOff(t *testing.T) {
	c := start(t, Options{Spares: 1})
	began := lab.Now()
	c.add("delta")
	c.must(c.AwaitVoters(limit, Alpha, Beta, Gamma, "delta"))
	c.must(c.Host("delta").PowerOff())
	c.run(Beta, "leave", "delta", "--yes")
	c.must(c.AwaitVoters(limit, Nodes...))
	logged := 0
	for range 2 {
		on := c.at(c.Host("delta").Boot)
		log := c.end("delta", &logged)
		t.Logf("delta ended %v after it was switched on", lab.Now()-on)
		c.wasRemoved("delta", log)
		c.must(c.Host("delta").PowerOff())
	}
	c.must(c.AwaitVoters(limit, Nodes...))

	const gamma = "  gamma: { address: 10.77.0.13, role: witness }\n"
	c.change(Alpha, gamma, gamma+spareLine("delta"))
	c.must(c.Host("delta").Boot()) // with its former data directory, which nobody takes for the one that is let in
	c.must(c.Await("delta", limit, "it says that its data directory is a former one", func(s *Status) bool {
		return slices.ContainsFunc(s.Nodes, func(n NodeStatus) bool {
			return n.Name == "delta" && strings.Contains(n.Trouble, "of a former life, which was removed from the cluster")
		})
	}))
	c.must(c.StopAgent(t.Context(), "delta"))
	line := append(c.invite("delta"), "--no-check", "--force")
	c.shell("delta", "mkdir /var/lib/baton/former && cd /var/lib/baton && mv $(ls -A | grep -v former) former && mv former /etc/baton/")
	c.run("delta", line...)
	c.must(c.supervise(c.Host("delta")))
	c.must(c.AwaitVoters(limit, Alpha, Beta, Gamma, "delta"))
	c.noGap("a node that was removed and let in again disturbed the service", began)
}

// Of three voters none goes before the node that was named to take its place has a vote: who asks is told for whom
// the change waits, and it goes on once that node has come.
func TestLastVotersStay(t *testing.T) {
	c := start(t, Options{Spares: 1})
	began := lab.Now()
	const gamma = "  gamma: { address: 10.77.0.13, role: witness }\n"
	c.change(Alpha, gamma, gamma+spareLine("delta"))
	left := make(chan error, 1)
	go func() {
		_, err := c.command(Alpha, "leave", Gamma, "--yes")
		left <- err
	}()
	c.eventually("status says for whom the change waits", func() bool {
		out, err := c.command(Beta, "status")
		return err == nil && strings.Contains(out, "gamma keeps its vote until delta has one")
	})
	select {
	case err := <-left:
		t.Fatalf("gamma left, and delta has no vote yet: %v", err)
	case <-time.After(c.takeover()):
	}
	c.must(c.BringIn(t.Context(), "delta", Alpha))
	c.must(<-left)
	c.must(c.AwaitVoters(limit, Alpha, Beta, "delta"))
	c.noGap("an exchange of voters disturbed the service", began)
}

// The node that serves is cut off, another serves, and the former owner is removed. Once it reaches the others
// again it finds out, stops what stood by, takes its gate off and ends.
func TestRemovedWhileCutOff(t *testing.T) {
	c := start(t, Options{Spares: 1})
	c.add("delta")
	c.must(c.AwaitVoters(limit, Alpha, Beta, Gamma, "delta"))
	c.movesTo(Beta, c.at(func() error { return c.Lab.CutSilent(Alpha, "") }))
	c.run(Beta, "leave", Alpha, "--yes")
	c.must(c.AwaitVoters(limit, Beta, Gamma, "delta"))
	time.Sleep(2 * c.takeover())
	if s, err := c.Status(Alpha); err != nil || s.Quorum {
		t.Errorf("alpha, which nobody can tell anything: %+v, %v", s, err)
	}
	healed := c.at(func() error { return c.Lab.Heal(Alpha, "") })
	logged := 0
	c.wasRemoved(Alpha, c.end(Alpha, &logged))
	t.Logf("alpha ended %v after it reached the others", lab.Now()-healed)
	if _, err := c.ServicePID(Alpha); err == nil {
		t.Error("alpha was removed, and the service still runs there")
	}
	c.must(c.AwaitVoters(limit, Beta, Gamma, "delta"))
	c.noGap("a node that was removed disturbed the service", healed)
}
