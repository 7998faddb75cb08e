package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"

	"baton/internal/core/decide"
	"baton/internal/core/node"
)

// logging is where an agent's log goes.
type logging struct {
	log    *slog.Logger
	out    *logWriter
	recent *recentLines
	close  func()
}

// openLog opens the log in a format: text or JSON lines to errOut, or entries for journald at its socket;
// auto is the journal where errOut is connected to it, else text.
func openLog(format string, level slog.Level, errOut *os.File, socket string) (*logging, error) {
	l := &logging{recent: new(recentLines)}
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler
	switch {
	case format == "journal", format == "auto" && toJournal(errOut, os.Getenv("JOURNAL_STREAM")):
		j, err := openJournal(socket)
		if err != nil {
			return nil, err
		}
		l.out = newLogWriter(j, func(text string) []byte {
			return journalField(journalField(nil, "MESSAGE", text), "PRIORITY", priority(slog.LevelWarn))
		})
		l.close = func() { l.out.Close(); j.conn.Close() }
		handler = &journalHandler{out: l.out, level: level}
	default:
		l.out = newLogWriter(errOut, func(text string) []byte { return []byte(text + "\n") })
		l.close = l.out.Close
		handler = slog.NewTextHandler(l.out, options)
		if format == "json" {
			handler = slog.NewJSONHandler(l.out, options)
		}
	}
	l.log = slog.New(slog.NewMultiHandler(handler, slog.NewTextHandler(l.recent, &slog.HandlerOptions{Level: max(level, slog.LevelInfo)})))
	return l, nil
}

// recentMax bounds what is kept of the log for a report.
const recentMax = 1000

// recentLines keeps the newest lines of the log. It is safe for concurrent use.
type recentLines struct {
	mu    sync.Mutex
	lines [][]byte
}

// Write implements io.Writer, a line each.
func (r *recentLines) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) == recentMax {
		r.lines = slices.Delete(r.lines, 0, recentMax/8)
	}
	r.lines = append(r.lines, slices.Clone(line))
	return len(line), nil
}

// WriteTo implements io.WriterTo.
func (r *recentLines) WriteTo(w io.Writer) (n int64, err error) {
	r.mu.Lock()
	lines := slices.Clone(r.lines)
	r.mu.Unlock()
	for _, line := range lines {
		k, err := w.Write(line)
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// warnings are the events that somebody should look at.
var warnings = []string{"lease.lost", "lease.taken", "sick", "silent", "stall", "stranger", "founding.file", "founding.unreadable", "halted", "lease.outlived", "suspended", "unreadable", "unsendable"}

func eventLevel(code string) slog.Level {
	if slices.Contains(warnings, code) {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// tell logs events and decisions. Keys and codes are documented, and stay.
func (a *agent) tell(out *node.Output) {
	for _, e := range out.Events {
		if e.Code == "stall" {
			a.metrics.Stalled()
		}
		log := a.log
		if e.Group != "" {
			log = log.With("group", e.Group)
		}
		if e.Epoch != 0 {
			log = log.With("epoch", e.Epoch)
		}
		if e.Node != "" && e.Node != a.self {
			log = log.With("about", e.Node)
		}
		log.Log(context.Background(), eventLevel(e.Code), e.Text, "event", e.Code)
	}
	for _, d := range out.Decided {
		level := slog.LevelInfo
		if d.Verdict == decide.Stay || d.Verdict == decide.Record {
			level = slog.LevelDebug
		}
		log := a.log
		if d.Group != "" {
			log = log.With("group", d.Group)
		} else {
			log = log.With("about", d.Node)
		}
		log.Log(context.Background(), level, d.Why, "event", "decision", "rule", d.Rule, "verdict", string(d.Verdict), "evidence", d.Evidence)
	}
}

// lost is what the log tells of lines that it had no room for.
func lost(n uint64) string {
	return fmt.Sprintf("%d lines of the log were lost: it was not taken quickly enough", n)
}
