package app

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/io/api"
	"baton/internal/io/link"
	"baton/internal/io/resource"
)

// observing is what tells how the agent is.
type observing struct {
	metrics *api.Metrics
	health  *api.Health       // for monitors, where the configuration says
	outputs *resource.Outputs // of programs
	// printing is where programs print; the loop's alone once it runs.
	printing outputPlace
}

// observe makes what counts, before anything happens.
func (a *agent) observe() {
	a.metrics = api.NewMetrics(Version(), a.vitals)
	a.health = api.NewHealth(a.metrics, a.log)
}

// Metrics implements api.Observed.
func (b *backend) Metrics() *api.Metrics { return b.a.metrics }

// vitals gathers how this agent is. It waits for the loop if that has not done anything for long.
func (a *agent) vitals() (*api.Vitals, error) {
	p, err := a.look(context.Background())
	if err != nil {
		return nil, err
	}
	v := &api.Vitals{Overview: p.seen(time.Now())}
	nodes, links := p.spec.Nodes, a.links
	v.InboxDropped = a.inbox.drops()
	v.LogDropped = a.logs.out.lost.Load()
	narrow := links.Narrow()
	for _, s := range links.Stats() {
		l := api.LinkVitals{Link: s.Link, Up: s.Up, Strange: s.Strange + s.TooLarge + s.Unknown + s.WrongLink}
		for i := range nodes {
			if p, ok := s.Peers[nodes[i].ID]; ok {
				l.Peers = append(l.Peers, api.PeerVitals{Node: nodes[i].ID, Sent: p.Sent, Received: p.Received, Dropped: p.Dropped,
					Failed: p.Failed, Forged: p.Forged, Replayed: p.Replayed, Malformed: p.Malformed,
					Narrow: slices.Contains(narrow, link.Narrow{Link: s.Link, Peer: nodes[i].ID})})
			}
		}
		v.Links = append(v.Links, l)
	}
	return v, nil
}

// drops returns how many packets were displaced by newer ones.
func (b *inbox) drops() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}

// answerMonitors makes the agent answer them where the configuration says, and nowhere else.
func (a *agent) answerMonitors() {
	a.health.Listen(func() netip.AddrPort {
		at, _ := a.shared.Load().HealthAddress(a.self)
		return at
	})
}

// lastWrite returns when something was last written to a data directory; 0: never, or it can't be told.
func lastWrite(dir string) (at cluster.WallTime) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, f := range files {
		if info, err := os.Stat(filepath.Join(dir, f.Name())); err == nil && info.Mode().IsRegular() {
			at = max(at, cluster.WallTime(info.ModTime().UnixNano()))
		}
	}
	return at
}
