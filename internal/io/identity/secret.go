package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// SecretSize is the length of a token's secret in bytes.
	SecretSize     = 32
	tokenWord      = "bt1_"
	invitationWord = "bi1_"
	secretSum      = 4 // bytes of SHA-256 over word and content that follow the content
)

// Errors of the parsers of tokens and invitations: which kind of mistake it is.
var (
	ErrNoSecret     = errors.New("it is no token of this kind")
	ErrSpoiltSecret = errors.New("it was cut short or changed")
)

// NewSecret returns a new secret of a token or an invitation, read from random, which must be a source fit
// for keys.
func NewSecret(random io.Reader) ([]byte, error) {
	s := make([]byte, SecretSize)
	if _, err := io.ReadFull(random, s); err != nil {
		return nil, fmt.Errorf("make a secret of %d random bytes: %w", SecretSize, err)
	}
	return s, nil
}

// Hash returns what is kept of a secret in place of it. It is random and long, so that a plain hash will do.
func Hash(secret []byte) []byte {
	sum := sha256.Sum256(secret)
	return sum[:]
}

// FormatToken returns a token's secret as people copy it.
func FormatToken(secret []byte) string { return formatSecret(tokenWord, secret) }

// ParseToken reads what FormatToken wrote. Space around it is ignored. It fails with ErrNoSecret or
// ErrSpoiltSecret; its errors never show the secret.
func ParseToken(text string) (secret []byte, err error) {
	return parseSecret(tokenWord, text, SecretSize)
}

// Invitation lets one host fetch the cluster's file and key, and says whom to believe.
type Invitation struct {
	Pin    Fingerprint // of the authority that who answers must prove
	Secret []byte      // SecretSize bytes
}

// Format returns the invitation as people copy it.
func (i Invitation) Format() string {
	return formatSecret(invitationWord, append(append([]byte(nil), i.Pin[:]...), i.Secret...))
}

// ParseInvitation reads what Invitation.Format wrote. Its errors are those of ParseToken.
func ParseInvitation(text string) (Invitation, error) {
	raw, err := parseSecret(invitationWord, text, sha256.Size+SecretSize)
	if err != nil {
		return Invitation{}, err
	}
	return Invitation{Pin: Fingerprint(raw[:sha256.Size]), Secret: raw[sha256.Size:]}, nil
}

func formatSecret(word string, content []byte) string {
	return word + base64.RawURLEncoding.EncodeToString(append(append([]byte(nil), content...), secretChecksum(word, content)...))
}

func parseSecret(word, text string, size int) ([]byte, error) {
	code, found := strings.CutPrefix(strings.TrimSpace(text), word)
	if !found {
		return nil, ErrNoSecret
	}
	if len(code) != base64.RawURLEncoding.EncodedLen(size+secretSum) {
		return nil, ErrSpoiltSecret
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(code)
	if err != nil || len(raw) != size+secretSum || !bytes.Equal(secretChecksum(word, raw[:size]), raw[size:]) {
		return nil, ErrSpoiltSecret
	}
	return raw[:size:size], nil
}

func secretChecksum(word string, content []byte) []byte {
	sum := sha256.Sum256(append([]byte(word), content...))
	return sum[:secretSum]
}
