package app

import (
	"fmt"
	"path/filepath"
	"sync/atomic"

	"baton/internal/core/cluster"
)

// writeFault is the place of a fault of which no link is to blame: the log or the run record can't be written.
const writeFault = "(disk)"

const writeHint = "mend that file system; the node takes part again by itself"

// unwritten is why this node's log and run record can't be written, where the kernel has said so.
type unwritten struct{ log, record atomic.Pointer[string] }

// note keeps why a write failed; nil: it has succeeded.
func note(at *atomic.Pointer[string], err error) {
	if err == nil {
		at.Store(nil)
		return
	}
	text := plainCause(err)
	at.Store(&text)
}

// faults are what status says of it.
func (u *unwritten) faults(data, run string) (out []cluster.LinkFault) {
	for _, x := range []struct {
		what, in string
		why      *string
	}{{"log", data, u.log.Load()}, {"run record", run, u.record.Load()}} {
		if x.why != nil {
			f := cluster.LinkFault{Link: writeFault, Hint: writeHint}
			f.Text = fmt.Sprintf("the %s in %s can't be written: %s", x.what, filepath.Clean(x.in), *x.why)
			out = append(out, f)
		}
	}
	return out
}
