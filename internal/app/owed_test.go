package app

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
	"baton/internal/io/disk"
	"baton/internal/io/gate"
)

// faultyGate is a gate that refuses some groups and keeps what the others were told.
type faultyGate struct {
	noGate
	faults map[cluster.GroupID]error
	held   map[cluster.GroupID]cluster.Epoch // open ones
	calls  int
}

func (g *faultyGate) Set(id cluster.GroupID, epoch cluster.Epoch, deadline int64) error {
	g.calls++
	if err := g.faults[id]; err != nil {
		return err
	}
	if delete(g.held, id); deadline != 0 {
		g.held[id] = epoch
	}
	return nil
}

// owingAgent is an agent without a core, links or resources, for what it owes.
func owingAgent(t *testing.T) (*agent, *faultyGate, *strings.Builder) {
	t.Helper()
	g := &faultyGate{faults: make(map[cluster.GroupID]error), held: make(map[cluster.GroupID]cluster.Epoch)}
	log := new(strings.Builder)
	a := &agent{self: "a", gate: g, log: slog.New(slog.NewTextHandler(log, nil)), gates: make(map[cluster.GroupID]cluster.Gate), fitting: newFitting(),
		spec: specOf(t, "3s", "", program("web", "true", 7001)+program("db", "true", 7002))}
	a.observe()
	var err error
	if a.run, err = openRunDir(tmpfsDir(t)); err != nil {
		t.Fatal(err)
	}
	a.clock.now()
	return a, g, log
}

// words puts answers to the core into a line.
func words(answers []node.Input) (text string) {
	for _, in := range answers {
		text += fmt.Sprintf("%T%+v ", in, in)
	}
	return strings.NewReplacer("*node.", "", "&", "").Replace(strings.TrimSpace(text))
}

// A close of one group fails, and the renewal of another goes well: the close counts as not done. Once it is done,
// all is answered up to the newest.
func TestFailedCloseIsNotAnswered(t *testing.T) {
	a, g, log := owingAgent(t)
	later := a.clock.now().Mono.Add(time.Hour)
	if n := a.writeGates([]cluster.Gate{{N: 1, Group: "web", Epoch: 4, End: later}, {N: 2, Group: "db", Epoch: 7, End: later}}); n != 2 {
		t.Fatalf("both are open: answered up to %d", n)
	}
	g.faults["web"] = errors.New("no buffer")
	if n := a.writeGates([]cluster.Gate{{N: 3, Group: "web", Epoch: 4}, {N: 4, Group: "db", Epoch: 7, End: later}}); n != 0 {
		t.Errorf("the gate of web is open, and everything up to %d is said to be done", n)
	}
	if n := a.writeGates([]cluster.Gate{{N: 5, Group: "db", Epoch: 7, End: later}}); n != 0 {
		t.Errorf("the gate of web is open, and everything up to %d is said to be done", n)
	}
	now := a.clock.now().Mono
	if wait := a.owed.wake().Sub(now); wait > retryPromptly {
		t.Errorf("it is tried again after %v", wait)
	}
	calls := g.calls
	for range 100 {
		if answers := a.tryAgain(a.owed.wake()); len(answers) != 0 {
			t.Fatalf("it still fails, and is answered by %s", words(answers))
		}
	}
	if g.calls != calls+100 || g.held["web"] != 4 {
		t.Errorf("%d tries; open: %v", g.calls-calls, g.held)
	}
	if n := strings.Count(log.String(), "can't be written"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log)
	}
	delete(g.faults, "web")
	if early := a.tryAgain(a.owed.wake() - 1); len(early) != 0 {
		t.Errorf("tried before its time: %s", words(early))
	}
	if got := words(a.tryAgain(a.owed.wake())); got != "Gated{N:5}" {
		t.Errorf("the gate of web is closed now: %q", got)
	}
	if _, open := g.held["web"]; open || a.owed.wake() != cluster.Never || !strings.Contains(log.String(), "can be written again") {
		t.Errorf("open: %v, tried again at %d:\n%s", g.held, a.owed.wake(), log)
	}
	if n := a.writeGates([]cluster.Gate{{N: 6, Group: "db", Epoch: 7}}); n != 6 {
		t.Errorf("answered up to %d", n)
	}
}

// Of a group's writes that fail the newest is tried again, and the first holds up the answers.
func TestNewestGateIsTriedAgain(t *testing.T) {
	a, g, _ := owingAgent(t)
	later := a.clock.now().Mono.Add(time.Hour)
	g.faults["web"] = errors.New("no buffer")
	a.writeGates([]cluster.Gate{{N: 1, Group: "web", Epoch: 4, End: later}, {N: 2, Group: "db", Epoch: 1}})
	a.writeGates([]cluster.Gate{{N: 3, Group: "web", Epoch: 4}})
	g.faults["db"] = errors.New("no buffer")
	if n := a.writeGates([]cluster.Gate{{N: 4, Group: "db", Epoch: 1, End: later}}); n != 0 {
		t.Errorf("answered up to %d", n)
	}
	delete(g.faults, "web")
	if got := words(a.tryAgain(a.owed.wake())); got != "Gated{N:3}" {
		t.Errorf("web is closed and db is not open: %q", got)
	}
	if _, open := g.held["web"]; open {
		t.Error("an older write of web was done after the newest")
	}
}

// A deadline that can't be translated anew is tried again, and holds up nothing: what was asked for is in the kernel.
func TestRefreshHoldsUpNothing(t *testing.T) {
	a, g, _ := owingAgent(t)
	now := a.clock.now().Mono
	a.writeGates([]cluster.Gate{{N: 1, Group: "web", Epoch: 4, End: now.Add(time.Hour)}})
	g.faults["web"] = errors.New("no buffer")
	a.refreshGates(now)
	if a.owed.wake() == cluster.Never {
		t.Error("it is not tried again")
	}
	if n := a.writeGates([]cluster.Gate{{N: 2, Group: "db", Epoch: 1}}); n != 2 {
		t.Errorf("answered up to %d", n)
	}
	if n := a.writeGates([]cluster.Gate{{N: 3, Group: "web", Epoch: 4}}); n != 0 {
		t.Errorf("a close failed, and everything is answered up to %d", n)
	}
	g.faults["web"] = gate.ErrStaleEpoch // which says of a close that it is shut
	if got := words(a.tryAgain(a.owed.wake())); got != "Gated{N:3}" {
		t.Errorf("%q", got)
	}
}

// A run record that can't be written is tried again, the newest only.
func TestFailedRecordIsTriedAgain(t *testing.T) {
	a, _, log := owingAgent(t)
	dir := a.run.path
	if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil { // it can't be made anew
		t.Fatal(err)
	}
	if n := a.writeRecord(&node.Record{N: 1, Record: cluster.Record{Boot: 5, Number: 1}}); n != 0 {
		t.Errorf("answered %d", n)
	}
	a.writeRecord(&node.Record{N: 2, Record: cluster.Record{Boot: 5, Number: 2}})
	for range 50 {
		if answers := a.tryAgain(a.owed.wake()); len(answers) != 0 {
			t.Fatalf("it still fails, and is answered by %s", words(answers))
		}
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if got := words(a.tryAgain(a.owed.wake())); got != "Recorded{N:2}" {
		t.Errorf("%q", got)
	}
	r, err := a.run.load(5)
	if err != nil || r == nil || r.Number != 2 || a.owed.wake() != cluster.Never || strings.Count(log.String(), "can't be written") != 1 {
		t.Errorf("%+v, %v, tried again at %d:\n%s", r, err, a.owed.wake(), log)
	}
}

// The run record can be written on a full file system, and after that directory, record or spare were deleted.
func TestRecordOnAFullFileSystem(t *testing.T) {
	a, _, log := owingAgent(t)
	dir := filepath.Join(t.TempDir(), "run")
	if err := errors.Join(os.Mkdir(dir, 0o755), unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k")); err != nil {
		t.Fatalf("mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	run := filepath.Join(dir, "baton")
	var err error
	if a.run, err = openRunDir(run); err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	writes := func(want bool) {
		t.Helper()
		n++
		r := cluster.Record{Boot: 5, Number: cluster.Number(n), Groups: map[cluster.GroupID]cluster.GroupRecord{}}
		for i := range 40 {
			r.Groups[cluster.GroupID(fmt.Sprintf("%060d", i))] = cluster.GroupRecord{Activated: 1 << 40, Released: []cluster.Epoch{1 << 40, 1<<40 + cluster.Epoch(n)}}
		}
		if done := a.writeRecord(&node.Record{N: n, Record: r}) == n; done != want {
			t.Fatalf("write %d: done %v, want %v\n%s", n, done, want, log)
		}
		if got, err := a.run.load(5); want && (err != nil || got == nil || got.Number != cluster.Number(n)) {
			t.Fatalf("write %d is read as %+v, %v", n, got, err)
		}
	}
	ballast := filepath.Join(dir, "ballast")
	fill := func() {
		t.Helper()
		if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	if err := a.run.reserve(40); err != nil {
		t.Fatal(err)
	}
	fill()
	for range 20 {
		writes(true)
	}
	for _, path := range []string{run, a.run.record, a.run.record + ".new"} {
		os.Remove(ballast)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		writes(true)
		if err := a.run.reserve(40); err != nil {
			t.Fatal(err)
		}
		fill()
		writes(true)
	}
	if err := os.RemoveAll(run); err != nil {
		t.Fatal(err)
	}
	fill()
	writes(false)
	os.Remove(ballast)
	writes(true)
}

// The renewals of one group fail over and over, and nothing of the other's failed close is put off by that.
func TestFailuresDoNotPutOffOthers(t *testing.T) {
	a, g, _ := owingAgent(t)
	later := a.clock.now().Mono.Add(time.Hour)
	a.writeGates([]cluster.Gate{{N: 1, Group: "web", Epoch: 4, End: later}, {N: 2, Group: "db", Epoch: 7, End: later}})
	g.faults["web"], g.faults["db"] = errors.New("no buffer"), errors.New("no buffer")
	a.writeGates([]cluster.Gate{{N: 3, Group: "web", Epoch: 4}})
	due := a.owed.wake()
	time.Sleep(retryPromptly) // so that a plan of now is a later one
	for n := range uint64(5) {
		a.writeGates([]cluster.Gate{{N: 4 + n, Group: "db", Epoch: 7, End: later}})
	}
	if a.owed.wake() != due {
		t.Errorf("it is tried again at %d, was to be at %d", a.owed.wake(), due)
	}
	delete(g.faults, "web")
	if got := words(a.tryAgain(due)); got != "Gated{N:3}" {
		t.Errorf("web can be closed now: %q", got)
	}
	if _, open := g.held["web"]; open {
		t.Error("web is open")
	}
}

// What goes on failing is tried each heartbeat interval, not each few milliseconds.
func TestPaceOfTryingAgain(t *testing.T) {
	var o retry
	const h = 100 * time.Millisecond
	var waits []time.Duration
	now := cluster.Instant(time.Second)
	for range 30 {
		o.failed(now, h)
		waits = append(waits, o.again.Sub(now))
		now = o.again
	}
	if waits[0] != retryPromptly || waits[19] != retryPromptly || waits[20] != h || slices.Max(waits) != h {
		t.Errorf("%v", waits)
	}
}

// A disk that was full, or failed, and takes writes again needs no restart.
func TestWriteWaitsForTheDisk(t *testing.T) {
	for _, fault := range []error{unix.ENOSPC, unix.EIO} {
		t.Run(fault.Error(), func(t *testing.T) { testWriteWaits(t, fault) })
	}
}

func testWriteWaits(t *testing.T, fault error) {
	a, _, log := owingAgent(t)
	var full atomic.Bool
	store, _, err := disk.Open(t.TempDir(), disk.Options{WriteHook: func() error {
		if full.Load() {
			return fault
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if a.inbox, err = newInbox(false); err != nil {
		t.Fatal(err)
	}
	a.store, a.persists, a.ended = store, make(chan cluster.Persist, 8), make(chan struct{})
	stored := func() (n uint64) {
		a.inbox.mu.Lock()
		defer a.inbox.mu.Unlock()
		for _, in := range a.inbox.inputs {
			if s, ok := in.(*node.Stored); ok {
				n = s.N
			}
		}
		return n
	}
	full.Store(true)
	a.disk.Go(a.writeDisk)
	for n := range uint64(3) {
		a.persists <- cluster.Persist{N: n + 1, Entries: []cluster.LogEntry{{Index: n + 1, Term: 1}}, Sync: true}
	}
	time.Sleep(3 * writeAgain)
	if n := stored(); n != 0 {
		t.Errorf("the disk is full, and %d is stored", n)
	}
	full.Store(false)
	for deadline := time.Now().Add(20 * time.Second); stored() != 3; time.Sleep(writeAgain / 10) {
		if time.Now().After(deadline) {
			t.Fatalf("there is room, and %d is stored", stored())
		}
	}
	full.Store(true) // an agent that ends does not wait
	a.persists <- cluster.Persist{N: 4, Entries: []cluster.LogEntry{{Index: 4, Term: 1}}, Sync: true}
	close(a.ended)
	close(a.persists)
	a.disk.Wait()
	if n := strings.Count(log.String(), "until it can"); n < 1 || n > 2 || !strings.Contains(log.String(), "can be written again") {
		t.Errorf("the log:\n%s", log)
	}
}
