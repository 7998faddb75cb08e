package wire

import (
	"bytes"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"baton/internal/core/cluster"
)

var testKey = bytes.Repeat([]byte{7}, KeySize)

func sealer(t testing.TB, self cluster.NodeID, run cluster.RunID) *Sealer {
	t.Helper()
	s, err := NewSealer(testKey, self, run)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func opener(t testing.TB, self cluster.NodeID) *Opener {
	t.Helper()
	o, err := NewOpener([][]byte{testKey}, self, []cluster.NodeID{"alpha", "beta", "gamma"})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// open opens a copy, since Open overwrites what it is given.
func open(o *Opener, packet []byte) error {
	_, _, _, _, err := o.Open(slices.Clone(packet))
	return err
}

func TestSealAndOpen(t *testing.T) {
	s, o := sealer(t, "alpha", 9), opener(t, "beta")
	for i := range 3 {
		packet := s.Seal([]byte("x"), uint8(i), "beta", []byte("hello"))
		from, run, link, msg, err := o.Open(packet[1:])
		if err != nil || from != "alpha" || run != 9 || link != uint8(i) || string(msg) != "hello" {
			t.Fatalf("got %q run %d link %d %q, %v", from, run, link, msg, err)
		}
	}
	if bytes.Contains(s.Seal(nil, 0, "beta", []byte("hello")), []byte("hello")) {
		t.Error("the message can be read on the wire")
	}
}

func TestEveryTamperedByteIsRefused(t *testing.T) {
	s, o := sealer(t, "alpha", 9), opener(t, "beta")
	packet := s.Seal(nil, 1, "beta", []byte("hello"))
	for i := range packet {
		for _, flip := range []byte{1, 0x80, 0xff} {
			bad := slices.Clone(packet)
			bad[i] ^= flip
			if err := open(o, bad); err == nil {
				t.Fatalf("byte %d of %d changed: accepted", i, len(packet))
			}
		}
	}
	for n := range len(packet) {
		if err := open(o, packet[:n]); err == nil {
			t.Fatalf("cut to %d of %d bytes: accepted", n, len(packet))
		}
	}
	if err := open(o, packet); err != nil {
		t.Fatalf("the packet itself, after all that: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	s, o := sealer(t, "alpha", 9), opener(t, "beta")
	good := func() []byte { return s.Seal(nil, 0, "beta", []byte("hello")) }
	otherKey, err := NewSealer(bytes.Repeat([]byte{8}, KeySize), "alpha", 10)
	if err != nil {
		t.Fatal(err)
	}
	replayed := good()
	if err := open(o, replayed); err != nil {
		t.Fatal(err)
	}
	header := headerFixed + len("alpha")
	for name, c := range map[string]struct {
		packet []byte
		want   error
	}{
		"empty":             {nil, ErrTruncated},
		"another protocol":  {[]byte("GET / HTTP/1.1\r\n"), ErrNotOurs},
		"header alone":      {good()[:header], ErrTruncated},
		"name beyond end":   {[]byte{envelopeMagic, 0, 255, 'a'}, ErrTruncated},
		"too large":         {append(good(), make([]byte, MaxDatagram+MaxEnvelope)...), ErrTooLarge},
		"unknown sender":    {sealer(t, "mallory", 9).Seal(nil, 0, "beta", nil), ErrUnknownSender},
		"reflected":         {sealer(t, "beta", 9).Seal(nil, 0, "alpha", nil), ErrUnknownSender},
		"for another node":  {s.Seal(nil, 0, "gamma", []byte("hello")), ErrForged},
		"under another key": {otherKey.Seal(nil, 0, "beta", []byte("hello")), ErrForged},
		"replayed":          {replayed, ErrReplayed},
	} {
		if err := open(o, c.packet); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestBadNamesAndKeysAreRefused(t *testing.T) {
	long := cluster.NodeID(strings.Repeat("n", MaxName+1))
	if _, err := NewSealer(testKey[1:], "alpha", 1); err == nil {
		t.Error("short key")
	}
	if _, err := NewSealer(testKey, long, 1); err == nil {
		t.Error("long name")
	}
	if _, err := NewSealer(testKey, "alpha", 0); err == nil {
		t.Error("no run")
	}
	if _, err := NewOpener([][]byte{testKey}, "alpha", []cluster.NodeID{""}); err == nil {
		t.Error("empty name")
	}
	if _, err := NewOpener([][]byte{testKey[1:]}, "alpha", nil); err == nil {
		t.Error("short key")
	}
}

// The clever window against a dumb one that remembers everything: packets in any order over two links.
func TestWindowAgainstMemory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &openRun{floor: rapid.Uint64Max(10).Draw(t, "floor")}
		type key struct {
			link    uint8
			counter uint64
		}
		seen, high := map[key]bool{}, map[uint8]uint64{}
		base := uint64(0)
		for range rapid.IntRange(1, 300).Draw(t, "packets") {
			link := rapid.Uint8Max(1).Draw(t, "link")
			switch rapid.IntRange(0, 20).Draw(t, "jump") {
			case 0:
				base += rapid.Uint64Max(3*windowSize).Draw(t, "far")
			default:
				base += rapid.Uint64Max(40).Draw(t, "near")
			}
			c := base + rapid.Uint64Max(windowSize/2).Draw(t, "spread") + 1
			if rapid.Bool().Draw(t, "late") && base > windowSize {
				c = base - rapid.Uint64Max(windowSize).Draw(t, "behind") + 1
			}
			want := seen[key{link, c}] || c <= r.floor || c+windowSize <= high[link]
			if got := r.seen(link, c); got != want {
				t.Fatalf("link %d counter %d (highest %d): seen %v, want %v", link, c, high[link], got, want)
			}
			if !want {
				r.mark(link, c)
				seen[key{link, c}] = true
				high[link] = max(high[link], c)
			}
		}
	})
}

func TestReorderedWithinTheWindow(t *testing.T) {
	s, o := sealer(t, "alpha", 9), opener(t, "beta")
	var packets [][]byte
	for range windowSize + 1 {
		packets = append(packets, s.Seal(nil, 0, "beta", nil))
	}
	for i := len(packets) - 1; i > 0; i-- {
		if err := open(o, packets[i]); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
	}
	if err := open(o, packets[0]); !errors.Is(err, ErrReplayed) {
		t.Errorf("a packet beyond the window: %v", err)
	}
}

func TestTwoRunsInterleaved(t *testing.T) {
	old, young, o := sealer(t, "alpha", 9), sealer(t, "alpha", 10), opener(t, "beta")
	for range 100 {
		for _, s := range []*Sealer{old, young} {
			packet := s.Seal(nil, 0, "beta", nil)
			if err := open(o, packet); err != nil {
				t.Fatal(err)
			}
			if err := open(o, packet); !errors.Is(err, ErrReplayed) {
				t.Fatal(err)
			}
		}
	}
}

// Recordings of many old runs must neither grow the memory nor make the present run replayable.
func TestManyRuns(t *testing.T) {
	o, present := opener(t, "beta"), sealer(t, "alpha", 1000)
	first := present.Seal(nil, 0, "beta", nil)
	second := present.Seal(nil, 1, "beta", nil)
	for _, p := range [][]byte{first, second} {
		if err := open(o, p); err != nil {
			t.Fatal(err)
		}
	}
	for run := cluster.RunID(1); run <= keptFloors; run++ {
		if err := open(o, sealer(t, "alpha", run).Seal(nil, 0, "beta", nil)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range [][]byte{first, second} {
		if err := open(o, p); !errors.Is(err, ErrReplayed) {
			t.Errorf("a packet of the present run, replayed after its windows were given up: %v", err)
		}
	}
	if err := open(o, present.Seal(nil, 0, "beta", nil)); err != nil {
		t.Errorf("the next packet of the present run: %v", err)
	}
	if s := o.senders["alpha"]; len(s.runs) != keptRuns || len(s.floors) > keptFloors {
		t.Errorf("%d runs and %d floors kept", len(s.runs), len(s.floors))
	}
}

// Forged packets under ever new runs leave nothing behind.
func TestForgedRunsKeepNothing(t *testing.T) {
	o := opener(t, "beta")
	packet := sealer(t, "alpha", 9).Seal(nil, 0, "beta", nil)
	for i := range 100 {
		bad := slices.Clone(packet)
		bad[3+len("alpha")] = byte(i + 1)
		if err := open(o, bad); !errors.Is(err, ErrForged) {
			t.Fatal(err)
		}
	}
	if s := o.senders["alpha"]; len(s.runs) != 0 || len(s.floors) != 0 {
		t.Errorf("%d runs and %d floors kept", len(s.runs), len(s.floors))
	}
}

func TestSealAndOpenAllocateNothing(t *testing.T) {
	s, o := sealer(t, "alpha", 9), opener(t, "beta")
	msg, buf := make([]byte, 200), make([]byte, 0, MaxDatagram+MaxEnvelope)
	if _, _, _, _, err := o.Open(s.Seal(buf, 0, "beta", msg)); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, _, _, _, err := o.Open(s.Seal(buf, 0, "beta", msg)); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzOpen(f *testing.F) {
	s := sealer(f, "alpha", 9)
	packet := s.Seal(nil, 1, "beta", []byte("hello"))
	f.Add(packet)
	f.Add(packet[:20])
	f.Add([]byte{envelopeMagic, 0, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		// Only the one packet that was ever sealed may be accepted.
		authentic := bytes.Equal(b, packet)
		o := opener(t, "beta")
		from, _, _, _, err := o.Open(slices.Clone(b))
		if (err == nil) != authentic {
			t.Fatalf("%x from %q: %v", b, from, err)
		}
	})
}

func TestKeyText(t *testing.T) {
	key, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := FormatKey(key)
	if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
		t.Errorf("not one line: %q", text)
	}
	if got, err := ParseKey("\n" + text + "\n"); err != nil || !bytes.Equal(got, key) {
		t.Fatalf("%x, %v", got, err)
	}
	line := strings.TrimSpace(text)
	for n := range len(line) {
		if _, err := ParseKey(line[:n]); err == nil {
			t.Errorf("cut to %d of %d bytes: accepted", n, len(line))
		} else if code := line[len(keyWord)+1:]; n > len(keyWord)+8 && strings.Contains(err.Error(), code[:8]) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
	for i := range line {
		bad := []byte(line)
		if bad[i]++; bad[i] == ' ' {
			continue
		}
		if got, err := ParseKey(string(bad)); err == nil {
			t.Errorf("byte %d changed: %x accepted", i, got)
		}
	}
	if _, err := ParseKey(text + text); err == nil {
		t.Error("two keys accepted")
	}
	if _, err := NewKey(strings.NewReader("short")); err == nil {
		t.Error("a key of 5 random bytes")
	}
}

func BenchmarkSeal(b *testing.B) {
	s, msg, buf := sealer(b, "alpha", 9), make([]byte, 200), make([]byte, 0, MaxDatagram+MaxEnvelope)
	b.ReportAllocs()
	for b.Loop() {
		s.Seal(buf, 0, "beta", msg)
	}
}

func BenchmarkOpen(b *testing.B) {
	s, o := sealer(b, "alpha", 9), opener(b, "beta")
	msg, buf := make([]byte, 200), make([]byte, 0, MaxDatagram+MaxEnvelope)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, _, err := o.Open(s.Seal(buf, 0, "beta", msg)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenForged(b *testing.B) {
	o := opener(b, "beta")
	packet := sealer(b, "alpha", 9).Seal(nil, 0, "beta", make([]byte, 200))
	packet[4+len("alpha")] ^= 1 // a run never heard of: the dearest kind of forgery
	buf := make([]byte, len(packet))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, packet)
		if err := func() error { _, _, _, _, err := o.Open(buf); return err }(); !errors.Is(err, ErrForged) {
			b.Fatal(err)
		}
	}
}
