package app

import (
	"bytes"
	"slices"
	"sync"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
)

// readingsKept is how many texts are remembered: the one that counts, the next, and one to compare with.
const readingsKept = 3

// readings are the texts that were read last and what they say, the newest first. One change has the same two texts
// read for the preview, for each check and when they come by the log; the largest takes a tenth of a second each time.
var readings struct {
	mu   sync.Mutex
	last []*cluster.Spec
}

// readConfig is config.Parse for this version's kinds of resources. What hangs on a specification is not to be changed:
// others may have it too.
func readConfig(name string, text []byte) (*cluster.Spec, error) {
	readings.mu.Lock()
	defer readings.mu.Unlock() // who asks for the same meanwhile waits for it
	last := readings.last
	i := slices.IndexFunc(last, func(s *cluster.Spec) bool { return bytes.Equal(s.Text, text) })
	var spec *cluster.Spec
	if i >= 0 {
		spec = last[i]
		last = slices.Delete(last, i, i+1)
	} else {
		var err error
		if spec, err = config.Parse(name, text, Kinds()); err != nil {
			return nil, err
		}
	}
	readings.last = slices.Insert(last[:min(len(last), readingsKept-1)], 0, spec)
	own := *spec
	return &own, nil
}

// readKept is readConfig for a text that counts already: what this version no longer takes from people is no reason not
// to start with it, and is told where the resource is made.
func readKept(name string, text []byte) (*cluster.Spec, error) {
	spec, err := readConfig(name, text)
	if err == nil {
		return spec, nil
	}
	lenient := Kinds()
	for i := range lenient {
		lenient[i].Faults = nil
	}
	if spec, lenientErr := config.Parse(name, text, lenient); lenientErr == nil {
		return spec, nil
	}
	return nil, err
}
