package app

import (
	"io"
	"sync"
	"sync/atomic"
)

// logQueue bounds the lines that wait to be written.
const logQueue = 1024

// logWriter writes lines in the background: a log that is slow to take them must not delay a heartbeat.
// What does not fit its queue is dropped, and the loss is told.
type logWriter struct {
	lines   chan []byte
	dropped atomic.Uint64
	lost    atomic.Uint64 // of all times
	done    sync.WaitGroup
}

// newLogWriter returns a writer to out; note makes a line of what it has to tell itself.
func newLogWriter(out io.Writer, note func(text string) []byte) *logWriter {
	w := &logWriter{lines: make(chan []byte, logQueue)}
	w.done.Go(func() {
		for line := range w.lines {
			if _, err := out.Write(line); err != nil {
				w.drop() // there is nowhere left to tell of a failure
				continue
			}
			if n := w.dropped.Swap(0); n > 0 {
				_, _ = out.Write(note(lost(n)))
			}
		}
	})
	return w
}

// Write implements io.Writer; it never waits. It is not called after Close.
func (w *logWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- append([]byte(nil), line...):
	default:
		w.drop()
	}
	return len(line), nil
}

func (w *logWriter) drop() {
	w.dropped.Add(1)
	w.lost.Add(1)
}

// Close writes what waits.
func (w *logWriter) Close() {
	close(w.lines)
	w.done.Wait()
}
