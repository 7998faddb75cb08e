package sim

import (
	"fmt"
	"io"
	"strings"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/core/wire"
)

// trace writes what happens for people to read: true time, node, event.
type trace struct {
	to      io.Writer
	packets bool
}

// note writes one line; m is nil where it concerns no single node.
func (w *world) note(m *machine, format string, args ...any) {
	if w.trace == nil {
		return
	}
	name := "*      "
	if m != nil {
		name = m.String()
	}
	fmt.Fprintf(w.trace.to, "%11.6f %s %s\n", float64(w.now)/1e9, name, fmt.Sprintf(format, args...))
}

func (w *world) traceStep(m *machine, in node.Input, out *node.Output) {
	switch in := in.(type) {
	case *node.Done:
		w.note(m, "resource %s/%s is %v %s", in.Group, in.Resource, in.Status, in.Reason)
	case *node.Command:
		w.note(m, "command %d: op %d %s to %q", in.ID, in.Op, in.Group, in.To)
	case *node.Observed:
		if in.SyncNanos == 0 {
			w.note(m, "observes cut %v, links down %v", in.Cut, in.LinkDown)
		}
	}
	for i := range out.Applied {
		e := &out.Applied[i]
		w.note(m, "apply %d (term %d) %s", e.Index, e.Term, describe(e))
	}
	for i := range out.Decided {
		d := &out.Decided[i]
		w.note(m, "decide %s %s %s%s: %s %v", d.Rule, d.Verdict, d.Group, d.Node, d.Why, d.Evidence)
	}
	for i := range out.Events {
		w.note(m, "event %s %s%s %s", out.Events[i].Code, out.Events[i].Group, out.Events[i].Node, out.Events[i].Text)
	}
	for i := range out.Wants {
		v := &out.Wants[i]
		w.note(m, "wants %s/%s %v (epoch %d)", v.Group, v.Resource, v.Target, v.Epoch)
	}
	for i := range out.Replies {
		w.note(m, "reply to %d: done %v, %s", out.Replies[i].ID, out.Replies[i].Done, out.Replies[i].Text)
	}
	if r := out.Record; r != nil {
		w.note(m, "record %d: number %d, %v", r.N, r.Number, r.Groups)
	}
	if !w.trace.packets {
		return
	}
	for i := range out.Persists {
		p := &out.Persists[i]
		w.note(m, "persist %d: hard %v, %d entries, sync %v", p.N, p.Hard, len(p.Entries), p.Sync)
	}
	for i := range out.Gates {
		g := &out.Gates[i]
		w.note(m, "gate %d: %s epoch %d for %v", g.N, g.Group, g.Epoch, g.End.Sub(m.clock.read(w.now)))
	}
	for i := range out.Sends {
		w.note(m, "  to %s: %s", out.Sends[i].To, brief(out.Sends[i].Msg))
	}
}

// tracePacket notes an arrival, before the step that it causes.
func (w *world) tracePacket(m *machine, p *packet) {
	if w.trace.packets {
		over := "tcp"
		if p.link != wire.LinkTCP {
			over = w.spec.Links[p.link].Name
		}
		w.note(m, "  from %s over %s: %s", w.machines[p.from].id, over, brief(p.msg))
	}
}

// describe says what a log entry does.
func describe(e *cluster.LogEntry) string {
	if len(e.Data) == 0 {
		return "nothing"
	}
	d, err := cluster.DecodeEntry(e.Data)
	if err != nil || len(d.Parts) == 0 {
		return fmt.Sprintf("%d bytes", len(e.Data))
	}
	var parts []string
	for _, p := range d.Parts {
		parts = append(parts, p.String())
	}
	rule := ""
	if d.Rule != "" {
		rule = " (rule " + d.Rule + ")"
	}
	return strings.Join(parts, " + ") + rule
}

// brief says what a message holds, on one line.
func brief(msg message) string {
	switch v := msg.(type) {
	case *wire.Heartbeat:
		s := fmt.Sprintf("heartbeat %d number %d", v.Seq, v.Number)
		if v.Lead > 0 {
			s += fmt.Sprintf(" leads %d", v.Lead)
		}
		if !v.LeaseRuns {
			s += " no lease"
		}
		if len(v.Said) > 0 {
			s += fmt.Sprintf(" said %v", v.Said)
		}
		if len(v.Released) > 0 {
			s += fmt.Sprintf(" released %v", v.Released)
		}
		return s
	case *wire.Ack:
		return fmt.Sprintf("ack %d number %d", v.Seq, v.Number)
	case *wire.Raft:
		return fmt.Sprintf("raft %v", v.Msg)
	}
	return fmt.Sprintf("%T", msg)
}

// messageDigest folds the parts of a message that tell two runs apart.
func messageDigest(msg message) uint64 {
	switch v := msg.(type) {
	case *wire.Heartbeat:
		return uint64(v.Seq)<<20 ^ uint64(v.Number)<<8 ^ v.Lead<<40 ^ v.Applied ^ uint64(len(v.Said))<<50 ^ uint64(len(v.Released))<<54
	case *wire.Ack:
		return 1<<63 ^ v.Seq<<16 ^ uint64(v.Number)
	case *wire.Raft:
		return 1<<62 ^ v.Msg.GetTerm()<<32 ^ uint64(v.Msg.GetType())<<24 ^ v.Msg.GetIndex()<<8 ^ v.Msg.GetCommit() ^ uint64(len(v.Msg.GetEntries()))<<56
	case *wire.Founding:
		return bytesDigest(v.Record)
	}
	return 1
}
