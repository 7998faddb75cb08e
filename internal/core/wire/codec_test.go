package wire

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"baton/internal/core/cluster"
)

func same(a, b Message) bool {
	ra, aIsRaft := a.(*Raft)
	rb, bIsRaft := b.(*Raft)
	if aIsRaft && bIsRaft {
		return proto.Equal(ra.Msg, rb.Msg)
	}
	return reflect.DeepEqual(a, b)
}

func drawName[T ~string](t *rapid.T, label string) T {
	return T(rapid.StringMatching(`[a-z][a-z0-9-]{0,62}`).Draw(t, label))
}

func drawList[T any](t *rapid.T, label string, limit int, one func() T) []T {
	n := rapid.IntRange(0, limit).Draw(t, label)
	var l []T
	for range n {
		l = append(l, one())
	}
	return l
}

func drawHeartbeat(t *rapid.T) *Heartbeat {
	u := func(label string) uint64 { return rapid.Uint64().Draw(t, label) }
	span := func(label string) time.Duration { return time.Duration(rapid.Int64Min(0).Draw(t, label)) }
	b := func(label string) bool { return rapid.Bool().Draw(t, label) }
	return &Heartbeat{
		Incarnation: cluster.Incarnation(u("inc")), Boot: cluster.BootID(u("boot")), Number: cluster.Number(u("number")),
		Seq: u("seq"), L: span("l"), Rests: u("rests"), View: cluster.View(u("view")),
		Sent: cluster.Instant(rapid.Int64().Draw(t, "sent")), Lead: u("lead"), Applied: u("applied"),
		LeaseRuns: b("runs"), Sick: b("sick"), Faulty: b("faulty"),
		Heard: drawList(t, "heard", 6, func() Heard {
			return Heard{drawName[cluster.NodeID](t, "node"), cluster.Incarnation(u("incarnation")), cluster.RunID(u("run")), span("ago"), u("durable")}
		}),
		Said: drawList(t, "said", 4, func() Lease {
			return Lease{rapid.OneOf(rapid.Just(cluster.NodeID("beta")), rapid.Just(cluster.NodeID("gamma"))).Draw(t, "node"), cluster.Number(u("number"))}
		}),
		Released: drawList(t, "released", 4, func() Tenure {
			return Tenure{GroupKey(u("group")), cluster.Epoch(u("epoch"))}
		}),
		Groups: drawList(t, "groups", 4, func() GroupReport {
			return GroupReport{
				Group: GroupKey(u("group")), Epoch: cluster.Epoch(u("epoch")),
				Phase: Phase(rapid.IntRange(0, 5).Draw(t, "phase")), Cut: b("cut"), Hot: b("hot"), Lacks: b("lacks"), Short: b("short"), Partly: b("partly"), Brief: b("brief"), Probe: u("probe"),
				Reason: rapid.StringN(0, 40, 60).Draw(t, "reason"),
			}
		}),
		Revision: cluster.Revision(u("revision")),
		Sight: Sight{Revision: cluster.Revision(u("of")), Reached: u("reached"), Missed: u("missed"),
			Links: drawList(t, "links", 4, func() LinkSight { return LinkSight{u("heard"), u("lost")} })},
		Whole: u("whole"),
		Accounts: drawList(t, "accounts", MaxAccounts, func() Account {
			gaps := func() cluster.Gaps { return cluster.Gaps{Most: span("most"), Least: span("least"), Late: b("late")} }
			at := func(label string) cluster.Instant { return cluster.Instant(rapid.Int64().Draw(t, label)) }
			return Account{GroupKey(u("group")), cluster.Account{Epoch: cluster.Epoch(u("epoch")), Up: b("up"), First: at("first"), Began: at("began"),
				From: at("from"), To: at("to"), Over: b("over"), Ordered: b("ordered"), Late: b("late"), OrderedGaps: gaps(), OtherGaps: gaps(),
				Cause: rapid.StringN(0, 30, cluster.CauseMax).Draw(t, "cause")}}
		}),
	}
}

func drawMessage(t *rapid.T) Message {
	u := func(label string) uint64 { return rapid.Uint64().Draw(t, label) }
	id := func(label string) *uint64 { return proto.Uint64(rapid.Uint64Range(1, 1<<60).Draw(t, label)) }
	data := func(label string) []byte { return rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, label) }
	switch rapid.IntRange(1, 8).Draw(t, "kind") {
	case 1:
		return drawHeartbeat(t)
	case 2:
		return &Ack{cluster.Incarnation(u("inc")), cluster.RunID(u("run")), cluster.Number(u("number")), u("seq"), cluster.Number(u("newest")), cluster.Instant(rapid.Int64().Draw(t, "at"))}
	case 3:
		return &Raft{&raftpb.Message{
			Type: raftpb.MessageType_MsgApp.Enum(), From: id("from"), To: id("to"), Term: id("term"), Commit: id("commit"),
			Entries: drawList(t, "entries", 3, func() *raftpb.Entry {
				return &raftpb.Entry{Index: id("index"), Term: id("term"), Data: data("data")}
			}),
		}}
	case 4:
		return &Ask{cluster.Incarnation(u("inc")), [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "file")), rapid.Bool().Draw(t, "empty"), data("text"),
			rapid.StringN(0, 40, 80).Draw(t, "without")}
	case 5:
		whole := make([]byte, rapid.IntRange(1, 4*PieceSize).Draw(t, "size"))
		return PieceOf(max(1, u("set")), whole, rapid.Uint64Range(0, Pieces(uint64(len(whole)))-1).Draw(t, "piece"))
	case 7:
		return &Probe{u("n"), rapid.Bool().Draw(t, "answer"), rapid.Bool().Draw(t, "full"), data("pad")}
	case 6:
		return &Got{cluster.RunID(u("run")), u("set"), u("upto"), u("more")}
	}
	return &Founding{data("record")}
}

func TestRoundtrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		b, err := Append([]byte("before"), m)
		if err != nil {
			t.Fatal(err)
		}
		b, ok := bytes.CutPrefix(b, []byte("before"))
		if !ok {
			t.Fatal("append lost what was there before")
		}
		// A newer agent's fields follow; this one ignores them.
		later := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "later")
		got, err := Decode(append(b, later...))
		if err != nil {
			t.Fatal(err)
		}
		if !same(m, got) {
			t.Fatalf("sent %+v\ngot %+v", m, got)
		}
	})
}

func TestDecodeRefusesCutMessages(t *testing.T) {
	for _, m := range samples() {
		b, err := Append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(b) {
			if got, err := Decode(b[:n]); err == nil {
				t.Errorf("%T cut to %d of %d bytes was read as %+v", m, n, len(b), got)
			}
		}
	}
}

func TestDecodeSharesNoMemory(t *testing.T) {
	for _, m := range samples() {
		b, _ := Append(nil, m)
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] = 0xff
		}
		if !same(m, got) {
			t.Errorf("%T changed with the buffer that it was read from: %+v", m, got)
		}
	}
}

func TestLimits(t *testing.T) {
	long := strings.Repeat("n", MaxName+1)
	snap := raftpb.MessageType_MsgSnap.Enum()
	for name, m := range map[string]Message{
		"name too long":     &Heartbeat{Heard: []Heard{{Node: cluster.NodeID(long)}}},
		"name empty":        &Heartbeat{Said: []Lease{{}}},
		"list too long":     &Heartbeat{Said: make([]Lease, MaxLeases+1)},
		"negative duration": &Heartbeat{L: -1},
		"unknown phase":     &Heartbeat{Groups: []GroupReport{{Group: 1, Phase: 6}}},
		"record too large":  &Founding{make([]byte, MaxMessage+1)},
		"no raft message":   &Raft{},
		"empty snapshot":    &Raft{&raftpb.Message{Type: snap}},
		"local thread":      &Raft{&raftpb.Message{Type: raftpb.MessageType_MsgApp.Enum(), To: proto.Uint64(raft.LocalApplyThread)}},
		"no message":        nil,
		"piece too far":     &Piece{Set: 1, Size: PieceSize, At: PieceSize, Data: []byte("x")},
		"piece between":     &Piece{Set: 1, Size: 2 * PieceSize, At: 1, Data: make([]byte, PieceSize)},
		"piece too short":   &Piece{Set: 1, Size: 2 * PieceSize, Data: []byte("x")},
		"piece too long":    &Piece{Set: 1, Size: 1, Data: []byte("xy")},
		"piece of no set":   &Piece{Size: 1, Data: []byte("x")},
		"piece of too much": &Piece{Set: 1, Size: MaxMessage + 1, Data: make([]byte, PieceSize)},
	} {
		if b, err := Append([]byte("x"), m); err == nil || string(b) != "x" {
			t.Errorf("%s: encoded to %d bytes, error %v", name, len(b), err)
		} else {
			t.Log(err)
		}
	}
}

func TestReasonIsCutBetweenCharacters(t *testing.T) {
	m := &Heartbeat{Groups: []GroupReport{{Group: 1, Reason: strings.Repeat("é", MaxReason)[1:]}}}
	m.Groups[0].Reason = "x" + strings.Repeat("é", MaxReason)
	b, err := Append(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if want := "x" + strings.Repeat("é", (MaxReason-1)/2); got.(*Heartbeat).Groups[0].Reason != want {
		t.Errorf("got %q", got.(*Heartbeat).Groups[0].Reason)
	}
}

// What Raft says to itself must not come from outside, even from a peer that knows the key.
func TestLocalRaftMessagesAreRefused(t *testing.T) {
	refused := 0
	for number := range raftpb.MessageType_name {
		kind := raftpb.MessageType(number)
		m := &raftpb.Message{Type: kind.Enum(), Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: proto.Uint64(1)}}}
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		b := append([]byte{codecVersion, kindRaft, byte(len(raw))}, raw...)
		_, err = Decode(b)
		want := raft.IsLocalMsg(kind) || kind == raftpb.MessageType_MsgForgetLeader
		if (err != nil) != want {
			t.Errorf("%v: %v", kind, err)
		}
		if err != nil {
			refused++
		}
	}
	if refused != 10 {
		t.Errorf("%d kinds refused, want 10", refused)
	}
	garbage := []byte{codecVersion, kindRaft, 3, 0xff, 0xff, 0xff}
	if _, err := Decode(garbage); err == nil {
		t.Error("bytes that are no raft message were accepted")
	}
	unknown := []byte{codecVersion, kindRaft, 2, 0x08, 0x7f}
	if got, err := Decode(unknown); err == nil {
		t.Errorf("an unknown raft message was accepted: %+v", got)
	}
}

func samples() []Message {
	return []Message{
		sampleHeartbeat(3),
		&Ack{Incarnation: 1 << 60, Run: 1 << 61, Number: 3, Seq: 1000},
		&Raft{&raftpb.Message{Type: raftpb.MessageType_MsgVote.Enum(), From: proto.Uint64(1), To: proto.Uint64(2), Term: proto.Uint64(3)}},
		&Ask{Incarnation: 7, File: [32]byte{1, 2, 3}, Empty: true},
		&Founding{[]byte("alpha, beta and gamma")},
		PieceOf(3, make([]byte, PieceSize+20), 1),
		&Probe{N: 4, Full: true, Pad: []byte("padding")},
		&Got{Run: 1 << 60, Set: 3, Upto: 1000, More: 1 << 63},
	}
}

func sampleHeartbeat(groups int) *Heartbeat {
	m := &Heartbeat{
		Incarnation: 0xfedcba9876543210, Boot: 0x123456789abcdef0, Number: 4, Seq: 123456, L: 80 * time.Millisecond, Rests: 1000,
		View: 1, Sent: 1 << 50, Lead: 12, Applied: 4000, LeaseRuns: true,
		Heard: []Heard{{"beta", 1 << 60, 1 << 62, 3 * time.Millisecond, 4001}, {"gamma", 1 << 59, 1 << 61, 5 * time.Millisecond, 4000}},
		Said:  []Lease{{"gamma", 3}},
	}
	for i := range groups {
		m.Groups = append(m.Groups, GroupReport{Group: KeyOf(cluster.GroupID(fmt.Sprintf("orders-%d", i))), Epoch: 17, Phase: PhaseServing, Hot: true})
	}
	return m
}

func FuzzDecode(f *testing.F) {
	for _, m := range samples() {
		b, err := Append(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Append(nil, m)
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		m2, err := Decode(again)
		if err != nil {
			t.Fatalf("encoded but not decoded: %v", err)
		}
		if !same(m, m2) {
			t.Fatalf("decoded %+v\nthen %+v", m, m2)
		}
	})
}

// A datagram must hold the heartbeat of a cluster of ordinary size.
func TestHeartbeatFitsADatagram(t *testing.T) {
	b, err := Append(nil, sampleHeartbeat(40))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > MaxDatagram {
		t.Errorf("%d bytes", len(b))
	}
}

// A full piece fits a datagram, and the largest packet what every path carries, whatever stands in its fields.
func TestPieceFitsADatagram(t *testing.T) {
	b, err := Append(nil, PieceOf(math.MaxUint64, make([]byte, MaxMessage), Pieces(MaxMessage)-2))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > MaxDatagram {
		t.Errorf("%d bytes, a datagram holds %d", len(b), MaxDatagram)
	}
	s, err := NewSealer(make([]byte, KeySize), cluster.NodeID(strings.Repeat("n", MaxName)), 1)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.Seal(nil, 0, "beta", make([]byte, MaxDatagram))); n != MaxPacket || n+MaxHeaders > 1280 {
		t.Errorf("the largest packet has %d bytes, want %d", n, MaxPacket)
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	buf := make([]byte, 0, MaxDatagram)
	for _, m := range []Message{sampleHeartbeat(3), &Ack{Incarnation: 1, Run: 2, Seq: 3}} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := Append(buf, m); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%T: %v allocations", m, n)
		}
	}
}

func BenchmarkAppendHeartbeat(b *testing.B) {
	m, buf := sampleHeartbeat(3), make([]byte, 0, MaxDatagram)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Append(buf, m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeHeartbeat(b *testing.B) {
	raw, err := Append(nil, sampleHeartbeat(3))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
