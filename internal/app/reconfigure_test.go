package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/core/node"
	"baton/internal/core/wire"
	"baton/internal/io/disk"
	"baton/internal/io/gate"
	"baton/internal/io/resource"
)

// notingGate is a gate that notes what it is asked for.
type notingGate struct {
	noGate
	mu     sync.Mutex
	guards []string
	shut   []string
	fault  error
}

func (g *notingGate) Guard(groups []gate.Group) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var text []string
	for _, x := range groups {
		text = append(text, fmt.Sprintf("%s%v%v", x.ID, x.Addresses, x.Ports))
	}
	g.guards = append(g.guards, strings.Join(text, " "))
	return g.fault
}

func (g *notingGate) Set(id cluster.GroupID, epoch cluster.Epoch, deadline int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if deadline == 0 {
		g.shut = append(g.shut, fmt.Sprintf("%s %d", id, epoch))
	}
	return nil
}

func (g *notingGate) guarded() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.guards)
}

// fittingRoom is a real agent without a core: the test says what the core would.
type fittingRoom struct {
	*agent
	t     *testing.T
	gate  *notingGate
	boot  node.Boot
	n     uint64
	found map[uint64]cluster.Done
	// fitted are the revisions that the core was told to be carried out.
	fitted []cluster.Revision
}

// specOf reads a file of one node on loopback; groups are lines of YAML below `groups:`.
func specOf(t *testing.T, takeover, links, groups string) *cluster.Spec {
	t.Helper()
	text := "cluster: fit-" + fmt.Sprint(os.Getpid()) + "\ntakeover: " + takeover + "\nnodes:\n  a: { address: 127.0.0.61 }\n  b: { address: 127.0.0.62 }\n  c: { address: 127.0.0.63, role: witness }\n"
	if links != "" {
		text += "links:\n" + links
	}
	text += "groups:\n" + groups
	spec, err := config.Parse("cluster.yaml", []byte(text), Kinds())
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// program is a group with one program and the port that the gate guards for it.
func program(group, command string, port int) string {
	return fmt.Sprintf("  %s:\n    nodes: [a, b]\n    resources:\n      - process: { name: p, command: [sh, -c, %q], user: root, stop_timeout: 5s, ports: [tcp/%d] }\n", group, command, port)
}

func newFittingRoom(t *testing.T, dir string, spec *cluster.Spec) *fittingRoom {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run programs")
	}
	room := &fittingRoom{t: t, gate: &notingGate{}, found: make(map[uint64]cluster.Done)}
	room.agent = &agent{opt: AgentOptions{DataDir: t.TempDir(), RunDir: dir, NoGate: true}, self: "a", ended: make(chan struct{}),
		log: slog.New(slog.NewTextHandler(t.Output(), nil)), replies: make(map[uint64]chan node.Reply),
		gates: make(map[cluster.GroupID]cluster.Gate), persists: make(chan cluster.Persist, 1), fitting: newFitting()}
	a := room.agent
	a.gate, a.spec = room.gate, spec
	a.observe()
	a.shared.Store(spec)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	a.inbox, err = newInbox(false)
	check(err)
	a.store, _, err = disk.Open(a.opt.DataDir, disk.Options{})
	check(err)
	a.run, err = openRunDir(dir)
	check(err)
	a.clock.now()
	check(a.openResources(&room.boot))
	a.access, err = newAccess("a", "", wire.Keys{First: bytes.Repeat([]byte{7}, wire.KeySize)}, a.shared.Load)
	check(err)
	check(a.openLinks(1))
	return room
}

// end lets go of everything, as an agent that is killed; what runs, runs on.
func (r *fittingRoom) end() {
	r.t.Helper()
	if err := r.close(); err != nil {
		r.t.Error(err)
	}
}

// turn does what the loop does between two steps of the core, until ok.
func (r *fittingRoom) turn(what string, ok func() bool) {
	r.t.Helper()
	var inputs []node.Input
	for deadline, looked := time.Now().Add(20*time.Second), false; !looked || !ok(); looked = true {
		if time.Now().After(deadline) {
			r.t.Fatal("did not happen: " + what)
		}
		var calls []func(*node.Node)
		inputs, calls = r.inbox.take(5*time.Millisecond, inputs)
		for _, in := range inputs {
			switch in := in.(type) {
			case *node.Done:
				r.found[in.N] = in.Done
			case *node.Fitted:
				r.fitted = append(r.fitted, in.Revision)
			}
		}
		for _, f := range calls {
			f(nil)
		}
	}
}

// want asks for a target and returns the answer.
func (r *fittingRoom) want(group string, target cluster.Target, restart bool) cluster.Done {
	r.t.Helper()
	r.n++
	n := r.n
	at := place{cluster.GroupID(group), "p"}
	s := r.slots[at]
	if s == nil {
		r.t.Fatalf("there is no %s", at)
	}
	s.Want(cluster.Want{N: n, Group: at.group, Resource: at.resource, Target: target, Epoch: 1, Restart: restart, Deadline: 20 * time.Second})
	r.turn(fmt.Sprintf("%s is %s", at, target), func() bool { return r.found[n].N == n })
	return r.found[n]
}

func (r *fittingRoom) runs(group string) int {
	r.t.Helper()
	if d := r.want(group, cluster.TargetRunning, false); d.Status != cluster.StatusRunning {
		r.t.Fatalf("start %s: %+v", group, d)
	}
	return pidBelow(r.t, r.opt.RunDir, group)
}

// pidBelow reads the process id of a group's program; 0: there is none.
func pidBelow(t *testing.T, dir, group string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "resources", group, "p", "process.json"))
	if err != nil {
		return 0
	}
	var state struct{ PID int }
	if err := json.Unmarshal(text, &state); err != nil {
		t.Fatal(err)
	}
	return state.PID
}

func alive(pid int) bool { return pid > 0 && unix.Kill(pid, 0) == nil }

func (r *fittingRoom) change(spec *cluster.Spec) {
	r.t.Helper()
	if err := r.reconfigure(spec); err != nil {
		r.t.Fatal(err)
	}
}

func tmpfsDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "app-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// stubborn writes its end to a file, which takes it a while.
func stubborn(file string) string {
	return "trap 'sleep 0.3; echo ended >> " + file + "; exit' TERM; touch " + file + ".up; while :; do sleep 0.02; done"
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// A group comes, one goes, one has another command and one stays.
func TestReconfigureResources(t *testing.T) {
	dir, ended := tmpfsDir(t), filepath.Join(t.TempDir(), "ended")
	before := program("changed", "exec sleep 1000", 7001) + program("goes", stubborn(ended), 7002) + program("stays", "exec sleep 1000", 7003)
	r := newFittingRoom(t, dir, specOf(t, "3s", "", before))
	defer r.end()
	pids := make(map[string]int)
	for _, g := range []string{"changed", "goes", "stays"} {
		pids[g] = r.runs(g)
	}
	defer func() { r.want("changed", cluster.TargetStopped, false); r.want("stays", cluster.TargetStopped, false) }()
	r.turn("it listens", func() bool { return isThere(ended + ".up") })
	r.gates["goes"] = cluster.Gate{Group: "goes", Epoch: 4, End: cluster.Never}

	after := program("changed", "exec sleep 2000", 7001) + program("comes", "echo begun >> "+ended+"; exec sleep 1000", 7004) + program("stays", "exec sleep 1000", 7003)
	r.change(specOf(t, "3s", "", after))
	if !alive(pids["changed"]) || !alive(pids["stays"]) {
		t.Error("what is not said to stop was stopped")
	}
	if d := r.want("changed", cluster.TargetRunning, true); d.Status != cluster.StatusRunning {
		t.Errorf("restart: %+v", d)
	}
	now := r.runs("comes") // waits, since what goes is stubborn
	defer r.want("comes", cluster.TargetStopped, false)
	if alive(pids["goes"]) || !alive(now) {
		t.Errorf("of what goes %d is alive %v, of what comes %d %v", pids["goes"], alive(pids["goes"]), now, alive(now))
	}
	var order string
	r.turn("it has begun", func() bool {
		text, _ := os.ReadFile(ended)
		order = string(text)
		return strings.Contains(order, "begun")
	})
	if order != "ended\nbegun\n" {
		t.Errorf("the order was %q", order)
	}
	if pid := pidBelow(t, dir, "changed"); pid == pids["changed"] || alive(pids["changed"]) || !alive(pid) {
		t.Errorf("the changed one: %d, was %d", pid, pids["changed"])
	}
	if pid := pidBelow(t, dir, "stays"); pid != pids["stays"] || !alive(pid) {
		t.Errorf("the one that stays: %d, was %d", pid, pids["stays"])
	}
	r.turn("the gate forgets what is gone", func() bool { return len(r.retiring) == 0 })
	if isThere(filepath.Join(dir, "resources", "goes")) {
		t.Error("the directory of what is gone is there")
	}
	want := []string{
		"changed[][{tcp 7001}] goes[][{tcp 7002}] stays[][{tcp 7003}]",
		"changed[][{tcp 7001}] comes[][{tcp 7004}] stays[][{tcp 7003}] (shut)[][{tcp 7002}]",
		"changed[][{tcp 7001}] comes[][{tcp 7004}] stays[][{tcp 7003}]",
	}
	if got := r.gate.guarded(); !slices.Equal(got, want) {
		t.Errorf("guarded:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := fmt.Sprint(r.gate.shut); got != "[goes 4]" {
		t.Errorf("shut: %s", got)
	}
}

// A group comes and goes, and comes again, faster than its program stops: at the end it runs, once.
func TestReconfigureInHaste(t *testing.T) {
	dir, ended := tmpfsDir(t), filepath.Join(t.TempDir(), "ended")
	one, two := program("one", "exec sleep 1000", 7001), program("two", stubborn(ended), 7002)
	r := newFittingRoom(t, dir, specOf(t, "3s", "", one+two))
	defer r.end()
	pid := r.runs("two")
	r.turn("it listens", func() bool { return isThere(ended + ".up") })
	for range 3 {
		r.change(specOf(t, "3s", "", one))
		r.change(specOf(t, "3s", "", one+two))
	}
	now := r.runs("two")
	if now == pid || alive(pid) || !alive(now) {
		t.Errorf("%d runs, %d before", now, pid)
	}
	if text, _ := os.ReadFile(ended); string(text) != "ended\n" {
		t.Errorf("stopped: %q", text)
	}
	r.change(specOf(t, "3s", "", one))
	r.turn("it is gone", func() bool { return !alive(now) && len(r.retiring) == 0 })
}

// An agent dies, and the next one has another file: what that does not name is stopped and its directory goes;
// what has another command is not known to be as it should.
func TestLeftoversAreStopped(t *testing.T) {
	dir := tmpfsDir(t)
	r := newFittingRoom(t, dir, specOf(t, "3s", "", program("changed", "exec sleep 1000", 7001)+program("goes", "exec sleep 1000", 7002)+program("stays", "exec sleep 1000", 7003)))
	pids := make(map[string]int)
	for _, g := range []string{"changed", "goes", "stays"} {
		pids[g] = r.runs(g)
	}
	r.end()
	next := newFittingRoom(t, dir, specOf(t, "3s", "", program("changed", "exec sleep 2000", 7001)+program("stays", "exec sleep 1000", 7003)))
	defer next.end()
	if alive(pids["goes"]) || !alive(pids["changed"]) || !alive(pids["stays"]) {
		t.Error("the wrong ones were stopped")
	}
	if isThere(filepath.Join(dir, "resources", "goes")) {
		t.Error("the directory of what is gone is there")
	}
	got := make(map[cluster.GroupID]cluster.Status)
	for _, d := range next.boot.Found {
		got[d.Group] = d.Status
	}
	if got["changed"] != cluster.StatusUnknown || got["stays"] != cluster.StatusRunning || len(got) != 2 {
		t.Errorf("found %v", got)
	}
	if g := next.gate.guarded(); len(g) != 1 || g[0] != "changed[][{tcp 7001}] stays[][{tcp 7003}]" {
		t.Errorf("guarded %q", g)
	}
	for _, g := range []string{"changed", "stays"} {
		next.runs(g)
		next.want(g, cluster.TargetStopped, false)
	}
}

// A gate that can't be had is asked again, promptly at first, and the core hears that the revision is carried out
// only when what it names is guarded.
func TestGuardIsTriedAgain(t *testing.T) {
	r := newFittingRoom(t, tmpfsDir(t), specOf(t, "3s", "", program("one", "exec sleep 1000", 7001)))
	defer r.end()
	r.gate.fault = os.ErrPermission
	r.change(specOf(t, "3s", "", program("one", "exec sleep 1000", 7009)))
	r.fits(5)
	now := r.clock.now().Mono
	if wait := r.guardWake().Sub(now); wait > retryPromptly {
		t.Errorf("it is tried again after %v", wait)
	}
	tries := len(r.gate.guarded())
	for range 3 {
		r.guardAgain(r.guardWake())
	}
	if n := len(r.gate.guarded()) - tries; n != 3 {
		t.Errorf("tried %d times more", n)
	}
	r.failing -= cluster.Instant(r.spec.Timing.H)
	begun := r.clock.now().Mono
	r.guardAgain(r.guardWake())
	if next, ended := r.guardWake(), r.clock.now().Mono; next.Sub(begun) < guardEvery/2 || next.Sub(ended) > guardEvery {
		t.Errorf("what goes on failing is tried again %v after that has begun, %v after it has ended", next.Sub(begun), next.Sub(ended))
	}
	r.turn("nothing", func() bool { return true })
	if len(r.fitted) > 0 {
		t.Errorf("it is not guarded, and the core is told %v", r.fitted)
	}
	r.gate.fault = nil
	r.guardAgain(r.guardWake())
	r.turn("the core is told", func() bool { return slices.Equal(r.fitted, []cluster.Revision{5}) })
	r.turn("what nothing runs by is not guarded", func() bool {
		r.guardAgain(r.clock.now().Mono)
		return r.gate.guards[len(r.gate.guards)-1] == "one[][{tcp 7009}]"
	})
	tries = len(r.gate.guarded())
	r.change(specOf(t, "250ms", "", program("one", "exec sleep 1000", 7009)))
	r.fits(6)
	r.turn("the core is told", func() bool { return slices.Equal(r.fitted, []cluster.Revision{5, 6}) })
	if g := r.gate.guarded(); len(g) != tries {
		t.Errorf("guarded again though nothing has changed: %q", g)
	}
}

// A core that has begun is told that what it begins with is carried out.
func TestBootIsFitted(t *testing.T) {
	r := newFittingRoom(t, tmpfsDir(t), specOf(t, "3s", "", program("web", "true", 7001)))
	defer r.end()
	r.persists = make(chan cluster.Persist, persistsMax)
	r.node = node.New(node.Config{Self: r.self, Spec: r.spec, Read: r.read})
	r.step(&node.Boot{Boot: 1, Run: 1, Disk: cluster.DiskImage{Incarnation: 1}})
	r.turn("the core is told", func() bool { return slices.Equal(r.fitted, []cluster.Revision{0}) })
}

// A port is taken from a group, in each way there is, and another group here has it by then: nothing passes to it
// until the program that had it is stopped, whichever group's gate is open.
func TestTakenPortsAreShut(t *testing.T) {
	has, hasNot := program("web", "exec sleep 1000", 7001), program("web", "exec sleep 1001", 7002)
	second := "      - process: { name: q, command: [sleep, '1000'], user: root, ports: [tcp/7003] }\n"
	elsewhere := strings.Replace(has, "[a, b]", "[b]", 1)
	mail := func(port int) string { return program("mail", "exec sleep 1000", port) }
	for name, c := range map[string]struct{ before, after, shut, at string }{
		"changed":         {has + mail(7009), hasNot + mail(7001), "mail[][] web[][{tcp 7002}] (shut)[][{tcp 7001}]", "mail[][{tcp 7001}] web[][{tcp 7002}]"},
		"group removed":   {has + mail(7009), mail(7001), "mail[][] (shut)[][{tcp 7001} {tcp 7009}]", "mail[][{tcp 7001}]"},
		"runs elsewhere":  {has + mail(7009), elsewhere + mail(7008), "mail[][{tcp 7008}] (shut)[][{tcp 7001} {tcp 7009}]", "mail[][{tcp 7008}]"},
		"resource goes":   {has + second + mail(7009), has + mail(7003), "mail[][] web[][{tcp 7001}] (shut)[][{tcp 7003} {tcp 7009}]", "mail[][{tcp 7003}] web[][{tcp 7001}]"},
		"resource's name": {has, strings.Replace(has, "name: p", "name: r", 1), "web[][{tcp 7001}]", "web[][{tcp 7001}]"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFittingRoom(t, tmpfsDir(t), specOf(t, "3s", "", c.before))
			defer r.end()
			pid := r.runs("web")
			defer unix.Kill(pid, unix.SIGKILL)
			if second := r.slots[place{"web", "q"}]; second != nil {
				second.Want(cluster.Want{N: 99, Group: "web", Resource: "q", Target: cluster.TargetRunning, Epoch: 1, Deadline: 20 * time.Second})
				r.turn("the second runs", func() bool { return r.found[99].Status == cluster.StatusRunning })
			}
			r.change(specOf(t, "3s", "", c.after))
			r.fits(2)
			// What of mail is guarded beside depends on whether its probe has come by now: nothing of it has run.
			if got, want := r.gate.guarded()[len(r.gate.guarded())-1], c.shut; !sameShut(got, want) {
				t.Errorf("guarded %q, want %q", got, want)
			}
			if r.slots[place{"web", "p"}] != nil && name == "changed" {
				r.want("web", cluster.TargetRunning, true)
				defer r.want("web", cluster.TargetStopped, false)
			}
			r.turn("the port is mail's", func() bool {
				r.guardAgain(r.clock.now().Mono)
				return r.gate.guarded()[len(r.gate.guarded())-1] == c.at
			})
			if name != "resource goes" {
				r.turn("the program that had the port is stopped", func() bool { return !alive(pid) })
			}
			r.turn("the core is told", func() bool { return len(r.fitted) > 0 })
		})
	}
}

// sameShut compares what is guarded, but for a port that nothing has run by.
func sameShut(got, want string) bool {
	clean := func(s string) string {
		return strings.NewReplacer(" {tcp 7009}", "", " (shut)[][{tcp 7009}]", "").Replace(s)
	}
	return clean(got) == clean(want)
}

// An agent dies before it could stop what a revision took a port from. The next one keeps it shut until it has.
func TestFormerPortsAreShutByTheNextAgent(t *testing.T) {
	dir := tmpfsDir(t)
	r := newFittingRoom(t, dir, specOf(t, "3s", "", program("web", "exec sleep 1000", 7001)))
	r.runs("web")
	r.change(specOf(t, "3s", "", program("web", "exec sleep 1001", 7002)))
	time.Sleep(50 * time.Millisecond) // it may note the new description
	r.end()
	for range 2 {
		next := newFittingRoom(t, dir, specOf(t, "3s", "", program("mail", "exec sleep 1000", 7001)+program("web", "exec sleep 1001", 7002)))
		if g := next.gate.guarded(); g[0] != "mail[][] web[][{tcp 7002}] (shut)[][{tcp 7001}]" {
			t.Errorf("guarded %q", g)
		}
		next.end()
	}
	last := newFittingRoom(t, dir, specOf(t, "3s", "", program("mail", "exec sleep 1000", 7001)+program("web", "exec sleep 1001", 7002)))
	defer last.end()
	last.want("web", cluster.TargetRunning, true)
	defer last.want("web", cluster.TargetStopped, false)
	last.guardAgain(last.clock.now().Mono)
	if g := last.gate.guarded(); g[len(g)-1] != "mail[][{tcp 7001}] web[][{tcp 7002}]" {
		t.Errorf("guarded %q", g)
	}
	if m, err := resource.Recall(dir + "/resources/web/p"); err != nil || len(m.Ports) != 1 {
		t.Errorf("the directory tells of %+v, %v", m, err)
	}
}

// A run directory of a kind that this version does not have can't be stopped by it: its port stays shut.
func TestWhatCannotBeStoppedStaysShut(t *testing.T) {
	dir := tmpfsDir(t)
	at := filepath.Join(dir, "resources", "old", "r")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, "resource.json"), []byte(`{"Kind": "future", "Ports": [{"Protocol": "tcp", "Number": 7005}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newFittingRoom(t, dir, specOf(t, "3s", "", program("web", "exec sleep 1000", 7001)))
	defer r.end()
	if g := r.gate.guarded(); g[0] != "web[][{tcp 7001}] (shut)[][{tcp 7005}]" {
		t.Errorf("guarded %q", g)
	}
}

// A short takeover gives the loop realtime priority, a long one takes it back; either way the loop is woken.
func TestPaceFollowsTheFile(t *testing.T) {
	r := newFittingRoom(t, tmpfsDir(t), specOf(t, "3s", "", program("one", "exec sleep 1000", 7001)))
	defer r.end()
	policy := func() int {
		p, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
		if errno != 0 {
			t.Fatal(errno)
		}
		return int(p) &^ resetOnFork
	}
	type turn struct{ policy int }
	turns := make(chan turn, 1)
	done := make(chan struct{})
	go func() { // the loop's goroutine
		defer close(done)
		for i, takeover := range []string{"3s", "250ms", "3s", "250ms", "3s"} {
			if i > 0 {
				r.change(specOf(t, takeover, "", program("one", "exec sleep 1000", 7001)))
			}
			woken := false
			time.AfterFunc(10*time.Millisecond, func() { r.inbox.do(func() { woken = true }) })
			r.turn("the loop is woken", func() bool { return woken })
			turns <- turn{policy()}
		}
	}()
	for i, want := range []int{unix.SCHED_NORMAL, unix.SCHED_FIFO, unix.SCHED_NORMAL, unix.SCHED_FIFO, unix.SCHED_NORMAL} {
		if got := (<-turns).policy; got != want {
			t.Errorf("step %d: the loop's policy is %d, want %d", i, got, want)
		}
	}
	<-done
}

// Links change, and what was received before bears their new places.
func TestRelink(t *testing.T) {
	link := func(name string) cluster.LinkSpec { return cluster.LinkSpec{Name: name} }
	before, after := []cluster.LinkSpec{link("lan"), link("cross")}, []cluster.LinkSpec{link("front"), link("cross")}
	inputs := []node.Input{&node.Packet{Link: 0}, &node.Packet{Link: 1}, &node.Packet{Link: 99}, &node.Gated{N: 3}}
	relink(inputs, before, after)
	if _, ok := inputs[0].(*node.Tick); !ok {
		t.Errorf("a packet over a link that is gone: %+v", inputs[0])
	}
	if p := inputs[1].(*node.Packet); p.Link != 1 {
		t.Errorf("cross has the place %d", p.Link)
	}
	relink(inputs[1:], after, before[1:])
	if p := inputs[1].(*node.Packet); p.Link != 0 {
		t.Errorf("cross has the place %d", p.Link)
	}
	if p := inputs[2].(*node.Packet); p.Link != 99 {
		t.Errorf("a packet of no link has the place %d", p.Link)
	}
}

// What is seen of the interfaces counts only under the configuration that it was seen for.
func TestSurroundingsOfAnotherFile(t *testing.T) {
	one, two := new(cluster.Spec), new(cluster.Spec)
	s := surroundings{&node.Observed{LinkDown: []bool{true}}, one}
	if in := s.told(one); in != node.Input(s.Observed) {
		t.Errorf("told %+v", in)
	}
	if _, ok := s.told(two).(*node.Tick); !ok {
		t.Errorf("told %+v", s.told(two))
	}
}

// An agent without a gate does not follow a file that needs one.
func TestNoGateIsNotReconfigured(t *testing.T) {
	r := newFittingRoom(t, tmpfsDir(t), specOf(t, "3s", "", program("one", "exec sleep 1000", 7001)))
	defer r.end()
	spec := specOf(t, "3s", "", "  one:\n    nodes: [a, b]\n    resources:\n      - vip: { address: 10.99.0.9/24, interface: lo }\n")
	if err := r.reconfigure(spec); err == nil || r.spec == spec {
		t.Errorf("followed: %v", err)
	}
}
