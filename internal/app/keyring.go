package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"baton/internal/core/wire"
	"baton/internal/io/bounded"
)

// keyring is this node's key file, and who uses its keys.
type keyring struct {
	mu   sync.Mutex
	file string
	keys wire.Keys
	use  func(keys [][]byte) error // takes the keys into use
}

// readKeyFile reads a key file.
func readKeyFile(file string) (wire.Keys, error) {
	text, err := bounded.ReadFile(file, bounded.KeyFile)
	if err != nil {
		return wire.Keys{}, fail(exitUsage, "make one with baton keygen "+file+", and copy it to every node", "read the cluster key %s: %s", file, cause(err))
	}
	keys, err := wire.ParseKeys(string(text))
	if err != nil {
		return wire.Keys{}, fail(exitUsage, "copy the key anew from another node", "%s: %v", file, err)
	}
	return keys, nil
}

func (k *keyring) present() wire.Keys {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys
}

// step takes one step of a change of the key: durably, then in use. To take it again does nothing.
func (k *keyring) step(step string, key []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	next, err := map[string]func([]byte) (wire.Keys, error){
		"accept": k.keys.Accept, "seal": k.keys.Promote, "drop": k.keys.Retire,
	}[step](key)
	if err != nil || next.Format() == k.keys.Format() {
		return err
	}
	if err := k.store(next); err != nil {
		return err
	}
	if err := k.use(next.All()); err != nil {
		return err
	}
	k.keys = next
	return nil
}

// errKeyEdited means that somebody else has changed the key file.
var errKeyEdited = errors.New("it holds other keys than the agent uses: restart the agent, or put the file back")

// store replaces the key file at one instant. Agents of one machine may share it (baton dev).
func (k *keyring) store(next wire.Keys) error {
	text, err := bounded.ReadFile(k.file, bounded.KeyFile)
	if err != nil {
		return fmt.Errorf("look at the key file: %w", err)
	}
	there, err := wire.ParseKeys(string(text))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", k.file, err)
	case there.Format() == next.Format():
		return nil
	case there.Format() != k.keys.Format():
		return fmt.Errorf("%s: %w", k.file, errKeyEdited)
	}
	return replaceFile(k.file, []byte(next.Format()), 0o600)
}

// replaceFile writes a file beside the one of that name and puts it in its place, durably. What a symbolic
// link points to is replaced, not the link.
func replaceFile(name string, text []byte, mode os.FileMode) (err error) {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, os.Remove(f.Name())))
	}
	return syncDir(filepath.Dir(name))
}

// syncDir makes durable which files a directory holds.
func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("make %s durable: %w", name, err)
	}
	return errors.Join(d.Sync(), d.Close())
}
