package app

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"baton/internal/core/config"
	"baton/internal/core/wire"
)

// initArgs are the flags of an init below a directory.
func initArgs(dir string, more ...string) []string {
	return append([]string{"init", "--config", filepath.Join(dir, "etc", "cluster.yaml"), "--key", filepath.Join(dir, "etc", "key"), "--measure", "10ms"}, more...)
}

var threeByFlags = []string{"--cluster", "shop", "--node", "alpha=127.0.0.1", "--node", "beta=10.0.0.12", "--node", "gamma=10.0.0.13,witness"}

// TestInitByFlags: without a terminal the flags say everything; file and key are good, and nothing is overwritten.
func TestInitByFlags(t *testing.T) {
	dir := t.TempDir()
	args := initArgs(dir, append(threeByFlags, "--vip", "fd00::50/64", "--vip", "10.0.0.50/24", "--process", "/bin/sleep 1000", "--user", "nobody", "--takeover", "1s", "--yes")...)
	_, out, errOut := baton(t, "none", args...) // the check that follows finds what this machine lacks
	file, key := filepath.Join(dir, "etc", "cluster.yaml"), filepath.Join(dir, "etc", "key")
	text := get(t, file)
	spec, err := config.Parse(file, []byte(text), Kinds())
	if err != nil || spec.KeyFile != key || spec.Timing.Takeover != time.Second || len(spec.Groups) != 1 || len(spec.Groups[0].Resources) != 3 {
		t.Fatalf("%v: %+v\n%s\n%s", err, spec, text, errOut)
	}
	for name, mode := range map[string]os.FileMode{file: 0o644, key: 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	first := get(t, key)
	if _, err := wire.ParseKey(first); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"wrote  " + file, "pass     file", "this host is alpha", "systemctl enable --now baton", "--node alpha", "baton invite beta", "baton invite gamma", "baton status --wait"} {
		if !strings.Contains(out, want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "baton invite alpha") {
		t.Errorf("invites itself:\n%s", out)
	}

	code, _, errOut := baton(t, "none", args...)
	if code != exitFailed || !strings.Contains(errOut, "cluster.yaml is there already") || !strings.Contains(errOut, "hint: ") || get(t, file) != text {
		t.Errorf("again: exit %d\n%s", code, errOut)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	code, _, errOut = baton(t, "none", args...)
	if code != exitFailed || !strings.Contains(errOut, "a key is never overwritten") {
		t.Errorf("with a key: exit %d\n%s", code, errOut)
	}
	_, out, _ = baton(t, "none", append(args, "--force")...)
	if get(t, key) != first || get(t, file) != text || !strings.Contains(out, "used   "+key) {
		t.Errorf("forced: the key was overwritten, or the file not written\n%s", out)
	}
}

// TestInitRefuses: what the flags leave open or get wrong is said, and nothing is written.
func TestInitRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "the cluster has no name: --cluster NAME"},
		{threeByFlags[:4], "1 nodes are named, and a cluster needs 3"},
		{append(threeByFlags, "--process", "/bin/true"), "--user USER"},
		{append(threeByFlags, "--vip", "10.0.0.50"), "prefix length"},
		{append(threeByFlags, "--takeover", "5ms"), "outside 100ms to 1m0s"},
		{append(threeByFlags, "--node", "delta"), "it has no ="},
		{append(threeByFlags, "--node", "delta=db.example"), `"db.example" is no address`},
		{append(threeByFlags, "--node", "delta=10.0.0.14,boss"), `"boss" is no role`},
		{append(threeByFlags, "--node", "Delta=10.0.0.14"), "no name for a node"},
		{append(threeByFlags, "--node", "delta=10.0.0.12"), "which node beta has already"},
		{append(threeByFlags, "--vip", "10.0.0.12/24"), "is the address of node beta"},
		{append(threeByFlags, "--json"), "baton init talks to people"},
		{append(threeByFlags, "--self", "zeta"), `--self: there is no node "zeta"`},
		{strings.Fields("--yes --cluster shop --node alpha=10.255.0.11 --node beta=10.255.0.12 --node gamma=10.255.0.13"), "this host is none of the nodes"},
		{append(threeByFlags, "--vip", "fd00::50/64", "--vip", "10.0.0.50"), `--vip: "10.0.0.50" is none`},
	} {
		dir := t.TempDir()
		code, out, errOut := baton(t, "none", initArgs(dir, c.args...)...)
		if code != exitUsage || out != "" || !strings.Contains(errOut, c.want) || !strings.Contains(errOut, "hint: ") && !strings.Contains(errOut, "the proposed file:") {
			t.Errorf("%v: exit %d\n%s%s", c.args, code, out, errOut)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%v: wrote %v", c.args, left)
		}
	}
}

// interrupted is the answer of a person who types Ctrl-C.
const interrupted = "\x03"

// dialogue runs a command on a pseudo terminal. It types each answer once its question has been asked.
func dialogue(t *testing.T, ctx context.Context, args []string, answers [][2]string) (code int, screen string) {
	t.Helper()
	keyboard, tty := terminal(t)
	var out lockedBuffer
	t.Setenv("NO_COLOR", "1")
	ended := make(chan int, 1)
	ctx, interrupt := context.WithCancel(ctx)
	defer interrupt()
	go func() { ended <- runCommand(ctx, args, tty, &out, &out) }()
	at := 0
	for _, a := range answers {
		until(t, func() bool { return strings.Contains(out.String()[at:], a[0]) })
		at = len(out.String())
		if a[1] == interrupted {
			interrupt() // as main does at SIGINT
			continue
		}
		if _, err := keyboard.WriteString(a[1] + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case code = <-ended:
	case <-time.After(20 * time.Second):
		t.Fatalf("it does not end:\n%s", out.String())
	}
	return code, out.String()
}

// TestInitAsks: on a terminal it asks, refuses what can't be, proposes, shows, and writes after a yes.
func TestInitAsks(t *testing.T) {
	dir := t.TempDir()
	answers := [][2]string{
		{"Name of the cluster [main]", "Web Shop"}, {"make a name", "shop"},
		{"This host's node: its name", "alpha"}, {"its address", "127.0.0.1"}, {"its role", ""},
		{"Second node: its name", "alpha"}, {"there is a node alpha already", "beta"}, {"its address", "beta.example"}, {"must not wait for a name server", "10.0.0.12"}, {"its role", ""},
		{"Third node: its name", "gamma"}, {"its address", "10.0.0.13"}, {"its role (member, spare or witness) [witness]", ""},
		{"One more node", ""},
		{"Address that its clients use", "10.0.0.50"}, {"with its prefix length, such as", "10.0.0.50/24"},
		{"Program to run", "/bin/sleep 1000"}, {"User that it runs as [nobody]", ""}, {"Port that it listens on", "8080"},
		{"serves again within [3s]", "1h"}, {"a time from 100ms", "500ms"},
		{"[y/N]", "y"},
	}
	_, screen := dialogue(t, t.Context(), initArgs(dir), answers)
	text := get(t, filepath.Join(dir, "etc", "cluster.yaml"))
	want := config.Propose(config.Answers{Cluster: "shop", Takeover: 500 * ms, KeyFile: filepath.Join(dir, "etc", "key"), Nodes: mustParse([]byte(text)).Nodes,
		Command: "/bin/sleep 1000", User: "nobody", Port: 8080, VIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.50/24")}})
	if text != string(want) || !strings.Contains(screen, "cluster: shop") || !strings.Contains(screen, "baton invite beta") {
		t.Errorf("it wrote\n%s\nscreen:\n%s", text, screen)
	}
}

// TestInitDeclined: no at the end, or Ctrl-C before it, writes nothing.
func TestInitDeclined(t *testing.T) {
	dir := t.TempDir()
	args := initArgs(dir, append(threeByFlags, "--vip", "10.0.0.50/24", "--takeover", "1s")...)
	code, screen := dialogue(t, t.Context(), args, [][2]string{{"[y/N]", "n"}})
	if code != exitFailed || !strings.Contains(screen, "nothing was written") {
		t.Errorf("exit %d\n%s", code, screen)
	}
	if code, screen := dialogue(t, t.Context(), initArgs(dir), [][2]string{{"Name of the cluster", interrupted}}); code != exitFailed || !strings.Contains(screen, "interrupted") {
		t.Errorf("interrupted: exit %d\n%s", code, screen)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("wrote %v", left)
	}
}

// TestSchemaCommand: the published schema is the reader's own.
func TestSchemaCommand(t *testing.T) {
	want, err := config.Schema(Kinds())
	if err != nil {
		t.Fatal(err)
	}
	code, out, _ := baton(t, "none", "config", "schema")
	if code != exitDone || !bytes.Equal([]byte(out), want) {
		t.Errorf("exit %d\n%s", code, out)
	}
}

// TestTold: what a command can't do with its flags is said before it does anything.
func TestTold(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.yaml")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"dev", "--json", none}, exitUsage, "error: baton dev talks to people\nhint: leave --json out"},
		{[]string{"dev", none, "--takeover", "100ms"}, exitUsage, "hint: leave --takeover out, and write takeover: into the file"},
		{[]string{"check", none, "--measure", "0s"}, exitUsage, "error: --measure: 0s is no time to look for stalls in\nhint: 1s suits most"},
		{[]string{"check", none}, exitUsage, "on the first node baton init makes it, on others baton join fetches it; or name another one"},
	} {
		code, out, errOut := baton(t, "none", c.args...)
		if code != c.code || !strings.Contains(out+errOut, c.want) {
			t.Errorf("%v: exit %d\n%s%s", c.args, code, out, errOut)
		}
	}
	if os.Geteuid() == 0 {
		code, _, errOut := baton(t, "none", "dev", none)
		if code != exitUsage || !strings.Contains(errOut, "none.yaml") || !strings.Contains(errOut, "hint: name a file that is there") {
			t.Errorf("dev without its file: exit %d\n%s", code, errOut)
		}
	}
}
