package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

// priority is the first that a filter can have. A filter before ours could end the chain with TC_ACT_OK
// and let a packet past the gate unseen, so nobody may be before us; who is, is reported.
const priority = 1

// hooks are the classifiers of one gate on all interfaces of a network namespace: at tcx where that can be had, else
// as filters of a clsact qdisc.
type hooks struct {
	nl     *netlink.Handle // its sockets belong to the namespace where they were made
	eye    *netlink.Handle // for looks beside what nl is used for
	name   string
	handle uint32 // of our filters: several gates share one priority, each with a handle of its own
	layout layout // layout and maps are what programs are made for
	maps   *maps
	progs  map[kind]*loaded
	// active says that programs are to be attached: Guard was called.
	active bool
	known  map[int]bool // indexes of interfaces with all their programs

	pins    *pins                     // nil: none are possible
	noTCX   error                     // why tcx is not used; nil: it is
	hasty   bool                      // attach nothing to tcx now: the caller has a lease to renew
	later   map[int]bool              // interfaces that are to get, or go over to, tcx
	bare    map[int]bool              // interfaces whose clsact hooks are known to hold nothing of this gate's
	missing map[int]map[string]string // by interface and hook: why nothing of this gate's can be there
	amiss   map[int]bool              // interfaces where a program is not that should be, and could not be put
	unsure  bool                      // the first sweep is not over
	taken   []string                  // what others had taken off, and was put back
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
	eye, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		nl.Close()
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &hooks{
		nl: nl, eye: eye, amiss: map[int]bool{}, name: name, handle: max(1, binary.BigEndian.Uint32(sum[:])),
		known: map[int]bool{}, later: map[int]bool{}, bare: map[int]bool{}, missing: map[int]map[string]string{},
	}, nil
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
	if h.pins != nil {
		h.pins.close()
	}
	h.nl.Close()
	h.eye.Close()
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
	if h.pins != nil {
		if err := h.pins.find(); err != nil {
			return nil, err
		}
		ids = h.pins.programs()
	}
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
	return filters(h.nl, h.name, link, parent)
}

func filters(nl *netlink.Handle, name string, link netlink.Link, parent uint32) (ours []*netlink.BpfFilter, others []netlink.Filter, err error) {
	all, err := whole(func() ([]netlink.Filter, error) { return nl.FilterList(link, parent) })
	if err != nil && !gone(err) && !errors.Is(err, unix.EINVAL) { // EINVAL: no such hook here
		return nil, nil, fmt.Errorf("list filters of %s: %w", link.Attrs().Name, err)
	}
	for _, f := range all {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Name == name {
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
	there := map[int]bool{}
	var failed []error
	for _, link := range links {
		there[link.Attrs().Index] = true
		if err := h.attach(s, link); err != nil {
			failed = append(failed, err)
		}
	}
	for index := range h.missing {
		if !there[index] {
			h.forget(s, index)
		}
	}
	for index := range h.amiss {
		if !there[index] {
			h.forget(s, index)
		}
	}
	h.unsure = false
	return errors.Join(failed...)
}

// one attaches to an interface that has appeared, or of which others have taken something off.
func (h *hooks) one(s *state, index int) error {
	link, err := h.nl.LinkByIndex(index)
	if err != nil {
		var notFound netlink.LinkNotFoundError
		if gone(err) || errors.As(err, &notFound) {
			h.forget(s, index)
			return nil
		}
		return fmt.Errorf("look up interface %d: %w", index, err)
	}
	return h.attach(s, link)
}

// forget drops what is known of an interface that is gone: its index may be used again, for one that comes back from
// another namespace.
func (h *hooks) forget(s *state, index int) {
	delete(h.known, index)
	delete(h.later, index)
	delete(h.bare, index)
	delete(h.missing, index)
	delete(h.amiss, index)
	s.clearMade(index)
	if h.pins != nil {
		h.pins.drop(hook{index, false})
		h.pins.drop(hook{index, true})
	}
}

func (h *hooks) attach(s *state, link netlink.Link) error {
	index := link.Attrs().Index
	was := h.known[index]
	delete(h.known, index)
	off, err := h.place(s, link)
	if h.vanished(link, err) {
		h.forget(s, index)
		return nil
	}
	if was && len(off) > 0 {
		for _, hook := range off {
			h.taken = append(h.taken, link.Attrs().Name+" "+hook)
		}
	}
	if err == nil && !h.later[index] {
		h.known[index] = true
	}
	if err != nil && (h.noTCX != nil || !h.pins.has(index)) { // a link that can't be pinned does its work
		h.amiss[index] = true
	} else {
		delete(h.amiss, index)
	}
	return err
}

// place brings both hooks of an interface in order, and returns those at which something was missing.
func (h *hooks) place(s *state, link netlink.Link) (off []string, err error) {
	index := link.Attrs().Index
	if h.noTCX != nil {
		off, err = h.placeFilters(s, link)
		if err == nil && h.pins != nil { // a predecessor was at tcx
			err = errors.Join(h.pins.remove(hook{index, false}), h.pins.remove(hook{index, true}))
		}
		return off, err
	}
	if h.hasty && !h.pins.has(index) {
		// To attach to tcx takes the kernel up to 20 ms for each hook. What is there at clsact does as well; and an
		// interface that has appeared meanwhile is guarded as soon as any other that appears.
		h.later[index] = true
		return nil, h.exchange(link)
	}
	delete(h.later, index)
	var failed []error
	for _, at := range parents {
		prog, err := h.program(kind{at.egress, ethernet(link)})
		if err != nil {
			return off, err
		}
		lost, err := h.pins.place(hook{index, at.egress}, prog)
		if lost {
			off = append(off, at.name)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("attach to %s %s: %w", link.Attrs().Name, at.name, err))
		}
	}
	if len(failed) > 0 {
		return off, errors.Join(failed...)
	}
	if !h.bare[index] {
		if err := h.detachFilters(s, link); err != nil && !gone(err) {
			return off, err
		}
		h.bare[index] = true
	}
	return off, nil
}

// exchange puts this gate's programs in the place of a predecessor's at clsact, each at one instant.
func (h *hooks) exchange(link netlink.Link) error {
	for _, at := range parents {
		ours, _, err := h.filters(link, at.parent)
		if err != nil {
			return err
		}
		if k := (kind{at.egress, ethernet(link)}); len(ours) == 1 && !h.right(ours[0], k) {
			if err := h.filter(link, at.parent, k); err != nil {
				return fmt.Errorf("attach to %s %s: %w", link.Attrs().Name, at.name, err)
			}
		}
	}
	return nil
}

// toTCX is called when an interface may go over to tcx: its programs run there before their filters go.
func (h *hooks) toTCX(s *state, index int) error {
	defer delete(h.later, index)
	delete(h.known, index) // what is missing was not taken off
	err := h.one(s, index)
	if err != nil && h.noTCX == nil && !h.pins.any() { // the filters are where they were; links go once they are everywhere
		h.without(err)
		return h.sweep(s)
	}
	return err
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

// right tells whether a filter of this gate's is the very one that a hook needs.
func (h *hooks) right(f *netlink.BpfFilter, k kind) bool {
	prog := h.progs[k]
	return prog != nil && f.DirectAction && ebpf.ProgramID(f.Id) == prog.id && f.Handle == h.handle &&
		f.Priority == priority && f.Protocol == unix.ETH_P_ALL && (f.Chain == nil || *f.Chain == 0)
}

// placeFilters attaches filters to a clsact qdisc, which is made if it is not there. Where somebody else has its place,
// or that of the first filter, it does what can be done, and notes what is missing.
func (h *hooks) placeFilters(s *state, link netlink.Link) (off []string, err error) {
	name, index := link.Attrs().Name, link.Attrs().Index
	missing := map[string]string{}
	shape, err := h.shape(link)
	if err != nil {
		return nil, err
	}
	if shape == "" {
		off = []string{"qdisc"}
		if err := h.qdisc(s, link); err != nil {
			return off, err
		}
	}
	for _, at := range parents {
		if at.egress && shape != "" && shape != "clsact" {
			missing[at.name] = noEgress(shape)
			continue
		}
		ours, others, err := h.filters(link, at.parent)
		if err != nil {
			return off, err
		}
		if why := h.occupied(others); why != "" {
			missing[at.name] = why
			continue
		}
		k := kind{at.egress, ethernet(link)}
		if len(ours) == 1 && h.right(ours[0], k) {
			continue
		}
		if err := h.filter(link, at.parent, k); err != nil {
			return off, fmt.Errorf("attach to %s %s: %w", name, at.name, err)
		}
		if shape != "" {
			off = append(off, at.name)
		}
	}
	delete(h.missing, index)
	if len(missing) > 0 {
		h.missing[index] = make(map[string]string)
		for hook, why := range missing {
			h.missing[index][name+" "+hook] = why
		}
	}
	return off, nil
}

// filter attaches a program. Where our filter is there, the kernel exchanges its program at one instant.
func (h *hooks) filter(link netlink.Link, parent uint32, k kind) error {
	prog, err := h.program(k)
	if err != nil {
		return err
	}
	return h.nl.FilterReplace(&netlink.BpfFilter{
		FilterAttrs:  h.attrs(link, parent),
		Fd:           prog.FD(),
		Name:         h.name,
		DirectAction: true,
	})
}

// shape returns which qdisc is in clsact's place, or "".
func (h *hooks) shape(link netlink.Link) (string, error) {
	there, err := whole(func() ([]netlink.Qdisc, error) { return h.nl.QdiscList(link) })
	if err != nil {
		return "", fmt.Errorf("list qdiscs of %s: %w", link.Attrs().Name, err)
	}
	for _, q := range there {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT {
			return q.Type(), nil
		}
	}
	return "", nil
}

// prove attaches to the loopback device and detaches again, so that a kernel without what it takes shows at Open. The
// tables are empty: nothing is guarded by that. A qdisc stays, since someone else might begin to use it just when it is
// deleted; Guard needs it. Other errors are left to Guard.
func (h *hooks) prove(s *state) error {
	if h.noTCX == nil {
		prog, err := h.program(kind{false, true})
		if err != nil {
			return err
		}
		at := hook{loopbackIndex, false}
		if _, err = h.pins.place(at, prog); err == nil {
			h.pins.drop(at)
			return nil
		}
		h.pins.drop(at)
		h.without(err)
	}
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
	delete(h.missing, loopbackIndex)
	return nil
}

// without gives tcx up, for the reason given.
func (h *hooks) without(why error) {
	_ = h.pins.unmount() // an empty bpffs does no harm
	h.noTCX = why
	clear(h.later)
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

// occupied tells why a filter can't be at our priority: someone else sits there, or at our handle.
func (h *hooks) occupied(others []netlink.Filter) string {
	for _, f := range others {
		a := f.Attrs()
		b, bpf := f.(*netlink.BpfFilter)
		sibling := bpf && isOurs(b.Name) && a.Handle != h.handle
		if a.Priority == priority && !sibling {
			label := f.Type()
			if bpf {
				label += " " + b.Name
			}
			return fmt.Sprintf("priority %d is taken by another filter (%s, handle %#x), which could move to a higher number", priority, label, a.Handle)
		}
	}
	return ""
}

func isOurs(name string) bool { return len(name) > 6 && name[:6] == "baton:" }

// qdisc makes a clsact qdisc. One that has come meanwhile is shared.
func (h *hooks) qdisc(s *state, link netlink.Link) error {
	err := h.nl.QdiscAdd(clsactOf(link))
	if err == nil {
		s.setMade(link.Attrs().Index)
		return nil
	}
	if errors.Is(err, unix.EEXIST) {
		if shape, err := h.shape(link); err == nil && shape == "clsact" {
			return nil
		}
	}
	return fmt.Errorf("add clsact qdisc to %s: %w", link.Attrs().Name, err)
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
		if err := h.detachFilters(s, link); err != nil && !gone(err) {
			failed = append(failed, err)
		}
	}
	if h.pins != nil {
		for at := range h.pins.links {
			failed = append(failed, h.pins.remove(at))
		}
		failed = append(failed, h.pins.unmount())
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

func (h *hooks) detachFilters(s *state, link netlink.Link) error {
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

// lack says at which hooks nothing of this gate's can be, and why.
func (h *hooks) lack() string { return strings.Join(h.lacks(), "; ") }

func (h *hooks) lacks() []string {
	var all []string
	for _, hooks := range h.missing {
		for hook, why := range hooks {
			all = append(all, hook+": "+why)
		}
	}
	slices.Sort(all)
	return all
}

// Obstacles lists the hooks of this network namespace where somebody else is in the place that a gate at clsact needs,
// and what is there. It changes nothing. A gate at tcx has no such obstacles.
func Obstacles() ([]string, error) {
	h, err := newHooks("", [32]byte{})
	if err != nil {
		return nil, err
	}
	defer h.close()
	links, err := h.links()
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if err := h.survey(link); err != nil && !h.vanished(link, err) {
			return nil, err
		}
	}
	return h.lacks(), nil
}

// survey notes what is missing at an interface.
func (h *hooks) survey(link netlink.Link) error {
	shape, err := h.shape(link)
	if err != nil {
		return err
	}
	missing := map[string]string{}
	for _, at := range parents {
		hook := link.Attrs().Name + " " + at.name
		if at.egress && shape != "" && shape != "clsact" {
			missing[hook] = noEgress(shape)
			continue
		}
		_, others, err := h.filters(link, at.parent)
		if err != nil {
			return err
		}
		if why := h.occupied(others); why != "" {
			missing[hook] = why
		}
	}
	if len(missing) > 0 {
		h.missing[link.Attrs().Index] = missing
	}
	return nil
}

func noEgress(shape string) string {
	return fmt.Sprintf("a qdisc %q is in the place of clsact, and has no egress hook", shape)
}
