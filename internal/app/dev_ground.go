package app

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/core/wire"
)

// ground is where a whole cluster runs on this machine, and what can be done to it.
type ground interface {
	// lacks says what is missing here compared with a cluster of machines; nothing where all is there.
	lacks() []string
	// socket is where a node's agent listens; shownSocket is the same, as short as people want to type it.
	socket(node string) string
	shownSocket(node string) string
	// on tells whether a node has power; upset names what was done to it, "" for nothing.
	on(node string) bool
	upset(node string) string
	// The faults. errNotHere: this ground has no such thing.
	powerOff(node string) error
	powerOn(node string) error
	cutCable(node string) error
	cutSilently(node string) error
	freeze(node string) error
	thaw(node string) error
	killService(node string, group cluster.GroupID) error
	killAgent(node string) error
	// heal ends every fault: what is off is switched on, what is cut is joined, what is frozen goes on.
	heal() error
	// client begins to ask the group's service; nil without an error: nobody knows how to ask it.
	client() (*devClient, error)
	// aside is what one may type to reach the service by hand; "" for nothing.
	aside() string
	close() error
}

// healNodes switches on what is off and lets go on what is frozen.
func healNodes(g ground, p *devPlan) error {
	var errs []error
	for _, node := range p.nodes() {
		if g.on(node) {
			errs = append(errs, g.thaw(node))
		} else {
			errs = append(errs, g.powerOn(node))
		}
	}
	return errors.Join(errs...)
}

// errNotHere says that a fault can't be made on this ground.
var errNotHere = errors.New("there are no cables here: run it as root for them")

// upsets keeps track of what was done to each node, for people. It may be used by several goroutines.
type upsets struct {
	mu   sync.Mutex
	what map[string][]string
}

func newUpsets() *upsets { return &upsets{what: make(map[string][]string)} }

func (u *upsets) add(node, what string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !slices.Contains(u.what[node], what) {
		u.what[node] = append(u.what[node], what)
	}
}

// remove forgets one thing that was done to a node; "" forgets all.
func (u *upsets) remove(node, what string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.what[node] = slices.DeleteFunc(u.what[node], func(s string) bool { return s == what || what == "" })
}

func (u *upsets) of(node string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return strings.Join(u.what[node], ", ")
}

// Words of upset.
const (
	upsetOff    = "power off"
	upsetFrozen = "agent frozen"
	upsetCable  = "cable pulled"
	upsetSilent = "cut off"
)

// plan is the cluster that `baton dev` runs.
type devPlan struct {
	text  []byte
	spec  *cluster.Spec
	group cluster.GroupID // that the faults are about
	own   bool            // the user's file
	// starts are the groups that lack nothing without which they can't start; of the demo's own file, all.
	starts []cluster.GroupID
}

func newDevPlan(name string, text []byte) (*devPlan, error) {
	spec, err := config.Parse(name, text, Kinds())
	if err != nil {
		return nil, err
	}
	if len(spec.Groups) == 0 {
		return nil, fail(exitUsage, "add a group: see examples/web.yaml", "%s has no group to watch", name)
	}
	return &devPlan{text: text, spec: spec, group: spec.Groups[0].ID, starts: startable(spec, nil)}, nil
}

func (p *devPlan) nodes() []string {
	var names []string
	for _, n := range p.spec.Nodes {
		names = append(names, string(n.ID))
	}
	return names
}

// processOf reads the process id of a group's first running process from the state files below a run
// directory; read returns a file's content.
func processOf(p *devPlan, group cluster.GroupID, runDir string, read func(path string) ([]byte, error)) (int, error) {
	var last error = fmt.Errorf("group %s has no process", group)
	for _, g := range p.spec.Groups {
		if g.ID != group {
			continue
		}
		for _, r := range g.Resources {
			if r.Kind != "process" {
				continue
			}
			text, err := read(filepath.Join(runDir, "resources", string(g.ID), string(r.ID), "process.json"))
			if err != nil {
				last = err
				continue
			}
			var state struct{ PID int }
			if err := json.Unmarshal(text, &state); err != nil {
				last = err
			} else if state.PID > 1 {
				return state.PID, nil
			}
		}
	}
	return 0, fmt.Errorf("find the service's process: %w", last)
}

// typed is how a person calls this program from another terminal.
func typed() string {
	self, err := os.Executable()
	if err != nil {
		return "baton"
	}
	if found, err := exec.LookPath("baton"); err == nil {
		if a, err := os.Stat(found); err == nil {
			if b, err := os.Stat(self); err == nil && os.SameFile(a, b) {
				return "baton"
			}
		}
	}
	return self
}

// makeKey writes a new cluster key.
func makeKey(path string) error {
	key, err := wire.NewKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	return os.WriteFile(path, []byte(wire.FormatKey(key)), 0o600)
}
