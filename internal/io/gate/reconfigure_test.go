package gate

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// flow sends datagrams from the client to an address of the node, numbered by their count.
type flow struct {
	sent, came atomic.Int64
	newest     atomic.Int64 // when the kernel got the newest that came, in CLOCK_BOOTTIME
	in         net.Conn
	out        *net.UDPConn
	ended      chan struct{}
}

func (w *world) flow(t *testing.T, address string) *flow {
	t.Helper()
	f := &flow{out: w.listen(t, address), ended: make(chan struct{})}
	var err error
	in(t, w.client, func() { f.in, err = net.Dial("udp", address) })
	must(t, err)
	go func() {
		b, oob := make([]byte, 64), make([]byte, 256)
		for {
			_, n, _, _, err := f.out.ReadMsgUDP(b, oob)
			if err != nil {
				return
			}
			if at := stamp(oob[:n]); at != 0 {
				f.newest.Store(at)
			}
			f.came.Add(1)
		}
	}()
	return f
}

// passes tells whether a datagram that the kernel gets from now on comes, within patience.
func (f *flow) passes(patience time.Duration) bool {
	for begin := boottime(); boottime() < begin+int64(patience); time.Sleep(time.Millisecond) {
		if f.newest.Load() > begin+reading {
			return true
		}
	}
	return false
}

// run sends until stop is closed, about every 100 us.
func (f *flow) run(stop <-chan struct{}) {
	go func() {
		defer close(f.ended)
		defer f.in.Close()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := f.in.Write([]byte("beat")); err == nil || errors.Is(err, unix.ECONNREFUSED) {
				f.sent.Add(1)
			}
			time.Sleep(100 * time.Microsecond)
		}
	}()
}

// settled waits until what was sent came, or it is plain that it does not.
func (f *flow) settled() (sent, came int64) {
	<-f.ended
	sent = f.sent.Load()
	for end := time.Now().Add(time.Second); time.Now().Before(end) && f.came.Load() < sent; {
		before := f.came.Load()
		if time.Sleep(5 * time.Millisecond); f.came.Load() > before {
			end = time.Now().Add(time.Second)
		}
	}
	return sent, f.came.Load()
}

// Groups come and go, others' addresses and ports change: an open gate loses no packet, a closed one lets none
// pass, and what is no group's is not touched.
func TestOthersStayOpen(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		for _, host := range []string{"60", "70", "71"} {
			w.address(t, w.node, "va", "10.77.0."+host+"/24")
		}
		g := w.open(t, Options{Prefer: prefer})
		open := Group{ID: "orders", Addresses: []netip.Addr{vip4}, Ports: []cluster.Port{{Protocol: "udp", Number: 8000}}}
		shut := Group{ID: "billing", Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.60")}}
		comes := Group{ID: "archive", Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.70")}, Ports: []cluster.Port{{Protocol: "tcp", Number: 8100}}}
		must(t, g.Guard([]Group{open, shut}))
		must(t, g.Set("orders", 3, hence(time.Hour)))
		flows := map[string]*flow{}
		for _, address := range []string{"10.77.0.50:7000", "10.77.0.1:8000", "10.77.0.1:7001", "10.77.0.60:7000"} {
			flows[address] = w.flow(t, address)
		}
		stop := make(chan struct{})
		for _, f := range flows {
			f.run(stop)
		}
		more := open
		more.Addresses = append(more.Addresses[:1:1], netip.MustParseAddr("10.77.0.71"))
		more.Ports = append(more.Ports[:1:1], cluster.Port{Protocol: "udp", Number: 8001})
		moved := comes
		moved.ID = "attic" // its address has another owner
		for i, groups := range [][]Group{
			{open, shut, comes}, {comes, more, shut}, {open, shut, moved}, {moved, shut, open}, {open, shut, comes}, {open, shut},
		} {
			must(t, g.Guard(groups))
			if i == 0 {
				must(t, g.Set("archive", 9, hence(time.Hour)))
			}
			time.Sleep(30 * time.Millisecond)
		}
		const closed = "10.77.0.60:7000"
		if came := flows[closed].came.Load(); came > 0 {
			t.Errorf("%d packets came through a closed gate", came)
		}
		must(t, g.Set("billing", 1, hence(time.Hour)))
		for end := time.Now().Add(long); flows[closed].came.Load() == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("no packet came through the gate when it was opened: nothing is shown")
			}
		}
		close(stop)
		for address, f := range flows {
			if sent, came := f.settled(); sent == 0 || came != sent && address != closed {
				t.Errorf("%s: %d of %d packets came through the changes", address, came, sent)
			}
		}
		if err := g.Set("archive", 10, hence(time.Hour)); !errors.Is(err, ErrUnknownGroup) {
			t.Errorf("a group that went: %v", err)
		}
		left, err := g.Left()
		must(t, err)
		if len(left) != 2 || left[0].Group != "billing" || left[1].Group != "orders" || left[1].Epoch != 3 {
			t.Errorf("left %v", left)
		}
		must(t, g.Guard([]Group{open, comes}))
		closeGroup(t, g, "archive", 1) // forgotten, and so a new group
	})
}

// An address is taken from a group whose gate is open, and put behind one that nobody opens: from Guard's return on
// nothing passes. Given to another open group, it passes again.
func TestTakenAddressIsShut(t *testing.T) {
	each(t, func(t *testing.T, prefer string) {
		w := newWorld(t)
		w.address(t, w.node, "va", "10.77.0.60/24")
		g := w.open(t, Options{Prefer: prefer})
		x := netip.MustParseAddr("10.77.0.60")
		web, mail := Group{ID: "web", Addresses: []netip.Addr{x}}, Group{ID: "mail", Addresses: []netip.Addr{x}}
		bareWeb, bareMail, shut := Group{ID: "web"}, Group{ID: "mail"}, Group{ID: "(shut)", Addresses: []netip.Addr{x}}
		must(t, g.Guard([]Group{web, bareMail}))
		must(t, g.Set("web", 3, hence(time.Hour)))
		must(t, g.Set("mail", 3, hence(time.Hour)))
		f := w.flow(t, "10.77.0.60:7000")
		stop := make(chan struct{})
		f.run(stop)
		if !f.passes(long) {
			t.Error("nothing passes an open gate")
		}
		for range 3 {
			must(t, g.Guard([]Group{bareWeb, bareMail, shut}))
			time.Sleep(20 * time.Millisecond) // what was under way
			if f.passes(short) {
				t.Error("it passes though it was taken away")
			}
			must(t, g.Guard([]Group{bareMail, shut})) // its group goes as well
			must(t, g.Guard([]Group{bareWeb, mail}))
			if !f.passes(long) {
				t.Error("it does not pass the gate of whose it is now")
			}
		}
		close(stop)
		f.settled()
	})
}
