package trial

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// remotely runs a command on the client, which has no agent, with a home of its own.
func (c *incident) remotely(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	return c.Host(Client).Command(ctx, append([]string{"env", "XDG_CONFIG_HOME=/etc/baton", c.binary}, args...)...)
}

func (c *incident) remote(args ...string) string {
	c.t.Helper()
	out, err := c.remotely(args...)
	c.must(err)
	return out
}

// denied runs a command on the client that must fail with a reason and a hint.
func (c *incident) denied(reason string, args ...string) {
	c.t.Helper()
	_, err := c.remotely(args...)
	if err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), "hint: ") {
		c.t.Errorf("%v from afar, want %q and a hint: %v", args, reason, err)
	}
}

// A person on another machine gets a token, uses the cluster as its role allows, and no more once it is
// revoked or late. The history names the token.
func TestRemote(t *testing.T) {
	c := start(t, Options{})
	give := func(name, role string, more ...string) []string {
		t.Helper()
		words := strings.Fields(c.run(Alpha, append([]string{"token", "add", name, "--role", role}, more...)...))
		if len(words) < 8 || strings.Join(words[:4], " ") != "baton context add trial" || words[4] != "10.77.0.11" {
			t.Fatalf("baton token add printed %q", words)
		}
		words[3] = name // one context for each
		return words[1:]
	}
	mover := give("mover", "operate")
	if out := c.remote(mover...); !strings.Contains(out, "it reaches alpha of cluster trial") {
		t.Errorf("adding the context: %s", out)
	}
	c.remote(give("looker", "view")...)
	c.remote("context", "use", "mover")
	if out := c.remote("status"); !strings.Contains(out, "web serves on alpha") {
		t.Errorf("status from afar: %s", out)
	}
	if out := c.remote("--address", "10.77.0.13", "--json", "status"); !strings.Contains(out, `"node": "gamma"`) {
		t.Errorf("status of gamma from afar: %s", out)
	}
	since := c.at(func() error { _, err := c.remotely("switch", "web", "--to", "beta"); return err })
	c.movesTo(Beta, since)
	c.tellsOf("token mover", Gamma, "history")
	c.denied("token looker has the role view, and this needs operate", "--context", "looker", "switch", "web")
	c.denied("token mover has the role operate, and this needs admin", "token", "add", "x", "--role", "admin")
	c.denied("token mover has the role operate, and this needs admin", "key", "rotate")
	c.denied("token mover has the role operate, and this needs admin", "invite", "gamma")

	// A node that is off is passed over: the next address is tried.
	c.must(c.Host(Alpha).PowerOff())
	c.must(c.Await(Beta, limit, "the rest go on", func(s *Status) bool { return s.Coordinator != "" && s.Coordinator != Alpha }))
	if out := c.remote("--json", "status"); !strings.Contains(out, `"node": "beta"`) {
		t.Errorf("with alpha off: %s", out)
	}
	c.run(Beta, "token", "revoke", "mover")
	c.denied("it was revoked, or is another cluster's", "status")
	c.must(c.Host(Alpha).Boot())
	c.must(c.AwaitServing(Beta, limit))
	c.denied("it was revoked, or is another cluster's", "--address", "10.77.0.11", "status") // alpha has caught up
	c.remote(give("brief", "view", "--for", "2s")...)
	time.Sleep(2100 * time.Millisecond)
	c.denied("the token brief has expired", "--context", "brief", "status")
	if out := c.run(Alpha, "token", "list"); !strings.Contains(out, "looker  view") || !strings.Contains(out, "expired") || strings.Contains(out, "mover") || strings.Contains(out, "bt1_") {
		t.Errorf("token list:\n%s", out)
	}

	// Another machine at that address is not believed, nor told the token.
	c.denied("its certificate is not of the cluster that is expected there", append(append([]string{}, mover[:len(mover)-4]...), "--authority", "sha256:"+strings.Repeat("0", 64), "--token", mover[len(mover)-1])...)
	c.must(os.Chmod(c.file(Client, "baton/contexts.yaml"), 0o644))
	c.denied("others can read the secret", "--context", "looker", "status")
}
