package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

var otherKey = bytes.Repeat([]byte{9}, KeySize)

// A key is changed while packets are on their way: sender and receiver take each step at another time, and
// nothing is lost, nothing is taken twice, and the old key opens nothing at the end.
func TestRekeyLosesNothing(t *testing.T) {
	s, o := sealer(t, "alpha", 7), opener(t, "beta")
	var recorded [][]byte
	send := func(want string) {
		t.Helper()
		packet := s.Seal(nil, 1, "beta", []byte(want))
		recorded = append(recorded, bytes.Clone(packet))
		_, _, _, got, err := o.Open(packet)
		if err != nil || string(got) != want {
			t.Fatalf("%s: got %q, %v", want, got, err)
		}
	}
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	send("before")
	late := s.Seal(nil, 1, "beta", []byte("late"))
	step(o.Rekey([][]byte{testKey, otherKey}))
	send("beta accepts both")
	step(s.Rekey(otherKey))
	send("alpha seals with the new one")
	step(o.Rekey([][]byte{otherKey, testKey}))
	send("beta seals with the new one")
	if _, _, _, got, err := o.Open(bytes.Clone(late)); err != nil || string(got) != "late" {
		t.Errorf("a packet under the old key that comes late: %q, %v", got, err)
	}
	old := sealer(t, "alpha", 8).Seal(nil, 1, "beta", []byte("x"))
	step(o.Rekey([][]byte{otherKey}))
	send("beta has dropped the old one")
	if err := open(o, old); !errors.Is(err, ErrForged) {
		t.Errorf("sealed under the dropped key: %v", err)
	}
	step(o.Rekey([][]byte{testKey, otherKey}))
	for i, packet := range recorded {
		if err := open(o, packet); !errors.Is(err, ErrReplayed) {
			t.Errorf("packet %d again, after all those keys: %v", i, err)
		}
	}
	if _, _, _, got, err := o.Open(old); err != nil || string(got) != "x" {
		t.Errorf("a packet that only the dropped key opens, which is back: %q, %v", got, err)
	}
}

// A packet that no key opens is left alone by all tries but the last, and is refused.
func TestForgedUnderTwoKeys(t *testing.T) {
	o := opener(t, "beta")
	if err := o.Rekey([][]byte{testKey, otherKey}); err != nil {
		t.Fatal(err)
	}
	s, err := NewSealer(bytes.Repeat([]byte{3}, KeySize), "alpha", 7)
	if err != nil {
		t.Fatal(err)
	}
	if err := open(o, s.Seal(nil, 0, "beta", []byte("x"))); !errors.Is(err, ErrForged) {
		t.Error(err)
	}
	for name, keys := range map[string][][]byte{"none": nil, "short": {testKey, otherKey[1:]}} {
		if o.Rekey(keys) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if s.Rekey(otherKey[1:]) == nil {
		t.Error("sealer: a short key is accepted")
	}
	if err := open(o, sealer(t, "alpha", 9).Seal(nil, 0, "beta", []byte("x"))); err != nil {
		t.Errorf("after mistakes the keys are as before: %v", err)
	}
}

func TestOpenUnderTwoKeysAllocatesNothing(t *testing.T) {
	o := opener(t, "beta")
	if err := o.Rekey([][]byte{otherKey, testKey}); err != nil {
		t.Fatal(err)
	}
	s, msg, buf := sealer(t, "alpha", 7), []byte("hello"), make([]byte, 0, MaxDatagram+MaxEnvelope)
	if n := testing.AllocsPerRun(1000, func() {
		if _, _, _, _, err := o.Open(s.Seal(buf, 0, "beta", msg)); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestKeySteps(t *testing.T) {
	third := bytes.Repeat([]byte{5}, KeySize)
	k := Keys{First: testKey}
	var err error
	must := func(next Keys, e error) {
		t.Helper()
		if err = e; err != nil {
			t.Fatal(err)
		}
		k = next
		if read, err := ParseKeys(k.Format()); err != nil || !bytes.Equal(read.First, k.First) || !bytes.Equal(read.Second, k.Second) || read.Next != k.Next {
			t.Errorf("written and read: %v, %v", read, err)
		}
	}
	if _, err := k.Promote(otherKey); !errors.Is(err, ErrNotNext) {
		t.Errorf("sealing with what is not accepted: %v", err)
	}
	for range 2 { // each step may be done again
		must(k.Accept(otherKey))
		if !bytes.Equal(k.First, testKey) || !k.Next || len(k.All()) != 2 {
			t.Errorf("accepted: %v", k)
		}
	}
	if _, err := k.Accept(third); !errors.Is(err, ErrOtherKey) {
		t.Errorf("a third key: %v", err)
	}
	if _, err := k.Retire(otherKey); !errors.Is(err, ErrNotSealed) {
		t.Errorf("the old one dropped before the new one seals: %v", err)
	}
	for range 2 {
		must(k.Promote(otherKey))
		if !bytes.Equal(k.First, otherKey) || k.Next || len(k.All()) != 2 {
			t.Errorf("promoted: %v", k)
		}
	}
	for range 2 {
		must(k.Retire(otherKey))
		if !bytes.Equal(k.First, otherKey) || k.Second != nil {
			t.Errorf("retired: %v", k)
		}
	}
	must(k.Accept(otherKey)) // from its start again
	must(k.Promote(otherKey))
}

func TestBadKeyFiles(t *testing.T) {
	one, two := FormatKey(testKey), FormatKey(otherKey)
	for name, c := range map[string]struct{ text, says string }{
		"empty":        {"\n \n", "one line made by"},
		"twice":        {one + one, "same key"},
		"three":        {one + two + FormatKey(bytes.Repeat([]byte{1}, KeySize)), "more than 2 lines"},
		"second cut":   {one + two[:30], "line 2"},
		"first says":   {strings.TrimSpace(one) + " next\n", "not base64"},
		"another word": {one + strings.TrimSpace(two) + " later\n", "line 2"},
		"huge":         {strings.Repeat("x", 1<<20), "no key file"},
	} {
		if _, err := ParseKeys(c.text); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if k, err := ParseKeys("\n" + one + "\r\n" + two); err != nil || k.Next || !bytes.Equal(k.Second, otherKey) {
		t.Errorf("two plain lines: %v, %v", k, err)
	}
	if KeyID(testKey) == KeyID(otherKey) || len(KeyID(testKey)) != 8 {
		t.Error("a key's name")
	}
}

// FuzzKeyFile: whatever a key file holds, what is read from it is what its own form says.
func FuzzKeyFile(f *testing.F) {
	for _, k := range []Keys{{First: testKey}, {First: testKey, Second: otherKey}, {First: testKey, Second: otherKey, Next: true}} {
		f.Add(k.Format())
	}
	f.Add("baton-key-v1 \n\n")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseKeys(text)
		if err != nil {
			return
		}
		again, err := ParseKeys(k.Format())
		if err != nil || !bytes.Equal(again.First, k.First) || !bytes.Equal(again.Second, k.Second) || again.Next != k.Next {
			t.Errorf("%q: read %v, then %v, %v", text, k, again, err)
		}
	})
}
