package gate

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// layout says how the kernel's tables are arranged. Programs are made for one layout. A successor with
// another one reads its predecessor's state through the header, whose fields and whose slots' fields
// below keep their places in every layout.
type layout struct {
	version uint32
	slots   uint32
	stride  uint32 // bytes of a slot
}

var current = layout{version: 1, slots: maxGroups, stride: 128}

// The state is the one value of an array map, mapped into this process: header, then slots.
const (
	atMagic   = 0  // uint32
	atVersion = 4  // uint32
	atOffset  = 8  // uint32, of the first slot
	atStride  = 12 // uint32
	atCount   = 16 // uint32
	atPorts   = 20 // uint32: how many ports are guarded
	atMade    = 64 // uint32 each: indexes of the interfaces whose clsact qdisc this gate made

	maxMade    = 240
	headerSize = atMade + 4*maxMade // 1024

	slotDeadline = 0 // int64
	slotEpoch    = 8 // uint64
	slotNameLen  = 16
	slotName     = 17

	stateMagic = 0x62a7041e
)

func (l layout) size() uint32 { return headerSize + l.slots*l.stride }

// state is a mapped state of any layout.
type state struct {
	mem                           []byte
	version, offset, stride, size uint32
}

func mapState(m *ebpf.Map) (*state, error) {
	size := int(m.ValueSize())
	if size < headerSize {
		return nil, fmt.Errorf("state of %d bytes; at least %d are needed", size, headerSize)
	}
	mem, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of state: %w", size, err)
	}
	return &state{mem: mem}, nil
}

// found reads the header of a state that a predecessor made.
func (s *state) found() error {
	word := func(at int) uint32 { return binary.NativeEndian.Uint32(s.mem[at:]) }
	s.version, s.offset, s.stride, s.size = word(atVersion), word(atOffset), word(atStride), word(atCount)
	end := uint64(s.offset) + uint64(s.stride)*uint64(s.size)
	if word(atMagic) != stateMagic || s.offset%8 != 0 || s.stride%8 != 0 || s.offset < headerSize ||
		s.stride < slotName+maxNameBytes || end > uint64(len(s.mem)) {
		return fmt.Errorf("magic %#x, version %d, %d slots of %d bytes from %d on in %d bytes: not a gate's state",
			word(atMagic), s.version, s.size, s.stride, s.offset, len(s.mem))
	}
	return nil
}

func (s *state) format(l layout) {
	s.version, s.offset, s.stride, s.size = l.version, headerSize, l.stride, l.slots
	put := func(at int, v uint32) { binary.NativeEndian.PutUint32(s.mem[at:], v) }
	put(atVersion, s.version)
	put(atOffset, s.offset)
	put(atStride, s.stride)
	put(atCount, s.size)
	put(atMagic, stateMagic)
}

func (s *state) slot(i int) []byte {
	at := int(s.offset) + i*int(s.stride)
	return s.mem[at : at+int(s.stride)]
}

// The two words that the kernel and a killed process's successor must never see half written. The
// mapping begins on a page and all offsets are multiples of 8, so the accesses are aligned.
func (s *state) deadline(i int) *int64 { return (*int64)(unsafe.Pointer(&s.slot(i)[slotDeadline])) }
func (s *state) epoch(i int) *uint64   { return (*uint64)(unsafe.Pointer(&s.slot(i)[slotEpoch])) }

func (s *state) setPorts(n int) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&s.mem[atPorts])), uint32(n))
}

func (s *state) name(i int) cluster.GroupID {
	b := s.slot(i)
	return cluster.GroupID(b[slotName : slotName+min(int(b[slotNameLen]), maxNameBytes)])
}

// take makes slot i the group's. The name's length comes last: a process killed before it leaves the slot free.
func (s *state) take(i int, st State) {
	b := s.slot(i)
	atomic.StoreInt64(s.deadline(i), st.Deadline)
	atomic.StoreUint64(s.epoch(i), uint64(st.Epoch))
	copy(b[slotName:], st.Group)
	b[slotNameLen] = byte(len(st.Group))
}

// free gives slot i back, closed.
func (s *state) free(i int) {
	atomic.StoreInt64(s.deadline(i), 0)
	s.slot(i)[slotNameLen] = 0
}

func (s *state) get(i int) State {
	return State{s.name(i), cluster.Epoch(atomic.LoadUint64(s.epoch(i))), atomic.LoadInt64(s.deadline(i))}
}

// taken returns the slot of each group.
func (s *state) taken() map[cluster.GroupID]int {
	slots := map[cluster.GroupID]int{}
	for i := range int(s.size) {
		if name := s.name(i); name != "" {
			slots[name] = i
		}
	}
	return slots
}

// made tells whether this gate made the interface's qdisc.
func (s *state) made(index int) bool { return s.findMade(uint32(index)) >= 0 }

// setMade notes that this gate made the interface's qdisc. Without room for the note the qdisc is
// treated as someone else's: it stays after Remove, empty.
func (s *state) setMade(index int) {
	at := s.findMade(0)
	if s.made(index) || at < 0 {
		return
	}
	binary.NativeEndian.PutUint32(s.mem[atMade+4*at:], uint32(index))
}

func (s *state) clearMade(index int) {
	if at := s.findMade(uint32(index)); at >= 0 {
		binary.NativeEndian.PutUint32(s.mem[atMade+4*at:], 0)
	}
}

func (s *state) findMade(index uint32) int {
	for i := range maxMade {
		if binary.NativeEndian.Uint32(s.mem[atMade+4*i:]) == index {
			return i
		}
	}
	return -1
}

func (s *state) unmap() {
	// Nothing can be done about a failure, and none is possible: the mapping is ours.
	_ = unix.Munmap(s.mem)
	s.mem = nil
}
