package trial

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// manyGroups is how many groups TestManyGroups has, unless BATON_MANY is another number: a machine of two cores that
// runs other tests beside starts 500 programs in a minute. `make bench-many` measures 500.
const manyGroups = 150

// Many groups of one process and one address on three nodes: all serve; one of two links dead moves nothing; power loss
// of their owner takes all of them elsewhere.
func TestManyGroups(t *testing.T) {
	groups := manyGroups
	if n, err := strconv.Atoi(os.Getenv("BATON_MANY")); err == nil {
		groups = n
	}
	ctx := t.Context()
	m, err := NewMany("many", 3, groups, 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	must := func(err error) {
		t.Helper()
		if err == nil {
			return
		}
		for _, n := range m.Nodes {
			text, _ := os.ReadFile(m.Lab.Host(n).LogPath("agent"))
			t.Logf("%s:\n%s", n, text[max(0, len(text)-4000):])
		}
		t.Fatal(err)
	}
	began := time.Now()
	must(m.AwaitAll(ctx, "n3", "n1", time.Minute))
	t.Logf("all serve after %v", time.Since(began))
	asker, err := m.Ask(ctx)
	must(err)
	defer asker.Stop()
	before, took, err := m.Status(ctx, "n3")
	must(err)
	t.Logf("status took %v", took)
	must(m.Lab.CutSilent("n1", Cross))
	time.Sleep(5 * time.Second)
	must(m.Lab.Heal("n1", Cross))
	after, _, err := m.Status(ctx, "n3")
	must(err)
	for i := range before.Groups {
		if a, b := before.Groups[i], after.Groups[i]; a.Owner != b.Owner || a.Epoch != b.Epoch {
			t.Errorf("%s moved from %s, epoch %s, to %s, epoch %s, as one of two links died", a.Name, a.Owner, a.Epoch, b.Owner, b.Epoch)
		}
	}
	asker.Forget()
	must(m.Lab.Host("n1").PowerOff())
	must(m.AwaitAll(ctx, "n3", "n2", time.Minute))
	time.Sleep(10 * askEvery)
	var worst time.Duration
	for g := range groups {
		worst = max(worst, asker.Gap(m.Address(g)))
	}
	t.Logf("the longest outage is %v", worst)
	if worst > 30*time.Second {
		t.Errorf("a group was not served for %v", worst)
	}
}
