package app

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
)

// ownFile is `baton dev FILE`, which runs until it is told to quit.
type ownFile struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan error

	mu  sync.Mutex
	out bytes.Buffer
}

// Write implements io.Writer for what it prints.
func (d *ownFile) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.Write(b)
}

func (d *ownFile) output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.String()
}

// devFile starts it where /srv is the test's own, with these directories in it, each with a page.
func devFile(t *testing.T, binary, file string, served ...string) *ownFile {
	t.Helper()
	d := &ownFile{t: t, done: make(chan error, 1)}
	script := "mount -t tmpfs none /srv"
	for _, dir := range served {
		script += fmt.Sprintf(" && mkdir -p %s && echo %s > %[1]s/index.html", dir, filepath.Base(dir))
	}
	d.cmd = exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", script+` && exec "$@"`, "-", binary, "dev", file)
	d.cmd.Stdout, d.cmd.Stderr = d, d
	var err error
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.done <- d.cmd.Wait() }()
	t.Cleanup(func() {
		d.in.Close()
		select {
		case <-d.done:
		case <-time.After(endLimit):
			d.cmd.Process.Kill()
			t.Errorf("it does not end")
		}
	})
	return d
}

// shows waits until its output matches, and returns what the pattern's group holds.
func (d *ownFile) shows(pattern string) string {
	d.t.Helper()
	p := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(upLimit); ; time.Sleep(20 * time.Millisecond) {
		if m := p.FindStringSubmatch(d.output()); m != nil {
			return m[len(m)-1]
		}
		select {
		case err := <-d.done:
			d.done <- err
			d.t.Fatalf("it ended before %q (%v):\n%s", pattern, err, d.output())
		default:
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("not after %v: %q\n%s", upLimit, pattern, d.output())
		}
	}
}

// answers waits until a client in the lab gets a page.
func (d *ownFile) answers(url, page string) {
	d.t.Helper()
	client := d.shows(`nsenter -n -t (\d+)`)
	var out []byte
	for deadline := time.Now().Add(upLimit); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		out, _ = exec.Command("nsenter", "-n", "-t", client, "curl", "-sg", "-m", "2", url).CombinedOutput()
		if strings.TrimSpace(string(out)) == page {
			return
		}
	}
	d.t.Errorf("%s answers %q, not %q:\n%s", url, out, page, d.output())
}

// Every example serves as it is shipped.
func TestExamplesServe(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the lab takes root")
	}
	binary := buildBaton(t)
	pages := map[string]map[string]string{ // by file: what is asked, and the directory's name that is answered
		"web.yaml":        {"http://10.0.0.50:8080/": "www"},
		"fast.yaml":       {"http://10.0.0.60:9000/": "feed"},
		"two-groups.yaml": {"http://10.0.1.50:8000/": "orders", "http://[fd00:1::50]:8000/": "orders", "http://10.0.1.51:8080/": "wiki"},
	}
	files, err := filepath.Glob(filepath.Join(docsRoot, "examples", "*"))
	if err != nil || len(files) != len(pages) {
		t.Fatalf("%v, %v: each example is to be asked", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			whole, err := filepath.Abs(file)
			if err != nil {
				t.Fatal(err)
			}
			d := devFile(t, binary, whole, "/srv/www", "/srv/feed", "/srv/orders", "/srv/wiki")
			for url, page := range pages[filepath.Base(file)] {
				d.answers(url, page)
			}
			if out := d.output(); strings.Contains(out, "lacks") {
				t.Errorf("something is lacking:\n%s", out)
			}
		})
	}
}

const ownFileHead = `cluster: own
takeover: 1s
nodes:
  alpha: { address: 10.0.0.11 }
  beta-with-a-name-that-no-interface-may-have: { address: 10.0.0.12 }
  client: { address: 10.0.0.13, role: witness }
groups:
`

func writeOwn(t *testing.T, groups string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "own.yaml")
	if err := os.WriteFile(file, []byte(ownFileHead+groups), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

const webServer = "{ process: { command: 'python3 -m http.server 8080 --bind :: --directory /srv/www', user: nobody, ready: { tcp: 'localhost:8080' } } }"

// The lab has the names of the file: interfaces, one for all or by node, VLANs and alternative names; nodes; subnets of
// either family, with or without a link in them.
func TestDevTakesTheFilesNames(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the lab takes root")
	}
	t.Parallel()
	d := devFile(t, buildBaton(t), writeOwn(t, `  web:
    nodes: [alpha, beta-with-a-name-that-no-interface-may-have]
    reach: [10.0.0.254]
    resources:
      - `+webServer+`
      - vip: { name: lan, address: 10.0.0.50/24, interface: { alpha: eth0, beta-with-a-name-that-no-interface-may-have: enp3s0f1np1-the-long-alternative } }
      - vip: { name: six, address: "fd00:5::50/64" }
      - vip: { name: public, address: 203.0.113.9/28, interface: bond0.7 }
      - vip: { name: alone, address: 198.51.100.7/32, interface: bond0.7 }
      - vip: { name: other, address: "fd00:6::50/64", interface: ens9 }
`), "/srv/www")
	for _, a := range []string{"10.0.0.50", "[fd00:5::50]", "203.0.113.9", "[fd00:6::50]"} {
		d.answers("http://"+a+":8080/", "www")
	}
	d.shows("own  healthy")
}

// What this machine lacks is one list, before anything starts. Where nothing could serve, that is all.
func TestDevTellsWhatIsLacking(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the lab takes root")
	}
	t.Parallel()
	binary := buildBaton(t)
	const lacking = `  mail:
    nodes: [alpha]
    resources:
      - process: { command: /no/such/mailer, user: nobody }
      - vip: 10.0.0.51/24
  wiki:
    nodes: [alpha]
    resources: [ { process: { command: sleep 1000, user: no-such-user } } ]
`
	began := time.Now()
	out, err := runDev(t, "", nil, binary, "dev", writeOwn(t, lacking))
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != exitUsage {
		t.Errorf("%v\n%s", err, out)
	}
	if took := time.Since(began); took > formLimit/2 { // and did not wait for what can't serve
		t.Errorf("it took %v", took)
	}
	wantMatches(t, out, `group mail, process: the program: stat /no/such/mailer`, `group wiki, process: user "no-such-user"`, `useradd --system no-such-user`, `nothing of .* could serve`)

	// Where something can, the rest does not keep it, and what is not there can be asked about.
	d := devFile(t, binary, writeOwn(t, lacking+`  web:
    nodes: [alpha]
    resources:
      - `+webServer+`
      - vip: 10.0.0.50/24
`), "/srv/www")
	d.answers("http://10.0.0.50:8080/", "www")
	socket := d.shows(`explain web --socket (\S+)`)
	d.shows(`GROUP +OWNER`)
	text, err := exec.Command(binary, "explain", "mail", "--socket", socket).CombinedOutput()
	if err != nil || !strings.Contains(string(text), "/no/such/mailer") {
		t.Errorf("explain mail: %v\n%s", err, text)
	}
	wantMatches(t, d.output(), `(?s)machine lacks:.*group mail, process: .*A whole cluster`)
}

// To quit does not wait until something serves.
func TestDevQuitsBeforeItServes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the lab takes root")
	}
	t.Parallel()
	d := devFile(t, buildBaton(t), writeOwn(t, `  web:
    nodes: [alpha]
    resources: [ { process: { command: [sleep, "1000"], user: nobody, ready: { tcp: 'localhost:8080' } } } ]
`))
	d.shows(`explain web --socket`)
	if _, err := io.WriteString(d.in, "q\n"); err != nil {
		t.Error(err)
	}
	select {
	case err := <-d.done:
		if err != nil {
			t.Errorf("it ends with %v:\n%s", err, d.output())
		}
		d.done <- nil
	case <-time.After(endLimit):
		t.Errorf("it goes on for %v:\n%s", endLimit, d.output())
	}
}

// What fails only once it runs does not end the demo: it stays up, for people to ask why.
func TestDevStaysUp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the lab takes root")
	}
	t.Parallel()
	binary := buildBaton(t)
	d := devFile(t, binary, writeOwn(t, `  web:
    nodes: [alpha]
    resources: [ { process: { command: [sh, -c, "echo no database here; exit 3"], user: nobody, ready: { tcp: 'localhost:8080' } } } ]
`))
	socket := d.shows(`explain web --socket (\S+)`)
	d.shows(`not all serves after .*no database here`)
	d.shows(`GROUP +OWNER`)
	text, err := exec.Command(binary, "explain", "web", "--socket", socket).CombinedOutput()
	if err != nil || !strings.Contains(string(text), "no database here") {
		t.Errorf("explain web: %v\n%s", err, text)
	}
	if _, err := io.WriteString(d.in, "q\n"); err != nil {
		t.Error(err)
	}
	if err := <-d.done; err != nil {
		t.Errorf("it ends with %v:\n%s", err, d.output())
	}
	d.done <- nil
}

func TestLabNetworks(t *testing.T) {
	file := func(groups string) *cluster.Spec {
		t.Helper()
		spec, err := config.Parse("file", []byte("cluster: own\nnodes: { alpha: { address: 10.0.0.11 }, beta: { address: 10.0.0.12 }, gamma: { address: 10.0.0.13, role: witness } }\ngroups:\n"+groups), Kinds())
		if err != nil {
			t.Fatal(err)
		}
		return spec
	}
	for groups, want := range map[string]string{
		"  g: { nodes: [alpha], resources: [ { vip: 10.0.0.50/24 } ] }":                                                                                                                  "lan 10.0.0.0/24 alpha,beta,gamma map[]",
		"  g: { nodes: [alpha], resources: [ { vip: 10.0.0.50/24 }, { vip: { name: x, address: 'fd00::5/64' } } ] }":                                                                     "lan 10.0.0.0/24,fd00::/64 alpha,beta,gamma map[]",
		"  g: { nodes: [alpha], resources: [ { vip: { address: 10.9.0.5/24, interface: eth1 } } ] }":                                                                                     "lan 10.0.0.0/24 alpha,beta,gamma map[]; net1 10.9.0.0/24 alpha map[alpha:eth1]",
		"  g: { nodes: [alpha], resources: [ { vip: { address: 10.0.0.50/32, interface: eth0 } } ] }":                                                                                    "lan 10.0.0.0/24 alpha,beta,gamma map[alpha:eth0]",
		"  g: { nodes: [alpha, beta], resources: [ { vip: { address: 10.9.0.5/24, interface: { alpha: a0, beta: b0 } } }, { vip: { name: y, address: 10.8.0.5/24, interface: a0 } } ] }": "?",
	} {
		nets, err := labNetworks(file(groups))
		var all []string
		for _, n := range nets {
			var prefixes, nodes []string
			for _, p := range n.prefixes {
				prefixes = append(prefixes, p.String())
			}
			for _, id := range n.nodes {
				nodes = append(nodes, string(id))
			}
			slices.Sort(nodes)
			all = append(all, fmt.Sprintf("%s %s %s %v", n.name, strings.Join(prefixes, ","), strings.Join(nodes, ","), n.faces))
		}
		if got := strings.Join(all, "; "); want == "?" {
			if err == nil || !strings.Contains(err.Error(), "one interface in each") {
				t.Errorf("%s: %v, %s", groups, err, got)
			}
		} else if err != nil || got != want {
			t.Errorf("%s: %v\n got %s\nwant %s", groups, err, got, want)
		}
	}
	if _, err := labNetworks(file("  g: { nodes: [alpha], resources: [ { vip: 10.9.0.50/32 } ] }")); err == nil || !strings.Contains(err.Error(), "no interface is named") {
		t.Errorf("an address without subnet and interface: %v", err)
	}
	taken := make(map[netip.Addr]bool)
	for range 6 {
		if _, ok := freeAddress(netip.MustParsePrefix("10.0.0.0/29"), 3, taken); !ok {
			t.Errorf("%d addresses of six are given", len(taken))
		}
	}
	if a, ok := freeAddress(netip.MustParsePrefix("10.0.0.0/29"), 3, taken); ok {
		t.Errorf("%s is given too", a)
	}
}
