package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
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
	// nextWord stands behind the second key of a file if that one is to follow the first.
	nextWord = "next"
	// keyLines are the keys that a file holds at most: two, while one follows the other.
	keyLines = 2
	// maxKeyText is the longest text of a key file that is looked at, in bytes.
	maxKeyText = 1024
)

// Keys are the cluster's keys as one node has them: one, or two while one follows the other.
type Keys struct {
	First  []byte // what is sent is sealed with it
	Second []byte // accepted as well; nil: none
	Next   bool   // Second is to follow First; else it is the one before
}

// All returns the keys, the one that seals first.
func (k Keys) All() [][]byte {
	if k.Second == nil {
		return [][]byte{k.First}
	}
	return [][]byte{k.First, k.Second}
}

// Errors of a change of keys.
var (
	ErrOtherKey  = errors.New("another change of the key is under way")
	ErrNotNext   = errors.New("the new key is not accepted here yet")
	ErrNotSealed = errors.New("the new key does not seal here yet")
)

// Accept returns the keys with which a new one is accepted too: the first step of a change. Like the other
// steps it may be done again. It fails with ErrOtherKey if there are two keys and neither is the new one.
func (k Keys) Accept(key []byte) (Keys, error) {
	switch {
	case bytes.Equal(key, k.First), bytes.Equal(key, k.Second):
		return k, nil
	case k.Second != nil:
		return k, ErrOtherKey
	}
	return Keys{First: k.First, Second: key, Next: true}, nil
}

// Promote returns the keys with which the new one seals: the second step. It fails with ErrNotNext if the
// key is not accepted.
func (k Keys) Promote(key []byte) (Keys, error) {
	switch {
	case bytes.Equal(key, k.First):
		return k, nil
	case !bytes.Equal(key, k.Second):
		return k, ErrNotNext
	}
	return Keys{First: key, Second: k.First}, nil
}

// Retire returns the new key alone: the last step. It fails with ErrNotSealed if the key does not seal.
func (k Keys) Retire(key []byte) (Keys, error) {
	if !bytes.Equal(key, k.First) {
		return k, ErrNotSealed
	}
	return Keys{First: k.First}, nil
}

// KeyID names a key without giving anything of it away: 8 hexadecimal digits.
func KeyID(key []byte) string {
	sum := sha256.Sum256(append([]byte("baton key id v1"), key...))
	return hex.EncodeToString(sum[:4])
}

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

// Format returns the keys as a key file: a line for each, the one that seals first. The second says
// "next" if it is to follow the first.
func (k Keys) Format() string {
	text := FormatKey(k.First)
	if k.Second == nil {
		return text
	}
	second := FormatKey(k.Second)
	if k.Next {
		second = strings.TrimSuffix(second, "\n") + " " + nextWord + "\n"
	}
	return text + second
}

// ParseKeys reads a key file: what FormatKey or Keys.Format wrote, or two lines of FormatKey, of which the
// first is the one that seals. Its errors never show a key.
func ParseKeys(text string) (Keys, error) {
	if len(text) > maxKeyText {
		return Keys{}, fmt.Errorf("read cluster key: %d bytes, a key file has at most %d: it is no key file", len(text), maxKeyText)
	}
	var k Keys
	lines := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if lines++; lines > keyLines {
			return Keys{}, fmt.Errorf("read cluster key: more than %d lines: a key file has one, and two while the key is being changed", keyLines)
		}
		next := false
		if lines == keyLines {
			line, next = strings.CutSuffix(line, " "+nextWord)
		}
		key, err := ParseKey(line)
		switch {
		case err != nil && lines == keyLines:
			return Keys{}, fmt.Errorf("line %d: %w", lines, err)
		case err != nil:
			return Keys{}, err
		case lines == 1:
			k.First = key
		case bytes.Equal(key, k.First):
			return Keys{}, errors.New("read cluster key: both lines hold the same key: remove one")
		default:
			k.Second, k.Next = key, next
		}
	}
	if lines == 0 {
		_, err := ParseKey("")
		return Keys{}, err
	}
	return k, nil
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
