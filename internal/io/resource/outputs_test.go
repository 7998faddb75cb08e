package resource

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// outputs watches one resource's output in a directory of its own. It awaits that all that is told is the wanted text: a
// line is kept before it is told.
func outputs(t *testing.T, before string) (o *Outputs, file *os.File, awaitTold func(want string)) {
	t.Helper()
	env := Env{Group: "web", Spec: cluster.ResourceSpec{ID: "app"}, RunDir: t.TempDir()}
	if before != "" {
		if err := os.WriteFile(Output(env), []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var all []string
	more := make(chan struct{}, 1)
	o, err := NewOutputs(func(g cluster.GroupID, r cluster.ResourceID, text string) {
		mu.Lock()
		all = append(all, fmt.Sprintf("%s/%s %s", g, r, text))
		mu.Unlock()
		select {
		case more <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	if err := o.Watch(env); err != nil {
		t.Fatal(err)
	}
	file, err = os.OpenFile(filepath.Join(env.RunDir, "output.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return o, file, func(want string) {
		t.Helper()
		for deadline := time.After(patience); ; {
			mu.Lock()
			got := strings.Join(all, "; ")
			mu.Unlock()
			if got == want {
				return
			}
			select {
			case <-more:
			case <-deadline:
				t.Fatalf("told %q, want %q", got, want)
			}
		}
	}
}

func texts(lines []OutputLine) string {
	var out []string
	for _, l := range lines {
		out = append(out, l.Text)
	}
	return strings.Join(out, "; ")
}

// awaitLines waits until the lines kept from a number on are the wanted ones.
func awaitLines(t *testing.T, o *Outputs, from uint64, want string) (lines []OutputLine, next uint64) {
	t.Helper()
	deadline := time.After(patience)
	for {
		changed := o.Changed()
		if lines, next = o.Next("web", "app", from); texts(lines) == want {
			return lines, next
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("got %q, want %q", texts(lines), want)
		}
	}
}

func TestOutputIsFollowed(t *testing.T) {
	o, file, awaitTold := outputs(t, "from before\nand")
	write := func(s string) {
		t.Helper()
		if _, err := file.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	lines, next := awaitLines(t, o, 0, "from before")
	if !lines[0].Time.IsZero() {
		t.Error("a line from before has a time")
	}
	start := time.Now()
	write(" more\n\nnot \xff UTF-8\nhalf")
	lines, next = awaitLines(t, o, next, "and more; ; not \uFFFD UTF-8")
	if at := lines[0].Time; at.Before(start) || time.Since(at) > time.Minute {
		t.Errorf("seen at %v", at)
	}
	write(" a line\n")
	_, next = awaitLines(t, o, next, "half a line")
	if _, err := cut(file.Name(), 0, 100); err != nil { // as when the file has grown too long
		t.Fatal(err)
	}
	write("after the cut\n")
	awaitLines(t, o, next, "after the cut")
	awaitTold("web/app and more; web/app ; web/app not \uFFFD UTF-8; web/app half a line; web/app after the cut")
	if !o.Has("web", "app") || o.Has("web", "other") {
		t.Error("it does not know what it has")
	}
	o.Forget("web", "app")
	if lines, _ := o.Next("web", "app", 0); lines != nil {
		t.Errorf("kept %q", texts(lines))
	}
}

// What is kept is bounded, whatever a program prints; the newest stays.
func TestOutputIsBounded(t *testing.T) {
	o, file, _ := outputs(t, "")
	for i := range 3 {
		if _, err := file.WriteString(strings.Repeat("x", 3*OutputLineLimit) + strings.Repeat("\n", 2*outputLines) + fmt.Sprintf("end %d\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(patience)
	for {
		lines, _ := o.Next("web", "app", 0)
		size := 0
		for _, l := range lines {
			size += len(l.Text)
			if len(l.Text) > OutputLineLimit {
				t.Fatalf("a line of %d bytes", len(l.Text))
			}
		}
		if len(lines) > outputLines || size > outputBytes {
			t.Fatalf("%d lines of %d bytes are kept", len(lines), size)
		}
		if len(lines) > 0 && lines[len(lines)-1].Text == "end 2" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the end is not among %d lines", len(lines))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A program that prints as fast as it can is cut again and again, on a file system with room for little, and what comes
// last is kept. Where that is full, cutting still works.
func TestFloodIsCut(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatalf("mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	const limit = 256 << 10
	env := Env{Group: "web", RunDir: t.TempDir(), OutputDir: filepath.Join(dir, "web"), OutputLimit: limit}
	env.Spec.ID = "app"
	if err := os.Mkdir(env.OutputDir, 0o711); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(Output(env), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line := []byte(strings.Repeat("x", 199) + "\n")
	for err == nil {
		_, err = f.Write(line)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	o, err := NewOutputs(func(cluster.GroupID, cluster.ResourceID, string) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	if err := o.Watch(env); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		_, _ = f.Write(line) // it may be full until it is cut
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		fmt.Fprintln(f, "the end") // again, since it may still be full
		lines, _ := o.Next("web", "app", 0)
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() <= limit && len(lines) > 0 && lines[len(lines)-1].Text == "the end" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes, limit %d, %d lines", info.Size(), limit, len(lines))
		}
	}
}
