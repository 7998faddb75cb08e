package trial

import (
	"context"
	"os"
	"testing"
	"time"
)

func TestScratch(t *testing.T) {
	if os.Getenv("SCRATCH") == "" {
		t.Skip()
	}
	c := start(t, Options{Takeover: "250ms"})
	ctx := context.Background()
	for _, args := range [][]string{{"status"}, {"history"}, {"explain", "web"}, {"switch", "web", "--dry-run"}, {"switch", "web"}, {"status"}, {"switch", "web", "--to", "gamma"}, {"failback", "web"}, {"version"}} {
		out, err := c.Run(ctx, Beta, args...)
		t.Logf("baton %v: %v\n%s", args, err, out)
	}
	a := c.Agent(Alpha)
	a.Process().Kill()
	time.Sleep(time.Second)
	out, err := c.Run(ctx, Beta, "history")
	t.Logf("%v %s", err, out)
	b, _ := os.ReadFile(c.Host(Alpha).LogPath("agent"))
	t.Logf("%s", b)
}
