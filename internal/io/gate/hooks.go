package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

// priority is the first that a filter can have. A filter before ours could end the chain with TC_ACT_OK
// and let a packet past the gate unseen, so nobody may be before us; who is, is reported.
const priority = 1

// hooks are the classifiers of one gate on all interfaces of a network namespace.
type hooks struct {
	nl     *netlink.Handle // its sockets belong to the namespace where they were made
	name   string
	handle uint32 // of our filters: several gates share one priority, each with a handle of its own
	progs  map[kind]*ebpf.Program
	// active says that programs are to be attached: Guard was called.
	active bool
	known  map[int]bool // indexes of interfaces with all their filters
}

// kind is one variant of the program.
type kind struct{ egress, ethernet bool }

func newHooks(name string, sum [32]byte) (*hooks, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &hooks{nl: nl, name: name, handle: max(1, binary.BigEndian.Uint32(sum[:])), known: map[int]bool{}}, nil
}

func (h *hooks) load(l layout, m *maps) error {
	progs := map[kind]*ebpf.Program{}
	for _, k := range []kind{{false, true}, {true, true}, {false, false}, {true, false}} {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name:         "baton_gate",
			Type:         ebpf.SchedCLS,
			Instructions: assemble(l, m, k.egress, k.ethernet),
			License:      "n/a", // no helper that we call asks for one
		})
		if err != nil {
			for _, p := range progs {
				p.Close()
			}
			return fmt.Errorf("load program (egress %v, ethernet %v): %w", k.egress, k.ethernet, err)
		}
		progs[k] = prog
	}
	h.unload()
	h.progs = progs
	return nil
}

func (h *hooks) unload() {
	for _, p := range h.progs {
		p.Close() // only a descriptor
	}
	h.progs = nil
}

func (h *hooks) close() {
	h.unload()
	h.nl.Close()
}

// parents are the two hooks of a clsact qdisc.
var parents = []struct {
	parent uint32
	egress bool
	name   string
}{{netlink.HANDLE_MIN_INGRESS, false, "ingress"}, {netlink.HANDLE_MIN_EGRESS, true, "egress"}}

// gone tells whether an error means that the interface went away meanwhile, or has no clsact qdisc.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}

// whole lists again what changed while it was listed, so that nothing is missed.
func whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range maxListings {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

const maxListings = 20

func (h *hooks) links() ([]netlink.Link, error) {
	links, err := whole(h.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return links, nil
}

// programs returns the ids of the programs that a predecessor left attached, each once.
func (h *hooks) programs() ([]ebpf.ProgramID, error) {
	links, err := h.links()
	if err != nil {
		return nil, err
	}
	var ids []ebpf.ProgramID
	for _, link := range links {
		for _, at := range parents {
			ours, _, err := h.filters(link, at.parent)
			if err != nil {
				return nil, err
			}
			for _, f := range ours {
				if id := ebpf.ProgramID(f.Id); !slices.Contains(ids, id) {
					ids = append(ids, id)
				}
			}
		}
	}
	return ids, nil
}

// filters returns this gate's filters on a hook and all others.
func (h *hooks) filters(link netlink.Link, parent uint32) (ours []*netlink.BpfFilter, others []netlink.Filter, err error) {
	all, err := whole(func() ([]netlink.Filter, error) { return h.nl.FilterList(link, parent) })
	if err != nil && !gone(err) && !errors.Is(err, unix.EINVAL) { // EINVAL: no such hook here
		return nil, nil, fmt.Errorf("list filters of %s: %w", link.Attrs().Name, err)
	}
	for _, f := range all {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Name == h.name {
			ours = append(ours, b)
		} else {
			others = append(others, f)
		}
	}
	return ours, others, nil
}

// sweep attaches the programs to every interface, anew where they are attached already.
func (h *hooks) sweep(s *state) error {
	h.active = true
	links, err := h.links()
	if err != nil {
		return err
	}
	var failed []error
	for _, link := range links {
		if err := h.attach(s, link); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// one attaches to an interface that has appeared.
func (h *hooks) one(s *state, index int) error {
	if h.known[index] {
		return nil
	}
	link, err := h.nl.LinkByIndex(index)
	if err != nil {
		var notFound netlink.LinkNotFoundError
		if gone(err) || errors.As(err, &notFound) {
			return nil
		}
		return fmt.Errorf("look up interface %d: %w", index, err)
	}
	return h.attach(s, link)
}

func (h *hooks) attach(s *state, link netlink.Link) error {
	delete(h.known, link.Attrs().Index)
	if err := h.qdisc(s, link); err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	for _, at := range parents {
		if err := h.free(link, at.parent, at.name); err != nil {
			return err
		}
		prog := h.progs[kind{at.egress, ethernet(link)}]
		err := h.nl.FilterReplace(&netlink.BpfFilter{
			FilterAttrs:  h.attrs(link, at.parent),
			Fd:           prog.FD(),
			Name:         h.name,
			DirectAction: true,
		})
		if gone(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("attach to %s %s: %w", link.Attrs().Name, at.name, err)
		}
	}
	h.known[link.Attrs().Index] = true
	return nil
}

func (h *hooks) attrs(link netlink.Link, parent uint32) netlink.FilterAttrs {
	return netlink.FilterAttrs{
		LinkIndex: link.Attrs().Index, Parent: parent, Handle: h.handle, Priority: priority, Protocol: unix.ETH_P_ALL,
	}
}

// ethernet tells whether packets of this interface begin with an Ethernet header at both hooks. All
// others (tun, wireguard, ppp, tunnels) are read from the network header on, which the kernel marks.
func ethernet(link netlink.Link) bool {
	encap := link.Attrs().EncapType
	return encap == "ether" || encap == "loopback"
}

// free refuses an interface where someone else sits at our priority, or at our handle.
func (h *hooks) free(link netlink.Link, parent uint32, name string) error {
	_, others, err := h.filters(link, parent)
	if err != nil {
		return err
	}
	for _, f := range others {
		a := f.Attrs()
		b, bpf := f.(*netlink.BpfFilter)
		sibling := bpf && isOurs(b.Name) && a.Handle != h.handle
		if a.Priority == priority && !sibling {
			label := f.Type()
			if bpf {
				label += " " + b.Name
			}
			return fmt.Errorf("attach to %s %s: priority %d is taken by another filter (%s, handle %#x); move it to a higher number",
				link.Attrs().Name, name, priority, label, a.Handle)
		}
	}
	return nil
}

func isOurs(name string) bool { return len(name) > 6 && name[:6] == "baton:" }

// qdisc makes sure that the interface has a clsact qdisc. One that is there is shared.
func (h *hooks) qdisc(s *state, link netlink.Link) error {
	err := h.nl.QdiscAdd(clsactOf(link))
	if err == nil {
		s.setMade(link.Attrs().Index)
		return nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact qdisc to %s: %w", link.Attrs().Name, err)
	}
	there, err := whole(func() ([]netlink.Qdisc, error) { return h.nl.QdiscList(link) })
	if err != nil {
		return fmt.Errorf("list qdiscs of %s: %w", link.Attrs().Name, err)
	}
	for _, q := range there {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT && q.Type() != "clsact" {
			return fmt.Errorf("add clsact qdisc to %s: a qdisc %q is in its place, which has no egress hook; replace it by clsact",
				link.Attrs().Name, q.Type())
		}
	}
	return nil
}

func clsactOf(link netlink.Link) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// remove detaches this gate everywhere. A clsact qdisc goes too if this gate made it and nobody's
// filter is left on it; one that it found stays, even if it is empty.
func (h *hooks) remove(s *state) error {
	h.active = false
	links, err := h.links()
	if err != nil {
		return err
	}
	var failed []error
	for _, link := range links {
		if err := h.detach(s, link); err != nil && !gone(err) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (h *hooks) detach(s *state, link netlink.Link) error {
	left := 0
	for _, at := range parents {
		ours, others, err := h.filters(link, at.parent)
		if err != nil {
			return err
		}
		left += len(others)
		for _, f := range ours {
			f.Fd = -1
			if err := h.nl.FilterDel(f); err != nil && !gone(err) {
				return fmt.Errorf("detach from %s %s: %w", link.Attrs().Name, at.name, err)
			}
		}
	}
	if index := link.Attrs().Index; left == 0 && s.made(index) {
		if err := h.nl.QdiscDel(clsactOf(link)); err != nil && !gone(err) {
			return fmt.Errorf("delete clsact qdisc of %s: %w", link.Attrs().Name, err)
		}
		s.clearMade(index)
	}
	return nil
}
