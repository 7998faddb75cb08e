package app

import (
	"strings"
	"testing"
)

// TestFormRefusedFirst: what can't be is refused before anybody is asked whether it shall be.
func TestFormRefusedFirst(t *testing.T) {
	socket := serveStage(t, healthy())
	code, out, errOut := batonTyped(t, socket, "y\n", "form", "--without", "alpha")
	if code != exitFailed || strings.Contains(out+errOut, "Found it so?") || !strings.Contains(errOut, "belongs to a cluster already") || !strings.Contains(errOut, "hint: baton status") {
		t.Errorf("exit %d\n%s%s", code, out, errOut)
	}
}

// TestEditTellsWhatIsWrong: who gives up, or whose editor asks nobody, is told key, line and column as by apply.
func TestEditTellsWhatIsWrong(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	socket := serveStage(t, newConfigStage(t))
	editor(t, "s/role: witness/rle: witness/", "")
	code, _, errOut := baton(t, socket, "edit")
	if code != exitUsage || !strings.Contains(errOut, `unknown key "rle"`) || !strings.Contains(errOut, "cluster.yaml:") || !strings.Contains(errOut, "rle: witness") {
		t.Errorf("exit %d\n%s", code, errOut)
	}
}
