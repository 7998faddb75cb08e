package sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
)

// revision is a cluster file of the simulator: which of the plan's nodes and groups it names, and under
// which takeover.
type revision struct {
	Takeover time.Duration
	Nodes    []cluster.NodeID
	Groups   []cluster.GroupID
	Marks    []int  // per group of the plan: a number that changes its first resource's description
	Pad      string `json:",omitempty"` // makes the text large
}

// padMost is how much a text can be padded.
const padMost = 1 << 20

func (r *revision) text() []byte {
	b, err := json.Marshal(r)
	cluster.Assert(err == nil, "a revision must be encodable: %v", err)
	return b
}

// first is the file that the cluster is founded with.
func (p *Plan) first() *revision {
	r := &revision{Takeover: p.Takeover, Marks: make([]int, len(p.Groups))}
	for _, n := range p.Nodes {
		if !slices.Contains(p.Out, n.ID) {
			r.Nodes = append(r.Nodes, n.ID)
		}
	}
	for _, g := range p.Groups {
		r.Groups = append(r.Groups, g.ID)
	}
	return r
}

// read reads a revision's text. Equal texts give one specification.
func (w *world) read(text []byte) (*cluster.Spec, error) {
	if s := w.specs[string(text)]; s != nil {
		return s, nil
	}
	r := new(revision)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("a revision of %d bytes: %w", len(text), err)
	}
	timing, err := derive(r.Takeover)
	if err != nil {
		return nil, err
	}
	s := &cluster.Spec{Cluster: w.spec.Cluster, Text: slices.Clone(text), Timing: timing, Links: w.spec.Links, Targets: w.spec.Targets}
	for _, n := range w.spec.Nodes {
		if slices.Contains(r.Nodes, n.ID) {
			s.Nodes = append(s.Nodes, n)
		}
	}
	for i, g := range w.spec.Groups {
		g.Nodes = slices.DeleteFunc(slices.Clone(g.Nodes), func(id cluster.NodeID) bool { return !slices.Contains(r.Nodes, id) })
		if !slices.Contains(r.Groups, g.ID) || len(g.Nodes) == 0 {
			continue
		}
		g.Resources = slices.Clone(g.Resources)
		g.Resources[0].Fields = map[string]any{"mark": r.Marks[w.planGroup[i]]}
		s.Groups = append(s.Groups, g)
	}
	w.specs[string(text)] = s
	return s, nil
}

// change makes the next revision by the words of an `apply`: +NODE, -NODE, +GROUP, -GROUP, mark=GROUP,
// pad=BYTES, takeover=TIME. It returns nil if they change nothing or make no cluster.
func (p *Plan) change(r *revision, words []string) (*revision, error) {
	c := &revision{Takeover: r.Takeover, Nodes: slices.Clone(r.Nodes), Groups: slices.Clone(r.Groups), Marks: slices.Clone(r.Marks), Pad: r.Pad}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		name := strings.TrimLeft(word, "+-")
		switch {
		case key == "takeover":
			d, err := time.ParseDuration(value)
			if err != nil {
				return nil, err
			}
			c.Takeover = d
		case key == "pad":
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 || n > padMost {
				return nil, fmt.Errorf("apply %s: a number of bytes up to %d", word, padMost)
			}
			c.Pad = strings.Repeat("x", n)
		case key == "mark" && p.group(cluster.GroupID(value)) >= 0:
			c.Marks[p.group(cluster.GroupID(value))]++
		case p.node(cluster.NodeID(name)) >= 0 && word[0] != name[0]:
			c.Nodes = toggle(c.Nodes, cluster.NodeID(name), word[0] == '+')
		case p.group(cluster.GroupID(name)) >= 0 && word[0] != name[0]:
			c.Groups = toggle(c.Groups, cluster.GroupID(name), word[0] == '+')
		default:
			return nil, fmt.Errorf("apply %s: +NODE, -NODE, +GROUP, -GROUP, mark=GROUP, pad=BYTES or takeover=TIME", word)
		}
	}
	return c, nil
}

func toggle[T comparable](set []T, x T, in bool) []T {
	set = slices.DeleteFunc(set, func(y T) bool { return y == x })
	if in {
		set = append(set, x)
	}
	return set
}

// apply has an operator change the configuration, from what a node whose agent runs has.
func (w *world) apply(f *active) {
	m := w.asked()
	if m == nil {
		return
	}
	c := m.agent.Configuration().Current()
	if c == nil {
		return
	}
	r := new(revision)
	if err := json.Unmarshal(c.Text, r); err != nil {
		w.fail("apply", "revision %d can't be read: %v", c.Revision, err)
		return
	}
	next, err := w.plan.change(r, strings.Fields(f.Words))
	if err != nil || string(next.text()) == string(c.Text) {
		return
	}
	w.commands++
	command := &node.Command{ID: w.commands, Op: node.OpPropose, By: "operator", Part: cluster.Part{Draft: &cluster.Draft{
		Base: c.Revision, Text: next.text(), ID: "apply-" + strconv.FormatUint(w.commands, 10)}}}
	w.gives(command)
	m.deliver(command)
}

// adopted follows what the log says of the cluster's nodes, as the node that has come furthest knows it.
func (w *world) adopted(m *machine) {
	if m.applied <= w.latest.applied || m.agent == nil {
		return
	}
	s := m.agent.State()
	w.latest.applied = m.applied
	w.latest.voters, w.latest.draft = s.Set().Voters, s.Draft != nil
	if w.latest.revision == s.Revision() {
		return
	}
	w.latest.revision, w.latest.spec = s.Revision(), s.Spec()
	w.check.said.adopted(s.Spec())
	w.check.kept.adopted(s.Spec())
	w.check.length = max(w.check.length, s.Spec().Timing.L)
	for _, o := range w.machines {
		switch in := s.Spec().Node(o.id) != nil; {
		case in && o.out: // a person takes the file and the key there, as `baton join` does, and starts the agent
			o.out = false
			o.file = s.Spec()
			o.powerOff()
			o.wipe()
			o.wiped = true
			w.push(w.now+o.between(time.Millisecond, 50*time.Millisecond), evBoot, o.idx, 0, 0, 0)
		case !in:
			o.out = true
		}
	}
}

// latest is what the log says, as the node that has come furthest knows it.
type latest struct {
	applied  uint64
	revision cluster.Revision
	spec     *cluster.Spec
	voters   []cluster.Incarnation
	draft    bool
}

// votes tells whether a machine, as it is now, is a voter.
func (w *world) votes(m *machine) bool { return slices.Contains(w.latest.voters, m.inc) }
