package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"baton/internal/core/cluster"
)

// A record is a header and a payload, padded with zeros to a multiple of 8 bytes:
//
//	magic 4 | crc 4 | payload length 4 | crc of the record before 4 | seq 8 | durable 8 | payload
//
// all little-endian; the crc is CRC-32C over everything after it, padding included. The first record of a
// file is its base: it holds the file's size and the whole content; its "crc of the record before" is random, so
// that records of two files never fit together. durable is the highest seq that was known to be on the
// disk when the record was written. It tells a crash from a lie: records after a broken one may be there
// although the disk did nothing wrong, as long as none of them says that the broken one was durable.
const (
	recordMagic = 0x9e_ba_70_0b
	headerSize  = 32
	align       = 8

	formatVersion = 1
	kindBase      = 1
	kindChange    = 2
)

// Bits of a change's first byte: which parts follow, in this order.
const (
	hasFounding = 1 << iota
	hasHard
	hasSnapshot
	hasEntries
	hasNotes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// tail is where the log ends, and what the next record must follow.
type tail struct {
	at      int64
	crc     uint32
	seq     uint64
	durable uint64
}

// append appends the record with the payload that fill appends, and moves crc and seq on, not at.
func (t *tail) append(b []byte, fill func([]byte) []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, headerSize)...)
	b = fill(b)
	length := len(b) - start - headerSize
	for (len(b)-start)%align != 0 {
		b = append(b, 0)
	}
	h := b[start:]
	t.seq++
	binary.LittleEndian.PutUint32(h, recordMagic)
	binary.LittleEndian.PutUint32(h[8:], uint32(length))
	binary.LittleEndian.PutUint32(h[12:], t.crc)
	binary.LittleEndian.PutUint64(h[16:], t.seq)
	binary.LittleEndian.PutUint64(h[24:], t.durable)
	t.crc = crc32.Checksum(h[8:], castagnoli)
	binary.LittleEndian.PutUint32(h[4:], t.crc)
	return b
}

type record struct {
	crc, prev    uint32
	seq, durable uint64
	payload      []byte
	size         int64 // with header and padding
}

// parse reads the record at the start of b; ok is false if there is none that is whole.
func parse(b []byte) (r record, ok bool) {
	if len(b) < headerSize || binary.LittleEndian.Uint32(b) != recordMagic {
		return record{}, false
	}
	length := int64(binary.LittleEndian.Uint32(b[8:]))
	size := (headerSize + length + align - 1) / align * align
	if size > int64(len(b)) {
		return record{}, false
	}
	r = record{
		crc:     binary.LittleEndian.Uint32(b[4:]),
		prev:    binary.LittleEndian.Uint32(b[12:]),
		seq:     binary.LittleEndian.Uint64(b[16:]),
		durable: binary.LittleEndian.Uint64(b[24:]),
		payload: b[headerSize : headerSize+length],
		size:    size,
	}
	return r, crc32.Checksum(b[8:size], castagnoli) == r.crc
}

// corrupt makes the error about one place of a log file.
func corrupt(file string, at int64, seen string) error {
	return fmt.Errorf("%w: %s, byte %d: %s: the disk lost or changed what it had confirmed, and nothing of it may be used", ErrCorrupt, file, at, seen)
}

type contents struct {
	image  cluster.DiskImage
	tail   tail
	report Report
}

// readLog reads a whole log file. Whatever it returns without an error holds every write that was known
// to be durable; see the comment at the top.
func readLog(file string, b []byte) (contents, error) {
	var c contents
	base, ok := parse(b)
	if !ok {
		return c, corrupt(file, 0, "the first record is broken")
	}
	if err := readBase(&c.image, file, base, int64(len(b))); err != nil {
		return contents{}, err
	}
	c.tail = tail{at: base.size, crc: base.crc, seq: base.seq, durable: base.seq}
	for {
		r, ok := parse(b[c.tail.at:])
		if !ok || r.seq != c.tail.seq+1 || r.prev != c.tail.crc {
			break
		}
		p, err := decodeRecord(r.payload)
		if err == nil {
			err = apply(&c.image, p)
		}
		if err != nil {
			return contents{}, corrupt(file, c.tail.at, err.Error())
		}
		c.tail = tail{at: c.tail.at + r.size, crc: r.crc, seq: r.seq, durable: r.durable}
	}
	rest := bytes.TrimRight(b[c.tail.at:], "\x00")
	if len(rest) == 0 {
		return c, nil
	}
	if err := checkTorn(file, b, c.tail); err != nil {
		return contents{}, err
	}
	c.report = Report{Torn: true, Offset: c.tail.at, Bytes: int64(len(rest))}
	return c, nil
}

// checkTorn returns nil if what follows the end of the log can be the remains of a crash.
func checkTorn(file string, b []byte, t tail) error {
	for at := t.at; at < int64(len(b)); at += align {
		r, ok := parse(b[at:])
		switch {
		case !ok:
		case at == t.at:
			return corrupt(file, at, fmt.Sprintf("a whole record (%d) that does not follow the one before it (%d)", r.seq, t.seq))
		case r.durable > t.seq:
			return corrupt(file, t.at, fmt.Sprintf("record %d is broken, though it was durable when record %d, at byte %d, was written", t.seq+1, r.seq, at))
		}
	}
	return nil
}

func readBase(image *cluster.DiskImage, file string, base record, size int64) error {
	p := base.payload
	if len(p) < 18 || p[0] != kindBase {
		return corrupt(file, 0, "the first record is not the base of a log")
	}
	if p[1] != formatVersion {
		return fmt.Errorf("%s has format %d, this agent reads format %d: it was written by another release", file, p[1], formatVersion)
	}
	if want := binary.LittleEndian.Uint64(p[2:]); want != uint64(size) {
		return corrupt(file, 0, fmt.Sprintf("the file has %d bytes, it was made with %d", size, want))
	}
	image.Incarnation = cluster.Incarnation(binary.LittleEndian.Uint64(p[10:]))
	if image.Incarnation == 0 {
		return corrupt(file, 0, "the incarnation is zero")
	}
	change, err := decodeChange(p[18:])
	if err == nil {
		err = apply(image, change)
	}
	if err != nil {
		return corrupt(file, 0, err.Error())
	}
	return nil
}

func decodeRecord(payload []byte) (cluster.Persist, error) {
	if len(payload) == 0 || payload[0] != kindChange {
		return cluster.Persist{}, errors.New("the record's kind is unknown")
	}
	return decodeChange(payload[1:])
}

func appendChange(b []byte, p cluster.Persist) []byte {
	uint := binary.AppendUvarint
	data := func(b, data []byte) []byte { return append(uint(b, uint64(len(data))), data...) }
	at := len(b)
	b = append(b, 0)
	if p.Founding != nil {
		b[at] |= hasFounding
		b = data(b, p.Founding)
	}
	if p.Hard != nil {
		b[at] |= hasHard
		b = uint(uint(uint(b, p.Hard.Term), p.Hard.Vote), p.Hard.Commit)
	}
	if p.Snapshot != nil {
		b[at] |= hasSnapshot
		b = data(uint(uint(b, p.Snapshot.Index), p.Snapshot.Term), p.Snapshot.Data)
	}
	if len(p.Entries) > 0 {
		b[at] |= hasEntries
		b = uint(uint(b, p.Entries[0].Index), uint64(len(p.Entries)))
		for _, e := range p.Entries {
			b = data(uint(uint(b, e.Term), uint64(uint32(e.Type))), e.Data)
		}
	}
	if p.Notes != nil {
		b[at] |= hasNotes
		b = data(uint(b, uint64(p.Notes.LongestPromise)), []byte(p.Notes.Without))
	}
	return b
}

// decodeChange is the inverse of appendChange. The result shares b's memory.
func decodeChange(b []byte) (cluster.Persist, error) {
	r := reader{b: b}
	var p cluster.Persist
	if len(b) == 0 {
		return p, errors.New("the record is empty")
	}
	has := b[0]
	r.b = b[1:]
	if has&hasFounding != 0 {
		p.Founding = r.data()
	}
	if has&hasHard != 0 {
		p.Hard = &cluster.HardState{Term: r.uint(), Vote: r.uint(), Commit: r.uint()}
	}
	if has&hasSnapshot != 0 {
		p.Snapshot = &cluster.Snapshot{Index: r.uint(), Term: r.uint(), Data: r.data()}
	}
	if has&hasEntries != 0 {
		p.Entries = r.entries()
	}
	if has&hasNotes != 0 {
		p.Notes = &cluster.Notes{LongestPromise: time.Duration(r.uint()), Without: string(r.data())}
	}
	if r.bad || len(r.b) > 0 || has >= hasNotes<<1 {
		return cluster.Persist{}, errors.New("the record's checksum is right, its content can't be read")
	}
	return p, nil
}

// reader reads varints and byte strings; after the first failure everything is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) data() []byte {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	data := r.b[:n:n]
	r.b = r.b[n:]
	return data
}

func (r *reader) entries() []cluster.LogEntry {
	first, n := r.uint(), r.uint()
	if n == 0 || n > uint64(len(r.b))/3 { // an entry takes 3 bytes or more
		r.bad = true
		return nil
	}
	entries := make([]cluster.LogEntry, n)
	for i := range entries {
		entries[i] = cluster.LogEntry{Index: first + uint64(i), Term: r.uint(), Type: int32(r.uint()), Data: r.data()}
	}
	return entries
}

// whole returns the write that makes an empty image into this one.
func whole(image cluster.DiskImage) cluster.Persist {
	return cluster.Persist{
		Founding: image.Founding, Hard: &image.Hard, Snapshot: image.Snapshot, Entries: image.Entries, Notes: &image.Notes,
	}
}

// apply makes the change in the image: snapshot first, then entries. It refuses what would leave a gap, go
// back behind a snapshot or change the founding record, and then leaves the image alone.
//
// A snapshot replaces everything up to its index. What the log has beyond is kept only if the log had the
// snapshot's last entry; else it is of another history and goes too (Raft, section 7).
func apply(image *cluster.DiskImage, p cluster.Persist) error {
	if p.Founding != nil && image.Founding != nil && !bytes.Equal(p.Founding, image.Founding) {
		return errors.New("the directory has another founding record already")
	}
	snapshot, entries := image.Snapshot, image.Entries
	var start uint64 // index before the first entry; a log begins where its first write does, after the founding record
	switch {
	case snapshot != nil:
		start = snapshot.Index
	case len(entries) > 0:
		start = entries[0].Index - 1
	case p.Snapshot == nil && len(p.Entries) > 0:
		start = max(p.Entries[0].Index, 1) - 1
	}
	if p.Snapshot != nil {
		if p.Snapshot.Index < start {
			return fmt.Errorf("a snapshot of index %d after one of %d", p.Snapshot.Index, start)
		}
		skip := p.Snapshot.Index - start
		switch {
		case skip == 0 && (snapshot == nil || snapshot.Term == p.Snapshot.Term):
		case skip > 0 && skip <= uint64(len(entries)) && entries[skip-1].Term == p.Snapshot.Term:
			entries = slices.Clone(entries[skip:]) // so that the old array can be freed
		default:
			entries = nil
		}
		snapshot, start = p.Snapshot, p.Snapshot.Index
	}
	if len(p.Entries) > 0 {
		first := p.Entries[0].Index
		if first <= start || first-start-1 > uint64(len(entries)) {
			return fmt.Errorf("entries from index %d on, the log holds %d to %d", first, start+1, start+uint64(len(entries)))
		}
		for i, e := range p.Entries {
			if e.Index != first+uint64(i) {
				return fmt.Errorf("entry %d after entry %d", e.Index, first+uint64(i)-1)
			}
		}
		entries = append(entries[:first-start-1], p.Entries...)
	}
	image.Snapshot, image.Entries = snapshot, entries
	if p.Founding != nil {
		image.Founding = p.Founding
	}
	if p.Hard != nil {
		image.Hard = *p.Hard
	}
	if p.Notes != nil {
		image.Notes = *p.Notes
	}
	return nil
}
