package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
	"baton/internal/io/api"
	"baton/internal/io/bounded"
	"baton/internal/io/resource"
)

// reader is something that reads what others wrote.
type reader struct {
	what, whose string
	limit       int
	name        string                                          // of the limit
	beyond      string                                          // what happens beyond it
	try         func(t *testing.T, long string) (string, error) // reads a file that is longer, and returns what it got
}

// refuses tries a reader of a file: of one that is too long it returns the error that says so.
func refuses(read func(path string) error) func(*testing.T, string) (string, error) {
	return func(t *testing.T, long string) (string, error) { return "", read(long) }
}

// readers are all that have a bound and can be tried from here.
var readers = []reader{
	{"a cluster file: that of the agent, of check, apply, edit, join, and former revisions", "people, other nodes", bounded.ClusterFile, "bounded.ClusterFile", "an error", refuses(func(path string) error {
		_, err := readOwnFile(AgentOptions{ConfigFile: path, DataDir: filepath.Dir(path)}, slog.New(slog.DiscardHandler))
		return err
	})},
	{"a cluster file that is applied", "people", bounded.ClusterFile, "bounded.ClusterFile", "an error", refuses(func(path string) error {
		_, err := bounded.ReadFile(path, bounded.ClusterFile)
		return err
	})},
	{"the cluster's key", "people", bounded.KeyFile, "bounded.KeyFile", "an error", refuses(func(path string) error {
		_, err := readKeyFile(path)
		return err
	})},
	{"contexts and their tokens", "people", maxContexts, "maxContexts", "an error", refuses(func(path string) error {
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		_, err := readPrivate(path)
		return err
	})},
	{"a line that is typed, a token on standard input", "people", bounded.Typed, "bounded.Typed", "it is no answer", func(t *testing.T, long string) (string, error) {
		text, err := os.ReadFile(long)
		if err != nil {
			return "", err
		}
		k := &console{ctx: t.Context(), in: bytes.NewReader(text)}
		return k.readLine()
	}},
	{"notes in the run directory: the run record, what runs, what is up", "former agents", resource.NoteLimit, "resource.NoteLimit", "an error", refuses(func(path string) error {
		_, err := resource.ReadNote(path)
		return err
	})},
	{"small files of the kernel and of agents: /proc/PID/stat, cgroup.events, the boot id, why an agent ended", "the kernel, agents", bounded.Small, "bounded.Small", "as if it were not there", refuses(func(path string) error {
		if p := readParting(strings.TrimSuffix(path, ".left")); p != nil {
			return fmt.Errorf("read as %+v", p)
		}
		_, err := bounded.ReadFile(path, bounded.Small)
		return err
	})},
	{"lists of the kernel: mounts, processors, ports", "the kernel", bounded.Proc, "bounded.Proc", "as if it were not there", refuses(func(path string) error {
		_, err := bounded.ReadFile(path, bounded.Proc)
		return err
	})},
	{"passwd(5), group(5)", "administrators", bounded.Accounts, "bounded.Accounts", "an error", refuses(func(path string) error {
		_, err := bounded.ReadFile(path, bounded.Accounts)
		return err
	})},
	{"answers of systemctl", "systemd", bounded.Answer, "bounded.Answer", "it is killed; an error", func(t *testing.T, long string) (string, error) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "systemctl"), fmt.Appendf(nil, "#!/bin/sh\nexec cat %s\n", long), 0o755); err != nil {
			return "", err
		}
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		return systemctl("show")
	}},
	{"what a command prints for a report", "programs", bounded.Report, "bounded.Report", "only the end is kept", func(t *testing.T, long string) (string, error) {
		text, err := os.ReadFile(long)
		if err != nil {
			return "", err
		}
		tail := bounded.Tail{Limit: bounded.Report}
		if _, err := tail.Write(text); err != nil || len(tail.Bytes()) != bounded.Report {
			return "", fmt.Errorf("%d bytes are kept, %w", len(tail.Bytes()), err)
		}
		return "", bounded.ErrLong
	}},
	{"a line of the journal", "programs", bounded.Line, "bounded.Line", "it is passed over", func(t *testing.T, long string) (string, error) {
		text, err := os.ReadFile(long)
		if err != nil {
			return "", err
		}
		got := ""
		entry := func(message []byte) string {
			return `{"MESSAGE":"` + string(message) + `","SYSLOG_IDENTIFIER":"x"}` + "\n"
		}
		err = journalLines(strings.NewReader(entry([]byte("before"))+entry(text)+entry([]byte("after"))), nil, func(lines []api.OutputLine) error {
			for _, l := range lines {
				got += l.Text + " "
			}
			return nil
		})
		if err == nil && got == "before after " {
			err = bounded.ErrLong
		}
		return "", err
	}},
	{"what is kept of a program's output in memory: a line", "programs", resource.OutputLineLimit, "resource.OutputLineLimit", "it is cut", func(t *testing.T, long string) (string, error) {
		o, err := resource.NewOutputs(func(cluster.GroupID, cluster.ResourceID, string) {})
		if err != nil {
			return "", err
		}
		defer o.Close()
		env := resource.Env{Group: "g", RunDir: t.TempDir(), Spec: cluster.ResourceSpec{ID: "r"}}
		text, err := os.ReadFile(long)
		if err == nil {
			err = os.WriteFile(resource.Output(env), append(text, '\n'), 0o600)
		}
		if err == nil {
			err = o.Watch(env)
		}
		if err != nil {
			return "", err
		}
		lines, _ := o.Next("g", "r", 0)
		for _, l := range lines {
			if len(l.Text) > resource.OutputLineLimit {
				return "", fmt.Errorf("a line of %d bytes", len(l.Text))
			}
		}
		return "", bounded.ErrLong
	}},
	{"what a check's command prints", "programs", resource.CheckOutput, "resource.CheckOutput", "only the end is kept", func(t *testing.T, long string) (string, error) {
		tail := bounded.Tail{Limit: resource.CheckOutput}
		text, err := os.ReadFile(long)
		if err == nil {
			_, err = tail.Write(append(text, "the end"...))
		}
		if err != nil || len(tail.Bytes()) != resource.CheckOutput || !bytes.HasSuffix(tail.Bytes(), []byte("the end")) {
			return "", fmt.Errorf("%d bytes, %w", len(tail.Bytes()), err)
		}
		return "", bounded.ErrLong
	}},
	{"an answer of an agent, to commands and to other nodes", "agents", api.AnswerLimit, "api.AnswerLimit", "an error", func(t *testing.T, long string) (string, error) {
		socket := filepath.Join(t.TempDir(), "socket")
		l, err := net.Listen("unix", socket)
		if err != nil {
			return "", err
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/proto")
			f, err := os.Open(long)
			if err != nil {
				return
			}
			defer f.Close()
			_, _ = io.Copy(w, f)
		})}
		go server.Serve(l)
		defer server.Close()
		agent := api.Dial(socket)
		defer agent.Close()
		_, err = agent.Status(t.Context(), &batonv1.StatusRequest{})
		if connect.CodeOf(err) == connect.CodeResourceExhausted {
			err = bounded.ErrLong
		}
		return "", err
	}},
}

// Each reader is given one byte more than its bound, and then a few times as much: it holds none of it, and says so.
func TestEveryReaderBeyondItsBound(t *testing.T) {
	for _, r := range readers {
		t.Run(r.what, func(t *testing.T) {
			for _, size := range []int{r.limit + 1, 3 * r.limit} {
				long := filepath.Join(t.TempDir(), "long.left")
				if err := os.WriteFile(long, bytes.Repeat([]byte("x"), size), 0o600); err != nil {
					t.Fatal(err)
				}
				got, err := r.try(t, long)
				if err == nil || got != "" || !errors.Is(err, bounded.ErrLong) && !strings.Contains(err.Error(), "too long") {
					t.Errorf("%d bytes, bound %d: got %d bytes, %v", size, r.limit, len(got), err)
				}
			}
		})
	}
}

// readerDocs is the table of readers.
func readerDocs(*testing.T) string {
	rows := [][]string{{"what is read", "whose", "bound", "name", "beyond it"}}
	for _, r := range readers {
		size := fmt.Sprintf("%d KiB", r.limit>>10)
		if r.limit >= 1<<20 {
			size = fmt.Sprintf("%d MiB", r.limit>>20)
		}
		rows = append(rows, []string{r.what, r.whose, size, "`" + r.name + "`", r.beyond})
	}
	return docsTable(rows)
}
