package addr

import (
	"errors"
	"fmt"
	"io/fs"
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
	b, err := resource.ReadNote(h.name)
	if b == nil && err == nil { // never written, or killed between making and writing it
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
	if err := h.write(epoch); err != nil {
		return fmt.Errorf("note epoch %d: %w", epoch, err)
	}
	h.seen = epoch
	return nil
}

// write writes over what stands there, which takes no room.
func (h *highest) write(epoch cluster.Epoch) error {
	f, err := os.OpenFile(h.name, os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) { // the directory is gone
		if err := os.MkdirAll(filepath.Dir(h.name), 0o755); err != nil {
			return err
		}
		f, err = os.OpenFile(h.name, os.O_WRONLY|os.O_CREATE, 0o600)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(fmt.Appendf(nil, epochFormat, epoch), 0)
	return err
}

// keep makes the file anew where it was deleted; with epoch 0, which none has, it keeps room for the first.
func (h *highest) keep() error {
	if info, err := os.Stat(h.name); err == nil && info.Size() > 0 {
		return nil
	}
	return h.write(h.seen)
}
