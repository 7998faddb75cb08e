package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

// KeySize is the length of a cluster key in bytes.
const KeySize = 32

const (
	keyWord = "baton-key-v1"
	keySum  = 4 // bytes of SHA-256 over word and key that follow the key
)

// NewKey returns a new cluster key, read from random, which must be a source fit for keys.
func NewKey(random io.Reader) ([]byte, error) {
	key := make([]byte, KeySize)
	if _, err := io.ReadFull(random, key); err != nil {
		return nil, fmt.Errorf("make a cluster key of %d random bytes: %w", KeySize, err)
	}
	return key, nil
}

// FormatKey returns the key as the one line of a key file, with its newline: a word that names the
// format, and the key with a checksum in base64.
func FormatKey(key []byte) string {
	sum := keyChecksum(key)
	return keyWord + " " + base64.RawURLEncoding.EncodeToString(append(append([]byte(nil), key...), sum...)) + "\n"
}

// ParseKey reads what FormatKey wrote. Space around the line is ignored. Its errors never show the key.
func ParseKey(text string) ([]byte, error) {
	word, code, _ := strings.Cut(strings.TrimSpace(text), " ")
	if word != keyWord {
		return nil, fmt.Errorf("read cluster key: the text does not begin with %q; a key file is one line made by `baton keygen`", keyWord)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimSpace(code))
	if err != nil {
		return nil, errors.New("read cluster key: what follows " + keyWord + " is not base64: the line was changed or cut")
	}
	if len(raw) != KeySize+keySum {
		return nil, fmt.Errorf("read cluster key: %d bytes, a key with its checksum has %d: the line was cut or is two lines", len(raw), KeySize+keySum)
	}
	key := raw[:KeySize:KeySize]
	if string(keyChecksum(key)) != string(raw[KeySize:]) {
		return nil, errors.New("read cluster key: the checksum does not fit: the line was changed")
	}
	return key, nil
}

func keyChecksum(key []byte) []byte {
	sum := sha256.Sum256(append([]byte(keyWord), key...))
	return sum[:keySum]
}
