package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"baton/internal/core/cluster"
)

// The format of a message: a byte for the version of the format, a byte for the kind, then the fields in
// the order of the struct. Numbers that count are varints, random identifiers 8 bytes little-endian,
// durations varints of nanoseconds, strings and lists a varint of their length before their content.
//
// Forward compatibility: a newer agent adds fields at the end of a message, never within it and never
// within the elements of a list; bytes after the last known field are ignored, and a field that a shorter,
// older message lacks is left zero by the code that adds it. The version changes only when an old reader must not
// understand the message at all.
const codecVersion = 3

// Limits of the format. What is beyond them is refused on both sides; only a reason is cut.
const (
	MaxMessage = 16 << 20 // bytes of one message; what is beyond MaxDatagram travels in pieces
	MaxName    = 63       // bytes of a node's or a group's name
	MaxReason  = 200      // bytes of the reason in a GroupReport
	MaxNodes   = 16       // elements of Heartbeat.Heard
	MaxLeases  = 16       // elements of Heartbeat.Said
	MaxLinks   = 16       // elements of Sight.Links
	MaxGroups  = 128      // elements of Heartbeat.Groups and of Heartbeat.Released: more don't fit a datagram
	// MaxAccounts bounds the elements of Heartbeat.Accounts, which take turns: they must leave room for all else.
	MaxAccounts = 4
)

// Kinds on the wire. A number never changes its meaning and is never used again.
const (
	kindHeartbeat = 1
	kindAck       = 2
	kindRaft      = 3
	kindAsk       = 4
	kindFounding  = 5
	kindPiece     = 6
	kindGot       = 7
	kindProbe     = 8
)

var (
	errCut    = errors.New("the message ends within it")
	errNumber = errors.New("not a number of at most 64 bits")
)

// Append appends the encoded message to dst and returns the result; it allocates only where dst has no
// room. A reason that is too long is cut at MaxReason, since a heartbeat must not be lost for its sake; any
// other value beyond a limit is an error, and dst is then returned as it came.
func Append(dst []byte, m Message) ([]byte, error) {
	e := encoder{b: dst}
	switch m := m.(type) {
	case *Heartbeat:
		e.head(kindHeartbeat)
		e.heartbeat(m)
	case *Ack:
		e.head(kindAck)
		e.fixed(uint64(m.Incarnation))
		e.fixed(uint64(m.Run))
		e.uint(uint64(m.Number))
		e.uint(m.Seq)
		e.uint(uint64(m.Newest))
		e.b = binary.AppendVarint(e.b, int64(m.At))
	case *Raft:
		e.head(kindRaft)
		e.raft(m.Msg)
	case *Ask:
		e.head(kindAsk)
		e.fixed(uint64(m.Incarnation))
		e.b = append(e.b, m.File[:]...)
		e.bits(m.Empty)
		e.bytes("text", m.Text)
		e.bytes("without", []byte(m.Without))
	case *Founding:
		e.head(kindFounding)
		e.bytes("record", m.Record)
	case *Piece:
		e.head(kindPiece)
		e.piece(m)
	case *Got:
		e.head(kindGot)
		e.fixed(uint64(m.Run))
		e.uint(m.Set)
		e.uint(m.Upto)
		e.fixed(m.More)
	case *Probe:
		e.head(kindProbe)
		e.fixed(m.N)
		e.bits(m.Answer, m.Full)
		e.bytes("pad", m.Pad)
	default:
		e.fail("kind", fmt.Errorf("%T is no message", m))
	}
	if n := len(e.b) - len(dst); n > MaxDatagram && isHeartbeat(m) {
		e.fail("size", fmt.Errorf("%d bytes, a heartbeat has at most %d: it never leaves the datagram", n, MaxDatagram))
	} else if n > MaxMessage {
		e.fail("size", fmt.Errorf("%d bytes, the limit is %d", n, MaxMessage))
	}
	if e.err != nil {
		return dst, fmt.Errorf("encode %T: %w", m, e.err)
	}
	return e.b, nil
}

func isHeartbeat(m Message) bool {
	_, ok := m.(*Heartbeat)
	return ok
}

// encoder appends to b until the first failure.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) fail(field string, err error) {
	if e.err == nil {
		e.err = fmt.Errorf("%s: %w", field, err)
	}
}

func (e *encoder) head(kind byte)  { e.b = append(e.b, codecVersion, kind) }
func (e *encoder) uint(v uint64)   { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) fixed(v uint64)  { e.b = binary.LittleEndian.AppendUint64(e.b, v) }
func (e *encoder) string(s string) { e.uint(uint64(len(s))); e.b = append(e.b, s...) }

func (e *encoder) bits(flags ...bool) {
	var b byte
	for i, set := range flags {
		if set {
			b |= 1 << i
		}
	}
	e.b = append(e.b, b)
}

func (e *encoder) duration(field string, d time.Duration) {
	if d < 0 {
		e.fail(field, fmt.Errorf("%v is negative", d))
		return
	}
	e.uint(uint64(d))
}

func (e *encoder) name(field, s string) {
	if len(s) == 0 || len(s) > MaxName {
		e.fail(field, fmt.Errorf("a name of %d bytes, it must have 1 to %d", len(s), MaxName))
		return
	}
	e.string(s)
}

func (e *encoder) count(field string, n, limit int) {
	if n > limit {
		e.fail(field, fmt.Errorf("%d elements, the limit is %d", n, limit))
		return
	}
	e.uint(uint64(n))
}

func (e *encoder) bytes(field string, b []byte) {
	if len(b) > MaxMessage {
		e.fail(field, fmt.Errorf("%d bytes, the limit of a message is %d", len(b), MaxMessage))
		return
	}
	e.uint(uint64(len(b)))
	e.b = append(e.b, b...)
}

func (e *encoder) heartbeat(m *Heartbeat) {
	e.fixed(uint64(m.Incarnation))
	e.fixed(uint64(m.Boot))
	e.uint(uint64(m.Number))
	e.uint(m.Seq)
	e.duration("l", m.L)
	e.uint(m.Rests)
	e.uint(uint64(m.View))
	e.b = binary.AppendVarint(e.b, int64(m.Sent))
	e.uint(m.Lead)
	e.uint(m.Applied)
	e.bits(m.LeaseRuns, m.Sick, m.Faulty)
	e.count("heard", len(m.Heard), MaxNodes)
	for i := range m.Heard {
		h := &m.Heard[i]
		e.name("heard.node", string(h.Node))
		e.fixed(uint64(h.Incarnation))
		e.fixed(uint64(h.Run))
		e.duration("heard.ago", h.Ago)
		e.uint(h.Durable)
	}
	e.count("said", len(m.Said), MaxLeases)
	for i := range m.Said {
		e.node("said.node", m.Said[i].Node, m.Heard)
		e.uint(uint64(m.Said[i].Number))
	}
	e.uint(uint64(m.Revision))
	e.sight(&m.Sight)
	e.count("released", len(m.Released), MaxGroups)
	for i := range m.Released {
		e.fixed(uint64(m.Released[i].Group))
		e.uint(uint64(m.Released[i].Epoch))
	}
	e.count("groups", len(m.Groups), MaxGroups)
	for i := range m.Groups {
		e.groupReport(&m.Groups[i])
	}
	e.uint(m.Whole)
	e.count("accounts", len(m.Accounts), MaxAccounts)
	for i := range m.Accounts {
		e.account(&m.Accounts[i])
	}
}

func (e *encoder) sight(s *Sight) {
	e.uint(uint64(s.Revision))
	e.count("sight.links", len(s.Links), MaxLinks)
	for _, l := range s.Links {
		e.uint(l.Heard)
		e.uint(l.Lost)
	}
	e.uint(s.Reached)
	e.uint(s.Missed)
}

// node names a node that the heartbeat has named among those heard by its place there, from 1; another by its name,
// behind a 0.
func (e *encoder) node(field string, id cluster.NodeID, heard []Heard) {
	for i := range heard {
		if heard[i].Node == id {
			e.uint(uint64(i + 1))
			return
		}
	}
	e.uint(0)
	e.name(field, string(id))
}

func (e *encoder) groupReport(g *GroupReport) {
	if int(g.Phase) >= len(phaseNames) {
		e.fail("groups.phase", fmt.Errorf("%d is unknown", g.Phase))
	}
	e.fixed(uint64(g.Group))
	e.uint(uint64(g.Epoch))
	e.b = append(e.b, byte(g.Phase))
	e.bits(g.Hot, g.Cut, g.Lacks, g.Brief, g.Probe != 0, g.Short, g.Partly)
	if g.Probe != 0 {
		e.fixed(g.Probe)
	}
	e.string(cut(g.Reason, MaxReason))
}

// account appends what is told of a service: instants as differences, since most lie close together.
func (e *encoder) account(a *Account) {
	e.fixed(uint64(a.Key))
	e.uint(uint64(a.Epoch))
	e.bits(a.Up, a.Ordered, a.Late, a.OrderedGaps.Late, a.OtherGaps.Late, a.Over)
	e.b = binary.AppendVarint(e.b, int64(a.First))
	e.b = binary.AppendVarint(e.b, int64(a.Began-a.First))
	e.b = binary.AppendVarint(e.b, int64(a.From))
	e.b = binary.AppendVarint(e.b, int64(a.To-a.From))
	for _, g := range []*cluster.Gaps{&a.OrderedGaps, &a.OtherGaps} {
		e.duration("accounts.gaps", g.Most)
		e.duration("accounts.gaps", g.Least)
	}
	e.string(cut(a.Cause, cluster.CauseMax))
}

// cut shortens s to at most limit bytes without splitting a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

func (e *encoder) raft(m *raftpb.Message) {
	if m == nil {
		e.fail("msg", errors.New("none"))
		return
	}
	if err := checkRaft(m); err != nil {
		e.fail("msg", err)
		return
	}
	size := proto.Size(m)
	if size > MaxMessage {
		e.fail("msg", fmt.Errorf("%d bytes, the limit of a message is %d", size, MaxMessage))
		return
	}
	e.uint(uint64(size))
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(e.b, m)
	if err != nil {
		e.fail("msg", err)
		return
	}
	e.b = b
}

// checkRaft refuses what Raft says only to itself, and what its state machine would fall over.
func checkRaft(m *raftpb.Message) error {
	t := m.GetType()
	if _, known := raftpb.MessageType_name[int32(t)]; !known {
		return fmt.Errorf("raft message type %d is unknown", t)
	}
	switch {
	case raft.IsLocalMsg(t), t == raftpb.MessageType_MsgForgetLeader, len(m.GetResponses()) > 0:
		return fmt.Errorf("raft message %v never leaves its node", t)
	case raft.IsLocalMsgTarget(m.GetFrom()), raft.IsLocalMsgTarget(m.GetTo()):
		return fmt.Errorf("raft message %v from %x to %x names a local thread", t, m.GetFrom(), m.GetTo())
	case t == raftpb.MessageType_MsgSnap && m.GetSnapshot().GetMetadata().GetIndex() == 0:
		return errors.New("raft message MsgSnap carries no snapshot")
	}
	return nil
}

// Decode decodes one message. The result shares no memory with b. It never panics; what it allocates is
// bounded by the length of b. An error says which field could not be read, at which byte, and why.
func Decode(b []byte) (Message, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("decode message: %d bytes, the limit is %d", len(b), MaxMessage)
	}
	if len(b) < 2 {
		return nil, fmt.Errorf("decode message: %d bytes, version and kind need 2", len(b))
	}
	if b[0] != codecVersion {
		return nil, fmt.Errorf("decode message: format version %d, this agent reads %d", b[0], codecVersion)
	}
	d := decoder{b: b, at: 2}
	var m Message
	switch b[1] {
	case kindHeartbeat:
		m = d.heartbeat()
	case kindAck:
		m = &Ack{
			Incarnation: cluster.Incarnation(d.fixed("incarnation")),
			Run:         cluster.RunID(d.fixed("run")),
			Number:      cluster.Number(d.uint("number")),
			Seq:         d.uint("seq"),
			Newest:      cluster.Number(d.uint("newest")),
			At:          cluster.Instant(d.int("at")),
		}
	case kindRaft:
		m = d.raft()
	case kindAsk:
		a := &Ask{Incarnation: cluster.Incarnation(d.fixed("incarnation"))}
		copy(a.File[:], d.take("file", len(a.File)))
		a.Empty = d.byte("flags")&1 != 0
		if text := d.bytes("text"); len(text) > 0 {
			a.Text = append([]byte(nil), text...)
		}
		a.Without = string(d.bytes("without"))
		m = a
	case kindFounding:
		m = &Founding{Record: append([]byte(nil), d.bytes("record")...)}
	case kindPiece:
		m = d.piece()
	case kindGot:
		m = &Got{Run: cluster.RunID(d.fixed("run")), Set: d.uint("set"), Upto: d.uint("upto"), More: d.fixed("more")}
	case kindProbe:
		p := &Probe{N: d.fixed("n")}
		flags := d.byte("flags")
		p.Answer, p.Full = flags&1 != 0, flags&2 != 0
		p.Pad = append([]byte(nil), d.bytes("pad")...)
		m = p
	default:
		return nil, fmt.Errorf("decode message: kind %d is unknown", b[1])
	}
	if d.err != nil {
		return nil, fmt.Errorf("decode %T: %w", m, d.err)
	}
	return m, nil
}

// decoder reads b from at on until the first failure; from then on every read returns zero.
type decoder struct {
	b   []byte
	at  int
	err error
}

func (d *decoder) fail(field string, err error) {
	if d.err == nil {
		d.err = fmt.Errorf("%s at byte %d: %w", field, d.at, err)
	}
}

func (d *decoder) take(field string, n int) []byte {
	if d.err != nil {
		return nil
	}
	if n > len(d.b)-d.at {
		d.fail(field, errCut)
		return nil
	}
	b := d.b[d.at : d.at+n]
	d.at += n
	return b
}

func (d *decoder) byte(field string) byte {
	if b := d.take(field, 1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) fixed(field string) uint64 {
	if b := d.take(field, 8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) uint(field string) uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b[d.at:])
	if n == 0 {
		d.fail(field, errCut)
		return 0
	}
	if n < 0 {
		d.fail(field, errNumber)
		return 0
	}
	d.at += n
	return v
}

func (d *decoder) int(field string) int64 {
	u := d.uint(field)
	v := int64(u >> 1)
	if u&1 != 0 {
		v = ^v
	}
	return v
}

func (d *decoder) duration(field string) time.Duration {
	v := d.uint(field)
	if v > math.MaxInt64 {
		d.fail(field, fmt.Errorf("%d ns is no duration", v))
		return 0
	}
	return time.Duration(v)
}

func (d *decoder) bytes(field string) []byte {
	n := d.uint(field)
	if n > uint64(len(d.b)-d.at) {
		d.fail(field, errCut)
		return nil
	}
	return d.take(field, int(n))
}

func (d *decoder) name(field string) string {
	b := d.bytes(field)
	if d.err == nil && (len(b) == 0 || len(b) > MaxName) {
		d.fail(field, fmt.Errorf("a name of %d bytes, it must have 1 to %d", len(b), MaxName))
		return ""
	}
	return string(b)
}

// count reads a list's length. Each element takes least bytes or more, so that a length which the rest of
// the message cannot hold is refused before anything is allocated for it.
func (d *decoder) count(field string, limit, least int) int {
	n := d.uint(field)
	if n > uint64(limit) {
		d.fail(field, fmt.Errorf("%d elements, the limit is %d", n, limit))
		return 0
	}
	if int(n)*least > len(d.b)-d.at {
		d.fail(field, errCut)
		return 0
	}
	return int(n)
}

func (d *decoder) heartbeat() *Heartbeat {
	m := &Heartbeat{
		Incarnation: cluster.Incarnation(d.fixed("incarnation")),
		Boot:        cluster.BootID(d.fixed("boot")),
		Number:      cluster.Number(d.uint("number")),
		Seq:         d.uint("seq"),
		L:           d.duration("l"),
		Rests:       d.uint("rests"),
		View:        cluster.View(d.uint("view")),
		Sent:        cluster.Instant(d.int("sent")),
		Lead:        d.uint("lead"),
		Applied:     d.uint("applied"),
	}
	flags := d.byte("flags")
	m.LeaseRuns, m.Sick, m.Faulty = flags&1 != 0, flags&2 != 0, flags&4 != 0
	if n := d.count("heard", MaxNodes, 20); n > 0 {
		m.Heard = make([]Heard, n)
	}
	for i := range m.Heard {
		m.Heard[i] = Heard{
			Node:        cluster.NodeID(d.name("heard.node")),
			Incarnation: cluster.Incarnation(d.fixed("heard.incarnation")),
			Run:         cluster.RunID(d.fixed("heard.run")),
			Ago:         d.duration("heard.ago"),
			Durable:     d.uint("heard.durable"),
		}
	}
	if n := d.count("said", MaxLeases, 2); n > 0 {
		m.Said = make([]Lease, n)
	}
	for i := range m.Said {
		m.Said[i] = Lease{d.node("said.node", m.Heard), cluster.Number(d.uint("said.number"))}
	}
	m.Revision = cluster.Revision(d.uint("revision"))
	d.sight(&m.Sight)
	if n := d.count("released", MaxGroups, 9); n > 0 {
		m.Released = make([]Tenure, n)
	}
	for i := range m.Released {
		m.Released[i] = Tenure{GroupKey(d.fixed("released.group")), cluster.Epoch(d.uint("released.epoch"))}
	}
	if n := d.count("groups", MaxGroups, 12); n > 0 {
		m.Groups = make([]GroupReport, n)
	}
	for i := range m.Groups {
		d.groupReport(&m.Groups[i])
	}
	m.Whole = d.uint("whole")
	if n := d.count("accounts", MaxAccounts, 19); n > 0 {
		m.Accounts = make([]Account, n)
	}
	for i := range m.Accounts {
		d.account(&m.Accounts[i])
	}
	return m
}

func (d *decoder) account(a *Account) {
	a.Key = GroupKey(d.fixed("accounts.group"))
	a.Epoch = cluster.Epoch(d.uint("accounts.epoch"))
	flags := d.byte("accounts.flags")
	a.Up, a.Ordered, a.Late, a.OrderedGaps.Late, a.OtherGaps.Late = flags&1 != 0, flags&2 != 0, flags&4 != 0, flags&8 != 0, flags&16 != 0
	a.Over = flags&32 != 0
	a.First = cluster.Instant(d.int("accounts.first"))
	a.Began = a.First + cluster.Instant(d.int("accounts.began"))
	a.From = cluster.Instant(d.int("accounts.from"))
	a.To = a.From + cluster.Instant(d.int("accounts.to"))
	for _, g := range []*cluster.Gaps{&a.OrderedGaps, &a.OtherGaps} {
		g.Most, g.Least = d.duration("accounts.gaps"), d.duration("accounts.gaps")
	}
	cause := d.bytes("accounts.cause")
	if len(cause) > cluster.CauseMax {
		d.fail("accounts.cause", fmt.Errorf("%d bytes, the limit is %d", len(cause), cluster.CauseMax))
	}
	a.Cause = string(cause)
}

func (d *decoder) sight(s *Sight) {
	s.Revision = cluster.Revision(d.uint("sight.revision"))
	if n := d.count("sight.links", MaxLinks, 2); n > 0 {
		s.Links = make([]LinkSight, n)
	}
	for i := range s.Links {
		s.Links[i] = LinkSight{Heard: d.uint("sight.heard"), Lost: d.uint("sight.lost")}
	}
	s.Reached, s.Missed = d.uint("sight.reached"), d.uint("sight.missed")
}

// node reads what encoder.node has written.
func (d *decoder) node(field string, heard []Heard) cluster.NodeID {
	switch place := d.uint(field); {
	case place == 0:
		return cluster.NodeID(d.name(field))
	case place > uint64(len(heard)):
		d.fail(field, fmt.Errorf("place %d among %d nodes", place, len(heard)))
		return ""
	default:
		return heard[place-1].Node
	}
}

func (d *decoder) groupReport(g *GroupReport) {
	g.Group = GroupKey(d.fixed("groups.group"))
	g.Epoch = cluster.Epoch(d.uint("groups.epoch"))
	g.Phase = Phase(d.byte("groups.phase"))
	if int(g.Phase) >= len(phaseNames) {
		d.fail("groups.phase", fmt.Errorf("%d is unknown", g.Phase))
	}
	flags := d.byte("groups.flags")
	g.Partly = flags&64 != 0
	g.Hot, g.Cut, g.Lacks, g.Brief, g.Short = flags&1 != 0, flags&2 != 0, flags&4 != 0, flags&8 != 0, flags&32 != 0
	if flags&16 != 0 {
		g.Probe = d.fixed("groups.probe")
	}
	reason := d.bytes("groups.reason")
	if len(reason) > MaxReason {
		d.fail("groups.reason", fmt.Errorf("%d bytes, the limit is %d", len(reason), MaxReason))
		return
	}
	g.Reason = string(reason)
}

func (d *decoder) raft() *Raft {
	b := d.bytes("msg")
	if d.err != nil {
		return nil
	}
	m := new(raftpb.Message)
	if err := proto.Unmarshal(b, m); err != nil {
		d.fail("msg", err)
		return nil
	}
	if err := checkRaft(m); err != nil {
		d.fail("msg", err)
		return nil
	}
	return &Raft{Msg: m}
}
