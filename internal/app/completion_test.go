package app

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCompletionInBash: bash itself, with the script that baton prints, completes commands, flags, and what
// the agent names.
func TestCompletionInBash(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip(err)
	}
	binary := buildBaton(t)
	socket := serveStage(t, healthy())
	// The words are split as bash splits a typed line, = included (COMP_WORDBREAKS).
	const ask = `source <(baton completion bash) || exit 1
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { echo "compopt $*"; }
_baton; printf '%s\n' "${COMPREPLY[@]}"`
	for line, want := range map[string]string{
		"sw":                        "switch",
		"switch ":                   "orders",
		"switch orders --to ":       "alpha beta gamma",
		"switch orders --to = b":    "beta",
		"switch --to beta o":        "orders",
		"switch orders --dr":        "--dry-run",
		"switch orders ":            "",
		"explain o":                 "orders",
		"logs orders/":              "orders/vip orders/web",
		"logs orders --node g":      "gamma",
		"history --group ":          "orders",
		"completion ":               "bash fish zsh",
		"agent --log-format j":      "journal json",
		"agent --config ":           "compopt -o default",
		"report --out = ":           "compopt -o default",
		"status --w":                "--wait --watch",
		"nonsense --w":              "",
		"status --socket /none --w": "--wait --watch",
	} {
		words := strings.Split(line, " ")
		cmd := exec.Command("bash", append([]string{"--norc", "--noprofile", "-c", ask, "bash", "baton"}, words...)...)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"), "BATON_SOCKET="+socket)
		out, err := cmd.CombinedOutput()
		got := strings.Fields(string(out))
		if !strings.HasPrefix(want, "compopt") {
			slices.Sort(got)
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("baton %s: got %q, want %q (%v)", line, got, want, err)
		}
	}
}

// Every shell's script is one that its shell can read, where it is installed.
func TestCompletionScripts(t *testing.T) {
	for shell := range completionScripts {
		code, out, errOut := baton(t, "/none", "completion", shell)
		if code != exitDone || !strings.Contains(out, "complete -- ") || errOut != "" {
			t.Errorf("%s: exit %d\n%s%s", shell, code, out, errOut)
		}
		if _, err := exec.LookPath(shell); err != nil {
			continue
		}
		cmd := exec.Command(shell, "-n")
		cmd.Stdin = strings.NewReader(out)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s can't read its script: %v\n%s", shell, err, text)
		}
	}
	if code, _, errOut := baton(t, "/none", "completion", "tcsh"); code != exitUsage || !strings.Contains(errOut, "hint: ") {
		t.Errorf("tcsh: exit %d, %s", code, errOut)
	}
	// Without an agent names don't complete, at once and quietly.
	if code, out, errOut := baton(t, "/none", "complete", "--", "switch", ""); code != exitDone || out != "" || errOut != "" {
		t.Errorf("without an agent: exit %d, %q, %q", code, out, errOut)
	}
}
