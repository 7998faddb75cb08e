package trial

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

// installed is a cluster on hosts whose PID 1 is systemd.
type installed struct{ *incident }

// A life with systemd: installed, started, restarted, killed, upgraded, stopped, rebooted, removed. Only what
// is to move moves, and the client notices none of the rest.
func TestSystemd(t *testing.T) {
	if out, err := exec.Command("sh", filepath.Join(sources(), "scripts/deps.sh")).CombinedOutput(); err != nil {
		t.Fatalf("install what is missing: %v\n%s", err, out)
	}
	c := installed{start(t, Options{Systemd: true})}
	t.Cleanup(func() {
		if t.Failed() || os.Getenv("BATON_LOGS") != "" {
			for _, n := range Nodes {
				t.Logf("%s's journal:\n%s", n, c.journal(n))
			}
		}
	})
	c.testCheck()
	c.testJournal()
	c.testRestart()
	c.testUpgrade()
	c.testStop()
	c.testReboot()
	c.testRemoval()
}

// systemctl runs systemctl on a node.
func (c installed) systemctl(node string, args ...string) string {
	c.t.Helper()
	return c.shell(node, "systemctl "+strings.Join(args, " "))
}

// keeps does something to a node's agent, after which another one runs there, and the same service on alpha.
func (c installed) keeps(node, what string, restart func() error) {
	c.t.Helper()
	service, agent := c.serviceRuns(Alpha), c.agentPID(node)
	watch := 2 * time.Second
	if node != Alpha {
		watch = c.takeover() // nothing of its own can end; if it is missed at all, it is by then
	}
	since := lab.Now()
	c.undisturbed(what, watch, restart)
	c.t.Logf("%s: at most %v without an answer", what, longest(c.probe.Record(), since))
	c.must(c.AwaitServing(Alpha, limit))
	if now := c.serviceRuns(Alpha); now != service {
		c.t.Errorf("%s: the service runs as process %d, and did as %d", what, now, service)
	}
	if now := c.agentPID(node); now == agent || now == "0" {
		c.t.Errorf("%s: the agent is process %s, and was %s", what, now, agent)
	}
}

func (c installed) agentPID(node string) string {
	return strings.TrimSpace(c.systemctl(node, "show", "--property=MainPID", "--value", "baton"))
}

// The check knows the unit, and finds one that starts what baton runs.
func (c installed) testCheck() {
	c.t.Helper()
	unit := "[Service]\nExecStart=" + c.binary + "\n[Install]\nWantedBy=multi-user.target\n"
	c.must(os.WriteFile(filepath.Join(c.Host(Alpha).Disk("/etc/systemd/system"), "twin.service"), []byte(unit), 0o644))
	c.systemctl(Alpha, "daemon-reload")
	c.systemctl(Alpha, "enable twin")
	said, _ := c.command(Alpha, "check", "--measure", "50ms") // whatever else it finds
	for _, text := range []string{"baton.service is enabled", "systemctl disable --now twin.service"} {
		if !strings.Contains(said, text) {
			c.t.Errorf("baton check does not say %q:\n%s", text, said)
		}
	}
	c.systemctl(Alpha, "disable twin")
}

// A restart moves nothing, be it asked for or a kill, or after systemd itself was restarted.
func (c installed) testRestart() {
	for _, how := range []string{"restart baton", "kill --signal=KILL baton", "daemon-reexec && systemctl restart baton", "kill --signal=HUP baton"} {
		c.keeps(Alpha, "systemctl "+how, func() error { c.systemctl(Alpha, how); return nil })
	}
}

// upgradeOrder is that of careful people: the node that serves comes last.
var upgradeOrder = []string{Gamma, Beta, Alpha}

// All nodes are upgraded while the client is served, one at a time, with old and new at work together. Then they
// go back, as fast as the documentation allows: only `baton status --wait` is between one node and the next.
func (c installed) testUpgrade() {
	c.t.Helper()
	next := c.build("99.1")
	for i, n := range upgradeOrder {
		c.keeps(n, "the upgrade of "+n, func() error { return c.upgrade(n, next) })
		c.runs("99.1", upgradeOrder[:i+1])
		if i < len(Nodes)-1 { // one is new, then one is old
			c.testMixed()
		}
	}
	c.probe = c.ask(Client, VIP) // which sees no move
	c.keeps(Alpha, "the way back without a pause", func() error {
		for _, n := range upgradeOrder {
			if err := c.upgrade(n, c.binary); err != nil {
				return err
			}
		}
		return nil
	})
	c.nothingLost()
	c.runs("99.1", nil)
}

// Nodes of two versions move the group, there and back, whichever is asked.
func (c installed) testMixed() {
	c.t.Helper()
	for _, move := range []struct{ ask, verb, to string }{{Gamma, "switch", Beta}, {Alpha, "failback", Alpha}} {
		asked := lab.Now()
		c.shell(move.ask, InstalledBinary+" "+move.verb+" "+Group)
		if gap := c.movesTo(move.to, asked); gap > handover {
			c.t.Errorf("%s between two versions took the service away for %v", move.verb, gap)
		}
		c.must(c.AwaitServing(move.to, limit))
	}
}

// build builds baton as another version, where the hosts see it.
func (c installed) build(version string) (path string) {
	c.t.Helper()
	path = filepath.Join(filepath.Dir(c.binary), "baton-"+version)
	if err := BuildAs(path, "-ldflags", "-X baton/internal/app.version="+version); err != nil {
		c.t.Fatalf("version %s: %v", version, err)
	}
	c.t.Cleanup(func() { os.Remove(path) })
	return path
}

// upgrade installs a binary over the running one, restarts the agent and waits, as the documentation says.
func (c installed) upgrade(node, binary string) error {
	said, err := c.MakeInstall(c.t.Context(), node, binary)
	if err != nil {
		return err
	}
	if !strings.Contains(said, "systemctl restart baton") {
		c.t.Errorf("make install over a running agent says %q", said)
	}
	c.systemctl(node, "restart", "baton")
	c.shell(node, InstalledBinary+" status --wait")
	return nil
}

// runs checks that on these nodes, and on no other, binary and agent are of a version.
func (c installed) runs(version string, on []string) {
	c.t.Helper()
	for _, n := range Nodes {
		want := 0
		if slices.Contains(on, n) {
			want = 2
		}
		text := c.shell(n, InstalledBinary+" --json version")
		if strings.Count(text, version) != want || strings.Contains(text, `"agentVersion": ""`) {
			c.t.Errorf("version %s is on %v; %s says %s", version, on, n, text)
		}
	}
}

// A stop is a switchover, and leaves nothing running.
func (c installed) testStop() {
	c.t.Helper()
	asked := c.at(func() error { c.systemctl(Alpha, "stop", "baton"); return nil })
	if gap := c.movesTo(Beta, asked); gap > handover {
		c.t.Errorf("systemctl stop took the service away for %v", gap)
	}
	if pid, err := c.ServicePID(Alpha); err == nil || c.holdsVIP(Alpha) {
		c.t.Errorf("after the stop: service %d (%v), address held: %v", pid, err, c.holdsVIP(Alpha))
	}
	c.testFailedStart()
	c.must(c.AwaitServing(Beta, limit))
	c.run(Alpha, "failback", Group)
	c.must(c.AwaitServing(Alpha, limit))
}

// An agent that can't start says so, does not spin, and runs once it can.
func (c installed) testFailedStart() {
	c.t.Helper()
	repair := c.breakAgent(Alpha)
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	if _, err := c.Host(Alpha).Command(ctx, "systemctl", "start", "baton"); err == nil {
		c.t.Error("systemctl start says that an agent without a cluster file runs")
	}
	time.Sleep(3 * time.Second)
	if n := strings.TrimSpace(c.systemctl(Alpha, "show", "--property=NRestarts", "--value", "baton")); n != "1" && n != "2" && n != "3" {
		c.t.Errorf("an agent that can't start was started again %s times in 3 s", n)
	}
	c.must(repair())
}

// A reboot of the active node is a switchover, and the agent is back after it.
func (c installed) testReboot() {
	c.t.Helper()
	before := c.Host(Alpha).BootID()
	asked := c.at(func() error { c.systemctl(Alpha, "reboot"); return nil })
	if gap := c.movesTo(Beta, asked); gap > handover {
		c.t.Errorf("a reboot took the service away for %v", gap)
	}
	c.eventually("alpha has booted again", func() bool {
		now := c.Host(Alpha).BootID()
		return now != "" && now != before
	})
	c.must(c.AwaitServing(Beta, limit))
	if text := c.run(Beta, "history"); !strings.Contains(text, "stop of alpha") {
		c.t.Errorf("the history does not tell of a planned move:\n%s", text)
	}
}

// Nothing of an installation that is removed runs, or stays attached, though it served.
func (c installed) testRemoval() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	c.refused("an agent runs here", Beta, "agent", "--dismantle")
	asked := lab.Now()
	said, err := c.Host(Beta).Command(ctx, "make", "-C", sources(), "uninstall")
	c.must(err)
	if gap := c.movesTo(Alpha, asked); gap > handover {
		c.t.Errorf("the removal took the service away for %v", gap)
	}
	for _, word := range []string{"/etc/baton", "/var/lib/baton"} {
		if !strings.Contains(said, word) {
			c.t.Errorf("make uninstall does not say that %s stays: %s", word, said)
		}
	}
	if _, err := c.ServicePID(Beta); err == nil || c.holdsVIP(Beta) {
		c.t.Error("the service or its address is still there")
	}
	for what, line := range map[string]string{
		"gate programs": "for l in lan cross lo; do tc filter show dev $l ingress; tc filter show dev $l egress; done",
		"a qdisc":       "tc qdisc show | grep clsact || true",
		"pins":          "ls -d /run/baton-gate 2>/dev/null || true",
		"tables":        "nft list tables",
		"processes":     "cat /proc/[0-9]*/comm | grep -x baton || true",
		"files":         "ls -d /usr/local/bin/baton /usr/local/lib/*/baton* /usr/local/lib/systemd/system/baton* /usr/local/share/*/*/*baton /etc/default/baton /etc/systemd/system/*/baton* /run/baton 2>/dev/null || true",
		"units":         "systemctl list-units --all --no-legend --plain 'baton*'",
	} {
		if out := strings.TrimSpace(c.shell(Beta, line)); out != "" {
			c.t.Errorf("%s left: %s", what, out)
		}
	}
	if kept := strings.Fields(c.shell(Beta, "ls /etc/baton /var/lib/baton")); len(kept) < 5 {
		c.t.Errorf("file, key and data did not stay: %v", kept)
	}
}
