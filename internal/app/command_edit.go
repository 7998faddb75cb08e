package app

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	batonv1 "baton/api/v1"
	"baton/internal/core/config"
	"baton/internal/io/bounded"
)

// editCmd is `baton edit`.
type editCmd struct {
	applyFlags
}

// remark begins the lines that are put above a text which has to be edited again, and taken off it.
const remark = "#! "

// Run lets the user edit the present text until it is right, then applies it.
func (c *editCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	r, err := agent.Config.GetConfig(k.ctx, &batonv1.GetConfigRequest{})
	if err != nil {
		return k.trouble(err)
	}
	dir, err := os.MkdirTemp("", "baton-edit-")
	if err != nil {
		return fmt.Errorf("make a file to edit: %w", err)
	}
	file := filepath.Join(dir, "cluster.yaml")
	text, err := editUntilRight(k, file, r.Text)
	if err == nil && text == r.Text {
		fmt.Fprintln(k.out, "nothing was changed")
		return os.RemoveAll(dir)
	}
	if err == nil {
		err = k.apply(agent, c.applyFlags, &batonv1.ApplyRequest{Text: text, BaseRevision: r.Revision.GetRevision()})
	}
	if err == nil {
		return os.RemoveAll(dir)
	}
	if info, gone := os.Stat(file); gone == nil && info.Size() > 0 {
		fmt.Fprintf(k.err, "your text is kept: baton apply %s --base %d\n", file, r.Revision.GetRevision())
	}
	return err
}

// editUntilRight has a text edited again and again, with what is wrong written above it, until it is right or
// comes back as it was.
func editUntilRight(k *console, file, text string) (string, error) {
	shown := text
	var wrong error // with the text, as apply tells it
	for {
		if err := os.WriteFile(file, []byte(shown), 0o600); err != nil {
			return "", fmt.Errorf("write the file to edit: %w", err)
		}
		if err := k.runEditor(file); err != nil {
			return "", err
		}
		edited, err := bounded.ReadFile(file, bounded.ClusterFile)
		if err != nil {
			return "", fmt.Errorf("read what was edited: %w", err)
		}
		now := withoutRemarks(string(edited))
		if err := os.WriteFile(file, []byte(now), 0o600); err != nil {
			return "", fmt.Errorf("write what was edited: %w", err)
		}
		if now == text {
			if shown == text {
				return text, nil
			}
			fmt.Fprintln(k.err, wrong)
			return "", fail(exitUsage, "", "the file is still not right, and was not changed: nothing is applied")
		}
		_, wrong = config.Parse(file, []byte(now), Kinds())
		if wrong == nil {
			return now, nil
		}
		if strings.TrimSpace(now) == "" {
			return "", fail(exitFailed, "", "the file was emptied: nothing is applied")
		}
		text, shown = now, withRemarks(now, wrong)
	}
}

// withRemarks writes above a text what is wrong with it. The line numbers are those that an editor shows,
// the remarks included.
func withRemarks(text string, err error) string {
	var wrong config.Errors
	if !errors.As(err, &wrong) {
		return remark + err.Error() + "\n" + text
	}
	lines := []string{"The file is not right yet. These lines go away by themselves; leave the file as it is to give up."}
	count := len(lines)
	for _, w := range wrong {
		count += 1 + min(len(w.Hint), 1)
	}
	for _, w := range wrong {
		lines = append(lines, fmt.Sprintf("line %d, column %d: %s", w.Line+count, w.Column, w.Message))
		if w.Hint != "" {
			lines = append(lines, "  hint: "+w.Hint)
		}
	}
	return remark + strings.Join(lines, "\n"+remark) + "\n" + text
}

func withoutRemarks(text string) string {
	for strings.HasPrefix(text, strings.TrimSpace(remark)) {
		_, text, _ = strings.Cut(text, "\n")
	}
	return text
}

// runEditor runs the user's editor on a file, as git and kubectl choose it.
func (k *console) runEditor(file string) error {
	editor := "vi"
	for _, name := range []string{"EDITOR", "VISUAL"} {
		if e := os.Getenv(name); e != "" {
			editor = e
		}
	}
	// The variable may hold arguments: a shell reads it.
	c := exec.CommandContext(k.ctx, "sh", "-c", editor+` "$1"`, "sh", file)
	c.Stdout, c.Stderr = k.out, k.err
	if terminal, ok := k.in.(*os.File); ok { // what else is typed ahead is for baton
		c.Stdin = terminal
	}
	if err := c.Run(); err != nil {
		return fail(exitFailed, "set EDITOR to an editor that is installed", "the editor %s: %v", editor, err)
	}
	return nil
}
