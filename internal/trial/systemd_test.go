package trial

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
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
			for _, n := range []string{Alpha, Beta} {
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

// keeps does something to the owner's agent, after which another one runs that has adopted the service.
func (c installed) keeps(what string, restart func() error) {
	c.t.Helper()
	service, agent := c.serviceRuns(Alpha), c.agentPID(Alpha)
	since := lab.Now()
	c.undisturbed(what, 2*time.Second, restart)
	c.t.Logf("%s: at most %v without an answer", what, longest(c.probe.Record(), since))
	c.must(c.AwaitServing(Alpha, limit))
	if now := c.serviceRuns(Alpha); now != service {
		c.t.Errorf("%s: the service runs as process %d, and did as %d", what, now, service)
	}
	if now := c.agentPID(Alpha); now == agent || now == "0" {
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
		c.keeps("systemctl "+how, func() error { c.systemctl(Alpha, how); return nil })
	}
}

// A new binary is installed over the running one, and the agent restarted.
func (c installed) testUpgrade() {
	c.t.Helper()
	next := filepath.Join(filepath.Dir(c.binary), "next")
	cmd := exec.Command("go", "build", "-ldflags", "-X baton/internal/app.version=99.1", "-o", next, "./cmd/baton")
	cmd.Dir = sources()
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("build the next version: %v\n%s", err, out)
	}
	c.keeps("the upgrade", func() error {
		said, err := c.MakeInstall(c.t.Context(), Alpha, next)
		if err != nil {
			return err
		}
		if !strings.Contains(said, "systemctl restart baton") {
			c.t.Errorf("make install over a running agent says %q", said)
		}
		c.systemctl(Alpha, "restart", "baton")
		return nil
	})
	if text := c.shell(Alpha, InstalledBinary+" --json version"); strings.Count(text, "99.1") != 2 {
		c.t.Errorf("binary and agent are not both of the new version: %s", text)
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
