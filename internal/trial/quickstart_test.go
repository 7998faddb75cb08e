package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

// quickLimit bounds one command of the page: a status that waits for a cluster to form is among them.
const quickLimit = 60 * time.Second

var (
	quickBlock  = regexp.MustCompile("(?s)```console\n(.*?)```")
	quickInvite = regexp.MustCompile(`baton join \S+ (\S+)`)
	quickError  = regexp.MustCompile(`new\.yaml:\d+:\d+: unknown key "takeovr"`)
)

// page plays the quick start on three bare hosts.
type page struct {
	t     *testing.T
	lab   *lab.Lab
	token string // of the last invitation
	count int
}

// TestQuickStart types what docs/quick-start.md shows, as a new user would, on three hosts with systemd on which
// nothing but the binary is installed.
func TestQuickStart(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(sources(), "docs/quick-start.md"))
	if err != nil {
		t.Fatal(err)
	}
	p := newPage(t)
	sections := strings.Split(string(text), "\n## ")
	if len(sections) < 4 {
		t.Fatalf("the page has %d sections", len(sections))
	}
	p.play(sections[0])
	p.count = 0
	p.play(sections[1])
	if p.count > 10 {
		t.Errorf("it takes %d commands until the cluster serves, no more than ten were promised", p.count)
	}
	if got := p.get("/"); got != "alpha" {
		t.Errorf("the service answers %q, not the page that was made", got)
	}
	for _, private := range []string{"/etc/passwd", "/etc/baton/cluster.yaml", "/proc/version"} {
		if got := p.get(private); !strings.HasPrefix(got, "404") {
			t.Errorf("the service publishes %s: %q", private, got)
		}
	}
	if err := p.lab.Host(Alpha).PowerOff(); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); p.get("/") != "beta" && time.Since(begin) < limit; {
		time.Sleep(pollEvery)
	}
	out := p.play(sections[2])
	for _, want := range []string{"web on beta", "N02", "evict alpha#1"} {
		if !strings.Contains(out, want) && !(want == "web on beta" && strings.Contains(out, "beta serving")) {
			t.Errorf("status, explain and history don't tell %q:\n%s", want, out)
		}
	}
	if out := p.play(sections[3]); !quickError.MatchString(out) {
		t.Errorf("the mistake is not found at its line and column:\n%s", out)
	}
}

func newPage(t *testing.T) *page {
	binary, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New("quick", lab.Options{Networks: []string{LAN}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	p := &page{t: t, lab: l}
	ctx, cancel := context.WithTimeout(t.Context(), 3*installLimit)
	defer cancel()
	for i, name := range append(Nodes, Client) {
		c := lab.HostConfig{Name: name, Addresses: map[string][]netip.Prefix{LAN: {netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", 11+i))}}}
		if name != Client {
			c.Systemd, c.Show = true, []string{filepath.Dir(binary), sources()}
		}
		h, err := l.AddHost(c)
		if err == nil && c.Systemd {
			err = awaitSystemd(ctx, h)
		}
		if err == nil && c.Systemd {
			_, err = h.Command(ctx, "make", "-C", sources(), "install", "BINARY="+binary)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// play types the commands of a section and returns what they print.
func (p *page) play(section string) string {
	p.t.Helper()
	var all strings.Builder
	for _, block := range quickBlock.FindAllStringSubmatch(section, -1) {
		for line := range strings.Lines(block[1]) {
			host, command, ok := strings.Cut(strings.TrimSpace(line), "# ")
			if !ok {
				p.t.Fatalf("%q names no host", line)
			}
			all.WriteString(p.enter(host, strings.ReplaceAll(command, "TOKEN", p.token)))
		}
	}
	return all.String()
}

// enter types one command on a host. Only the one with the mistake may fail.
func (p *page) enter(host, command string) string {
	p.t.Helper()
	p.count++
	ctx, cancel := context.WithTimeout(p.t.Context(), quickLimit)
	defer cancel()
	out, err := p.lab.Host(host).Command(ctx, "sh", "-c", "cd /root && PATH=/usr/local/bin:$PATH; "+command+" 2>&1")
	p.t.Logf("%s# %s\n%s", host, command, out)
	var failed *exec.ExitError
	if err != nil && !(errors.As(err, &failed) && strings.Contains(command, "apply")) {
		p.t.Fatalf("%s# %s: %v\n%s", host, command, err, out)
	}
	if m := quickInvite.FindStringSubmatch(out); m != nil && strings.Contains(command, "invite") {
		p.token = m[1]
	}
	return out
}

// get returns what a client gets at the service's address: the page, or why there is none.
func (p *page) get(path string) string {
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: p.lab.Host(Client).DialContext}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://10.0.0.50:8080"+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return response.Status
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}
