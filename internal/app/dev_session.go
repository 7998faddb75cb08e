package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/io/api"
)

const (
	lookEvery = 150 * time.Millisecond // at the cluster
	lookLimit = 400 * time.Millisecond // for one agent to answer
	footEvery = 100 * time.Millisecond
	formLimit = 30 * time.Second // for the cluster to serve first
	moveLimit = 15 * time.Second // for a switchover
	// servedWithin is the age of an answer up to which the client counts as served.
	servedWithin = 150 * time.Millisecond
)

// look is how the cluster looks, from the node that sees most.
type look struct {
	status *batonv1.StatusResponse // nil: no agent answers
	lines  []*batonv1.Line         // of the history, those not seen before
}

// session is one run of `baton dev`: a cluster, a client of it, and a person who looks on.
type session struct {
	k      *console
	plan   *devPlan
	ground ground
	client *devClient // nil: nobody knows how to ask the service
	screen *screen
	agents map[string]*api.Client

	looks   chan look
	watcher sync.WaitGroup

	status  *batonv1.StatusResponse // the newest
	lastGap time.Duration           // of the last move
	first   uint64                  // epoch that the client saw first
	two     bool                    // two nodes answer at once, and that was told
	twoFor  time.Duration
}

func newSession(k *console, p *devPlan, g ground) *session {
	s := &session{k: k, plan: p, ground: g, screen: newScreen(k), agents: make(map[string]*api.Client), looks: make(chan look)}
	for _, n := range p.nodes() {
		s.agents[n] = api.Dial(g.socket(n))
	}
	return s
}

// watch looks at the cluster until ctx ends.
func (s *session) watch(ctx context.Context) {
	var seen uint64
	for ctx.Err() == nil {
		l := s.look(ctx, &seen)
		select {
		case s.looks <- l:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
		}
	}
}

// look asks every agent that may answer, and takes the view of the one that is with the majority and has
// applied most.
func (s *session) look(ctx context.Context, seen *uint64) look {
	var best *batonv1.StatusResponse
	var from *api.Client
	for _, n := range s.plan.nodes() {
		if what := s.ground.upset(n); what == upsetOff || strings.Contains(what, upsetFrozen) {
			continue
		}
		short, cancel := context.WithTimeout(ctx, lookLimit)
		r, err := s.agents[n].Status(short, &batonv1.StatusRequest{})
		cancel()
		if err != nil {
			continue
		}
		if best == nil || r.Quorum && !best.Quorum || r.Quorum == best.Quorum && r.Applied > best.Applied {
			best, from = r, s.agents[n]
		}
	}
	l := look{status: best}
	if best == nil || best.Applied <= *seen {
		return l
	}
	short, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	h, err := from.History(short, &batonv1.HistoryRequest{Limit: 20})
	if err != nil {
		return l
	}
	for _, line := range h.Lines {
		if line.Index > *seen {
			*seen = line.Index
			l.lines = append(l.lines, line)
		}
	}
	return l
}

// take takes in a look: what was decided becomes events.
func (s *session) take(l look) {
	if l.status != nil {
		s.status = l.status
	}
	for _, line := range l.lines {
		why := strings.TrimSpace(line.Rule + " " + line.Why)
		if line.Rule == "" && line.By != "" {
			why += " by " + line.By
		}
		if text := strings.Join(line.Did, "; "); text != "" {
			s.screen.add(event{line.Time.AsTime().Local(), "baton", text, why, plainText})
		}
	}
}

// see takes in what the client saw.
func (s *session) see(x sighting) {
	e := event{at: x.wall, who: "client", colour: green}
	gap := short(max(x.gap, x.late))
	switch {
	case x.moved && x.epoch == s.first:
		e.text = fmt.Sprintf("%s answers, epoch %d", x.node, x.epoch)
	case x.moved:
		s.lastGap = x.gap
		if x.gap < time.Millisecond {
			gap = "less than 1ms"
		}
		e.text = fmt.Sprintf("gap of %s, then %s answers, epoch %d", gap, x.node, x.epoch)
	case x.late > 0:
		e.text, e.colour = fmt.Sprintf("%s answers %s late: the machine is busy, nothing was lost", x.node, gap), dim
	default:
		e.text, e.colour = fmt.Sprintf("gap of %s, then %s answers again, epoch %d", gap, x.node, x.epoch), yellow
	}
	s.screen.add(e)
}

// bothEnds is how long the older of two nodes that answered must be silent for that to have ended.
const bothEnds = 300 * time.Millisecond

// tellBoth says so when two nodes begin to answer at once, and when that has ended.
func (s *session) tellBoth(v clientView) {
	switch {
	case v.both > 0 && v.olderAgo < bothEnds:
		s.twoFor = max(s.twoFor, v.both)
		if s.two {
			return
		}
		s.two, s.twoFor = true, v.both
		s.screen.say("client", red, "TWO NODES ANSWER AT ONCE: %s, epoch %d, and %s under an older one", v.node, v.epoch, v.older)
	case s.two && v.olderAgo >= bothEnds:
		s.two = false
		s.screen.say("client", red, "%s alone answers again; two did for %s", v.node, short(s.twoFor))
	}
}

// group is the group that the faults are about, by the newest look.
func (s *session) group() *batonv1.Group {
	if s.status == nil {
		return &batonv1.Group{}
	}
	for _, g := range s.status.Groups {
		if g.Name == string(s.plan.group) {
			return g
		}
	}
	return &batonv1.Group{}
}

// served tells whether the group serves, by the newest look and as the client sees it.
func (s *session) served() bool {
	if s.status == nil || s.awaits() != "" {
		return false
	}
	if s.client == nil {
		return true
	}
	v := s.client.view()
	return v.node == s.group().Owner && v.silence < servedWithin
}

// steady tells whether nothing is missing: everything serves, every node is heard and holds its lease,
// and somebody could take over.
func (s *session) steady() bool {
	st := s.status
	if !s.served() || len(statusView{palette{}, st}.unsettled()) > 0 {
		return false
	}
	for _, n := range st.Nodes {
		if !n.Fresh && n.Name != st.Node {
			return false
		}
	}
	for _, g := range st.Groups {
		for _, n := range g.Nodes {
			if n.Node != g.Owner && n.Phase != "standby" && n.Phase != "stopped" || n.Node == g.Owner && n.Phase != "serving" {
				return false
			}
		}
	}
	return s.served()
}

// askOf asks the agent whose status was seen to move the group.
func (s *session) askOf(ctx context.Context, seen *batonv1.StatusResponse, failback bool) (string, error) {
	if seen == nil {
		return "", errors.New("no agent answers")
	}
	agent := s.agents[seen.Node]
	ctx, cancel := context.WithTimeout(ctx, moveLimit)
	defer cancel()
	var o outcome
	var err error
	if failback {
		o, err = agent.Failback(ctx, &batonv1.FailbackRequest{Group: string(s.plan.group)})
	} else {
		o, err = agent.Switch(ctx, &batonv1.SwitchRequest{Group: string(s.plan.group)})
	}
	if err != nil {
		return "", errors.New(api.Explain(err).Text)
	}
	if !o.GetDone() {
		return "", errors.New(o.GetText())
	}
	return o.GetText(), nil
}

// showStatus prints what `baton status` would.
func (s *session) showStatus() {
	s.screen.due(true)
	if s.status == nil {
		s.screen.write("no agent answers\n")
		return
	}
	var b bytes.Buffer
	b.WriteByte('\n')
	statusView{s.screen.palette, s.status}.write(&b)
	width := s.screen.width()
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		out.WriteString(cut(strings.TrimSuffix(line, "\n"), width-1) + "\n")
	}
	s.screen.write(out.String() + "\n")
}

// begin starts the watcher and the client, and waits until the group serves or the person leaves.
func (s *session) begin(ctx context.Context, p *person) error {
	s.watcher.Go(func() { s.watch(ctx) })
	deadline := time.After(formLimit)
	for s.status == nil || s.awaits() != "" {
		select {
		case l := <-s.looks:
			s.take(l)
			s.screen.due(false)
			s.screen.setFoot([]string{s.screen.text(yellow, " waiting: "+s.lacks()), keyText(s.screen.palette, 'q', "quit")})
		case line, more := <-p.asked:
			if p.hear(line, more); p.leaves {
				return nil
			}
		case <-deadline:
			if s.plan.own {
				s.screen.say("demo", yellow, "not all serves after %v: %s", formLimit, s.lacks())
				s.screen.write(s.screen.text(yellow, "It stays up: explain, status and logs tell why, as shown above.") + "\n")
				return nil
			}
			return fmt.Errorf("the cluster does not serve after %v: %s", formLimit, s.lacks())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var err error
	if s.client, err = s.ground.client(); err != nil || s.client == nil {
		return err
	}
	defer func() { s.first = s.client.view().epoch }()
	for s.client.view().node == "" {
		select {
		case <-time.After(footEvery):
		case <-deadline:
			return fmt.Errorf("the group serves, but after %v no client is answered", formLimit)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// awaits says what is not served yet of what can be; empty: nothing.
func (s *session) awaits() string {
	could := proto.CloneOf(s.status)
	could.Groups = slices.DeleteFunc(could.Groups, func(g *batonv1.Group) bool { return !slices.Contains(s.plan.starts, cluster.GroupID(g.Name)) })
	return missing(could)
}

// lacks says what the cluster lacks to serve, and what failed on its nodes.
func (s *session) lacks() string {
	if s.status == nil {
		return "no agent answers yet"
	}
	all := []string{missing(s.status)}
	for _, g := range s.status.Groups {
		for _, n := range g.Nodes {
			if n.Reason != "" {
				all = append(all, n.Node+": "+n.Reason)
			}
		}
	}
	return strings.Join(all, "; ")
}

// pass lets one piece of news in, or a moment pass, and shows what is due.
func (s *session) pass(ctx context.Context) {
	var news chan sighting
	if s.client != nil {
		news = s.client.news
	}
	select {
	case l := <-s.looks:
		s.take(l)
	case x := <-news:
		s.see(x)
	case <-time.After(footEvery):
	case <-ctx.Done():
	}
	s.refresh()
}

// refresh shows what is due, and the foot.
func (s *session) refresh() {
	if s.client != nil {
		s.tellBoth(s.client.view())
	}
	s.screen.due(false)
	s.screen.setFoot(s.foot())
}

// foot is what is always in sight: the nodes, what the client sees, the keys.
func (s *session) foot() []string {
	p := s.screen.palette
	width := s.screen.width()
	lines := []string{p.text(dim, strings.Repeat("─", width-1)), s.footNodes()}
	if others := s.footOthers(); others != "" {
		lines = append(lines, others)
	}
	if s.client != nil {
		lines = append(lines, s.footClient())
	}
	return append(lines, keyHelp(p, width)...)
}

// footOthers tells which group the keys act on, and who serves the others; empty: there is one only.
func (s *session) footOthers() string {
	var others []string
	if s.status != nil {
		for _, g := range s.status.Groups {
			owner := "nobody"
			if g.Serving {
				owner = g.Owner
			}
			if g.Name != string(s.plan.group) {
				others = append(others, fmt.Sprintf("%s: %s serves", g.Name, owner))
			}
		}
	}
	if len(others) == 0 {
		return ""
	}
	p := s.screen.palette
	return fmt.Sprintf(" above is %s, and the keys act on it  ·  %s", p.text(bold, string(s.plan.group)), strings.Join(others, ", "))
}

func (s *session) footNodes() string {
	p := s.screen.palette
	g := s.group()
	var out []string
	for _, name := range s.plan.nodes() {
		state, c, mark := "", plainText, "○"
		for _, n := range g.Nodes {
			if n.Node != name {
				continue
			}
			state = n.Phase
			if n.Hot && state == "standby" {
				state = "hot standby"
			}
			if name == g.Owner && g.Serving {
				state, c, mark = fmt.Sprintf("serves, epoch %d", g.Epoch), green, "●"
			}
		}
		if s.status != nil {
			for _, n := range s.status.Nodes {
				if n.Name == name && n.Role == "witness" {
					state = "witness"
				}
				if n.Name == name && !n.Fresh && n.Name != s.status.Node {
					state, c, mark = "silent", red, "○"
				}
			}
			if s.status.Coordinator == name {
				state += ", coordinates"
			}
		}
		if what := s.ground.upset(name); what != "" {
			state, c, mark = strings.ToUpper(what), red, "✗"
		}
		out = append(out, p.text(c, mark)+" "+p.text(bold, name)+" "+p.text(c, state))
	}
	return " " + strings.Join(out, "    ")
}

func (s *session) footClient() string {
	p := s.screen.palette
	v := s.client.view()
	now := p.text(green, fmt.Sprintf("%s answers, epoch %d", v.node, v.epoch))
	if v.node == "" || v.silence > gapShown*2 {
		now = p.text(red, fmt.Sprintf("nobody answers for %.1f s", v.silence.Seconds()))
	}
	gap := "-"
	if v.epoch > s.first {
		gap = short(s.lastGap)
	}
	both := p.text(green, "never")
	if v.both > 0 {
		both = p.text(red, "for "+short(v.both))
	}
	return fmt.Sprintf(" client  %s  ·  gap at the last move %s  ·  two at once %s  ·  %d answers", now, gap, both, v.answers)
}

// end lets go of everything but the ground.
func (s *session) end() {
	s.watcher.Wait()
	if s.client != nil {
		_ = s.client.close()
	}
	for _, a := range s.agents {
		a.Close()
	}
	s.screen.end()
}
