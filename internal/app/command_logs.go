package app

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	batonv1 "baton/api/v1"
)

// logsCmd is `baton logs`.
type logsCmd struct {
	Subject string `arg:"" name:"group[/resource]" help:"A group, or one resource of it."`
	Follow  bool   `short:"f" help:"Go on printing what comes, also when the group moves, until Ctrl-C."`
	Lines   uint32 `short:"n" default:"50" help:"How many of the newest to begin with (0: with -f none, else all that are kept)." placeholder:"50"`
	Since   string `help:"Only what was printed since: 10m, or 2026-03-01 06:10:43, or 06:10:43 of today." placeholder:"TIME"`
	Node    string `help:"The output on this node (default: where the group is)." placeholder:"NODE"`
}

// Run prints the output.
func (c *logsCmd) Run(k *console) error {
	group, resource, _ := strings.Cut(c.Subject, "/")
	r := &batonv1.LogsRequest{Group: group, Resource: resource, Node: c.Node, Follow: c.Follow, Lines: c.Lines}
	if c.Since != "" {
		at, err := parseSince(c.Since, time.Now())
		if err != nil {
			return fail(exitUsage, "write 10m, 2026-03-01 06:10:43 or 06:10:43", "--since: %v", err)
		}
		r.Since = timestamppb.New(at)
	}
	agent := k.agent()
	defer agent.Close()
	stream, err := agent.Observe.Logs(k.ctx, r)
	if err != nil {
		return k.trouble(err)
	}
	defer stream.Close()
	for stream.Receive() {
		for _, l := range stream.Msg().Lines {
			if err := k.printLogLine(l); err != nil {
				return err
			}
		}
	}
	switch {
	case k.ctx.Err() != nil && c.Follow:
		return nil // that is how it ends
	case stream.Err() != nil:
		return k.trouble(stream.Err())
	}
	return nil
}

// escapes are what a program may print to steer a terminal.
var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")

func (k *console) printLogLine(l *batonv1.LogLine) error {
	if k.json {
		text, err := jsonOf(l)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(k.out, "%s\n", text)
		return err
	}
	at := strings.Repeat("-", len(timeFormat))
	if l.Time.IsValid() {
		at = l.Time.AsTime().Local().Format(timeFormat)
	}
	text := l.Text
	if isTerminal(k.out) {
		text = escapes.ReplaceAllString(text, "")
	}
	_, err := fmt.Fprintf(k.out, "%s  %s %s\n", k.paint.text(dim, at), k.paint.text(bold, l.Node+"/"+l.Resource), text)
	return err
}

// parseSince reads a length of time before now, or a local time.
func parseSince(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		if d < 0 {
			return time.Time{}, fmt.Errorf("%q lies in the future", text)
		}
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time", text)
}
