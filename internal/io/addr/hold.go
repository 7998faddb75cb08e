package addr

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/io/bounded"
)

// repeats are the times after the first announcement at which it is sent again. The standards ask for two
// ARP announcements 2 s apart (RFC 5227, 1.1 and 2.3) and for up to three advertisements 1 s apart
// (RFC 4861, 10). The last ones are of that kind, and reach hosts and switches whose link was still coming
// up. The early ones are ours: a takeover is worth nothing to a client that missed the only frame, and the
// gate may open up to some milliseconds after the address is up. At most 14 frames, then the refresh.
var repeats = []time.Duration{
	time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second,
}

// DefaultRefresh is between two announcements of an address that has been held for a while: who heard none of the first
// ones, since its port was blocked or its switch was starting, is told within a minute, however long its cache.
const DefaultRefresh = 45 * time.Second

// refreshLeast is the shortest: more announcements would only load the network.
const refreshLeast = time.Second

// jittered spreads what would else be sent at once for many addresses: a third more or less.
func jittered(d time.Duration) time.Duration { return d*2/3 + rand.N(d*2/3+1) }

const (
	// defendEvery is the least time between two answers to a duplicate, and between two reports of it. Of
	// RFC 5227's three ways (2.4) this is (c), to defend for good: the lease says who may serve. Its
	// DEFEND_INTERVAL is 10 s, for segments full of hosts that pick addresses by themselves; here a client
	// misled for 10 s is the greater harm, and two frames per second and address are no storm.
	defendEvery = time.Second

	// duplicateOver is the silence after which a duplicate counts as gone.
	duplicateOver = 30 * time.Second

	// lookAgain is when it is looked again for an address that may have gone, where the kernel did not say.
	lookAgain = time.Second

	// settle spares the processor where an interface reports errors without end.
	settle = 10 * time.Millisecond
)

// hold announces an address and watches over it while this node has it: for other hosts that answer for it,
// and for somebody who takes it off its interface. Its sockets are open from before the address is held until
// the agent ends, since opening them takes time in a takeover, and closing a packet socket takes 15 ms, in
// which the kernel waits for all processors to have let go of it.
type hold struct {
	vip    *vip
	iface  iface
	router bool
	packet *packet.Conn     // nil where there are no Ethernet frames: nobody to tell
	mac    net.HardwareAddr // what the filter for duplicates takes for our own; keep's, while it runs

	again   chan struct{}         // start the repeats anew
	claims  chan net.HardwareAddr // claims by other hosts; one is kept, the rest of a burst dropped
	gone    chan struct{}         // our address went, or may have
	stop    context.CancelFunc    // ends keep; nil while it does not run
	keeper  sync.WaitGroup
	closed  atomic.Bool
	reader  sync.WaitGroup // runs from the first run on
	reading bool
}

// newHold opens the sockets; run starts the work. They are opened here, by the caller's thread, because a
// socket belongs to the network namespace of the thread that opens it.
func (v *vip) newHold(i iface) (*hold, error) {
	h := &hold{vip: v, iface: i,
		again: make(chan struct{}, 1), claims: make(chan net.HardwareAddr, 1), gone: make(chan struct{}, 1)}
	protocol := unix.ETH_P_ARP
	if v.prefix.Addr().Is6() {
		protocol = unix.ETH_P_IPV6
		// The kernel's own advertisements carry the router flag exactly if this is not 0.
		b, err := bounded.ReadFile(filepath.Join("/proc/sys/net/ipv6/conf", i.name, "forwarding"), bounded.Small)
		h.router = err == nil && strings.TrimSpace(string(b)) != "0"
	}
	if i.ether {
		on := &net.Interface{Index: i.index, Name: i.name, HardwareAddr: i.mac}
		var err error
		if h.packet, err = packet.Listen(on, packet.Raw, protocol, &packet.Config{Filter: nothing}); err != nil {
			return nil, fmt.Errorf("open a packet socket: %w", err)
		}
	}
	v.route.table.watchLoss(v.prefix.Addr(), i.index, h.gone)
	return h, nil
}

// run starts the work in the background, or the repeats anew if it runs already. The error says why there is
// no watch for duplicates; all else runs nevertheless.
func (h *hold) run(i iface) error {
	if h.stop != nil {
		signal(h.again)
		return nil
	}
	if !h.reading {
		h.reading = true
		if h.packet != nil {
			h.reader.Go(h.readClaims)
		}
	}
	h.forget()
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	err := h.listen(i)
	h.keeper.Go(func() { h.keep(ctx) })
	return err
}

// listen has claims of all but the interface's own hardware address pass the filter.
func (h *hold) listen(i iface) error {
	if h.packet == nil {
		return nil
	}
	f, err := filter(i, h.vip.prefix.Addr())
	if err != nil {
		return fmt.Errorf("make the filter for duplicates: %w", err)
	}
	h.mac = i.mac
	return h.packet.SetBPF(f)
}

// quiet ends announcements and reports: once it returns there will be no more of them.
func (h *hold) quiet() {
	if h.stop == nil {
		return
	}
	h.stop()
	h.keeper.Wait()
	h.stop = nil
	if h.packet != nil {
		if err := h.packet.SetBPF(nothing); err != nil {
			h.vip.log.Debug("frames still wake the agent", "address", h.vip.prefix, "cause", err)
		}
	}
}

// forget drops what was heard while the address was not held.
func (h *hold) forget() {
	select {
	case <-h.claims:
	default:
	}
	select {
	case <-h.again:
	default:
	}
}

// close ends all work and closes the sockets.
func (h *hold) close() {
	h.quiet()
	h.closed.Store(true)
	h.vip.route.table.unwatchLoss(h.gone)
	if h.packet != nil {
		h.packet.Close()
	}
	h.reader.Wait()
}

// announce sends the announcement once, from the hardware address that the interface has now (that of a
// bond may change).
func (h *hold) announce() error {
	if h.packet == nil {
		return nil
	}
	i, err := h.now()
	if err != nil {
		return err
	}
	return h.send(i)
}

// now looks the interface up.
func (h *hold) now() (iface, error) {
	i, err := h.vip.route.byIndex(h.iface.index)
	if err != nil {
		return i, fmt.Errorf("announce %s: %w", h.vip.prefix.Addr(), err)
	}
	return i, nil
}

// send sends the announcement once on the interface, as it was just looked up.
func (h *hold) send(i iface) error {
	if h.packet == nil {
		return nil
	}
	for _, f := range announcement(h.vip.prefix.Addr(), i.mac, h.router) {
		if _, err := h.packet.WriteTo(f.bytes, &packet.Addr{HardwareAddr: f.to}); err != nil {
			return fmt.Errorf("announce %s on %s (closed gate or no carrier?): %w", h.vip.prefix.Addr(), i.name, err)
		}
	}
	return nil
}

// keep sends the repeats and refreshes, answers duplicates, and tells when the address was taken away.
func (h *hold) keep(ctx context.Context) {
	sent := 0
	repeat := time.NewTimer(h.untilRepeat(0))
	defer repeat.Stop()
	d := duplicate{hold: h, tick: time.NewTimer(0)}
	defer d.tick.Stop()
	present := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.again:
			sent, present = 0, true
			repeat.Reset(h.untilRepeat(0))
			signal(h.gone) // it may have gone since it was put back, which counted for nothing until now
		case <-repeat.C:
			if present {
				h.tell()
			}
			sent++
			repeat.Reset(h.untilRepeat(sent))
		case mac := <-h.claims:
			if present {
				d.seen(mac)
			}
		case <-d.tick.C:
			d.check()
		case <-h.gone:
			if !present {
				continue
			}
			absent, err := h.absent()
			if err != nil {
				h.vip.log.Debug("it is not known whether the address is there", "address", h.vip.prefix, "cause", err)
				time.AfterFunc(lookAgain, func() { signal(h.gone) })
			}
			if absent {
				present = false
				h.vip.changed(cluster.StatusFailed,
					fmt.Sprintf("%s was taken off %s by another program, or %s went down", h.vip.prefix, h.iface.name, h.iface.name), true)
			}
		}
	}
}

// untilRepeat returns the time from announcement n to the next.
func (h *hold) untilRepeat(n int) time.Duration {
	switch r := h.vip.repeats; {
	case n >= len(r) && h.vip.refresh > 0:
		return jittered(h.vip.refresh)
	case n >= len(r):
		return time.Duration(1<<63 - 1) // no further one
	case n == 0:
		return r[0]
	default:
		return r[n] - r[n-1]
	}
}

// tell announces in the background, where a failure has nobody to be returned to. If the interface has another
// hardware address by now, the filter is made anew first: whoever still uses the former one is another host.
func (h *hold) tell() {
	if h.packet == nil {
		return
	}
	i, err := h.now()
	if err == nil && !slices.Equal(i.mac, h.mac) {
		if err := h.listen(i); err != nil {
			h.vip.log.Error("the watch for duplicates knows the former hardware address only", "address", h.vip.prefix, "cause", err)
		}
	}
	if err == nil {
		err = h.send(i)
	}
	if err != nil {
		h.vip.log.Debug("announcement not sent", "address", h.vip.prefix, "cause", err)
	}
}

// absent says whether the kernel has the address no more; false with an error: that is not known.
func (h *hold) absent() (bool, error) {
	list, err := h.vip.route.addresses(familyOf(h.vip.prefix.Addr()))
	if err != nil {
		return false, err
	}
	for _, p := range list {
		if p.index == h.iface.index && p.addr == h.vip.prefix.Addr() {
			return false, nil
		}
	}
	return true, nil
}

// readClaims hands on what passes the filter: claims of other hosts.
func (h *hold) readClaims() {
	b := make([]byte, frameMax)
	for {
		n, _, err := h.packet.ReadFrom(b)
		switch {
		case h.closed.Load():
			return
		case errors.Is(err, unix.ENETDOWN): // the interface went down; the socket works again when it is up
			time.Sleep(settle)
		case err != nil:
			h.vip.log.Error("the watch for duplicates ended", "address", h.vip.prefix, "cause", err)
			return
		default:
			if mac := claimant(b[:n], h.vip.prefix.Addr()); mac != nil {
				select {
				case h.claims <- mac:
				default:
				}
			}
		}
	}
}

// duplicate is what is known of another host that answers for the address.
type duplicate struct {
	hold     *hold
	tick     *time.Timer      // runs while a duplicate is about
	mac      net.HardwareAddr // of the last claim
	at       time.Time        // of the last claim
	answered time.Time
	pending  bool   // a claim has not been answered
	reported string // the hardware address reported last; empty: none
}

// seen takes in a claim: answered and reported at once, but for the least interval.
func (d *duplicate) seen(mac net.HardwareAddr) {
	if i, err := d.hold.vip.route.byIndex(d.hold.iface.index); err == nil && i.mac.String() == mac.String() {
		return // our own frame reflected, from a hardware address that the filter doesn't know yet
	}
	d.mac, d.at, d.pending = mac, time.Now(), true
	if wait := time.Until(d.answered.Add(defendEvery)); wait > 0 {
		d.tick.Reset(wait)
		return
	}
	d.answer()
}

func (d *duplicate) answer() {
	d.hold.tell()
	d.answered, d.pending = time.Now(), false
	d.tick.Reset(defendEvery)
	if mac := d.mac.String(); mac != d.reported {
		d.reported = mac
		d.hold.vip.changed(cluster.StatusRunning,
			fmt.Sprintf("another host (MAC %s) answers for %s", mac, d.hold.vip.prefix.Addr()), false)
	}
}

// check answers a claim that had to wait, or finds that the duplicate is gone.
func (d *duplicate) check() {
	switch {
	case d.pending:
		d.answer()
	case d.reported == "":
	case time.Since(d.at) >= duplicateOver:
		d.reported = ""
		d.hold.vip.changed(cluster.StatusRunning, "", false)
	default:
		d.tick.Reset(defendEvery)
	}
}

// signal leaves word for a loop that looks when it can.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
