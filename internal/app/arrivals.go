package app

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"baton/internal/core/cluster"
	"baton/internal/io/resource"
)

// This file ends waiting when the kernel tells that what is waited for may have come. Interfaces and addresses are
// listened for at all times, files, mounts and ports while something lacks them.

// awaiting has what resources lack watched for.
type awaiting struct {
	watch     *resource.Watch // nil: it can't be had
	complaint complaint
}

func newAwaiting(log *slog.Logger, came func()) *awaiting {
	w, err := resource.NewWatch(came)
	if err != nil {
		log.Error("files and ports that are missing are not watched for, but looked at now and then", "cause", err)
	}
	return &awaiting{watch: w}
}

// await watches for what the resources lack, and for nothing else. It reports whether that is more than before: the
// host is to be looked at again.
func (w *awaiting) await(log *slog.Logger, spec *cluster.Spec, self cluster.NodeID, lacking []cluster.Lack) (more bool) {
	if w.watch == nil {
		return false
	}
	var all resource.Awaited
	for _, l := range lacking {
		g := spec.Group(l.Group)
		if g == nil {
			continue
		}
		r := g.On(self).Resource(l.Resource)
		if r == nil || kindOf(r.Kind) == nil {
			continue
		}
		a := resource.AwaitedBy(kindOf(r.Kind), *r)
		all.Files, all.Ports = append(all.Files, a.Files...), append(all.Ports, a.Ports...)
	}
	more, err := w.watch.Set(all)
	if err != nil {
		w.complaint.failed(log, "not all that is missing is watched for: it is looked at now and then", "cause", err)
	}
	return more
}

func (w *awaiting) close() {
	if w.watch != nil {
		w.watch.Close()
	}
}

// blockedOf asks a resource's kind.
func blockedOf(r cluster.ResourceSpec) error {
	if k := kindOf(r.Kind); k != nil {
		return resource.Blocked(k, r)
	}
	return nil
}

// arrivals notices addresses that come to this host: a program that ended may have missed one, which only it knows.
type arrivals struct {
	mu    sync.Mutex
	moved bool         // addresses may have come or gone since
	known []netip.Addr // those that were here; nil: it was not looked yet
}

// changed notes that addresses have come or gone.
func (x *arrivals) changed() {
	x.mu.Lock()
	x.moved = true
	x.mu.Unlock()
}

// came tells, once, whether an address has come that is no group's: those come and go with the groups.
func (x *arrivals) came(spec *cluster.Spec) (yes bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.known != nil && !x.moved {
		return false
	}
	here, err := hostAddresses()
	if err != nil {
		return false
	}
	for _, ip := range here {
		ours := slices.ContainsFunc(spec.Groups, func(g cluster.GroupSpec) bool { return slices.Contains(g.Addresses(), ip) })
		yes = yes || x.known != nil && !ours && !ip.IsLinkLocalUnicast() && !slices.Contains(x.known, ip)
	}
	x.known, x.moved = here, false
	return yes
}
