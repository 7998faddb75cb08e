package trial

import (
	"os"
	"strings"
	"testing"
)

// From three hosts with nothing to a cluster that serves, and its first change, in ten commands as init and
// the others say what to type next.
func TestFromNothing(t *testing.T) {
	c := bare(t)
	c.stopAgent(Alpha)
	for _, name := range []string{"cluster.yaml", "key"} {
		c.must(os.Remove(c.file(Alpha, name)))
	}
	c.shell(Alpha, "rm -rf /var/lib/baton/*")

	out := c.run(Alpha, "init", "--yes", "--cluster", Group, "--node", "alpha=10.77.0.11", "--node", "beta=10.77.0.12", "--node", "gamma=10.77.0.13,witness",
		"--vip", "10.77.0.50/24", "--process", "/bin/sleep 1000", "--user", "root", "--takeover", "1s")
	if strings.Contains(out, "failure  ") {
		t.Errorf("init's own check finds failures:\n%s", out)
	}
	c.must(c.supervise(c.Host(Alpha)))
	for _, n := range []string{Beta, Gamma} {
		if !strings.Contains(out, "baton invite "+n) {
			t.Errorf("init does not say to invite %s:\n%s", n, out)
		}
		c.eventually("alpha's agent answers", func() bool { _, err := c.command(Alpha, "status"); return err == nil })
		c.run(n, append(c.invite(n), "--no-check")...)
		c.must(c.supervise(c.Host(n)))
	}
	c.run(Alpha, "status", "--wait", "--timeout", "20s")
	if !c.holdsVIP(Alpha) {
		t.Error("alpha does not hold the address")
	}
	if text := c.text(Gamma); !strings.HasPrefix(text, "# The cluster file") {
		t.Errorf("the comments are lost:\n%s", text)
	}
	p := c.change(Beta, "takeover: 1s", "takeover: 2s")
	if !p.does("timing", "", "") || !p.harmless(Group) {
		t.Errorf("the first change: %+v", p)
	}
	for _, n := range Nodes {
		c.eventually(n+"'s file follows", func() bool {
			have, err := os.ReadFile(c.file(n, "cluster.yaml"))
			return err == nil && strings.Contains(string(have), "takeover: 2s")
		})
	}
	c.refused("is there already", Alpha, "init", "--yes")
}
