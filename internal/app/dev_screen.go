package app

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// settleEvents is how long an event waits before it is shown, so that what happened at about the same time,
// and is learned of in different ways, stands in the order in which it happened.
const settleEvents = 400 * time.Millisecond

// eventIndent is the column at which an event's text begins.
const eventIndent = 22

// event is one line of what happens.
type event struct {
	at     time.Time
	who    string
	text   string
	why    string // shown less bright, on a line of its own where it does not fit
	colour colour
}

// screen writes lines that stay, above a foot that is written anew. Where the output is no terminal there
// is no foot.
type screen struct {
	palette
	out     io.Writer
	tty     *os.File // nil: no terminal
	pending []event
	foot    []string // as it was written last
}

func newScreen(k *console) *screen {
	s := &screen{palette: k.paint, out: k.out}
	if f, ok := k.out.(*os.File); ok && isTerminal(f) {
		s.tty = f
	}
	return s
}

// add takes in an event; show writes it when it is due.
func (s *screen) add(e event) { s.pending = append(s.pending, e) }

// say takes in an event of now.
func (s *screen) say(who string, c colour, format string, args ...any) {
	s.add(event{time.Now(), who, fmt.Sprintf(format, args...), "", c})
}

// due writes the events that have waited long enough, or all.
func (s *screen) due(all bool) {
	slices.SortStableFunc(s.pending, func(a, b event) int { return a.at.Compare(b.at) })
	n := 0
	for n < len(s.pending) && (all || time.Since(s.pending[n].at) > settleEvents) {
		n++
	}
	if n == 0 {
		return
	}
	var b strings.Builder
	for _, e := range s.pending[:n] {
		fmt.Fprintf(&b, "%s  %s  %s", s.text(dim, e.at.Format("15:04:05.000")), s.text(bold, fmt.Sprintf("%-6s", e.who)), s.text(e.colour, e.text))
		if e.why != "" {
			if eventIndent+utf8.RuneCountInString(e.text+e.why)+3 >= s.width() {
				fmt.Fprintf(&b, "\n%*s", eventIndent-1, "")
			}
			b.WriteString(s.text(dim, " — "+e.why))
		}
		b.WriteByte('\n')
	}
	s.pending = slices.Delete(s.pending, 0, n)
	s.write(b.String())
}

// write writes lines that stay.
func (s *screen) write(text string) {
	s.clearFoot()
	fmt.Fprint(s.out, text)
	s.drawFoot()
}

// setFoot replaces the foot.
func (s *screen) setFoot(lines []string) {
	if s.tty == nil || slices.Equal(lines, s.foot) {
		return
	}
	s.clearFoot()
	s.foot = lines
	s.drawFoot()
}

func (s *screen) clearFoot() {
	if s.tty != nil && len(s.foot) > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\r%s", len(s.foot), toPageEnd)
	}
}

func (s *screen) drawFoot() {
	if s.tty == nil {
		return
	}
	width := s.width()
	for _, l := range s.foot {
		fmt.Fprintln(s.out, cut(l, width-1))
	}
}

// width is that of the terminal; of a file, as wide as a reader can bear.
func (s *screen) width() int {
	if s.tty != nil {
		if w, _, err := term.GetSize(int(s.tty.Fd())); err == nil && w > 20 {
			return w
		}
		return 80
	}
	return 120
}

// end removes the foot.
func (s *screen) end() {
	s.due(true)
	s.clearFoot()
	s.foot = nil
}

// cut shortens a line to so many columns; what paints it takes none.
func cut(line string, columns int) string {
	var b strings.Builder
	n := 0
	for i := 0; i < len(line); {
		if line[i] == '\x1b' {
			if end := strings.IndexByte(line[i:], 'm'); end >= 0 {
				b.WriteString(line[i : i+end+1])
				i += end + 1
				continue
			}
		}
		r, size := utf8.DecodeRuneInString(line[i:])
		if n < columns {
			b.WriteRune(r)
		}
		n++
		i += size
	}
	return b.String()
}
