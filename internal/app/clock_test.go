package app

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
)

// kernel stands for the kernel's clocks: undisturbed readings take a microsecond each.
type kernel struct {
	mono, raw, suspended int64
	slew                 int64           // in percent: by how much MONOTONIC and BOOTTIME run faster than RAW
	stalls               []time.Duration // before the reading of RAW, of BOOTTIME, and the last, of the readings to come
	reads                int
}

func newKernel() *kernel {
	return &kernel{mono: int64(time.Hour), raw: int64(time.Hour) + 5e6, suspended: int64(time.Minute)}
}

func (k *kernel) pass(d time.Duration) { k.mono += int64(d) * (100 + k.slew) / 100; k.raw += int64(d) }

func (k *kernel) sleep(d time.Duration) { k.suspended += int64(d) }

func (k *kernel) read() (r reading) {
	k.reads++
	step := func() {
		k.pass(time.Microsecond)
		if len(k.stalls) > 0 {
			k.pass(k.stalls[0])
			k.stalls = k.stalls[1:]
		}
	}
	r.before = k.mono
	step()
	r.raw = k.raw
	step()
	r.boot = k.mono + k.suspended
	step()
	r.after = k.mono
	return r
}

// stall makes every reading wide from now on, by a pause at one place of each.
func (k *kernel) stall(at int, d time.Duration) {
	k.stalls = nil
	for range 3 * brackets {
		var each [3]time.Duration
		each[at] = d
		k.stalls = append(k.stalls, each[:]...)
	}
}

// own is the node's own clock as it should be.
func (k *kernel) own() int64 { return k.raw + k.suspended }

// true translates an instant of the own clock as it should be.
func (k *kernel) boottime(i cluster.Instant) int64 {
	return k.mono + k.suspended + int64(i) - k.own()
}

// early checks that a deadline comes out early, and by no more than that.
func (k *kernel) early(t *testing.T, c *clock, i cluster.Instant, most time.Duration, what string) {
	t.Helper()
	if late := c.boottime(i) - k.boottime(i); late > 0 || late < -int64(most) {
		t.Errorf("%s: a deadline is late by %v", what, time.Duration(late))
	}
}

// Where every reading is disturbed the clock goes on, a suspend is seen, and deadlines are early rather than late.
func TestWideReadings(t *testing.T) {
	for at := range 3 {
		for _, slept := range []time.Duration{0, time.Minute} {
			what := fmt.Sprintf("pause %d, suspended %v", at, slept)
			k := newKernel()
			c := &clock{read: k.read}
			c.now()
			k.pass(time.Second / 2)
			k.sleep(slept)
			k.stall(at, 5*time.Millisecond)
			reads := k.reads
			now := c.now()
			if k.reads-reads != brackets {
				t.Errorf("%s: %d attempts", what, k.reads-reads)
			}
			if late := k.own() - int64(now.Mono); late < 0 || late > int64(11*time.Millisecond) {
				t.Errorf("%s: the own clock is late by %v", what, time.Duration(late))
			}
			k.early(t, c, now.Mono.Add(time.Second), 11*time.Millisecond, what)
			if got := c.slept(); got != (slept > 0) {
				t.Errorf("%s: slept %v", what, got)
			}
		}
	}
}

// One undisturbed reading among those that were taken again is enough, and of disturbed ones the narrowest counts, less what a slew may have bent
// in the attempts that followed.
func TestDisturbedReadingIsTakenAgain(t *testing.T) {
	for width, most := range map[time.Duration]time.Duration{0: 10 * time.Microsecond, 200 * time.Microsecond: 2200 * time.Microsecond} {
		for narrow := range brackets {
			k := newKernel()
			c := &clock{read: k.read}
			c.now()
			k.pass(time.Second)
			k.stall(1, 5*time.Millisecond)
			k.stalls[3*narrow+1] = width
			k.mono += int64(time.Second / 100) // slewed: BOOTTIME ran faster
			now := c.now()
			k.early(t, c, now.Mono.Add(time.Second), most, fmt.Sprintf("attempt %d takes %v", narrow, width))
		}
	}
}

// Deadlines are never late, however long readings take and however the clock is slewed: not by what is left of a
// former translation, and not by what passes between the readings of the clocks.
func TestDeadlinesAreNeverLate(t *testing.T) {
	for _, width := range []time.Duration{0, 90 * time.Microsecond, 160 * time.Microsecond, 2 * time.Millisecond} {
		for _, slew := range []int64{-8, 0, 8} {
			for at := range 3 {
				k := newKernel()
				c := &clock{read: k.read}
				k.slew = slew
				for turn := range 200 {
					k.stall(at, width)
					now := c.now()
					k.early(t, c, now.Mono.Add(80*time.Millisecond), 2*width+10*time.Microsecond, fmt.Sprintf("pause %d of %v, slew %d %%, turn %d", at, width, slew, turn))
					k.pass(8 * time.Millisecond)
					if turn == 100 {
						k.sleep(time.Minute)
					}
				}
			}
		}
	}
}

// What a former run left in the kernel is not prolonged by being read and written again.
func TestDeadlineThereAndBack(t *testing.T) {
	k := newKernel()
	c := &clock{read: k.read}
	d := k.mono + k.suspended + int64(time.Second)
	for _, width := range []time.Duration{2 * time.Millisecond, 0, 90 * time.Microsecond} {
		k.stall(1, width)
		c.now()
		i := c.instant(d)
		k.stall(1, 0)
		c.now()
		if again := c.boottime(i); again > d || d-again > int64(5*time.Millisecond) {
			t.Errorf("it is %v later", time.Duration(again-d))
		}
	}
}

// The own clock goes on through a suspend, which is told once; what is no suspend is not told.
func TestSuspendIsNoticed(t *testing.T) {
	k := newKernel()
	c := &clock{read: k.read}
	before := c.now()
	if c.slept() {
		t.Error("the machine was suspended before the agent began")
	}
	for range 1000 {
		k.pass(time.Millisecond)
		c.now()
	}
	k.sleep(suspendLeast / 2)
	if c.now(); c.slept() {
		t.Error("what may be an error of measuring is told as a suspend")
	}
	k.sleep(3 * time.Second)
	c.now()
	after := c.now()
	if took := after.Mono.Sub(before.Mono); took < 4*time.Second || took > 4*time.Second+10*time.Millisecond {
		t.Errorf("%v have passed", took)
	}
	if !c.slept() || c.slept() {
		t.Error("a suspend is told once")
	}
	i := after.Mono.Add(time.Second)
	k.early(t, c, i, bracket, "after a suspend")
	if back := c.instant(c.boottime(i)); back > i || i.Sub(back) > bracket {
		t.Errorf("%d came back as %d", i, back)
	}
}

// Readings of the real clocks count.
func TestRealClocks(t *testing.T) {
	var c clock
	last := c.now()
	for range 1000 {
		now := c.now()
		if now.Mono < last.Mono || c.slept() {
			t.Fatalf("%d after %d, slept", now.Mono, last.Mono)
		}
		last = now
	}
	if off := c.boottime(last.Mono) - c.boot; off > int64(time.Second) || off < -int64(time.Second) {
		t.Errorf("now is translated to %v from the last reading", time.Duration(off))
	}
}

// A suspend goes to the core before what has arrived since, and once.
func TestSuspendGoesFirst(t *testing.T) {
	r := newFittingRoom(t, tmpfsDir(t), specOf(t, "3s", "", program("web", "true", 7001)))
	defer r.end()
	a, k := r.agent, newKernel()
	a.clock = clock{read: k.read}
	a.clock.now()
	a.persists = make(chan cluster.Persist, persistsMax)
	var order []string
	a.log = slog.New(&heardHandler{heard: func(text string) {
		if strings.Contains(text, "was suspended") {
			order = append(order, "suspend")
		}
	}})
	a.node = node.New(node.Config{Self: a.self, Spec: a.spec, Read: a.read})
	k.sleep(time.Minute) // between the first reading and the first step: the boot must come first nevertheless
	a.step(&node.Boot{Boot: 1, Run: 1, Disk: cluster.DiskImage{Incarnation: 1}})
	ask := func() {
		answer := make(chan node.Reply, 1)
		a.commands++
		a.replies[a.commands] = answer
		a.step(&node.Command{ID: a.commands, Op: node.OpSwitch, Group: "web"})
		<-answer
		order = append(order, "answer")
	}
	ask()
	ask()
	k.pass(time.Millisecond)
	k.sleep(time.Hour)
	ask()
	ask()
	if got := strings.Join(order, " "); got != "suspend answer answer suspend answer answer" {
		t.Errorf("the order is %s", got)
	}
}

// heardHandler hands on what is logged.
type heardHandler struct {
	slog.Handler
	heard func(text string)
}

func (h *heardHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *heardHandler) Handle(_ context.Context, r slog.Record) error {
	h.heard(r.Message)
	return nil
}

func (h *heardHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h *heardHandler) WithGroup(string) slog.Handler { return h }
