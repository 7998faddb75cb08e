package trial

import (
	"os"
	"strings"
	"testing"

	"baton/internal/lab"
)

// TestCopyOfAMachine: a copy of the machine alpha, with its address, key and data directory, is started beside it. Every
// node says so, and the end of it.
func TestCopyOfAMachine(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Spares: 1, OneLink: true})
	h := c.Host(Spares[0])
	for _, dir := range []string{"/etc/baton", "/var/lib/baton"} {
		c.must(os.CopyFS(h.Disk(dir), os.DirFS(c.Host(Alpha).Disk(dir))))
	}
	c.shell(Spares[0], "chmod 600 /etc/baton/key; ip address add 10.77.0.11/24 dev lan")
	twin, err := h.Supervise(lab.Program{Args: []string{c.binary, "agent", "--node", Alpha}, Output: "twin", Final: exitLeft})
	c.must(err)
	const text = "alpha: two machines run under this name, and are heard in turns, both at 10.77.0.11: one is a copy of the other"
	for _, node := range []string{Beta, Gamma} {
		c.eventually(node+" tells of the copy", func() bool {
			status := c.run(node, "status")
			return strings.Contains(status, text) && strings.Contains(status, "hint: shut one of them down") && strings.Contains(status, "two machines run as alpha")
		})
	}
	c.must(twin.Stop(t.Context()))
	c.eventually("it is over", func() bool { return !strings.Contains(c.run(Gamma, "status"), "two machines") })
}
