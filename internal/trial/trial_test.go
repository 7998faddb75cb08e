package trial

import (
	"fmt"
	"os"
	"testing"
	"time"

	"baton/internal/lab"
)

func TestMain(m *testing.M) {
	lab.MaybeInit()
	dir, err := os.MkdirTemp("", "baton-trial")
	if err == nil {
		err = Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// make makes a cluster that serves on alpha.
func start(t *testing.T, opt Options) *Trial {
	t.Helper()
	c, err := New(t.Name(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range Nodes {
				b, _ := os.ReadFile(c.Host(n).LogPath("agent"))
				t.Logf("%s's log:\n%s", n, b)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := c.AwaitServing(Alpha, 15*time.Second); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPowerLoss(t *testing.T) {
	c := start(t, Options{})
	p, err := c.Host(Client).Probe(lab.ProbeConfig{Target: VIP})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if err := c.Host(Alpha).PowerOff(); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitServing(Beta, 10*time.Second); err != nil {
		t.Error(err)
	}
	time.Sleep(300 * time.Millisecond)
	r := p.Stop()
	t.Logf("outage %v, overlap %v, tenures %+v", r.Outage(), r.Overlap(), r.Tenures())
}
