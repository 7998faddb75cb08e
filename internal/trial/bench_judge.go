package trial

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"baton/internal/lab"
)

// gapsFrom is the shortest time without a reply that the logs of a run list.
const gapsFrom = 2 * spacing

// evaluate fills in what the clients saw.
func (b *bench) evaluate(r *run, result *BenchTrial) {
	udp, tcp := r.udp.Stop(), r.tcp.Stop()
	records := []lab.Record{udp}
	if r.local != nil {
		records = append(records, r.local.Stop())
	}
	r.udp, r.tcp, r.local = nil, nil, nil
	gap := outage(udp, r.began, r.measured)
	result.UDP, result.gap, result.gaps = Millis(max(0, gap.Length()-spacing)), gap, udp.Gaps(gapsFrom)
	result.TCP = Millis(max(0, outage(tcp, r.began, r.measured).Length()-spacing))
	result.Later = Millis(max(0, outage(udp, r.measured, udp.Ended).Length()-spacing))
	result.Before = Millis(max(0, outage(udp, 0, r.began).Length()-spacing))
	result.Overlap = Millis(max(overlap(records...), tcp.Overlap()))
	before, _ := strconv.Atoi(r.epoch)
	after, _ := strconv.Atoi(r.after.Epoch)
	result.Moves = after - before
	recovered := gap.To
	if r.fault.stays {
		recovered = r.measured
	}
	result.Stalls = Millis(b.sampler.Sum(r.began, recovered))
	result.StallsInGap = Millis(b.sampler.Sum(gap.From, gap.To))
	for _, name := range Nodes {
		for _, took := range slowSyncs(b.stretch(r, name), r.beganWall, r.beganWall.Add(recovered-r.began)) {
			result.Syncs = append(result.Syncs, Millis(took))
		}
	}
	switch {
	case time.Duration(result.Stalls) > stallsMax:
		result.Marked = fmt.Sprintf("the machine stalled for %s ms", result.Stalls)
	case len(result.Syncs) > 0:
		result.Marked = fmt.Sprintf("a sync took %s ms", slices.Max(result.Syncs))
	}
}

// outage returns the longest gap that ended between two instants.
func outage(r lab.Record, from, to time.Duration) lab.Gap {
	var longest lab.Gap
	for _, g := range r.Gaps(0) {
		if g.To > from && g.To <= to && g.Length() > longest.Length() {
			longest = g
		}
	}
	return longest
}

// overlap returns the longest time in which two nodes both served, as several clients together saw it:
// from the sending of the first request that the newer one answered to the sending of the last that the
// older one answered. Clients of one machine share a clock.
func overlap(records ...lab.Record) time.Duration {
	type tenure struct {
		node        string
		epoch       uint64
		first, last time.Duration // sent
	}
	var tenures []tenure
	for _, r := range records {
		for _, reply := range r.Replies {
			i := slices.IndexFunc(tenures, func(t tenure) bool { return t.node == reply.Node && t.epoch == reply.Epoch })
			if i < 0 {
				i = len(tenures)
				tenures = append(tenures, tenure{reply.Node, reply.Epoch, reply.Sent, reply.Sent})
			}
			tenures[i].first = min(tenures[i].first, reply.Sent)
			tenures[i].last = max(tenures[i].last, reply.Sent)
		}
	}
	slices.SortFunc(tenures, func(a, b tenure) int {
		return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.first, b.first))
	})
	var longest time.Duration
	for i, older := range tenures {
		for _, newer := range tenures[i+1:] {
			if older.node != newer.node {
				longest = max(longest, older.last-newer.first)
			}
		}
	}
	return longest
}

// stretch returns what a node's agent has logged since just before the fault.
func (b *bench) stretch(r *run, node string) []byte {
	log, err := os.ReadFile(b.trial.Host(node).LogPath("agent"))
	if err != nil || int64(len(log)) < r.logs[node] {
		return nil
	}
	return log[r.logs[node]:]
}

// slowSyncs reads from an agent's log how long the syncs took that it complained of, between two instants.
func slowSyncs(log []byte, from, to time.Time) []time.Duration {
	var found []time.Duration
	for line := range bytes.Lines(log) {
		if !bytes.Contains(line, []byte(`msg="a sync was slow"`)) {
			continue
		}
		var at time.Time
		var took time.Duration
		for _, word := range strings.Fields(string(line)) {
			if text, is := strings.CutPrefix(word, "time="); is {
				at, _ = time.Parse(time.RFC3339Nano, text)
			}
			if text, is := strings.CutPrefix(word, "took="); is {
				took, _ = time.ParseDuration(text)
			}
		}
		// The line stands at the sync's end, cut to the millisecond.
		if at.Add(time.Millisecond).After(from) && at.Add(-took).Before(to) {
			found = append(found, took)
		}
	}
	return found
}

// keepLogs writes each agent's stretch of the log, and what the clients saw, where the user asked for it.
func (b *bench) keepLogs(r *run, result *BenchTrial, n int) error {
	if b.opt.Logs == "" {
		return nil
	}
	wall := func(at time.Duration) string {
		return r.beganWall.Add(at - r.began).Format("15:04:05.000000")
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s of %s, takeover %v: %s\n", r.fault.text, r.owner, r.takeover, result)
	fmt.Fprintf(&out, "fault %s; last reply %s, next %s\n", wall(r.began), wall(result.gap.From), wall(result.gap.To))
	for _, g := range result.gaps {
		fmt.Fprintf(&out, "no UDP reply for %s ms from %s, at %+d ms\n", Millis(g.Length()), wall(g.From), (g.From - r.began).Milliseconds())
	}
	for _, s := range b.sampler.Stalls(r.began, lab.Now()) {
		fmt.Fprintf(&out, "core %d stalled for %s ms at %s\n", s.CPU, Millis(s.To-s.From), wall(s.From))
	}
	for _, name := range Nodes {
		fmt.Fprintf(&out, "--- %s\n%s", name, b.stretch(r, name))
	}
	if err := os.MkdirAll(b.opt.Logs, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.opt.Logs, fmt.Sprintf("%v-%s-%02d.log", r.takeover, r.fault.name, n)), out.Bytes(), 0o644)
}
