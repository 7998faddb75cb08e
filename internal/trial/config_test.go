package trial

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"baton/internal/lab"
)

// preview is what tests read of `baton apply --json`.
type preview struct {
	Done     bool     `json:"done"`
	Revision string   `json:"revision"`
	Changes  []string `json:"changes"`
	Effects  []struct {
		Group string `json:"group"`
		Node  string `json:"node"`
		Kind  string `json:"kind"`
	} `json:"effects"`
}

// does tells whether a preview foretells an effect.
func (p preview) does(kind, group, node string) bool {
	for _, e := range p.Effects {
		if e.Kind == kind && e.Group == group && e.Node == node {
			return true
		}
	}
	return false
}

// harmless tells whether a preview foretells that nothing of the group is touched.
func (p preview) harmless(group string) bool {
	for _, e := range p.Effects {
		if e.Group == group && e.Kind != "none" {
			return false
		}
	}
	return true
}

// clusterFile is a node's own cluster file, as the machine has it.
func (c *incident) clusterFile(node string) string {
	return filepath.Join(c.Host(node).Disk("/etc/baton"), "cluster.yaml")
}

// text is the configuration that counts.
func (c *incident) text(node string) string {
	c.t.Helper()
	return c.run(node, "config", "show")
}

// draft puts a text into a file of a node's, and returns its name there.
func (c *incident) draft(node, text string) string {
	c.t.Helper()
	name := filepath.Join(c.Host(node).Disk("/etc/baton"), "draft.yaml")
	c.must(os.WriteFile(name, []byte(text), 0o644))
	return "/etc/baton/draft.yaml"
}

// change applies an edit of the text that counts, and returns what was foretold.
func (c *incident) change(node, old, now string) preview {
	c.t.Helper()
	text := c.text(node)
	if strings.Count(text, old) != 1 {
		c.t.Fatalf("%q stands %d times in\n%s", old, strings.Count(text, old), text)
	}
	var p preview
	file := c.draft(node, strings.Replace(text, old, now, 1))
	if err := json.Unmarshal([]byte(c.run(node, "apply", file, "--dry-run", "--json")), &p); err != nil {
		c.t.Fatal(err)
	}
	said := c.run(node, "apply", file, "--yes")
	if want := "revision " + p.Revision; !strings.Contains(said, want) {
		c.t.Errorf("apply does not say %q:\n%s", want, said)
	}
	return p
}

// placed returns a group as a node sees it; its name is empty if it has none of that name.
func (c *incident) placed(node, group string) (found GroupStatus) {
	c.t.Helper()
	s, err := c.Status(node)
	c.must(err)
	for _, g := range s.Groups {
		if g.Name == group {
			found = g
		}
	}
	return found
}

// pids are the processes of a resource on a node.
func (c *incident) pids(node, group, resource string) string {
	text, err := os.ReadFile(filepath.Join(c.Host(node).CgroupDir(), "baton", "trial", node, group, resource, "cgroup.procs"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// nightly is a group that tests add, change and remove.
const nightly = `  nightly:
    nodes: [beta, alpha]
    standby: cold
    resources:
      - process: { name: job, command: sleep 1000, user: root, ready: { command: [ "true" ], interval: 20ms } }
      - process: { name: log, command: sleep 2000, user: root }
`

// Under a client that asks each millisecond: a group is added, its process changed, its resources reordered, the
// group renamed and removed, takeover made short and long again. Each does what the preview said, and web
// is not disturbed by any.
func TestConfigChanges(t *testing.T) {
	c := start(t, Options{Takeover: "1s"})
	web := c.served()
	since := lab.Now()
	calm := func(what string, p preview) {
		t.Helper()
		if !p.harmless(Group) {
			t.Errorf("%s: the preview says that web is touched: %+v", what, p.Effects)
		}
		c.noGap(what, since)
		c.sameEpoch(what, web)
		since = lab.Now()
	}

	p := c.change(Gamma, "groups:\n", "groups:\n"+nightly)
	if !p.does("start", "nightly", Beta) {
		t.Errorf("a group added: %+v", p.Effects)
	}
	c.eventually("nightly serves on beta", func() bool { g := c.placed(Gamma, "nightly"); return g.Owner == Beta && g.Serving })
	calm("a group added", p)

	job, log := c.pids(Beta, "nightly", "job"), c.pids(Beta, "nightly", "log")
	p = c.change(Alpha, "sleep 1000", "sleep 1001")
	if !p.does("restart", "nightly", Beta) || len(p.Effects) != 1 {
		t.Errorf("a command changed: %+v", p.Effects)
	}
	c.eventually("the new command runs", func() bool {
		g, now := c.placed(Gamma, "nightly"), c.pids(Beta, "nightly", "job")
		return g.Owner == Beta && g.Serving && now != "" && now != job
	})
	calm("a command changed", p)
	if now := c.pids(Beta, "nightly", "log"); now != log {
		t.Errorf("a command changed, and the process beside it, %q, became %q", log, now)
	}

	job = c.pids(Beta, "nightly", "job")
	first := "      - process: { name: log, command: sleep 2000, user: root }\n"
	second := c.text(Gamma)
	second = second[strings.Index(second, "      - process: { name: job"):]
	second, _, _ = strings.Cut(second, "\n")
	p = c.change(Gamma, second+"\n"+first, first+second+"\n")
	if !p.harmless("nightly") || !strings.Contains(strings.Join(p.Changes, "\n"), "resources reordered") {
		t.Errorf("resources reordered: %+v", p)
	}
	time.Sleep(300 * time.Millisecond)
	if c.pids(Beta, "nightly", "job") != job || c.pids(Beta, "nightly", "log") != log {
		t.Errorf("resources reordered, and the processes %q and %q became %q and %q", job, log, c.pids(Beta, "nightly", "job"), c.pids(Beta, "nightly", "log"))
	}
	calm("resources reordered", p)

	job = c.pids(Beta, "nightly", "job")
	p = c.change(Alpha, `ready: { command: [ "true" ], interval: 20ms } }`, `ready: { command: [ "true" ], interval: 30ms }, stop_timeout: 5s }`)
	if !p.harmless("nightly") {
		t.Errorf("a probe changed: %+v", p.Effects)
	}
	time.Sleep(300 * time.Millisecond)
	if now := c.pids(Beta, "nightly", "job"); now != job {
		t.Errorf("a probe changed, and the process %q became %q", job, now)
	}
	calm("a probe changed", p)

	p = c.change(Beta, "  nightly:\n", "  weekly:\n")
	if !p.does("stop", "nightly", Beta) || !p.does("start", "weekly", Beta) {
		t.Errorf("a group renamed: %+v", p.Effects)
	}
	c.eventually("weekly serves in its place", func() bool {
		g := c.placed(Gamma, "weekly")
		return g.Owner == Beta && g.Serving && c.placed(Gamma, "nightly").Name == "" && c.pids(Beta, "nightly", "job") == ""
	})
	calm("a group renamed", p)

	p = c.change(Gamma, "    nodes: [beta, alpha]\n", "    nodes: [alpha]\n")
	if !p.does("move", "weekly", Beta) {
		t.Errorf("the owner excluded: %+v", p.Effects)
	}
	c.eventually("weekly serves on alpha", func() bool { g := c.placed(Gamma, "weekly"); return g.Owner == Alpha && g.Serving })
	calm("a group's owner excluded", p)

	for _, takeover := range []string{"250ms", "3s", "1s"} {
		text := c.text(Gamma)
		at := strings.Index(text, "takeover: ")
		old, _, _ := strings.Cut(text[at:], "\n")
		p = c.change(Gamma, old, "takeover: "+takeover)
		if !p.does("timing", "", "") {
			t.Errorf("takeover %s: %+v", takeover, p.Effects)
		}
		time.Sleep(2 * time.Second)
		calm("takeover "+takeover, p)
	}

	c.run(Alpha, "config", "rollback", "2", "--yes")
	c.eventually("nightly is back", func() bool { g := c.placed(Gamma, "nightly"); return g.Owner == Beta && g.Serving })
	calm("a rollback", preview{})
	if text := c.run(Gamma, "config", "history"); strings.Count(text, "group nightly added") != 2 || !strings.Contains(text, "rollback to revision 2") {
		t.Errorf("the history says\n%s", text)
	}
	for _, n := range Nodes {
		c.eventually(n+"'s file is the text that counts", func() bool {
			have, err := os.ReadFile(c.clusterFile(n))
			return err == nil && string(have) == c.text(n)
		})
	}
}

// A change of the command that serves restarts it where it is; a change of who may run the group moves it.
func TestConfigTouchesService(t *testing.T) {
	c := start(t, Options{Takeover: "1s"})
	before := c.served()
	pid := c.serviceRuns(Alpha)
	p := c.change(Beta, "BATON_LAB_MODE: echo }", "BATON_LAB_MODE: echo, COLOUR: red }")
	if !p.does("restart", Group, Alpha) || !p.does("restart", Group, Beta) {
		t.Errorf("an environment changed: %+v", p.Effects)
	}
	c.eventually("the service was started anew", func() bool { now, err := c.ServicePID(Alpha); return err == nil && now != pid })
	c.must(c.AwaitServing(Alpha, limit))
	c.sameEpoch("an environment changed", before)

	since := lab.Now()
	p = c.change(Gamma, "nodes: [alpha, beta]", "nodes: [beta]")
	if !p.does("move", Group, Alpha) {
		t.Errorf("the owner excluded: %+v", p.Effects)
	}
	if gap := c.movesTo(Beta, since); gap > handover {
		t.Errorf("the move took the service away for %v", gap)
	}
	if c.holdsVIP(Alpha) {
		t.Error("alpha holds the address still")
	}
	c.eventually("alpha's process is stopped", func() bool { return c.pids(Alpha, Group, "service") == "" })
}

// Two people change the configuration at the same moment: one change counts, and the other is told whose it was.
func TestConfigTwoAtOnce(t *testing.T) {
	c := start(t, Options{})
	text := c.text(Gamma)
	var both sync.WaitGroup
	var said [2]string
	var errs [2]error
	for i, node := range []string{Alpha, Gamma} {
		file := c.draft(node, strings.Replace(text, "takeover: 1s", fmt.Sprintf("takeover: %ds", 2+i), 1))
		both.Go(func() {
			said[i], errs[i] = c.command(node, "apply", file, "--yes", "--base", "1", "-m", "mine")
		})
	}
	both.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatalf("both or none were done: %v, %v\n%s\n%s", errs[0], errs[1], said[0], said[1])
	}
	loser := errs[0]
	if loser == nil {
		loser = errs[1]
	}
	if text := loser.Error(); !strings.Contains(text, "under way") && !strings.Contains(text, "since then came revision 2") && !strings.Contains(text, "the cluster is at 2") {
		t.Errorf("the other was told: %v", loser)
	}
	if n := strings.Count(c.run(Beta, "config", "history"), "takeover 1s → "); n != 1 {
		t.Errorf("%d changes are in the history", n)
	}
	c.refused("since then came revision 2 by root", Beta, "apply", c.draft(Beta, strings.Replace(text, "takeover: 1s", "takeover: 5s", 1)), "--yes", "--base", "1")
}

// A file that was edited by hand is not used, not overwritten, and told of, until it is applied or restored.
func TestConfigEditedByHand(t *testing.T) {
	c := start(t, Options{})
	edited := strings.Replace(c.File(), "failback: never", "failback: never # for good", 1)
	c.must(os.WriteFile(c.clusterFile(Beta), []byte(edited), 0o644))
	ctx := t.Context()
	text, err := c.Host(Beta).Command(ctx, "sh", "-c", c.binary+" history 2>&1 >/dev/null")
	if want := "note: beta: /etc/baton/cluster.yaml differs from revision 1 in 1 line\nhint: baton apply /etc/baton/cluster.yaml, or baton config restore\n"; err != nil || text != want {
		t.Errorf("%v, %q", err, text)
	}
	c.change(Alpha, "takeover: 1s", "takeover: 2s")
	c.eventually("gamma's file follows", func() bool {
		have, err := os.ReadFile(c.clusterFile(Gamma))
		return err == nil && strings.Contains(string(have), "takeover: 2s")
	})
	if have, err := os.ReadFile(c.clusterFile(Beta)); err != nil || string(have) != edited {
		t.Errorf("the edited file became\n%s", have)
	}
	c.refused("since then came revision 2 by root", Beta, "apply", "/etc/baton/cluster.yaml", "--yes")
	// An edit that no agent can read keeps none from starting.
	c.must(os.WriteFile(c.clusterFile(Beta), []byte("nonsense\n"), 0o644))
	c.undisturbed("an agent with a bad file starts", time.Second, func() error { return c.Agent(Beta).Process().Signal(syscall.SIGKILL) })
	c.must(c.AwaitServing(Alpha, limit))
	if said := c.run(Beta, "config", "restore"); !strings.Contains(said, "what stood there is in /etc/baton/cluster.yaml.edited-") {
		t.Errorf("restore says %q", said)
	}
	if have, _ := os.ReadFile(c.clusterFile(Beta)); !strings.Contains(string(have), "takeover: 2s") {
		t.Errorf("it was restored to\n%s", have)
	}
}

// What one node lacks is found before anything is changed.
func TestConfigIsCheckedHere(t *testing.T) {
	c := start(t, Options{})
	for old, now := range map[string]string{
		"user: root":             "user: nobdoy",
		"vip: 10.77.0.50/24":     "vip: { address: 10.77.0.50/24, interface: eth77 }",
		"vip: 10.77.0.50/24 ":    "vip: 10.99.0.50/24",
		"name: lan, udp: { port": "name: lan, upd: { port",
	} {
		text := strings.Replace(c.text(Alpha), strings.TrimSpace(old), now, 1)
		out, err := c.command(Alpha, "apply", c.draft(Alpha, text), "--yes")
		if err == nil || !strings.Contains(err.Error(), "hint: ") {
			t.Errorf("%s: %v\n%s", now, err, out)
		}
	}
	// The interface is on alpha, where the change is asked for, and not on beta.
	c.shell(Alpha, "ip link add only0 type veth peer name only1")
	text := strings.Replace(c.text(Alpha), "vip: 10.77.0.50/24", "vip: { address: 10.77.0.50/24, interface: only0 }", 1)
	_, err := c.command(Alpha, "apply", c.draft(Alpha, text), "--yes")
	if err == nil || !strings.Contains(err.Error(), "problem: beta: group web: vip: there is no interface only0 here") || strings.Contains(err.Error(), "problem: alpha") {
		t.Errorf("beta lacks the interface: %v", err)
	}
	if text := c.run(Beta, "config", "history"); strings.Count(text, "\n") != 1 {
		t.Errorf("something was changed:\n%s", text)
	}
}

// A change that waits for what can't come now says for what, and can be given up; whoever asked for it is told.
func TestConfigGivenUp(t *testing.T) {
	c := start(t, Options{Takeover: "1s"})
	c.must(c.Host(Beta).PowerOff())
	c.must(c.Await(Alpha, limit, "beta is missed", func(s *Status) bool { return s.Group().Next == "" }))
	file := c.draft(Alpha, strings.Replace(c.text(Alpha), "nodes: [alpha, beta]", "nodes: [beta]", 1))
	said := make(chan error, 1)
	go func() {
		_, err := c.command(Alpha, "apply", file, "--yes")
		said <- err
	}()
	c.eventually("the change waits", func() bool {
		return strings.Contains(c.run(Gamma, "config", "show", "--json"), `"waits": "web is still on alpha"`)
	})
	c.refused("a change by root", Gamma, "apply", c.draft(Gamma, strings.Replace(c.text(Gamma), "takeover: 1s", "takeover: 2s", 1)), "--yes")
	if text := c.run(Gamma, "config", "drop"); !strings.Contains(text, "is given up") {
		t.Errorf("drop says %q", text)
	}
	if err := <-said; err == nil || !strings.Contains(err.Error(), "given up by root") || !strings.Contains(err.Error(), "hint: ") {
		t.Errorf("whoever asked is told: %v", err)
	}
	c.refused("no change is under way", Alpha, "config", "drop")
	c.change(Gamma, "takeover: 1s", "takeover: 2s")
}
