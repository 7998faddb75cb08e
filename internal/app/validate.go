package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/io/api"
	"baton/internal/io/resource"
)

// Peers asks the agents of other nodes.
type Peers interface {
	// ValidateOn returns why the node can't take a text. An error means that it could not be asked.
	ValidateOn(ctx context.Context, node cluster.NodeID, text []byte) ([]api.Problem, error)
}

// How long another node may take to check a text: one that is heard, and one that is not.
const (
	askLimit    = 5 * time.Second
	silentLimit = time.Second
)

// ValidateOn implements Peers.
func (b *backend) ValidateOn(ctx context.Context, node cluster.NodeID, text []byte) ([]api.Problem, error) {
	agent := b.a.access.peers.client(node)
	defer agent.Close()
	r, err := agent.Config.Validate(ctx, &batonv1.ValidateRequest{Text: string(text)})
	if err != nil {
		return nil, errors.New(api.Explain(err).Text)
	}
	return api.ProblemsFrom(r), nil
}

// host is what a text is checked against on this node.
type host struct {
	self    cluster.NodeID
	present *cluster.Spec // what counts now; nil: nothing yet
	sync    time.Duration // how long a sync of the log takes here
}

// validate returns why this node can't take a text, which may be good in itself.
func (h *host) validate(text []byte) []api.Problem {
	next, err := readConfig("cluster.yaml", text)
	if err != nil {
		return h.unreadable(err)
	}
	self := next.Node(h.self)
	if self == nil {
		return nil // this node leaves
	}
	var out []api.Problem
	add := func(hint, format string, args ...any) {
		out = append(out, api.Problem{Node: h.self, Text: fmt.Sprintf(format, args...), Hint: hint})
	}
	h.links(next, add)
	for _, g := range next.Groups {
		if g.Prefers(h.self) < 0 {
			continue
		}
		for _, r := range g.On(h.self).Resources {
			if hint, err := checkResource(r); err != nil {
				add(hint, "group %s: %s: %v", g.ID, r.ID, err)
			}
		}
	}
	t := next.Timing
	if _, _, err := config.Derive(t.Takeover, t.Stall, max(t.Sync, h.sync), t.RTT); err != nil && (h.present == nil || t.Takeover < h.present.Timing.Takeover) {
		add("write a longer takeover, or give the data directory a faster disk", "%v", err)
	}
	return out
}

func (h *host) unreadable(err error) (out []api.Problem) {
	var wrong config.Errors
	if !errors.As(err, &wrong) {
		return []api.Problem{{Node: h.self, Text: err.Error()}}
	}
	for _, w := range wrong {
		shown := *w
		shown.Hint = "" // it stands in a field of its own
		out = append(out, api.Problem{Node: h.self, Text: shown.Error(), Hint: w.Hint})
	}
	return out
}

// links checks this node's addresses, and the ports that it does not hold already.
func (h *host) links(next *cluster.Spec, add func(hint, format string, args ...any)) {
	here, err := hostAddresses()
	if err != nil {
		add("", "ask for this host's addresses: %v", err)
		return
	}
	held := make(map[netip.AddrPort]bool)
	if h.present != nil {
		for _, l := range h.present.Links {
			held[netip.AddrPortFrom(l.UDP.Addresses[h.self], l.UDP.Port)] = true
		}
	}
	for _, l := range next.Links {
		at := netip.AddrPortFrom(l.UDP.Addresses[h.self], l.UDP.Port)
		if !at.Addr().IsValid() || held[at] {
			continue
		}
		if !slices.Contains(here, at.Addr().Unmap()) {
			add("ip address add, or correct the file", "link %s: %s is not an address of this host", l.Name, at.Addr())
			continue
		}
		for _, network := range []string{"udp", "tcp"} {
			if err := free(network, at); errors.Is(err, syscall.EADDRINUSE) {
				who := "another program"
				if h, found := holderOf(network, at); found {
					who = h.String()
				}
				add(fmt.Sprintf("stop it, or write another port than %d", l.UDP.Port), "link %s: %s port %s is held by %s", l.Name, network, at, who)
			}
		}
	}
}

// checkResource asks a resource's kind what this host lacks for it.
func checkResource(r cluster.ResourceSpec) (hint string, err error) {
	for _, k := range kinds {
		if c, ok := k.(resource.Checker); ok && k.Spec().Name == r.Kind {
			return c.Check(r)
		}
	}
	return "", nil
}

// doubtResource asks a resource's kind what is doubtful of it on this host.
func doubtResource(r cluster.ResourceSpec) (text, hint string) {
	for _, k := range kinds {
		if d, ok := k.(resource.Doubter); ok && k.Spec().Name == r.Kind {
			return d.Doubt(r)
		}
	}
	return "", ""
}

// validateAll checks a text on every node that both files name, all at once.
func validateAll(ctx context.Context, here *host, peers Peers, next *cluster.Spec, o *cluster.Overview) []api.Problem {
	var mu sync.Mutex
	var askers sync.WaitGroup
	var out []api.Problem
	for _, n := range o.Nodes {
		if next.Node(n.ID) == nil {
			continue
		}
		askers.Go(func() {
			problems := validateOn(ctx, here, peers, &n, next.Text)
			mu.Lock()
			out = append(out, problems...)
			mu.Unlock()
		})
	}
	askers.Wait()
	slices.SortStableFunc(out, func(a, b api.Problem) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return out
}

func validateOn(ctx context.Context, here *host, peers Peers, n *cluster.NodeView, text []byte) []api.Problem {
	if n.ID == here.self {
		return here.validate(text)
	}
	limit := askLimit
	if !n.Fresh {
		limit = silentLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	problems, err := peers.ValidateOn(ctx, n.ID, text)
	if err != nil {
		return []api.Problem{{Node: n.ID, Unreached: true, Silent: !n.Fresh, Text: fmt.Sprintf("it could not be asked: %v", err),
			Hint: "start its agent, or let its TCP port in; then try again"}}
	}
	for i := range problems {
		problems[i].Node = n.ID
	}
	return problems
}
