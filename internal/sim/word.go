package sim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// This file holds what a script is made of: a file, its text, words, lengths of time.

const (
	// scriptMost is how large a script may be: what is larger is none, and may have no end.
	scriptMost = 1 << 20
	// wordMost is how long a word may be, and how much of a line an error quotes.
	wordMost = 60
	// durationMost keeps sums of times far from what 64 bits hold. No run is as long.
	durationMost = 20_000 * time.Hour
)

// readScriptFile reads a script. What is no regular file may have no end, or make whoever opens it wait for ever.
func readScriptFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("open %w", bare(err))
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, scriptMost+1))
	switch {
	case err != nil:
		return "", err
	case len(text) > scriptMost:
		return "", fmt.Errorf("%s is larger than 1 MiB, as no script is", path)
	}
	return string(text), nil
}

// bare is an error of a file without the call that met it.
func bare(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Path, p.Err)
	}
	return err
}

// isText tells whether a script can be one at all.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// quote quotes the beginning of what somebody wrote, fit to be printed.
func quote(s string) string {
	if utf8.RuneCountInString(s) > wordMost {
		s = string([]rune(s)[:wordMost]) + "…"
	}
	return strconv.Quote(s)
}

// duration reads a length of time.
func duration(word string) (time.Duration, error) {
	d, err := time.ParseDuration(word)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s is no length of time, such as 2s", quote(word))
	case d > durationMost || d < -durationMost:
		return 0, fmt.Errorf("%s is longer than %d hours", word, durationMost/time.Hour)
	}
	return d, nil
}

// span reads a length of time that can't be negative.
func span(word string) (time.Duration, error) {
	d, err := duration(word)
	if err == nil && d < 0 {
		err = fmt.Errorf("%q is no length of time that can pass, such as 2s", word)
	}
	return d, err
}

// checkName refuses names that a script could not tell from its other words.
func checkName(name string) error {
	for i, r := range name {
		if !(r >= 'a' && r <= 'z' || i > 0 && (r >= '0' && r <= '9' || r == '-')) {
			return fmt.Errorf("%s is no name: small letters, digits and dashes, a letter first", quote(name))
		}
	}
	switch name {
	case "":
		return errors.New("a name is missing")
	case "all", "for", "hot", "beyond", "manual":
		return fmt.Errorf("%q is a word of scripts, and no name", name)
	}
	return nil
}
