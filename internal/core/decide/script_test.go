package decide

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

var update = flag.Bool("update", false, "write the outcomes into testdata")

// A script is a page: what is known, one line a node or a group, then ---- and what the planner decides.
//
//	node NAME [role=spare|witness] [admitted=N | evicted=N] [over] [said] [fresh] [lease] [boot=new]
//	     [silent=V1,V2] [lost] [deaf] [isolated] [bound] [late] [carried=REVISION] [down=DURATION] [sick] [well=DURATION]
//	group NAME nodes=A,B [manual] [failback=DURATION] [returns=N (that did not last)] [owner=N] [last=N] [epoch=E] [released=E] [behind=N]
//	     [move=TO[@EPOCH]] [serves=DURATION]  (the outage to be put on record)
//	     [ban=NODE[:over|:old|:often|:surroundings|:ill]]  (just now; or it has run out, was made a while ago, the third
//	     in a row at that, was not the group's fault, was for its probe)
//	     NODE=FLAGS of serving, failed, hot, cut, lacks    (its report),
//	     ill (failed by its probe), doubts (that probe's last try has failed), brief (without having been well for a while)
//	     [shared]                                   (it is on record that every node says the same of that probe)
//	     node also takes [asks=INC] [former] and its incarnations that copy the log, oldest first:
//	     member=INC[:votes][:heard][:silent][:copied][:knows]; none named: 1, which votes
//	network NAME NODE=lost|back|has...              from which all groups' clients come, and who is in it
//	set TEXT                                        the next voter change waits for this
//	draft [unreadable] [-NODE] [-GROUP] [GROUP=A,B] what the draft under way removes or gives other nodes
//	age DURATION                                    since this agent started
//	pause GROUP|all, pin GROUP NODE, drain NODE, stop GROUP[/RESOURCE]       a person's instruction; its end
//	     may follow: for=DURATION, from now on (not above 0: it has come)
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	used := make(map[string]string)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { runFile(t, file, used) })
	}
	ids := make(map[string]bool)
	for _, r := range Rules() {
		if ids[r.ID] {
			t.Errorf("two rules have the id %s", r.ID)
		}
		ids[r.ID] = true
		if used[r.ID] == "" {
			t.Errorf("no script in which rule %s decides", r.ID)
		}
	}
}

func runFile(t *testing.T, file string, used map[string]string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for i, page := range strings.Split(strings.TrimSpace(string(text)), "\n\n") {
		given, want, _ := strings.Cut(page+"\n", "\n----\n")
		given, want = strings.TrimSpace(given), strings.TrimSpace(want)
		f := parse(t, given)
		got := render(Make(f))
		for _, id := range rulesIn(got) {
			used[id] = file
			if without := withoutRule(f, id); without == got {
				t.Errorf("page %d: the outcome stands without rule %s:\n%s", i+1, id, got)
			}
		}
		if got != want && !*update {
			t.Errorf("page %d:\n%s\n----\ngot:\n%s\nwant:\n%s", i+1, given, got, want)
		}
		fmt.Fprintf(&out, "%s\n----\n%s\n\n", given, got)
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.TrimSpace(out.String())+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// withoutRule plans with one rule taken out of its table. Later rules may rely on an earlier one: a plan
// that can't be made without it is another outcome too.
func withoutRule(f *cluster.Facts, id string) (outcome string) {
	instructions, nodes, groups := instructionRules, nodeRules, groupRules
	voters, drafts := voterRules, draftRules
	defer func() {
		instructionRules, nodeRules, groupRules = instructions, nodes, groups
		voterRules, draftRules = voters, drafts
		if r := recover(); r != nil {
			outcome = fmt.Sprint(r)
		}
	}()
	instructionRules = slices.DeleteFunc(slices.Clone(instructions), func(r instructionRule) bool { return r.id == id })
	nodeRules = slices.DeleteFunc(slices.Clone(nodes), func(r nodeRule) bool { return r.id == id })
	groupRules = slices.DeleteFunc(slices.Clone(groups), func(r groupRule) bool { return r.id == id })
	voterRules = slices.DeleteFunc(slices.Clone(voters), func(r voterRule) bool { return r.id == id })
	draftRules = slices.DeleteFunc(slices.Clone(drafts), func(r draftRule) bool { return r.id == id })
	return render(Make(f))
}

func render(p Plan) string {
	var b strings.Builder
	for _, d := range p.Decisions {
		subject := string(d.Group)
		if subject == "" {
			subject = string(d.Node)
		}
		if subject == "" {
			subject = "all"
		}
		fmt.Fprintf(&b, "%s %s %s: %s\n", subject, d.Rule, d.Verdict, d.Why)
		for _, e := range d.Evidence {
			fmt.Fprintf(&b, "  seen  %s\n", e)
		}
		for _, r := range d.Rejected {
			fmt.Fprintf(&b, "  not   %s: %s\n", r.Node, r.Why)
		}
	}
	for _, e := range p.Entries {
		parts := make([]string, len(e.Parts))
		for i, x := range e.Parts {
			parts[i] = x.String()
		}
		fmt.Fprintf(&b, "propose %s\n", strings.Join(parts, " + "))
	}
	if b.Len() == 0 {
		return "nothing"
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func rulesIn(text string) []string {
	var ids []string
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); !strings.HasPrefix(line, " ") && len(f) > 1 && f[0] != "propose" {
			ids = append(ids, f[1])
		}
	}
	return ids
}

func parse(t *testing.T, text string) *cluster.Facts {
	t.Helper()
	f := &cluster.Facts{Now: cluster.Now{Wall: cluster.WallTime(time.Hour)}, Self: "gamma", Lead: "gamma", Age: time.Hour, Instructions: &cluster.Instructions{},
		Spec: &cluster.Spec{Timing: cluster.Timing{Takeover: time.Second, L: 960 * time.Millisecond, D: 864 * time.Millisecond}}}
	scanner := bufio.NewScanner(strings.NewReader(text))
	type reports struct {
		group int
		node  cluster.NodeID
		flags string
	}
	var pending []reports
	var draft []string
	var networks [][]string
	well := map[cluster.NodeID]time.Duration{}
	for scanner.Scan() {
		w := strings.Fields(scanner.Text())
		switch {
		case len(w) == 0 || w[0] == "#":
		case w[0] == "network":
			networks = append(networks, w[1:])
		case w[0] == "set":
			f.Set.Waits = strings.Join(w[1:], " ")
		case w[0] == "draft":
			draft = append([]string{}, w[1:]...)
		case w[0] == "age":
			f.Age = duration(t, w[1])
		case w[0] == "node":
			n := parseNode(t, w)
			for _, word := range w[2:] {
				if d, ok := strings.CutPrefix(word, "well="); ok {
					well[n.ID] = duration(t, d)
				}
			}
			f.Nodes = append(f.Nodes, n)
			f.Spec.Nodes = append(f.Spec.Nodes, cluster.NodeSpec{ID: n.ID, Role: n.Role})
		case w[0] == "group":
			g, s := cluster.GroupFacts{ID: cluster.GroupID(w[1])}, cluster.GroupSpec{ID: cluster.GroupID(w[1])}
			for _, word := range w[2:] {
				if node, flags, ok := parseGroupWord(t, word, &g, &s); ok {
					pending = append(pending, reports{len(f.Groups), node, flags})
				}
			}
			if g.Move != nil && g.Move.Assigned == 0 {
				g.Move.From = g.Owner
			}
			f.Groups, f.Spec.Groups = append(f.Groups, g), append(f.Spec.Groups, s)
		default:
			parseInstruction(t, f.Instructions, w)
		}
	}
	seat(f, draft)
	for i := range f.Groups {
		f.Groups[i].Networks = parseNetworks(t, f, networks)
		f.Groups[i].Reports = make([]cluster.Report, len(f.Nodes))
		for k := range f.Nodes { // what no page speaks of was told, of the epoch before
			f.Groups[i].Reports[k] = cluster.Report{Known: f.Nodes[k].Fresh, Epoch: f.Groups[i].Epoch - 1}
		}
	}
	for _, r := range pending {
		i := slices.IndexFunc(f.Nodes, func(n cluster.NodeFacts) bool { return n.ID == r.node })
		if i < 0 {
			t.Fatalf("report of unknown node %q", r.node)
		}
		has := func(flag string) bool { return slices.Contains(strings.Split(r.flags, ","), flag) }
		f.Groups[r.group].Reports[i] = cluster.Report{Known: !has("untold") && !has("awaited"), Awaited: has("awaited"), Epoch: f.Groups[r.group].Epoch, Serving: has("serving"),
			Failed: has("failed") || has("ill"), Brief: has("brief"), Hot: has("hot"), Cut: has("cut"), Lacks: has("lacks"), Well: well[r.node]}
		if has("ill") || has("doubts") {
			f.Groups[r.group].Reports[i].Probe = 7
		}
		if rep := &f.Groups[r.group].Reports[i]; has("ill") {
			rep.Reason = "app: GET http://localhost/: 503, 3 times in a row"
		} else if rep.Failed {
			rep.Reason = "app: exited with status 1"
		} else if rep.Lacks {
			rep.Reason = "lacks: app: there is no user www-data"
		}
	}
	return f
}

func parseNetworks(t *testing.T, f *cluster.Facts, lines [][]string) (out []cluster.Network) {
	states := map[string]cluster.NetState{"lost": cluster.NetLost, "back": cluster.NetBack, "has": cluster.NetHas}
	for _, w := range lines {
		x := cluster.Network{Name: w[0], On: make([]cluster.NetworkView, len(f.Nodes))}
		for _, word := range w[1:] {
			id, state, _ := strings.Cut(word, "=")
			i := slices.IndexFunc(f.Nodes, func(n cluster.NodeFacts) bool { return string(n.ID) == id })
			if i < 0 || states[state] == 0 {
				t.Fatalf("network %s: %q", w[0], word)
			}
			if x.On[i].State = states[state]; state == "lost" {
				x.On[i].Why = "is out of touch on " + w[0]
			}
		}
		out = append(out, x)
	}
	return out
}

// seat works out the set of voters, and what the draft under way says.
func seat(f *cluster.Facts, draft []string) {
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if len(n.Members) == 0 && n.Asks == 0 {
			n.Members = []cluster.MemberFacts{{Incarnation: 1, Votes: true, Heard: n.Fresh, Copied: true, Knows: true}}
		}
		for _, m := range n.Members {
			if m.Votes {
				f.Voters++
			}
			if m.Votes && m.Heard {
				f.Set.Fresh++
			}
		}
	}
	f.Set.Index, f.Set.Settled = 7, f.Set.Waits == ""
	if draft == nil {
		return
	}
	spec := &cluster.Spec{Nodes: slices.Clone(f.Spec.Nodes), Groups: slices.Clone(f.Spec.Groups)}
	f.Draft = &cluster.DraftFacts{Base: 1, By: "ann", Spec: spec}
	for _, w := range draft {
		name, nodes, changed := strings.Cut(w, "=")
		gone := strings.TrimPrefix(w, "-")
		switch {
		case w == "unreadable":
			f.Draft.Spec, f.Draft.Err = nil, "line 3: unknown key"
		case w == "renamed":
			spec.Cluster = "other"
		case name == "awaited":
			f.Draft.Awaited = cluster.NodeID(nodes)
		case changed:
			spec.Group(cluster.GroupID(name)).Nodes = names(nodes)
			f.Draft.Waits = name + " is still on another node"
		default:
			spec.Nodes = slices.DeleteFunc(spec.Nodes, func(n cluster.NodeSpec) bool { return n.ID == cluster.NodeID(gone) })
			spec.Groups = slices.DeleteFunc(spec.Groups, func(g cluster.GroupSpec) bool { return g.ID == cluster.GroupID(gone) })
			f.Draft.Waits = gone + " is still in use"
		}
	}
	for i := range f.Nodes {
		f.Nodes[i].Leaves = f.Draft.Spec != nil && spec.Node(f.Nodes[i].ID) == nil
	}
}

func names(list string) []cluster.NodeID {
	var ids []cluster.NodeID
	for n := range strings.SplitSeq(list, ",") {
		ids = append(ids, cluster.NodeID(n))
	}
	return ids
}

func parseInstruction(t *testing.T, x *cluster.Instructions, w []string) {
	note := cluster.Note{By: "ann", Reason: "new kernel"}
	if end, ok := strings.CutPrefix(w[len(w)-1], "for="); ok {
		note.Until = cluster.WallTime(time.Hour + duration(t, end))
		w = w[:len(w)-1]
	}
	group, resource, _ := strings.Cut(w[1], "/")
	switch w[0] {
	case "pause":
		x.Paused = append(x.Paused, cluster.Pause{Group: cluster.GroupID(strings.TrimPrefix(group, "all")), Note: note})
	case "pin":
		x.Pinned = append(x.Pinned, cluster.Pin{Group: cluster.GroupID(group), Node: cluster.NodeID(w[2]), Note: note})
	case "drain":
		x.Drained = append(x.Drained, cluster.Drain{Node: cluster.NodeID(group), Note: note})
	case "stop":
		x.Stopped = append(x.Stopped, cluster.Stop{Group: cluster.GroupID(group), Resource: cluster.ResourceID(resource), Note: note})
	default:
		t.Fatalf("line %q", strings.Join(w, " "))
	}
}

func parseNode(t *testing.T, w []string) cluster.NodeFacts {
	n := cluster.NodeFacts{ID: cluster.NodeID(w[1]), Incarnation: 1, Boot: 1}
	for _, word := range w[2:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "role":
			n.Role = map[string]cluster.Role{"spare": cluster.Spare, "witness": cluster.Witness}[value]
		case "admitted":
			n.Admitted, n.Number = true, cluster.Number(number(t, value))
		case "evicted":
			n.Number = cluster.Number(number(t, value))
		case "over":
			n.Over = true
		case "said":
			n.SaidOver = true
		case "fresh":
			n.Fresh, n.Heard = true, true
		case "heard":
			n.Heard = true
		case "lease":
			n.LeaseRuns = true
		case "boot":
			n.NewBoot, n.Boot = true, 2
		case "silent":
			for v := range strings.SplitSeq(value, ",") {
				n.SilentTo = append(n.SilentTo, cluster.NodeID(v))
			}
		case "carried":
			n.Carried = cluster.Revision(number(t, value))
		case "deaf":
			n.Deaf = true
		case "isolated":
			n.Isolated = true
		case "bound":
			n.Bound = true
		case "late":
			n.Late = true
		case "lost":
			n.Lost = true
		case "down":
			n.LeaseDown = duration(t, value)
		case "sick":
			n.Sick = true
		case "asks":
			n.Asks = cluster.Incarnation(number(t, value))
		case "former":
			n.Former = true
		case "member":
			inc, flags, _ := strings.Cut(value, ":")
			has := func(flag string) bool { return slices.Contains(strings.Split(flags, ":"), flag) }
			n.Members = append(n.Members, cluster.MemberFacts{Incarnation: cluster.Incarnation(number(t, inc)), Votes: has("votes"),
				Heard: has("heard"), Silent: has("silent"), Copied: has("copied"), Knows: has("knows")})
		case "well": // of the node's reports: see below
		default:
			t.Fatalf("word %q", word)
		}
	}
	return n
}

func parseGroupWord(t *testing.T, word string, g *cluster.GroupFacts, s *cluster.GroupSpec) (cluster.NodeID, string, bool) {
	key, value, _ := strings.Cut(word, "=")
	switch key {
	case "nodes":
		for n := range strings.SplitSeq(value, ",") {
			s.Nodes = append(s.Nodes, cluster.NodeID(n))
		}
	case "manual":
		s.Failover = cluster.FailoverManual
	case "failback":
		s.Failback = cluster.FailbackPolicy{Automatic: true, After: duration(t, value)}
	case "returns":
		g.Returns = int(number(t, value))
	case "owner":
		g.Owner, g.Last = cluster.NodeID(value), cluster.NodeID(value)
	case "last":
		g.Last = cluster.NodeID(value)
	case "epoch":
		g.Epoch = cluster.Epoch(number(t, value))
	case "released":
		g.Released = append(g.Released, cluster.Epoch(number(t, value)))
	case "behind":
		g.Behind = append(g.Behind, cluster.NodeID(value))
	case "move":
		to, assigned, _ := strings.Cut(value, "@")
		g.Move = &cluster.Move{ID: "m1", Group: g.ID, From: "alpha", To: cluster.NodeID(to)}
		if assigned != "" {
			g.Move.Assigned = cluster.Epoch(number(t, assigned))
		}
	case "shared":
		g.Shared = &cluster.Shared{Group: g.ID, Epoch: g.Epoch, Probe: 7}
	case "serves":
		g.Serves = &cluster.Served{Group: g.ID, Node: g.Owner, Epoch: g.Epoch, Count: 2, Down: duration(t, value), Least: duration(t, value)}
	case "amends":
		g.Amends = &cluster.Amend{Group: g.ID, Node: "alpha", Epoch: g.Epoch, Count: 2, Down: duration(t, value), Least: duration(t, value)}
	case "ban":
		node, flags, _ := strings.Cut(value, ":")
		b := cluster.Ban{Group: g.ID, Node: cluster.NodeID(node), Until: cluster.WallTime(time.Hour + BanFor), Reason: "app: exited with status 1"}
		switch flags {
		case "over":
			b.Until = 0
		case "old":
			b.Until -= cluster.WallTime(BanTryAgain)
		case "often":
			b.Until -= cluster.WallTime(2 * BanTryAgain)
			b.Tries = 3
		case "ahead": // of a wall clock that was set back since, or of another coordinator's
			b.Until += cluster.WallTime(10 * time.Minute)
		case "ill":
			b.Probe, b.Reason = 7, "app: GET http://localhost/: 503, 3 times in a row"
		case "surroundings":
			b.Surroundings, b.Reason = true, "ip: the address was taken off the interface"
		}
		g.Bans = append(g.Bans, b)
	default:
		return cluster.NodeID(key), value, true
	}
	return "", "", false
}

func number(t *testing.T, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func duration(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
