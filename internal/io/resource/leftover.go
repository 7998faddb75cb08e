package resource

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"baton/internal/core/cluster"
)

// Memory is what the run directory tells of a resource, so that it can be stopped when the file that
// described it is gone.
type Memory struct {
	Kind        string
	StopTimeout time.Duration
	Addresses   []netip.Addr   // that the gate guarded for it, those of former descriptions that may be up included
	Ports       []cluster.Port // likewise
}

// Guards returns what the gate guarded for it.
func (m Memory) Guards() Guards { return Guards{m.Addresses, m.Ports} }

// memoryFile stands in the run directory, beside the kind's own files.
const memoryFile = "resource.json"

// Recall reads a run directory. Where nothing was ever run there, Kind is empty.
func Recall(dir string) (m Memory, err error) {
	text, err := ReadNote(filepath.Join(dir, memoryFile))
	if text == nil && err == nil {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return m, fmt.Errorf("read what runs by %s: %w", dir, err)
	}
	return m, nil
}

// remember notes in the run directory what it is for, and what else may be up by a former description.
func remember(kind string, env Env, former Guards) error {
	all := GuardsOf(env.Spec).And(former)
	m := Memory{Kind: kind, StopTimeout: env.Spec.StopTimeout, Addresses: all.Addresses, Ports: all.Ports}
	text, err := json.Marshal(m)
	if err == nil {
		err = WriteNote(filepath.Join(env.RunDir, memoryFile), text, 0o644, false)
	}
	if err != nil {
		return fmt.Errorf("note what runs here: %w", err)
	}
	return nil
}

// broken stands for a resource that can't be made. It changes nothing and knows nothing.
type broken struct{ cause error }

// Start implements Resource.
func (b broken) Start(context.Context, cluster.Epoch) error { return b.cause }

// Standby implements Resource.
func (b broken) Standby(context.Context, cluster.Epoch) error { return b.cause }

// Stop implements Resource.
func (b broken) Stop(context.Context) error { return b.cause }

// Probe implements Resource.
func (b broken) Probe(context.Context) (cluster.Status, error) { return cluster.StatusUnknown, b.cause }

// Close implements Resource.
func (b broken) Close() {}
