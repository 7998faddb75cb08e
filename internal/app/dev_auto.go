package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"baton/internal/lab"
)

// trick is one fault, or one planned move, that `baton dev --auto` plays.
type trick struct {
	name  string
	moves bool // the group must move
	quiet bool // no client may notice: it stays, and answers on
	do    func(s *session, ctx context.Context, owner string) error
}

// tricks in an order in which each begins where the last one left the group.
func tricks() []trick {
	return []trick{
		{name: "power", moves: true, do: func(s *session, _ context.Context, o string) error { return s.ground.powerOff(o) }},
		{name: "cable", moves: true, do: func(s *session, _ context.Context, o string) error { return s.ground.cutCable(o) }},
		{name: "silent", moves: true, do: func(s *session, _ context.Context, o string) error { return s.ground.cutSilently(o) }},
		{name: "freeze", moves: true, do: func(s *session, _ context.Context, o string) error { return s.ground.freeze(o) }},
		{name: "agent", quiet: true, do: func(s *session, _ context.Context, o string) error { return s.ground.killAgent(o) }},
		{name: "switch", moves: true, do: func(s *session, ctx context.Context, _ string) error {
			_, err := s.askOf(ctx, s.status, false)
			return err
		}},
		{name: "failback", do: func(s *session, ctx context.Context, _ string) error {
			_, err := s.askOf(ctx, s.status, true)
			return err
		}},
		{name: "service", moves: true, do: func(s *session, _ context.Context, o string) error { return s.ground.killService(o, s.plan.group) }},
	}
}

// words of each trick, for the table and for people.
var trickWords = map[string]string{
	"power": "power cut", "cable": "LAN cable pulled", "silent": "cut off from all, carrier stays", "freeze": "agent frozen (SIGSTOP)",
	"agent": "agent killed (-9)", "switch": "switchover", "failback": "failback", "service": "service crashes (-9)",
}

// played is how one trick went.
type played struct {
	trick
	before, after string
	outage, both  time.Duration
	moves         int
	trouble       string // why it counts as failed
	skipped       string
	stall         time.Duration // the longest of the machine meanwhile
}

// Times of the automatic play.
const (
	steadyLimit  = 15 * time.Second
	recoverLimit = 12 * time.Second
	// linger is how long all must be well, or the client be answered after a move, before it counts.
	linger = 500 * time.Millisecond
	// autoTries is how often a trick is played that goes wrong while the machine stands still.
	autoTries = 3
)

// auto plays the tricks named, all if none is, and prints a table. It fails if one failed.
func (s *session) auto(ctx context.Context, only []string) error {
	sampler, err := lab.SampleStalls()
	if err != nil {
		return err
	}
	defer func() { _ = sampler.Stop() }() // without realtime priority it sees a busy machine, too, which delays the nodes alike
	var results []played
	for _, t := range tricks() {
		if len(only) > 0 && !slices.Contains(only, t.name) {
			continue
		}
		r := s.playJudged(ctx, t, sampler)
		results = append(results, r)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if r.trouble != "" {
			s.screen.say("demo", red, "%s: %s", trickWords[t.name], r.trouble)
		}
	}
	s.screen.due(true)
	s.screen.end()
	return s.results(results)
}

// playJudged plays a trick, and again where the machine stood still while it went wrong: that says nothing.
func (s *session) playJudged(ctx context.Context, t trick, sampler *lab.StallSampler) (r played) {
	for try := 1; ; try++ {
		began := lab.Now()
		r = s.playOne(ctx, t)
		for _, x := range sampler.Stalls(began, lab.Now()) {
			r.stall = max(r.stall, x.To-x.From)
		}
		if r.trouble == "" || r.both > 0 || !s.stalled(r) || try == autoTries || ctx.Err() != nil {
			return r
		}
		s.screen.say("demo", yellow, "%s: %s; but the machine stood still for %s meanwhile: again", trickWords[t.name], r.trouble, short(r.stall))
	}
}

// stalled tells whether the machine stood still for longer than the timing of the file allows for.
func (s *session) stalled(r played) bool { return r.stall > s.plan.spec.Timing.Stall }

// until passes time until the condition holds; false: it did not within the limit.
func (s *session) until(ctx context.Context, limit time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
		s.pass(ctx)
	}
	return true
}

// lasting makes a condition that holds once another has held for a while: one look at a node may be older
// than what another node knows.
func (s *session) lasting(ok func() bool) func() bool {
	var since time.Time
	return func() bool {
		switch {
		case !ok():
			since = time.Time{}
			return false
		case since.IsZero():
			since = time.Now()
		}
		return time.Since(since) >= linger
	}
}

// playOne waits until all is well, plays a trick, waits until the group is served again, and heals.
func (s *session) playOne(ctx context.Context, t trick) (r played) {
	r.trick = t
	if !s.until(ctx, steadyLimit, s.lasting(s.steady)) {
		r.trouble = fmt.Sprintf("not steady before it, after %v: %s", steadyLimit, s.unsteady())
		return r
	}
	r.before = s.group().Owner
	epoch := s.group().Epoch
	s.client.mark()
	s.screen.say("demo", yellow, "%s: %s", r.before, trickWords[t.name])
	begun := time.Now()
	if err := t.do(s, ctx, r.before); err != nil {
		if errors.Is(err, errNotHere) {
			r.skipped = "takes root"
		} else {
			r.trouble = err.Error()
		}
		return r
	}
	takeover := s.status.Timing.GetTakeover().AsDuration()
	well := s.until(ctx, recoverLimit, s.lasting(func() bool {
		v := s.client.view()
		moved := v.node != r.before && v.epoch > epoch && s.group().Epoch > epoch
		return v.silence < servedWithin && (moved || !t.moves) && time.Since(begun) > minimumOf(t, takeover)
	}))
	s.judge(&r, well)
	if upset := s.ground.upset(r.before); upset != "" {
		s.screen.say("demo", plainText, "heal %s (%s)", r.before, upset)
	}
	if err := s.ground.heal(); err != nil && r.trouble == "" {
		r.trouble = "heal: " + err.Error()
	}
	if !s.until(ctx, steadyLimit, s.steady) && r.trouble == "" {
		r.trouble = fmt.Sprintf("not steady again %v after healing: %s", steadyLimit, s.unsteady())
	}
	r.both = max(r.both, s.client.view().both) // a node that comes back must not answer either
	return r
}

// minimumOf is how long a trick is watched at least: one that must stay quiet, as long as a takeover would take.
func minimumOf(t trick, takeover time.Duration) time.Duration {
	if t.quiet {
		return takeover + linger
	}
	return 0
}

func (s *session) judge(r *played, well bool) {
	v := s.client.view()
	r.after, r.outage, r.both, r.moves = v.node, v.longest, v.both, v.changes
	switch {
	case !well && r.moves == 0 && r.trick.moves:
		r.trouble = fmt.Sprintf("nobody else answered within %v", recoverLimit)
	case !well:
		r.trouble = fmt.Sprintf("not served again within %v", recoverLimit)
	case r.quiet && r.moves > 0:
		r.trouble = "the group moved, which it should not have"
	}
}

// unsteady tells what is not as it should be.
func (s *session) unsteady() string {
	if s.status == nil {
		return "no agent answers"
	}
	all := statusView{palette{}, s.status}.unsettled()
	if m := missing(s.status); m != "" {
		all = append(all, m)
	}
	for _, n := range s.status.Nodes {
		if !n.Fresh && n.Name != s.status.Node {
			all = append(all, n.Name+" is not heard")
		}
	}
	if len(all) == 0 {
		return "a standby is not ready, or the client is not answered"
	}
	return strings.Join(all, ", ")
}

// results prints the table, and fails if something did.
func (s *session) results(all []played) error {
	rows := [][]cell{heading("what", "outage ms", "answered", "two at once ms", "moves", "verdict")}
	failed, unjudged := 0, 0
	for _, r := range all {
		if r.skipped != "" {
			rows = append(rows, []cell{{text: trickWords[r.name]}, {text: "-"}, {text: "-"}, {text: "-"}, {text: "-"}, {r.skipped, yellow}})
			continue
		}
		verdict := r.verdict(s.stalled(r), len(s.ground.lacks()) > 0)
		switch {
		case verdict.colour == red:
			failed++
		case r.trouble != "":
			unjudged++
		}
		answered := r.before
		if r.after != r.before {
			answered = r.before + " → " + r.after
		}
		rows = append(rows, []cell{{text: trickWords[r.name]}, {text: millis(r.outage)}, {text: answered}, {text: millis(r.both)}, {text: fmt.Sprint(r.moves)}, verdict})
	}
	var b bytes.Buffer
	b.WriteByte('\n')
	s.screen.table(&b, rows)
	s.screen.write(b.String())
	if unjudged > 0 {
		s.screen.write(fmt.Sprintf("\n%d of %d can't be judged: this machine stood still, or was too busy, for longer than the %v that takeover %v allows for.\n", unjudged, len(all),
			s.plan.spec.Timing.Stall, s.plan.spec.Timing.Takeover))
	}
	if failed > 0 {
		return fail(exitFailed, "", "%d of %d went wrong", failed, len(all))
	}
	return nil
}

// verdict says how a trick went. What goes wrong while the machine stands still is its doing; two nodes that answer at once
// are not.
func (r *played) verdict(stalled, gateless bool) cell {
	still := ""
	if stalled {
		still = "; the machine stood still for " + short(r.stall)
	}
	switch {
	case r.both > 0 && gateless: // a program learns only after the move that it is a standby now
		return cell{"two answered: no gate here", yellow}
	case r.both > 0:
		return cell{"TWO ANSWERED AT ONCE" + still, red}
	case r.trouble != "" && stalled:
		return cell{"not judged: " + r.trouble + still, yellow}
	case r.trouble != "":
		return cell{r.trouble, red}
	case r.quiet && r.outage >= gapShown:
		return cell{"served on" + still, green}
	case r.quiet:
		return cell{"nobody noticed" + still, green}
	}
	return cell{"recovered" + still, green}
}

func millis(d time.Duration) string { return fmt.Sprintf("%.0f", float64(d)/float64(time.Millisecond)) }
