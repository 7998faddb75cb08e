package identity

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
)

func TestSecretTexts(t *testing.T) {
	secret, err := NewSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := Invitation{Pin: Fingerprint{1, 2}, Secret: secret}
	parse := map[string]func(string) error{
		FormatToken(secret): func(s string) error {
			got, err := ParseToken(s)
			if err == nil && !bytes.Equal(got, secret) {
				t.Errorf("read as another: %x", got)
			}
			return err
		},
		i.Format(): func(s string) error {
			got, err := ParseInvitation(s)
			if err == nil && (got.Pin != i.Pin || !bytes.Equal(got.Secret, secret)) {
				t.Errorf("read as another: %x", got)
			}
			return err
		},
	}
	for text, parse := range parse {
		if err := parse(" " + text + "\n"); err != nil {
			t.Error(err)
		}
		for n := range len(text) {
			want := ErrSpoiltSecret
			if n < len(tokenWord) {
				want = ErrNoSecret
			}
			if err := parse(text[:n]); !errors.Is(err, want) {
				t.Errorf("cut to %d of %d: %v", n, len(text), err)
			}
		}
		for n := range len(text) {
			bad := []byte(text)
			bad[n]++
			if err := parse(string(bad)); err == nil {
				t.Errorf("byte %d changed: accepted", n)
			}
		}
	}
	if _, err := ParseToken(i.Format()); !errors.Is(err, ErrNoSecret) {
		t.Errorf("an invitation for a token: %v", err)
	}
	if _, err := NewSecret(strings.NewReader("short")); err == nil {
		t.Error("a secret of 5 random bytes")
	}
}

// FuzzSecrets: a token or an invitation that is accepted has exactly one text.
func FuzzSecrets(f *testing.F) {
	f.Add(FormatToken(testKey))
	f.Add(Invitation{Secret: testKey}.Format())
	f.Add("bt1_")
	f.Fuzz(func(t *testing.T, text string) {
		if secret, err := ParseToken(text); err == nil && FormatToken(secret) != strings.TrimSpace(text) {
			t.Errorf("%q is a second text of a token", text)
		}
		if i, err := ParseInvitation(text); err == nil && i.Format() != strings.TrimSpace(text) {
			t.Errorf("%q is a second text of an invitation", text)
		}
	})
}
