package addr

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"baton/internal/core/cluster"
	"baton/internal/io/resource"
)

// highest is the highest epoch that a resource has seen in this boot. It stands in a file on tmpfs, so that
// an agent that starts again refuses what its predecessor would have refused.
type highest struct {
	name string
	file *os.File // nil until the first epoch is noted
	seen cluster.Epoch
}

// epochFormat has one width for all epochs: one write replaces one by the next, and a process that is killed
// leaves the one or the other. Nothing is synced, since the file need not outlive the boot.
const epochFormat = "%020d\n"

func openHighest(dir string) (highest, error) {
	if dir == "" {
		return highest{}, errors.New("a vip needs a directory to note its epoch in")
	}
	h := highest{name: filepath.Join(dir, "epoch")}
	b, err := os.ReadFile(h.name)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(b) == 0 { // killed between making and writing it
		return h, nil
	}
	if err != nil {
		return h, fmt.Errorf("read the highest epoch seen: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return h, fmt.Errorf("read the highest epoch seen from %s: %w", h.name, err)
	}
	h.seen = cluster.Epoch(n)
	return h, nil
}

// raise notes an epoch. It returns resource.ErrStaleEpoch for one that is lower than another seen before.
func (h *highest) raise(epoch cluster.Epoch) error {
	if epoch < h.seen {
		return resource.ErrStaleEpoch
	}
	if epoch == h.seen {
		return nil
	}
	if h.file == nil {
		f, err := os.OpenFile(h.name, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return fmt.Errorf("note epoch %d: %w", epoch, err)
		}
		h.file = f
	}
	if _, err := h.file.WriteAt(fmt.Appendf(nil, epochFormat, epoch), 0); err != nil {
		return fmt.Errorf("note epoch %d: %w", epoch, err)
	}
	h.seen = epoch
	return nil
}

func (h *highest) close() {
	if h.file != nil {
		h.file.Close()
	}
}
