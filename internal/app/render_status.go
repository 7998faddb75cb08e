package app

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	batonv1 "baton/api/v1"
)

// statusView renders a status for people.
type statusView struct {
	palette
	*batonv1.StatusResponse
}

func (v statusView) write(w io.Writer) {
	v.header(w)
	v.troubles(w)
	fmt.Fprintln(w)
	v.nodeTable(w)
	if len(v.Groups) == 0 {
		return
	}
	fmt.Fprintln(w)
	v.groupTable(w)
	fmt.Fprintln(w)
	for _, g := range v.Groups {
		v.sentence(w, g)
	}
}

// header says in one line how things are, and in more what is out of order.
func (v statusView) header(w io.Writer) {
	word, c := "healthy", green
	switch {
	case v.Left != "":
		word, c = "left", red
	case v.Joining:
		word, c = "joining", yellow
	case v.Forming != "":
		word, c = "forming", yellow
	case !v.Quorum:
		word, c = "no quorum", red
	case v.unserved() > 0:
		word, c = "not all served", red
	case v.Coordinator == "" || len(v.unsettled()) > 0:
		word, c = "degraded", yellow
	}
	fmt.Fprintf(w, "%s  %s  as %s sees it", v.text(bold, v.Cluster), v.text(c, word), v.StatusResponse.Node)
	if t := v.Time; t.IsValid() {
		fmt.Fprintf(w, " at %s", t.AsTime().Local().Format("15:04:05"))
	}
	switch {
	case v.Left != "":
		fmt.Fprintf(w, "\n%s. Its agent stops what runs here, and ends.\n", v.Left)
		fmt.Fprintln(w, "hint: "+wayBack(v.StatusResponse.Node, "its data directory"))
		return
	case v.Joining:
		fmt.Fprintf(w, "\n%s joins: %s. Until it has, it serves nothing and has no vote.\n", v.StatusResponse.Node, v.Forming)
		return
	case v.Forming != "":
		fmt.Fprintf(w, "\nThe cluster forms: %s. A cluster is founded once all its voters have met; until this node belongs to one, it serves nothing.\n", v.Forming)
		return
	}
	coordinator := "no coordinator known"
	if v.Coordinator != "" {
		coordinator = fmt.Sprintf("coordinator %s, term %d", v.Coordinator, v.Term)
		if v.TermWhy != "" {
			coordinator += fmt.Sprintf(" since %s: %s", v.clock(v.TermSince.AsTime()), v.TermWhy)
		}
	}
	fmt.Fprintf(w, "\n%s · %d of %d voters heard, %d needed · revision %d, entry %d · takeover %s, lease %s\n", coordinator, v.VotersHeard, v.Voters, v.Voters/2+1,
		v.Revision, v.Applied, v.Timing.GetTakeover().AsDuration(), v.Timing.GetLease().AsDuration())
	switch {
	case !v.Quorum:
		fmt.Fprintln(w, v.text(red, fmt.Sprintf("No quorum: %s hears %d of %d voters. Nothing can be decided, and what serves here ends with its lease.", v.StatusResponse.Node, v.VotersHeard, v.Voters)))
	case v.unheard() != "":
		fmt.Fprintln(w, v.text(red, v.unheard()))
	case v.Coordinator == "":
		fmt.Fprintln(w, v.text(yellow, "No coordinator is known: an election is under way. What serves goes on; nothing moves meanwhile."))
	}
	if out := v.unsettled(); len(out) > 0 && v.Quorum {
		fmt.Fprintln(w, v.text(yellow, "Not as it should be: "+strings.Join(out, ", ")+"."))
	}
	if d := v.Draft; d != nil {
		fmt.Fprintln(w, v.text(yellow, v.change(d)))
	}
	v.instructed(w)
}

// unheard says who is heard here and does not hear this node; empty: nobody.
func (v statusView) unheard() string {
	var deaf, leads []string
	for _, n := range v.Nodes {
		if n.Deaf {
			deaf = append(deaf, n.Name)
		}
		if n.Leads {
			leads = append(leads, n.Name)
		}
	}
	if len(deaf) == 0 {
		return ""
	}
	self, says := v.StatusResponse.Node, "says that it does"
	if len(deaf) > 1 {
		says = "say that they do"
	}
	text := fmt.Sprintf("%s is not heard: %s, heard here, %s not hear it. What it sends to them is lost on the way: a cable, a switch port, a firewall.", self, strings.Join(deaf, " and "), says)
	switch {
	case v.Coordinator != "":
	case len(leads) > 0:
		text += fmt.Sprintf(" %s coordinates, without %s; what served here ends with its lease.", leads[0], self)
	default:
		text += " No coordinator is known here."
	}
	return text
}

// change says what change of the configuration is under way.
func (v statusView) change(d *batonv1.RevisionDraft) string {
	text := fmt.Sprintf("A change to revision %d by %s is under way", d.BaseRevision+1, d.By)
	if d.Waits != "" {
		text += ": " + d.Waits
	}
	return text + "."
}

// troubles tells of nodes that are not understood, or take no part, and how to mend that.
func (v statusView) troubles(w io.Writer) {
	hints := make([]string, 0, 2)
	for _, n := range v.Nodes {
		hint := "where the key is right, baton invite NODE; where it is not, baton join"
		if n.Name == v.StatusResponse.Node {
			hint = "systemctl stop baton, move its data directory away, and baton join; or start it with the directory that is of this cluster"
		}
		for _, f := range n.Faults {
			fmt.Fprintln(w, v.text(yellow, v.faultOf(n, f)+"."))
			if !slices.Contains(hints, f.Hint) && f.Hint != "" {
				hints = append(hints, f.Hint)
			}
		}
		if v.keepsFaults(n) {
			fmt.Fprintln(w, v.text(yellow, n.Name+" has a fault of its links, of a way from it to another node, or of its gate, and could not be asked which: baton status there tells."))
		}
		if n.Trouble == "" {
			continue
		}
		fmt.Fprintln(w, v.text(red, n.Name+": "+n.Trouble+"."))
		if !slices.Contains(hints, hint) {
			hints = append(hints, hint)
		}
	}
	for _, h := range hints {
		fmt.Fprintln(w, "hint: "+h)
	}
}

func (v statusView) unserved() (n int) {
	for _, g := range v.Groups {
		if !g.Serving && g.Degraded == "" && !stopped(v.StatusResponse, g.Name) {
			n++
		}
	}
	return n
}

// progress says how far a node's copy is, if that is known.
func (v statusView) progress(n *batonv1.Node) string {
	if n.Progress == "" {
		return ""
	}
	return ": it has " + n.Progress
}

// unsettled names what is not as it should be, one short text each; empty: all is well.
func (v statusView) unsettled() []string {
	var out []string
	for _, n := range v.Nodes {
		if slices.ContainsFunc(n.Faults, func(f *batonv1.LinkFault) bool { return f.Link == twinFault }) {
			out = append(out, "two machines run as "+n.Name)
		}
		switch {
		case n.Membership == "outside":
			out = append(out, n.Name+" is not let in yet")
			continue
		case !n.Fresh:
			out = append(out, n.Name+" is not heard")
			continue
		case n.Membership == "copies":
			out = append(out, n.Name+" copies the log, and has no vote yet"+v.progress(n))
			continue
		case n.Membership == "leaves":
			continue
		case n.Sick:
			out = append(out, "the disk, run record or gate of "+n.Name+" takes no write")
		case n.Role != "witness" && !n.LeaseRuns:
			out = append(out, n.Name+" holds no lease")
		}
		if n.Progress != "" {
			out = append(out, n.Name+" copies the state"+v.progress(n))
		}
		out = append(out, v.linksOf(n)...)
	}
	for _, t := range v.Unanswered {
		out = append(out, fmt.Sprintf("no node gets an answer from %s, which is under reach", t))
	}
	for _, g := range v.Groups {
		switch {
		case g.Move != nil:
			out = append(out, g.Name+" moves to "+g.Move.To)
		case stopped(v.StatusResponse, g.Name):
			out = append(out, g.Name+" is stopped")
		case g.Degraded != "":
			out = append(out, g.Name+" is degraded: "+g.Degraded)
		case !g.Serving:
			out = append(out, g.Name+" is not served")
		case paused(v.StatusResponse, g.Name):
			out = append(out, g.Name+" is paused")
		case g.Next == "" && len(g.Nodes) > 1:
			out = append(out, "nobody could take over "+g.Name)
		}
	}
	return out
}

func (v statusView) nodeTable(w io.Writer) {
	rows := [][]cell{heading(append([]string{"node", "role", "state", "vote", "lease", "number"}, v.Links...)...)}
	for _, n := range v.Nodes {
		row := []cell{{text: n.Name}, {text: n.Role}, v.nodeState(n), vote(n), v.lease(n), {text: "-"}}
		if n.Number > 0 {
			row[5].text = fmt.Sprint(n.Number)
		}
		for i := range v.Links {
			row = append(row, v.link(n, i))
		}
		rows = append(rows, row)
	}
	v.table(w, rows)
}

func (v statusView) nodeState(n *batonv1.Node) cell {
	switch {
	case n.Sick:
		return cell{"sick: takes no write", red}
	case n.Fresh && drained(v.StatusResponse, n.Name):
		return cell{"drained", yellow}
	case n.Name == v.StatusResponse.Node:
		return cell{"this node", plainText}
	case !n.Heard:
		return cell{"never heard", red}
	case !n.Fresh:
		return cell{"silent " + short(n.Ago.AsDuration()), red}
	}
	return cell{"heard", green}
}

// vote tells a node's part in decisions.
func vote(n *batonv1.Node) cell {
	switch n.Membership {
	case "votes":
		return cell{"votes", plainText}
	case "copies":
		return cell{"copies the log", yellow}
	case "outside":
		return cell{"not let in yet", yellow}
	case "leaves":
		return cell{"leaves", yellow}
	}
	return cell{"-", dim}
}

func (v statusView) lease(n *batonv1.Node) cell {
	switch {
	case n.Role == "witness":
		return cell{"-", dim}
	case n.LeaseRuns && n.LeaseLeft.AsDuration() > 0:
		return cell{"runs, " + short(n.LeaseLeft.AsDuration()) + " left", green}
	case n.LeaseRuns:
		return cell{"runs", green}
	case !n.Admitted && n.Number == 0:
		return cell{"none yet", yellow}
	case !n.Admitted:
		return cell{"taken away", red}
	case !n.Fresh:
		return cell{"unknown", yellow}
	}
	return cell{"has run out", red}
}

func (v statusView) link(n *batonv1.Node, i int) cell {
	if i >= len(n.Links) {
		return cell{"-", dim}
	}
	l := n.Links[i]
	ago := l.Ago.AsDuration()
	switch {
	case l.Absent:
		return cell{"-", dim}
	case !l.Heard:
		return cell{"never", yellow}
	case ago > max(v.Timing.GetDetect().AsDuration(), 10*time.Millisecond):
		return cell{"silent " + short(ago), red}
	}
	return cell{short(ago) + " ago", plainText}
}

func (v statusView) groupTable(w io.Writer) {
	rows := [][]cell{heading("group", "owner", "epoch", "state", "next", "on the nodes")}
	for _, g := range v.Groups {
		owner, next := cell{text: g.Owner}, cell{text: g.Next}
		if g.Owner == "" {
			owner = cell{"nobody", red}
		}
		if g.Next == "" {
			next = cell{"nobody", yellow}
		}
		if g.NextBanned {
			next = cell{g.Next + ", in need", yellow}
		}
		if g.NextOnCommand {
			next = cell{g.Next + ", on command", plainText}
		}
		var on []string
		for _, n := range g.Nodes {
			phase := n.Phase
			if n.Hot && phase == "standby" {
				phase = "hot standby"
			}
			on = append(on, n.Node+" "+phase)
		}
		rows = append(rows, []cell{{text: g.Name}, owner, {text: fmt.Sprint(g.Epoch)}, v.groupState(g), next, {text: strings.Join(on, ", ")}})
	}
	v.table(w, rows)
}

// groupOn returns how a group is on a node.
func groupOn(g *batonv1.Group, node string) *batonv1.GroupNode {
	for _, n := range g.Nodes {
		if n.Node == node {
			return n
		}
	}
	return &batonv1.GroupNode{Node: node, Phase: "unknown"}
}

func (v statusView) groupState(g *batonv1.Group) cell {
	phase := groupOn(g, g.Owner).Phase
	switch {
	case g.Move != nil:
		return cell{"moving to " + g.Move.To, yellow}
	case stopped(v.StatusResponse, g.Name):
		return cell{"stopped", yellow}
	case g.Degraded != "":
		return cell{"degraded: " + g.Degraded, red}
	case g.Serving && paused(v.StatusResponse, g.Name):
		return cell{"serving, paused", yellow}
	case g.Owner == "":
		return cell{"not served", red}
	case g.Serving:
		return cell{"serving", green}
	case phase == "failed":
		return cell{"failed", red}
	case phase == "unknown":
		return cell{"unknown", red}
	case v.leaseless(g.Owner):
		return cell{"no lease", red}
	}
	return cell{"starting", yellow}
}

// leaseless tells whether a node is known to hold no lease that runs.
func (v statusView) leaseless(node string) bool {
	for _, n := range v.Nodes {
		if n.Name == node {
			return !n.LeaseRuns
		}
	}
	return true
}

// sentence says why a group is where it is, and below it what a reader should know besides.
func (v statusView) sentence(w io.Writer, g *batonv1.Group) {
	fmt.Fprintf(w, "%s %s: %s", v.text(bold, g.Name), v.where(g), v.why(g))
	fmt.Fprintln(w)
	if text := v.service(g); text != "" {
		fmt.Fprintf(w, "  %s\n", v.text(dim, text))
	}
	for _, n := range g.Nodes {
		if n.Reason != "" {
			fmt.Fprintf(w, "  %s\n", v.text(red, fmt.Sprintf("%s, %s: %s", n.Node, n.Phase, n.Reason)))
		}
	}
	for _, b := range g.Bans {
		fmt.Fprintf(w, "  kept off %s until %s: %s\n", b.Node, b.Until.AsTime().Local().Format("15:04:05"), b.Reason)
	}
	switch {
	case g.NextOnCommand && !g.Serving:
		fmt.Fprintf(w, "  %s\n", onCommand(g))
	case g.NextBanned && !g.NextOnCommand:
		fmt.Fprintf(w, "  %s would take it all the same if its node were lost: no better is left\n", g.Next)
	}
	if g.Next == "" && !stopped(v.StatusResponse, g.Name) && !paused(v.StatusResponse, g.Name) {
		for _, n := range g.Nodes {
			if n.Node != g.Owner && n.Refusal != "" {
				fmt.Fprintf(w, "  %s can't take it: it %s\n", n.Node, n.Refusal)
			}
		}
	}
}

// onCommand tells how a group of manual failover gets to the node that could take it.
func onCommand(g *batonv1.Group) string {
	text := fmt.Sprintf("baton switch %s --to %s moves it there", g.Name, g.Next)
	if g.NextBanned {
		text += ", once what keeps it off there is over"
	}
	return text
}

// where says where a group is, to stand after its name.
func (v statusView) where(g *batonv1.Group) string {
	switch {
	case g.Move != nil:
		return fmt.Sprintf("moves from %s to %s", nobody(g.Move.From), g.Move.To)
	case g.Owner == "" && g.Last == "":
		return "has never served"
	case stopped(v.StatusResponse, g.Name):
		return "is stopped, served last by " + g.Last
	case g.Owner == "":
		return fmt.Sprintf("is served by nobody, last by %s", g.Last)
	case g.Degraded != "":
		return fmt.Sprintf("is on %s, degraded: %s", g.Owner, g.Degraded)
	case g.Serving:
		return "serves on " + g.Owner
	case groupOn(g, g.Owner).Phase == "failed":
		return "has failed on " + g.Owner
	case groupOn(g, g.Owner).Phase == "unknown":
		return fmt.Sprintf("belongs to %s, which is not heard", g.Owner)
	case v.leaseless(g.Owner):
		return fmt.Sprintf("belongs to %s, whose lease does not run", g.Owner)
	}
	return "starts on " + g.Owner
}

func nobody(name string) string {
	if name == "" {
		return "nobody"
	}
	return name
}

func (v statusView) why(g *batonv1.Group) string {
	if !v.Quorum {
		return "no majority is heard from here, so nothing can be decided here, and the others may have moved it"
	}
	if g.Move != nil && g.Move.Failback && g.Move.Assigned == 0 {
		return "a failback, once the target is ready"
	}
	why := g.Decision
	if why == "" {
		why = "no decision is known"
	}
	if g.Rule != "" {
		why += v.text(dim, " ("+g.Rule+")")
	}
	return why
}
