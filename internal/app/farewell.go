package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/io/bounded"
)

// leftLimit is how long a node that has left the cluster tries to stop what runs on it.
const leftLimit = 20 * time.Second

// left begins the end of a node that was made to leave the cluster, or must begin anew, as a failure says: nothing of
// the groups stays on it.
func (a *agent) left(now cluster.Instant, why error) {
	a.leftAt = now
	errors.As(why, &a.ending)
	bare := *a.spec
	bare.Groups = nil
	a.quit = a.reconfigure(&bare)
}

// hasLeft tells whether everything is stopped on a node that has left.
func (a *agent) hasLeft(now cluster.Instant) bool {
	if a.leftAt == 0 {
		return false
	}
	select {
	case <-a.settled:
		return now.Sub(a.leftAt) >= a.spec.Timing.L // the coordinator is to hear that this node knows it
	default:
		return now.Sub(a.leftAt) >= leftLimit
	}
}

// farewell has close take the gate off, and says what has become of this node. What could not be stopped stays guarded.
func (a *agent) farewell() error {
	if a.setBack {
		return a.ending // what could not be stopped, the next agent finds
	}
	if len(a.retiring) > 0 {
		a.ending.text += fmt.Sprintf("; but %v could not be stopped", a.retiring[0].place)
		a.ending.hint = "stop it by hand, then baton agent --dismantle"
	}
	a.bare = len(a.retiring) == 0 && len(a.stuck) == 0
	if err := (parting{a.ending.text, a.ending.hint}).keep(a.opt.Socket); err != nil {
		a.log.Warn("commands here will not know why no agent answers", "cause", err)
	}
	return a.ending
}

// wayBack says how a node that has left is let in again. The cluster file here is an old one, so join is to replace it.
func wayBack(node, dir string) string {
	return "to let it in again: add it with baton edit on another node, then baton invite " + node + " there; here move " + dir + " away, then baton join … --force"
}

// parting is what commands tell where no agent answers since it has ended for good.
type parting struct {
	Text string `json:"text"`
	Hint string `json:"hint"`
}

// partingPath is where an agent leaves it: beside its socket, which commands know.
func partingPath(socket string) string { return socket + ".left" }

// keep leaves it for commands.
func (p parting) keep(socket string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(partingPath(socket), b, 0o644)
}

// readParting returns what the agent of a socket has left; nil: nothing.
func readParting(socket string) *parting {
	b, err := bounded.ReadFile(partingPath(socket), bounded.Small)
	if err != nil {
		return nil
	}
	p := new(parting)
	if json.Unmarshal(b, p) != nil {
		return nil
	}
	return p
}

// forgetParting forgets what a former agent has left: this one runs.
func (a *agent) forgetParting() {
	if err := os.Remove(partingPath(a.opt.Socket)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("what a former agent has left for commands can't be removed", "cause", err)
	}
}
