package gate

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"baton/internal/core/cluster"
)

// maps are the kernel's tables of one layout.
type maps struct {
	state *ebpf.Map // one value, see state.go
	addrs *ebpf.Map // address, 16 bytes -> slot
	ports *ebpf.Map // protocol<<16 | port -> slot
	frags *ebpf.Map // datagram in fragments -> slot
}

const maxFragments = 4096 // datagrams in fragments remembered at a time; the least recently used goes first

func (l layout) specs() []*ebpf.MapSpec {
	return []*ebpf.MapSpec{
		{Name: "baton_state", Type: ebpf.Array, KeySize: 4, ValueSize: l.size(), MaxEntries: 1, Flags: bpfMmapable},
		{Name: "baton_addrs", Type: ebpf.Hash, KeySize: 16, ValueSize: 4, MaxEntries: maxAddresses, Flags: bpfNoPrealloc},
		{Name: "baton_ports", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: maxPorts, Flags: bpfNoPrealloc},
		{Name: "baton_frags", Type: ebpf.LRUHash, KeySize: fragKeySize, ValueSize: 4, MaxEntries: maxFragments},
	}
}

// Flags of BPF_MAP_CREATE, linux/bpf.h.
const (
	bpfNoPrealloc = 1 << 0
	bpfMmapable   = 1 << 10
)

func (m *maps) fields() []**ebpf.Map { return []**ebpf.Map{&m.state, &m.addrs, &m.ports, &m.frags} }

func (m *maps) close() {
	for _, f := range m.fields() {
		if *f != nil {
			(*f).Close() // only a descriptor: attached programs hold the map
		}
	}
}

func newMaps(l layout) (*maps, error) {
	m := &maps{}
	for i, spec := range l.specs() {
		made, err := ebpf.NewMap(spec)
		if err != nil {
			m.close()
			return nil, fmt.Errorf("make map %s: %w", spec.Name, err)
		}
		*m.fields()[i] = made
	}
	return m, nil
}

// former is a program that a predecessor left attached.
type former struct {
	prog *ebpf.Program
	info *ebpf.ProgramInfo
	ids  []ebpf.MapID // sorted
}

func openFormer(id ebpf.ProgramID) (*former, error) {
	prog, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	info, err := prog.Info()
	if err != nil {
		prog.Close()
		return nil, fmt.Errorf("read program %d: %w", id, err)
	}
	ids, _ := info.MapIDs()
	slices.Sort(ids)
	return &former{prog, info, ids}, nil
}

// maps opens the program's maps, as far as they are of this layout's kinds, and maps its state.
func (f *former) maps(l layout) (*maps, *state, error) {
	m := &maps{}
	for _, id := range f.ids {
		one, err := ebpf.NewMapFromID(id)
		if err != nil {
			m.close()
			return nil, nil, fmt.Errorf("open map %d: %w", id, err)
		}
		if !m.keep(one, l) {
			one.Close()
		}
	}
	if m.state == nil {
		m.close()
		return nil, nil, errors.New("it has no state map")
	}
	s, err := mapState(m.state)
	if err == nil {
		err = s.found()
	}
	if err != nil {
		m.close()
		return nil, nil, err
	}
	return m, s, nil
}

func (m *maps) keep(one *ebpf.Map, l layout) bool {
	info, err := one.Info()
	if err != nil {
		return false
	}
	for i, spec := range l.specs() {
		field := m.fields()[i]
		fits := info.Type == spec.Type && info.KeySize == spec.KeySize && info.MaxEntries == spec.MaxEntries &&
			(info.ValueSize == spec.ValueSize || spec.Name == "baton_state")
		if info.Name == spec.Name && fits && *field == nil {
			*field = one
			return true
		}
	}
	return false
}

// complete tells whether the maps can be used with this layout's programs.
func (m *maps) complete(s *state, l layout) bool {
	return s.version == l.version && s.stride == l.stride && s.size == l.slots && s.offset == headerSize &&
		m.state.ValueSize() == l.size() && m.addrs != nil && m.ports != nil && m.frags != nil
}

// clsact is the gate kept by classifiers of package eBPF, at tcx or clsact.
type clsact struct {
	log    *slog.Logger
	off    func(why string)
	layout layout
	hooks  *hooks
	second string // name of the tables that help out

	work    sync.Mutex // held by whoever changes tables or hooks; never taken by Set
	maps    *maps      // of this layout; nil while a predecessor's of another one are in use
	watch   *watch
	ends    chan struct{} // closed when this process lets go
	tasks   sync.WaitGroup
	moving  bool            // interfaces go over to tcx
	groups  []Group         // of the last Guard
	unwhole bool            // the owner was told that something is off
	adopted bool            // a predecessor's gate was taken over
	ahead   map[hook]string // which programs of others run before the gate's
	once    sync.Once
	inside  func(func() error) error // runs a function in the gate's network namespace

	view  atomic.Pointer[view]
	next  atomic.Int64   // the wall clock's nanoseconds before which Look has nothing to do
	odd   chan struct{}  // holds one token: check is to look now
	looks sync.WaitGroup // begun under mu, and only before Close

	mu    sync.Mutex // guards what Set uses
	last  *look
	state *state // nil after Close
	old   *maps  // keeps the state's map of another layout open until Guard replaces it
	slots map[cluster.GroupID]int
	help  *tables // guards as well where some hook can't be had; else nil
}

func openClsact(opts Options) (Gate, error) {
	g, err := openLayout(opts, current)
	if err != nil {
		return nil, err
	}
	return g, nil
}

// leftClsact tells whether a predecessor's classifiers are attached.
func leftClsact(opts Options) bool {
	h, err := findHooks(opts)
	if err != nil {
		return false
	}
	defer h.close()
	ids, err := h.programs()
	return err == nil && len(ids) > 0
}

func openLayout(opts Options, l layout) (*clsact, error) {
	// Kernels before 5.11 charge maps to this limit. A failure shows when the maps are made.
	_ = rlimit.RemoveMemlock()
	h, err := findHooks(opts)
	if err != nil {
		return nil, err
	}
	inside, err := here()
	if err != nil {
		h.close()
		return nil, err
	}
	g := &clsact{log: opts.Log, inside: inside, off: opts.Off, layout: l, hooks: h, second: tableName(opts) + "_2", ends: make(chan struct{}), odd: make(chan struct{}, 1), ahead: map[hook]string{}}
	if err := g.open(); err != nil {
		g.release()
		return nil, err
	}
	g.watch, err = newWatch(opts.Log, g.heard)
	if err != nil {
		g.release()
		return nil, err
	}
	g.tasks.Go(g.check)
	return g, nil
}

// findHooks returns the hooks of a gate, at tcx if that can be had: whether it can shows when a program is attached.
func findHooks(opts Options) (*hooks, error) {
	name, sum := identity(opts)
	h, err := newHooks(name, sum)
	if err != nil {
		return nil, err
	}
	h.pins, h.noTCX = openPins(opts.Dir, hex.EncodeToString(sum[:6])+"_")
	switch {
	case h.noTCX != nil:
	case opts.Prefer == PreferClsact:
		h.noTCX = errors.New("clsact was asked for")
	default:
		h.noTCX = outlives()
	}
	return h, nil
}

// open takes over a predecessor's tables or makes new ones.
func (g *clsact) open() error {
	if err := g.adopt(); err != nil {
		return err
	}
	if exists, err := leftNamed(g.second); err == nil && exists {
		if g.help, err = openNamed(g.second); err != nil {
			return err
		}
	}
	defer g.publish()
	if g.state != nil { // and nothing else is done now, because the lease must be renewed soon
		g.adopted = true
		g.slots = g.state.taken()
		return nil
	}
	m, s, err := fresh(g.layout)
	if err != nil {
		return err
	}
	g.maps, g.state, g.slots = m, s, map[cluster.GroupID]int{}
	g.hooks.use(g.layout, m)
	return g.hooks.prove(s)
}

func fresh(l layout) (*maps, *state, error) {
	m, err := newMaps(l)
	if err != nil {
		return nil, nil, err
	}
	s, err := mapState(m.state)
	if err != nil {
		m.close()
		return nil, nil, err
	}
	s.format(l)
	return m, s, nil
}

// adopt finds what a predecessor left. It may have died between two layouts, so that there are two
// states: the newer one was complete before the first program with it was attached, and is taken. The
// other is closed, since from now on nothing is stored there.
func (g *clsact) adopt() error {
	ids, err := g.hooks.programs()
	if err != nil {
		return err
	}
	var all []*former
	defer func() {
		for _, f := range all {
			f.prog.Close()
		}
	}()
	var chosen []ebpf.MapID // those of g.maps
	for i, id := range ids {
		f, err := openFormer(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // its interface went away meanwhile
		}
		if err != nil {
			return fmt.Errorf("take over from a predecessor: %w", err)
		}
		all = append(all, f)
		if slices.ContainsFunc(all[:len(all)-1], func(o *former) bool { return slices.Equal(o.ids, f.ids) }) {
			continue
		}
		m, s, err := f.maps(g.layout)
		if err != nil {
			return fmt.Errorf("take over from a predecessor's program %d: %w", ids[i], err)
		}
		if g.prefer(m, s); g.maps == m {
			chosen = f.ids
		}
	}
	if g.maps == nil {
		return nil
	}
	g.hooks.use(g.layout, g.maps)
	for _, f := range all {
		if slices.Equal(f.ids, chosen) {
			g.hooks.keep(f.prog, f.info)
		} else {
			f.prog.Close()
		}
	}
	all = nil
	return nil
}

func (g *clsact) prefer(m *maps, s *state) {
	switch {
	case m.complete(s, g.layout) && g.maps == nil:
		g.discard()
		g.maps, g.state = m, s
	case g.state == nil:
		g.old, g.state = m, s
	default:
		g.closeOther(m, s)
	}
}

// discard drops the state of another layout in favour of this layout's.
func (g *clsact) discard() {
	if g.state != nil {
		g.closeOther(g.old, g.state)
		g.old, g.state = nil, nil
	}
}

func (g *clsact) closeOther(m *maps, s *state) {
	if !sameMap(m.state, g.inUse()) {
		for i := range int(s.size) {
			atomic.StoreInt64(s.deadline(i), 0)
		}
	}
	s.unmap()
	m.close()
}

func (g *clsact) inUse() *ebpf.Map {
	if g.maps != nil {
		return g.maps.state
	}
	if g.state != nil && g.old != nil {
		return g.old.state
	}
	return nil
}

func sameMap(a, b *ebpf.Map) bool {
	if a == nil || b == nil {
		return false
	}
	ai, aerr := a.Info()
	bi, berr := b.Info()
	if aerr != nil || berr != nil {
		return false
	}
	aid, aok := ai.ID()
	bid, bok := bi.ID()
	return aok && bok && aid == bid
}

func (g *clsact) Guard(groups []Group) error {
	r, err := check(groups)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	g.work.Lock()
	defer g.work.Unlock()
	if g.state == nil {
		return fmt.Errorf("guard: %w", ErrClosed)
	}
	defer g.publish()
	g.hooks.hasty = g.adopted || g.hooks.active
	g.hooks.unsure = g.hooks.unsure || !g.hooks.hasty
	g.publish()
	if g.maps == nil {
		err = g.replaceLayout(r)
	} else {
		err = errors.Join(g.fill(r), g.hooks.sweep(g.state))
	}
	g.hooks.hasty = false // only this sweep is waited for
	if err == nil {
		g.groups = groups
		err = g.reinforce(true)
	}
	g.moveOn()
	if err != nil {
		return fmt.Errorf("guard %d groups: %w", len(groups), err)
	}
	return nil
}

// reinforce has tables of nftables guard the same groups with the same deadlines as long as some hook can't be had.
func (g *clsact) reinforce(anew bool) error {
	if len(g.hooks.missing) == 0 {
		return g.dismissHelp()
	}
	if g.help != nil && !anew {
		return nil
	}
	help := g.help
	if help == nil {
		err := g.inside(func() (err error) {
			help, err = openNamed(g.second)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s, and nftables can't guard in its place: %w", g.hooks.lack(), err)
		}
	}
	err := help.Guard(g.groups)
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, i := range g.slots {
		st := g.state.get(i)
		if err == nil && st.Epoch != 0 {
			err = help.Set(name, st.Epoch, st.Deadline)
		}
	}
	if err != nil {
		if g.help == nil {
			help.Close()
		}
		return fmt.Errorf("%s, and nftables can't guard in its place: %w", g.hooks.lack(), err)
	}
	if g.help == nil {
		g.log.Warn("eBPF can't be everywhere: nftables guards as well", "cause", g.hooks.lack())
	}
	g.help = help
	return nil
}

func (g *clsact) dismissHelp() error {
	g.mu.Lock()
	help := g.help
	g.help = nil
	g.mu.Unlock()
	if help == nil {
		return nil
	}
	g.log.Info("eBPF is everywhere: nftables need not guard any more")
	return help.Remove()
}

// moveOn has the interfaces that a predecessor had at clsact go over to tcx, one after the other, beside all else.
func (g *clsact) moveOn() {
	if g.moving || len(g.hooks.later) == 0 {
		return
	}
	g.moving = true
	g.tasks.Go(func() {
		for {
			g.work.Lock()
			index, more := 0, false
			for i := range g.hooks.later {
				index, more = i, true
			}
			if g.state == nil || !more {
				g.moving = false
				g.work.Unlock()
				return
			}
			if err := g.hooks.toTCX(g.state, index); err != nil {
				g.log.Error("an interface can't go over to tcx: its filters stay", "index", index, "cause", err)
			}
			g.publish()
			g.work.Unlock()
		}
	})
}

// replaceLayout builds tables of this layout with the predecessor's deadlines, then attaches programs
// that use them: on each hook the kernel puts the new program in the old one's place at one instant.
// Set waits while they are exchanged, less than a millisecond, so that no deadline is lost between the two.
func (g *clsact) replaceLayout(r *rules) error {
	m, s, err := fresh(g.layout)
	if err != nil {
		return err
	}
	g.hooks.use(g.layout, m)
	if err := g.hooks.load(); err != nil {
		s.unmap()
		m.close()
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	next := &clsact{log: g.log, layout: g.layout, hooks: g.hooks, maps: m, state: s, slots: map[cluster.GroupID]int{}}
	for name, i := range g.slots {
		if n := len(next.slots); r.groups[name] && n < int(s.size) {
			s.take(n, g.state.get(i))
			next.slots[name] = n
		}
	}
	for i := range maxMade {
		copy(s.mem[atMade+4*i:atMade+4*i+4], g.state.mem[atMade+4*i:])
	}
	err = next.fill(r)
	if err == nil {
		err = g.hooks.sweep(s)
	}
	if err != nil {
		// Some hooks may have the new programs: what they hold must not outlive this failure.
		for i := range int(s.size) {
			atomic.StoreInt64(s.deadline(i), 0)
		}
		s.unmap()
		m.close()
		return fmt.Errorf("replace a predecessor's layout %d by %d: %w", g.state.version, g.layout.version, err)
	}
	g.state.unmap()
	g.old.close()
	g.maps, g.state, g.slots, g.old = m, s, next.slots, nil
	return nil
}

// nowhere is a slot that does not exist. What leads there is closed.
const nowhere = ^uint32(0)

// fill brings the tables from what they hold to the rules. An address or port that stays guarded is
// guarded at every instant: entries are removed only if unwanted, and changed in place. One whose group
// goes leads nowhere until it leads to its new group, since another one may get the slot meanwhile.
func (g *clsact) fill(r *rules) error {
	if len(r.ports) > 0 {
		g.state.setPorts(len(r.ports))
	}
	freed := map[uint32]bool{}
	for name, i := range g.slots {
		freed[uint32(i)] = !r.groups[name]
	}
	for _, t := range []struct {
		m    *ebpf.Map
		want func(key []byte) bool
	}{
		{g.maps.addrs, func(key []byte) bool { _, ok := r.addresses[[16]byte(key)]; return ok }},
		{g.maps.ports, func(key []byte) bool { return r.wantsPort(key) }},
	} {
		if err := prune(t.m, t.want, freed); err != nil {
			return err
		}
	}
	if err := g.allot(r); err != nil {
		return err
	}
	for a, group := range r.addresses {
		if err := g.maps.addrs.Put(a[:], uint32(g.slots[group])); err != nil {
			return fmt.Errorf("guard address %x of %s: %w", a, group, err)
		}
	}
	for p, group := range r.ports {
		if err := g.maps.ports.Put(portKey(p), uint32(g.slots[group])); err != nil {
			return fmt.Errorf("guard port %s/%d of %s: %w", p.Protocol, p.Number, group, err)
		}
	}
	g.state.setPorts(len(r.ports))
	return nil
}

func portKey(p cluster.Port) uint32 { return uint32(protocolNumber(p))<<16 | uint32(p.Number) }

func (r *rules) wantsPort(key []byte) bool {
	k := native.Uint32(key)
	for _, protocol := range []string{"tcp", "udp"} {
		p := cluster.Port{Protocol: protocol, Number: uint16(k)}
		if _, ok := r.ports[p]; ok && portKey(p) == k {
			return true
		}
	}
	return false
}

func prune(m *ebpf.Map, want func(key []byte) bool, freed map[uint32]bool) error {
	var stale, loose [][]byte
	var key []byte
	var slot uint32
	it := m.Iterate()
	for it.Next(&key, &slot) {
		if !want(key) {
			stale = append(stale, slices.Clone(key))
		} else if freed[slot] {
			loose = append(loose, slices.Clone(key))
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read %s: %w", m, err)
	}
	for _, key := range loose {
		if err := m.Put(key, nowhere); err != nil {
			return fmt.Errorf("close %x in %s: %w", key, m, err)
		}
	}
	for _, key := range stale {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete %x from %s: %w", key, m, err)
		}
	}
	return nil
}

// allot frees the slots of groups no longer named and gives the new ones theirs, closed.
func (g *clsact) allot(r *rules) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	used := make([]bool, g.state.size)
	for name, i := range g.slots {
		if !r.groups[name] {
			g.state.free(i)
			delete(g.slots, name)
			continue
		}
		used[i] = true
	}
	free := 0
	for name := range r.groups {
		if _, ok := g.slots[name]; ok {
			continue
		}
		for free < len(used) && used[free] {
			free++
		}
		if free == len(used) {
			return fmt.Errorf("no slot for group %s: all %d are taken", name, len(used))
		}
		used[free] = true
		g.state.take(free, State{Group: name})
		g.slots[name] = free
	}
	return nil
}

func (g *clsact) Set(group cluster.GroupID, epoch cluster.Epoch, deadlineBoottime int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == nil {
		return fmt.Errorf("set the gate of %s: %w", group, ErrClosed)
	}
	i, ok := g.slots[group]
	if !ok {
		return fmt.Errorf("set the gate of %s: %w", group, ErrUnknownGroup)
	}
	seen := g.state.epoch(i)
	if high := cluster.Epoch(*seen); epoch < high {
		return fmt.Errorf("set the gate of %s for epoch %d: epoch %d was seen: %w", group, epoch, high, ErrStaleEpoch)
	} else if epoch > high {
		atomic.StoreUint64(seen, uint64(epoch))
	}
	// A negative deadline would be a very late one to the program, which compares without sign.
	atomic.StoreInt64(g.state.deadline(i), max(0, deadlineBoottime))
	if g.help != nil {
		if err := g.help.Set(group, epoch, deadlineBoottime); err != nil {
			return fmt.Errorf("set the gate of %s in nftables, which guards as well: %w", group, err)
		}
	}
	if deadlineBoottime <= 0 && !g.isWhole() {
		return fmt.Errorf("close the gate of %s: %w", group, ErrOff)
	}
	return nil
}

func (g *clsact) Left() ([]State, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == nil {
		return nil, fmt.Errorf("read the gate: %w", ErrClosed)
	}
	var left []State
	for _, i := range g.slots {
		left = append(left, g.state.get(i))
	}
	sortStates(left)
	return left, nil
}

func sortStates(s []State) {
	sort.Slice(s, func(i, j int) bool { return strings.Compare(string(s[i].Group), string(s[j].Group)) < 0 })
}

func (g *clsact) Sweep() error {
	g.work.Lock()
	if g.state == nil {
		g.work.Unlock()
		return fmt.Errorf("sweep: %w", ErrClosed)
	}
	if !g.hooks.active {
		g.work.Unlock()
		return nil // nothing is guarded before the first Guard
	}
	err := g.hooks.sweep(g.state)
	if err == nil {
		err = g.reinforce(false)
	}
	if g.help != nil {
		err = errors.Join(err, g.help.Sweep())
	}
	g.moveOn()
	g.publish()
	g.tell(err)
	g.warn()
	return err
}

// tell ends what began with work locked: it unlocks, and tells the owner what others had taken off, or that what they
// took off can't be put back.
func (g *clsact) tell(err error) {
	taken, was := strings.Join(g.hooks.taken, ", "), g.unwhole
	partly := len(g.hooks.amiss) > 0 // what this put back is not all
	g.hooks.taken, g.unwhole = nil, err != nil || partly
	g.work.Unlock()
	if taken != "" {
		g.log.Warn("somebody took the gate off: it was put back", "from", taken)
	}
	if g.off == nil {
		return
	}
	switch {
	case err != nil:
		g.off(err.Error())
	case taken != "":
		g.off("it was taken off " + taken)
		if !partly {
			g.off("")
		}
	case was && !partly:
		g.off("")
	}
}

// warn tells the log, once for each, of programs of others that run ahead of the gate.
func (g *clsact) warn() {
	g.work.Lock()
	defer g.work.Unlock()
	if g.hooks.noTCX != nil {
		return
	}
	for at := range g.hooks.pins.links {
		if ahead := g.hooks.pins.before(at); ahead != g.ahead[at] {
			g.ahead[at] = ahead
			if ahead != "" {
				g.log.Warn("programs of others run ahead of the gate: what they let pass for good is not filtered", "index", at.index, "cause", "BPF programs "+ahead)
			}
		}
	}
}

// heard is called by the watcher.
func (g *clsact) heard(n news) error {
	g.work.Lock()
	if g.state == nil || !g.hooks.active {
		g.work.Unlock()
		return nil
	}
	var err error
	switch {
	case n.lost:
		err = g.hooks.sweep(g.state)
	case n.gone:
		g.hooks.forget(g.state, n.index)
	case n.filters && !g.hooks.known[n.index] && !g.hooks.amiss[n.index]: // no news of ours
	case n.filters && g.hooks.noTCX == nil && g.hooks.bare[n.index]: // nothing of this gate's is there
	case !n.filters && g.hooks.known[n.index]:
	default:
		err = g.hooks.one(g.state, n.index)
	}
	if err == nil {
		err = g.reinforce(false)
	}
	g.moveOn()
	g.publish()
	if len(g.hooks.taken) == 0 && err == nil && !g.unwhole {
		g.work.Unlock()
		return nil
	}
	g.tell(err)
	return err
}

func (g *clsact) Describe() string {
	g.work.Lock()
	defer g.work.Unlock()
	what := "ebpf tcx"
	if g.hooks.noTCX != nil {
		what = "ebpf clsact"
	}
	if g.help != nil {
		what += " and nftables"
	}
	return what
}

func (g *clsact) Why() string {
	g.work.Lock()
	defer g.work.Unlock()
	if g.hooks.noTCX == nil {
		return ""
	}
	why := fmt.Sprintf("tcx can't be used: %v", g.hooks.noTCX)
	if g.help != nil {
		why += "; " + g.hooks.lack()
	}
	return why
}

func (g *clsact) Close() error {
	g.end()
	g.work.Lock()
	defer g.work.Unlock()
	if g.state == nil {
		return fmt.Errorf("close the gate: %w", ErrClosed)
	}
	g.release()
	return nil
}

// end ends what goes on beside calls. The caller holds no lock.
func (g *clsact) end() {
	if g.watch != nil {
		g.watch.close()
	}
	g.once.Do(func() { close(g.ends) })
	g.work.Lock()
	clear(g.hooks.later)
	g.work.Unlock()
	g.tasks.Wait()
}

// release lets go of everything that this process holds; the kernel keeps what is attached.
func (g *clsact) release() {
	g.mu.Lock()
	if g.state != nil {
		g.state.unmap()
		g.state = nil
	}
	for _, m := range []*maps{g.maps, g.old} {
		if m != nil {
			m.close()
		}
	}
	if g.help != nil {
		g.help.Close()
		g.help = nil
	}
	g.mu.Unlock()
	g.looks.Wait()
	g.hooks.close()
}

func (g *clsact) Remove() error {
	g.end()
	g.work.Lock()
	defer g.work.Unlock()
	if g.state == nil {
		return fmt.Errorf("remove the gate: %w", ErrClosed)
	}
	err := errors.Join(g.hooks.remove(g.state), g.dismissHelp())
	g.release()
	if err != nil {
		return fmt.Errorf("remove the gate: %w", err)
	}
	return nil
}
