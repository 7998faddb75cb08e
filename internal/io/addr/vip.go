package addr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/io/resource"
)

// Neither operation waits for anything but the kernel; the limits are for a machine that hangs.
const (
	// bitsLeast is the shortest prefix that any network has (10.0.0.0/8, fd00::/8). Whatever a shorter one holds the kernel
	// would look for on that one wire.
	bitsLeast    = 8
	nameMax      = 127 // of an interface's alternative name, in bytes (ALTIFNAMSIZ of linux/if.h)
	startTimeout = 5 * time.Second
	stopTimeout  = 5 * time.Second
)

// VIP is the resource kind `vip`: an address under which clients reach the group. Its resources are
// resource.Announcers. A resource that Probe finds running after a restart of the agent is announced, and
// watched, from the next Start on.
//
// By itself it reports: running with a reason while another host answers for the address, running without
// one when none has for half a minute; failed when the address was taken off its interface.
type VIP struct{}

// Spec describes the kind as data.
func (VIP) Spec() cluster.KindSpec {
	return cluster.KindSpec{
		Name: "vip",
		Doc:  "An IPv4 or IPv6 address under which clients reach the group, announced to its network.",
		Main: "address",
		Fields: []cluster.FieldSpec{
			{Name: "address", Type: cluster.FieldPrefix, Required: true,
				Doc: "The address with its prefix length, as in 10.0.0.50/24 or 2001:db8::50/64."},
			{Name: "interface", Type: cluster.FieldString, ByNode: true,
				Doc: "The interface that gets it, as in eth0 or, for a VLAN, eth0.100; an alternative name will do. Where it is called differently, `{ alpha: eth0, beta: ens3 }`. By default the one that has an address in the same subnet, or else in the narrowest that the address belongs to."},
			{Name: "refresh", Type: cluster.FieldDuration, Live: true, Default: DefaultRefresh,
				Doc: "How often the address is announced once it has been held for some seconds, a third more or less; 0s: not again, until a link, a neighbour or a switch port comes back."},
		},
		Front:        true,
		Effects:      cluster.EffectsAddress,
		Depths:       []cluster.Depth{cluster.Cold},
		StartTimeout: startTimeout,
		StopTimeout:  stopTimeout,
		Faults:       faults,
		Guards: func(fields map[string]any) ([]string, []cluster.Port, error) {
			p, _, err := parse(fields)
			if err != nil {
				return nil, nil, err
			}
			return []string{p.String()}, nil, nil
		},
	}
}

// faults tells what is wrong with the fields, whatever the host.
func faults(fields map[string]any) []cluster.FieldFault {
	p, ok := fields["address"].(netip.Prefix)
	if !ok || !p.IsValid() || p.Bits() >= bitsLeast {
		return nil
	}
	like := 24
	if p.Addr().Is6() {
		like = 64
	}
	return []cluster.FieldFault{{Path: []string{"address"}, Value: p.String(), Text: fmt.Sprintf("has a prefix of %d bits, and no network has fewer than %d", p.Bits(), bitsLeast),
		Hint: fmt.Sprintf("write %s/%d, or the prefix length that the network has", p.Addr(), like)}}
}

// parse reads the kind's fields.
func parse(fields map[string]any) (netip.Prefix, string, error) {
	p, ok := fields["address"].(netip.Prefix)
	if !ok || !p.IsValid() {
		return netip.Prefix{}, "", errors.New("a vip needs an address with its prefix length, as in 10.0.0.50/24")
	}
	if a := p.Addr(); a.Is4In6() {
		return netip.Prefix{}, "", fmt.Errorf("address %s: write it as IPv4, %s", p, a.Unmap())
	}
	if a := p.Addr(); a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return netip.Prefix{}, "", fmt.Errorf("address %s is not one of a host on a network", p)
	}
	if p.Bits() < p.Addr().BitLen()-1 && p.Addr() == p.Masked().Addr() {
		return netip.Prefix{}, "", fmt.Errorf("address %s is that of the subnet itself: its host part is zero", p)
	}
	if p.Addr().Is4() && p.Bits() < 31 && p.Addr() == lastAddress(p) {
		return netip.Prefix{}, "", fmt.Errorf("address %s is the broadcast address of its subnet", p)
	}
	if d := refreshOf(fields); d < 0 || d > 0 && d < refreshLeast {
		return netip.Prefix{}, "", fmt.Errorf("refresh %v: write %v or more, or 0s for no announcements beyond the first", d, refreshLeast)
	}
	name, err := interfaceName(fields["interface"])
	return p, name, err
}

// refreshOf reads the field refresh.
func refreshOf(fields map[string]any) time.Duration {
	if d, ok := fields["refresh"].(time.Duration); ok {
		return d
	}
	return DefaultRefresh
}

// interfaceName reads the field interface. Where it differs by node, it looks at every node's and returns none.
func interfaceName(v any) (string, error) {
	switch v := v.(type) {
	case string:
		if len(v) > nameMax || v == "." || v == ".." || strings.ContainsFunc(v, func(r rune) bool { return r == '/' || unicode.IsSpace(r) }) {
			return "", fmt.Errorf("interface %q: no interface can have that name", v)
		}
		return v, nil
	case cluster.ByNode:
		for _, node := range slices.Sorted(maps.Keys(v)) {
			if _, err := interfaceName(v[node]); err != nil {
				return "", err
			}
		}
	}
	return "", nil
}

// New makes a handle on the address. It reads what a predecessor noted in env.RunDir.
func (VIP) New(env resource.Env) (resource.Resource, error) {
	p, name, err := parse(env.Spec.Fields)
	if err != nil {
		return nil, err
	}
	v, err := open(env)
	if err != nil {
		return nil, err
	}
	v.prefix, v.name, v.refresh = p, name, refreshOf(env.Spec.Fields)
	if err := v.Keep(); err != nil {
		v.log.Warn("no room is reserved for what a start notes: it may fail where others fill the file system", "cause", err)
	}
	// A Start has less to do if the sockets are there already. If they can't be had now, it will say so.
	if i, err := v.iface(); err == nil {
		_ = v.ready(i)
	}
	return v, nil
}

// Leftover makes a handle on the address that a predecessor noted in env.RunDir.
func (VIP) Leftover(env resource.Env) (resource.Resource, error) { return open(env) }

// open makes a handle that knows no address but the noted one.
func open(env resource.Env) (*vip, error) {
	seen, err := openHighest(env.RunDir)
	if err != nil {
		return nil, err
	}
	up, err := openNote(env.RunDir)
	if err != nil {
		return nil, err
	}
	r, err := openRoute()
	if err != nil {
		return nil, err
	}
	v := &vip{up: up, route: r, seen: seen, repeats: repeats, log: env.Log, changed: env.Changed}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	if v.changed == nil {
		v.changed = func(cluster.Status, string, bool) {}
	}
	return v, nil
}

// vip is one address on this node.
type vip struct {
	prefix  netip.Prefix
	name    string // of the interface; empty: found by the subnet
	up      note   // what was brought up by this description or a former one
	route   *route
	seen    highest
	repeats []time.Duration
	refresh time.Duration // between later announcements, with jitter; 0: there are none
	log     *slog.Logger
	changed func(cluster.Status, string, bool)
	hold    *hold // what announces and watches; nil while the interface has not been found
}

// Start adds the address, if it is not there, and announces it; further announcements follow on their own.
// It does not wait for anybody: from its return on the address is usable. A frame that the kernel refused
// (the gate is about to open, the carrier to come) is no error, since it is sent again soon.
func (v *vip) Start(ctx context.Context, epoch cluster.Epoch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := v.seen.raise(epoch); err != nil {
		return err
	}
	defer resource.Turn()()
	i, err := v.iface()
	if err != nil {
		return resource.Lacking{Cause: fmt.Errorf("start %s: %w", v.prefix, err)}
	}
	if !i.up {
		return resource.Lacking{Cause: fmt.Errorf("start %s: interface %s is down", v.prefix, i.name)}
	}
	if err := v.ready(i); err != nil {
		return around(fmt.Errorf("start %s on %s: %w", v.prefix, i.name, err))
	}
	if err := v.change(i); err != nil {
		return fmt.Errorf("start %s: %w", v.prefix, err)
	}
	if err := v.route.add(i.index, v.prefix); err != nil {
		if errors.Is(err, unix.EACCES) && v.prefix.Addr().Is6() {
			return resource.Lacking{Cause: fmt.Errorf("add %s to %s: IPv6 is disabled there (disable_ipv6): %w", v.prefix, i.name, err)}
		}
		return around(fmt.Errorf("add %s to %s: %w", v.prefix, i.name, err))
	}
	if err := v.hold.send(i); err != nil {
		v.log.Debug("first announcement not sent, it will be repeated", "address", v.prefix, "cause", err)
	}
	if err := v.hold.run(i); err != nil {
		v.log.Error("no watch for duplicates", "address", v.prefix, "cause", err)
	}
	return nil
}

// around marks an error that says that the interface has just gone, or gone down.
func around(err error) error {
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENETDOWN) {
		return resource.Lacking{Cause: err}
	}
	return err
}

// ready opens the sockets that the hold needs, unless they are open on this very interface.
func (v *vip) ready(i iface) error {
	if v.hold != nil && v.hold.iface.index == i.index {
		return nil
	}
	next, err := v.newHold(i)
	if err != nil {
		return err
	}
	if v.hold != nil { // the interface was made anew
		v.hold.close()
	}
	v.hold = next
	return nil
}

// Standby removes the address: there is no standing by with an address that others must not see.
func (v *vip) Standby(ctx context.Context, epoch cluster.Epoch) error {
	if err := v.seen.raise(epoch); err != nil {
		return err
	}
	return v.Stop(ctx)
}

// change takes a former description's address off, and notes what is brought up now, before it is.
func (v *vip) change(i iface) error {
	if v.up.is(v.prefix, i.index) {
		return nil
	}
	if v.up.prefix.IsValid() {
		if err := v.stopFormer(); err != nil {
			return err
		}
	}
	return v.up.set(v.prefix, i.index)
}

// Stop ends the announcements, then removes the address, whoever added it: from the configured interface,
// and from any other where an agent of ours left it. What was brought up by a former description goes too.
func (v *vip) Stop(context.Context) error {
	if v.hold != nil {
		v.hold.quiet()
	}
	if v.prefix.IsValid() {
		index := 0
		if home, err := v.iface(); err == nil { // it may be gone, or not to be found any more: then there are only marked ones
			index = home.index
		}
		if err := v.remove(v.prefix.Addr(), index); err != nil {
			return err
		}
	}
	return v.stopFormer()
}

// stopFormer removes what the note tells of, unless it is a former description's and another resource has
// noted it since: then it is that one's.
func (v *vip) stopFormer() error {
	if p := v.up.prefix; p.IsValid() && (p.Addr() == v.prefix.Addr() || !v.up.taken()) {
		if err := v.remove(p.Addr(), v.up.index); err != nil {
			return err
		}
	}
	return v.up.clear()
}

// remove takes an address off the interface with this index, and off any other where an agent of ours left it.
func (v *vip) remove(address netip.Addr, index int) error {
	list, err := v.route.addresses(familyOf(address))
	if err != nil {
		return fmt.Errorf("stop %s: %w", address, err)
	}
	for _, p := range list {
		if p.addr != address || !p.ours && p.index != index {
			continue
		}
		if err := v.removeOne(p, list); err != nil {
			return fmt.Errorf("remove %s from interface number %d: %w", address, p.index, err)
		}
	}
	return nil
}

func (v *vip) removeOne(p present, list []present) error {
	if p.addr.Is4() && p.flags&unix.IFA_F_SECONDARY == 0 {
		for _, other := range list {
			if other.index == p.index && other.network == p.network && other.flags&unix.IFA_F_SECONDARY != 0 {
				if err := v.route.keepSecondaries(p.index); err != nil {
					return fmt.Errorf("make it keep the subnet's other addresses: %w", err)
				}
				break
			}
		}
	}
	return v.route.remove(p.index, netip.PrefixFrom(p.addr, p.bits))
}

// Probe says running if the address is on its interface, stopped if it is nowhere, unknown if there is one
// that a former description brought up, and failed if the kernel found it a duplicate or an agent of ours left
// it on another interface: Stop mends the last two.
func (v *vip) Probe(context.Context) (cluster.Status, error) {
	home, homeErr := v.iface()
	if p := v.up.prefix; p.IsValid() && (p != v.prefix || homeErr == nil && v.up.index != home.index) {
		list, err := v.route.addresses(familyOf(p.Addr()))
		if err != nil {
			return cluster.StatusUnknown, fmt.Errorf("probe %s: %w", p, err)
		}
		for _, x := range list {
			if x.addr == p.Addr() && x.index == v.up.index && !v.up.taken() {
				return cluster.StatusUnknown, nil
			}
		}
	}
	if !v.prefix.IsValid() {
		return cluster.StatusStopped, nil
	}
	list, err := v.route.addresses(familyOf(v.prefix.Addr()))
	if err != nil {
		return cluster.StatusUnknown, fmt.Errorf("probe %s: %w", v.prefix, err)
	}
	status := cluster.StatusStopped
	for _, p := range list {
		switch {
		case p.addr != v.prefix.Addr():
		case homeErr == nil && p.index == home.index && p.flags&unix.IFA_F_DADFAILED != 0:
			return cluster.StatusFailed, nil
		case homeErr == nil && p.index == home.index:
			return cluster.StatusRunning, nil
		case p.ours:
			status = cluster.StatusFailed
		}
	}
	return status, nil
}

// Keep implements resource.Keeper.
func (v *vip) Keep() error {
	if err := v.seen.keep(); err != nil {
		return fmt.Errorf("make room to note the epoch of %s: %w", v.prefix, err)
	}
	if err := v.up.keep(); err != nil {
		return fmt.Errorf("make room to note that %s is up: %w", v.prefix, err)
	}
	return nil
}

// Announce tells the neighbours again, at once and then as after a Start. It is an error if the address is
// not held or not there any more, or if the kernel refused the frame.
func (v *vip) Announce(context.Context) error {
	if v.hold == nil || v.hold.stop == nil {
		return fmt.Errorf("announce %s: it is not started", v.prefix)
	}
	if absent, _ := v.hold.absent(); absent {
		return fmt.Errorf("announce %s: it is not on %s any more", v.prefix, v.hold.iface.name)
	}
	signal(v.hold.again)
	return v.hold.announce()
}

// Close ends what runs in the background and leaves the address where it is.
func (v *vip) Close() {
	if v.hold != nil {
		v.hold.close()
	}
	v.route.close()
}

// iface finds the interface that the address belongs on. Where none can be told any more, it is the one that has the
// address by the note: what is held stays, whatever becomes of names and subnets.
func (v *vip) iface() (iface, error) {
	if !v.prefix.IsValid() {
		return iface{}, errors.New("a leftover: the file that described it is gone")
	}
	noted := 0
	if v.up.prefix == v.prefix {
		noted = v.up.index
	}
	find := func() (iface, error) { return v.route.find(v.prefix, noted) }
	if v.name != "" {
		find = func() (iface, error) { return v.route.byName(v.name) }
	}
	i, err := find()
	if err == nil || noted == 0 {
		return i, err
	}
	list, listErr := v.route.addresses(familyOf(v.prefix.Addr()))
	if listErr != nil || !slices.ContainsFunc(list, func(p present) bool { return p.addr == v.prefix.Addr() && p.index == noted }) {
		return i, err
	}
	return v.route.byIndex(noted)
}
