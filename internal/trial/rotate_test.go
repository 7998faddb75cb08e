package trial

import (
	"os"
	"strings"
	"testing"
	"time"
)

// The key is changed while the group serves under a short takeover: nobody moves, no node falls silent, and
// no client waits. With a node that is off it is refused, and nothing changes.
func TestKeyRotation(t *testing.T) {
	c := start(t, Options{Takeover: "250ms"})
	before := c.keyOf(Alpha)
	c.undisturbed("the key is changed", time.Second, func() error {
		_, err := c.command(Alpha, "key", "rotate")
		return err
	})
	c.nothingLost()
	after := c.keyOf(Alpha)
	if after == before || strings.Count(after, "\n") != 1 {
		t.Errorf("alpha's key file has %d lines; changed: %v", strings.Count(after, "\n"), after != before)
	}
	for _, n := range Nodes {
		if c.keyOf(n) != after {
			t.Errorf("%s has another key than alpha", n)
		}
		log, err := os.ReadFile(c.Host(n).LogPath("agent"))
		c.must(err)
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "event=silent") || strings.Contains(line, "does not open") {
				t.Errorf("%s: %s", n, line)
			}
		}
	}

	c.must(c.Host(Gamma).PowerOff())
	for _, n := range Nodes[:2] {
		c.must(c.Await(n, limit, "gamma is silent", func(s *Status) bool { return !s.Nodes[2].Fresh }))
	}
	c.refused("every node is needed: gamma:", Alpha, "key", "rotate")
	if c.keyOf(Alpha) != after || c.keyOf(Beta) != after {
		t.Error("a refused change has changed something")
	}

	// Gamma is left behind. When it is back, nobody understands it; it says so, and an invitation brings it back.
	c.undisturbed("the key is changed without gamma", time.Second, func() error {
		_, err := c.command(Alpha, "key", "rotate", "--without", "gamma")
		return err
	})
	gamma := c.Host(Gamma)
	stale, err := os.ReadFile(c.file(Gamma, "key"))
	c.must(err)
	c.must(os.WriteFile(c.Lab.Dir()+"/key", stale, 0o600)) // what the lab gives a host that boots
	c.must(gamma.Boot())
	c.eventually("gamma's log tells", func() bool {
		log, err := os.ReadFile(gamma.LogPath("agent"))
		return err == nil && strings.Contains(string(log), "does not open with this node's key") && strings.Contains(string(log), "baton invite gamma")
	})
	c.eventually("gamma's status tells of alpha", func() bool { // the log may have told of beta
		out := c.run(Gamma, "status")
		return strings.Contains(out, "alpha: what comes in its name does not open with this node's key") && strings.Contains(out, "hint: ")
	})
	c.stopAgent(Gamma)
	_, err = c.command(Gamma, append(c.invite(Gamma), "--no-check", "--force")...)
	c.must(err)
	c.must(c.supervise(gamma))
	for _, n := range Nodes {
		c.must(c.Await(n, limit, "all are heard", func(s *Status) bool {
			for _, x := range s.Nodes {
				if !x.Fresh {
					return false
				}
			}
			return true
		}))
	}
	c.must(c.AwaitServing(Alpha, limit))
}

// A change that stops half way goes on when it is asked for again, from whatever step each node is at.
func TestKeyRotationGoesOn(t *testing.T) {
	c := start(t, Options{})
	for _, states := range [][3]string{
		{"OLD\nNEW next\n", "OLD\n", "OLD\n"},
		{"NEW\nOLD\n", "OLD\nNEW next\n", "OLD\nNEW next\n"},
		{"NEW\n", "NEW\nOLD\n", "NEW\nOLD\n"},
	} {
		old, made := strings.TrimSpace(c.keyOf(Alpha)), strings.TrimSpace(c.run(Alpha, "keygen"))
		keys := strings.NewReplacer("OLD", old, "NEW", made)
		for i, n := range Nodes {
			c.must(os.WriteFile(c.file(n, "key"), []byte(keys.Replace(states[i])), 0o600))
			starts := c.Agent(n).Starts()
			c.must(c.Agent(n).Process().Kill())
			c.eventually(n+"'s agent is back", func() bool {
				_, err := c.command(n, "status")
				return err == nil && c.Agent(n).Starts() > starts
			})
		}
		c.must(c.AwaitServing(c.served().Owner, limit))
		out := c.run(Beta, "--json", "key", "rotate")
		if !strings.Contains(out, "was under way: it goes on") {
			t.Errorf("it says: %s", out)
		}
		for _, n := range Nodes {
			if got := c.keyOf(n); got != made+"\n" {
				t.Errorf("%s has %d lines, not the new key alone", n, strings.Count(got, "\n"))
			}
		}
	}
}

func (c *incident) keyOf(host string) string {
	c.t.Helper()
	text, err := os.ReadFile(c.file(host, "key"))
	c.must(err)
	return string(text)
}
