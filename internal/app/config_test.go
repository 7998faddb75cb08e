package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/io/api"
)

// noConfig is a cluster without a configuration: what the stages of other tests show.
type noConfig struct{}

func (noConfig) Configuration(context.Context) (*cluster.Configuration, error) {
	return &cluster.Configuration{}, nil
}
func (noConfig) Compare(before, after []byte) []string { return compareTexts(before, after) }
func (noConfig) Apply(context.Context, api.ApplyRequest) (api.ApplyReply, error) {
	return api.ApplyReply{}, nil
}
func (noConfig) Validate(context.Context, []byte) ([]api.Problem, error) { return nil, nil }
func (noConfig) DropDraft(context.Context, string) (api.ApplyReply, error) {
	return api.ApplyReply{}, nil
}
func (noConfig) File() api.File                                { return api.File{} }
func (noConfig) Restore(context.Context) (api.Restored, error) { return api.Restored{}, nil }

const firstText = `# the shop
cluster: ledger
nodes:
  alpha: { address: 127.0.0.1 }
  beta:  { address: 10.0.0.12 }
  gamma: { address: 10.0.0.13, role: witness }
groups:
  orders:
    nodes: [alpha, beta]
    resources:
      - process: { name: web, command: /bin/sleep 1000, user: nobody }
      - vip: { address: 10.99.0.50/24, interface: lo }
`

// peersFake answers for other nodes.
type peersFake map[cluster.NodeID]func() ([]api.Problem, error)

func (p peersFake) ValidateOn(_ context.Context, n cluster.NodeID, _ []byte) ([]api.Problem, error) {
	if p[n] == nil {
		return nil, nil
	}
	return p[n]()
}

// configStage is a cluster that keeps revisions: the real preview, over a log that takes every draft at once.
type configStage struct {
	*stage
	mu    sync.Mutex
	conf  cluster.Configuration
	file  *fileKeeper
	peers Peers
	clock int
}

func newConfigStage(t *testing.T) *configStage {
	t.Helper()
	dir := t.TempDir()
	s := &configStage{stage: healthy(), peers: peersFake{}, file: newFileKeeper("alpha", filepath.Join(dir, "cluster.yaml"), filepath.Join(dir, "data"), discard())}
	s.view.Groups[0].Next = "beta"
	if err := os.WriteFile(s.file.path, []byte(firstText), 0o644); err != nil {
		t.Fatal(err)
	}
	s.add(t, firstText, "alpha", "")
	return s
}

func (s *configStage) add(t *testing.T, text, by, comment string) {
	s.clock++
	r := cluster.RevisionText{Revision: cluster.Revision(len(s.conf.Revisions) + 1), Text: []byte(text), By: by, Comment: comment,
		Wall: day(fmt.Sprintf("09:%02d:00", s.clock))}
	s.conf.Revisions = append(s.conf.Revisions, r)
	s.file.adopted(r.Revision, r.Text)
	if err := s.file.update(); err != nil && t != nil {
		t.Fatal(err)
	}
}

func (s *configStage) Overview(ctx context.Context) (*cluster.Overview, error) {
	o, err := s.stage.Overview(ctx)
	o.Drift = s.file.drift()
	return o, err
}

func (s *configStage) Configuration(context.Context) (*cluster.Configuration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.conf
	return &c, nil
}

func (s *configStage) here() *host {
	h := &host{self: "alpha"}
	h.present = mustParse(s.conf.Current().Text)
	return h
}

func (s *configStage) Validate(_ context.Context, text []byte) ([]api.Problem, error) {
	return s.here().validate(text), nil
}

func (s *configStage) File() api.File {
	return api.File{Node: "alpha", Path: s.file.path, Base: s.file.base(), Drift: s.file.drift()}
}

func (s *configStage) Restore(context.Context) (api.Restored, error) {
	revision, kept, err := s.file.restore(time.Unix(0, 0).UTC())
	return api.Restored{File: s.file.path, Revision: revision, Copy: kept}, err
}

func (s *configStage) Apply(ctx context.Context, r api.ApplyRequest) (api.ApplyReply, error) {
	o, _ := s.Overview(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := preview(ctx, &s.conf, o, s.here(), s.peers, r)
	if !reply.Done || r.DryRun || len(reply.Changes) == 0 {
		return reply, nil
	}
	s.add(nil, string(r.Text), "anna", r.Comment)
	reply.Text = fmt.Sprintf("revision %d counts", reply.Revision)
	return reply, nil
}

func (s *configStage) DropDraft(context.Context, string) (api.ApplyReply, error) {
	if s.conf.Draft == nil {
		return api.ApplyReply{Text: "no change is under way", Hint: "baton config history lists what was changed"}, nil
	}
	s.conf.Draft = nil
	return api.ApplyReply{Done: true, Text: "the change by bert is given up"}, nil
}

// TestConfigCommands: what people see of apply, edit and config.
func TestConfigCommands(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"cmd.yaml":     strings.Replace(firstText, "sleep 1000", "sleep 2000", 1),
		"typo.yaml":    strings.Replace(firstText, "groups:", "takover: 3s\ngroups:", 1),
		"user.yaml":    strings.Replace(firstText, "user: nobody", "user: nobdoy", 1),
		"eth.yaml":     strings.Replace(firstText, "interface: lo", "interface: eth77", 1),
		"name.yaml":    strings.Replace(firstText, "cluster: ledger", "cluster: bank", 1),
		"same.yaml":    firstText,
		"comment.yaml": "# better\n" + firstText,
		"fast.yaml":    strings.Replace(firstText, "cluster: ledger", "cluster: ledger\ntakeover: 250ms", 1),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		prepare func(*configStage)
		lines   []string
	}{
		{"config_apply", nil, []string{"apply cmd.yaml --dry-run", "apply cmd.yaml", "y| apply cmd.yaml -m longer", "config history", "config show 1", "config diff",
			"config diff 2 1", "config diff 1", "config diff fast.yaml", "config show 7", "config rollback --yes", "config history", "apply same.yaml", "y| apply comment.yaml", "config restore"}},
		{"config_refused", nil, []string{"apply typo.yaml", "apply user.yaml --yes", "apply eth.yaml --yes", "apply name.yaml --yes", "apply nowhere.yaml", "apply cmd.yaml --json",
			"apply cmd.yaml --base 7 --yes", "config diff", "config rollback"}},
		{"config_peers", func(s *configStage) {
			s.peers = peersFake{
				"beta": func() ([]api.Problem, error) {
					return []api.Problem{{Text: "there is no interface lo here; there are eth0", Hint: ""}}, nil
				},
				"gamma": func() ([]api.Problem, error) { return nil, fmt.Errorf("dial tcp 10.0.0.13:7400: connection refused") }}
		}, []string{"apply cmd.yaml --yes"}},
		{"config_unreached", func(s *configStage) {
			s.peers = peersFake{"gamma": func() ([]api.Problem, error) { return nil, fmt.Errorf("dial tcp 10.0.0.13:7400: connection refused") }}
		}, []string{"apply cmd.yaml --yes", "n| apply cmd.yaml", "y| apply cmd.yaml", "apply fast.yaml --yes --unchecked"}},
		{"config_silent", func(s *configStage) {
			s.view.Nodes[2].Fresh = false
			s.peers = peersFake{"gamma": func() ([]api.Problem, error) { return nil, fmt.Errorf("dial tcp 10.0.0.13:7400: no route to host") }}
		}, []string{"apply cmd.yaml --yes"}},
		{"config_between", func(s *configStage) {
			edited := strings.Replace(firstText, "nodes: [alpha, beta]", "nodes: [beta, alpha]", 1)
			if err := os.WriteFile(s.file.path, []byte(edited), 0o644); err != nil {
				t.Fatal(err)
			}
			s.add(nil, files["fast.yaml"], "bert (pid 12)", "faster")
		}, []string{"status", "apply FILE --yes", "config diff", "apply FILE --base 2 --dry-run", "history -n 1", "config restore", "config restore"}},
		{"config_draft", func(s *configStage) {
			s.conf.Draft = &cluster.DraftText{Draft: cluster.Draft{Base: 1}, By: "bert (pid 12)", Waits: "orders is still on alpha"}
		}, []string{"apply cmd.yaml --yes", "config drop", "config drop", "config drop --json", "apply cmd.yaml --dry-run"}},
		{"config_json", nil, []string{"apply cmd.yaml --json --dry-run", "apply cmd.yaml --json --yes", "apply user.yaml --json --yes", "config show --json", "config history --json", "config diff --json"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newConfigStage(t)
			if c.prepare != nil {
				c.prepare(s)
			}
			socket := serveStage(t, s)
			var all strings.Builder
			for _, line := range c.lines {
				typed, command, asks := strings.Cut(line, "| ")
				if !asks {
					typed, command = "", line
				}
				args := strings.Fields(strings.ReplaceAll(command, "FILE", s.file.path))
				for i, a := range args {
					if files[a] != "" {
						args[i] = filepath.Join(dir, a)
					}
				}
				code, out, errOut := batonTyped(t, socket, typed, args...)
				fmt.Fprintf(&all, "$ baton %s\n%s%s[%d]\n\n", command, out, errOut, code)
			}
			got := strings.ReplaceAll(strings.ReplaceAll(all.String(), s.file.path, "/etc/baton/cluster.yaml"), dir+"/", "")
			got = hereInterfaces.ReplaceAllString(got, "there are INTERFACES")
			golden(t, c.name+".golden", clockTimes.ReplaceAllString(got, "${1}TIME"))
		})
	}
}

// batonTyped runs a command to which something is typed.
func batonTyped(t *testing.T, socket, typed string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e strings.Builder
	t.Setenv("BATON_SOCKET", socket)
	code = runCommand(t.Context(), args, strings.NewReader(typed), &o, &e)
	return code, o.String(), e.String()
}

// TestForming: before there is a configuration, every command says so.
func TestForming(t *testing.T) {
	socket := serveStage(t, forming())
	file := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(file, []byte(firstText), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"apply", file, "--yes"}, {"edit"}, {"config", "show"}, {"config", "history"}, {"config", "diff"}, {"config", "rollback"}, {"config", "restore"}} {
		code, out, errOut := baton(t, socket, args...)
		if code != exitFailed || out != "" || !strings.Contains(errOut, "the cluster is still forming") || !strings.Contains(errOut, "hint: baton status --wait") {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errOut)
		}
	}
}

// editor makes a script that EDITOR names. Each time it is run it applies the next of the sed scripts.
func editor(t *testing.T, scripts ...string) {
	t.Helper()
	dir := t.TempDir()
	var b strings.Builder
	b.WriteString("#!/bin/sh\ncd " + dir + "\necho >> runs\nn=$(wc -l < runs)\ncp \"$1\" shown-$n\ncase $n in\n")
	for i, s := range scripts {
		fmt.Fprintf(&b, "%d) sed -i %q \"$1\";;\n", i+1, s)
	}
	b.WriteString("esac\n")
	path := filepath.Join(dir, "editor")
	if err := os.WriteFile(path, []byte(b.String()), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VISUAL", "")
	t.Setenv("EDITOR", path)
	t.Setenv("SHOWN", dir)
}

func shown(t *testing.T, n int) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(os.Getenv("SHOWN"), fmt.Sprintf("shown-%d", n)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var editDirs = regexp.MustCompile(`\S*baton-edit-\d+`)

func TestEdit(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := newConfigStage(t)
	socket := serveStage(t, s)

	editor(t, "")
	if code, out, errOut := baton(t, socket, "edit"); code != exitDone || out != "nothing was changed\n" {
		t.Errorf("unchanged: exit %d\n%s%s", code, out, errOut)
	}

	// A wrong word is shown above the text, with the line that the editor shows, and can be put right.
	editor(t, "s/role: witness/rle: witness/", "s/rle: witness/role: witness/; s/1000/3000/")
	code, out, errOut := batonTyped(t, socket, "y\n", "edit", "-m", "longer")
	if code != exitDone || !strings.Contains(out, "sleep 1000 → /bin/sleep 3000") || len(s.conf.Revisions) != 2 || s.conf.Revisions[1].Comment != "longer" {
		t.Fatalf("exit %d\n%s%s", code, out, errOut)
	}
	second := shown(t, 2)
	lines := strings.Split(second, "\n")
	m := regexp.MustCompile(`line (\d+), column \d+: unknown key "rle"`).FindStringSubmatch(second)
	if m == nil {
		t.Fatalf("what is wrong is not shown:\n%s", second)
	}
	var at int
	fmt.Sscan(m[1], &at)
	if !strings.Contains(lines[at-1], "rle: witness") || !strings.Contains(second, remark+"  hint: ") {
		t.Errorf("line %d is not the wrong one:\n%s", at, second)
	}
	if text := string(s.conf.Current().Text); strings.Contains(text, remark) || !strings.HasPrefix(text, "# the shop\n") {
		t.Errorf("it became\n%s", text)
	}

	// Leaving a wrong text as it is gives up; the text is kept.
	editor(t, "s/gamma:/gamma/", "")
	code, _, errOut = baton(t, socket, "edit")
	if code != exitUsage || !strings.Contains(errOut, "still not right") || !strings.Contains(errOut, "your text is kept: baton apply ") {
		t.Errorf("given up: exit %d\n%s", code, errOut)
	}

	// Another's change in between is not undone.
	editor(t, "s/3000/4000/")
	s.peers = peersFake{"gamma": func() ([]api.Problem, error) {
		if len(s.conf.Revisions) == 2 {
			s.add(nil, strings.Replace(firstText, "cluster: ledger", "cluster: ledger\ntakeover: 1s", 1), "bert", "faster")
		}
		return nil, nil
	}}
	code, out, errOut = baton(t, socket, "edit", "--yes")
	want := "error: the text was made from revision 2, and since then came revision 3 by bert (faster)\nhint: baton config diff 2 shows what changed; take it over, then apply with --base 3\n"
	if code != exitFailed || !strings.HasSuffix(errOut, want) || len(s.conf.Revisions) != 3 {
		t.Errorf("exit %d\n%s%s", code, out, errOut)
	}
	kept := editDirs.FindString(errOut)
	if text, err := os.ReadFile(kept + "/cluster.yaml"); err != nil || !strings.Contains(string(text), "4000") {
		t.Errorf("the edit is lost: %v in %q", err, errOut)
	}

	// An editor that fails changes nothing.
	t.Setenv("EDITOR", "false")
	if code, _, errOut := baton(t, socket, "edit"); code != exitFailed || !strings.Contains(errOut, "the editor false") {
		t.Errorf("exit %d\n%s", code, errOut)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func mustParse(text []byte) *cluster.Spec {
	spec, err := config.Parse("test", text, Kinds())
	if err != nil {
		panic(err)
	}
	return spec
}

// hereInterfaces is what differs by the machine that runs the tests.
var hereInterfaces = regexp.MustCompile(`there are lo\b[^\n"]*`)
