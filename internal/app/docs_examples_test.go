package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shownFiles are all pages and examples that people copy from.
func shownFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"README.md", "examples/*", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(docsRoot, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: nothing there: %v", pattern, err)
		}
		files = append(files, found...)
	}
	return files
}

// A web server publishes where it is started, and programs start in / unless told otherwise: whatever is shown names
// a directory that is meant to be public.
func TestShownServersPublishADirectory(t *testing.T) {
	servers := 0
	for _, name := range shownFiles(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, "http.server") {
				continue
			}
			servers++
			if !strings.Contains(line, "--directory") {
				t.Errorf("%s publishes the working directory, which is /: %s", name, line)
			}
		}
	}
	if servers < 4 {
		t.Errorf("%d web servers are shown: this looks at nothing", servers)
	}
}
