package app

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	batonv1 "baton/api/v1"
	"baton/internal/io/api"
)

// reportCmd is `baton report`.
type reportCmd struct {
	Out    string `short:"o" help:"The file to write; - is standard output (default: baton-report-NODE-TIME.tar.gz)." placeholder:"FILE"`
	Config string `default:"/etc/baton/cluster.yaml" help:"This host's cluster file, which may differ from what counts." placeholder:"FILE"`
}

// reportLimit bounds how long everything may take.
const reportLimit = 20 * time.Second

// Run writes the report.
func (c *reportCmd) Run(k *console) error {
	ctx, cancel := context.WithTimeout(k.ctx, reportLimit)
	defer cancel()
	node, files, missed := k.gather(ctx)
	files = append(files, hostFiles(ctx, c.Config)...)
	now := time.Now()
	name := fmt.Sprintf("baton-report-%s-%s", node, now.UTC().Format("20060102T150405Z"))
	archive, err := packed(name, files, now)
	if err != nil {
		return err
	}
	if c.Out == "-" {
		if _, err := k.out.Write(archive); err != nil {
			return err
		}
		return k.toldReport(k.err, "standard output", files, missed)
	}
	if c.Out == "" {
		c.Out = name + ".tar.gz"
	}
	if err := os.WriteFile(c.Out, archive, 0o600); err != nil {
		return fail(exitFailed, "name another file with --out", "write the report: %v", err)
	}
	return k.toldReport(k.out, c.Out, files, missed)
}

// gather asks the agent. What it does not answer is named in missed.
func (k *console) gather(ctx context.Context) (node string, files []api.ReportFile, missed error) {
	agent := k.agent()
	defer agent.Close()
	node = "host"
	if host, err := os.Hostname(); err == nil {
		node = host
	}
	add := func(name, about string, m proto.Message, err error) {
		if err != nil {
			missed = k.trouble(err)
			return
		}
		var text bytes.Buffer
		q := *k
		q.out = &text
		if err := q.printJSON(m); err == nil {
			files = append(files, api.ReportFile{Name: name, About: about, Content: text.Bytes()})
		}
	}
	s, err := agent.Status(ctx, &batonv1.StatusRequest{})
	if err == nil {
		node = s.Node
	}
	add("status.json", "how the cluster looks from this node", s, err)
	h, err := agent.History(ctx, &batonv1.HistoryRequest{})
	add("history.json", "what was decided, and why", h, err)
	r, err := agent.Observe.Report(ctx, &batonv1.ReportRequest{})
	if err != nil {
		missed = k.trouble(err)
	}
	for _, f := range r.GetFiles() {
		files = append(files, api.ReportFile{Name: f.Name, About: f.About, Content: f.Content})
	}
	return node, files, missed
}

// packed makes one archive of the files, in a directory of its own.
func packed(dir string, files []api.ReportFile, now time.Time) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	for _, f := range files {
		if err := t.WriteHeader(&tar.Header{Name: dir + "/" + f.Name, Mode: 0o600, Size: int64(len(f.Content)), ModTime: now}); err != nil {
			return nil, fmt.Errorf("pack the report: %s: %w", f.Name, err)
		}
		if _, err := t.Write(f.Content); err != nil {
			return nil, fmt.Errorf("pack the report: %s: %w", f.Name, err)
		}
	}
	if err := t.Close(); err != nil {
		return nil, fmt.Errorf("pack the report: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("pack the report: %w", err)
	}
	return b.Bytes(), nil
}

// toldReport says what is in a report, and what is missing.
func (k *console) toldReport(w io.Writer, where string, files []api.ReportFile, missed error) error {
	if k.json {
		type file struct {
			Name  string `json:"name"`
			Bytes int    `json:"bytes"`
			About string `json:"about"`
		}
		out := struct {
			File    string `json:"file"`
			Files   []file `json:"files"`
			Missing string `json:"missing"` // why the agent's part is missing; empty: it is not
		}{File: where}
		for _, f := range files {
			out.Files = append(out.Files, file{f.Name, len(f.Content), f.About})
		}
		if missed != nil {
			out.Missing = missed.Error()
		}
		q := *k
		q.out = w
		return q.printJSON(out)
	}
	rows := [][]cell{heading("file", "bytes", "what it is")}
	for _, f := range files {
		rows = append(rows, []cell{{text: f.Name}, {text: fmt.Sprint(len(f.Content))}, {text: f.About}})
	}
	k.paint.table(w, rows)
	if missed != nil {
		fmt.Fprintf(w, "\nThe agent's own part is missing: %v\n", missed)
	}
	fmt.Fprintf(w, "\nWritten to %s. No key and no password file is in it. Before you give it away, look at what\nthe cluster file's commands and environments say.\n", where)
	return nil
}
