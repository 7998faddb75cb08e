package sim

import (
	"fmt"
	"io"
	"maps"
	"slices"
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
	fmt.Fprintf(w.trace.to, "%11.6f %s %s\n", float64(w.now)/1e9, name, strings.TrimRight(fmt.Sprintf(format, args...), " :"))
}

func (w *world) traceStep(m *machine, in node.Input, out *node.Output) {
	switch in := in.(type) {
	case *node.Done:
		w.note(m, "resource %s/%s is %v%s", in.Group, in.Resource, in.Status, because(in.Reason))
	case *node.Command:
		w.note(m, "command %d: %s", in.ID, commandText(in))
	case *node.Observed:
		if in.SyncNanos == 0 {
			w.note(m, "observes: %s", w.observed(in))
		}
	}
	for i := range out.Applied {
		e := &out.Applied[i]
		w.note(m, "apply %d (term %d) %s", e.Index, e.Term, describe(e))
	}
	for i := range out.Decided {
		d := &out.Decided[i]
		w.note(m, "decide %s: %s%s", together(d.Rule, string(d.Verdict), about(d.Group, d.Node)), d.Why, because(strings.Join(d.Evidence, "; ")))
	}
	for i := range out.Events {
		w.note(m, "event %s: %s", out.Events[i].Code, out.Events[i].Text)
	}
	for i := range out.Wants {
		v := &out.Wants[i]
		w.note(m, "wants %s/%s %v (epoch %d)", v.Group, v.Resource, v.Target, v.Epoch)
	}
	for i := range out.Replies {
		verdict := "refused"
		if out.Replies[i].Done {
			verdict = "done"
		}
		w.note(m, "reply to command %d: %s%s", out.Replies[i].ID, verdict, because(out.Replies[i].Text))
	}
	if r := out.Record; r != nil {
		w.note(m, "run record %d: lease number %d%s", r.N, r.Number, groupRecords(r.Groups))
	}
	if !w.trace.packets {
		return
	}
	for i := range out.Persists {
		p := &out.Persists[i]
		w.note(m, "persist %d: %s", p.N, persistText(p))
	}
	for i := range out.Gates {
		g := &out.Gates[i]
		w.note(m, "gate %d: %s epoch %d for %v", g.N, g.Group, g.Epoch, g.End.Sub(m.clock.read(w.now)))
	}
	for i := range out.Sends {
		w.note(m, "  to %s: %s", out.Sends[i].To, w.brief(out.Sends[i].Msg))
	}
}

// tracePacket notes an arrival, before the step that it causes.
func (w *world) tracePacket(m *machine, p *packet) {
	if w.trace.packets {
		w.note(m, "  from %s over %s: %s", w.machines[p.from].id, w.spec.Links[p.link].Name, w.brief(p.msg))
	}
}

// together puts a space between what is not empty.
func together(words ...string) string {
	return strings.Join(slices.DeleteFunc(words, func(s string) bool { return s == "" }), " ")
}

// about names the group and the node that something is about.
func about(g cluster.GroupID, n cluster.NodeID) string {
	if g == "" || n == "" {
		return string(g) + string(n)
	}
	return string(g) + " on " + string(n)
}

// because puts what there may be to say beside a line in brackets.
func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

// commandText says what somebody asks for.
func commandText(c *node.Command) string {
	to := ""
	if c.To != "" {
		to = "to " + string(c.To)
	}
	switch c.Op {
	case node.OpSwitch:
		return together("switch", string(c.Group), to)
	case node.OpFailback:
		return together("failback", string(c.Group))
	case node.OpPropose:
		return c.Part.String()
	case node.OpForm:
		s := "form without"
		for _, n := range c.Without {
			s += " " + string(n)
		}
		return s
	}
	return fmt.Sprintf("op %d", c.Op)
}

// observed says what an agent sees of its interfaces.
func (w *world) observed(o *node.Observed) string {
	var bad []string
	for l, down := range o.LinkDown {
		if down {
			bad = append(bad, linkName(l)+" is down")
		}
	}
	for _, g := range o.Cut {
		bad = append(bad, "the address of "+string(g)+" has no carrier")
	}
	if len(bad) == 0 {
		return "all interfaces are up"
	}
	return strings.Join(bad, ", ")
}

// groupRecords says what a run record holds on groups, in the order of their names.
func groupRecords(all map[cluster.GroupID]cluster.GroupRecord) string {
	s := ""
	for _, g := range slices.Sorted(maps.Keys(all)) {
		r := all[g]
		s += fmt.Sprintf("; %s: epoch %d activated", g, r.Activated)
		for i, e := range r.Released {
			if s += ", "; i == 0 {
				s += "released "
			}
			s += fmt.Sprint(e)
		}
		if r.Instructed > 0 {
			s += fmt.Sprintf(", instructed by entry %d", r.Instructed)
		}
	}
	return s
}

// persistText says what a write to the disk holds.
func persistText(p *cluster.Persist) string {
	parts := []string{fmt.Sprintf("%d entries", len(p.Entries))}
	if h := p.Hard; h != nil {
		parts = append(parts, fmt.Sprintf("term %d, vote %x, commit %d", h.Term, h.Vote, h.Commit))
	}
	if p.Snapshot != nil {
		parts = append(parts, fmt.Sprintf("a snapshot up to %d", p.Snapshot.Index))
	}
	if p.Founding != nil {
		parts = append(parts, "the founding record")
	}
	if p.Notes != nil {
		parts = append(parts, "notes")
	}
	if p.Sync {
		parts = append(parts, "synced")
	}
	return strings.Join(parts, ", ")
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
func (w *world) brief(msg message) string {
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
			s += ", nothing left of"
			for _, l := range v.Said {
				s += fmt.Sprintf(" %s#%d", l.Node, l.Number)
			}
		}
		if len(v.Released) > 0 {
			s += ", released"
			for _, t := range v.Released {
				s += fmt.Sprintf(" %s/%d", w.groupOf[t.Group], t.Epoch)
			}
		}
		return s
	case *wire.Ack:
		return fmt.Sprintf("ack %d number %d", v.Seq, v.Number)
	case *wire.Raft:
		return fmt.Sprintf("raft %v", v.Msg)
	case *wire.Piece:
		return fmt.Sprintf("piece of set %d, %d bytes from %d of %d", v.Set, len(v.Data), v.At, v.Size)
	case *wire.Got:
		return fmt.Sprintf("got %d pieces of set %d, and %x", v.Upto, v.Set, v.More)
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
	case *wire.Piece:
		return 1<<61 ^ v.Set<<40 ^ v.At ^ bytesDigest(v.Data)
	case *wire.Got:
		return 1<<60 ^ v.Set<<40 ^ v.Upto<<20 ^ v.More
	}
	return 1
}
