package trial

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestZZStart(t *testing.T) {
	for i := range 40 {
		c, err := New("zz", Options{Takeover: "250ms"})
		if err != nil {
			t.Fatal(err)
		}
		if err = c.AwaitServing(Alpha, 4*time.Second); err != nil {
			b, e := exec.Command("chrt", "-f", "90", "sh", "/tmp/diag.sh").CombinedOutput()
			time.Sleep(time.Second)
			for _, n := range Nodes {
				l, _ := os.ReadFile(c.Host(n).LogPath("agent"))
				t.Logf("%s", l[:min(len(l), 9000)])
			}
			t.Logf("%d %v\n%s%v", i, err, b, e)
			c.Close()
			return
		}
		c.Close()
	}
}
