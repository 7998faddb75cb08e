package bounded

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReadFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, bytes.Repeat([]byte("x"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(name, 100); err != nil || len(b) != 100 {
		t.Errorf("at its limit: %d bytes, %v", len(b), err)
	}
	if b, err := ReadFile(name, 99); !errors.Is(err, ErrLong) || b != nil || !strings.Contains(err.Error(), name) {
		t.Errorf("beyond its limit: %d bytes, %v", len(b), err)
	}
	if _, err := ReadFile("/dev/zero", Small); !errors.Is(err, ErrLong) {
		t.Errorf("a file without end: %v", err)
	}
	if _, err := ReadFile(name+"x", 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestOutput(t *testing.T) {
	if b, err := Output(exec.Command("echo", "hello"), 6); err != nil || string(b) != "hello\n" {
		t.Errorf("%q, %v", b, err)
	}
	start := time.Now()
	if b, err := Output(exec.Command("yes"), 1000); !errors.Is(err, ErrLong) || b != nil || time.Since(start) > 10*time.Second {
		t.Errorf("%d bytes, %v after %v", len(b), err, time.Since(start))
	}
	if _, err := Output(exec.Command("false"), 1000); err == nil {
		t.Error("the command failed, and that is not told")
	}
}

func TestTail(t *testing.T) {
	tail := Tail{Limit: 10}
	for range 1000 {
		tail.Write([]byte("abcdefg"))
	}
	tail.Write([]byte("the end"))
	if string(tail.Bytes()) != "efgthe end" || cap(tail.kept) > 100 {
		t.Errorf("%q, in room for %d", tail.Bytes(), cap(tail.kept))
	}
	tail.Write(bytes.Repeat([]byte("0123456789"), 100))
	if string(tail.Bytes()) != "0123456789" || cap(tail.kept) > 100 {
		t.Errorf("%q, in room for %d", tail.Bytes(), cap(tail.kept))
	}
}

func TestReadLine(t *testing.T) {
	r := bufio.NewReaderSize(strings.NewReader("short\n"+strings.Repeat("x", 100)+"\nafter it\nlast"), 16)
	for _, want := range []struct {
		line string
		err  error
	}{{"short\n", nil}, {"", ErrLong}, {"after it\n", nil}, {"last", io.EOF}} {
		if line, err := ReadLine(r, 50); string(line) != want.line || !errors.Is(err, want.err) {
			t.Errorf("%q, %v; want %q, %v", line, err, want.line, want.err)
		}
	}
}
