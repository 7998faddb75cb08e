package resource

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"baton/internal/core/cluster"
)

const (
	// outputStart is the size above which the output file is cut when a program starts, in bytes.
	outputStart = 1 << 20
	// outputLimit is the size above which it is cut while a program runs, in bytes.
	outputLimit = 8 << 20
	// outputKept is how much of its end is kept in output.log.1 when it is cut, in bytes.
	outputKept = 1 << 20
)

// journalStdout is journald's socket for standard output (systemd's "stdout stream protocol").
const journalStdout = "/run/systemd/journal/stdout"

// Output is the file that a program's output goes to where there is no journald, and the older output, if
// any, in the same path plus ".1". Where there is one, the output is in the journal under Identifier.
func Output(env Env) string { return filepath.Join(env.RunDir, "output.log") }

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
	if err := cut(path, outputStart); err != nil {
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

// cut empties the file if it is longer than limit, and keeps its end in path.1. Programs that have it open
// for appending go on at its new start; what they write in that moment may be lost.
func cut(path string, limit int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() <= limit {
		return err
	}
	end := make([]byte, outputKept)
	n, err := f.ReadAt(end, max(0, info.Size()-outputKept))
	if err != nil && err != io.EOF {
		return err
	}
	if err := replace(path+".1", end[:n], 0o640); err != nil {
		return err
	}
	return f.Truncate(0)
}

// lastLine returns the last line of a program's output that is not empty, shortened; "" if there is none.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	end := make([]byte, 4096)
	n, _ := f.ReadAt(end, max(0, info.Size()-int64(len(end))))
	return shorten(string(end[:n]))
}

// shorten returns the last line of a text that is not empty, and at most its first 200 bytes.
func shorten(text string) string {
	text = strings.TrimSpace(strings.ToValidUTF8(text, "?"))
	line := strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
	if len(line) > 200 {
		line = strings.ToValidUTF8(line[:200], "") + "…"
	}
	return line
}

// replace writes a file so that readers see the old or the new content, never a part.
func replace(path string, content []byte, mode fs.FileMode) error {
	next := path + ".new"
	if err := os.WriteFile(next, content, mode); err != nil {
		return err
	}
	return os.Rename(next, path)
}
