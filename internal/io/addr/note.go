package addr

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"baton/internal/io/resource"
)

// noteFile stands in a resource's run directory.
const noteFile = "up"

// note is what a resource has brought up in this boot, on tmpfs: where the file has changed since, or names the
// resource no more, that is what a stop has to take down. It is written before the address is added.
type note struct {
	dir    string
	prefix netip.Prefix // invalid: nothing
	index  int          // of the interface
}

func openNote(dir string) (note, error) {
	n := note{dir: dir}
	text, err := resource.ReadNote(filepath.Join(dir, noteFile))
	if text == nil && err == nil {
		return n, nil
	}
	var prefix string
	if err == nil {
		_, err = fmt.Sscan(string(text), &prefix, &n.index)
	}
	if err == nil {
		n.prefix, err = netip.ParsePrefix(prefix)
	}
	if err != nil {
		return n, fmt.Errorf("read which address is up from %s: %w", filepath.Join(dir, noteFile), err)
	}
	return n, nil
}

func (n *note) is(p netip.Prefix, index int) bool { return n.prefix == p && n.index == index }

func (n *note) set(p netip.Prefix, index int) error {
	if err := resource.WriteNote(filepath.Join(n.dir, noteFile), fmt.Appendf(nil, "%s %d\n", p, index), 0o600, true); err != nil {
		return fmt.Errorf("note that %s is up: %w", p, err)
	}
	n.prefix, n.index = p, index
	return nil
}

// keep makes the note anew where it was deleted, and room for the next.
func (n *note) keep() error {
	path := filepath.Join(n.dir, noteFile)
	if resource.NoteKept(path) {
		return nil
	}
	if n.prefix.IsValid() {
		return n.set(n.prefix, n.index)
	}
	return resource.ReserveNote(path, 0o600, 0)
}

func (n *note) clear() error {
	if !n.prefix.IsValid() {
		return nil
	}
	if err := resource.WriteNote(filepath.Join(n.dir, noteFile), []byte("\n"), 0o600, true); err != nil {
		return fmt.Errorf("note that %s is down: %w", n.prefix, err)
	}
	n.prefix, n.index = netip.Prefix{}, 0
	return nil
}

// taken tells whether another resource of this node has the same address by its note. Run directories lie side
// by side, by group and resource.
func (n *note) taken() bool {
	others, _ := filepath.Glob(filepath.Join(n.dir, "..", "..", "*", "*", noteFile)) // the pattern is well formed
	for _, path := range others {
		dir := filepath.Dir(path)
		if same, err := filepath.Abs(n.dir); err == nil && dir == filepath.Clean(same) {
			continue
		}
		if o, err := openNote(dir); err == nil && o.prefix.IsValid() && o.prefix.Addr() == n.prefix.Addr() {
			return true
		}
	}
	return false
}
