package trial

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

// told is a scrape of one node, by series.
type told map[string]float64

// scrape asks a node's health port from the client's host, as a monitor does.
func (c *incident) scrape(node string) told {
	c.t.Helper()
	out := make(told)
	for line := range strings.Lines(c.shell(Client, fmt.Sprintf("curl -sf --max-time 5 http://10.77.0.%d:7401/metrics", nodeNumber[node]))) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(line, "#") {
			out[series] = v
		}
	}
	return out
}

var nodeNumber = map[string]int{Alpha: 11, Beta: 12, Gamma: 13}

// primary returns the status code of a node's /primary.
func (c *incident) primary(node string) string {
	c.t.Helper()
	return c.shell(Client, fmt.Sprintf(`curl -s -o /dev/null -w '%%{http_code}' http://10.77.0.%d:7401/v1/groups/web/primary`, nodeNumber[node]))
}

// Monitors see a failover and a failback: who serves, and for how long nobody did, as a client measured it.
func TestMonitorsSeeAFailover(t *testing.T) {
	c := start(t, Options{Extra: "health: { port: 7401 }\n"})
	downtime := func(cause string) time.Duration {
		t.Helper()
		seconds, ok := c.scrape(Gamma)[fmt.Sprintf(`baton_group_downtime_seconds_total{cause="%s",group="web"}`, cause)]
		if !ok {
			t.Fatalf("gamma tells nothing of %s downtime", cause)
		}
		return time.Duration(seconds * float64(time.Second))
	}
	for node, want := range map[string]float64{Alpha: 1, Beta: 0, Gamma: 0} {
		s := c.scrape(node)
		if s[`baton_group_serving{group="web"}`] != want || s[`baton_group_served{group="web"}`] != 1 || s["baton_quorum"] != 1 || s["baton_agent_up"] != 1 {
			t.Errorf("%s does not tell that alpha serves: %v", node, s)
		}
		if code := c.primary(node); code != map[float64]string{1: "200", 0: "503"}[want] {
			t.Errorf("/primary of %s: %s", node, code)
		}
	}
	if a, b := c.scrape(Gamma), c.scrape(Alpha); a[`baton_link_packets_received_total{link="lan",peer="alpha"}`] == 0 ||
		b[`baton_link_round_trip_seconds{link="cross",peer="beta"}`] == 0 || b["baton_disk_sync_seconds_count"] == 0 || b["baton_gate_writes_total"] == 0 {
		t.Errorf("nothing is counted: %v, %v", a, b)
	}

	before := downtime("unplanned")
	gap := c.movesTo(Beta, c.at(c.Host(Alpha).PowerOff))
	c.eventually("the outage is on record", func() bool { return downtime("unplanned") > before })
	c.near("unplanned", downtime("unplanned")-before, gap)
	if s := c.scrape(Gamma); s[`baton_group_moves_total{group="web",reason="failover"}`] != 1 || s[`baton_peer_heard{peer="alpha"}`] != 0 || s[`baton_group_outage_seconds{group="web"}`] != 0 {
		t.Errorf("gamma does not tell of the failover: %v", s)
	}
	if code := c.primary(Beta); code != "200" {
		t.Errorf("/primary of beta: %s", code)
	}
	c.showsPhases(gap)

	c.must(c.Host(Alpha).Boot())
	c.must(c.AwaitServing(Beta, limit))
	planned, unplanned := downtime("planned"), downtime("unplanned")
	asked := c.at(func() error { c.run(Alpha, "failback", Group); return nil })
	gap = c.movesTo(Alpha, asked)
	c.eventually("the failback is on record", func() bool {
		return c.scrape(Beta)[`baton_group_moves_total{group="web",reason="failback"}`] == 1 && strings.Contains(c.run(Gamma, "history"), "after planned outage")
	})
	c.near("planned", downtime("planned")-planned, gap)
	if d := downtime("unplanned"); d != unplanned {
		t.Errorf("a failback was counted as unplanned: %v, %v before", d, unplanned)
	}
	if text := c.run(Beta, "status"); !regexp.MustCompile(`web .*\n  \d+\.\d+ % available since .*, [^,]+ down in all, [^,]+ of it planned`).MatchString(text) {
		t.Errorf("status does not tell of the outages:\n%s", text)
	}
}

// near checks an outage on record against what the client measured. A node's last sign of life may be a
// heartbeat old when it dies, and the machine may hold up either.
func (c *incident) near(what string, got, measured time.Duration) {
	c.t.Helper()
	c.t.Logf("%s outage: %v on record, %v measured", what, got, measured)
	if tolerance := c.takeover()/10 + 300*time.Millisecond; got < measured-tolerance || got > measured+tolerance {
		c.t.Errorf("%s outage: %v on record, %v measured", what, got, measured)
	}
}

// showsPhases checks what history tells of the one outage so far, for people and as JSON.
func (c *incident) showsPhases(gap time.Duration) {
	c.t.Helper()
	text := c.run(Gamma, "history")
	if !regexp.MustCompile(`web serves on beta, epoch \d+, after unplanned outage of at most \d+ ms: detected \d+ ms, decided \d+ ms, waited \d+ ms, started \d+ ms`).MatchString(text) {
		c.t.Errorf("history does not show the phases:\n%s", text)
	}
	var h struct {
		Lines []struct {
			Served []struct{ Node, Down, Detected, Decided, Waited, Started, Paused string }
		}
	}
	c.must(json.Unmarshal([]byte(c.run(Gamma, "history", "--json")), &h))
	for _, l := range h.Lines {
		for _, s := range l.Served {
			down, err := time.ParseDuration(s.Down)
			if s.Node != Beta || err != nil {
				continue
			}
			var sum time.Duration
			for _, p := range []string{s.Detected, s.Decided, s.Waited, s.Started, s.Paused} {
				d, err := time.ParseDuration(p)
				c.must(err)
				sum += d
			}
			if sum != down {
				c.t.Errorf("the phases %+v add up to %v, not to %v", s, sum, down)
			}
			c.near("history's", down, gap)
			return
		}
	}
	c.t.Errorf("history --json tells of no service on beta: %+v", h)
}

// talker is a group whose program prints a line each 100 ms, one in five longer than it should be.
const talker = `  talk:
    nodes: [alpha, beta]
    resources:
      - process:
          name: talker
          command: [sh, -c, "i=0; while :; do i=$((i+1)); echo $BATON_NODE line $i; sleep 0.1; done"]
          user: root
`

// What programs print can be read where they run, and a report holds what it should and no secret.
func TestLogsAndReport(t *testing.T) {
	c := start(t, Options{Extra: talker})
	c.eventually("the talker is heard", func() bool {
		out, err := c.command(Alpha, "logs", "talk", "-n", "5")
		return err == nil && strings.Count(out, "alpha/talker alpha line ") == 5
	})
	if out := c.run(Alpha, "logs", "talk/talker", "--since", "1h", "-n", "0", "--json"); !strings.Contains(out, `"text":"alpha line 1"`) || !strings.Contains(out, `"time":"20`) {
		t.Errorf("the whole output as JSON is\n%s", out)
	}
	if out := c.run(Alpha, "logs", "talk", "--since", "0s"); out != "" {
		t.Errorf("from now on it had printed\n%s", out)
	}
	// A follower sees what comes while it waits; timeout(1) ends it as Ctrl-C does.
	out := c.shell(Alpha, "timeout --signal=INT 5 "+c.binary+" logs talk -f -n 0; true")
	if n := strings.Count(out, "alpha line "); n < 5 || strings.Contains(out, "alpha line 1\n") {
		t.Errorf("a follower has seen %d lines in 5 s:\n%s", n, out)
	}
	// From afar, and on where the group goes.
	if out := c.run(Gamma, "logs", "talk", "-n", "3"); strings.Count(out, "alpha/talker alpha line ") != 3 {
		t.Errorf("from another node:\n%s", out)
	}
	follower, err := c.Host(Gamma).Start(lab.Program{Args: []string{c.binary, "logs", "talk", "-f", "-n", "0"}, Output: "follower"})
	c.must(err)
	sees := func(pattern string) {
		t.Helper()
		c.eventually("who follows a group that moves sees "+pattern, func() bool {
			out, _ := os.ReadFile(c.Host(Gamma).LogPath("follower"))
			return regexp.MustCompile(pattern).Match(out)
		})
	}
	sees(`alpha/talker alpha line`)
	c.run(Gamma, "switch", "talk", "--to", Beta)
	sees(`(?s)alpha/talker alpha line.*beta/talker beta line`)
	c.must(follower.Kill())
	c.run(Gamma, "switch", "talk", "--to", Alpha)
	c.refused(`has no resource "none"`, Alpha, "logs", "talk/none")
	c.refused(`there is no group "none"`, Gamma, "logs", "none")

	key := strings.TrimSpace(c.shell(Alpha, "cat /etc/baton/key"))
	list := c.run(Alpha, "report", "--out", "/run/report.tar.gz")
	all := c.shell(Alpha, "cd /run && tar xzf report.tar.gz && ls baton-report-alpha-*/ && stat -c %a report.tar.gz")
	for _, name := range []string{"status.json", "history.json", "cluster.yaml", "metrics.txt", "goroutines.txt", "agent.log", "gate.txt", "links.json", "host.txt", "addresses.txt"} {
		if !strings.Contains(all, name) || !strings.Contains(list, name) {
			t.Errorf("%s is missing: listed\n%s\nin the archive\n%s", name, list, all)
		}
	}
	if !strings.HasSuffix(strings.TrimSpace(all), "600") {
		t.Errorf("others may read the report: %s", all)
	}
	secret := strings.Fields(key)[len(strings.Fields(key))-1]
	if found := c.shell(Alpha, "cd /run && grep -rlF -e '"+secret+"' baton-report-alpha-*/; true"); found != "" || len(secret) < 16 {
		t.Errorf("the key (%d characters) stands in %s", len(secret), found)
	}
	if text := c.shell(Alpha, "cd /run/baton-report-alpha-*/ && grep -c baton_group_serving metrics.txt && grep -l talk cluster.yaml && grep 'event=serving' agent.log && grep -l loop goroutines.txt"); text == "" {
		t.Error("the report's files hold nothing")
	}

	c.stopAgent(Gamma)
	if out := c.run(Gamma, "report", "--out", "/run/report.tar.gz"); !strings.Contains(out, "The agent's own part is missing: no agent reached") || !strings.Contains(out, "host.txt") {
		t.Errorf("without an agent:\n%s", out)
	}
}

// journald itself finds the agent's entries by their fields, and baton logs what programs have printed to it.
func (c installed) testJournal() {
	c.t.Helper()
	out := c.shell(Alpha, "journalctl --no-pager -o json -u baton BATON_EVENT=serving BATON_GROUP=web")
	for _, want := range []string{`"MESSAGE":"alpha serves web, epoch 1"`, `"PRIORITY":"6"`, `"BATON_EPOCH":"1"`, `"BATON_NODE":"alpha"`, `"SYSLOG_IDENTIFIER":"baton"`} {
		if !strings.Contains(out, want) {
			c.t.Errorf("the journal lacks %s: %s", want, out)
		}
	}
	c.shell(Alpha, "for i in 1 2 3; do echo line $i; done | systemd-cat -t baton-web-service")
	c.eventually("what was printed can be read", func() bool {
		out := c.run(Alpha, "logs", "web/service", "-n", "2")
		return strings.Count(out, "alpha/service") == 2 && strings.HasSuffix(out, "alpha/service line 3\n")
	})
	if out := c.run(Alpha, "report", "--out", "/run/report.tar.gz"); !strings.Contains(out, "journal.txt") {
		c.t.Errorf("the report lacks the journal:\n%s", out)
	}
}
