package trial

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

func TestMain(m *testing.M) {
	lab.MaybeInit()
	dir, err := os.MkdirTemp("", "baton-trial")
	if err == nil && os.Getenv("BATON_BINARY") == "" { // else: try that one
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

const (
	limit = 30 * time.Second // for what must come true at all
	slack = time.Second      // what a noisy machine may add to a takeover
	// blip is the longest time without an answer that counts as undisturbed service.
	blip          = 50 * time.Millisecond
	plainInterval = 4 * time.Millisecond
	// handover bounds the gap of a planned move, and of one that waits for no lease.
	handover = 500 * time.Millisecond
)

// incident is a cluster in which the group serves on alpha, with a client that asks it all the time. That
// no two nodes ever served at once is judged at the end of each.
type incident struct {
	*Trial
	t     *testing.T
	probe *lab.Probe
	// plain asks the service at each member's own address, which no gate guards and which never moves: what
	// is not answered there either is the machine's doing.
	plain map[string]*lab.Probe
}

// start makes a cluster that serves on alpha.
func start(t *testing.T, opt Options) *incident {
	t.Helper()
	c, err := New(strings.ReplaceAll(t.Name(), "/", "-"), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() || os.Getenv("BATON_LOGS") != "" {
			for _, n := range Nodes {
				b, _ := os.ReadFile(c.Host(n).LogPath("agent"))
				t.Logf("%s's log:\n%s", n, b)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	i := &incident{Trial: c, t: t}
	i.must(c.AwaitServing(Alpha, limit))
	i.probe = i.ask(Client, VIP)
	i.plain = make(map[string]*lab.Probe)
	for k, n := range Nodes[:2] {
		own := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(11 + k)}), VIP.Port())
		i.plain[n], err = c.Host(Client).Probe(lab.ProbeConfig{Target: own, Interval: plainInterval})
		i.must(err)
		t.Cleanup(func() { i.plain[n].Stop() })
	}
	return i
}

// ask begins to ask for the service from a host.
func (c *incident) ask(host string, target netip.AddrPort) *lab.Probe {
	c.t.Helper()
	p, err := c.Host(host).Probe(lab.ProbeConfig{Target: target})
	c.must(err)
	c.must(p.Await(limit, func(r lab.Record) bool { return len(r.Replies) > 100 }))
	c.t.Cleanup(func() {
		r := p.Stop()
		c.t.Logf("asked %v from %s: %v", target, host, r)
		if o := r.Overlap(); o != 0 {
			c.t.Errorf("two nodes served at once for %v: %+v", o, r.Tenures())
		}
		if r.Strays != 0 {
			c.t.Errorf("%d answers from an address that was not asked", r.Strays)
		}
	})
	return p
}

func (c *incident) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// at does something to the cluster, and returns the instant before it.
func (c *incident) at(err func() error) time.Duration {
	c.t.Helper()
	now := lab.Now()
	c.must(err())
	return now
}

// movesTo waits until the group serves on the node, by the client's word and its own. It returns the longest
// time without an answer since the instant.
func (c *incident) movesTo(owner string, since time.Duration) time.Duration {
	c.t.Helper()
	if err := c.probe.Await(limit, func(r lab.Record) bool { return r.AnsweredSince(since, owner) }); err != nil {
		c.t.Fatalf("%s does not answer: %v", owner, err)
	}
	gap := longest(c.probe.Record(), since)
	c.must(c.Await(owner, limit, owner+" says that it serves", func(s *Status) bool { return s.Group().Owner == owner && s.Group().Serving }))
	c.t.Logf("on %s after an outage of %v", owner, gap)
	return gap
}

// failsOver is movesTo within the takeover that was asked for.
func (c *incident) failsOver(owner string, since time.Duration) {
	c.t.Helper()
	if gap := c.movesTo(owner, since); gap > c.takeover()+slack {
		c.t.Errorf("an outage of %v, where a takeover of %v was asked for", gap, c.takeover())
	}
}

// longest is the longest time without an answer since an instant.
func longest(r lab.Record, since time.Duration) time.Duration {
	var worst time.Duration
	for _, g := range r.Gaps(0) {
		worst = max(worst, g.To-max(g.From, since))
	}
	return worst
}

// group returns the group as a node sees it, whose agent may just begin.
func (c *incident) group(node string) (g GroupStatus) {
	c.t.Helper()
	c.must(c.Await(node, limit, node+" answers", func(s *Status) bool { g = s.Group(); return true }))
	return g
}

// tellsOf waits until a command on a node, which may learn of things a moment later than others, prints a text.
func (c *incident) tellsOf(text, node string, args ...string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%v on %s says %q", args, node, text), func() bool { return strings.Contains(c.run(node, args...), text) })
}

// undisturbed does something that must disturb nobody, watches for a while, and judges: the same epoch
// on all nodes that are on, and not one answer late.
func (c *incident) undisturbed(what string, watch time.Duration, fault func() error) {
	c.t.Helper()
	before := c.served()
	since := c.at(fault)
	time.Sleep(watch)
	c.noGap(what, since)
	c.sameEpoch(what, before)
}

// served returns the group as its owner sees it.
func (c *incident) served() (g GroupStatus) {
	c.t.Helper()
	c.eventually("some node serves", func() bool {
		for _, n := range Nodes[:2] {
			if s, err := c.Status(n); err == nil && s.Group().Serving && s.Group().Owner == n {
				g = s.Group()
				return true
			}
		}
		return false
	})
	return g
}

// noGap checks that the client was answered all the time since an instant, but for what the machine held up.
func (c *incident) noGap(what string, since time.Duration) {
	c.t.Helper()
	c.noGapOf(c.probe, what, since)
}

func (c *incident) noGapOf(p *lab.Probe, what string, since time.Duration) {
	c.t.Helper()
	r := p.Record()
	for _, g := range r.Gaps(blip) {
		g.From = max(g.From, since)
		if length := g.Length() - c.heldUp(g, ownerAt(r, g.From)); length > blip {
			c.t.Errorf("%s: no answer for %v, %v of it not the machine's doing", what, g.Length(), length)
		}
	}
}

// heldUp tells for how long, in a gap, the owner did not answer at its own address either.
func (c *incident) heldUp(gap lab.Gap, owner string) (sum time.Duration) {
	p := c.plain[owner]
	if p == nil {
		return 0
	}
	for _, g := range p.Record().Gaps(3 * plainInterval) {
		sum += max(0, min(g.To, gap.To)-max(g.From, gap.From))
	}
	return sum
}

// ownerAt returns who answered last before an instant, or at it.
func ownerAt(r lab.Record, at time.Duration) (node string) {
	for _, x := range r.Replies {
		if x.Received <= at {
			node = x.Node
		}
	}
	return node
}

// sameEpoch checks that the group was not placed anew.
func (c *incident) sameEpoch(what string, before GroupStatus) {
	c.t.Helper()
	for _, n := range Nodes {
		if !c.Host(n).On() {
			continue
		}
		if g := c.group(n); g.Epoch != before.Epoch || g.Owner != before.Owner {
			c.t.Errorf("%s: %s says that the group is on %s under epoch %s; it was on %s under %s", what, n, g.Owner, g.Epoch, before.Owner, before.Epoch)
		}
	}
}

// run runs a command of the binary on a node; it must succeed.
func (c *incident) run(node string, args ...string) string {
	c.t.Helper()
	out, err := c.command(node, args...)
	c.must(err)
	return out
}

func (c *incident) command(node string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	return c.Run(ctx, node, args...)
}

// refused runs a command that must be refused with exit status 1, a reason and a hint.
func (c *incident) refused(reason, node string, args ...string) {
	c.t.Helper()
	_, err := c.command(node, args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		c.t.Errorf("%v on %s was not refused: %v", args, node, err)
		return
	}
	text := err.Error()
	if exit.ExitCode() != 1 || !strings.Contains(text, reason) || !strings.Contains(text, "hint: ") {
		c.t.Errorf("%v on %s: exit status %d, want 1, a reason (%q) and a hint: %s", args, node, exit.ExitCode(), reason, text)
	}
}

// shell runs a line on a host and returns its output.
func (c *incident) shell(host, line string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	out, err := c.Host(host).Command(ctx, "sh", "-c", line)
	c.must(err)
	return out
}

// holdsVIP tells whether the address is on a host.
func (c *incident) holdsVIP(host string) bool {
	c.t.Helper()
	return strings.Contains(c.shell(host, "ip -o address show"), VIP.Addr().String()+"/")
}

// eventually waits until something is so.
func (c *incident) eventually(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			c.t.Fatalf("not so within %v: %s", limit, what)
		}
	}
}

// serviceRuns waits for the service's process on a node and returns its id.
func (c *incident) serviceRuns(node string) (pid int) {
	c.t.Helper()
	c.eventually("the service runs on "+node, func() (ok bool) {
		var err error
		pid, err = c.ServicePID(node)
		return err == nil
	})
	return pid
}

// coordinator waits until all nodes agree on who coordinates.
func (c *incident) coordinator(node string) {
	c.t.Helper()
	for _, n := range Nodes {
		c.must(c.Await(n, limit, node+" coordinates", func(s *Status) bool { return s.Coordinator == node }))
	}
}

// await waits for what a probe sees.
func (c *incident) await(p *lab.Probe, what string, ok func(lab.Record) bool) {
	c.t.Helper()
	if err := p.Await(limit, ok); err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
}

func (c *incident) takeover() time.Duration {
	c.t.Helper()
	d, err := time.ParseDuration(c.opt.Takeover)
	c.must(err)
	return d
}

// lossTime is how long faults last that must not matter; BATON_LONG=1 makes it a minute.
func (c *incident) lossTime() time.Duration {
	if os.Getenv("BATON_LONG") != "" {
		return time.Minute
	}
	return 15 * time.Second
}

// last returns when the last answer of a node came; "": of any.
func last(r lab.Record, node string) (at time.Duration) {
	for _, x := range r.Replies {
		if node == "" || x.Node == node {
			at = max(at, x.Received)
		}
	}
	return at
}

// firstSince returns when the first answer of a node to a request that was sent after an instant came;
// the record's end if none did.
func firstSince(r lab.Record, node string, since time.Duration) time.Duration {
	for _, x := range r.Replies {
		if x.Node == node && x.Sent > since {
			return x.Received
		}
	}
	return r.Ended
}

func first(r lab.Record, node string) time.Duration { return firstSince(r, node, 0) }

// breakAgent makes every further start of a node's agent fail, until repair is called.
func (c *incident) breakAgent(node string) (repair func() error) {
	c.t.Helper()
	file := filepath.Join(c.Host(node).Disk("/etc/baton"), "cluster.yaml")
	c.must(os.Rename(file, file+".gone"))
	return func() error { return os.Rename(file+".gone", file) }
}

// stopAgent stops a node's agent for good, as `systemctl stop` does.
func (c *incident) stopAgent(node string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	c.must(c.Agent(node).Stop(ctx))
}

// ownAddress is the service at alpha's own address, which no gate guards.
var ownAddress = netip.MustParseAddrPort("10.77.0.11:8080")
