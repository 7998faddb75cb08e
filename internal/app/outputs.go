package app

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/io/api"
	"baton/internal/io/bounded"
	"baton/internal/io/resource"
)

// outputRate bounds how many lines of a resource's output go to the agent's log in a second; all of them are
// in its file.
const outputRate = 20

// outputLog puts output into the agent's log, where there is no journal. One goroutine calls it.
type outputLog struct {
	a       *agent
	second  int64
	told    map[string]int // lines in this second, by resource
	skipped map[string]int
}

func (o *outputLog) line(g cluster.GroupID, r cluster.ResourceID, text string) {
	key := string(g) + "/" + string(r)
	if now := time.Now().Unix(); now != o.second {
		o.second = now
		clear(o.told)
	}
	if o.told[key]++; o.told[key] > outputRate {
		o.skipped[key]++
		return
	}
	log := o.a.log.With("group", g, "resource", r)
	if n := o.skipped[key]; n > 0 {
		delete(o.skipped, key)
		log.Info(fmt.Sprintf("%d more lines are in its output file", n), "event", "output")
	}
	log.Info(text, "event", "output")
}

// openOutputs begins to follow what resources print into files.
func (a *agent) openOutputs() (err error) {
	a.openOutputRoom()
	o := &outputLog{a: a, told: make(map[string]int), skipped: make(map[string]int)}
	a.outputs, err = resource.NewOutputs(o.line)
	return err
}

// follow begins to follow what a resource prints.
func (a *agent) follow(env resource.Env) {
	if err := a.outputs.Watch(env); err != nil {
		a.log.Error("the output of a program can't be followed: it is in its file alone", "group", env.Group, "resource", env.Spec.ID, "cause", err)
	}
}

// Output implements api.Observed.
func (b *backend) Output(ctx context.Context, q api.OutputQuery, send func([]api.OutputLine) error) error {
	var files, journals []cluster.ResourceID
	for _, r := range q.Resources {
		if b.a.outputs.Has(q.Group, r) || !resource.HasJournal() {
			files = append(files, r)
		} else {
			journals = append(journals, r)
		}
	}
	if len(journals) == 0 {
		return b.outputOfFiles(ctx, q, files, send)
	}
	if len(files) == 0 {
		return outputOfJournal(ctx, q, journals, send)
	}
	// Both, which is so only where journald came or went meanwhile.
	var mu sync.Mutex
	both := func(lines []api.OutputLine) error {
		mu.Lock()
		defer mu.Unlock()
		return send(lines)
	}
	errs := make(chan error, 1)
	go func() { errs <- outputOfJournal(ctx, q, journals, both) }()
	return errors.Join(b.outputOfFiles(ctx, q, files, both), <-errs)
}

// outputOfFiles sends what is kept of files, and follows them.
func (b *backend) outputOfFiles(ctx context.Context, q api.OutputQuery, resources []cluster.ResourceID, send func([]api.OutputLine) error) error {
	next := make(map[cluster.ResourceID]uint64)
	for begun := false; ; begun = true {
		changed := b.a.outputs.Changed()
		var lines []api.OutputLine
		for _, r := range resources {
			kept, end := b.a.outputs.Next(q.Group, r, next[r])
			next[r] = end
			for _, l := range kept {
				if q.Since.IsZero() || !l.Time.Before(q.Since) {
					lines = append(lines, api.OutputLine{Resource: r, Time: l.Time, Text: l.Text})
				}
			}
		}
		slices.SortStableFunc(lines, func(a, b api.OutputLine) int { return a.Time.Compare(b.Time) })
		if !begun && q.Lines >= 0 {
			lines = lines[max(0, len(lines)-q.Lines):]
		}
		if len(lines) > 0 {
			if err := send(lines); err != nil {
				return err
			}
		}
		if !q.Follow {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// journalBatch bounds how many lines of journalctl are sent at a time.
const journalBatch = 100

// outputOfJournal has journalctl read what resources have printed.
func outputOfJournal(ctx context.Context, q api.OutputQuery, resources []cluster.ResourceID, send func([]api.OutputLine) error) error {
	names := make(map[string]cluster.ResourceID)
	args := []string{"--output=json", "--no-pager", "--quiet"}
	for _, r := range resources {
		id := resource.Identifier(q.Group, r)
		names[id] = r
		args = append(args, "--identifier="+id)
	}
	if q.Lines >= 0 {
		args = append(args, fmt.Sprintf("--lines=%d", q.Lines))
	} else {
		args = append(args, "--lines=all")
	}
	if !q.Since.IsZero() {
		args = append(args, fmt.Sprintf("--since=@%d", q.Since.Unix()))
	}
	if q.Follow {
		args = append(args, "--follow")
	}
	c := exec.CommandContext(ctx, "journalctl", args...)
	c.WaitDelay = time.Second
	complaints := &bounded.Tail{Limit: bounded.Small}
	c.Stderr = complaints
	pipe, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return fmt.Errorf("ask journalctl: %w", err)
	}
	err = journalLines(pipe, names, send)
	if err != nil {
		_ = c.Process.Kill() // it may have ended
	}
	if ended := c.Wait(); err == nil && ctx.Err() == nil && ended != nil {
		err = fmt.Errorf("journalctl: %w: %s", ended, bytes.TrimSpace(complaints.Bytes()))
	}
	return err
}

// journalLines sends on what journalctl writes.
func journalLines(from io.Reader, names map[string]cluster.ResourceID, send func([]api.OutputLine) error) error {
	r := bufio.NewReaderSize(from, 64<<10)
	var lines []api.OutputLine
	for {
		text, err := bounded.ReadLine(r, bounded.Line)
		if errors.Is(err, bounded.ErrLong) {
			continue
		}
		if err == io.EOF {
			if len(lines) > 0 {
				return send(lines)
			}
			return nil
		}
		if err != nil {
			return nil // the process was ended
		}
		if l, ok := journalLine(text, names); ok {
			lines = append(lines, l)
		}
		if len(lines) > 0 && (r.Buffered() == 0 || len(lines) >= journalBatch) {
			if err := send(lines); err != nil {
				return err
			}
			lines = nil
		}
	}
}

// journalLine reads one entry of journalctl's JSON: a message that is no text is a list of bytes.
func journalLine(text []byte, names map[string]cluster.ResourceID) (l api.OutputLine, ok bool) {
	var e struct {
		Message    any    `json:"MESSAGE"`
		Identifier string `json:"SYSLOG_IDENTIFIER"`
		Realtime   string `json:"__REALTIME_TIMESTAMP"` // microseconds
	}
	if json.Unmarshal(text, &e) != nil {
		return l, false
	}
	switch m := e.Message.(type) {
	case string:
		l.Text = m
	case []any:
		var b []byte
		for _, x := range m {
			if f, ok := x.(float64); ok {
				b = append(b, byte(f))
			}
		}
		l.Text = strings.ToValidUTF8(string(b), "\uFFFD")
	}
	if us, err := strconv.ParseInt(e.Realtime, 10, 64); err == nil {
		l.Time = time.UnixMicro(us)
	}
	l.Resource = cmp.Or(names[e.Identifier], cluster.ResourceID(e.Identifier))
	return l, true
}

// Peer implements api.Observed.
func (b *backend) Peer(_ context.Context, node cluster.NodeID) (*api.Client, error) {
	return b.a.access.peers.client(node), nil
}
