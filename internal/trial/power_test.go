package trial

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The owner loses power; its standby, which also coordinates, takes over. The power comes back: the node
// stands by, the group stays where it is, until somebody asks for a failback.
func TestPowerLossOfOwner(t *testing.T) {
	for _, takeover := range []string{"1s", "250ms"} {
		t.Run(takeover, func(t *testing.T) {
			c := start(t, Options{Takeover: takeover})
			c.coordinator(Beta)
			c.failsOver(Beta, c.at(c.Host(Alpha).PowerOff))

			before := c.group(Beta)
			back := c.at(c.Host(Alpha).Boot)
			c.must(c.AwaitServing(Beta, limit)) // with alpha as the next
			time.Sleep(time.Second)
			c.sameEpoch("power came back", before)
			c.noGap("the node that came back disturbed the service", back)

			asked := c.at(func() error { c.run(Alpha, "failback", Group); return nil })
			if gap := c.movesTo(Alpha, asked); gap > handover {
				t.Errorf("the failback took the service away for %v", gap)
			}
			c.says("web is on alpha already: nothing to do", Gamma, "failback", Group)
		})
	}
}

// The owner loses power while it is the coordinator as well: somebody else must first be elected.
func TestPowerLossOfOwnerThatCoordinates(t *testing.T) {
	for _, takeover := range []string{"1s", "250ms"} {
		t.Run(takeover, func(t *testing.T) {
			c := start(t, Options{Takeover: takeover})
			owner, other := c.ownerCoordinates()
			c.failsOver(other, c.at(c.Host(owner).PowerOff))
		})
	}
}

// ownerCoordinates moves the group to the node that coordinates. Leadership goes on to an idle node a little
// later, so it is looked at again afterwards.
func (c *incident) ownerCoordinates() (owner, other string) {
	c.t.Helper()
	c.eventually("the owner coordinates", func() bool {
		s, err := c.Status(Gamma)
		c.must(err)
		owner, other = s.Coordinator, Alpha
		if owner == Alpha {
			other = Beta
		}
		if owner == Gamma || owner == "" {
			return false
		}
		if s.Group().Owner != owner {
			_, _ = c.command(Gamma, "switch", Group, "--to", owner) // refused where the other was faster
			s, err = c.Status(Gamma)
			c.must(err)
		}
		return s.Coordinator == owner && s.Group().Owner == owner && s.Group().Serving
	})
	return owner, other
}

// A machine is back so soon after a power loss that nobody has missed it. Its new boot is evidence enough
// that what it served is gone.
func TestFastReboot(t *testing.T) {
	c := start(t, Options{Takeover: "3s"})
	fault := c.at(c.Host(Alpha).PowerOff)
	c.must(c.Host(Alpha).Boot())
	c.failsOver(Beta, fault)
	c.tellsOf("N01", Gamma, "history") // the new boot was what decided
}

// A clean reboot: everything is handed over before the machine goes.
func TestCleanReboot(t *testing.T) {
	c := start(t, Options{Takeover: "3s"})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	asked := c.at(func() error { return c.Host(Alpha).Reboot(ctx) })
	if gap := c.movesTo(Beta, asked); gap > handover {
		t.Errorf("a clean reboot took the service away for %v", gap)
	}
}

// A power failure of the whole site: the cluster forms again from its disks, and the group is where it was.
func TestAllPowerLost(t *testing.T) {
	c := start(t, Options{})
	c.run(Alpha, "switch", Group)
	before, err := c.Status(Beta)
	c.must(err)
	for _, n := range Nodes {
		c.must(c.Host(n).PowerOff())
	}
	var back time.Duration
	for _, n := range Nodes {
		back = c.at(c.Host(n).Boot)
	}
	c.movesTo(Beta, back)
	after, err := c.Status(Beta)
	c.must(err)
	if after.ID != before.ID || len(after.Group().Epoch) < len(before.Group().Epoch) || after.Group().Epoch <= before.Group().Epoch {
		t.Errorf("after it: cluster %s, epoch %s; before: %s, %s", after.ID, after.Group().Epoch, before.ID, before.Group().Epoch)
	}
}

// A witness comes back with the disk of another cluster: it says so, takes no part, and disturbs nobody.
func TestDiskOfAnotherCluster(t *testing.T) {
	c := start(t, Options{})
	first, err := c.Status(Alpha)
	c.must(err)
	aside := filepath.Join(t.TempDir(), "data")
	for _, n := range Nodes {
		c.must(c.Host(n).PowerOff())
		if n == Gamma {
			c.must(os.CopyFS(aside, os.DirFS(c.Host(n).Disk("/var/lib/baton"))))
		}
		c.must(emptyDirectory(c.Host(n).Disk("/var/lib/baton")))
	}
	for _, n := range Nodes {
		c.must(c.Host(n).Boot())
	}
	c.must(c.AwaitServing(Alpha, limit))
	c.must(c.Host(Gamma).PowerOff())
	c.must(emptyDirectory(c.Host(Gamma).Disk("/var/lib/baton")))
	c.must(os.CopyFS(c.Host(Gamma).Disk("/var/lib/baton"), os.DirFS(aside)))
	before := c.group(Alpha)
	since := c.at(c.Host(Gamma).Boot)
	c.tells(Gamma, "the data directory here is of cluster "+first.ID+", and the nodes that are heard are of another one")
	c.tells(Alpha, "gamma has another data directory")
	time.Sleep(time.Second)
	c.noGap("no answer", since)
	for _, n := range []string{Alpha, Beta} {
		if g := c.group(n); g.Epoch != before.Epoch || g.Owner != Alpha {
			t.Errorf("%s: the group moved to %s, epoch %s", n, g.Owner, g.Epoch)
		}
	}
}

// tells waits until a node's log says something.
func (c *incident) tells(node, what string) {
	c.t.Helper()
	c.eventually(node+" says: "+what, func() bool {
		b, _ := os.ReadFile(c.Host(node).LogPath("agent"))
		return strings.Contains(string(b), what)
	})
}
