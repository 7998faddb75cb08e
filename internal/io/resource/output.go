package resource

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode"

	"baton/internal/core/cluster"
)

const (
	// OutputLimit is the size above which a program's output file is cut, in bytes, if nothing less is said.
	OutputLimit = 4 << 20
	// outputShare is the part of its limit that is kept of an output, in output.log.1, when it is cut, and that may stand
	// there when a program starts.
	outputShare = 4
)

// journalStdout is journald's socket for standard output (systemd's "stdout stream protocol").
const journalStdout = "/run/systemd/journal/stdout"

// Output is the file that a program's output goes to where there is no journald, and the older output, if
// any, in the same path plus ".1". Where there is one, the output is in the journal under Identifier.
func Output(env Env) string { return filepath.Join(cmp.Or(env.OutputDir, env.RunDir), "output.log") }

// Identifier is the name under which a resource's output stands in the journal.
func Identifier(group cluster.GroupID, resource cluster.ResourceID) string {
	return fmt.Sprintf("baton-%s-%s", group, resource)
}

// openOutput opens what a program writes to. It must not break when the agent dies, so it is a stream to
// journald, or a file, but never a pipe to us. kept tells whether it is the file.
func openOutput(journal string, env Env, owner account) (out *os.File, kept bool, err error) {
	if conn, err := net.Dial("unix", journal); err == nil {
		defer conn.Close()
		// identifier, unit, priority (info), level prefix, forward to syslog, kmsg, console
		header := Identifier(env.Group, env.Spec.ID) + "\n\n6\n1\n0\n0\n0\n"
		if _, err := io.WriteString(conn, header); err == nil {
			out, err := conn.(*net.UnixConn).File()
			if err != nil {
				return nil, false, fmt.Errorf("stream to %s: %w", journal, err)
			}
			return out, false, nil
		}
	}
	path := Output(env)
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, false, err
	}
	limit := cmp.Or(env.OutputLimit, OutputLimit)
	if _, err := cut(path, limit/outputShare, limit/outputShare); err != nil {
		return nil, false, err
	}
	out, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil, false, err
	}
	// The owner may open /dev/stderr again, as many programs do.
	if err := out.Chown(int(owner.uid), int(owner.gid)); err != nil {
		out.Close()
		return nil, false, err
	}
	return out, true, nil
}

// cut empties the file if it takes more than limit bytes, and keeps so much of its end in path.1, if there is room for
// that: emptying needs none. Programs that have it open for appending go on at its new start; what they write in that
// moment may be lost.
func cut(path string, limit, keep int64) (done bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || taken(info) <= limit {
		return false, err
	}
	end := make([]byte, keep)
	n, err := f.ReadAt(end, max(0, info.Size()-keep))
	if err != nil && err != io.EOF {
		n = 0
	}
	if err := f.Truncate(0); err != nil {
		return false, err
	}
	_ = overwrite(path+".1", end[:n]) // the older output is worth no more than that
	return true, nil
}

// taken is how much room a file takes, in bytes: one that was cut below a program that does not append has a hole.
func taken(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return min(info.Size(), s.Blocks*512)
	}
	return info.Size()
}

// overwrite writes a file over, in the room that it has.
func overwrite(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	n, err := f.WriteAt(content, 0)
	return errors.Join(err, f.Truncate(int64(n)), f.Close())
}

// cutDeleted empties a program's output file that somebody deleted, if it takes more than limit bytes: without a name it
// goes on growing.
func cutDeleted(path string, pid int, limit int64) error {
	name := fmt.Sprintf("/proc/%d/fd/1", pid)
	if to, err := os.Readlink(name); err != nil || to != path+" (deleted)" {
		return nil // it has ended, or prints elsewhere
	}
	info, err := os.Stat(name)
	if err != nil || taken(info) <= limit {
		return nil
	}
	return os.Truncate(name, 0)
}

// lastLine returns the last line of an output from an offset on that says something, shortened; "" if there is none.
func lastLine(path string, from int64) string { return shorten(lastOutput(path, from)) }

// outputAt returns how long an output is: what a program writes that is started now comes after it.
func outputAt(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// lastOutput returns the end of what was written to an output from an offset on, at most 4 KiB of it; "" if there is none.
// One that is shorter than that was cut since then.
func lastOutput(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	if info.Size() < from {
		from = 0
	}
	end := make([]byte, min(4096, info.Size()-from))
	n, _ := f.ReadAt(end, info.Size()-int64(len(end)))
	return string(end[:n])
}

// shorten returns the last line of a text that has a letter or digit, and at most its first 200 bytes.
func shorten(text string) string {
	text = strings.ToValidUTF8(text, "?")
	for line := ""; text != ""; {
		at := strings.LastIndexByte(text, '\n')
		line, text = strings.TrimSpace(text[at+1:]), text[:max(at, 0)]
		if !strings.ContainsFunc(line, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
			continue
		}
		if len(line) > 200 {
			line = strings.ToValidUTF8(line[:200], "") + "…"
		}
		return line
	}
	return ""
}
