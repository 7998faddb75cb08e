package gate

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// tables is the gate kept by nftables: a table of family inet and one of family arp, of one name. An
// address or port leads to its group's slot, the slot must stand in the set "open", and an element of
// "open" goes when its timeout has run out.
type tables struct {
	name string

	mu     sync.Mutex
	raw    syscall.RawConn // of conn
	conn   *nftables.Conn  // bound to the namespace where it was made; nil after Close
	writer *writer
	slots  map[cluster.GroupID]*slot
	sets   *sets
	last   *rules // of the last Guard; nil before

	monitor *monitor // nil: only Sweep and Set find out what others do
	log     *slog.Logger
	off     func(why string)
	amiss   bool     // it was told that they can't be put back, and not yet that they are
	own     []uint32 // port ids of the two sockets
	why     error    // why it is not eBPF
}

type slot struct {
	number   uint32
	epoch    cluster.Epoch
	deadline int64 // as last asked for; 0 where only a predecessor knows it
}

// sets are the named sets of both tables. A successor depends on the names and on what "groups" and
// "open" hold: a change of those needs new names and a reader for the old.
type sets struct {
	inet, arp    *nftables.Table
	groups       *nftables.Set // slot, commented "epoch name"
	open         *nftables.Set // slot, with a timeout
	addr4, addr6 *nftables.Set // address -> slot
	tcp, udp     *nftables.Set // port -> slot
	arpOpen      *nftables.Set
	arpAddr4     *nftables.Set
}

func newSets(name string) *sets {
	inet := &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
	arp := &nftables.Table{Name: name, Family: nftables.TableFamilyARP}
	to := func(t *nftables.Table, name string, key nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{Table: t, Name: name, IsMap: true, KeyType: key, DataType: nftables.TypeMark}
	}
	s := &sets{
		inet: inet, arp: arp,
		groups:   &nftables.Set{Table: inet, Name: "groups", KeyType: nftables.TypeMark},
		open:     &nftables.Set{Table: inet, Name: "open", KeyType: nftables.TypeMark, HasTimeout: true},
		addr4:    to(inet, "addr4", nftables.TypeIPAddr),
		addr6:    to(inet, "addr6", nftables.TypeIP6Addr),
		tcp:      to(inet, "tcp", nftables.TypeInetService),
		udp:      to(inet, "udp", nftables.TypeInetService),
		arpOpen:  &nftables.Set{Table: arp, Name: "open", KeyType: nftables.TypeMark, HasTimeout: true},
		arpAddr4: to(arp, "addr4", nftables.TypeIPAddr),
	}
	// Numbers need to differ within one transaction only. Without one the package takes the next of a
	// counter that all its users in the process share, unlocked.
	for i, one := range append(s.fixed(), s.open, s.arpOpen) {
		one.ID = uint32(i + 1)
	}
	return s
}

// fixed are the sets that Guard fills anew each time.
func (s *sets) fixed() []*nftables.Set {
	return []*nftables.Set{s.groups, s.addr4, s.addr6, s.tcp, s.udp, s.arpAddr4}
}

func tableName(opts Options) string {
	_, sum := identity(opts)
	return "baton_" + hex.EncodeToString(sum[:6])
}

func openTables(opts Options) (Gate, error) {
	t, err := openNamed(tableName(opts))
	if err != nil {
		return nil, err
	}
	t.watchOver(opts.Log, opts.Off)
	return t, nil
}

// openNamed opens the tables of a name, whether a predecessor has left them or not.
func openNamed(name string) (*tables, error) {
	t, err := newTables(name)
	if err != nil {
		return nil, err
	}
	there, err := t.adopt()
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("take over from a predecessor: %w", err)
	}
	if there { // quicker: to delete the table of a trial takes the kernel some 10 ms
		if t.writer.replace, err = t.try(); err == nil {
			return t, nil
		}
	}
	if t.writer.replace, err = trial(); err != nil {
		t.Close()
		return nil, fmt.Errorf("try out a table: %w", err)
	}
	return t, nil
}

// trial makes everything once under a name of its own.
func trial() (replace bool, err error) {
	t, err := newTables("baton_trial_" + strconv.Itoa(unix.Getpid()))
	if err != nil {
		return false, err
	}
	if err = t.Guard([]Group{{ID: "trial"}}); err == nil {
		replace, err = t.try()
	}
	return replace, errors.Join(err, t.Remove())
}

func leftTables(opts Options) bool {
	there, err := leftNamed(tableName(opts))
	return err == nil && there
}

func leftNamed(name string) (bool, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return false, err
	}
	defer conn.CloseLasting()
	return exists(conn, name)
}

func exists(conn *nftables.Conn, name string) (bool, error) {
	all, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	for _, t := range all {
		if t.Name == name {
			return true, nil
		}
	}
	return false, nil
}

func newTables(name string) (*tables, error) {
	t := &tables{name: name, slots: map[cluster.GroupID]*slot{}, sets: newSets(name), log: slog.New(slog.DiscardHandler)}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(t.prepare))
	if err != nil {
		return nil, fmt.Errorf("open nfnetlink: %w", err)
	}
	w, err := newWriter(name)
	if err != nil {
		conn.CloseLasting()
		return nil, err
	}
	port, err := portOf(w.fd)
	if err != nil {
		conn.CloseLasting()
		w.close()
		return nil, err
	}
	t.conn, t.writer, t.own = conn, w, append(t.own, port)
	return t, nil
}

// room is what a socket may hold of one transaction: the kernel answers each message of it before it returns, and one
// answer takes some 800 bytes.
const room = 4 << 20

// prepare makes room, as far as this process may, and notes the socket's port id.
func (t *tables) prepare(conn *netlink.Conn) error {
	if err := errors.Join(conn.SetReadBuffer(room), conn.SetWriteBuffer(room)); err != nil {
		return fmt.Errorf("make room for the kernel's answers: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var port uint32
	var failed error
	err = raw.Control(func(fd uintptr) { port, failed = portOf(int(fd)) })
	t.own = append(t.own, port)
	t.raw = raw
	return errors.Join(err, failed)
}

// flush sends what is collected as one transaction. Of one that fails, the kernel answers more than is read: the rest
// would be taken for the answers to what comes after.
func (t *tables) flush() error {
	err := t.conn.Flush()
	if err != nil {
		t.drain()
	}
	return err
}

// drain drops what the kernel has answered that nobody has read. It answers before a send returns.
func (t *tables) drain() {
	answer := make([]byte, os.Getpagesize())
	_ = t.raw.Control(func(fd uintptr) {
		for {
			if _, _, err := unix.Recvfrom(int(fd), answer, unix.MSG_DONTWAIT); err != nil && err != unix.EINTR && err != unix.ENOBUFS {
				return
			}
		}
	})
}

// watchOver has the tables put back as soon as others change them. Without the kernel's news a Sweep does that.
func (t *tables) watchOver(log *slog.Logger, off func(why string)) {
	t.log, t.off = log, off
	var err error
	if t.monitor, err = newMonitor(log, t.name, t.own, t.touched); err != nil {
		log.Warn("what others do to the gate is noticed later", "cause", err)
	}
}

// touched puts everything back as it was: others have changed the tables.
func (t *tables) touched() {
	t.mu.Lock()
	if t.conn == nil || t.last == nil {
		t.mu.Unlock()
		return
	}
	err := t.restore()
	t.amiss = err != nil
	t.mu.Unlock()
	if err != nil {
		t.log.Error("somebody changed the gate's tables, and they can't be put back", "cause", err)
	} else {
		t.log.Warn("somebody changed the gate's tables: they were put back")
	}
	if t.off == nil {
		return
	}
	if err != nil {
		t.off("its nftables tables can't be put back: " + err.Error())
		return
	}
	t.off("its nftables tables were changed")
	t.off("")
}

// restore writes everything anew, the deadlines last asked for included: what is open stays so but for a moment.
func (t *tables) restore() error {
	if err := t.build(t.last); err != nil {
		return err
	}
	var err error
	for name, s := range t.slots {
		if s.deadline > 0 {
			if failed := t.write(s.number, s.deadline); failed != nil {
				err = errors.Join(err, fmt.Errorf("open %s again: %w", name, failed))
			}
		}
	}
	return err
}

// spare is a slot that nothing leads to: groups have 1 and up.
const spare = 0

// try tells how an element's life can be changed here: kernels before 6.12 keep an element's expiry when
// it is added again, so it must be replaced.
func (t *tables) try() (replace bool, err error) {
	const long, short = time.Hour, time.Minute
	if err := t.writer.drop(spare); err != nil { // a predecessor may have been killed between here and below
		return false, err
	}
	for _, life := range []time.Duration{long, short} {
		if err := t.writer.put(spare, life); err != nil {
			return false, err
		}
	}
	elements, err := t.conn.GetSetElements(t.sets.open)
	if err == nil {
		err = t.writer.drop(spare)
	}
	if err != nil {
		return false, fmt.Errorf("read back an element: %w", err)
	}
	for _, e := range elements {
		if len(e.Key) == 4 && native.Uint32(e.Key) == spare {
			return e.Expires > short, nil
		}
	}
	return false, errors.New("read back an element: it is not there")
}

// adopt reads which groups a predecessor guarded, under which slots and epochs; without one it is not there.
func (t *tables) adopt() (there bool, err error) {
	there, err = exists(t.conn, t.name)
	if err != nil || !there {
		return false, err
	}
	elements, err := t.conn.GetSetElements(t.sets.groups)
	if err != nil {
		return false, fmt.Errorf("read the groups of table %s: %w", t.name, err)
	}
	for _, e := range elements {
		epoch, name, ok := strings.Cut(strings.TrimRight(e.Comment, "\x00"), " ")
		number, err := strconv.ParseUint(epoch, 10, 64)
		if !ok || err != nil || len(e.Key) != 4 {
			return false, fmt.Errorf("table %s: group %q can't be read", t.name, e.Comment)
		}
		t.slots[cluster.GroupID(name)] = &slot{number: native.Uint32(e.Key), epoch: cluster.Epoch(number)}
	}
	return true, nil
}

func (s *slot) element(group cluster.GroupID) []nftables.SetElement {
	return []nftables.SetElement{{Key: s.key(), Comment: fmt.Sprintf("%d %s", s.epoch, group)}}
}

func (s *slot) key() []byte { return native.AppendUint32(nil, s.number) }

// Guard rebuilds everything but the two "open" sets in one transaction: the kernel goes from the old
// rules to the new at one instant, so what stays guarded is never unguarded.
func (t *tables) Guard(groups []Group) error {
	r, err := check(groups)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return fmt.Errorf("guard: %w", ErrClosed)
	}
	if err := t.allot(r); err != nil {
		return fmt.Errorf("guard %d groups: %w", len(groups), err)
	}
	if err := t.build(r); err != nil {
		return fmt.Errorf("guard %d groups: %w", len(groups), err)
	}
	t.last = r
	return nil
}

func (t *tables) build(r *rules) error {
	var err error
	for _, table := range []*nftables.Table{t.sets.inet, t.sets.arp} {
		t.conn.AddTable(table)
		t.conn.FlushTable(table)
	}
	for _, s := range []*nftables.Set{t.sets.open, t.sets.arpOpen} {
		err = errors.Join(err, t.conn.AddSet(s, nil))
	}
	for _, s := range t.sets.fixed() {
		err = errors.Join(err, t.conn.AddSet(s, nil))
		t.conn.FlushSet(s)
	}
	var groups []nftables.SetElement
	for name, s := range t.slots {
		groups = append(groups, s.element(name)...)
	}
	err = errors.Join(err, t.addAll(t.sets.groups, groups), t.lead(r))
	t.rules()
	if err = errors.Join(err, t.flush()); err != nil {
		return fmt.Errorf("write table %s: %w", t.name, err)
	}
	return nil
}

// allot closes and frees the slots of groups no longer named, and gives new groups theirs: others than
// those, since the kernel's addresses still lead there until the transaction.
func (t *tables) allot(r *rules) error {
	used := map[uint32]bool{}
	for name, s := range t.slots {
		used[s.number] = true
		if r.groups[name] {
			continue
		}
		if err := t.writer.drop(s.number); err != nil {
			return fmt.Errorf("close group %s, which is no longer guarded: %w", name, err)
		}
		delete(t.slots, name)
	}
	next := uint32(1)
	for name := range r.groups {
		if t.slots[name] != nil {
			continue
		}
		for used[next] {
			next++
		}
		used[next] = true
		t.slots[name] = &slot{number: next}
	}
	return nil
}

// lead adds the elements that lead from addresses and ports to slots.
func (t *tables) lead(r *rules) error {
	to := map[*nftables.Set][]nftables.SetElement{}
	add := func(s *nftables.Set, key []byte, group cluster.GroupID) {
		to[s] = append(to[s], nftables.SetElement{Key: key, Val: t.slots[group].key()})
	}
	for a, group := range r.addresses {
		if strings.HasPrefix(string(a[:]), mapped4) {
			add(t.sets.addr4, a[12:], group)
			add(t.sets.arpAddr4, a[12:], group)
		} else {
			add(t.sets.addr6, a[:], group)
		}
	}
	for p, group := range r.ports {
		set := t.sets.udp
		if p.Protocol == "tcp" {
			set = t.sets.tcp
		}
		add(set, []byte{byte(p.Number >> 8), byte(p.Number)}, group)
	}
	var err error
	for s, elements := range to {
		err = errors.Join(err, t.addAll(s, elements))
	}
	return err
}

// perMessage is how many elements go in one message: less than the 64 KiB that a list of them can hold.
const perMessage = 100

// addAll adds elements in as few messages as can be, since each is answered.
func (t *tables) addAll(s *nftables.Set, elements []nftables.SetElement) error {
	var err error
	for some := range slices.Chunk(elements, perMessage) {
		err = errors.Join(err, t.conn.SetAddElements(s, some))
	}
	return err
}

// mapped4 begins an IPv4-mapped address.
const mapped4 = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff"

// margin is kept before the deadline: a write that takes up to this long still can't outlast it. A write
// that took longer is tried again with four times the margin.
const margin = time.Millisecond

// Set writes what is left until the deadline. The kernel counts from its own commit, so the clock is
// read again after the write: if that took longer than the margin, what was written is void, and is
// written again or, in the end, closed. A process stopped between write and check can leave the gate
// open for at most the length of what it wrote.
func (t *tables) Set(group cluster.GroupID, epoch cluster.Epoch, deadlineBoottime int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return fmt.Errorf("set the gate of %s: %w", group, ErrClosed)
	}
	s := t.slots[group]
	if s == nil {
		return fmt.Errorf("set the gate of %s: %w", group, ErrUnknownGroup)
	}
	if epoch < s.epoch {
		return fmt.Errorf("set the gate of %s for epoch %d: epoch %d was seen: %w", group, epoch, s.epoch, ErrStaleEpoch)
	}
	if epoch > s.epoch {
		err := t.note(group, s, epoch)
		if errors.Is(err, unix.ENOENT) && t.last != nil { // someone flushed the ruleset
			if err = t.restore(); err == nil {
				err = t.note(group, s, epoch)
			}
		}
		if err != nil {
			return err
		}
	}
	s.deadline = max(0, deadlineBoottime)
	if err := t.write(s.number, deadlineBoottime); err != nil {
		return fmt.Errorf("set the gate of %s: %w", group, err)
	}
	return nil
}

const attempts = 3 // at a write within the margin

func (t *tables) write(number uint32, deadline int64) error {
	var took time.Duration
	margin := margin
	for range attempts {
		before := boottime()
		left := (time.Duration(deadline-before) - margin).Truncate(time.Millisecond)
		if deadline <= before || left <= 0 {
			err := t.writer.run(t.writer.erase, number, time.Second)
			if errors.Is(err, unix.ENOENT) {
				err = nil
				if t.last != nil { // someone flushed the ruleset: nothing is shut before it is there again
					err = t.build(t.last)
				}
			}
			return err
		}
		err := t.writer.put(number, left)
		if errors.Is(err, unix.ENOENT) && t.last != nil { // someone flushed the ruleset
			if err = t.build(t.last); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			// What the kernel holds is not known now.
			return errors.Join(err, t.writer.drop(number))
		}
		if took = time.Duration(boottime() - before); took <= margin {
			return nil
		}
		margin *= 4
	}
	return errors.Join(t.writer.drop(number),
		fmt.Errorf("closed: %d writes in a row took too long, the last %v", attempts, took))
}

// note stores a higher epoch, for a successor.
func (t *tables) note(group cluster.GroupID, s *slot, epoch cluster.Epoch) error {
	next := &slot{number: s.number, epoch: epoch}
	err := errors.Join(
		t.conn.SetDeleteElements(t.sets.groups, []nftables.SetElement{{Key: s.key()}}),
		t.conn.SetAddElements(t.sets.groups, next.element(group)),
		t.flush())
	if err != nil {
		return fmt.Errorf("note epoch %d of %s: %w", epoch, group, err)
	}
	s.epoch = epoch
	return nil
}

// tick is the longest that the kernel's jiffies can lag behind its clocks, at 100 Hz.
const tick = 10 * time.Millisecond

// Left computes deadlines from what is left of timeouts. The kernel reckons that from its last tick, so
// a tick is taken off: what is handed on must never be later than what was set.
func (t *tables) Left() ([]State, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return nil, fmt.Errorf("read the gate: %w", ErrClosed)
	}
	if len(t.slots) == 0 {
		return nil, nil
	}
	now := boottime()
	elements, err := t.conn.GetSetElements(t.sets.open)
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", t.name, err)
	}
	deadlines := map[uint32]int64{}
	for _, e := range elements {
		if len(e.Key) == 4 && e.Expires > 0 {
			deadlines[native.Uint32(e.Key)] = now + int64(e.Expires-tick)
		}
	}
	var left []State
	for name, s := range t.slots {
		left = append(left, State{name, s.epoch, deadlines[s.number]})
	}
	sortStates(left)
	return left, nil
}

// Sweep puts the tables back, all groups closed until their next Set, if someone has flushed the
// ruleset, or if they could not be put back before. Interfaces need nothing: the rules see the packets of all.
func (t *tables) Sweep() error {
	again, err := t.sweep()
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	if again && t.off != nil {
		t.off("")
	}
	return nil
}

// sweep reports whether the tables are whole again after it was told that they can't be put back.
func (t *tables) sweep() (again bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return false, ErrClosed
	}
	there, err := exists(t.conn, t.name)
	if err == nil && (!there || t.amiss) && t.last != nil {
		err = t.restore()
	}
	if err != nil || !t.amiss {
		return false, err
	}
	t.amiss = false
	return true, nil
}

// Look has nothing to do: the kernel tells of everything.
func (t *tables) Look() {}

func (t *tables) Describe() string { return "nftables" }

func (t *tables) Why() string {
	if t.why == nil {
		return ""
	}
	return "eBPF can't be used: " + t.why.Error()
}

// unwatch ends the monitor. The caller holds no lock.
func (t *tables) unwatch() {
	t.mu.Lock()
	m := t.monitor
	t.monitor = nil
	t.mu.Unlock()
	if m != nil {
		m.close()
	}
}

func (t *tables) Close() error {
	t.unwatch()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return fmt.Errorf("close the gate: %w", ErrClosed)
	}
	return t.release()
}

func (t *tables) release() error {
	err := errors.Join(t.conn.CloseLasting(), t.writer.close())
	t.conn = nil
	return err
}

func (t *tables) Remove() error {
	t.unwatch()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return fmt.Errorf("remove the gate: %w", ErrClosed)
	}
	for _, table := range []*nftables.Table{t.sets.inet, t.sets.arp} {
		t.conn.AddTable(table) // or deleting one that is not there would fail
		t.conn.DelTable(table)
	}
	err := t.flush()
	err = errors.Join(err, t.release())
	if err != nil {
		return fmt.Errorf("remove the gate: %w", err)
	}
	return nil
}
