package trial

import (
	"context"
	"os"
	"testing"
	"time"

	"baton/internal/lab"
)

func TestScratch(t *testing.T) {
	if os.Getenv("SCRATCH") == "" {
		t.Skip()
	}
	c := start(t, Options{Takeover: "1s"})
	ctx := context.Background()
	for i := 0; i < 8; i++ {
		p, err := c.Host(Client).Probe(lab.ProbeConfig{Target: VIP})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		if out, err := c.Run(ctx, Gamma, "switch", "web"); err != nil {
			t.Fatal(out, err)
		}
		time.Sleep(200 * time.Millisecond)
		r := p.Stop()
		t.Logf("switch: outage %v overlap %v", r.Outage().Length(), r.Overlap())
	}
}
