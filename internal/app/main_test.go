package app

import (
	"os"
	"testing"
	"time"
)

// TestMain has everything show times in UTC, whatever the machine's zone: they stand in goldens. It is set once,
// before any server runs that reads it.
func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}
