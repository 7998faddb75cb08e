package node

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// This file judges, on every node, who is in the networks from which clients come: on links by who hears whom, by each
// node's own word and the others', and on targets by each node's own word (protocol.md, "Clients' networks").

// steadyFor is for how long a node must have had a network again, after a loss, to take a group over for its sake.
func (n *Node) steadyFor() time.Duration { return max(2*n.timing.L, 5*time.Second) }

// lostKey names one network of one node, whatever its place in the file.
type lostKey struct {
	network string
	node    cluster.NodeID
}

// networks is what is kept of the networks from which clients come.
type networks struct {
	reached, missed uint64       // this node's word on Spec.Targets
	asked           []netip.Addr // what Output.Ask named last
	told            Reach        // the last word on everything
	toldAt          cluster.Instant
	// When the round began in which each target answered last, and when the one had ended in which it did not.
	answeredAt, missedAt map[netip.Addr]cluster.Instant
	news                 bool // somebody's word has changed
	at                   cluster.Instant
	lost                 map[lostKey]cluster.Instant // when a node was last seen to have lost one
	of                   *cluster.Spec               // whose groups the next field tells of
	used                 [][]uint64                  // per group and link: bit i, the link shows whether clients reach Spec.Nodes[i]
	useful               uint64                      // bit k: Spec.Links[k] shows it for some group
}

// reach takes what this node has found out about targets.
func (n *Node) reach(in *Reach) {
	u := &n.networks
	n.noteAnswers(in)
	u.told, u.toldAt = *in, n.now.Mono
	reached, missed := uint64(0), uint64(0)
	for _, t := range in.Reached {
		reached |= n.targetBit(t)
	}
	for _, t := range in.Missed {
		missed |= n.targetBit(t)
	}
	if reached&u.missed != 0 {
		n.announce()
	}
	if reached != u.reached || missed != u.missed {
		u.reached, u.missed, u.news = reached, missed, true
		n.pulse.now = true
	}
}

// noteAnswers notes when targets answered.
func (n *Node) noteAnswers(in *Reach) {
	u := &n.networks
	if len(n.spec.Targets) == 0 {
		u.answeredAt, u.missedAt = nil, nil
		return
	}
	answered, missed := make(map[netip.Addr]cluster.Instant), make(map[netip.Addr]cluster.Instant)
	for _, a := range n.spec.Targets {
		switch {
		case slices.Contains(in.Reached, a):
			answered[a] = u.toldAt
		case u.missedAt[a] == 0:
			answered[a], missed[a] = u.answeredAt[a], n.now.Mono
		default:
			answered[a], missed[a] = u.answeredAt[a], u.missedAt[a]
		}
	}
	u.answeredAt, u.missedAt = answered, missed
}

// targetBit is the bit of a target in a Sight; 0 for one that the present configuration does not name.
func (n *Node) targetBit(t netip.Addr) uint64 {
	if i := slices.Index(n.spec.Targets, t); i >= 0 {
		return 1 << i
	}
	return 0
}

// ownSight is what this node tells of the networks.
func (n *Node) ownSight() wire.Sight {
	s := wire.Sight{Revision: n.Revision(), Reached: n.networks.reached, Missed: n.networks.missed}
	if s.Revision == 0 {
		return wire.Sight{}
	}
	s.Links = make([]wire.LinkSight, len(n.spec.Links))
	for k := range s.Links {
		for i := range n.peers {
			if i == n.self || !n.joins(k, i) || !n.joins(k, n.self) {
				continue
			}
			heard, lost := n.onLinkHere(i, k)
			if heard {
				s.Links[k].Heard |= 1 << i
			}
			if lost {
				s.Links[k].Lost |= 1 << i
			}
		}
	}
	return s
}

// onLinkHere tells how this node hears another on a link: by its heartbeats, or by its answers there, since something
// between the two may drop the heartbeats alone.
func (n *Node) onLinkHere(i, link int) (heard, lost bool) {
	heard, lost = n.peers[i].det.OnLink(link, n.now.Mono)
	if at := n.spec.Links[link].UDP.Addresses[n.peers[i].id]; !heard {
		heard = slices.Contains(n.networks.told.Reached, at)
		lost = lost && !heard && !slices.Contains(n.networks.told.Doubted, at)
	}
	return heard, lost
}

// askOthers has those asked whose heartbeats do not come on a link that shows something.
func (n *Node) askOthers() {
	var all []netip.Addr
	for k := range n.spec.Links {
		for i := range n.peers {
			if n.useful()>>k&1 == 0 || i == n.self || !n.joins(k, i) || !n.joins(k, n.self) {
				continue
			}
			if heard, _ := n.peers[i].det.OnLink(k, n.now.Mono); !heard {
				all = append(all, n.spec.Links[k].UDP.Addresses[n.peers[i].id])
			}
		}
	}
	if !slices.Equal(all, n.networks.asked) {
		n.networks.asked = all
		told := &n.networks.told
		for _, list := range []*[]netip.Addr{&told.Reached, &told.Doubted, &told.Missed} {
			*list = slices.DeleteFunc(slices.Clone(*list), func(a netip.Addr) bool { return !slices.Contains(all, a) })
		}
		n.out.Ask = &Ask{slices.Clone(all)}
	}
}

// joins tells whether a link joins a node.
func (n *Node) joins(link, i int) bool {
	u := n.spec.Links[link].UDP
	return u != nil && u.Addresses[n.peers[i].id].IsValid()
}

// sights returns what each node says it sees; nil where that is not known, is of another revision, or is older than 2 h.
func (n *Node) sights() []*wire.Sight {
	all := make([]*wire.Sight, len(n.peers))
	for i := range n.peers {
		if i == n.self {
			own := n.ownSight()
			all[i] = &own
		} else if p := &n.peers[i]; p.hb != nil && n.now.Mono.Sub(p.hbAt) <= p.hb.L/5 {
			all[i] = &p.hb.Sight
		}
		if s := all[i]; s != nil && (s.Revision == 0 || s.Revision != n.Revision() || len(s.Links) != len(n.spec.Links)) {
			all[i] = nil
		}
	}
	return all
}

// judge works out who is in which network: on links, in their order, as far as they show it for some group; then by
// all targets.
func (n *Node) judge() []cluster.Network {
	if n.Revision() == 0 {
		return nil
	}
	sights, useful := n.sights(), n.useful()
	out := make([]cluster.Network, 0, len(n.spec.Links)+len(n.spec.Targets))
	for k := range n.spec.Links {
		w := cluster.Network{Name: "link " + n.spec.Links[k].Name}
		if useful>>k&1 != 0 {
			w.On = make([]cluster.NetworkView, len(n.peers))
			for i := range w.On {
				if n.joins(k, i) {
					w.On[i] = n.onLink(i, k, sights)
				}
			}
		}
		out = append(out, w)
	}
	for t, a := range n.spec.Targets {
		w := cluster.Network{Name: a.String(), On: make([]cluster.NetworkView, len(n.peers))}
		for i, s := range sights {
			switch {
			case s == nil:
			case s.Missed>>t&1 != 0:
				w.On[i] = cluster.NetworkView{State: cluster.NetLost, Why: fmt.Sprintf("gets no answer from %s", a)}
			case s.Reached>>t&1 != 0:
				w.On[i].State = cluster.NetHas
			}
		}
		out = append(out, w)
	}
	for w := range out {
		for i := range out[w].On {
			if v := &out[w].On[i]; v.State == cluster.NetHas && !n.isSteady(out[w].Name, i) {
				v.State = cluster.NetBack
			}
		}
	}
	return out
}

func (n *Node) isSteady(network string, i int) bool {
	at := n.networks.lost[lostKey{network, n.peers[i].id}]
	return at == 0 || n.flawed(BlinkTrusted) || n.now.Mono.Sub(at) >= n.steadyFor()
}

// onLink judges one node on one link. It has lost the link where with a majority of those voters that the link joins
// it is out of touch, in one direction at least; and has it where it hears, and is heard by, enough of them to make a
// majority with it. Only voters whose own word is young count: what a dead node is not heard by tells nothing.
func (n *Node) onLink(i, link int, sights []*wire.Sight) cluster.NetworkView {
	own, voters, touch := sights[i], n.votersOn(link), 0
	var gone []string
	if n.peers[i].votes {
		touch++
	}
	for k := range n.peers {
		if !n.peers[k].votes || !n.joins(link, k) {
			continue
		}
		other := sights[k]
		if k == i || own == nil || other == nil {
			continue
		}
		x, y := own.Links[link], other.Links[link]
		switch {
		case y.Lost>>i&1 != 0:
			gone = append(gone, string(n.peers[k].id))
		case x.Lost>>k&1 != 0:
			gone = append(gone, string(n.peers[k].id)+" (which it does not hear)")
		case y.Heard>>i&1 != 0 && x.Heard>>k&1 != 0:
			touch++
		}
	}
	switch q := cluster.Quorum(voters); {
	case voters < cluster.VotersMin: // of two, nobody can tell which is cut off
	case len(gone) >= q, n.flawed(OneVoterJudges) && len(gone) > 0:
		return cluster.NetworkView{State: cluster.NetLost, Why: fmt.Sprintf("is out of touch on link %s with %s", n.spec.Links[link].Name, strings.Join(gone, " and "))}
	case touch >= q:
		return cluster.NetworkView{State: cluster.NetHas}
	}
	return cluster.NetworkView{}
}

// uses returns, for a group and each link, on which nodes the link shows whether its clients reach them.
func (n *Node) uses(i int) []uint64 {
	n.useful()
	return n.networks.used[i]
}

// useful tells which links show that for some group: on two of its nodes at least. It is worked out once for a
// configuration.
func (n *Node) useful() uint64 {
	u := &n.networks
	if u.of == n.spec {
		return u.useful
	}
	u.of, u.useful, u.used = n.spec, 0, make([][]uint64, len(n.spec.Groups))
	for g := range n.spec.Groups {
		u.used[g] = make([]uint64, len(n.spec.Links))
		for k := range n.spec.Links {
			mask := uint64(0)
			for _, id := range n.spec.Groups[g].Nodes {
				if n.spec.ClientLink(&n.spec.Groups[g], k, id) {
					mask |= 1 << n.index(id)
				}
			}
			if bits.OnesCount64(mask) > 1 {
				u.used[g][k], u.useful = mask, u.useful|1<<k
			}
		}
	}
	return u.useful
}

// sameNetworks tells whether the clients of two groups come by the same.
func (n *Node) sameNetworks(i, k int) bool {
	return slices.Equal(n.uses(i), n.uses(k)) && slices.Equal(n.spec.Groups[i].Reach.Targets, n.spec.Groups[k].Reach.Targets)
}

// networksOf picks from all networks those of one group.
func (n *Node) networksOf(i int, all []cluster.Network) []cluster.Network {
	if all == nil {
		return nil
	}
	var out []cluster.Network
	for k, mask := range n.uses(i) {
		if mask == 0 {
			continue
		}
		w := cluster.Network{Name: all[k].Name, On: slices.Clone(all[k].On)}
		for x := range w.On {
			if mask>>x&1 == 0 {
				w.On[x] = cluster.NetworkView{}
			}
		}
		out = append(out, w)
	}
	for _, t := range n.spec.Groups[i].Reach.Targets {
		w := all[len(n.spec.Links)+slices.Index(n.spec.Targets, t)]
		if !w.Answers() { // it may be dead itself
			w.On = slices.Clone(w.On)
			for x := range w.On {
				w.On[x].State = cluster.NetUnknown
			}
		}
		out = append(out, w)
	}
	return out
}

// tendNetworks notes who has lost which network, on every node: whoever comes to coordinate goes on from what it has
// seen itself.
func (n *Node) tendNetworks() {
	u := &n.networks
	if n.state == nil || n.state.IsBlank() || !u.news && n.now.Mono < u.at {
		return
	}
	u.news, u.at = false, n.now.Mono.Add(n.timing.H)
	if u.lost == nil {
		u.lost = make(map[lostKey]cluster.Instant)
	}
	n.askOthers()
	all := n.judge()
	for w := range all {
		for i := range all[w].On {
			if all[w].On[i].State != cluster.NetLost {
				continue
			}
			key := lostKey{all[w].Name, n.peers[i].id}
			if at := u.lost[key]; at == 0 || n.now.Mono.Sub(at) > 2*n.timing.H {
				n.planDue = true
			}
			u.lost[key] = n.now.Mono
			n.unfit(i, w)
		}
	}
	n.tendAway(all)
}

// away is a time in which the clients of a group, by their networks, don't reach it here.
type away struct {
	// since is the last instant at which they did, and by the first at which they did not, as far as is known. 0: they do.
	since, by cluster.Instant
	late      bool            // they may have ceased to before since
	why       string          // in the words of NetworkView.Why
	seen      cluster.Instant // when they last did not
	epoch     cluster.Epoch   // the log says so of this one, and has given the group to another; 0: it does not
}

// earlier takes when another network was lost, if that was before.
func (a *away) earlier(since, by cluster.Instant, late bool) {
	if a.since == 0 || since < a.since {
		a.since, a.by, a.late = since, by, late
	}
}

// tendAway brings it into line with how this node is in its networks. A target must answer another for good, or it may be
// dead itself, or come back just now; a link on which nobody hears anybody is lost.
func (n *Node) tendAway(all []cluster.Network) {
	var lost []int // by their places
	for w := range all {
		if all[w].On != nil && all[w].On[n.self].State == cluster.NetLost && (w < len(n.spec.Links) || all[w].Has()) {
			lost = append(lost, w)
		}
	}
	for i := range n.groups {
		l, now := &n.groups[i], away{seen: n.now.Mono}
		for _, w := range lost {
			if n.needs(i, w, n.self) {
				now.why = all[w].On[n.self].Why
				now.earlier(n.leftNetwork(w))
			}
		}
		switch was := &l.away; {
		case now.since != 0 && was.since != 0:
			was.seen = n.now.Mono
		case now.since != 0:
			*was = now
			n.due(i)
		case was.since != 0 && !n.isTakenAway(l):
			was.since = 0
			n.due(i)
		}
	}
}

// isTakenAway reports whether the log has given a group to another node for the sake of its clients' networks.
func (n *Node) isTakenAway(l *local) bool {
	return l.away.epoch != 0 && l.away.epoch == l.service.Epoch && (l.open == 0 || l.open == l.away.epoch)
}

// takenAway ends the account of a group that the log gives to another node since its clients don't reach it here: this
// node may not have seen that yet.
func (n *Node) takenAway(i int) {
	l := &n.groups[i]
	if l.away.since == 0 && l.service.Up {
		l.away = away{seen: n.now.Mono}
		for w := range len(n.spec.Links) + len(n.spec.Targets) {
			if !n.needs(i, w, n.self) {
				continue
			}
			l.away.earlier(n.leftNetwork(w))
		}
	}
	if l.away.since != 0 && l.service.Up {
		l.away.epoch = l.service.Epoch
		n.serviceEnds(i, false)
	}
}

// leftNetwork bounds when this node, which has lost a network, was last in it. late: it may have been before that, since
// it hears the others, who do not hear it.
func (n *Node) leftNetwork(network int) (since, by cluster.Instant, late bool) {
	u, d, h := &n.networks, n.timing.D, n.timing.H
	since, by, late = n.now.Mono.Add(-d-2*h), n.now.Mono.Add(-d+2*h), true
	if t := network - len(n.spec.Links); t >= 0 {
		since, by, late = u.answeredAt[n.spec.Targets[t]], u.missedAt[n.spec.Targets[t]], false
	} else if at := n.silentOn(network, d/2); len(at) >= cluster.Quorum(n.votersOn(network)) { // the last of these made it lost
		since = at[cluster.Quorum(n.votersOn(network))-1]
		by, late = since.Add(2*h), false
	}
	since = max(since, n.start)
	return since, min(max(by, since), n.now.Mono), late
}

// silentOn returns when those voters were last heard on a link, in order, that have been silent there for longer than d.
func (n *Node) silentOn(link int, d time.Duration) (at []cluster.Instant) {
	for i := range n.peers {
		p := &n.peers[i]
		if last := p.det.Link(link); i != n.self && p.votes && n.joins(link, i) && n.now.Mono.Sub(last) > d {
			at = append(at, last)
		}
	}
	slices.Sort(at)
	return at
}

// votersOn returns how many voters a link joins.
func (n *Node) votersOn(link int) (count int) {
	for i := range n.peers {
		if n.peers[i].votes && n.joins(link, i) {
			count++
		}
	}
	return count
}

// unfit begins anew the time for which a node is fit to serve the groups that need a network which it has lost.
func (n *Node) unfit(i, network int) {
	for g := range n.groups {
		if n.groups[g].fit != nil && n.needs(g, network, i) {
			delete(n.groups[g].fit, n.peers[i].id)
			n.due(g)
		}
	}
}

// needs tells whether a network, by its place in what judge returns, shows whether a group's clients reach a node.
func (n *Node) needs(g, network, i int) bool {
	used := n.uses(g)
	if network < len(used) {
		return used[network]>>i&1 != 0
	}
	return slices.Contains(n.spec.Groups[g].Reach.Targets, n.spec.Targets[network-len(used)])
}
