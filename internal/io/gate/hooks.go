package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
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
	layout layout // layout and maps are what programs are made for
	maps   *maps
	progs  map[kind]*loaded
	// active says that programs are to be attached: Guard was called.
	active bool
	known  map[int]bool // indexes of interfaces with all their filters
}

// kind is one variant of the program.
type kind struct{ egress, ethernet bool }

// loaded is a program that this process holds.
type loaded struct {
	*ebpf.Program
	id ebpf.ProgramID
}

func newHooks(name string, sum [32]byte) (*hooks, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &hooks{nl: nl, name: name, handle: max(1, binary.BigEndian.Uint32(sum[:])), known: map[int]bool{}}, nil
}

// use makes h's programs, from now on, programs for these tables.
func (h *hooks) use(l layout, m *maps) {
	h.unload()
	h.layout, h.maps, h.progs = l, m, map[kind]*loaded{}
}

// program returns the variant that a hook needs. It is loaded when it is first needed, unless a
// predecessor's was kept: the kernel's check of a program takes some milliseconds.
func (h *hooks) program(k kind) (*loaded, error) {
	if p := h.progs[k]; p != nil {
		return p, nil
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "baton_gate",
		Type:         ebpf.SchedCLS,
		Instructions: assemble(h.layout, h.maps, k.egress, k.ethernet),
		License:      "n/a", // no helper that we call asks for one
	})
	if err != nil {
		return nil, fmt.Errorf("load program (egress %v, ethernet %v): %w", k.egress, k.ethernet, err)
	}
	info, err := prog.Info()
	if err != nil {
		prog.Close()
		return nil, fmt.Errorf("read a program that was just loaded: %w", err)
	}
	id, _ := info.ID()
	h.progs[k] = &loaded{prog, id}
	return h.progs[k], nil
}

// load loads all variants.
func (h *hooks) load() error {
	for _, k := range kinds {
		if _, err := h.program(k); err != nil {
			return err
		}
	}
	return nil
}

var kinds = []kind{{false, true}, {true, true}, {false, false}, {true, false}}

// keep takes over a predecessor's program, which is closed if it is not the one that this binary would
// load for the tables in use. The kernel's tag says so: a hash of the instructions, but for the maps and
// offsets in them. Maps are compared by the caller; offsets go with the layout.
func (h *hooks) keep(prog *ebpf.Program, info *ebpf.ProgramInfo) {
	id, _ := info.ID()
	for _, k := range kinds {
		if h.progs[k] == nil && same(assemble(h.layout, h.maps, k.egress, k.ethernet), info.Tag) {
			h.progs[k] = &loaded{prog, id}
			return
		}
	}
	prog.Close()
}

func same(code asm.Instructions, tag string) bool {
	var order binary.ByteOrder = binary.LittleEndian // package asm takes no other value for the native one
	if native.Uint16([]byte{0, 1}) == 1 {
		order = binary.BigEndian
	}
	// The tag is reckoned from jumps as they are; writing the code out resolves the labels in place.
	if code.Marshal(io.Discard, order) != nil {
		return false
	}
	is, err := code.HasTag(tag, order)
	return err == nil && is
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

// sweep attaches the programs to every interface where they are not, or others are.
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
	there, err := h.attached(link)
	if err != nil {
		return err
	}
	if !there {
		if err := h.replace(s, link); h.vanished(link, err) {
			return nil
		} else if err != nil {
			return err
		}
	}
	h.known[link.Attrs().Index] = true
	return nil
}

// vanished tells whether an error came since the interface went away meanwhile. ENOENT alone does not
// say so: it also means that the kernel has no clsact or cls_bpf, and then nothing is guarded.
func (h *hooks) vanished(link netlink.Link, err error) bool {
	if !gone(err) {
		return false
	}
	_, err = h.nl.LinkByIndex(link.Attrs().Index)
	var notFound netlink.LinkNotFoundError
	return errors.Is(err, unix.ENODEV) || errors.As(err, &notFound)
}

// attached tells whether both hooks have the very programs that they need.
func (h *hooks) attached(link netlink.Link) (bool, error) {
	there := true
	for _, at := range parents {
		ours, others, err := h.filters(link, at.parent)
		if err != nil {
			return false, err
		}
		if err := h.free(link, at.name, others); err != nil {
			return false, err
		}
		prog := h.progs[kind{at.egress, ethernet(link)}]
		there = there && prog != nil && len(ours) == 1 && ours[0].DirectAction && ebpf.ProgramID(ours[0].Id) == prog.id &&
			ours[0].Handle == h.handle && ours[0].Priority == priority && ours[0].Protocol == unix.ETH_P_ALL &&
			(ours[0].Chain == nil || *ours[0].Chain == 0)
	}
	return there, nil
}

// replace attaches the programs. Where our filter is there, the kernel exchanges its program at one instant.
func (h *hooks) replace(s *state, link netlink.Link) error {
	if err := h.qdisc(s, link); err != nil {
		return err
	}
	for _, at := range parents {
		prog, err := h.program(kind{at.egress, ethernet(link)})
		if err != nil {
			return err
		}
		err = h.nl.FilterReplace(&netlink.BpfFilter{
			FilterAttrs:  h.attrs(link, at.parent),
			Fd:           prog.FD(),
			Name:         h.name,
			DirectAction: true,
		})
		if err != nil {
			return fmt.Errorf("attach to %s %s: %w", link.Attrs().Name, at.name, err)
		}
	}
	return nil
}

// prove attaches to the loopback device and detaches again, so that a kernel without clsact or cls_bpf
// shows at Open. The tables are empty: nothing is guarded by that. The qdisc stays, since someone else
// might begin to use it just when it is deleted; Guard needs it. Other errors are left to Guard.
func (h *hooks) prove(s *state) error {
	lo, err := h.nl.LinkByIndex(loopbackIndex)
	if err != nil {
		return fmt.Errorf("look up the loopback interface: %w", err)
	}
	if err := h.attach(s, lo); gone(err) {
		return fmt.Errorf("does this kernel have sch_ingress and cls_bpf? %w", err)
	}
	if _, err := h.clear(lo); err != nil && !gone(err) {
		return err
	}
	delete(h.known, loopbackIndex)
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
func (h *hooks) free(link netlink.Link, name string, others []netlink.Filter) error {
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

// clear takes this gate's filters off an interface and tells how many others are left.
func (h *hooks) clear(link netlink.Link) (left int, err error) {
	for _, at := range parents {
		ours, others, err := h.filters(link, at.parent)
		if err != nil {
			return 0, err
		}
		left += len(others)
		for _, f := range ours {
			f.Fd = -1
			if err := h.nl.FilterDel(f); err != nil && !gone(err) {
				return 0, fmt.Errorf("detach from %s %s: %w", link.Attrs().Name, at.name, err)
			}
		}
	}
	return left, nil
}

func (h *hooks) detach(s *state, link netlink.Link) error {
	left, err := h.clear(link)
	if err != nil {
		return err
	}
	if index := link.Attrs().Index; left == 0 && s.made(index) {
		if err := h.nl.QdiscDel(clsactOf(link)); err != nil && !gone(err) {
			return fmt.Errorf("delete clsact qdisc of %s: %w", link.Attrs().Name, err)
		}
		s.clearMade(index)
	}
	return nil
}
