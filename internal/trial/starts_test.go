package trial

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const bindsServer = `import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(s): s.send_response(200); s.end_headers()
    def log_message(*a): pass
http.server.HTTPServer(('10.77.0.60', 9000), H).serve_forever()
`

// A program listens on the group's own address, which comes up last: check tells before, status and explain say why it
// fails and what to do, and with that done it serves.
func TestProgramBindsTheAddress(t *testing.T) {
	t.Parallel()
	server := filepath.Join(t.TempDir(), "srv.py")
	if err := os.WriteFile(server, []byte(bindsServer), 0o644); err != nil {
		t.Fatal(err)
	}
	c := start(t, Options{Extra: fmt.Sprintf(`  proxy:
    nodes: [alpha, beta]
    resources:
      - vip: 10.77.0.60/24
      - process: { name: haproxy, command: [python3, %s], user: root, start_timeout: 5s, ready: { command: [sh, -c, "ss -Hltn sport = :9000 | grep -q ."] } }
`, server)})
	const why = "it binds an address that is not here: addresses come up last; let it listen on all, or sysctl net.ipv4.ip_nonlocal_bind=1"
	c.wants(Alpha, []string{"status"}, []string{why})
	c.wants(Alpha, []string{"explain", "proxy"}, []string{"ip_nonlocal_bind"})
	c.wants(Alpha, []string{"check"}, []string{server + " names 10.77.0.60, which comes up only once the program is ready", "vip stands before haproxy in the file, and comes up behind it all the same"})
	for _, n := range Nodes[:2] {
		c.shell(n, "sysctl -qw net.ipv4.ip_nonlocal_bind=1")
	}
	c.run(Alpha, "clear", "proxy")
	c.eventually("proxy serves", func() bool { return c.placed(Alpha, "proxy").Serving })
	c.wants(Alpha, []string{"check"}, []string{"failures"}, "names 10.77.0.60")
}

// Each mistake of a program that does not start, or goes, is told with what to do where people look.
func TestProgramsThatDontStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var extra strings.Builder
	wants := make(map[string]string)
	for _, x := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"dos", "#!/bin/sh\r\nsleep 1000\r\n", 0o755, "has DOS line ends"},
		{"bare", "sleep 1000\n", 0o755, "neither a binary nor does it begin with #!"},
		{"modes", "#!/bin/sh\nsleep 1000\n", 0o644, "is not executable"},
		{"daemon", "#!/bin/sh\nsetsid sleep 1000 &\nexit 0\n", 0o755, "went to the background"},
		{"machine", "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00\x2b\x00\x01\x00\x00\x00" + strings.Repeat("\x00", 28) + "\x40\x00\x38\x00\x00\x00\x40\x00\x00\x00\x00\x00", 0o755, "is built for EM_SPARCV9"},
	} {
		file := filepath.Join(dir, x.name)
		if err := os.WriteFile(file, []byte(x.text), x.mode); err != nil {
			t.Fatal(err)
		}
		wants[x.name] = x.want
		fmt.Fprintf(&extra, "  %s: { nodes: [alpha, beta], resources: [{ process: { name: p, command: [%s], user: root } }] }\n", x.name, file)
	}
	c := start(t, Options{Extra: extra.String()})
	for name, want := range wants {
		c.wants(Alpha, []string{"explain", name}, []string{want})
		if name != "daemon" { // which only a start shows
			c.wants(Alpha, []string{"check"}, []string{filepath.Join(dir, name), want})
		}
	}
}
