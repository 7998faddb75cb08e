package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

// TestSoak runs random sequences of voter and configuration changes under load, with power losses in between:
// never do two nodes serve at once, what was acknowledged stays, and once the faults are over nothing is stuck.
// SOAK=1..100 chooses the seeds (make soak).
func TestSoak(t *testing.T) {
	first, last, steps := uint64(1), uint64(2), 6
	if seeds := os.Getenv("SOAK"); seeds != "" {
		var err error
		if first, last, err = seedRange(seeds); err != nil {
			t.Fatalf("SOAK=%s: %v", seeds, err)
		}
		steps = 14
	}
	for seed := first; seed <= last; seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { soakOnce(t, seed, steps) })
	}
}

// soak is one sequence under way.
type soak struct {
	*incident
	r     *rand.Rand
	steps int
	lost  string   // whose disk was lost and who may not vote again yet
	acked []string // comments of changes that were said to count
	count soakCount
}

type soakCount struct{ changes, refused, unknown, joins, leaves, power, disks, kills, cuts int }

const (
	soakLimit = 30 * time.Second // for all to be well again once the faults are over
	askLimit  = 8 * time.Second  // for a command; what it began may go on
)

func soakOnce(t *testing.T, seed uint64, steps int) {
	takeovers := []string{"250ms", "500ms", "1s"}
	r := rand.New(rand.NewPCG(seed, 10))
	began := time.Now()
	s := &soak{incident: start(t, Options{Spares: 2, Takeover: takeovers[r.IntN(3)]}), r: r, steps: steps}
	defer func() {
		verdict := "ok"
		if t.Failed() {
			verdict = "FAILED"
		}
		c, record := &s.count, s.probe.Record()
		fmt.Printf("seed %d: %d steps: %d changes counted, %d refused, %d unanswered; %d joins, %d leaves; %d power losses, %d disks lost, %d agents killed, %d cuts; "+
			"%d tenures, longest outage %v, overlap %v: %s (%v)\n", seed, steps, c.changes, c.refused, c.unknown, c.joins, c.leaves, c.power, c.disks, c.kills, c.cuts,
			len(record.Tenures()), record.Outage().Length().Round(time.Millisecond), record.Overlap(), verdict, time.Since(began).Round(time.Second))
	}()
	for k := range steps {
		s.step(k)
		if t.Failed() {
			return
		}
	}
	s.recover()
}

// hosts are all that may be nodes.
func (s *soak) hosts() []string { return slices.Concat(Nodes, Spares) }

func (s *soak) any(names []string) string { return names[s.r.IntN(len(names))] }

// step asks for one change, with a fault beside it, and then brings hosts into line with what the file says.
func (s *soak) step(k int) {
	what, args, node := s.draw(k)
	if s.t.Failed() {
		return
	}
	s.t.Logf("step %d: %s, asked on %s", k, what, node)
	said := ""
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(s.t.Context(), askLimit)
		defer cancel()
		out, err := s.Run(ctx, node, args...)
		said = out
		done <- err
	}()
	heal := func() {}
	if s.r.IntN(3) > 0 {
		time.Sleep(time.Duration(s.r.IntN(150)) * time.Millisecond)
		heal = s.fault()
		time.Sleep(time.Duration(s.r.IntN(800)) * time.Millisecond)
	}
	if s.r.IntN(2) == 0 {
		heal()
		heal = func() {}
	}
	err := <-done
	heal()
	var exit *exec.ExitError
	switch {
	case err == nil && strings.Contains(said, " counts\n"):
		s.acked = append(s.acked, comment(k))
		s.count.changes++
	case err == nil:
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		s.count.refused++
		s.t.Logf("refused: %v", err)
	default:
		s.count.unknown++
		s.t.Logf("no answer: %v", err)
	}
	s.reconcile()
}

func comment(k int) string { return fmt.Sprintf("step-%d", k) }

// draw chooses the next change: the command for it, and where it is said.
func (s *soak) draw(k int) (what string, args []string, node string) {
	node, text, names := s.look()
	var absent []string
	for _, h := range s.hosts() {
		if !slices.Contains(names, h) {
			absent = append(absent, h)
		}
	}
	apply := func(what, text string) (string, []string, string) {
		s.must(os.WriteFile(filepath.Join(s.Host(node).Disk("/etc/baton"), "soak.yaml"), []byte(text), 0o644))
		return what, []string{"apply", "/etc/baton/soak.yaml", "--yes", "--unchecked", "-m", comment(k)}, node
	}
	for {
		switch s.r.IntN(9) {
		case 0, 1:
			if len(absent) == 0 {
				continue
			}
			name := s.any(absent)
			s.count.joins++
			return apply("add "+name, strings.Replace(text, "nodes:\n", "nodes:\n"+s.line(name), 1))
		case 2, 3:
			if len(names) <= 3 {
				continue
			}
			name := s.any(names)
			s.count.leaves++
			return "leave " + name, []string{"leave", name, "--yes", "--unchecked", "-m", comment(k)}, node
		case 4:
			return apply("takeover", takeoverLine.ReplaceAllString(text, "takeover: "+s.any([]string{"250ms", "500ms", "1s", "3s"})))
		case 5, 6:
			may := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == Gamma })
			s.r.Shuffle(len(may), func(i, j int) { may[i], may[j] = may[j], may[i] })
			may = may[:min(len(may), 2+s.r.IntN(2))]
			return apply("web on "+strings.Join(may, ", "), webNodes.ReplaceAllString(text, "${1}nodes: ["+strings.Join(may, ", ")+"]"))
		case 7:
			if before, _, there := strings.Cut(text, "  nightly:\n"); there {
				return apply("remove nightly", before)
			}
			may := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == Gamma })
			return apply("add nightly", text+strings.Replace(nightly, "[beta, alpha]", "["+strings.Join(may, ", ")+"]", 1))
		case 8:
			return "switch web", []string{"switch", Group}, node
		}
	}
}

var (
	takeoverLine = regexp.MustCompile(`(?m)^takeover: .*$`)
	webNodes     = regexp.MustCompile(`(?m)^(  web:\n    )nodes: .*$`)
	nodeLine     = regexp.MustCompile(`(?m)^  ([a-z]+): +\{ address: `)
)

// line is a host's line in the cluster file.
func (s *soak) line(name string) string {
	i := slices.Index(Nodes, name)
	switch {
	case i < 0:
		return spareLine(name)
	case name == Gamma:
		return fmt.Sprintf("  %s: { address: 10.77.0.%d, role: witness }\n", name, 11+i)
	}
	return fmt.Sprintf("  %s: { address: 10.77.0.%d }\n", name, 11+i)
}

// look returns a node with a majority that is as far as any, the text that counts there, and the nodes in it.
func (s *soak) look() (node, text string, names []string) {
	s.t.Helper()
	for deadline := time.Now().Add(soakLimit); ; time.Sleep(pollEvery) {
		var newest uint64
		settled := true
		for _, h := range s.hosts() {
			if !s.Host(h).On() || s.agents[h] == nil {
				continue
			}
			st, err := s.Status(h)
			if err != nil || !st.Quorum || st.Coordinator == "" {
				continue
			}
			settled = settled && st.Draft == nil
			if n, _ := strconv.ParseUint(st.Revision, 10, 64); n > newest {
				newest, node = n, h
			}
		}
		if node != "" && settled {
			var err error
			if text, err = s.command(node, "config", "show"); err == nil {
				for _, m := range nodeLine.FindAllStringSubmatch(text, -1) {
					names = append(names, m[1])
				}
				return node, text, names
			}
		}
		if time.Now().After(deadline) {
			s.stuck("no node has a majority and no change under way")
		}
		node = ""
	}
}

// fault breaks something for a while, and returns what ends it.
func (s *soak) fault() (heal func()) {
	var on []string
	for _, h := range s.hosts() {
		if s.Host(h).On() && s.agents[h] != nil {
			on = append(on, h)
		}
	}
	off := func(names ...string) func() {
		for _, n := range names {
			s.count.power++
			s.must(s.Host(n).PowerOff())
		}
		s.t.Logf("no power: %s", strings.Join(names, ", "))
		return func() {
			for _, n := range names {
				s.must(s.Host(n).Boot())
			}
		}
	}
	switch s.r.IntN(10) {
	case 0:
		return off(on...)
	case 1:
		s.r.Shuffle(len(on), func(i, j int) { on[i], on[j] = on[j], on[i] })
		return off(on[:2]...)
	case 2:
		if s.lost == "" && s.whole() {
			s.lost = s.any(on)
			s.count.disks++
			heal := off(s.lost)
			s.t.Logf("disk lost: %s", s.lost)
			s.must(s.LoseDisk(s.lost))
			return heal
		}
	case 3, 4:
		name := s.any(on)
		s.count.kills++
		_ = s.Agent(name).Process().Kill() // it may have ended by itself
		s.t.Logf("agent killed: %s", name)
		return func() {}
	case 5:
		name := s.any(on)
		s.count.cuts++
		s.must(s.Lab.CutSilent(name, LAN))
		s.must(s.Lab.CutSilent(name, Cross))
		s.t.Logf("cut off: %s", name)
		return func() { s.must(s.Lab.HealAll()) }
	}
	return off(s.any(on))
}

// whole tells whether every node of the file votes and is heard.
func (s *soak) whole() bool {
	_, _, names := s.look()
	for _, n := range names {
		if st, err := s.Status(n); err != nil || !st.settled(names) {
			return false
		}
	}
	return true
}

// reconcile does what an operator does after a change: who is new in the file is brought in, who is not in it
// any more is sent home.
func (s *soak) reconcile() {
	node, _, names := s.look()
	if s.lost != "" && s.whole() {
		s.lost = ""
	}
	for _, h := range s.hosts() {
		_, err := os.Stat(filepath.Join(s.Host(h).Disk("/etc/baton"), "cluster.yaml"))
		has, named := err == nil, slices.Contains(names, h)
		switch {
		case named && !has:
			s.must(s.BringIn(s.t.Context(), h, node))
		case has && !named:
			s.must(s.SendHome(s.t.Context(), h))
			if s.lost == h {
				s.lost = ""
			}
		}
	}
}

// recover ends all faults and waits until all is well; then it judges.
func (s *soak) recover() {
	s.t.Helper()
	s.reconcile()
	node, _, names := s.look()
	for _, n := range names {
		if err := s.Await(n, soakLimit, "all vote", func(st *Status) bool { return st.settled(names) }); err != nil {
			s.stuck(err.Error())
		}
	}
	now := lab.Now()
	if err := s.probe.Await(soakLimit, func(r lab.Record) bool { return r.AnsweredSince(now, "") }); err != nil {
		s.stuck("web is not served: " + err.Error())
	}
	var history struct {
		Revisions []struct{ Comment string }
	}
	s.must(json.Unmarshal([]byte(s.run(node, "config", "history", "--json")), &history))
	for _, c := range s.acked {
		if !slices.ContainsFunc(history.Revisions, func(r struct{ Comment string }) bool { return r.Comment == c }) {
			s.t.Errorf("the change %q was said to count, and is not in the history: %v", c, history.Revisions)
		}
	}
}

// stuck ends the test with how everything is.
func (s *soak) stuck(what string) {
	s.t.Helper()
	for _, h := range s.hosts() {
		if s.Host(h).On() {
			out, err := s.command(h, "status")
			s.t.Logf("%s: %v\n%s", h, err, out)
		}
		if b, err := os.ReadFile(s.Host(h).LogPath("agent")); err == nil && !slices.Contains(Nodes, h) {
			s.t.Logf("%s's log:\n%s", h, b)
		}
	}
	s.t.Fatalf("stuck: %s", what)
}
