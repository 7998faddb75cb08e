package sim

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
)

// More seeds by hand: go test ./internal/sim -run Seeds -seeds 5000
var seedCount = flag.Uint64("seeds", 40, "how many seeds of each profile TestSeeds runs")

// TestSeeds runs a fixed set of seeds of every profile: all invariants hold.
func TestSeeds(t *testing.T) {
	for _, profile := range []string{"mix", "short", "forming", "takeover", "still", "people", "members", "changes", "snapshots", "storms", "disks",
		"surroundings", "healthy"} {
		t.Run(profile, func(t *testing.T) {
			last := *seedCount
			switch profile {
			case "healthy":
				last = 2
			case "changes":
				last /= 4 // its runs are long
			case "surroundings":
				last /= 8
			}
			total, failed, err := Range(1, last, profile, Options{}, 1)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s", total.String())
			for _, f := range failed {
				p, err := Generate(f.Seed, profile)
				if err != nil {
					t.Fatal(err)
				}
				small, v := Shrink(p, Options{})
				t.Errorf("seed %d: %v\nmade smaller:\n%s\n%s%v", f.Seed, f.Violation, small.Script(), Tail(small, Options{}, 40), v)
			}
		})
	}
}

// TestEqualSeeds: a run follows from its plan alone, also through the plan's text form.
func TestEqualSeeds(t *testing.T) {
	for _, profile := range []string{"short", "forming", "takeover", "still", "members"} {
		for seed := uint64(1); seed <= 6; seed++ {
			p, err := Generate(seed, profile)
			if err != nil {
				t.Fatal(err)
			}
			first, err := RunPlan(p, Options{})
			if err != nil {
				t.Fatal(err)
			}
			again, err := Run(seed, profile, Options{Trace: new(ring0), Packets: true})
			if err != nil {
				t.Fatal(err)
			}
			read, err := Parse(p.Script())
			if err != nil {
				t.Fatalf("seed %d of %s: its script can't be read: %v\n%s", seed, profile, err, p.Script())
			}
			text, err := RunPlan(read, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if first.Hash != again.Hash || first.Hash != text.Hash {
				t.Errorf("seed %d of %s: hashes %x, again and traced %x, from its script %x", seed, profile, first.Hash, again.Hash, text.Hash)
			}
			if first.Counts.Steps < 100 {
				t.Errorf("seed %d of %s: only %d steps", seed, profile, first.Counts.Steps)
			}
		}
	}
}

// ring0 takes a trace and keeps nothing.
type ring0 struct{}

func (*ring0) Write(b []byte) (int, error) { return len(b), nil }

// TestCodec: what travels between nodes, encoded and decoded, leads to the same run as what was handed over.
func TestCodec(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		p, err := Generate(seed, "short")
		if err != nil {
			t.Fatal(err)
		}
		p.Codec = false
		plain, err := RunPlan(p, Options{})
		if err != nil {
			t.Fatal(err)
		}
		p.Codec = true
		coded, err := RunPlan(p, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if plain.Hash != coded.Hash {
			t.Errorf("seed %d: the hash is %x with messages passed as they are, %x through the codec", seed, plain.Hash, coded.Hash)
		}
	}
}

var update = flag.Bool("update", false, "write into each script of testdata what its run comes to")

// TestScripts runs the scripts written by hand: all invariants hold, and the outcome is that which stands in them.
func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.script")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".script"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			p := readScript(t, path)
			r, err := RunPlan(p, Options{Outcome: true})
			if err != nil {
				t.Fatal(err)
			}
			if r.Violation != nil {
				t.Fatalf("%v\n%s", r.Violation, Tail(p, Options{}, 60))
			}
			script, outcome, _ := strings.Cut(string(text), outcomeMark+"\n")
			if *update {
				if err := os.WriteFile(path, []byte(strings.TrimRight(script, "\n")+"\n"+outcomeMark+"\n"+r.Outcome), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if outcome != r.Outcome {
				t.Errorf("the outcome is\n%s\nand not\n%s\n(-update writes it into the script)", r.Outcome, outcome)
			}
		})
	}
}

// TestAlteredPulse: a heartbeat that says something new acts at once, long before silence would.
func TestAlteredPulse(t *testing.T) {
	for _, c := range []struct {
		script, event string
		from, to      time.Duration // true time; the fault comes at 12 s (new-boot: 40 s), silence would be noticed 8.9 s later
	}{
		{"new-boot", "evict alpha#1", 40300 * time.Millisecond, 41 * time.Second},
		{"uplink", "gate of web opens (epoch 2", 12 * time.Second, 12100 * time.Millisecond},
		{"sick", "gate of web opens (epoch 2", 21 * time.Second, 33 * time.Second}, // an idle node tries its disk each L = 9.9 s, and is sick after L
	} {
		var trace strings.Builder
		if _, err := RunPlan(readScript(t, "testdata/"+c.script+".script"), Options{Trace: &trace}); err != nil {
			t.Fatal(err)
		}
		at := time.Duration(-1)
		for line := range strings.Lines(trace.String()) {
			if strings.Contains(line, c.event) {
				seconds, err := strconv.ParseFloat(strings.Fields(line)[0], 64)
				if err != nil {
					t.Fatal(err)
				}
				at = time.Duration(seconds * float64(time.Second))
				break
			}
		}
		if at < c.from || at > c.to {
			t.Errorf("%s: %q at %v, want it between %v and %v\n%s", c.script, c.event, at, c.from, c.to, trace.String())
		}
	}
}

func readScript(t *testing.T, path string) *Plan {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return p
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"nodes a b c\nat 1s explode a\nrun 1s", `unknown verb "explode"`},
		{"nodes a b c\nat 1s power d\nrun 1s", `no node "d"`},
		{"nodes a b c\nat 1s power a for soon\nrun 1s", "soon"},
		{"nodes a b c\nat 1s boot a\nrun 1s", "nothing to end"},
		{"nodes a b c\nat 1s loss lan\nrun 1s", "percentage"},
		{"nodes a b c\nat 1s slowdisk a -3ms\nrun 1s", "length of time"},
		{"nodes a b c\nat 1s starve a 20ms\nrun 1s", "two lengths of time"},
		{"nodes a b c\nat 1s mtu lan\nrun 1s", "number of bytes"},
		{"nodes a b c\nat 1s cut a\nrun 1s", "a name is missing"},
		{"nodes a b c\nat 1s loss cross 10%\nrun 1s", "1 links"},
		{"nodes a b\nrun 1s", "3 to 16 nodes"},
		{"nodes a b:king c\nrun 1s", "king"},
		{"flavour vanilla", "unknown word"},
		{"takeover", "arguments are missing"},
	} {
		if _, err := Parse(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want one with %q", c.text, err, c.want)
		}
	}
}

// TestQueue compares the heap with sorting.
func TestQueue(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var q queue
	var want []event
	for range 5000 {
		if r.IntN(3) > 0 || len(want) == 0 {
			e := event{at: r.Int64N(100)}
			q.push(e)
			e.seq = q.seq
			want = append(want, e)
			continue
		}
		first := 0
		for i := range want {
			if want[i].before(&want[first]) {
				first = i
			}
		}
		got, _ := q.pop()
		if got != want[first] {
			t.Fatalf("popped %v, want %v", got, want[first])
		}
		want = slices.Delete(want, first, first+1)
	}
}

// TestClock: a clock never goes back, and `when` is the first instant at which it reads what was asked.
func TestClock(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		c := clock{base: r.Int64N(1 << 40), ppm: r.Int64N(2*cluster.DriftMaxPPM+1) - cluster.DriftMaxPPM}
		now := r.Int64N(1 << 35)
		before := c.read(now)
		c.bend(now, r.Int64N(2*cluster.DriftMaxPPM+1)-cluster.DriftMaxPPM)
		if c.read(now) != before {
			t.Fatalf("bending a clock moved it from %d to %d", before, c.read(now))
		}
		x := before + cluster.Instant(r.Int64N(1<<35))
		at := c.when(x)
		if c.read(at) < x || at > now && c.read(at-1) >= x {
			t.Fatalf("clock %+v reads %d at %d, asked when it reads %d", c, c.read(at), at, x)
		}
	}
	c := clock{}
	if c.when(cluster.Never) != far {
		t.Errorf("Never comes")
	}
}

// TestDisk: what survives is always a first part of what was written, and whole writes.
func TestDisk(t *testing.T) {
	write := func(n uint64, sync bool, index uint64) cluster.Persist {
		return cluster.Persist{N: n, Sync: sync, Entries: []cluster.LogEntry{{Index: index, Term: n}}}
	}
	full := func() *disk {
		d := &disk{}
		d.submit(write(1, true, 1))
		d.begin()
		if n := d.finish(); n != 1 {
			t.Fatalf("finished %d, want 1", n)
		}
		d.submit(write(2, false, 2))
		d.begin()
		d.finish()
		d.submit(write(3, true, 3))
		d.submit(write(4, true, 3)) // replaces entry 3
		d.begin()
		return d
	}
	indexes := func(d *disk) (out []uint64) {
		for _, e := range d.read().Entries {
			out = append(out, e.Index*10+e.Term)
		}
		return out
	}
	for n, want := range [][]uint64{{11}, {11, 22}, {11, 22, 33}, {11, 22, 34}} {
		d := full()
		d.off(n)
		if got := indexes(d); !reflect.DeepEqual(got, want) {
			t.Errorf("power loss keeping %d unsynced writes: log %v, want %v", n, got, want)
		}
	}
	for n, want := range [][]uint64{{11, 22}, {11, 22, 33}, {11, 22, 34}} {
		d := full()
		d.killed(n)
		if got := indexes(d); !reflect.DeepEqual(got, want) {
			t.Errorf("kill keeping %d unanswered writes: log %v, want %v", n, got, want)
		}
	}
	d := full()
	d.finish()
	same := cluster.Persist{Snapshot: &cluster.Snapshot{Index: 2, Term: 2}}
	carryOut(&d.image, &same)
	if got := indexes(d); !reflect.DeepEqual(got, []uint64{34}) {
		t.Errorf("a snapshot of this log's past leaves %v, want entry 3", got)
	}
	other := cluster.Persist{Snapshot: &cluster.Snapshot{Index: 3, Term: 9}}
	carryOut(&d.image, &other)
	if got := indexes(d); got != nil {
		t.Errorf("a snapshot of another history leaves %v", got)
	}
}

// BenchmarkHealthyCluster: how much of a healthy cluster's time one core simulates in a second.
func BenchmarkHealthyCluster(b *testing.B) {
	p, err := Generate(1, "healthy")
	if err != nil {
		b.Fatal(err)
	}
	began, simulated := time.Now(), time.Duration(0)
	for b.Loop() {
		r, err := RunPlan(p, Options{})
		if err != nil {
			b.Fatal(err)
		}
		simulated += r.Counts.Simulated
	}
	b.ReportMetric(simulated.Seconds()/time.Since(began).Seconds(), "cluster-s/s")
}

// TestNothingPlanted: a binary built without the tag holds no planted bug, whatever it is told.
func TestNothingPlanted(t *testing.T) {
	if cluster.Planted {
		t.Skip("built with the tag: the bugs are here, and mutation_test.go looks at them")
	}
	p := readScript(t, "testdata/isolate.script")
	plain, err := RunPlan(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for m := node.Faithful; m < node.MutationCount; m++ {
		if m == node.FormerSelf {
			continue // it is the simulator's: an empty disk under its former name
		}
		r, err := RunPlan(p, Options{Mutation: m})
		if err != nil || r.Hash != plain.Hash {
			t.Errorf("mutation %d changes the run: hash %x, without it %x (%v)", m, r.Hash, plain.Hash, err)
		}
	}
}
