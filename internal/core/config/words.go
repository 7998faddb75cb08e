package config

import (
	"errors"
	"fmt"
	"strings"
)

// splitWords splits a command as a POSIX shell splits words (IEEE 1003.1, "Shell Command Language",
// 2.2 Quoting): at blanks, with single quotes, double quotes and backslashes. Nothing is expanded.
// What a shell would take for an operator is refused, since it would reach the program as a word.
func splitWords(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case strings.IndexByte(" \t\n", b) >= 0:
			if inWord {
				words, inWord = append(words, word.String()), false
				word.Reset()
			}
			continue
		case b == '\'' || b == '"':
			end, err := quotedWord(&word, text, i)
			if err != nil {
				return nil, err
			}
			i = end
		case b == '\\':
			i++
			if i == len(text) {
				return nil, errors.New("it ends with a backslash")
			}
			if text[i] == '\n' {
				continue // a line continued
			}
			word.WriteByte(text[i])
		case strings.IndexByte("|&;<>()`", b) >= 0:
			return nil, fmt.Errorf("%q means something to a shell, and no shell reads it", string(b))
		default:
			word.WriteByte(b)
		}
		inWord = true
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// quotedWord appends the quoted part that begins at from and returns the index of its closing quote.
func quotedWord(word *strings.Builder, text string, from int) (int, error) {
	quote := text[from]
	for i := from + 1; i < len(text); i++ {
		b := text[i]
		if b == quote {
			return i, nil
		}
		// Within double quotes a backslash is itself unless it stands before one of these.
		if b == '\\' && quote == '"' && i+1 < len(text) && strings.IndexByte("$`\"\\\n", text[i+1]) >= 0 {
			i++
			if text[i] == '\n' {
				continue
			}
			b = text[i]
		}
		word.WriteByte(b)
	}
	return 0, fmt.Errorf("the quote %s is not closed", string(quote))
}
