package config

import (
	"os"
	"path/filepath"
	"testing"
)

// TestExamples: every example parses, and an editor finds nothing wrong with it.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../../examples/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("found the examples %v, %v", files, err)
	}
	schema := schemaForTest(t)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := Parse(file, text, testKinds())
		if err != nil {
			t.Error(err)
			continue
		}
		if len(spec.Groups) == 0 || string(spec.Text) != string(text) {
			t.Errorf("%s: no groups, or another text", file)
		}
		if err := conforms(schema, fromYAML(t, text)); err != nil {
			t.Errorf("%s against the schema: %v", file, err)
		}
	}
}
