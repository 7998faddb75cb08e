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

// What is wrong with a node itself is told in one line with a hint where people look: in what its agent says when
// it ends, or in its status. Meanwhile the rest serves.
func TestBadNode(t *testing.T) {
	c := start(t, Options{Takeover: "1s"})
	data := c.Host(Beta).Disk("/var/lib/baton")
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
			c.must(emptyDir(data))
			c.must(os.CopyFS(data, os.DirFS(c.Host(Gamma).Disk("/var/lib/baton"))))
			return c.Host(Beta).Boot()
		}, []told{{"beta's log", log, "error: /var/lib/baton: the data directory is that of node gamma, not of beta\n",
			"hint: start it with the data directory of this node; or move /var/lib/baton away, and baton join\n"}}},
		{"another cluster's data", func() error {
			c.must(emptyDir(data))
			c.must(otherCluster(data, c.File()))
			return c.Host(Beta).Boot()
		}, []told{{"status on beta", status(Beta), "beta: the data directory here is of cluster trial-other, and the nodes that are heard are of another one: this node takes no part.\n",
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
	c.must(emptyDir(data))
	c.must(c.Host(Beta).Boot())
	c.must(c.AwaitServing(Alpha, limit))
	c.noGap("a node that is wrong has disturbed the others", since)
}
