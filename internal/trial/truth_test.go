package trial

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/lab"
)

// onRecord is what history says of a service that began.
type onRecord struct {
	index    int
	text     string // its line
	Node     string
	Epoch    string
	Known    string
	Planned  bool
	Down     seconds
	Least    seconds
	Detected seconds
}

// seconds is a duration in protobuf's JSON: "0.976s".
type seconds time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (s *seconds) UnmarshalJSON(b []byte) error {
	d, err := time.ParseDuration(strings.Trim(string(b), `"`))
	*s = seconds(d)
	return err
}

// records returns the services of the group that history tells of, oldest first.
func (c *incident) records(node string) (out []onRecord) {
	c.t.Helper()
	var h struct {
		Lines []struct {
			Index  string
			Did    []string
			Served []onRecord
		}
	}
	c.must(json.Unmarshal([]byte(c.run(node, "history", "--json", "--limit", "0", "--group", Group)), &h))
	for _, l := range h.Lines {
		for _, s := range l.Served {
			n, err := strconv.Atoi(l.Index)
			c.must(err)
			s.index, s.text = n, strings.Join(l.Did, "; ")
			out = append(out, s)
		}
	}
	return out
}

// honest checks what history says of the newest outage against the longest time without an answer that the client had
// since an instant: neither shorter at the most nor longer at the least, but for what the machine adds to either.
func (c *incident) honest(what string, before int, since time.Duration, planned bool, known string) onRecord {
	c.t.Helper()
	var r onRecord
	c.eventually(what+" is on record", func() bool {
		all := c.records(Gamma)
		r = all[len(all)-1]
		return len(all) > before && r.Known == known
	})
	gap := longest(c.probe.Record(), since)
	c.t.Logf("%s: the client had no answer for %v, history: %s", what, gap, r.text)
	const noise = 40 * time.Millisecond
	if r.Planned != planned {
		c.t.Errorf("%s: planned is %v on record: %s", what, r.Planned, r.text)
	}
	if most := time.Duration(r.Down); known != "at least" && most < gap-noise {
		c.t.Errorf("%s: at the most %v on record, the client had no answer for %v", what, most, gap)
	}
	if least := time.Duration(r.Least); least > gap+noise {
		c.t.Errorf("%s: at the least %v on record, the client had no answer for %v", what, least, gap)
	}
	return r
}

// code asks a plain path of a node as a monitor does.
func (c *incident) code(node, path string) string {
	c.t.Helper()
	return c.shell(Client, fmt.Sprintf(`curl -s -o /dev/null -w '%%{http_code}' http://10.77.0.%d:7401%s`, nodeNumber[node], path))
}

// A resource that a person has stopped is an outage for clients: status, /primary and readyz say so, and its real
// length goes on record as planned. A group that is stopped is stopped, and nothing is healthy.
func TestStoppedResourceIsAnOutage(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Cold: true, Extra: "health: { port: 7401 }\n"})
	before := len(c.records(Gamma))
	since := c.at(func() error { c.run(Gamma, "stop", "web/service"); return nil })
	for _, node := range Nodes {
		c.eventually("status of "+node+" tells", func() bool { return strings.Contains(c.run(node, "status"), "degraded: service stopped") })
		if text := c.run(node, "status"); strings.Contains(text, "healthy") {
			t.Errorf("healthy, says %s:\n%s", node, text)
		}
	}
	if g := c.group(Beta); g.Serving {
		t.Errorf("beta says that it serves: %+v", g)
	}
	if p, r := c.primary(Alpha), c.code(Alpha, "/readyz"); p != "503" || r != "503" {
		t.Errorf("/primary of the owner: %s, /readyz: %s", p, r)
	}
	if r := c.code(Beta, "/readyz"); r != "200" {
		t.Errorf("/readyz of the other: %s", r)
	}
	time.Sleep(4 * time.Second)
	c.run(Gamma, "start", "web/service")
	c.movesTo(Alpha, since)
	if r := c.honest("a resource stopped for 4 s", before, since, true, ""); time.Duration(r.Down) < 4*time.Second || time.Duration(r.Least) < 3*time.Second {
		t.Errorf("history: %s", r.text)
	}
	if p, r := c.primary(Alpha), c.code(Alpha, "/readyz"); p != "200" || r != "200" {
		t.Errorf("afterwards /primary of the owner: %s, /readyz: %s", p, r)
	}

	before = len(c.records(Gamma))
	since = c.at(func() error { c.run(Gamma, "stop", Group); return nil })
	c.eventually("status tells of the stop", func() bool { return strings.Contains(c.run(Gamma, "status"), "web is stopped") })
	if text := c.run(Gamma, "status"); strings.Contains(text, "healthy") {
		t.Errorf("healthy, with a group that is stopped:\n%s", text)
	}
	if p := c.primary(Alpha); p != "503" {
		t.Errorf("/primary of a stopped group: %s", p)
	}
	time.Sleep(2 * time.Second)
	c.run(Gamma, "start", Group)
	c.movesTo(Alpha, since)
	c.honest("the group stopped for 2 s", before, since, true, "")
}

// An owner that has lost its uplink, and that nobody can replace, serves nobody.
func TestUplinkOfALonelyOwner(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Extra: "health: { port: 7401 }\n"})
	c.must(c.Host(Beta).PowerOff())
	time.Sleep(2 * c.takeover())
	before := len(c.records(Gamma))
	since := c.at(func() error { return c.Lab.CutCarrier(Alpha, LAN) })
	c.eventually("status tells", func() bool { return strings.Contains(c.run(Gamma, "status"), "degraded: alpha has lost its uplink") })
	if g := c.group(Gamma); g.Serving || g.Owner != Alpha {
		t.Errorf("gamma says: %+v", g)
	}
	time.Sleep(time.Second)
	c.must(c.Lab.Heal(Alpha, LAN))
	c.movesTo(Alpha, since)
	c.honest("a lost uplink", before, since, false, "at least")
}

// History is held against what a client saw, that asks a thousand times a second.
func TestHistoryIsWhatTheClientSaw(t *testing.T) {
	c := start(t, Options{})
	step := func(owner string) int {
		t.Helper()
		c.must(c.AwaitServing(owner, limit))
		return len(c.records(Gamma))
	}
	before := step(Alpha)
	agent := c.Agent(Alpha).Process()
	since := c.at(agent.Freeze)
	c.failsOver(Beta, since)
	first := c.honest("a hung agent that is not back", before, since, false, "at most")
	time.Sleep(c.takeover())
	c.must(agent.Thaw())
	r := c.honest("a hung agent that is back", before, since, false, "at least")
	if time.Duration(r.Down) > time.Duration(first.Down)/2 || r.index != first.index {
		t.Errorf("history: %s, before %s", r.text, first.text)
	}
	if text := c.run(Gamma, "history"); !strings.Contains(text, "G81") {
		t.Errorf("no entry tells that the outage was put right:\n%s", text)
	}

	before = step(Beta)
	since = lab.Now()
	c.run(Gamma, "switch", Group, "--to", Alpha)
	c.movesTo(Alpha, since)
	c.honest("a switchover", before, since, true, "")

	before = step(Alpha)
	since = c.at(func() error { return syscall.Kill(c.serviceRuns(Alpha), syscall.SIGKILL) })
	c.movesTo(Beta, since)
	c.honest("a crash", before, since, false, "at least")
	c.run(Gamma, "clear", Group)

	before = step(Beta)
	since = lab.Now()
	c.change(Gamma, "BATON_LAB_MODE: echo", "BATON_LAB_MODE: echo, ANOTHER: one")
	c.movesTo(Beta, since)
	c.honest("a change that restarts", before, since, true, "")
	before = step(Beta)
	since = lab.Now()
	c.run(Gamma, "config", "rollback", "1", "--yes")
	c.movesTo(Beta, since)
	c.honest("a rollback", before, since, true, "")

	before = step(Beta)
	since = c.at(c.Host(Beta).PowerOff)
	c.failsOver(Alpha, since)
	c.honest("a power loss", before, since, false, "at most")
	if text := c.run(Gamma, "history"); strings.Contains(text, "not on record") {
		t.Errorf("each start ends in a riddle:\n%s", text)
	}
}

// Explain has one answer to who could take a group, tells how its resources are where it is, whoever is asked, and why
// the term rose.
func TestExplainIsOfOneMind(t *testing.T) {
	t.Parallel()
	c := start(t, Options{})
	for _, node := range Nodes {
		if text := c.run(node, "explain", Group); !strings.Contains(strings.ToLower(text), "resource on alpha") || !strings.Contains(text, "running") {
			t.Errorf("%s tells of the resources:\n%s", node, text)
		}
	}
	c.must(syscall.Kill(c.serviceRuns(Alpha), syscall.SIGKILL))
	c.must(c.AwaitServing(Beta, limit))
	c.eventually("alpha would take it in need only", func() bool {
		text := c.run(Gamma, "explain", Group)
		return strings.Contains(text, "only in need: it failed there before") && !strings.Contains(text, " yes")
	})
	lead := ""
	c.must(c.Await(Gamma, limit, "somebody coordinates", func(s *Status) bool { lead = s.Coordinator; return lead != "" }))
	c.must(c.Host(lead).PowerOff())
	ask := Gamma
	if lead == Gamma {
		ask = Beta
	}
	c.eventually("the term is explained", func() bool {
		return strings.Contains(c.run(ask, "status"), ": "+lead+", which had led, had not said so for")
	})
}
