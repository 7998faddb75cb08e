package trial

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"baton/internal/core/cluster"
	"baton/internal/io/disk"
)

// otherCluster makes a data directory that of beta in another cluster.
func otherCluster(dir, file string) error {
	store, image, err := disk.Open(dir, disk.Options{})
	if err != nil {
		return err
	}
	f := &cluster.Founding{ID: "trial-other", File: []byte(file), Nodes: []cluster.FoundingNode{
		{Node: Alpha, Incarnation: 1}, {Node: Beta, Incarnation: image.Incarnation}, {Node: Gamma, Incarnation: 3}}}
	return errors.Join(store.Write(cluster.Persist{N: 1, Founding: f.Encode(), Sync: true}), store.Close())
}

// Names that do not exist, and what can't be, are told in one line with a hint by every command that a cluster answers.
func TestBadRequests(t *testing.T) {
	c := start(t, Options{})
	c.must(os.WriteFile(c.file(Alpha, "other.yaml"), []byte(strings.Replace(c.File(), "cluster: trial", "cluster: other", 1)), 0o644))
	c.must(os.WriteFile(c.file(Alpha, "same.yaml"), []byte(c.File()), 0o644))
	before := c.group(Alpha)
	for _, b := range []struct{ args, line, hint string }{
		{"switch mail", `there is no group "mail"`, "the groups are: web"},
		{"switch web --to delta", "delta can't take web: it is not among the group's nodes", "the nodes of web are: alpha, beta"},
		{"switch web --to gamma", "gamma can't take web: it is not among the group's nodes", "the nodes of web are: alpha, beta"},
		{"switch wbe", `there is no group "wbe"`, "did you mean web? the groups are: web"},
		{"failback mail", `there is no group "mail"`, "the groups are: web"},
		{"explain mail", `there is no group "mail"`, "the groups are: web"},
		{"explain 9999", "the history has no entry 9999: it reaches from 3 to …", "baton history lists the entries"},
		{"history --group mail", `there is no group "mail"`, "the groups are: web"},
		{"drain delta", `there is no node "delta"`, "the nodes are: alpha, beta, gamma"},
		{"pause mail", `there is no group "mail"`, "the groups are: web"},
		{"pin web delta", "delta is not among the nodes of web", "the nodes of web are: alpha, beta"},
		{"pin web gamma", "gamma is not among the nodes of web", "the nodes of web are: alpha, beta"},
		{"stop web/db", `web has no resource "db"`, "its resources are: service, vip, vip6"},
		{"start mail", `there is no group "mail"`, "the groups are: web"},
		{"restart mail", `there is no group "mail"`, "the groups are: web"},
		{"clear mail", `there is no group "mail"`, "the groups are: web"},
		{"logs mail", `there is no group "mail"`, "the groups are: web"},
		{"logs web/db", `web has no resource "db"`, "its resources are: service, vip, vip6"},
		{"plan --if rain", `"rain" is no fault: the verbs are …`, "baton plan --help lists the faults"},
		{"invite delta", "node delta is not in the cluster file", "add it there with baton edit, then invite it"},
		{"invite alpha", "this node is alpha itself", "name the node that is to join"},
		{"invite beta --for 2000h", "an invitation is for at most 24h0m0s, not 2000h0m0s", "--for 15m"},
		{"token add CI --role view", `a token's name has 1 to 63 lower-case letters, digits, dots and dashes, not "CI"`, "name it for who uses it: baton token add ci --role view"},
		{"token revoke nobody", `there is no token "nobody"`, "baton token list"},
		{"apply /etc/baton/other.yaml --yes", "a running cluster can't be changed so", "baton config show prints what counts now"},
		{"apply /etc/baton/same.yaml --yes --base 7", "the text was made from revision 7, and the newest here is 1", "baton config history lists them"},
		{"config show 99", "this node has no revision 99: it has 1 to 1", "baton config history lists them"},
		{"config diff 1 99", "this node has no revision 99: it has 1 to 1", "baton config history lists them"},
		{"config rollback 99 --yes", "this node has no revision 99: it has 1 to 1", "baton config history lists them"},
		{"config drop", "no change is under way", "baton config history lists what was changed"},
		{"key rotate --without delta", "node delta can't be left behind: it is not in the cluster file, or is the one that is asked", "baton status lists the nodes"},
	} {
		_, err := c.command(Alpha, strings.Fields(b.args)...)
		if err == nil {
			t.Errorf("%s: it is done", b.args)
			continue
		}
		if start, _ := strings.CutSuffix(b.line, "…"); !strings.Contains(err.Error(), "error: "+start) || !strings.HasSuffix(strings.TrimSpace(err.Error()), "\nhint: "+b.hint) {
			t.Errorf("%s: %v", b.args, err)
		}
	}
	c.sameEpoch("what was refused", before)
}

// What is wrong with a node itself is told in one line with a hint where people look: in what its agent says when
// it ends, or in its status. Meanwhile the rest serves.
func TestBadNode(t *testing.T) {
	c := start(t, Options{Takeover: "1s"})
	data := c.Host(Beta).Disk("/var/lib/baton")
	key, err := os.ReadFile(c.file(Beta, "key"))
	c.must(err)
	status := func(node string) func() string {
		return func() string {
			out, _ := c.command(node, "status")
			return out
		}
	}
	log := func() string {
		b, _ := os.ReadFile(c.Host(Beta).LogPath("agent"))
		return string(b)
	}
	type told struct {
		where      string
		look       func() string
		line, hint string
	}
	const keyLine = "does not open with this node's key: one of the two has another key, or somebody else speaks"
	const keyHint = "hint: where the key is right, baton invite NODE; where it is not, baton join"
	since := c.at(func() error { return nil })
	for _, b := range []struct {
		what  string
		spoil func() error
		told  []told
	}{
		{"another key", func() error {
			c.must(c.Host(Beta).Boot())
			c.must(c.AwaitServing(Alpha, limit))
			c.must(os.Remove(c.file(Beta, "key")))
			c.run(Beta, "keygen", "/etc/baton/key")
			return c.Agent(Beta).Process().Kill()
		}, []told{{"status on alpha", status(Alpha), "beta: what comes in its name " + keyLine, keyHint},
			{"status on beta", status(Beta), "alpha: what comes in its name " + keyLine, keyHint},
			{"beta's log", log, "what comes from a node does not open with this node's key", "baton invite beta on another node, then baton join here"}}},
		{"another node's data", func() error {
			c.must(emptyDirectory(data))
			c.must(os.CopyFS(data, os.DirFS(c.Host(Gamma).Disk("/var/lib/baton"))))
			return c.Host(Beta).Boot()
		}, []told{{"beta's log", log, "error: /var/lib/baton: the data directory is that of node gamma, not of beta\n",
			"hint: start it with the data directory of this node; or move /var/lib/baton away, and baton join\n"}}},
		{"another cluster's data", func() error {
			c.must(emptyDirectory(data))
			c.must(otherCluster(data, c.File()))
			return c.Host(Beta).Boot()
		}, []told{{"status on beta", status(Beta), "beta: its data directory is of cluster trial-other, and the nodes that are heard are of another one: it takes no part.\n",
			"hint: systemctl stop baton, move its data directory away, and baton join; or start it with the directory that is of this cluster\n"}}},
		{"a spoilt log", func() error {
			name := filepath.Join(data, "log")
			b, err := os.ReadFile(name)
			c.must(err)
			b[8] ^= 0xff
			c.must(os.WriteFile(name, b, 0o600))
			return c.Host(Beta).Boot()
		}, []told{{"beta's log", log, "error: open data directory /var/lib/baton: data directory is corrupt: /var/lib/baton/log, byte 0: ",
			"hint: move /var/lib/baton away, and start the agent again: the cluster lets it in anew, with an empty one\n"}}},
	} {
		c.must(c.Host(Beta).PowerOff())
		c.must(os.WriteFile(c.file(Beta, "key"), key, 0o600))
		c.must(os.Truncate(c.Host(Beta).LogPath("agent"), 0))
		c.must(b.spoil())
		for _, s := range b.told {
			c.eventually(b.what+": "+s.where+" says "+s.line+" and "+s.hint, func() bool {
				text := s.look()
				return strings.Contains(text, s.line) && strings.Contains(text, s.hint)
			})
		}
	}

	// What the last hint says is so.
	c.must(c.Host(Beta).PowerOff())
	c.must(emptyDirectory(data))
	c.must(c.Host(Beta).Boot())
	c.must(c.AwaitServing(Alpha, limit))
	c.noGap("a node that is wrong has disturbed the others", since)
}
