package app

import "strings"

// longText is from how many bytes on a text is told once in an answer, and referred to after that.
const longText = 60

// saidOnce keeps the long texts that an answer has told, so that none is read again for each node or resource.
type saidOnce struct{ told []string }

// say returns a text, or what stands for it, or for its end, where that was told before.
func (s *saidOnce) say(text string) string {
	for _, t := range s.told {
		switch i := strings.Index(text, t); {
		case strings.Contains(t, text) && len(text) >= longText:
			return "as said above"
		case i >= 0:
			return text[:i] + "as said above" + text[i+len(t):]
		}
	}
	if len(text) >= longText {
		s.told = append(s.told, text)
	}
	return text
}

// sayAfter is say for what stands behind a heading, such as "beta: ".
func (s *saidOnce) sayAfter(line, mark string) string {
	if head, text, ok := strings.Cut(line, mark); ok {
		return head + mark + s.say(text)
	}
	return s.say(line)
}
