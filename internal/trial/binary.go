package trial

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Binary returns the path of the baton binary to try: BATON_BINARY, or this program if it is baton.
func Binary() (string, error) {
	if b := os.Getenv("BATON_BINARY"); b != "" {
		return filepath.Abs(b)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the binary to try: %w", err)
	}
	return self, nil
}

// sources returns where the module's sources lie.
func sources() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Build builds the binary into a directory and makes Binary name it: tests try what users run.
func Build(dir string) error {
	out := filepath.Join(dir, "baton")
	if err := BuildAs(out); err != nil {
		return err
	}
	return os.Setenv("BATON_BINARY", out)
}

// BuildAs builds the binary under a path, with further flags of go build, as `make build` does: static.
func BuildAs(path string, flags ...string) error {
	cmd := exec.Command("go", append(append([]string{"build", "-o", path}, flags...), "./cmd/baton")...)
	cmd.Dir = sources()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the binary: %w\n%s", err, text)
	}
	return nil
}

// newKey makes the trial's key with the binary's own command.
func (t *Trial) newKey() ([]byte, error) {
	path := filepath.Join(t.Lab.Dir(), "key")
	if out, err := exec.Command(t.binary, "keygen", path).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make a key: %w: %s", err, out)
	}
	return os.ReadFile(path)
}
