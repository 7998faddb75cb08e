package app

import (
	"fmt"
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
	done    sync.WaitGroup
}

func newLogWriter(out io.Writer) *logWriter {
	w := &logWriter{lines: make(chan []byte, logQueue)}
	w.done.Go(func() {
		for line := range w.lines {
			_, _ = out.Write(line) // there is nowhere left to tell of a failure
			if n := w.dropped.Swap(0); n > 0 {
				fmt.Fprintf(out, "%d lines of the log were lost: it was not taken quickly enough\n", n)
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
		w.dropped.Add(1)
	}
	return len(line), nil
}

// Close writes what waits.
func (w *logWriter) Close() {
	close(w.lines)
	w.done.Wait()
}
