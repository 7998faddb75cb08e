package config

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"baton/internal/core/cluster"
)

// Defaults and limits of the file.
const (
	// DefaultTakeover outlives the stalls of virtual machines.
	DefaultTakeover = 3 * time.Second
	// DefaultKeyFile is where the cluster's key is looked for.
	DefaultKeyFile = "/etc/baton/key"
	// DefaultPort is the UDP port of links and the TCP port of the API.
	DefaultPort = 7400
	// DefaultFailbackAfter is how long a preferred node must have been well before an automatic failback.
	DefaultFailbackAfter = 10 * time.Minute
	// MinTakeover and MaxTakeover bound takeover.
	MinTakeover = 100 * time.Millisecond
	MaxTakeover = 60 * time.Second
	// MinVoters is the least number of nodes: with two, none is a majority when the other dies.
	MinVoters = 3
	// MaxNodes bounds a cluster: every node sends heartbeats to every voter.
	MaxNodes = 7

	maxLinks     = 8
	maxGroups    = 500
	maxResources = 50   // of one group
	maxOfAll     = 1000 // of all groups
	maxRestarts  = 10
)

// What the timing is derived from before `baton check` has measured this cluster.
const (
	DefaultStall = 15 * time.Millisecond
	DefaultSync  = time.Millisecond
	DefaultRTT   = time.Millisecond
)

// Parse reads a cluster file. The name stands in errors only; kinds are the resource kinds that the
// file may use. An error is of type Errors and holds everything that is wrong.
func Parse(name string, text []byte, kinds []cluster.KindSpec) (*cluster.Spec, error) {
	return parseBy(name, text, kinds, cluster.GroupID.Key)
}

// parseBy is Parse with another function for the groups' keys.
func parseBy(name string, text []byte, kinds []cluster.KindSpec, keyOf func(cluster.GroupID) uint64) (*cluster.Spec, error) {
	r := &reader{
		keyOf:      keyOf,
		complaints: complaints{file: name, lines: sourceLines(text)},
		kinds:      kinds,
		keys:       make(map[string][]key),
		spec:       &cluster.Spec{Text: bytes.Clone(text)},
		nodeAt:     make(map[cluster.NodeID]position),
	}
	if root := r.tree(text); root != nil && len(r.errs) == 0 {
		r.cluster(root)
	}
	if err := r.result(); err != nil {
		return nil, err
	}
	return r.spec, nil
}

func sourceLines(text []byte) []string {
	lines := strings.Split(string(text[:min(len(text), maxFile)]), "\n")
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
	}
	return lines
}

func (r *reader) cluster(root *node) {
	s := r.section(root, "the cluster file", fileKeys)
	if s == nil {
		return
	}
	if n := s["cluster"]; n != nil {
		if text, ok := r.text(n, "cluster"); ok && r.goodName(n.position, "a cluster", text) {
			r.spec.Cluster = text
		}
	}
	r.spec.KeyFile = DefaultKeyFile
	if n := s["key_file"]; n != nil {
		if text, ok := r.text(n, "key_file"); ok {
			if !path.IsAbs(text) {
				r.fail(n.position, "write the whole path, beginning with /", "key_file: %q is no absolute path", clip(text))
			}
			r.spec.KeyFile = text
		}
	}
	r.takeover(s["takeover"])
	if n := s["nodes"]; n != nil {
		r.nodes(n)
	}
	r.links(s["links"])
	if n := s["reach"]; n != nil {
		r.reachAll = r.reach(n, "the file")
	}
	if n := s["groups"]; n != nil {
		r.groups(n)
	}
	r.rulesBetween()
	r.health(s["health"])
}

func (r *reader) takeover(n *node) {
	takeover := DefaultTakeover
	if n != nil {
		t, ok := r.duration(n, "takeover", MinTakeover, MaxTakeover)
		if !ok {
			return
		}
		takeover = t
	}
	timing, _, err := Derive(takeover, DefaultStall, DefaultSync, DefaultRTT)
	if err != nil {
		at := position{1, 1}
		if n != nil {
			at = n.position
		}
		r.fail(at, "", "%v", err)
	}
	r.spec.Timing = timing
}

func (r *reader) nodes(n *node) {
	if n.kind != isMap {
		r.wants(n, "nodes", "a map from names to nodes")
		return
	}
	addresses := make(map[netip.Addr]cluster.NodeID)
	for _, e := range n.entries {
		spec := r.node(e)
		if !spec.Address.IsValid() {
			continue
		}
		if other, taken := addresses[spec.Address]; taken {
			r.fail(r.nodeAt[spec.ID], fmt.Sprintf("give each its own; node %s stands in line %d", other, r.nodeAt[other].line),
				"node %s has the address %s, which node %s has already", spec.ID, spec.Address, other)
			continue
		}
		addresses[spec.Address] = spec.ID
	}
	slices.SortFunc(r.spec.Nodes, func(a, b cluster.NodeSpec) int { return cmp.Compare(a.ID, b.ID) })
	switch count := len(n.entries); {
	case count == 2:
		r.fail(n.position, "add a witness, which needs no service and little power: gamma: { address: ADDRESS, role: witness }",
			"two nodes: if one dies the other is no majority, so a cluster needs at least %d voters; arbiters for two nodes are %s", MinVoters, notInThisVersion)
	case count < MinVoters:
		r.fail(n.position, "write at least two members and a witness", "a cluster needs at least %d voters, and this one has %d", MinVoters, count)
	case count > MaxNodes:
		r.fail(n.entries[MaxNodes].position, "make two clusters of it", "%d nodes: a cluster has at most %d", count, MaxNodes)
	}
}

var roles = map[string]cluster.Role{"member": cluster.Member, "spare": cluster.Spare, "witness": cluster.Witness}

// node reads one node and notes it under its name, though something is wrong with it, so that what
// refers to it does not fail as well.
func (r *reader) node(e entry) cluster.NodeSpec {
	spec := cluster.NodeSpec{ID: cluster.NodeID(e.key)}
	r.goodName(e.position, "a node", e.key)
	what := "node " + clip(e.key)
	if s := r.section(e.value, what, nodeKeys); s != nil {
		if n := s["address"]; n != nil {
			r.nodeAt[spec.ID] = n.position
			if a, ok := r.address(n, "address of "+what); ok {
				spec.Address = a
			}
		}
		if n := s["role"]; n != nil {
			word, _ := r.word(n, "role of "+what, "member", "spare", "witness")
			spec.Role = roles[word]
		}
	}
	r.spec.Nodes = append(r.spec.Nodes, spec)
	return spec
}

// nodeNames are the names of all nodes of the file, for hints.
func (r *reader) nodeNames() []string {
	names := make([]string, len(r.spec.Nodes))
	for i := range r.spec.Nodes {
		names[i] = string(r.spec.Nodes[i].ID)
	}
	return names
}

// links reads the links, or makes the default one if n is nil.
func (r *reader) links(n *node) {
	if n == nil {
		r.spec.Links = []cluster.LinkSpec{{Name: "lan", UDP: &cluster.UDPLink{Port: DefaultPort, Addresses: r.ownAddresses()}}}
		return
	}
	if n.kind != isList || len(n.items) == 0 {
		r.wants(n, "links", "a list with at least one link")
		return
	}
	if len(n.items) > maxLinks {
		r.fail(n.items[maxLinks].position, "", "%d links: a cluster has at most %d", len(n.items), maxLinks)
		return
	}
	names := make(map[string]bool)
	sockets := make(map[netip.AddrPort]string)
	for i, item := range n.items {
		link := r.link(item, i)
		if link.Name != "" && names[link.Name] {
			r.fail(item.position, "", "a second link named %q", link.Name)
		}
		names[link.Name] = true
		r.spec.Links = append(r.spec.Links, link)
		if link.UDP == nil {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(link.UDP.Addresses)) {
			socket := netip.AddrPortFrom(link.UDP.Addresses[id], link.UDP.Port)
			if other, taken := sockets[socket]; taken && socket.Addr().IsValid() {
				r.fail(item.position, "", "node %s on link %s: %s is taken by %s", id, link.Name, socket, other)
			}
			sockets[socket] = fmt.Sprintf("node %s on link %s", id, link.Name)
		}
	}
	if len(r.errs) == 0 {
		r.joined(n)
	}
}

func (r *reader) ownAddresses() map[cluster.NodeID]netip.Addr {
	out := make(map[cluster.NodeID]netip.Addr)
	for _, n := range r.spec.Nodes {
		out[n.ID] = n.Address
	}
	return out
}

func (r *reader) link(n *node, index int) cluster.LinkSpec {
	link, what := cluster.LinkSpec{}, fmt.Sprintf("link %d", index+1)
	s := r.section(n, what, linkKeys)
	if s == nil {
		return link
	}
	if n := s["name"]; n != nil {
		if text, ok := r.text(n, "name of "+what); ok && r.goodName(n.position, "a link", text) {
			link.Name, what = text, "link "+text
		}
	}
	if s["udp"] == nil {
		return link
	}
	udp := &cluster.UDPLink{Port: DefaultPort}
	u := r.section(s["udp"], "udp of "+what, udpKeys)
	if u == nil {
		return link
	}
	if n := u["port"]; n != nil {
		port, _ := r.integer(n, "port of "+what, 1, 65535)
		udp.Port = uint16(port)
	}
	link.UDP = udp
	if n := u["addresses"]; n != nil {
		udp.Addresses = r.linkAddresses(n, what)
	} else {
		udp.Addresses = r.ownAddresses()
	}
	return link
}

func (r *reader) linkAddresses(n *node, what string) map[cluster.NodeID]netip.Addr {
	out := make(map[cluster.NodeID]netip.Addr)
	if n.kind != isMap {
		r.wants(n, "addresses of "+what, "a map from nodes to addresses")
		return out
	}
	for _, e := range n.entries {
		if !r.knownNode(e.position, e.key, what) {
			continue
		}
		if a, ok := r.address(e.value, fmt.Sprintf("address of %s on %s", e.key, what)); ok {
			out[cluster.NodeID(e.key)] = a
		}
	}
	if len(n.entries) < 2 {
		r.fail(n.position, "", "%s joins fewer than two nodes", what)
	}
	return out
}

// knownNode checks a reference to a node.
func (r *reader) knownNode(at position, name, what string) bool {
	if r.spec.Node(cluster.NodeID(name)) != nil {
		return true
	}
	r.fail(at, didYouMean(name, r.nodeNames()), "%s names the node %q, which is not under nodes", what, clip(name))
	return false
}

// joined demands a link between every two nodes: nobody passes on what others say.
func (r *reader) joined(links *node) {
	for i, a := range r.spec.Nodes {
		for _, b := range r.spec.Nodes[i+1:] {
			if !slices.ContainsFunc(r.spec.Links, func(l cluster.LinkSpec) bool {
				_, hasA := l.UDP.Addresses[a.ID]
				_, hasB := l.UDP.Addresses[b.ID]
				return hasA && hasB
			}) {
				r.fail(links.position, "add a link without addresses, which joins all nodes: - { name: lan, udp: { port: 7400 } }",
					"no link joins %s and %s, and nobody passes on what they say to each other", a.ID, b.ID)
			}
		}
	}
}
