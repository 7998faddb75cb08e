package sim

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// situation runs a script and returns how its cluster looks from a node in the end.
func situation(t *testing.T, script, from string) *Situation {
	t.Helper()
	p, err := Parse(script)
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorld(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.run()
	if w.broken != nil {
		t.Fatal(w.broken)
	}
	m := w.machines[w.index(cluster.NodeID(from))]
	o := m.agent.Overview(cluster.Now{Mono: m.clock.read(w.now), Wall: m.wallTime()})
	return &Situation{State: m.agent.State().Encode(), Spec: m.agent.State().Spec(), Read: w.read, Wall: m.wallTime(), Overview: o}
}

const threeNodes = `
takeover 1s
nodes alpha beta gamma:witness
links 2
group mail alpha
group web alpha beta hot
run 8s
goal safety
`

func predict(t *testing.T, s *Situation, faults string) *Forecast {
	t.Helper()
	f, err := Predict(context.Background(), s, faults)
	if err != nil {
		t.Fatalf("%s: %v", faults, err)
	}
	if f.Runs != forecastRuns {
		t.Errorf("%s: %d runs", faults, f.Runs)
	}
	return f
}

// TestPredict: where each group goes, by which rule, how long nobody serves it, and what is at risk then.
func TestPredict(t *testing.T) {
	s := situation(t, threeNodes, "beta")
	l, ms := s.Spec.Timing.L, 20*time.Millisecond
	for _, c := range []struct {
		faults   string
		mail     cluster.NodeID // it may run on alpha alone
		web      cluster.NodeID // hot on beta
		rule     string         // of web
		from, to time.Duration  // of web's outage
		risk     string
	}{
		{"alpha down", "", "beta", "N02", l / 2, l + ms, "2 of 3 voters are left"},
		{"power alpha", "", "beta", "N02", l / 2, l + ms, "nobody could take over web"},
		{"isolate alpha", "", "beta", "N02", l / 2, l + ms, "2 of 3 voters are left"},
		{"alpha down; at 8s alpha up", "alpha", "beta", "N02", l / 2, l + ms, ""},
		{"beta down", "alpha", "alpha", "G90", 0, 0, "nobody could take over web"},
		{"gamma down", "alpha", "alpha", "G90", 0, 0, "2 of 3 voters are left"},
		{"alpha down; gamma down", "", "", "", 4 * l, time.Minute, "no majority: 1 of 3 voters are left"},
		{"kill alpha", "", "beta", "N02", 0, ms, "2 of 3 voters are left"},
		{"kill alpha for 100ms", "alpha", "alpha", "G90", 0, 0, ""},
		{"kill web on alpha", "alpha", "beta", "G30", time.Microsecond, ms, ""},
		{"fail alpha web", "alpha", "beta", "G30", time.Microsecond, ms, ""},
		{"switch web beta", "alpha", "beta", "G12", 0, ms, ""},
		{"drain alpha", "alpha", "beta", "G34", 0, ms, "nobody could take over web"},
		{"cut alpha beta", "alpha", "alpha", "G90", 0, 0, ""},
		{"cut alpha beta lan; cut alpha gamma lan", "alpha", "alpha", "G90", 0, 0, ""},
		{"lan down", "alpha", "alpha", "G90", 0, 0, ""},
		{"uplink alpha", "", "beta", "G32", time.Microsecond, ms, "nobody could take over web"},
		{"stop web", "alpha", "", "G05", 4 * l, time.Minute, ""},
		{"pause all; alpha down", "", "", "G06", 4 * l, time.Minute, "2 of 3 voters are left"},
	} {
		f := predict(t, s, c.faults)
		mail, web := &f.Groups[0], &f.Groups[1]
		if mail.To != c.mail || web.To != c.web || web.Rule != c.rule {
			t.Errorf("%s: mail to %q, web to %q by %s (%s)", c.faults, mail.To, web.To, web.Rule, web.Why)
		}
		if web.Least < c.from.Truncate(time.Millisecond) || web.Most > c.to || web.Least > web.Most || c.from > 0 && web.Most == 0 {
			t.Errorf("%s: web is not served for %v to %v, want %v to %v", c.faults, web.Least, web.Most, c.from, c.to)
		}
		if risks := strings.Join(f.Risks, "; "); !strings.Contains(risks, c.risk) || c.risk == "" && risks != "" {
			t.Errorf("%s: risks %q, want %q", c.faults, risks, c.risk)
		}
		if web.From != "alpha" || mail.From != "alpha" {
			t.Errorf("%s: web was on %q, mail on %q", c.faults, web.From, mail.From)
		}
	}
}

// TestPredictTells: the steps, what has to start, and what baton refuses.
func TestPredictTells(t *testing.T) {
	s := situation(t, strings.Replace(threeNodes, "beta hot", "beta", 1), "alpha")
	f := predict(t, s, "alpha down")
	if web := &f.Groups[1]; web.To != "beta" || !slices.Equal(web.Starts, []cluster.ResourceID{"app"}) {
		t.Errorf("a cold standby: %+v", web)
	}
	if mail := &f.Groups[0]; mail.Rule != "G23" || len(mail.Rejected) != 1 || !strings.HasPrefix(mail.Rejected[0], "alpha: has not been heard") {
		t.Errorf("nobody can take mail: %+v", mail)
	}
	steps := ""
	for _, x := range f.Steps {
		steps += x.Rule + " " + x.Text + "\n"
	}
	for _, want := range []string{"N02 evict alpha#1, assign web to beta as epoch 2: a majority", "beta starts web/app\n", "beta serves web, epoch 2\n", "G23 mail: no node can take it\n", "N06 ended alpha#1"} {
		if !strings.Contains(steps, want) {
			t.Errorf("no %q in\n%s", want, steps)
		}
	}
	f = predict(t, s, "switch mail beta")
	if len(f.Answers) != 1 || f.Answers[0] != "beta can't take mail: it is not among the group's nodes" {
		t.Errorf("answers: %q", f.Answers)
	}
	f = predict(t, s, "kill web on alpha") // cold elsewhere: it is restarted in place first
	if web := &f.Groups[1]; web.To != "alpha" || !slices.Equal(web.Starts, []cluster.ResourceID{"app"}) {
		t.Errorf("a local restart: %+v", web)
	}
}

// TestPredictGoesOn: a forecast begins with what is so: who is down, what was moved, banned, paused and drained,
// after which a node comes back.
func TestPredictGoesOn(t *testing.T) {
	for _, c := range []struct {
		script string
		faults string
		from   cluster.NodeID
		to     cluster.NodeID
		rule   string
	}{
		{"at 4s power beta", "alpha down", "alpha", "", ""},
		{"at 4s power alpha", "gamma down", "beta", "", ""},
		{"at 4s power alpha", "alpha up", "beta", "beta", "G90"},
		{"at 4s power alpha", "alpha up; at 6s switch web", "beta", "alpha", "G12"},
		{"at 4s switch web beta", "beta down", "beta", "alpha", "N02"},
		{"at 4s drain beta", "alpha down", "alpha", "", "G23"},
		{"at 4s pause web", "alpha down", "alpha", "", "G06"},
		{"at 4s pause web", "resume web; alpha down", "alpha", "beta", "N02"},
		{"at 4s stop web", "start web", "", "alpha", "G22"},
		{"at 4s pin web alpha", "alpha down", "alpha", "", "G23"},
		{"at 4s fail alpha web", "beta down", "beta", "alpha", "N02"},
		{"at 4s cut beta gamma", "alpha down", "alpha", "", ""},
		{"at 4s power alpha\nat 5s boot alpha", "beta down", "beta", "alpha", "N02"},
		{"at 7050ms power alpha", "gamma down for 300ms", "beta", "beta", "G90"}, // the takeover is under way
	} {
		s := situation(t, strings.Replace(threeNodes, "run 8s", c.script+"\nrun 8s", 1), "gamma")
		f := predict(t, s, c.faults)
		web := &f.Groups[1]
		if web.From != c.from || web.To != c.to || web.Rule != c.rule {
			t.Errorf("%q, then %s: from %q to %q by %s (%s); %q", c.script, c.faults, web.From, web.To, web.Rule, web.Why, f.Answers)
		}
	}
}

// TestPredictEvenly: equal questions have equal answers.
func TestPredictEvenly(t *testing.T) {
	s := situation(t, threeNodes, "alpha")
	a, b := predict(t, s, "alpha down"), predict(t, s, "alpha down")
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%+v\n%+v", a, b)
	}
}

// TestBadFaults: each gets one line that names what is wrong, and a hint.
func TestBadFaults(t *testing.T) {
	s := situation(t, threeNodes, "alpha")
	for faults, want := range map[string]string{
		"":                              "no fault is named",
		" ; ":                           "no fault is named",
		"rain":                          `"rain" is no fault: the verbs are down, up, wipe, kill,`,
		"drift alpha 10ppm":             `"drift alpha 10ppm" is no fault: the verbs are`,
		"delta down":                    `there is no node "delta"; the nodes are: alpha, beta, gamma`,
		"delta up":                      "boot takes a node: alpha, beta, gamma",
		"kill db on alpha":              `there is no group "db"; the groups are: mail, web`,
		"kill mail on beta":             "mail never runs on beta",
		"cut alpha":                     "cut: a name is missing",
		"cut alpha beta moon":           `cut: unknown link "moon"`,
		"link moon":                     `link: unknown link "moon"`,
		"loss lan lots":                 `loss: "lots" is no percentage`,
		"alpha down for ever":           `power: "ever" is no length of time`,
		"at soon alpha down":            `"soon" is no length of time`,
		"alpha down for 1h":             "the faults last 1h0m0s, and a forecast reaches 1m0s",
		"alpha down now":                `power: unexpected "now"`,
		"stop web/db":                   `web has no resource "db"`,
		"switch web/app beta":           "switch takes a whole group",
		"pin web":                       "pin: the node is missing",
		strings.Repeat("lan down;", 17): "17 faults are named, and a forecast takes 16",
	} {
		_, err := Predict(context.Background(), s, faults)
		var bad *BadFault
		if !errors.As(err, &bad) || !strings.Contains(bad.Text, want) || bad.Hint == "" || strings.Contains(bad.Text, "\n") {
			t.Errorf("%q: %v, want %q and a hint", faults, err, want)
		}
	}
}

// TestPredictInTime: when time is short, fewer runs are made, and one at the least.
func TestPredictInTime(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f, err := Predict(ctx, situation(t, threeNodes, "alpha"), "alpha down")
	if err != nil || f.Runs != 1 || f.Groups[1].To != "beta" {
		t.Errorf("%+v, %v", f, err)
	}
}
