package app

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// journalSocket is where journald takes entries with fields (systemd.io/JOURNAL_NATIVE_PROTOCOL).
	journalSocket = "/run/systemd/journal/socket"
	// journalValue bounds one field, in bytes: an entry has to fit a datagram.
	journalValue = 32 << 10
	// journalPrefix stands before the name of each field of baton's own.
	journalPrefix = "BATON_"
)

// toJournal tells whether a file is journald's: systemd names it by device and inode (systemd.exec(5),
// JOURNAL_STREAM).
func toJournal(out *os.File, stream string) bool {
	var st unix.Stat_t
	if stream == "" || unix.Fstat(int(out.Fd()), &st) != nil {
		return false
	}
	return stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// journal sends each write as one entry. Its socket is not connected, so that it survives journald's restart.
type journal struct {
	conn *net.UnixConn
	to   *net.UnixAddr
}

func openJournal(path string) (*journal, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("open a socket to the journal: %w", err)
	}
	return &journal{conn, &net.UnixAddr{Name: path, Net: "unixgram"}}, nil
}

// Write implements io.Writer.
func (j *journal) Write(entry []byte) (int, error) {
	_, err := j.conn.WriteToUnix(entry, j.to)
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
		first, _, _ := bytes.Cut(entry, []byte("\n"+journalPrefix)) // the message and what it is, without the rest
		_, err = j.conn.WriteToUnix(append(first, '\n'), j.to)
	}
	return len(entry), err
}

// journalHandler makes journal entries of records. Every attribute is a field BATON_NAME; the elements of a
// list are one field each.
type journalHandler struct {
	out   *logWriter
	level slog.Leveler
	attrs []byte // fields of With
	group string
}

// Enabled implements slog.Handler.
func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// Handle implements slog.Handler.
func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	b := journalField(nil, "MESSAGE", r.Message)
	b = journalField(b, "PRIORITY", priority(r.Level))
	b = journalField(b, "SYSLOG_IDENTIFIER", "baton")
	b = append(b, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		b = h.attr(b, h.group, a)
		return true
	})
	_, err := h.out.Write(b)
	return err
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = bytes.Clone(h.attrs)
	for _, a := range attrs {
		c.attrs = h.attr(c.attrs, h.group, a)
	}
	return &c
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.group = h.group + name + "_"
	return &c
}

func (h *journalHandler) attr(b []byte, group string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		for _, x := range v.Group() {
			b = h.attr(b, group+a.Key+"_", x)
		}
		return b
	}
	name := journalName(group + a.Key)
	if list := reflect.ValueOf(v.Any()); v.Kind() == slog.KindAny && list.IsValid() && list.Kind() == reflect.Slice {
		for i := range list.Len() {
			b = journalField(b, name, fmt.Sprint(list.Index(i)))
		}
		return b
	}
	return journalField(b, name, v.String())
}

// journalName makes a field's name: capital letters, digits and _, at most 64.
func journalName(key string) string {
	name := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			return c
		}
		return '_'
	}, key)
	return journalPrefix + name[:min(len(name), 64-len(journalPrefix))]
}

// journalField adds one field: NAME=VALUE, or with its length where the value has more than one line.
func journalField(b []byte, name, value string) []byte {
	if len(value) > journalValue {
		value = strings.ToValidUTF8(value[:journalValue], "") + "…"
	}
	b = append(b, name...)
	if !strings.Contains(value, "\n") {
		return append(append(append(b, '='), value...), '\n')
	}
	b = append(b, '\n')
	b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	return append(append(b, value...), '\n')
}

// priority is a level as syslog(3) counts.
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "3"
	case l >= slog.LevelWarn:
		return "4"
	case l >= slog.LevelInfo:
		return "6"
	}
	return "7"
}
