package app

import (
	"fmt"
	"sync"
	"time"

	"baton/internal/core/cluster"
)

// gateFault is the place of a fault that is the gate's, in a node's faults; no link has the name.
const gateFault = "(gate)"

// gateShown is how long status tells that others took the gate off, once it is put back.
const gateShown = time.Minute

// gateWhole is what others have done to this node's gate.
type gateWhole struct {
	mu    sync.Mutex
	off   string    // why it is not whole; "": it is
	why   string    // why it was not, the last time
	at    time.Time // of that
	count int       // how often it was taken off since the agent started
}

// gateOff takes what the gate tells: why it is not whole, or "" once it is. As long as it is not, this node lacks what
// it takes to run any group, so that none is moved here; what it serves, it goes on with.
func (a *agent) gateOff(why string) {
	w := &a.whole
	w.mu.Lock()
	if why != "" && w.off == "" {
		w.count++
	}
	if why != "" {
		w.why, w.at = why, time.Now()
	}
	w.off = why
	w.mu.Unlock()
	a.lacks.gate(why)
}

// fault is what status says of it; false: nothing.
func (w *gateWhole) fault(now time.Time) (cluster.LinkFault, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	const hint = "find out who does that: tc qdisc, tc filter, nft and bpftool change what others have put into the kernel"
	f := cluster.LinkFault{Link: gateFault}
	f.Hint = hint
	switch {
	case w.off != "":
		f.Text = "is not whole, so no group is moved here: " + w.off
	case w.count > 0 && now.Sub(w.at) < gateShown:
		f.Text = fmt.Sprintf("others took it off, %s ago and %d times since the agent started: %s; it was put back",
			now.Sub(w.at).Round(time.Second), w.count, w.why)
	default:
		return f, false
	}
	return f, true
}
