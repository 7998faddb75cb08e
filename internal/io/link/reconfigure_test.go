package link

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// linkOn makes a link of the nodes given in 127.0.NET.0/24.
func linkOn(name string, net int, port uint16, nodes ...cluster.NodeID) cluster.LinkSpec {
	addresses := make(map[cluster.NodeID]netip.Addr)
	for _, id := range nodes {
		host := slices.Index([]cluster.NodeID{"alpha", "beta", "gamma", "delta"}, id) + 1
		addresses[id] = netip.MustParseAddr(fmt.Sprintf("127.0.%d.%d", net, host))
	}
	return cluster.LinkSpec{Name: name, UDP: &cluster.UDPLink{Port: port, Addresses: addresses}}
}

func reconfigure(t *testing.T, n *node, links ...cluster.LinkSpec) {
	t.Helper()
	if err := n.Reconfigure(links); err != nil {
		t.Fatal(err)
	}
}

// A link and a node come, others go, and what stays loses no packet, though one node changes long before the
// other and the link's place in the file shifts.
func TestNoPacketIsLostOverWhatStays(t *testing.T) {
	a, b := newNode(t, "alpha", 1, nil), newNode(t, "beta", 2, nil)
	var sent atomic.Uint64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := a.Send("beta", &wire.Ack{Seq: sent.Load() + 1}); err != nil {
				t.Errorf("send: %v", err)
			}
			sent.Add(1)
			time.Sleep(200 * time.Microsecond)
		}
	}()
	more := func(n uint64) {
		goal := sent.Load() + n
		eventually(t, "more is sent", func() bool { return sent.Load() >= goal })
	}
	next := []cluster.LinkSpec{
		linkOn("front", 3, port, "alpha", "beta", "delta"),
		linkOn("lan", 1, port, "alpha", "beta", "delta"),
	}
	more(100)
	reconfigure(t, a, next...)
	more(100)
	reconfigure(t, b, next...)
	more(100)
	reconfigure(t, b, twoLinks()...)
	more(100)
	reconfigure(t, a, twoLinks()...)
	more(100)
	close(stop)
	<-stopped
	total := sent.Load()
	eventually(t, "beta has all of lan", func() bool {
		s := b.Stats()[0]
		return s.Link == "lan" && s.Peers["alpha"].Received == total
	})
	seen := make(map[uint64]bool)
	for len(b.got) > 0 {
		d := <-b.got
		seen[d.m.(*wire.Ack).Seq] = true
		if d.link > 1 {
			t.Fatalf("got %+v: there were never more than two links", d)
		}
	}
	if uint64(len(seen)) != total {
		t.Errorf("of %d packets %d came over some link", total, len(seen))
	}
	if got := b.Stats()[0].Peers["alpha"]; got != (PeerStats{Received: total}) {
		t.Errorf("lan at beta: %+v, %d were sent", got, total)
	}
	if got := a.Stats()[0].Peers["beta"]; got != (PeerStats{Sent: total}) {
		t.Errorf("lan at alpha: %+v, %d were sent", got, total)
	}
}

// What is handed over bears the index of the links as they are: the old one before the change, then the new.
func TestIndexFollowsTheFile(t *testing.T) {
	a, b := newNode(t, "alpha", 1, nil), newNode(t, "beta", 2, nil)
	if err := a.SendOn(1, "beta", &wire.Ack{Seq: 1}); err != nil {
		t.Fatal(err)
	}
	if d := b.next(t); d.link != 1 {
		t.Errorf("cross is 1, got %+v", d)
	}
	two := twoLinks()
	reconfigure(t, b, two[1], two[0])
	if err := a.SendOn(1, "beta", &wire.Ack{Seq: 2}); err != nil { // alpha has the former file
		t.Fatal(err)
	}
	if d := b.next(t); d.link != 0 || d.m.(*wire.Ack).Seq != 2 {
		t.Errorf("cross is 0 at beta now, got %+v", d)
	}
	if err := b.SendOn(1, "alpha", &wire.Ack{Seq: 3}); err != nil {
		t.Fatal(err)
	}
	if d := a.next(t); d.link != 0 || d.m.(*wire.Ack).Seq != 3 {
		t.Errorf("lan is 0 at alpha still, got %+v", d)
	}
}

// This node's port and address of a link change, and a link takes the address of one that goes.
func TestOwnAddressChanges(t *testing.T) {
	a, b := newNode(t, "alpha", 1, nil), newNode(t, "beta", 2, nil)
	lan := twoLinks()[0]
	for i, cross := range []cluster.LinkSpec{
		linkOn("cross", 2, port+1, "alpha", "beta", "gamma"),
		linkOn("cross", 4, port+1, "alpha", "beta", "gamma"),
		linkOn("renamed", 4, port+1, "alpha", "beta", "gamma"),
	} {
		reconfigure(t, a, lan, cross)
		reconfigure(t, b, lan, cross)
		if s := b.Stats()[1]; !s.Up || s.Link != cross.Name {
			t.Fatalf("change %d: %+v", i, s)
		}
		seq := uint64(i + 1)
		if err := a.SendOn(1, "beta", &wire.Ack{Seq: seq}); err != nil {
			t.Fatal(err)
		}
		if d := b.next(t); d.link != 1 || d.m.(*wire.Ack).Seq != seq {
			t.Errorf("change %d: got %+v", i, d)
		}
		eventually(t, "TCP listens", func() bool { return b.Stats()[2].Up })
	}
	// What went is closed: another may have its addresses.
	for _, address := range []string{"127.0.2.2", "127.0.4.2"} {
		for _, p := range []int{port, port + 1} {
			if address == "127.0.4.2" && p == port+1 {
				continue
			}
			at := fmt.Sprintf("%s:%d", address, p)
			conn, err := net.ListenPacket("udp", at)
			if err != nil {
				t.Errorf("what went is still open: %v", err)
				continue
			}
			conn.Close()
			eventually(t, "nobody listens on "+at, func() bool {
				ln, err := net.Listen("tcp", at)
				if err == nil {
					ln.Close()
				}
				return err == nil
			})
		}
	}
}

// An address that this node does not have is told, and tried again; the other link goes on.
func TestNewAddressIsNotHere(t *testing.T) {
	a, b := newNode(t, "alpha", 1, nil), newNode(t, "beta", 2, nil)
	away := linkOn("cross", 2, port, "alpha", "beta")
	away.UDP.Addresses["beta"] = netip.MustParseAddr("10.99.7.2")
	reconfigure(t, b, twoLinks()[0], away)
	s := b.Stats()[1]
	if s.Up || s.Detail != "no address yet: 10.99.7.2 is not on this node" {
		t.Errorf("got %+v", s)
	}
	b.mu.Lock()
	if n := len(b.changes); n == 0 || b.changes[n-1] != "cross false"+s.Detail {
		t.Errorf("told of %q", b.changes)
	}
	b.mu.Unlock()
	send(t, a, "beta", &wire.Ack{Seq: 1})
	if d := b.next(t); d.link != 0 {
		t.Errorf("got %+v", d)
	}
	reconfigure(t, b, twoLinks()...)
	if s := b.Stats()[1]; !s.Up {
		t.Errorf("with its old address: %+v", s)
	}
}

// A node that goes is a stranger at once. One that comes back is heard.
func TestNodeGoesAndComesBack(t *testing.T) {
	a, b := newNode(t, "alpha", 1, nil), newNode(t, "beta", 2, nil)
	without := linkOn("lan", 1, port, "beta", "gamma")
	reconfigure(t, b, without)
	if err := b.Send("alpha", &wire.Ack{Seq: 1}); err == nil {
		t.Error("a message for a node that has gone was taken")
	}
	send(t, a, "beta", &wire.Ack{Seq: 1})
	eventually(t, "it is refused", func() bool { return b.Stats()[0].Unknown == 1 })
	b.nothing(t)
	reconfigure(t, b, twoLinks()...)
	send(t, a, "beta", &wire.Ack{Seq: 2})
	for range 2 {
		if d := b.next(t); d.m.(*wire.Ack).Seq != 2 {
			t.Errorf("got %+v", d)
		}
	}
}

func TestReconfigureRefusesMistakes(t *testing.T) {
	a, b := newNode(t, "alpha", 1, nil), newNode(t, "beta", 2, nil)
	if err := a.Reconfigure(make([]cluster.LinkSpec, wire.LinksMax+1)); err == nil {
		t.Error("too many links were taken")
	}
	long := linkOn("lan", 1, port, "alpha", "beta")
	long.UDP.Addresses[cluster.NodeID(make([]byte, wire.MaxName+1))] = netip.MustParseAddr("127.0.1.9")
	if err := a.Reconfigure([]cluster.LinkSpec{long}); err == nil {
		t.Error("a name that is too long was taken")
	}
	send(t, a, "beta", &wire.Ack{Seq: 1})
	for range 2 { // nothing has changed
		b.next(t)
	}
	a.Close()
	if err := a.Reconfigure(twoLinks()); err == nil {
		t.Error("closed links were changed")
	}
}
