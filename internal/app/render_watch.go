package app

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	batonv1 "baton/api/v1"
	"baton/internal/io/api"
)

// Sequences that every terminal since the VT100 knows, or ignores (xterm's ctlseqs).
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l" // another page, no cursor, no wrapping of long lines
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	toLineEnd   = "\x1b[K"
	toPageEnd   = "\x1b[J"
)

// watch shows the status anew with each change, until q, Ctrl-C or a signal. Where the output is no
// terminal, each status follows the last.
func watch(k *console, agent *api.Client) error {
	ctx, cancel := context.WithCancel(k.ctx)
	defer cancel()
	show := func(text []byte) error {
		_, err := fmt.Fprintf(k.out, "%s\n", text)
		return err
	}
	if out, ok := k.out.(*os.File); ok && isTerminal(out) {
		restore := readKeys(ctx, k.in, cancel)
		defer restore()
		fmt.Fprint(out, enterScreen)
		defer fmt.Fprint(out, leaveScreen)
		show = func(text []byte) error { return repaint(out, text) }
	}
	for begun := false; ; {
		shown, err := follow(ctx, k, agent, show)
		if ctx.Err() != nil {
			return nil
		}
		// An agent that answered once restarts, and a viewer sits that out.
		if begun = begun || shown; !begun {
			return k.trouble(err)
		}
		if err := show(fmt.Appendf(nil, "%s: the agent has ended; waiting for the next", k.where())); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryEvery):
		}
	}
}

// follow shows each status of one stream, and tells whether there was any.
func follow(ctx context.Context, k *console, agent *api.Client, show func([]byte) error) (shown bool, err error) {
	stream, err := agent.Watch(ctx, &batonv1.WatchRequest{})
	if err != nil {
		return false, err
	}
	defer stream.Close()
	for stream.Receive() {
		var page bytes.Buffer
		statusView{k.paint, stream.Msg()}.write(&page)
		if err := show(page.Bytes()); err != nil {
			return true, err
		}
		shown = true
	}
	return shown, stream.Err()
}

// repaint overwrites the page line by line, so that nothing flickers, and cuts it at the last row.
func repaint(out *os.File, text []byte) error {
	_, rows, err := term.GetSize(int(out.Fd()))
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if err == nil && rows > 1 && len(lines) > rows-1 {
		lines = append(lines[:rows-2], fmt.Sprintf("… %d more lines", len(lines)-rows+2))
	}
	var b strings.Builder
	b.WriteString(toTop)
	for _, l := range lines {
		b.WriteString(l + toLineEnd + "\n")
	}
	b.WriteString(toPageEnd)
	_, err = io.WriteString(out, b.String())
	return err
}

// readKeys calls quit when q is typed. What it returns restores the terminal and ends the reader.
func readKeys(ctx context.Context, in io.Reader, quit func()) (restore func()) {
	f, ok := in.(*os.File)
	if !ok || !isTerminal(f) {
		return func() {}
	}
	quits := func(key byte) bool {
		if key != 'q' && key != 'Q' {
			return true
		}
		quit()
		return false
	}
	if restore, ok = takeKeys(ctx, f, quits, func() {}); !ok {
		return func() {}
	}
	return restore
}
