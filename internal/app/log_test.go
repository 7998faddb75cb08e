package app

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/decide"
	"baton/internal/core/node"
	"baton/internal/io/api"
)

// journald is a socket in its place. Each datagram is an entry.
func journald(t *testing.T) (path string, next func() map[string][]string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path, func() map[string][]string {
		t.Helper()
		b := make([]byte, 1<<20)
		if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := l.Read(b)
		if err != nil {
			t.Fatalf("no entry came: %v", err)
		}
		return parseEntry(t, b[:n])
	}
}

// parseEntry reads journald's native protocol, as journald does.
func parseEntry(t *testing.T, b []byte) map[string][]string {
	t.Helper()
	out := make(map[string][]string)
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			t.Fatalf("a field without its end: %q", b)
		}
		name, value, plain := bytes.Cut(line, []byte("="))
		if !plain {
			size := int(binary.LittleEndian.Uint64(rest))
			value, rest = rest[8:8+size], rest[8+size+1:]
		}
		if strings.Trim(string(name), "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || len(name) == 0 || len(name) > 64 {
			t.Errorf("journald takes no field %q", name)
		}
		out[string(name)] = append(out[string(name)], string(value))
		b = rest
	}
	return out
}

func wantFields(t *testing.T, entry map[string][]string, want ...string) {
	t.Helper()
	for i := 0; i < len(want); i += 2 {
		if got := strings.Join(entry[want[i]], " | "); got != want[i+1] {
			t.Errorf("%s is %q, want %q", want[i], got, want[i+1])
		}
	}
}

// TestLogToTheJournal: entries with fields, as documented.
func TestLogToTheJournal(t *testing.T) {
	path, next := journald(t)
	l, err := openLog("journal", slog.LevelDebug, os.Stderr, path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	a := &agent{self: "alpha", log: l.log.With("node", cluster.NodeID("alpha")), observing: observing{metrics: api.NewMetrics("9.9", nil)}}
	a.tell(&node.Output{
		Events: []cluster.Event{{Code: "serving", Group: "web", Epoch: 4, Node: "alpha", Text: "alpha serves web, epoch 4"},
			{Code: "silent", Node: "beta", Text: "beta has not been heard for 2.7s"}},
		Decided: []decide.Decision{{Rule: "N02", Verdict: decide.Evict, Node: "beta", Why: "not heard", Evidence: []string{"by alpha", "by gamma"}},
			{Rule: "G90", Verdict: decide.Stay, Group: "web", Why: "all is well"}},
	})
	wantFields(t, next(), "MESSAGE", "alpha serves web, epoch 4", "PRIORITY", "6", "SYSLOG_IDENTIFIER", "baton", "BATON_EVENT", "serving",
		"BATON_NODE", "alpha", "BATON_GROUP", "web", "BATON_EPOCH", "4", "BATON_ABOUT", "")
	wantFields(t, next(), "MESSAGE", "beta has not been heard for 2.7s", "PRIORITY", "4", "BATON_EVENT", "silent", "BATON_ABOUT", "beta", "BATON_GROUP", "")
	wantFields(t, next(), "MESSAGE", "not heard", "PRIORITY", "6", "BATON_EVENT", "decision", "BATON_RULE", "N02", "BATON_VERDICT", "evict",
		"BATON_ABOUT", "beta", "BATON_EVIDENCE", "by alpha | by gamma")
	wantFields(t, next(), "PRIORITY", "7", "BATON_RULE", "G90", "BATON_GROUP", "web")

	a.log.Error("two\nlines", "cause", fmt.Errorf("a\nb=c"), "took", 1500*time.Millisecond, slog.Group("odd key", "x-y", 1))
	wantFields(t, next(), "MESSAGE", "two\nlines", "PRIORITY", "3", "BATON_CAUSE", "a\nb=c", "BATON_TOOK", "1.5s", "BATON_ODD_KEY_X_Y", "1")

	a.log.Info("long", "stack", strings.Repeat("x", 10*journalValue))
	if got := len(next()["BATON_STACK"][0]); got > journalValue+len("…") || got < journalValue/2 {
		t.Errorf("a field of %d bytes", got)
	}
	var all []any
	for i := range 40 { // more than a datagram holds: the message comes all the same
		all = append(all, fmt.Sprintf("k%d", i), strings.Repeat("x", journalValue))
	}
	a.log.Info("too much", all...)
	wantFields(t, next(), "MESSAGE", "too much", "PRIORITY", "6", "BATON_K0", "")

	var recent bytes.Buffer
	if _, err := l.recent.WriteTo(&recent); err != nil || !strings.Contains(recent.String(), "alpha serves web, epoch 4") {
		t.Errorf("a report would not have it: %q, %v", recent.String(), err)
	}
}

// journald that is not there, or full, delays nobody; what was lost is counted.
func TestJournalThatIsGone(t *testing.T) {
	l, err := openLog("journal", slog.LevelInfo, os.Stderr, filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		l.log.Info("nobody listens")
	}
	l.close()
	if n := l.out.lost.Load(); n != 10 {
		t.Errorf("%d lines are counted as lost, want 10", n)
	}
}

// The journal is found by systemd's word, and by nothing else.
func TestJournalIsFound(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(out.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]bool{"": false, fmt.Sprintf("%d:%d", st.Dev, st.Ino): true, fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false, "nonsense": false} {
		if toJournal(out, stream) != want {
			t.Errorf("JOURNAL_STREAM=%q: want %v", stream, want)
		}
	}
	path, next := journald(t)
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	l, err := openLog("auto", slog.LevelInfo, out, path)
	if err != nil {
		t.Fatal(err)
	}
	l.log.Info("hello")
	l.log.Debug("not this")
	wantFields(t, next(), "MESSAGE", "hello")
	l.close()
	if text, err := os.ReadFile(out.Name()); err != nil || len(text) > 0 {
		t.Errorf("standard error got %q, %v", text, err)
	}
}

// Elsewhere the log goes to standard error, a line each.
func TestLogToStandardError(t *testing.T) {
	for format, read := range map[string]func(line string) bool{
		"auto": func(line string) bool { return strings.Contains(line, `level=WARN msg=hello event=silent`) },
		"text": func(line string) bool { return strings.Contains(line, `level=WARN msg=hello event=silent`) },
		"json": func(line string) bool {
			var v map[string]any
			return json.Unmarshal([]byte(line), &v) == nil && v["msg"] == "hello" && v["event"] == "silent" && v["level"] == "WARN"
		},
	} {
		t.Setenv("JOURNAL_STREAM", "")
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		l, err := openLog(format, slog.LevelWarn, out, "/none")
		if err != nil {
			t.Fatal(err)
		}
		l.log.Warn("hello", "event", "silent")
		l.log.Info("not this")
		l.close()
		out.Close()
		text, err := os.ReadFile(out.Name())
		if err != nil || strings.Count(string(text), "\n") != 1 || !read(string(text)) {
			t.Errorf("%s: %q, %v", format, text, err)
		}
	}
}

func TestRecentLines(t *testing.T) {
	r := new(recentLines)
	for i := range 3 * recentMax {
		fmt.Fprintf(r, "line %d\n", i)
	}
	var b bytes.Buffer
	if _, err := r.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if n := len(lines); n > recentMax || n < recentMax/2 || lines[n-1] != fmt.Sprintf("line %d", 3*recentMax-1) || !slices.IsSortedFunc(lines, func(a, b string) int { return len(a) - len(b) }) {
		t.Errorf("%d lines are kept, the last %q", n, lines[n-1])
	}
}
