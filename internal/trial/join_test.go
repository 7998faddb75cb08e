package trial

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Two hosts without file and key join by invitation, while the first waits for them. Every mistake with an
// invitation is told, and none costs it.
func TestJoin(t *testing.T) {
	c := bare(t)
	c.eventually("alpha waits for the others", func() bool {
		out, err := c.command(Alpha, "status", "--json")
		return err == nil && strings.Contains(out, "is not heard")
	})
	line := c.invite(Beta)
	join := func(host string, line []string, more ...string) (string, error) {
		return c.command(host, append(append(append([]string(nil), line...), "--no-check"), more...)...)
	}
	mistake := func(reason, host string, line []string, more ...string) {
		t.Helper()
		_, err := join(host, line, more...)
		if err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), "hint: ") {
			t.Errorf("on %s, want %q and a hint: %v", host, reason, err)
		}
		if _, err := os.Stat(c.file(host, "key")); err == nil {
			t.Errorf("on %s there is a key, though joining was refused", host)
		}
	}
	cut := append([]string(nil), line...)
	cut[2] = cut[2][:len(cut[2])-9]
	mistake("cut short or changed", Beta, cut)
	wrong := append([]string(nil), line...)
	wrong[1] = "10.77.0.99"
	mistake("no agent reached at 10.77.0.99", Beta, wrong)
	mistake("the invitation is for beta, and this host is gamma", Gamma, line)
	c.must(os.WriteFile(c.file(Beta, "cluster.yaml"), []byte("cluster: mine\n"), 0o644))
	mistake("/etc/baton/cluster.yaml is there already", Beta, line)
	c.must(os.Remove(c.file(Beta, "cluster.yaml")))

	out, err := join(Beta, line)
	c.must(err)
	if !strings.Contains(out, "beta belongs to cluster trial now") || !strings.Contains(out, "next: systemctl enable --now baton") {
		t.Errorf("beta is told: %s", out)
	}
	for _, name := range []string{"key", "cluster.yaml"} {
		a, _ := os.ReadFile(c.file(Alpha, name))
		b, err := os.ReadFile(c.file(Beta, name))
		if err != nil || string(a) != string(b) {
			t.Errorf("%s on beta: %v, the same: %v", name, err, string(a) == string(b))
		}
	}
	if info, err := os.Stat(c.file(Beta, "key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("beta's key: %v, %v", info, err)
	}
	mistake("the invitation was used already", Gamma, line, "--node", "beta")

	// An agent that was restarted knows its invitations no more.
	line = c.invite(Gamma)
	starts := c.Agent(Alpha).Starts()
	c.must(c.Agent(Alpha).Process().Kill())
	c.eventually("alpha's agent is back", func() bool {
		_, err := c.command(Alpha, "status")
		return err == nil && c.Agent(Alpha).Starts() > starts
	})
	mistake("only those that it gave since it was started", Gamma, line)
	line = c.invite(Gamma, "--for", "1s")
	time.Sleep(1100 * time.Millisecond)
	mistake("the invitation has ended", Gamma, line)
	c.refused("node delta is not in the cluster file", Alpha, "invite", "delta")
	_, err = join(Gamma, c.invite(Gamma))
	c.must(err)

	for _, n := range []string{Beta, Gamma} {
		c.must(c.supervise(c.Host(n)))
	}
	c.must(c.AwaitServing(Alpha, limit))

	// A host with another cluster's data, and one on which an agent runs, are not taken in.
	line = c.invite(Gamma)
	if _, err := join(Gamma, line); err == nil || !strings.Contains(err.Error(), "an agent runs on /var/lib/baton already") {
		t.Errorf("over a running agent: %v", err)
	}
	if _, err := join(Gamma, line, "--data", "/etc/baton/none"); err != nil {
		t.Errorf("a node that joins again with the same file and key: %v", err)
	}
	// The history tells who did what; before the cluster was formed there was none.
	c.eventually("the history tells of the invitation", func() bool {
		out := c.run(Alpha, "history", "-n", "0")
		return strings.Contains(out, "invited gamma for 15m0s") && strings.Contains(out, "root (uid 0) on alpha") &&
			strings.Contains(out, "gamma fetched the cluster's file and key by invitation")
	})
}

// bare makes a cluster of which only alpha has file and key.
func bare(t *testing.T) *incident {
	t.Helper()
	c, err := New(t.Name(), Options{Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range Nodes {
				b, _ := os.ReadFile(c.Host(n).LogPath("agent"))
				t.Logf("%s's log:\n%s", n, b)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return &incident{Trial: c, t: t}
}

// file is a host's file in /etc/baton, as this process names it.
func (c *incident) file(host, name string) string {
	return filepath.Join(c.Host(host).Disk("/etc/baton"), name)
}

// invite returns the words of the line to type on the host.
func (c *incident) invite(node string, more ...string) []string {
	c.t.Helper()
	words := strings.Fields(c.run(Alpha, append([]string{"invite", node}, more...)...))
	if len(words) != 4 || words[0] != "baton" || words[1] != "join" || words[2] != "10.77.0.11" {
		c.t.Fatalf("baton invite printed %q", words)
	}
	return words[1:]
}
