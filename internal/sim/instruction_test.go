package sim

import (
	"strings"
	"testing"
)

// TestInstructions: what people ask for is done, in this order, as the trace of each script shows.
func TestInstructions(t *testing.T) {
	for script, want := range map[string][]string{
		"stopped": {"gate of web closes (epoch 1)", "decide G05", "done (web is stopped", "power alpha", "kill beta", "isolate @coordinator",
			"at 20s start web", "assign web to alpha as epoch 2", "gate of web opens (epoch 2", "done (web serves on alpha"},
		"stop-ends": {"done (web is stopped", "decide I01", "gate of web opens (epoch 2", "done (web/app is stopped", "start web/app (rule I01)",
			"wants web/app running (epoch 2)"},
		"held": {"wants web/app stopped (epoch 1)", "done (web/app is stopped", "kill alpha", "switch web beta", "wants web/app stopped (epoch 2)",
			"gate of web opens (epoch 2", "at 16s start web/app", "wants web/app running (epoch 2)", "done (web/app runs again"},
		"in-place": {"wants web/ip stopped (epoch 1)", "wants web/app stopped (epoch 1)", "wants web/app running (epoch 1)", "wants web/ip running (epoch 1)",
			"done (web was restarted", "wants web/app stopped (epoch 1)", "resource web/app is stopped", "restart of web/app given up"},
		"paused": {"done (web is paused", "power alpha", "evict alpha#1", "decide G06", "at 18s resume web", "gate of web opens (epoch 2",
			"done (everything is paused for 3s", "fail @owner", "resume everything (rule I01)"},
		"pinned": {"decide G33", "gate of web opens (epoch 2", "done (web is pinned to beta", "power beta", "decide G23", "at 18s unpin web",
			"gate of web opens (epoch 3"},
		"drained": {"decide G36", "decide G35", "decide G34", "gate of web opens (epoch 2", "gate of mail opens (epoch 2",
			"refused (alpha is drained, but db stays there", "decide I01", "decide G40", "undrain alpha (rule I01)", "gate of web opens (epoch 3"},
		"cleared":  {"decide G30", "refused (alpha can't take web: it is banned", "clear web", "done (nothing is held against web", "done (web serves on alpha"},
		"heedless": {"done (web is paused", "decide G30", "dropped assign web to beta as epoch 2: it was paused"},
	} {
		t.Run(script, func(t *testing.T) {
			rest := shows(t, script, want)
			for never, in := range map[string]string{"gate of web opens": "heedless", "wants web/app running (epoch 1)": "in-place"} {
				if in == script && strings.Contains(rest, never) {
					t.Errorf("%q at the end of\n%s", never, rest)
				}
			}
		})
	}
}

// A person's command is answered, also where it changes nothing or can't be.
func TestAnswers(t *testing.T) {
	for _, c := range []struct{ before, command, want string }{
		{"", "switch web alpha", "done (web is on alpha already: nothing to do"},
		{"", "resume web", "done (web is not paused: nothing to do"},
		{"", "resume all", "done (not everything is paused: nothing to do"},
		{"", "unpin web", "done (web is not pinned: nothing to do"},
		{"", "undrain beta", "done (beta is not drained: nothing to do"},
		{"", "start web", "done (web is not stopped: nothing to do"},
		{"", "drain gamma", "refused (gamma is a witness"},
		{"", "pin web gamma", "refused (gamma is not among the nodes of web"},
		{"pause all", "switch web beta", "refused (everything is paused, and so is web, by operator"},
		{"pause all", "resume web", "refused (everything is paused"},
		{"pause web", "switch web beta", "refused (web is paused by operator"},
		{"pause web", "pin web beta", "refused (web is paused by operator"},
		{"pin web alpha", "switch web beta", "refused (web is pinned to alpha by operator"},
		{"pin web alpha", "switch web", "refused (web is pinned to alpha by operator"},
		{"drain beta", "switch web beta", "refused (beta is drained by operator"},
		{"drain beta", "pin web beta", "refused (beta is drained by operator"},
		{"drain beta", "drain alpha", "refused (alpha is drained, but web stays there"},
		{"stop web", "switch web beta", "refused (web was stopped by operator"},
		{"stop web", "failback web", "refused (web was stopped by operator"},
		{"stop web", "restart web", "refused (web was stopped by operator"},
		{"stop web/app", "restart web/app", "refused (web/app was stopped by operator"},
		{"stop web/app", "switch web beta", "done (web serves on beta"},
		{"power beta", "pin web beta", "refused (beta can't take web"},
	} {
		text := "nodes alpha beta gamma:witness\ntakeover 1s\ngoal safety\ngroup web alpha beta hot\n"
		if c.before != "" {
			text += "at 11s " + c.before + "\n"
		}
		p, err := Parse(text + "at 14s " + c.command + "\nrun 19s\n")
		if err != nil {
			t.Fatal(err)
		}
		var trace strings.Builder
		if r, err := RunPlan(p, Options{Trace: &trace}); err != nil || r.Violation != nil {
			t.Fatal(err, r.Violation)
		}
		if _, after, _ := strings.Cut(trace.String(), "at 14s "); !strings.Contains(after, c.want) {
			t.Errorf("%s, then %s: no %q in\n%s", c.before, c.command, c.want, after)
		}
	}
}

// shows runs a script that must hold, and looks for texts in its trace, one after the other. It returns what
// follows the last.
func shows(t *testing.T, script string, want []string) (rest string) {
	t.Helper()
	var trace strings.Builder
	r, err := RunPlan(readScript(t, "testdata/"+script+".script"), Options{Trace: &trace})
	if err != nil || r.Violation != nil {
		t.Fatal(err, r.Violation)
	}
	rest = trace.String()
	for _, w := range want {
		_, after, found := strings.Cut(rest, w)
		if !found {
			t.Fatalf("no %q after what came before it, in\n%s", w, trace.String())
		}
		rest = after
	}
	return rest
}
