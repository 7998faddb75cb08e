package sim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

// command runs the simulator as the command line does.
func command(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(t.Context(), args, &o, &e)
	return code, o.String(), e.String()
}

// file writes a script and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestStop: whoever is impatient gets what there is, at once.
func TestStop(t *testing.T) {
	long := file(t, "long", "nodes alpha beta gamma\ngoal safety\nrun 10000h\n")
	for _, c := range []struct {
		after time.Duration
		want  string
		args  []string
	}{
		{300 * time.Millisecond, " of 1000000000 seeds\nruns: ", []string{"--seeds", "1..1000000000"}},
		{300 * time.Millisecond, "stopped at ", []string{long}},
		{0, "stopped after 0 of 2 scripts", []string{long, long}},
	} {
		ctx, stop := context.WithTimeout(t.Context(), c.after)
		var out, errOut bytes.Buffer
		began := time.Now()
		code := Main(ctx, c.args, &out, &errOut)
		stop()
		if took := time.Since(began); code != 1 || took > 10*time.Second || !strings.Contains(out.String(), c.want) || !strings.Contains(out.String(), "stopped") {
			t.Errorf("%v: exit %d after %v, want %q:\n%s%s", c.args, code, took, c.want, out.String(), errOut.String())
		}
	}
}

// TestRefusedLines: what would do nothing, or not what was meant, is refused, in one line.
func TestRefusedLines(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	good := "testdata/isolate.script"
	empty, binary, huge := file(t, "empty", " \n# nothing\n"), file(t, "binary", "\x7fELF\x00\x01"), file(t, "huge", strings.Repeat("#\n", 1<<20))
	for _, c := range []struct{ args, want string }{
		{"--seeds 9..1", `"9..1" is no range of seeds: it ends before it begins`},
		{"--seeds 1..", "neither a seed nor a range"},
		{"--most 0", "--most: the run stops after 1 failure or more, not after 0"},
		{"--most -1", "not after -1"},
		{"--most x", `--most: "x" is no whole number`},
		{"--seeds", "--seeds needs a value"},
		{"--trace=maybe", "--trace takes no value"},
		{"--json", "unknown flag --json"},
		{good + " --json", "unknown flag --json"},
		{"-z", "unknown flag --z"},
		{"--profile calm", `no profile "calm"; there are acks, `},
		{good + " --seeds 7", "--seeds and a script (" + good + ") can't be used together"},
		{"--profile mix " + good, "--profile and a script"},
		{"--script " + good, "--script and a script"},
		{"--trace", "--trace prints a single seed, such as --seeds 7, not 1..100"},
		{"--script --seeds 1..2", "--script prints a single seed"},
		{"--script --trace --seeds 1", "--script and --trace can't be used together"},
		{"--packets --seeds 1", "--packets adds to what --trace prints"},
		{"/dev/zero", "/dev/zero is no regular file"},
		{fifo, "is no regular file"},
		{dir, "is no regular file"},
		{good + " " + dir + "/none", "read the script: open " + dir + "/none: no such file"},
		{empty, "it is empty"},
		{binary, "it is no text"},
		{huge, "is larger than 1 MiB"},
	} {
		code, out, errOut := command(t, strings.Fields(c.args)...)
		first, hint, _ := strings.Cut(errOut, "\n")
		if code != 2 || out != "" || !strings.HasPrefix(first, "error: ") || !strings.Contains(first, c.want) || hint != "hint: baton simulate --help\n" {
			t.Errorf("%s: exit %d, want 2 and %q:\n%s%s", c.args, code, c.want, out, errOut)
		}
	}
	for _, c := range []string{"--mutation 2 " + good, "--hunt"} {
		if cluster.Planted {
			break
		}
		if code, _, errOut := command(t, strings.Fields(c)...); code != 2 || !strings.Contains(errOut, "only in a binary built with -tags planted") {
			t.Errorf("%s: exit %d, %s", c, code, errOut)
		}
	}
	if cluster.Planted { // the example of docs/internals/testing.md
		if code, out, errOut := command(t, "--mutation", "2", good); code != 1 || !strings.Contains(out, "VIOLATION of lease: alpha serves web for ") {
			t.Errorf("mutation 2: exit %d, %s%s", code, out, errOut)
		}
	}
	if code, _, errOut := command(t, "--mutation", "999"); code != 2 || cluster.Planted && !strings.Contains(errOut, "the bugs are numbered 1 to ") {
		t.Errorf("mutation 999: exit %d, %s", code, errOut)
	}
}

// TestScriptOutcome: a script shows who served when, and is held to the outcome that stands in it.
func TestScriptOutcome(t *testing.T) {
	const text = "nodes alpha beta gamma\nat 5s power @owner for 2s\nrun 12s\n"
	code, out, errOut := command(t, file(t, "plain", text))
	outcome, _, found := strings.Cut(out, "all invariants held for ")
	if code != 0 || !found || !strings.Contains(out, "serves web, epoch 2") || strings.Contains(out, "the script says") {
		t.Fatalf("exit %d: %s%s", code, out, errOut)
	}
	same := file(t, "same", text+"----\n"+outcome)
	other := file(t, "other", strings.ReplaceAll(text+"----\n"+strings.Replace(outcome, "epoch 2", "epoch 7", 1), "\n", "\r\n"))
	code, out, errOut = command(t, same)
	if code != 0 || !strings.Contains(out, "the outcome is the one that the script says") {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	code, out, errOut = command(t, same, other, "--trace")
	if code != 1 || !strings.Contains(out, "is not the one that the script says") || !strings.Contains(out, "epoch 7 (") || !strings.Contains(out, same+":\n") {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	if _, diff, _ := strings.Cut(out, "is not the one"); strings.Count(diff, "\n- ") != 1 || strings.Count(diff, "\n+ ") != 1 {
		t.Errorf("the difference is\n%s", diff)
	}
}

func TestDifference(t *testing.T) {
	for _, c := range []struct{ want, got, diff string }{
		{"a\nb\nc\n", "a\nb\nc\n", ""},
		{"a\nb\nc\n", "a\nc\n", "- b\n"},
		{"a\nc\n", "a\nb\nc\nd\n", "+ b\n+ d\n"},
		{"", "x\n", "+ x\n"},
		{"a\nb\n", "x\ny", "- a\n- b\n+ x\n+ y\n"},
	} {
		if diff := difference(c.want, c.got); diff != c.diff {
			t.Errorf("from %q to %q: %q, want %q", c.want, c.got, diff, c.diff)
		}
	}
	var many string
	for i := range 100 {
		many += fmt.Sprintln(i)
	}
	if n := strings.Count(difference("", many), "\n"); n != differenceMost+1 {
		t.Errorf("a large difference has %d lines", n)
	}
}

// TestRefusedScripts: what makes no cluster, or what no rule could judge, is refused by name and line.
func TestRefusedScripts(t *testing.T) {
	const three = "nodes a b c\n"
	for _, c := range []struct{ text, want string }{
		{three + "at 5s power @ownr\nrun 9s", `script line 2, "at 5s power @ownr": no node is called "@ownr"; there are @owner, @coordinator, @other`},
		{three + "at 5s cut a @ownr\nrun 9s", "@ownr"},
		{three + "at 5s switch web @x\nrun 9s", "@x"},
		{three + "at 5s form d\nrun 9s", `no node "d"`},
		{three + "at 5s cut a a\nrun 9s", "it takes two nodes"},
		{three + "node a member\nrun 9s", "script line 2, \"node a member\": there is a node a already"},
		{"nodes a b a\nrun 9s", "there is a node a already"},
		{three + "group web a\ngroup web b\nrun 9s", "script line 3, \"group web b\": there is a group web already"},
		{three + "group web\nrun 9s", "group web has no node"},
		{three + "group web a a\nrun 9s", "a stands twice"},
		{"nodes a b c:witness\ngroup web c\nrun 9s", "c is a witness"},
		{three + "group web a start=-1s\nrun 9s", "length of time"},
		{three + "out d\nrun 9s", `no node "d" above`},
		{"nodes a b c d\nout d d\nrun 9s", "d is out already"},
		{three + "at -1s power a\nrun 9s", `script line 2, "at -1s power a": "-1s" is no length of time`},
		{three + "run 9s\nat 1m power a", `script line 3, "at 1m0s power a": it comes after the end: run says 9s`},
		{three + "at 15s power a\nrun 12s", `script line 2, "at 15s power a": it comes after the end: run says 12s`},
		{three + "goal takeover\nrun 9s", "script line 2: goal takeover measures what follows a fault"},
		{three + "goal still\nrun 9s", "script line 2: goal still measures what follows a fault"},
		{three + "goal takeover\nat 0s loss lan 1%\nrun 9s", "other than loss"},
		{three + "at 2s boot a\nat 1s power a\nrun 9s", "there is nothing to end"},
		{three + "at 2s power a\nat 1s boot a\nrun 9s", "there is nothing to end"},
		{three + "at 1s power a for 0s\nrun 9s", "it would end before it begins"},
		{three + "run 9s\nrun 8s", "run stands in line 2 already"},
		{three + "seed 1 2\nrun 9s", "it is written: seed NUMBER"},
		{three + "codec yes\nrun 9s", "it is written: codec"},
		{three + "links 4\nrun 9s", "1 to 3 links"},
		{three + "sync 2ms 1ms\nrun 9s", "the most is less than the least"},
		{three + "stalls 0s 1ms\nrun 9s", "more often than each millisecond"},
		{three + "latency 1ms -1ms\nrun 9s", "length of time"},
		{three + "spread -1s\nrun 9s", "length of time"},
		{three + "takeover 1ms\nrun 9s", "script line 2"},
		{three + "run 1000000h", "longer than"},
		{three + "at 1s starve a 1ns 1ns\nrun 9s", "more often than each millisecond"},
		{three + "goal gold\nrun 9s", "there are converge, takeover"},
		{three + "at 1s drift a 9000ppm\nrun 9s", "script line 2"},
		{"nodes A b c\nrun 9s", `"A" is no name`},
		{"nodes all b c\nrun 9s", `"all" is a word of scripts`},
		{"node a member 1ppm x\nrun 9s", `unexpected "x"`},
		{three, "it has no length"},
		{"run 9s", "it names no nodes"},
		{"", "it is empty"},
		{"nodes a b\x00c", "it is no text"},
		{"nodes \x1b[31m b c d", `no name`},
		{strings.Repeat("x", 9000), "9000 bytes"},
	} {
		_, err := Parse(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.100q: error %v, want one with %q", c.text, err, c.want)
		} else if text := err.Error(); len(text) > 300 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
			t.Errorf("%.100q: the error is no printable line: %q", c.text, text)
		}
	}
}

// TestReadableTrace: no words run together, and nothing is printed as Go writes it.
func TestReadableTrace(t *testing.T) {
	var trace strings.Builder
	if _, err := RunPlan(readScript(t, "testdata/uplink.script"), Options{Trace: &trace, Packets: true}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"decide G90 stay web on alpha: its owner", "event serving: alpha serves web", "lease number 1; web: epoch 1 activated",
		"observes: the address of web has no carrier", "observes: all interfaces are up", "persist 1: "} {
		if !strings.Contains(trace.String(), want) {
			t.Errorf("the trace lacks %q", want)
		}
	}
	for _, bad := range []string{"map[", "[]", "<nil>", "&{", "%!", " \n"} {
		if i := strings.Index(trace.String(), bad); i >= 0 {
			t.Errorf("the trace holds %q: %s", bad, trace.String()[max(0, i-80):i+40])
		}
	}
}
