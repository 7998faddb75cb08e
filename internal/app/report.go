package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/io/api"
	"baton/internal/io/bounded"
	"baton/internal/io/nowait"
)

var _ api.Observed = (*backend)(nil)

// Report implements api.Observed. It reads no file that holds a secret.
func (b *backend) Report(ctx context.Context) ([]api.ReportFile, error) {
	a := b.a
	var goroutines, metrics, log, gate bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&goroutines, 2) // a buffer takes all
	_, _ = a.logs.recent.WriteTo(&log)
	files := []api.ReportFile{{Name: "goroutines.txt", About: "what the agent's goroutines do", Content: goroutines.Bytes()},
		{Name: "agent.log", About: "the newest lines of the agent's log", Content: log.Bytes()}}
	if err := a.metrics.WriteText(&metrics); err != nil {
		fmt.Fprintf(&metrics, "# %v\n", err)
	}
	files = append(files, api.ReportFile{Name: "metrics.txt", About: "all metrics", Content: metrics.Bytes()})
	if a.gate != nil {
		fmt.Fprintf(&gate, "mechanism %s\n", a.gate.Describe())
		if why := a.gate.Why(); why != "" {
			fmt.Fprintf(&gate, "why %s\n", why)
		}
		left, err := a.gate.Left()
		fmt.Fprintf(&gate, "now %d, by CLOCK_BOOTTIME\n", nowait.Clock(unix.CLOCK_BOOTTIME))
		for _, s := range left {
			fmt.Fprintf(&gate, "group %s epoch %d deadline %d\n", s.Group, s.Epoch, s.Deadline)
		}
		if err != nil {
			fmt.Fprintln(&gate, err)
		}
		files = append(files, api.ReportFile{Name: "gate.txt", About: "what stands in the kernel's gate", Content: gate.Bytes()})
	}
	// A loop that hangs must not keep the rest from being reported.
	inner, cancel := context.WithTimeout(ctx, reportPatience)
	defer cancel()
	done := make(chan []api.ReportFile, 1)
	go func() { done <- b.reportOfLoop() }()
	select {
	case more := <-done:
		files = append(files, more...)
	case <-inner.Done():
	}
	return files, nil
}

// reportPatience is how long the loop may take to tell its part of a report.
const reportPatience = 2 * time.Second

// reportOfLoop gathers what only the loop knows.
func (b *backend) reportOfLoop() []api.ReportFile {
	p, err := b.a.look(context.Background())
	if err != nil {
		return nil
	}
	links, err := json.MarshalIndent(b.a.links.Stats(), "", "  ")
	if err != nil {
		links = []byte(err.Error())
	}
	text := p.spec.Text
	if c := p.conf.Current(); c != nil {
		text = c.Text
	}
	return []api.ReportFile{{Name: "cluster.yaml", About: "the configuration that counts", Content: text},
		{Name: "links.json", About: "state and counters of the links", Content: links}}
}

// hostFiles gathers what this host tells of itself, agent or not.
func hostFiles(ctx context.Context, configFile string) []api.ReportFile {
	var host bytes.Buffer
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		fmt.Fprintf(&host, "%s %s %s %s\n", unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:]), unix.ByteSliceToString(u.Machine[:]))
	}
	fmt.Fprintf(&host, "baton %s\n", Version())
	for _, path := range []string{"/etc/os-release", "/proc/loadavg", "/proc/uptime", "/proc/meminfo"} {
		if text, err := bounded.ReadFile(path, bounded.Proc); err == nil {
			fmt.Fprintf(&host, "\n# %s\n%s", path, text)
		}
	}
	files := []api.ReportFile{{Name: "host.txt", About: "kernel, system, load and memory", Content: host.Bytes()}}
	if text, err := bounded.ReadFile(configFile, bounded.ClusterFile); err == nil {
		files = append(files, api.ReportFile{Name: "file-" + filepath.Base(configFile), About: configFile + " on this host", Content: text})
	}
	for _, c := range []struct{ name, about, line string }{
		{"addresses.txt", "interfaces, addresses, their counters", "ip -s -d address"},
		{"routes.txt", "routes", "ip route show table all"},
		{"journal.txt", "the newest 2000 lines of the unit's journal", "journalctl --unit=baton --lines=2000 --no-pager --quiet"},
	} {
		args := strings.Fields(c.line)
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.WaitDelay = time.Second
		out := &bounded.Tail{Limit: bounded.Report}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err == nil && len(out.Bytes()) > 0 {
			files = append(files, api.ReportFile{Name: c.name, About: c.about, Content: out.Bytes()})
		}
	}
	return files
}
