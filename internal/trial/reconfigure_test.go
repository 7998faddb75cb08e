package trial

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

// another is a group beside the one that the trial is about: its own address and port, hot on both members.
func (c *incident) another(name string, host, port int, environment string) string {
	return fmt.Sprintf(`  %s:
    nodes: [alpha, beta]
    standby: hot
    resources:
      - process:
          name: service
          command: %s -port %d
          environment: { BATON_LAB_MODE: echo%s }
          user: root
          ready: { tcp: "localhost:%d", interval: 20ms }
      - vip: 10.77.0.%d/24
`, name, c.binary, port, environment, port, host)
}

func anotherAddress(host, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(host)}), uint16(port))
}

// apply makes a text the cluster's configuration, on alpha, and waits until every node goes by it.
func (c *incident) apply(text string) {
	c.t.Helper()
	c.t.Logf("%v: a new file", lab.Now()-c.probe.Record().Began)
	name := fmt.Sprintf("next-%d.yaml", time.Now().UnixNano())
	c.must(os.WriteFile(filepath.Join(c.Host(Alpha).Disk("/etc/baton"), name), []byte(text), 0o644))
	c.run(Alpha, "apply", "/etc/baton/"+name, "--yes")
	c.eventually("every node goes by the new file", func() bool {
		for _, n := range Nodes {
			out, err := c.command(n, "config", "show")
			if err != nil || strings.TrimSpace(out) != strings.TrimSpace(text) {
				return false
			}
		}
		return true
	})
}

// programOf returns the process id of another group's program on a node; 0: there is none.
func (c *incident) programOf(node, group string) (pid int) {
	text, err := os.ReadFile(filepath.Join(c.Host(node).CgroupDir(), "baton", "trial", node, group, "service", "cgroup.procs"))
	if err == nil {
		_, _ = fmt.Sscan(string(text), &pid)
	}
	return pid
}

// linksHeard counts over how many links a node hears the others.
func (c *incident) linksHeard(node string) (n int) {
	c.t.Helper()
	var status struct {
		Nodes []struct {
			Links []struct {
				Heard bool `json:"heard"`
			} `json:"links"`
		} `json:"nodes"`
	}
	c.must(json.Unmarshal([]byte(c.run(node, "status", "--json")), &status))
	for _, peer := range status.Nodes {
		for _, l := range peer.Links {
			if l.Heard {
				n++
			}
		}
	}
	return n
}

// Everything about a running cluster changes but one group. Its client loses nothing, its program runs on, and
// it stays under its epoch, through all of it.
func TestReconfigure(t *testing.T) {
	for _, gate := range []string{"ebpf", "nftables"} {
		t.Run(gate, func(t *testing.T) { reconfigures(t, gate) })
	}
}

func reconfigures(t *testing.T, gate string) {
	// The disk is not what is tried here: a machine on which others work may take longer for a sync than a lease lasts.
	dir, err := os.MkdirTemp("/dev/shm", "baton-trial-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := start(t, Options{Takeover: "3s", Gate: gate, Dir: filepath.Join(dir, "lab")})
	pids := map[string]int{Alpha: c.serviceRuns(Alpha), Beta: c.serviceRuns(Beta)}
	before, begun := c.served(), lab.Now()
	base := c.File()

	// A group is added.
	withOther := base + c.another("other", 51, 8081, "")
	c.apply(withOther)
	other := c.ask(Client, anotherAddress(51, 8081))
	c.noGap("a group is added", begun)

	// Its program gets another environment: it is restarted on both members.
	old := map[string]int{Alpha: c.programOf(Alpha, "other"), Beta: c.programOf(Beta, "other")}
	changed := lab.Now()
	c.apply(base + c.another("other", 51, 8081, ", COLOUR: blue"))
	c.await(other, "the changed group answers", func(r lab.Record) bool { return last(r, "") > changed+time.Second })
	c.eventually("the changed program was started anew on both", func() bool {
		for node, pid := range old {
			if now := c.programOf(node, "other"); now == 0 || now == pid {
				return false
			}
		}
		return true
	})
	c.noGap("another group's program changes", changed)

	// A third comes as it goes; the third has the address that it had.
	replaced := lab.Now()
	c.apply(base + c.another("third", 51, 8081, ""))
	c.await(other, "who has the address now answers", func(r lab.Record) bool { return last(r, "") > replaced+time.Second })
	c.eventually("of what is gone nothing is left", func() bool {
		for _, node := range Nodes[:2] {
			if strings.Contains(c.shell(node, "ls /run/baton/resources"), "other") || c.programOf(node, "other") != 0 {
				return false
			}
		}
		return true
	})
	c.noGap("a group takes another's place", replaced)

	// Both go.
	removed := lab.Now()
	c.apply(base)
	c.eventually("its address is gone", func() bool {
		return !strings.Contains(c.shell(Alpha, "ip -o address show")+c.shell(Beta, "ip -o address show"), "10.77.0.51/")
	})
	c.noGap("a group is removed", removed)

	// A link is put before the others, and goes again.
	linked := lab.Now()
	c.apply(strings.Replace(base, "links:\n", "links:\n  - { name: front, udp: { port: 7500 } }\n", 1))
	for _, n := range Nodes {
		c.eventually("every link is heard on "+n, func() bool { return c.linksHeard(n) == 2*3 })
	}
	c.apply(base)
	c.noGap("a link comes and goes", linked)

	// The takeover is shortened, and lengthened again: who was last heard when heartbeats were rare is not silent
	// when they are frequent.
	timed := lab.Now()
	for range 3 {
		c.apply(strings.Replace(base, "takeover: 3s", "takeover: 250ms", 1))
		time.Sleep(300 * time.Millisecond)
		c.apply(base)
	}
	c.noGap("the takeover is changed", timed)

	c.sameEpoch("the configuration was changed", before)
	for node, pid := range pids {
		c.sameService(node, pid)
	}
	c.nothingLost()
}

// nothingLost checks that every request that was sent since the first answer was answered, but for those that
// the service was too starved to take: then it did not answer at its own address either.
func (c *incident) nothingLost() {
	c.t.Helper()
	r := c.probe.Record()
	replies := slices.Clone(r.Replies)
	slices.SortFunc(replies, func(x, y lab.Reply) int { return cmp.Compare(x.Seq, y.Seq) })
	for i := 1; i < len(replies); i++ {
		if x, y := replies[i-1], replies[i]; y.Seq > x.Seq+1 && c.heldUp(lab.Gap{From: x.Sent, To: y.Received}, x.Node) == 0 {
			c.t.Errorf("%d requests got no answer, %v after the first", y.Seq-x.Seq-1, x.Sent-r.Began)
		}
	}
}
